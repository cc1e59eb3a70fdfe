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

__all__ = [
    "MACHINES",
    "Accelerator",
    "ClosedForm",
    "WithRtl",
    "kind",
    "seconds",
    "with_rtl",
    "without_rtl",
]

ClosedForm: TypeAlias = TensorCore | OuterProduct | FlexDpe | StationaryArray
"""Machines whose operators have a closed form: see `simulator.models`."""

WithRtl: TypeAlias = NMArray | PEGrid | FlexDpe
"""Machines of which RTL can be generated."""

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


def without_rtl(arch: Accelerator) -> str | None:
    """Return why no RTL of `arch` runs random jobs beside the model; None if it does."""
    if isinstance(arch, PEGrid | FlexDpe):
        return arch.without_rtl
    if isinstance(arch, NMArray):
        return None
    able = ", ".join(name for name, machine in MACHINES.items() if issubclass(machine, WithRtl))
    if isinstance(arch, DspChain):
        return f"RTL of a dsp_chain is a whole core, of `rtl --machine`; {able} have random jobs"
    return f"a {kind(arch)} is a model only and has no RTL; {able} have"


def with_rtl(arch: Accelerator, name: str) -> WithRtl:
    """Return `arch` if its RTL runs random jobs beside the model.

    Raises ValueError, calling it by `name`, if it does not.
    """
    reason = without_rtl(arch)
    if reason is None and isinstance(arch, WithRtl):
        return arch
    raise ValueError(f"{name}: {reason}")


def seconds(arch: Accelerator, cycles: int) -> float:
    """Return the time of `cycles` at the machine's clock, `sustained` of a DspChain included."""
    return arch.seconds(cycles) if isinstance(arch, DspChain) else cycles / arch.clock_hz
