"""FlightLLM's units in Amaranth: DSP slice, VPU, MPU, MPE, dequantiser, special functions."""

from rtl.dsp_chain.chain import Vpu
from rtl.dsp_chain.dequantiser import Dequantiser, DequantiserLane, dequantiser_ports
from rtl.dsp_chain.mpe import Mpe
from rtl.dsp_chain.shapes import mpe as mpe_ports
from rtl.dsp_chain.special import Special, SpecialLane
from rtl.dsp_chain.special_shapes import special_ports

__all__ = [
    "Dequantiser",
    "DequantiserLane",
    "Mpe",
    "Special",
    "SpecialLane",
    "Vpu",
    "dequantiser_ports",
    "mpe_ports",
    "special_ports",
]
