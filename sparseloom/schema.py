"""Vocabulary of a run's document, shared by what writes it and what reads it."""

from typing import Final

__all__ = ["CAUSES", "SCHEMA", "SHORTFALLS"]

SCHEMA: Final = 2
"""Version of the document's layout; grows when a key changes its meaning or goes away."""

CAUSES: Final = {
    "compute": "multiplying",
    "pipeline": "array fill, operand load and drain",
    "bandwidth": "operand transfers",
    "latency": "DRAM latency",
    "store": "write-back of results",
    "vector": "vector work",
    "fifo": "waits for a pair of chunks, in front of PEs",
    "imbalance": "waits for the slowest PEs of a tile",
    "vacant": "chunks without a product",
}
"""What each cause of a result's cycles means; `compute` first, then the array's waits."""

SHORTFALLS: Final = {**CAUSES, "compute": "multipliers idle while others multiply"}
"""What cycles that do not shrink with the density mean: effectual products themselves do."""
