"""The PEGrid in Amaranth: sparse-aware PEs behind broadcast FIFOs, int8 into int32."""

from rtl.pe_grid.core import PEGridCore
from rtl.pe_grid.delta import DeltaEncoder
from rtl.pe_grid.pe import GridElement

__all__ = ["DeltaEncoder", "GridElement", "PEGridCore"]
