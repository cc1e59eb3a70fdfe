"""Accelerator: the closed union of machines."""

from collections.abc import Mapping
from typing import Final, TypeAlias

from simulator.arch.dsp_chain import DspChain
from simulator.arch.flex_dpe import FlexDpe
from simulator.arch.nm_array import NMArray
from simulator.arch.outer_product import OuterProduct
from simulator.arch.pe_grid import PEGrid
from simulator.arch.stationary_array import StationaryArray
from simulator.arch.tensor_core import TensorCore

__all__ = ["MACHINES", "WITH_RTL", "Accelerator", "ClosedForm", "kind", "seconds", "with_rtl"]

ClosedForm: TypeAlias = TensorCore | OuterProduct | FlexDpe | StationaryArray
"""Machines whose operators have a closed form: models only, see `simulator.models`."""

Accelerator: TypeAlias = NMArray | PEGrid | DspChain | ClosedForm
"""What every generic step takes: clock, memory mode, main memory, peak rate, and the rest by type.

Every member has `clock_hz`, `memory`, `dram`, `operand_bits`, `vector_lanes`,
`peak_macs_per_cycle` and the buffers `act_buffer`, `weight_buffer` and `out_buffer`.
"""

MACHINES: Final[Mapping[str, type[Accelerator]]] = {
    "nm_array": NMArray,
    "dsp_chain": DspChain,
    "pe_grid": PEGrid,
    "tensor_core": TensorCore,
    "outer_product": OuterProduct,
    "flex_dpe": FlexDpe,
    "stationary_array": StationaryArray,
}
"""Machines by their name in a machine file."""


def kind(arch: Accelerator) -> str:
    """Return what a machine file calls machines like `arch`."""
    return next(name for name, machine in MACHINES.items() if type(arch) is machine)


WITH_RTL: Final = ("nm_array", "pe_grid")
"""Machines with generated RTL; the others are models only."""


def with_rtl(arch: Accelerator, name: str) -> NMArray | PEGrid:
    """Return `arch` if RTL is generated for its kind.

    Raises ValueError, calling it by `name`, if it is a model only.
    """
    if isinstance(arch, NMArray | PEGrid):
        return arch
    raise ValueError(
        f"{name} is a {kind(arch)}, a model only without RTL; {' and '.join(WITH_RTL)} have RTL"
    )


def seconds(arch: Accelerator, cycles: int) -> float:
    """Return the time of `cycles` at the machine's clock, `sustained` of a DspChain included."""
    return arch.seconds(cycles) if isinstance(arch, DspChain) else cycles / arch.clock_hz
