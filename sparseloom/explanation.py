"""Where the cycles of a run go, what its sparsity bought, and why not one over the density."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from cost_models import machine_roofline, roofline
from mapping import NoMapping, map_graph
from simulator.arch import Dataflow, NMArray
from simulator.result import STALLS
from sparseloom.ablation import Optimisation, ablate
from sparseloom.runs import Run
from sparseloom.schema import CAUSES, SHORTFALLS, at_work
from workloads.canonical import Spec

__all__ = ["Alike", "Explanation", "OpStory", "alike", "explain"]


Lost = tuple[tuple[str, int], ...]

_NUMBER: Final = re.compile(r"(?<![0-9A-Za-z_])\d+(?![0-9A-Za-z_])")
"""A part of a name that is a number, such as a layer's."""

CROWDED: Final = 0.5
"""Share of multipliers at effectual work below which a story says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpStory(Spec):
    """One operator: its share, its place on the roofline, its mapping, and what sparsity bought.

    roof is "compute" or "bandwidth" (None without MACs); of_roof the share of that roof reached.
    rivals are the exact cycles of the best mapping under every dataflow, best first; lost the
    cycles by cause that did not shrink with the density, largest first.
    """

    name: str
    kind: str
    cycles: int
    share: float
    bottleneck: str
    macs_per_byte: float | None
    roof: str | None
    of_roof: float | None
    dataflow: str
    setting: str
    rivals: tuple[tuple[str, int], ...]
    density: float | None
    speedup: float | None
    lost: Lost
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation(Spec):
    """A run in words and numbers; an array's `optimisations` are given if the run trains."""

    workload: str
    arch: str
    sparsity: str
    cycles: int
    causes: tuple[tuple[str, int, float], ...]
    ridge_macs_per_byte: float
    density: float
    speedup: float | None
    lost: Lost
    sentences: tuple[str, ...]
    ops: tuple[OpStory, ...]
    optimisations: tuple[Optimisation, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Alike(Spec):
    """Operators of several layers whose stories differ in the layer's number alone.

    `name` has all numbers, `cycles` are those of all of them, `story` is that of the first.
    """

    name: str
    cycles: int
    members: int
    story: OpStory


def alike(ops: Iterable[OpStory]) -> tuple[Alike, ...]:
    """Return operators gathered over layers that are equal in everything, in order."""
    groups: dict[tuple[str, str, OpStory], list[tuple[int, OpStory]]] = {}
    for op in ops:
        before, number, after = _layer(op.name)
        key = (before, after, replace(op, name=""))
        groups.setdefault(key, []).append((number, op))
    return tuple(
        Alike(
            name=f"{before}{_ranges([number for number, _ in group])}{after}",
            cycles=sum(op.cycles for _, op in group),
            members=len(group),
            story=group[0][1],
        )
        for (before, after, _), group in groups.items()
    )


def _layer(name: str) -> tuple[str, int, str]:
    """Split a name around its first part that is a number; one without ends in none, -1."""
    found = _NUMBER.search(name)
    if not found:
        return name, -1, ""
    return name[: found.start()], int(found[0]), name[found.end() :]


def _ranges(numbers: Sequence[int]) -> str:
    """Return numbers as ranges.

    >>> _ranges([0, 1, 2, 5, 7, 8])
    '0-2,5,7-8'
    """
    if numbers[0] < 0:
        return ""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(f"{run[0]}-{run[-1]}" if run[1:] else f"{run[0]}" for run in runs)


def _causes(row: Any) -> dict[str, int]:
    waits = {c: int(row[f"stall_{c}"]) for c in STALLS}
    return {"compute": int(row["cycles"]) - sum(waits.values()), **waits}


def _density(row: Any, dense: Any) -> float | None:
    """Return the share of the products that are left: of the dense run's if there is one.

    That has no products with padding, nor with zeros of recorded activations.
    """
    whole = int(row["macs_dense"] if dense is None else dense["macs_effectual"])
    return int(row["macs_effectual"]) / whole if whole else None


def _working(run: Run, row: Any) -> float:
    """Return the share of multipliers with effectual work in the cycles that multiply."""
    offered = run.arch.peak_macs_per_cycle * int(row["array_busy"])
    return int(row["macs_effectual"]) / offered if offered else 1.0


def _lost(sparse: dict[str, int], dense: dict[str, int], density: float) -> Lost:
    """Return cycles by cause above density times the dense run's, largest first."""
    excess = {c: round(sparse[c] - density * dense[c]) for c in sparse}
    return tuple(
        (cause, cycles)
        for cause, cycles in sorted(excess.items(), key=lambda item: -item[1])
        if cycles > 0
    )


def _bought(speedup: float, density: float, lost: Lost, cycles: int) -> str:
    """Say what the density bought, and the three largest losses of at least 1 % of the cycles."""
    if density >= 1:
        return "dense: no product is left out"
    ideal = f"{1 / density:.2f}x" if density else "everything"
    worth = [(cause, n) for cause, n in lost[:3] if 100 * n >= cycles]
    why = ", ".join(f"{SHORTFALLS[cause]} ({n:,} cycles)" for cause, n in worth)
    # Less than the products shrinks with them: skipped blocks of attention need no softmax either.
    more = bool(density) and speedup > 1 / density
    reach = f"more than the {ideal} of the products alone" if more else f"of a possible {ideal}"
    kept = f"{density:.1%} of the products kept: {speedup:.2f}x{',' if more else ''} {reach}"
    return f"{kept}; what did not shrink: {why}" if why else kept


def _sentence(
    row: Any, density: float | None, speedup: float | None, lost: Lost, working: float
) -> str:
    cause = str(row["bottleneck"])
    parts = [f"mostly {CAUSES[cause]}" if cause in CAUSES else "free: nothing runs"]
    if density is None:
        return f"{parts[0]}; no products, so weight sparsity does not touch it"
    if working < CROWDED:
        parts.append(
            f"while it multiplies, {working:.1%} of the multipliers have effectual work: "
            "the shape leaves the others idle"
        )
    if speedup is not None:
        parts.append(_bought(speedup, density, lost, int(row["cycles"])))
    return "; ".join(parts)


def _place(run: Run) -> dict[str, tuple[float, str, float]]:
    """Return {operator: (MACs a byte, which roof is over it, share of the roof reached)}."""
    limits = machine_roofline(run.arch)
    out = {}
    for point in roofline(run.result):
        below = point.macs_per_byte < limits.ridge_macs_per_byte
        roof = limits.attainable_macs_per_s(point.macs_per_byte)
        out[point.name] = (
            point.macs_per_byte,
            "bandwidth" if below else "compute",
            point.effectual_macs_per_s / roof,
        )
    return out


def _rivals(run: Run) -> dict[str, tuple[tuple[str, int], ...]]:
    """Return {operator: ((dataflow, exact cycles of all executions), ...)}, best first."""
    found: dict[str, list[tuple[int, str]]] = {}
    if not isinstance(run.arch, NMArray):
        return {}
    products = {op.name for op in run.graph.gemm_ops}
    flows = [run.arch.dataflow] if run.arch.dataflow else list(Dataflow)
    for flow in flows:
        try:
            mapped = map_graph(run.graph, replace(run.arch, dataflow=flow))
        except NoMapping:  # some operator fits no buffer under this dataflow: no rival
            continue
        for op, cost in zip(mapped.schedule.ops, mapped.op_costs, strict=True):
            if op.name in products:
                found.setdefault(op.name, []).append((int(cost), flow.value))
    return {name: tuple((f, n) for n, f in sorted(rows)) for name, rows in found.items()}


def _story(
    run: Run,
    row: Any,
    dense: Any,
    place: dict[str, tuple[float, str, float]],
    rivals: tuple[tuple[str, int], ...],
) -> OpStory:
    name, density, cycles = str(row["name"]), _density(row, dense), int(row["cycles"])
    intensity, roof, of_roof = place.get(name, (None, None, None))
    lost: Lost = ()
    speedup = None
    if dense is not None and cycles:
        speedup = int(dense["cycles"]) / cycles
        lost = _lost(_causes(row), _causes(dense), density) if density is not None else ()
    return OpStory(
        name=name,
        kind=str(row["kind"]),
        cycles=cycles,
        share=cycles / max(run.result.cycles, 1),
        bottleneck=str(row["bottleneck"]),
        macs_per_byte=intensity,
        roof=roof,
        of_roof=of_roof,
        dataflow=str(row["dataflow"]),
        setting=str(row["nm"]),
        rivals=rivals,
        density=density,
        speedup=speedup,
        lost=lost,
        sentence=_sentence(row, density, speedup, lost, _working(run, row)),
    )


def explain(run: Run) -> Explanation:
    """Return where the cycles of `run` go, and against its baseline what the sparsity bought.

    The cycles that did not shrink, by cause, are this run's less density times the baseline's;
    they sum to cycles - density * baseline cycles.
    """
    result = run.result
    rivals = _rivals(run)
    dense = {str(row["name"]): row for row in run.baseline.result.per_op} if run.baseline else {}
    place = _place(run)
    ops = tuple(
        _story(run, row, dense.get(str(row["name"])), place, rivals.get(str(row["name"]), ()))
        for row in result.per_op
    )
    whole = run.baseline.result.macs_effectual if run.baseline else result.macs_dense
    density = result.macs_effectual / max(whole, 1)
    lost = _whole_lost(run, density)
    return Explanation(
        workload=run.graph.name,
        arch=run.arch_name,
        sparsity=result.sparsity if result.detail else str(run.sparsity),
        cycles=result.cycles,
        causes=tuple(result.bottlenecks()),
        ridge_macs_per_byte=machine_roofline(run.arch).ridge_macs_per_byte,
        density=density,
        speedup=run.speedup,
        lost=lost,
        sentences=_sentences(run, ops, density, lost),
        ops=ops,
        optimisations=_optimisations(run),
    )


def _optimisations(run: Run) -> tuple[Optimisation, ...]:
    if isinstance(run.arch, NMArray) and not run.method:
        return ()
    compress = bool(run.result.detail.get("compressed"))
    seed = run.result.provenance.seed
    return ablate(run.graph, run.arch, run.result.cycles, compress=compress, seed=seed)


def _whole_lost(run: Run, density: float) -> Lost:
    if run.baseline is None:
        return ()
    sparse, dense = (
        {cause: cycles for cause, cycles, _ in r.result.bottlenecks()} for r in (run, run.baseline)
    )
    return _lost(sparse, dense, density)


def _sentences(run: Run, ops: tuple[OpStory, ...], density: float, lost: Lost) -> tuple[str, ...]:
    cause, cycles, share = run.result.bottlenecks()[0]
    of = f"{cycles:,} of {run.result.cycles:,} cycles ({share:.0%})"
    what = at_work(cause, cycles, run.result.macs_effectual, run.arch.peak_macs_per_cycle)
    out = [f"The largest part of the run, {of}, is {what}."]
    placed = [op for op in ops if op.roof]
    under = sum(op.cycles for op in placed if op.roof == "bandwidth")
    total = sum(op.cycles for op in placed)
    if total:
        out.append(
            f"{under / total:.0%} of the cycles of matrix products are in operators left of the "
            f"roofline's ridge, {machine_roofline(run.arch).ridge_macs_per_byte:.1f} MACs a byte."
        )
    if run.speedup is not None:
        out.append(f"The sparsity: {_bought(run.speedup, density, lost, run.result.cycles)}.")
    return (*out, *_memory(run.result.detail))


def _memory(detail: Mapping[str, Any]) -> tuple[str, ...]:
    """Say how wide a decoder's weights are, and in which channels its KV cache lies."""
    if "kv_cache" not in detail:
        return ()
    bits, kv = detail["weight_bits"], detail["kv_cache"]
    widths = ", ".join(f"{bits.count(n)} of {n} bits" for n in sorted(set(bits)))
    cores = ", ".join(
        f"core {core} in {own[0]} to {own[-1]}" for core, own in enumerate(kv["channels"])
    )
    weights = f"Layers by the width of their weights: {widths}; the head has {detail['head_bits']}"
    cache = (
        f"The KV cache holds {kv['tokens']} tokens; a core has {kv['heads_per_core']} of "
        f"{kv['heads']} heads of keys and values, every line of 64 bytes in the next of its HBM "
        f"channels ({cores}), {kv['bytes_per_channel']:,} bytes a channel"
    )
    return f"{weights} bits.", f"{cache}."
