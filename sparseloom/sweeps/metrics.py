"""What a sweep records of every point, and which way is better."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Final

from cost_models import Cost
from simulator.arch import BufferParams
from simulator.result import Totals

__all__ = ["METRICS", "Metric", "measure"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One figure of a run: its unit, whether more is better, and where it comes from."""

    unit: str
    label: str
    of: Callable[[Totals, Cost], float | int]
    more_is_better: bool = False


def _buffer_bytes(result: Totals, _cost: Cost) -> int:
    parts = (getattr(result.arch, field.name) for field in fields(result.arch))
    return sum(part.capacity_bytes for part in parts if isinstance(part, BufferParams))


METRICS: Final[Mapping[str, Metric]] = {
    "cycles": Metric(unit="cycles", label="cycles", of=lambda r, _: r.cycles),
    "seconds": Metric(unit="s", label="time", of=lambda r, _: r.seconds),
    "energy_j": Metric(unit="J", label="dynamic energy", of=lambda _, c: c.energy_j),
    "edp_js": Metric(
        unit="J s", label="energy-delay product", of=lambda r, c: c.energy_j * r.seconds
    ),
    "utilisation": Metric(
        unit="", label="utilisation", of=lambda r, _: r.utilisation, more_is_better=True
    ),
    "macs_per_s": Metric(
        unit="MAC/s",
        label="effectual throughput",
        of=lambda r, _: r.macs_effectual / r.seconds,
        more_is_better=True,
    ),
    "dram_bytes": Metric(unit="B", label="DRAM traffic", of=lambda r, _: r.dram_bytes),
    "multipliers": Metric(unit="", label="multipliers", of=lambda r, _: r.arch.peak_macs_per_cycle),
    "buffer_bytes": Metric(unit="B", label="on-chip buffers", of=_buffer_bytes),
    "bandwidth_bytes_per_s": Metric(
        unit="B/s", label="DRAM bandwidth", of=lambda r, _: r.arch.dram.bandwidth_bytes_per_s
    ),
}
"""Objectives and constraints name one of these."""


def measure(result: Totals, cost: Cost) -> dict[str, float | int]:
    """Return every metric of a run by name."""
    return {name: metric.of(result, cost) for name, metric in METRICS.items()}
