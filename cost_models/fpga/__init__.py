"""What a machine takes of an UltraScale+ FPGA: synthesised parts of its RTL, added up by counts.

Synthesis is open-source and before placement, and the RTL is general: what a design fixes, such as
a dataflow or a pattern, it takes at run time. So the figures compare machines; a vendor's tools,
or a machine for one purpose, would take fewer LUTs.
"""

from typing import Final

from cost_models.fpga import dsp_chain, nm_array, pe_grid
from cost_models.fpga.parts import FpgaResources
from simulator.arch import Accelerator, DspChain, NMArray, PEGrid

__all__ = ["SOURCES", "FpgaResources", "dsp_chain", "fpga_resources", "nm_array", "pe_grid"]

_YOSYS: Final = "synthesis of the generated RTL (Yosys 0.23, synth_xilinx -family xcup)"
_LANES: Final = "assumed: any machine's vector lane takes what one of an fp16 nm_array does"
SOURCES: Final = {
    "dsp": f"{_YOSYS}: multipliers of PEs, WUVE, vector lanes, dequantisers and special functions. "
    "definition: a slice of a DSP chain is one DSP48E2, adders and registers included (UG579)",
    "lut": f"{_YOSYS}: PEs, edges and control of arrays and grids, delta encoders, SORE, WUVE and "
    "vector unit; chains, accumulators, requantisers, dequantisers, special-function units, fetch, "
    f"decoder and queues of cores; without DMA and buffers' control. {_LANES}",
    "ff": f"{_YOSYS}: of what is counted in LUTs",
    "uram": "assumed: every buffer in UltraRAMs of 36 KiB, as many as hold it (UG573)",
    "bram": "assumed: none, as buffers are UltraRAMs and memories inside the units are LUTs",
}
"""Where each figure comes from."""


def fpga_resources(arch: Accelerator) -> FpgaResources:
    """Return what a machine takes.

    A part that was not synthesised counts as the smallest one that was and does as much. Raises
    ValueError for machines of another kind, and for parts larger than any synthesised.
    """
    match arch:
        case NMArray():
            return nm_array.resources(arch)
        case PEGrid():
            return pe_grid.resources(arch)
        case DspChain():
            return dsp_chain.resources(arch)
        case _:
            raise ValueError(
                f"FPGA resources are known of nm_array, pe_grid and dsp_chain machines, not of a "
                f"{type(arch).__name__}"
            )
