"""Accelerator: the closed union of machines."""

from collections.abc import Mapping
from typing import Final, TypeAlias

from simulator.arch.flex_dpe import FlexDpe
from simulator.arch.nm_array import NMArray
from simulator.arch.outer_product import OuterProduct
from simulator.arch.stationary_array import StationaryArray
from simulator.arch.tensor_core import TensorCore

__all__ = ["MACHINES", "Accelerator", "ClosedForm", "with_rtl"]

ClosedForm: TypeAlias = TensorCore | OuterProduct | FlexDpe | StationaryArray
"""Machines whose operators have a closed form: models only, see `simulator.models`."""

Accelerator: TypeAlias = NMArray | ClosedForm
"""What every generic step takes: clock, memory mode, main memory, peak rate, and the rest by type.

Every member has `clock_hz`, `memory`, `dram`, `operand_bits`, `vector_lanes`,
`peak_macs_per_cycle` and the buffers `act_buffer`, `weight_buffer` and `out_buffer`.
"""

MACHINES: Final[Mapping[str, type[Accelerator]]] = {
    "nm_array": NMArray,
    "tensor_core": TensorCore,
    "outer_product": OuterProduct,
    "flex_dpe": FlexDpe,
    "stationary_array": StationaryArray,
}
"""Machines by their name in a machine file."""


def with_rtl(arch: Accelerator) -> NMArray:
    """Return `arch` if RTL is generated for its kind; raises ValueError if it is a model only."""
    if isinstance(arch, NMArray):
        return arch
    raise ValueError(f"{type(arch).__name__} is a model only and has no RTL; an nm_array has")
