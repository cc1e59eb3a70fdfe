"""Running a design: candidates simulated exactly, a choice proved best, and the reasons."""

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cost_models.fpga import FpgaResources, fpga_resources
from mapping.placer.choose import BANDWIDTH, POWER, Budget, Candidate, choose, shortages
from mapping.placer.device import Resource
from simulator.arch import Accelerator
from simulator.arch.load import load_arch
from sparseloom.designs.outcome import Design, Machine
from sparseloom.designs.reasons import saved, sentences
from sparseloom.designs.spec import DesignSpec, load_design
from sparseloom.sweeps.points import Point, Space, nested
from sparseloom.sweeps.run import OnPoint, SweepInterrupted, sweep
from sparseloom.sweeps.store import Row, open_store
from sparseloom.sweeps.summary import pareto_front, workload_label

__all__ = ["design"]

_Key = tuple[str, tuple[tuple[str, Any], ...]]
"""A candidate: its base, and the parameters that it replaces."""


def design(
    spec: DesignSpec | str | Path,
    *,
    device: str | None = None,
    solver: str = "highs",
    time_limit_s: float = 60,
    store: str | Path | None = None,
    jobs: int = 1,
    on_point: OnPoint | None = None,
) -> Design:
    """Return the machines to build, proved best of the candidates, and why they win.

    Candidates are simulated exactly by a sweep into `store`, from which a rerun takes them (a
    temporary one if None), in `jobs` processes; `on_point(done, total)` is called meanwhile.
    Raises InfeasiblePlacement naming resource, demand and limit if no candidate fits, ValueError
    for bad input, RuntimeError if time runs out.
    """
    asked = spec if isinstance(spec, DesignSpec) else load_design(spec, device=device)
    machines, failures = _simulated(asked, store, jobs, on_point)
    reference = _reference(asked, machines, failures)
    # A candidate that is the reference by other words would only be named in its stead.
    machines = [m for m in machines if m is reference or m.arch != reference.arch]
    if failures and machines == [reference]:
        raise ValueError(f"No candidate of {asked.name} has a result: {'; '.join(failures)}")
    _check_clocks(machines)
    budget = _budget(asked, reference)
    machines = [
        replace(machine, lacks=shortages(machine.candidate, budget)) for machine in machines
    ]
    known = {machine.name: machine for machine in machines}
    choice = choose(
        (machine.candidate for machine in machines),
        budget,
        most=asked.machines,
        solver=solver,
        time_limit_s=time_limit_s,
    )
    chosen = tuple(known[name] for name in choice.machines)
    reference = known[reference.name]
    gains = saved(choice, chosen, reference)
    return Design(
        name=asked.name,
        device=asked.device,
        budget=budget,
        choice=choice,
        machines=chosen,
        reference=reference,
        front=_front(machines),
        candidates=tuple(machines),
        failures=failures,
        saved=gains,
        sentences=sentences(choice, chosen, reference, machines, budget, gains),
        notes=(*_notes(asked, reference), *_failed(failures)),
    )


@contextmanager
def _store(store: str | Path | None) -> Iterator[Path]:
    if store is not None:
        yield Path(store)
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            yield Path(folder, "points.db")
        except SweepInterrupted:
            raise SweepInterrupted("Nothing is kept; a store keeps finished candidates") from None


def _simulated(
    spec: DesignSpec, store: str | Path | None, jobs: int, on_point: OnPoint | None
) -> tuple[list[Machine], dict[str, int]]:
    """Return the candidates with a result for every workload, and why the others have none."""
    asked = spec.sweep()
    space = Space.of(asked)
    with _store(store) as path:
        done = sweep(asked, path, jobs=jobs, on_point=on_point)
        with open_store(path) as opened:
            rows = {row.digest: row for row in opened.rows(done.sweep)}
    runs: dict[_Key, list[tuple[Point, Row]]] = {}
    for index in range(len(space)):
        point = space.point(index)
        runs.setdefault(_key(point), []).append((point, rows[point.key()]))
    reasons = [_failure(found) for found in runs.values()]
    named = zip(_names(list(runs)), runs.values(), reasons, strict=True)
    machines = [_machine(name, found) for name, found, reason in named if reason is None]
    return machines, dict(Counter(reason for reason in reasons if reason))


def _failure(found: list[tuple[Point, Row]]) -> str | None:
    """Return why a candidate has no result, or no resources."""
    for _, row in found:
        if row.error:
            return row.error
    try:
        fpga_resources(_arch(found[0][0]))
    except ValueError as error:
        return str(error)
    return None


def _arch(point: Point) -> Accelerator:
    return load_arch(point.base, **nested(point.parameters))


def _key(point: Point) -> _Key:
    return point.base, tuple(point.parameters.items())


def _names(keys: list[_Key]) -> list[str]:
    """Return the candidates' names: the parameters in which they differ, if these tell all apart.

    The reference, which comes last, has its whole name.
    """
    full = [" ".join([base, *(f"{k}={v}" for k, v in values)]) for base, values in keys]
    found = {name for _, values in keys[:-1] for name, _ in values}
    varied = {n for n in found if len({dict(values).get(n) for _, values in keys[:-1]}) > 1}
    several = len({base for base, _ in keys[:-1]}) > 1
    short = [
        " ".join([*([base] if several else []), *(f"{k}={v}" for k, v in values if k in varied)])
        for base, values in keys[:-1]
    ]
    return [*short, full[-1]] if all(short) and len(set(short)) == len(short) else full


def _machine(name: str, found: list[tuple[Point, Row]]) -> Machine:
    point = found[0][0]
    arch = _arch(point)
    metrics = {_job(row): row.metrics or {} for _, row in found}
    resources = fpga_resources(arch)
    return Machine(
        candidate=Candidate(
            name=name,
            cycles={job: int(values["cycles"]) for job, values in metrics.items()},
            takes=_takes(arch, resources, metrics),
        ),
        arch=arch,
        parameters=point.parameters,
        resources=resources,
        metrics=metrics,
        points={_job(row): point for point, row in found},
    )


def _job(row: Row) -> str:
    return f"{workload_label(row.point)}, {row.point['sparsity']}"


def _takes(
    arch: Accelerator, resources: FpgaResources, metrics: Mapping[str, Mapping[str, float | int]]
) -> dict[str, float]:
    """Return what a machine takes of every limit; its power is that of the hungriest workload."""
    takes: dict[str, float] = {r.value.upper(): getattr(resources, r.value) for r in Resource}
    takes[BANDWIDTH] = arch.dram.bandwidth_bytes_per_s
    takes[POWER] = max(values["energy_j"] / values["seconds"] for values in metrics.values())
    return takes


def _reference(spec: DesignSpec, machines: list[Machine], failures: Mapping[str, int]) -> Machine:
    parameters = {key: value for key, (value,) in spec.reference.parameters.items()}
    arch = load_arch(spec.reference.base, **nested(parameters))
    for machine in reversed(machines):
        if machine.arch == arch:
            return machine
    raise ValueError(f"The reference of {spec.name} has no result: {'; '.join(failures)}")


def _check_clocks(machines: list[Machine]) -> None:
    clocks = {machine.arch.clock_hz: machine.name for machine in machines}
    if len(clocks) > 1:
        listed = ", ".join(f"{name} {hz / 1e6:g} MHz" for hz, name in clocks.items())
        raise ValueError(f"Cycles of different clocks do not compare; give one clock_hz: {listed}")


def _budget(spec: DesignSpec, reference: Machine) -> Budget:
    limits = spec.budget
    budget = Budget.of(
        spec.table(),
        caps=limits.caps,
        bandwidth_bytes_per_s=limits.bandwidth_bytes_per_s,
        power_w=limits.power_w,
    )
    same = {
        r.value.upper(): reference.candidate.takes[r.value.upper()] for r in limits.as_reference
    }
    return Budget(name=spec.device, limits={**budget.limits, **same})


def _front(machines: list[Machine]) -> tuple[Machine, ...]:
    """Return the candidates that none beats in cycles, energy and all they take, fastest first."""
    values = [[m.cycles, m.total("energy_j"), *m.candidate.takes.values()] for m in machines]
    keep = pareto_front(np.array(values, dtype=float))
    front = (machine for machine, kept in zip(machines, keep, strict=True) if kept)
    return tuple(sorted(front, key=lambda machine: machine.cycles))


def _failed(failures: Mapping[str, int]) -> Iterator[str]:
    for reason, count in failures.items():
        yield f"{count} candidate{'s' if count > 1 else ''} without a result: {reason}"


def _notes(spec: DesignSpec, reference: Machine) -> tuple[str, ...]:
    power = "dynamic energy by the default price table over time, of the workload that draws most"
    notes = [f"Power is {power}, without static power"]
    totals = spec.table().totals()
    for resource in spec.budget.as_reference:
        name = resource.value.upper()
        notes.append(
            f"{name} may be as much as the reference takes, {reference.candidate.takes[name]:,} by "
            f"the same estimate; {spec.device} has {totals[resource.value]:,}"
        )
    if reference.lacks:
        notes.append(f"The reference lacks {'; '.join(map(str, reference.lacks))}")
    return tuple(notes)
