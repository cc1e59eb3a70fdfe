"""The JSON document of a run: what `run --json` prints, result.json holds and reports read."""

from typing import Any

from cost_models import Cost, machine_roofline, roofline
from simulator.arch.accelerator import seconds
from simulator.arch.load import read_arch_file
from simulator.result import Result
from sparseloom.runs import Run
from sparseloom.schema import SCHEMA
from workloads.canonical import canonical

__all__ = ["document"]


def document(run: Run) -> dict[str, Any]:
    """Return the document of `run`: plain JSON values, the same for the same inputs."""
    core = run.result.to_json()
    core["arch_parameters"] = core.pop("arch")
    return {
        "schema": SCHEMA,
        **core,
        "workload": run.graph.name,
        "arch": run.arch_name,
        "sparsity": run.result.sparsity if run.result.detail else str(run.sparsity),
        **({"phase": "train", "method": run.method, "passes": _passes(run)} if run.method else {}),
        "options": canonical(run.options),
        "energy_j": run.cost.energy_j,
        "peak_macs_per_cycle": run.arch.peak_macs_per_cycle,
        "bottlenecks": _bottlenecks(run.result),
        "energy": _energy(run.cost, run.result),
        "roofline": _roofline(run.result),
        "mapping": {
            "mapper": run.mapped.mapper,
            "objective": run.mapped.objective.value,
            "unit": run.mapped.objective.unit,
            "cost": run.mapped.cost,
            "bound": run.mapped.bound,
            "gap": run.mapped.gap,
            "considered": run.mapped.considered,
        },
        "unsupported": dict(run.graph.unsupported),
        "arch_sources": _sources(run.arch_name),
        **canonical(run.result.detail),
        **_phases(run),
        **({f"baseline_{k}": v for k, v in _phases(run.baseline).items()} if run.baseline else {}),
        **(_beside(run, run.baseline) if run.baseline else {}),
        "ops": _ops(run),
    }


def _by_pass(run: Run) -> dict[str, int]:
    rows = run.result.per_op
    phases = dict.fromkeys(rows["phase"].tolist())
    return {phase: int(rows["cycles"][rows["phase"] == phase].sum()) for phase in phases}


def _passes(run: Run) -> dict[str, dict[str, Any]]:
    """Return cycles of each pass of a training step, the baseline's beside them."""
    cycles = _by_pass(run)
    before = _by_pass(run.baseline) if run.baseline else {}
    return {
        phase: {
            "cycles": n,
            **({"baseline_cycles": before[phase]} if phase in before else {}),
            **({"speedup": before[phase] / n} if phase in before and n else {}),
        }
        for phase, n in cycles.items()
    }


def _bottlenecks(result: Result) -> list[dict[str, Any]]:
    return [
        {"cause": cause, "cycles": cycles, "share": share}
        for cause, cycles, share in result.bottlenecks()
    ]


def _ops(run: Run) -> list[dict[str, Any]]:
    ops: list[dict[str, Any]] = run.result.to_json()["ops"]
    if run.baseline is None:
        return ops
    dense = dict(
        zip(
            run.baseline.result.per_op["name"].tolist(),
            run.baseline.result.per_op["cycles"].tolist(),
            strict=True,
        )
    )
    for op in ops:
        before = dense.get(op["name"])  # selections have no dense counterpart
        op["baseline_cycles"] = before
        op["speedup"] = before / op["cycles"] if op["cycles"] and before is not None else None
    return ops


def _energy(cost: Cost, result: Result) -> dict[str, Any]:
    return {
        "table": cost.table,
        "table_digest": cost.table_digest,
        "by_component_j": {name: pj * 1e-12 for name, pj in cost.by_component().items()},
        "events": [
            {
                "component": event[0],
                "action": event[1],
                "variant": event[2],
                "count": result.counts[event],
                "pj_each": cost.prices[event].pj,
                "energy_j": pj * 1e-12,
                "source": cost.prices[event].source,
                "assumed": cost.prices[event].assumed,
            }
            for event, pj in cost.breakdown.items()
        ],
    }


def _roofline(result: Result) -> dict[str, Any]:
    limits = machine_roofline(result.arch)
    return {
        "peak_macs_per_s": limits.peak_macs_per_s,
        "bandwidth_bytes_per_s": limits.bandwidth_bytes_per_s,
        "ridge_macs_per_byte": limits.ridge_macs_per_byte,
        "points": [
            {
                "name": point.name,
                "macs_per_byte": point.macs_per_byte,
                "effectual_macs_per_s": point.effectual_macs_per_s,
                "dense_macs_per_s": point.dense_macs_per_s,
            }
            for point in roofline(result)
        ],
    }


def _sources(arch_name: str) -> dict[str, str]:
    return {} if arch_name == "custom" else dict(sorted(read_arch_file(arch_name).sources.items()))


def _phases(run: Run) -> dict[str, Any]:
    """Return seconds of prefill and decode, and tokens a second, where operators name a phase."""
    result = run.result
    names = result.per_op["name"]
    times: dict[str, float] = {}
    for phase in ("prefill", "decode"):
        mine = [str(name).startswith(f"{phase}.") for name in names]
        if any(mine):
            cycles = int(result.per_op["cycles"][mine].sum())
            times[f"{phase}_s"] = seconds(result.arch, cycles)
    if times.get("decode_s"):
        tokens = int(run.options.get("decode", 0)) * int(run.options.get("batch", 1))
        return {**times, "tokens_per_s": tokens / times["decode_s"]}
    return {**times}


def _beside(run: Run, baseline: Run) -> dict[str, Any]:
    return {
        "speedup": run.speedup,
        "baseline": str(baseline.sparsity),
        "baseline_cycles": baseline.result.cycles,
        "baseline_seconds": baseline.result.seconds,
        "baseline_energy_j": baseline.cost.energy_j,
        "baseline_macs_effectual": baseline.result.macs_effectual,
        "baseline_utilisation": baseline.result.utilisation,
        "baseline_bottlenecks": _bottlenecks(baseline.result),
        "baseline_energy_by_component_j": {
            name: pj * 1e-12 for name, pj in baseline.cost.by_component().items()
        },
        "baseline_digests": canonical(baseline.result.provenance),
        "energy_ratio": baseline.cost.energy_pj / run.cost.energy_pj
        if run.cost.energy_pj
        else None,
    }
