from fractions import Fraction

import pytest

from simulator.arch import BufferParams, Compression, DdrParams, DspChain, HbmParams
from simulator.arch.load import load_arch, read_arch_file
from simulator.dsp_isa import Instruction, MiscOp, Module, duration, execute
from simulator.units.dsp_timing import passes, transfer_cycles

HBM = {
    "channels": 32,
    "channels_per_core": 8,
    "bandwidth_bytes_per_s": 32_000_000_000,
    "capacity_bytes": 1 << 33,
}


def machine(**changes):
    """Return a small machine with round numbers."""
    buffer = BufferParams(capacity_bytes=1 << 20)
    values = {
        "cores": 4,
        "clock_hz": 100_000_000,
        **dict.fromkeys(("act_buffer", "weight_buffer", "mv_buffer", "out_buffer"), buffer),
        "hbm": HbmParams(**HBM),
        "ddr": DdrParams(bandwidth_bytes_per_s=10**10),
    }
    return DspChain(**{**values, **changes})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"cores": 0}, "DspChain cores must be at least 1, not 0"),
        ({"cores": 5}, "needs 40 HBM channels for 5 cores; there are 32"),
        ({"chain_stages": 8}, "chain_stages must be 16, one candidate each, not 8"),
        (
            {"mv_tile_columns": 100},
            "mv_tile_columns must be a multiple of mv_columns = 64, not 100",
        ),
        ({"mm_columns": 3}, "mm_tile_columns must be a multiple of mm_columns = 3, not 16"),
        ({"prefill_bucket": 24}, "prefill_bucket must be a multiple of 16 tokens, not 24"),
        ({"pipeline_cycles": -1}, "pipeline_cycles must be at least 0, not -1"),
        ({"weight_channels": 9}, "weight_channels must be at most channels_per_core = 8, not 9"),
        ({"weight_bits": (4, 6)}, "weight_bits must be 3, 4, 5 or 8, not 6"),
        ({"head_bits": 16}, "head_bits must be 3, 4, 5 or 8, not 16"),
        ({"weight_bits": ()}, "weight_bits needs at least one width"),
        ({"sustained": 0.0}, "sustained must be above 0 and at most 1, not 0.0"),
        ({"memory": "ideal"}, "runs programs with its memory modelled, not ideal"),
    ],
)
def test_a_machine_that_cannot_be_is_refused(change, sentence):
    """Every limit of the parameters is one sentence with what was found and is allowed."""
    with pytest.raises(ValueError, match=sentence):
        load_arch(machine(), **change)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"channels": 0}, "HBM channels must be at least 1, not 0"),
        ({"same_channel_percent": 101}, "same_channel_percent must be 1 to 100, not 101"),
        ({"latency_cycles": -1}, "latency_cycles must be at least 0, not -1"),
    ],
)
def test_impossible_memory_is_refused(change, sentence):
    """HBM numbers have limits."""
    with pytest.raises(ValueError, match=sentence):
        HbmParams(**{**HBM, **change})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"kept_percent": 40}, r"kept_percent must be 50 to 100 \(8:16 to 16:16\), not 40"),
        ({"attention_percent": 0}, "attention_percent must be 1 to 100, not 0"),
        ({"attention_block": 0}, "attention_block must be at least 1, not 0"),
    ],
)
def test_impossible_compression_is_refused(change, sentence):
    """Rows of 16:16 and 8:16 keep half of the weights or more."""
    values = {"model": "m", "projections": ("q",), "kept_percent": 70, "attention_percent": 30}
    with pytest.raises(ValueError, match=sentence):
        Compression(**{**values, **change})


@pytest.mark.parametrize("percent", [50, 70, 99, 100])
def test_kept_rows_keep_their_share(percent):
    """Rows of 16:16 and 8:16 average to the share of weights, less than one row below it."""
    chosen = Compression(
        model="m", projections=("q",), kept_percent=percent, attention_percent=30
    ).kept_rows(4096)
    assert len(chosen) == 4096
    assert 0 <= percent / 100 - sum(chosen) / (16 * 4096) < 8 / (16 * 4096)


@pytest.mark.parametrize("name", ["flightllm-vhk158", "flightllm-u280"])
def test_every_preset_number_names_its_source(name):
    """Each parameter of a preset cites a source or says that it is assumed."""
    file = read_arch_file(name)

    def leaves(values, prefix=""):
        for key, value in values.items():
            if isinstance(value, dict):
                yield from leaves(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}"

    assert set(leaves(file.values)) == set(file.sources)
    assert load_arch(name).digest() == load_arch(load_arch(name)).digest()


def test_preset_geometry_is_the_published_one():
    """VHK158: 4 cores of 2 x 16 x 128 and 64 x 16 multipliers, 225 MHz."""
    arch = load_arch("flightllm-vhk158")
    assert arch.peak_macs_per_cycle == 4 * 4096
    assert arch.peak_mv_macs_per_cycle == 4 * 1024
    assert arch.clock_hz == 225_000_000


def test_channels_share_the_bandwidth_and_crossing_gets_one_channels_part():
    """Same-channel efficiency scales with channels; across the switch there is one."""
    arch = machine(hbm=HbmParams(**HBM, same_channel_percent=70, cross_channel_percent=35))
    channel = Fraction(32_000_000_000, 32 * 100_000_000)
    assert arch.bytes_per_cycle(8) == 8 * channel * Fraction(7, 10)
    assert arch.bytes_per_cycle(8, cross=True) == channel * Fraction(35, 100)


def test_sustained_divides_times_only():
    """seconds = cycles / (clock x sustained)."""
    assert machine(sustained=0.5).seconds(100_000_000) == 2.0


@pytest.mark.parametrize(
    ("kept", "chains", "expected"),
    [
        ({16: 64}, 64, 1),
        ({16: 65}, 64, 2),
        ({8: 128}, 64, 1),
        ({4: 256}, 64, 1),
        ({2: 512}, 64, 1),
        ({2: 513}, 64, 2),
        ({0: 4096}, 64, 0),
        ({16: 1, 8: 1, 4: 1, 2: 1, 0: 1}, 64, 4),
        ({16: 16}, 2, 8),
    ],
)
def test_passes_are_rows_times_kept_over_stages(kept, chains, expected):
    """16 / N rows share a chain; rows of different N never do; N = 0 takes no stage."""
    assert passes(kept, chains) == expected


@pytest.mark.parametrize(
    ("rate", "size", "cycles"),
    [(Fraction(7, 2), 7, 2), (Fraction(7, 2), 8, 3), (Fraction(9), 0, 0)],
)
def test_transfers_round_up_to_cycles(rate, size, cycles):
    """A transfer takes the fewest cycles in which its bytes pass."""
    assert transfer_cycles(rate, size) == cycles


LD, ST, MM, MV, MISC, SYS = Module


@pytest.mark.parametrize(
    ("module", "fields", "expected"),
    [
        (LD, {"bytes": 81, "channels": 8}, (2, 7)),  # 10 B/cycle a channel
        (LD, {"bytes": 81, "channels": 8, "cross": 1}, (9, 7)),
        (ST, {"bytes": 80, "channels": 4}, (2, 7)),
        (ST, {"bytes": 80, "channels": 4, "link": 1}, (5, 0)),  # 4 cores x 80 B over 64 B
        (MM, {"groups": 256, "passes": 8, "tokens": 128}, (2048 + 19, 0)),
        (MV, {"groups": 256, "passes": 0}, (19, 0)),
        (MISC, {"op": MiscOp.ADD, "rows": 2, "groups": 3}, (6 + 5, 0)),
        (MISC, {"op": MiscOp.SOFTMAX, "rows": 2, "groups": 3}, (12 + 6 + 5, 0)),
        (SYS, {}, (1, 0)),
    ],
)
def test_duration_of_every_module(module, fields, expected):
    """Cycles follow from an instruction's own fields, and tokens appear a latency later."""
    hbm = HbmParams(**HBM, latency_cycles=7)
    arch = machine(hbm=hbm, pipeline_cycles=3, misc_pipeline_cycles=5)
    assert duration(arch, Instruction(module=module, fields=fields)) == expected


def test_layer_widths_repeat_over_the_layers():
    """Mixed precision is a pattern of widths over the layers."""
    arch = machine(weight_bits=(3, 4, 8))
    assert [arch.layer_bits(i) for i in range(5)] == [3, 4, 8, 3, 4]


@pytest.mark.parametrize("channels", [0, 33])
def test_a_transfer_takes_channels_that_are_there(channels):
    """A program written by hand is told which instruction asks for what."""
    load = Instruction(module=Module.LD, fields={"bytes": 64, "channels": channels})
    with pytest.raises(ValueError, match=f"Instruction 0: LD moves over {channels} channels, not"):
        execute(machine(), [load])
