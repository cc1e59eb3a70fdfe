"""Vocabulary of a run's document, shared by what writes it and what reads it."""

from typing import Final

__all__ = ["CAUSES", "SCHEMA", "SHORTFALLS", "at_work"]

SCHEMA: Final = 2
"""Version of the document's layout; grows when a key changes its meaning or goes away."""

CAUSES: Final = {
    "compute": "array work",
    "pipeline": "array fill, operand load and drain",
    "bandwidth": "operand transfers",
    "latency": "DRAM latency",
    "store": "write-back of results",
    "vector": "vector work",
    "fifo": "waits for a pair of chunks, in front of PEs",
    "imbalance": "waits for the slowest PEs of a tile",
    "vacant": "chunks without a product",
}
"""What each cause of a result's cycles means; `compute` first, then the array's waits.

While the array works, multipliers may idle: `at_work` says how many do not."""

SHORTFALLS: Final = {**CAUSES, "compute": "multipliers idle while others multiply"}
"""What cycles that do not shrink with the density mean: effectual products themselves do."""


def at_work(cause: str, cycles: int, macs_effectual: int, peak: int) -> str:
    """Return what `cycles` of a cause are, with the share of the multipliers that work if some do.

    >>> at_work("vector", 10, 5, 4), at_work("compute", 10, 10, 4)
    ('vector work', 'array work, 25.0% of the multipliers on effectual products')
    """
    if cause != "compute" or not cycles:
        return CAUSES[cause]
    share = macs_effectual / (peak * cycles)
    return f"{CAUSES[cause]}, {share:.1%} of the multipliers on effectual products"
