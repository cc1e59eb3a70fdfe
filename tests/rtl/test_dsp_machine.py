"""What the DSP core and its programs are refused for, by name."""

import pytest

from rtl.dsp_machine import check_dsp_machine
from rtl.dsp_machine.program import check_program
from simulator.arch.load import load_arch
from simulator.dsp_isa import assemble

pytestmark = pytest.mark.rtl

ARCH = load_arch("flightllm-tiny")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"cores": 2, "hbm": {"channels": 2}}, "cores must be 1, not 2"),
        ({"hbm": {"bandwidth_bytes_per_s": 1_800_000_000}}, "one channel of 4 bytes a cycle"),
        ({"hbm": {"cross_channel_percent": 50}}, "one channel of 4 bytes a cycle"),
        ({"hbm": {"latency_cycles": 6}}, "latency_cycles must be at least 7, .* not 6"),
        ({"mv_columns": 8}, "mv_columns must be 4, .* not 8"),
        ({"mm_tokens": 16}, "mm_tokens must be 8, two for every chain, not 16"),
        ({"mm_columns": 2}, "mm_columns must be 1 and mm_tile_columns 16, not 2 and 16"),
        ({"mm_tile_columns": 32}, "mm_columns must be 1 and mm_tile_columns 16, not 1 and 32"),
        ({"misc_lanes": 8}, "misc_lanes must be 16, not 8"),
        ({"link_bytes_per_cycle": 64}, "link_bytes_per_cycle must be 16, not 64"),
        ({"pipeline_cycles": 4}, "pipeline_cycles must be 7, .* not 4"),
        ({"misc_pipeline_cycles": 12}, "misc_pipeline_cycles must be 6, .* not 12"),
    ],
)
def test_a_core_that_cannot_be_built_is_refused_by_parameter(change, sentence):
    """The machine's parameters are the hardware's, or an error."""
    with pytest.raises(ValueError, match=f"The RTL machine: .*{sentence}"):
        check_dsp_machine(load_arch("flightllm-tiny", **change))


GOOD = "SYS\n"


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("MM groups=1 passes=1", r"MM with a reduction in parts \(1\)"),
        ("MM groups=1 passes=1 emit=1 tokens=4", r"MM with 4 tokens instead of 8 \(1\)"),
        ("MM groups=17 passes=16 emit=1 tokens=8", "MM with 16 passes of 17 groups: half the buff"),
        ("MM groups=1 passes=17 emit=1 tokens=8", "MM with 17 passes of 1 groups"),
        ("MM emit=1 tokens=8", "MM with 0 passes of 0 groups"),
        ("MM groups=1 passes=16 emit=1 tokens=8 out=255", "out beyond the 16384 results"),
        ("MV groups=1 passes=1 accumulate=1 emit=1", r"MV with a reduction in parts \(1\)"),
        ("MV groups=1 passes=1", r"MV with a reduction in parts \(1\)"),
        ("MV groups=16 passes=33 emit=1", "MV with 528 passes: half the buffer holds 1 to 512"),
        ("MV emit=1", "MV with 0 passes: half the buffer"),
        ("MV emit=1 groups=5 passes=1 vector=255", "vector beyond the 16384 results"),
        ("MISC rows=2 groups=3 a=255", "a beyond the 16384 results"),
        ("ST link=1 bytes=16 address=256", "address beyond the 16384 results"),
        ("MISC rows=1", "MISC with no rows"),
        ("MISC op=2 rows=8 groups=1 b=10", "MISC with rows that grow to 17 elements of 16"),
        ("LD buffer=3 bytes=6", "LD with 6 B, 0 of them indices: beats have 4"),
        ("LD buffer=3", "LD with 0 B"),
        ("LD buffer=3 bank=255 bytes=68", "bank beyond the 16384 results of the out buffer"),
        ("LD buffer=4 bank=255 bytes=68", "a line that the row table has not"),
        ("LD buffer=2 bytes=64 rows=8", r"rows in other portions than sixteens \(\[8, 0, 0, 0\]\)"),
        ("LD buffer=2 bytes=36 metadata=16 rows=16 bits=5", "LD with 20 B of codes, less than two"),
        ("LD buffer=1 bytes=64 rows=4 groups=1", "LD with 4 tokens of 1 groups"),
        ("LD buffer=1 bytes=4224 rows=8 groups=33", "LD with 8 tokens of 33 groups"),
        ("LD buffer=0 bytes=64 rows=32 groups=1", "LD with 32 columns for MM"),
        ("LD buffer=3 split=1 bytes=24", "LD with 24 B instead of pieces of 16"),
        ("ST split=1 bytes=24", "ST with 24 B instead of a multiple of 16"),
        ("ST bytes=6", "ST with 6 B instead of a multiple of 4"),
        ("ST link=1 bytes=8", "ST with 8 B instead of a multiple of 16"),
        ("ST bank=256 bytes=4", "bank beyond the 16384 results of the out buffer"),
        (
            "ST bytes=4 release=LD\nST link=1 bytes=16 release=LD",
            r"ST with tokens for LD from link and memory \(2\)",
        ),
    ],
)
def test_a_program_that_the_core_has_no_hardware_for_is_refused_by_instruction(line, sentence):
    """Module, what it lacks, and the number of the instruction."""
    with pytest.raises(ValueError, match=f"The RTL machine runs no .*{sentence}"):
        check_program(ARCH, assemble(f"{GOOD}{line}\n"))
