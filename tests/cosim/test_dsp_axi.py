"""The exported DSP core on independent AXI4 RAMs: names, protocol, and every byte of memory."""

import numpy as np
import pytest
from decoder_step import flat, prepare, prepare_prompt

from rtl.cosim.dsp_axi import build_dsp_axi
from simulator.arch.load import load_arch
from simulator.dsp_isa import run_values

pytestmark = [pytest.mark.rtl, pytest.mark.cocotb, pytest.mark.long, pytest.mark.timeout(1800)]

ARCH = load_arch("flightllm-tiny")


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    return build_dsp_axi(ARCH, tmp_path_factory.mktemp("axi"))


@pytest.mark.parametrize("prepared", [prepare, prepare_prompt], ids=["step", "prompt"])
def test_a_run_leaves_numpys_memory_with_and_without_pauses(core, prepared):
    """Pauses on all five channels of the data bus cost cycles and change no byte."""
    run = prepared(ARCH)
    image, tokens = run.image, run.program.tokens
    expected = run_values(ARCH, flat(run), image.registers, image.memory, tokens).memory
    cycles = []
    for seed in (None, 1):
        memory, spent = core.run(run.words, image.registers, image.memory, tokens, pause_seed=seed)
        np.testing.assert_array_equal(memory, expected)
        cycles.append(spent)
    assert cycles[1] > cycles[0]
