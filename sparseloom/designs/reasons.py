"""Why a choice wins: the cycles it saves by cause, what is built differently, what does not fit."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from mapping.placer.choose import Budget, Choice, nearest
from simulator.arch import Accelerator
from sparseloom.designs.outcome import Machine, parameter
from sparseloom.schema import CAUSES
from sparseloom.sweeps.evaluate import causes

__all__ = ["saved", "sentences"]


def saved(choice: Choice, machines: Sequence[Machine], reference: Machine) -> dict[str, int]:
    """Return the reference's cycles less those of the choice, by cause, largest first.

    They sum to the difference of all cycles, whichever machine they run on.
    """
    runs = {machine.name: machine for machine in machines}
    gains = Counter[str]()
    for job, name in choice.assignment.items():
        gains.update(causes(reference.points[job]))
        gains.subtract(causes(runs[name].points[job]))
    ordered = sorted(gains.items(), key=lambda item: (-abs(item[1]), item[0]))
    return {cause: cycles for cause, cycles in ordered if cycles}


def sentences(
    choice: Choice,
    machines: Sequence[Machine],
    reference: Machine,
    candidates: Iterable[Machine],
    budget: Budget,
    gains: Mapping[str, int],
) -> tuple[str, ...]:
    """Return the reasons, each computed from the results; `gains` are what `saved` returns."""
    found = [_compared(choice, machines, reference)]
    if [machine.name for machine in machines] != [reference.name]:
        found.append(_causes(gains))
        found += (_different(machine, reference) for machine in machines)
    faster = [m.candidate for m in candidates if m.cycles < choice.cycles]
    if faster:
        lacks = "; ".join(map(str, nearest(faster, budget)))
        found.append(f"{len(faster):,} faster candidates do not fit; the nearest lacks {lacks}.")
    else:
        found.append("No candidate alone is faster.")
    return tuple(found)


def _compared(choice: Choice, machines: Sequence[Machine], reference: Machine) -> str:
    names = " and ".join(machine.name for machine in machines)
    times = reference.cycles / max(choice.cycles, 1)
    proof = "proved best" if choice.gap == 0 else f"at most {choice.gap:.2%} from the best"
    return (
        f"{names}: {choice.cycles:,} cycles, {proof} of the candidates that fit; "
        f"the reference {reference.name}: {reference.cycles:,}, {times:.2f}x as many."
    )


def _causes(gains: Mapping[str, int]) -> str:
    def listed(sign: int) -> str:
        parts = [f"{CAUSES[cause]} {abs(n):,}" for cause, n in gains.items() if n * sign > 0]
        return ", ".join(parts) or "none"

    return f"Cycles saved: {listed(1)}. Cycles added: {listed(-1)}."


def _different(machine: Machine, reference: Machine) -> str:
    """Return what a machine has that the reference has not, resources included."""
    parts = [
        f"{key} {value} instead of {before}"
        for key, value, before in _changed(machine, reference.arch)
    ]
    parts += [
        f"{_figure(ours)} {name} instead of {_figure(theirs)}"
        for name, ours in machine.candidate.takes.items()
        if ours != (theirs := reference.candidate.takes[name])
    ]
    arch, before = machine.arch, reference.arch
    if arch.peak_macs_per_cycle != before.peak_macs_per_cycle:
        parts.insert(0, f"{arch.peak_macs_per_cycle:,} multipliers instead of "
                        f"{before.peak_macs_per_cycle:,}")  # fmt: skip
    return f"It has {'; '.join(parts) or 'what the reference has'}."


def _figure(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _changed(machine: Machine, reference: Accelerator) -> Iterator[tuple[str, object, object]]:
    for key, value in machine.parameters.items():
        before = parameter(reference, key)
        if before != value:
            yield key, value, before
