"""Choose which arrays to put on a device, and which workload runs on which of them.

Candidates are machines with exact cycles of every workload and estimated resources. An integer
program picks arrays under the device's resources, memory bandwidth and power and parts the
workloads among them, so that the last array to finish is done as early as possible.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from cost_models import price
from mapping.machines import map_graph
from mapping.placer.device import Device, Resource
from mapping.placer.infeasible import InfeasiblePlacement, Shortage
from mapping.placer.model import Model, Row, Variable
from mapping.placer.problem import Caps, Status
from mapping.placer.solver import Solution, solve
from simulator.arch import NMArray, Precision
from simulator.simulate import simulate
from workloads.canonical import Spec
from workloads.graph import WorkloadGraph

__all__ = ["Budget", "Candidate", "Choice", "choose", "estimate", "pareto", "simulated"]

PE_LUTS: Final = 112
PE_GROUP: Final = 4
"""LUTs of the int8 PE with groups of 4 in synthesis of its RTL (yosys, UltraScale+)."""

URAM_BYTES: Final = 288 * 1024 // 8
"""Bytes of one UltraRAM (UG573)."""

OPERAND_BITS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate(Spec):
    """A machine that could be built: cycles of every workload, what it takes, watts at most."""

    name: str
    pes: int
    cycles: dict[str, int]
    needs: dict[Resource, int]
    bandwidth_bytes_per_s: int
    power_w: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget(Spec):
    """What all chosen machines may take together; power None is no limit."""

    name: str
    limits: dict[Resource, int]
    bandwidth_bytes_per_s: int
    power_w: float | None = None

    @classmethod
    def of(
        cls,
        device: Device,
        *,
        bandwidth_bytes_per_s: int,
        caps: Caps | None = None,
        power_w: float | None = None,
    ) -> "Budget":
        """Return the budget of a whole device under caps."""
        shares = caps or Caps()
        return cls(
            name=device.name,
            limits={r: int(device.totals()[r.value] * shares.share(r)) for r in Resource},
            bandwidth_bytes_per_s=bandwidth_bytes_per_s,
            power_w=power_w,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice(Spec):
    """The arrays chosen, the workloads of each, and the proof.

    cycles: of the array that finishes last. used: shares of every limit. reason: why this choice
    wins, and what keeps the next faster candidate off the device.
    """

    machines: tuple[str, ...]
    assignment: dict[str, str]
    cycles: int
    bound: int
    status: Status
    used: dict[str, float]
    reason: str

    @property
    def gap(self) -> float:
        """Relative distance of cycles and bound; 0 when the choice is proved best."""
        return (self.cycles - self.bound) / self.cycles if self.cycles else 0.0


def estimate(arch: NMArray) -> dict[Resource, int]:
    """Return what an int8 array takes of a device: PEs and buffers, not its controllers.

    A PE has one DSP48E2 a multiplier (as synthesis maps it) and PE_LUTS; each multiplier selects
    its operand bit by bit among `max_m`, and a LUT6 is a multiplexer of 4 (UG574), so a larger
    group takes a tree of them. Buffers are UltraRAM. Raises ValueError for fp16, of which there
    is no synthesis.
    """
    if arch.precision is not Precision.INT8:
        raise ValueError("Resources are known for int8 arrays, there is no synthesis of fp16 ones")
    more = _multiplexer(arch.max_m) - _multiplexer(PE_GROUP)
    luts = PE_LUTS + arch.macs_per_pe * OPERAND_BITS * more
    buffers = (arch.act_buffer, arch.weight_buffer, arch.out_buffer)
    return {
        Resource.DSP: arch.pes * arch.macs_per_pe,
        Resource.LUT: arch.pes * luts,
        Resource.BRAM: 0,
        Resource.URAM: sum(-(-b.capacity_bytes // URAM_BYTES) for b in buffers),
    }


def _multiplexer(inputs: int) -> int:
    """Return the LUT6s of a one-bit multiplexer: each takes four inputs and leaves one."""
    return -(-(inputs - 1) // 3)


def simulated(
    machines: Mapping[str, NMArray], workloads: Mapping[str, WorkloadGraph]
) -> tuple[Candidate, ...]:
    """Return the candidates of some machines, each workload mapped and simulated exactly.

    Power is the dynamic power of the workload that draws most.
    """
    found = []
    for name, arch in machines.items():
        results = {
            job: simulate(map_graph(graph, arch).schedule, arch) for job, graph in workloads.items()
        }
        found.append(
            Candidate(
                name=name,
                pes=arch.pes,
                cycles={job: result.cycles for job, result in results.items()},
                needs=estimate(arch),
                bandwidth_bytes_per_s=arch.dram.bandwidth_bytes_per_s,
                power_w=max(price(r).energy_j / r.seconds for r in results.values()),
            )
        )
    return tuple(found)


def pareto(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """Return the candidates that no other beats in cycles of all workloads and every resource."""
    known = tuple(candidates)

    def figures(candidate: Candidate) -> tuple[float, ...]:
        needs = (candidate.needs[r] for r in Resource)
        return sum(candidate.cycles.values()), *needs, candidate.bandwidth_bytes_per_s

    def beaten(one: Candidate) -> bool:
        mine = figures(one)
        return any(
            theirs != mine and all(a <= b for a, b in zip(theirs, mine, strict=True))
            for theirs in map(figures, known)
        )

    return tuple(candidate for candidate in known if not beaten(candidate))


@dataclass(frozen=True, slots=True)
class Built:
    """1 if the candidate is built."""

    candidate: str


@dataclass(frozen=True, slots=True)
class Runs:
    """1 if the workload runs on the candidate."""

    job: str
    candidate: str


@dataclass(frozen=True, slots=True)
class Last:
    """Cycles until the last array is done."""


def choose(
    candidates: Iterable[Candidate],
    budget: Budget,
    *,
    reference: str | None = None,
    solver: str = "highs",
    time_limit_s: float = 60,
) -> Choice:
    """Return the arrays to build, each candidate once at most, and who runs what.

    `reference` names a candidate that the reason compares with. Raises InfeasiblePlacement if no
    candidate fits the budget alone, RuntimeError if time runs out first.
    """
    known = {candidate.name: candidate for candidate in candidates}
    if not any(_fits(candidate, budget) for candidate in known.values()):
        raise InfeasiblePlacement("every candidate", budget.name, _least_excess(known, budget))
    model = build(known, budget)
    solution = solve(model, solver=solver, time_limit_s=time_limit_s, step=1)
    if not solution.values:
        raise RuntimeError(f"{budget.name}: no choice was found within {time_limit_s:g} s")
    return _decode(known, budget, solution, reference)


def _takes(candidate: Candidate) -> dict[str, float]:
    """Return what a candidate takes of every limit."""
    needs = {r.value.upper(): float(candidate.needs[r]) for r in Resource}
    return {**needs, "bandwidth": candidate.bandwidth_bytes_per_s, "power": candidate.power_w}


def _limits(budget: Budget) -> dict[str, float]:
    limits = {r.value.upper(): float(budget.limits[r]) for r in Resource}
    limits["bandwidth"] = budget.bandwidth_bytes_per_s
    return limits if budget.power_w is None else {**limits, "power": budget.power_w}


def _fits(candidate: Candidate, budget: Budget) -> bool:
    takes = _takes(candidate)
    return all(takes[name] <= limit for name, limit in _limits(budget).items())


def _least_excess(known: Mapping[str, Candidate], budget: Budget) -> tuple[Shortage, ...]:
    """Return what the candidate lacks that comes nearest to fitting."""

    def lacks(candidate: Candidate) -> dict[str, float]:
        takes = _takes(candidate)
        return {n: takes[n] / max(x, 1) for n, x in _limits(budget).items() if takes[n] > x}

    nearest = min(known.values(), key=lambda candidate: sum(lacks(candidate).values()))
    return tuple(
        Shortage(
            resource=f"{name} of {nearest.name!r}",
            demand=-int(-_takes(nearest)[name] // 1),
            limit=int(_limits(budget)[name]),
        )
        for name in lacks(nearest)
    )


def build(known: Mapping[str, Candidate], budget: Budget) -> Model:
    """Return the program: every workload on one built array, limits kept, the last one early."""
    jobs = sorted({job for candidate in known.values() for job in candidate.cycles})
    rows = [
        Row(family="job", label=job, terms={Runs(job, n): 1.0 for n in known}, low=1, high=1)
        for job in jobs
    ]
    rows += [
        Row(family="built", label="", terms={Built(n): 1.0, Runs(job, n): -1.0}, low=0)
        for n in known
        for job in jobs
    ]
    rows += [
        Row(
            family="last",
            label=n,
            terms={Last(): 1.0, **{Runs(job, n): -float(c.cycles[job]) for job in jobs}},
            low=0,
        )
        for n, c in known.items()
    ]
    rows += [
        Row(
            family="limits",
            label=name,
            # In shares of the limit: bandwidths are too large for a solver's tolerances.
            terms={Built(n): _takes(c)[name] / max(limit, 1e-9) for n, c in known.items()},
            high=1,
        )
        for name, limit in _limits(budget).items()
    ]
    variables: dict[Built | Runs | Last, Variable] = {Built(n): Variable() for n in known}
    variables |= {Runs(job, n): Variable() for job in jobs for n in known}
    variables |= {Last(): Variable(high=None, integer=False)}
    return Model(variables=variables, rows=tuple(rows), costs={Last(): 1.0})


def _decode(
    known: Mapping[str, Candidate], budget: Budget, solution: Solution, reference: str | None
) -> Choice:
    assignment = {
        key.job: key.candidate
        for key, value in solution.values.items()
        if isinstance(key, Runs) and value > 0.5
    }
    # What is built and runs nothing is not needed.
    machines = tuple(sorted(set(assignment.values())))
    used = {
        name: sum(_takes(known[n])[name] for n in machines) / limit if limit else 0.0
        for name, limit in _limits(budget).items()
    }
    cycles = round(solution.objective)
    return Choice(
        machines=machines,
        assignment=assignment,
        cycles=cycles,
        bound=round(solution.bound),
        status=solution.status,
        used=used,
        reason=_reason(known, budget, machines, cycles, reference),
    )


def _reason(
    known: Mapping[str, Candidate],
    budget: Budget,
    machines: tuple[str, ...],
    cycles: int,
    reference: str | None,
) -> str:
    pes = sum(known[name].pes for name in machines)
    text = f"{' and '.join(machines)}: {pes:,} PEs, {cycles:,} cycles"
    if reference is not None:
        other = known[reference]
        total = sum(other.cycles.values())
        times = f"{total / cycles:.2f}x as many"
        text += f". {reference}: {other.pes:,} PEs, {total:,} cycles, {times}"
    faster = {n: c for n, c in known.items() if sum(c.cycles.values()) < cycles}
    if not faster:
        return f"{text}. No candidate alone is faster"
    lacks = "; ".join(map(str, _least_excess(faster, budget)))
    return f"{text}. The nearest faster one lacks {lacks}"
