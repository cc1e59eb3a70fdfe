"""The exported DSP core on independent AXI4 RAMs: names, protocol, and every byte of memory."""

import numpy as np
import pytest
from decoder_step import flat, prepare

from rtl.cosim.dsp_axi import build_dsp_axi
from simulator.arch.load import load_arch
from simulator.dsp_isa import run_values

pytestmark = [pytest.mark.rtl, pytest.mark.cocotb, pytest.mark.long, pytest.mark.timeout(1800)]

ARCH = load_arch("flightllm-tiny")


def test_a_decode_step_leaves_numpys_memory_with_and_without_pauses(tmp_path):
    """Pauses on all five channels of the data bus cost cycles and change no byte."""
    core, step = build_dsp_axi(ARCH, tmp_path), prepare(ARCH)
    image, tokens = step.image, step.program.tokens
    expected = run_values(ARCH, flat(step), image.registers, image.memory, tokens).memory
    cycles = []
    for seed in (None, 1):
        memory, spent = core.run(step.words, image.registers, image.memory, tokens, pause_seed=seed)
        np.testing.assert_array_equal(memory, expected)
        cycles.append(spent)
    assert cycles[1] > cycles[0]
