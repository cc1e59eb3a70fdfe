"""Sparse chains of DSP slices in Amaranth: slice, VPU, MPU and MPE."""

from rtl.dsp_chain.chain import Vpu
from rtl.dsp_chain.mpe import Mpe
from rtl.dsp_chain.shapes import mpe as mpe_ports

__all__ = ["Mpe", "Vpu", "mpe_ports"]
