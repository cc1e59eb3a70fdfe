"""A core of DSP chains that fetches, decodes and runs its programs against AXI4 memories."""

from rtl.dsp_machine.axi_top import DspTop
from rtl.dsp_machine.machine import DspMachine, check_dsp_machine

__all__ = ["DspMachine", "DspTop", "check_dsp_machine"]
