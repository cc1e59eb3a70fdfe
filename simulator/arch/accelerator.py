"""Accelerator: the closed union of machines."""

from collections.abc import Mapping
from typing import Final

from simulator.arch.nm_array import NMArray

__all__ = ["MACHINES", "Accelerator"]

Accelerator = NMArray
"""What every generic step takes: clock, memory mode, main memory, peak rate, and the rest by type.

Every member has `clock_hz`, `memory`, `dram`, `operand_bits`, `vector_lanes` and
`peak_macs_per_cycle`.
"""

MACHINES: Final[Mapping[str, type[Accelerator]]] = {"nm_array": NMArray}
"""Machines by their name in a machine file."""
