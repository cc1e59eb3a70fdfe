"""How much the average speed-up owes to each number of the machine that is assumed.

Every assumption is varied alone, and the dense step is mapped anew beside the sparse one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Final, Literal

from simulator.arch import NMArray
from simulator.arch.load import load_arch
from simulator.result import Result
from sparseloom.studies.together import cycles_together, without_products, without_streams
from sparseloom.studies.training import BDWP, DENSE, Case, TrainingStudy, training_step
from workloads.canonical import Spec
from workloads.graph import Phase, WorkloadGraph

__all__ = ["ASSUMPTIONS", "Assumption", "Effect", "sensitivity"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumption(Spec):
    """One assumption: the preset's keys it stands for and other values of them.

    `settings` are (label, overrides of the machine). `touches` says whose time they enter: the
    array's products, the streams of the units beside it, or both; the rest is not mapped again.
    """

    name: str
    keys: tuple[str, ...]
    settings: tuple[tuple[str, dict[str, Any]], ...] = field(hash=False)
    touches: Literal["products", "streams", "both"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect(Spec):
    """The average speed-up under another setting, and its change relative to the preset's."""

    name: str
    setting: str
    average: float
    change: float


def _buffers(capacity_bytes: int) -> dict[str, Any]:
    names = ("act_buffer", "weight_buffer", "out_buffer")
    return {name: {"capacity_bytes": capacity_bytes} for name in names}


def _lanes(unit: str, lanes: int) -> tuple[str, dict[str, Any]]:
    return str(lanes), {"training": {unit: {"lanes": lanes}}}


ASSUMPTIONS: Final = (
    Assumption(
        name="array size",
        keys=("rows", "cols"),
        settings=tuple((f"{n} x {n}", {"rows": n, "cols": n}) for n in (16, 64)),
        touches="products",
    ),
    Assumption(
        name="adder latency = interleave",
        keys=("adder_latency", "precision"),
        settings=(("8", {"adder_latency": 8, "interleave": 8}),),
        touches="products",
    ),
    Assumption(
        name="interleave alone",
        keys=("interleave",),
        settings=(("2", {"interleave": 2}),),
        touches="products",
    ),
    Assumption(
        name="fill, load and drain overlap",
        keys=("overlap",),
        settings=(("no", {"overlap": False}),),
        touches="products",
    ),
    Assumption(
        name="DRAM bytes a cycle",
        keys=("dram.bandwidth_bytes_per_s", "clock_hz"),
        settings=(("96", {"dram": {"bandwidth_bytes_per_s": 19_200_000_000}}),),
        touches="both",
    ),
    Assumption(
        name="DRAM latency",
        keys=("dram.latency_cycles",),
        settings=(("400 cycles", {"dram": {"latency_cycles": 400}}),),
        touches="both",
    ),
    Assumption(
        name="buffers",
        keys=tuple(f"{name}.capacity_bytes" for name in _buffers(1)),
        settings=(("512 KiB each", _buffers(2**19)),),
        touches="both",
    ),
    Assumption(
        name="vector lanes",
        keys=("vector_lanes",),
        settings=tuple((str(n), {"vector_lanes": n}) for n in (16, 64, 128)),
        touches="streams",
    ),
    Assumption(
        name="WUVE lanes",
        keys=("training.wuve.lanes",),
        settings=(_lanes("wuve", 8),),
        touches="streams",
    ),
    Assumption(
        name="WUVE multiplier latency",
        keys=("training.wuve.multiplier_latency",),
        settings=(("8", {"training": {"wuve": {"multiplier_latency": 8}}}),),
        touches="streams",
    ),
    Assumption(
        name="SORE lanes",
        keys=("training.sore.lanes",),
        settings=(_lanes("sore", 8),),
        touches="streams",
    ),
    Assumption(
        name="transposer",
        keys=("training.transposer",),
        settings=(("no", {"training": {"transposer": False}}),),
        touches="streams",
    ),
)
"""Every number that the preset `sat-vcu1525` assumes. The clock enters cycles only through the
bytes that the DRAM moves in one; the precision only through the adder, its operands being 16 bits
wide in any case."""


def _cycles(result: Result, *, products: bool) -> int:
    """Return the cycles of a step's products, or of everything else."""
    rows = result.per_op
    return int(rows["cycles"][(rows["macs_dense"] > 0) == products].sum())


def _vector_cycles(result: Result) -> int:
    """Return the cycles of what the vector unit does: no products, updates or selections."""
    trained = result.per_op["phase"]
    update = (trained == Phase.UPDATE.value) | (trained == Phase.SELECT.value)
    return _cycles(result, products=False) - int(result.per_op["cycles"][update].sum())


class _Averages:
    """Average speed-ups of a study's dense and BDWP steps under other settings."""

    def __init__(self, study: TrainingStudy) -> None:
        self.study = study
        cases = [(network, v) for network in study.averaged for v in (DENSE, BDWP)]
        self.steps = {case: study.graphs[case] for case in cases}
        self.results = {case: study.results[case] for case in cases}

    def _of(self, cycles: Mapping[Case, int]) -> float:
        return fmean(
            cycles[network, DENSE] / cycles[network, BDWP] for network in self.study.averaged
        )

    def on(self, machine: NMArray, touches: str) -> float:
        """Return the average on another machine."""
        if touches == "streams":
            return self._beside(self.steps, machine)
        steps = self.steps
        if touches == "products":
            steps = {case: without_streams(step) for case, step in steps.items()}
        cycles = cycles_together(steps, machine)
        if touches == "products":
            cycles = {c: n + _cycles(self.results[c], products=False) for c, n in cycles.items()}
        return self._of(cycles)

    def _beside(self, steps: Mapping[Case, WorkloadGraph], machine: NMArray) -> float:
        """Return the average with the products of the study and all other work of `steps`."""
        cycles: dict[Case, int] = {}
        for network in self.study.averaged:  # networks have few streams in common
            streams = {c: without_products(g) for c, g in steps.items() if c[0] == network}
            cycles |= cycles_together(streams, machine)
        return self._of({c: n + _cycles(self.results[c], products=True) for c, n in cycles.items()})

    def folded(self) -> float:
        """Return the average of networks whose batch norms stay folded."""
        batch = self.study.batch
        steps = {case: training_step(*case, batch=batch, batch_norms=False) for case in self.steps}
        return self._beside(steps, self.study.arch)

    def overlapped(self) -> float:
        """Return the average if vector work hid behind the array altogether."""
        return self._of({c: r.cycles - _vector_cycles(r) for c, r in self.results.items()})


def sensitivity(
    study: TrainingStudy,
    assumptions: tuple[Assumption, ...] = ASSUMPTIONS,
    *,
    on_effect: Callable[[str], None] | None = None,
) -> tuple[Effect, ...]:
    """Return what every other setting does to the average, the largest change first.

    Beside the machine's numbers two assumptions about the work: batch norms folded as for
    inference, and vector work that overlaps the array. `on_effect` is called with each
    assumption's name when it is done.
    """
    averages, base = _Averages(study), study.average()
    found = [
        ("batch norms", "folded", averages.folded()),
        ("vector work", "overlaps the array", averages.overlapped()),
    ]
    for assumption in assumptions:
        for label, overrides in assumption.settings:
            machine = load_arch(study.arch, **overrides)
            average = averages.on(machine, assumption.touches)
            found.append((assumption.name, label, average))
        if on_effect:
            on_effect(assumption.name)
    effects = [
        Effect(name=name, setting=label, average=average, change=average / base - 1)
        for name, label, average in found
    ]
    return tuple(sorted(effects, key=lambda effect: -abs(effect.change)))
