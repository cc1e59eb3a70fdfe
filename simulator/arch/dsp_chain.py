"""DspChain: cores of configurable sparse DSP chains for LLM inference (FlightLLM, 2401.03868)."""

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

from simulator.arch.dequantiser import CODE_BITS
from simulator.arch.dsp_cells import CANDIDATES
from simulator.arch.memory import BufferParams, MemoryMode
from workloads.canonical import Spec

__all__ = ["INDEX_BITS", "Compression", "DdrParams", "DspChain", "HbmParams"]

INDEX_BITS: Final = 4
"""Position of a kept weight among its 16 candidates."""

_WIDTHS: Final = f"{', '.join(map(str, CODE_BITS[:-1]))} or {CODE_BITS[-1]}"


def _at_least_one(owner: str, spec: object, names: tuple[str, ...]) -> None:
    for name in names:
        if getattr(spec, name) < 1:
            raise ValueError(f"{owner} {name} must be at least 1, not {getattr(spec, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class HbmParams(Spec):
    """HBM as pseudo-channels of equal bandwidth, `channels_per_core` of them private to a core.

    A transfer that stays in the channels of its core reaches `same_channel_percent` of their
    bandwidth, one that crosses the switch `cross_channel_percent` of a single channel.
    """

    channels: int
    channels_per_core: int
    bandwidth_bytes_per_s: int
    capacity_bytes: int
    same_channel_percent: int = 100
    cross_channel_percent: int = 100
    latency_cycles: int = 0
    kind: str = "hbm2"

    def __post_init__(self) -> None:
        sizes = ("channels", "channels_per_core", "bandwidth_bytes_per_s", "capacity_bytes")
        _at_least_one("HBM", self, sizes)
        for name in ("same_channel_percent", "cross_channel_percent"):
            if not 1 <= getattr(self, name) <= 100:
                raise ValueError(f"HBM {name} must be 1 to 100, not {getattr(self, name)}")
        if self.latency_cycles < 0:
            raise ValueError(f"HBM latency_cycles must be at least 0, not {self.latency_cycles}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DdrParams(Spec):
    """DDR that streams every core its instructions while it runs."""

    bandwidth_bytes_per_s: int

    def __post_init__(self) -> None:
        _at_least_one("DDR", self, ("bandwidth_bytes_per_s",))


@dataclass(frozen=True, slots=True, kw_only=True)
class Compression(Spec):
    """What a published run left out of one model; it applies when no sparsity is asked for.

    Projections whose name ends in one of `projections` keep `kept_percent` of their weights, as
    rows of 16:16 and 8:16; prefill attention keeps `attention_percent` of its causal blocks of
    `attention_block` tokens (diagonal blocks always), in one layout shared by a layer's heads.
    """

    model: str
    projections: tuple[str, ...]
    kept_percent: int
    attention_percent: int
    attention_block: int = 64

    def __post_init__(self) -> None:
        if not 50 <= self.kept_percent <= 100:
            raise ValueError(
                f"Compression kept_percent must be 50 to 100 (8:16 to 16:16), not "
                f"{self.kept_percent}"
            )
        if not 1 <= self.attention_percent <= 100:
            raise ValueError(
                f"Compression attention_percent must be 1 to 100, not {self.attention_percent}"
            )
        _at_least_one("Compression", self, ("attention_block",))

    def kept_rows(self, rows: int) -> tuple[int, ...]:
        """Return N of 16 for every output row: dense rows first, the share rounded down."""
        dense = rows * (2 * self.kept_percent - 100) // 100
        return (16,) * dense + (8,) * (rows - dense)


@dataclass(frozen=True, slots=True, kw_only=True)
class DspChain(Spec):
    """Parameters of the machine; timing, programs and cost all read them here.

    Every core has a matrix unit that takes `mm_tokens` tokens x 16 candidates x `mm_columns`
    outputs a cycle, used as a vector unit of `mv_columns` outputs x 16 candidates for one token,
    and `misc_lanes` lanes for everything else. An MM instruction computes `mm_tile_columns`
    outputs, an MV instruction `mv_tile_columns`: ragged tiles cost what full ones do. A pass
    enters the chains every cycle; the last one leaves `fill_cycles` later.

    Buffers are of one core and hold int8: `act_buffer` the activations of MM, `weight_buffer`
    what streams past them, `mv_buffer` the matrices of MV, `out_buffer` results. Matrix buffers
    work in two halves. With `concatenates_kv` every decode step reads the cache once more, to
    append to it, before attention reads it; without, the new token is written in place.
    `sustained` is the share of its cycles in which the machine is assumed to make progress at
    all; it divides times, never cycles.
    """

    cores: int
    mm_tokens: int = 128
    mm_columns: int = 2
    mv_columns: int = 64
    mm_tile_columns: int = 16
    mv_tile_columns: int = 512
    chain_stages: int = 16
    pipeline_cycles: int = 0
    misc_lanes: int = 16
    misc_pipeline_cycles: int = 0
    link_bytes_per_cycle: int = 64
    clock_hz: int
    act_buffer: BufferParams
    weight_buffer: BufferParams
    mv_buffer: BufferParams
    out_buffer: BufferParams
    weight_channels: int = 1
    hbm: HbmParams
    ddr: DdrParams
    kv_capacity_tokens: int = 2048
    concatenates_kv: bool = False
    weight_bits: tuple[int, ...] = field(
        default=(8,), metadata={"wanted": f"a list such as [4], each {_WIDTHS}"}
    )
    head_bits: int = field(default=8, metadata={"wanted": _WIDTHS})
    always_on_chip: bool = True
    prefill_bucket: int = 128
    decode_bucket: int = 16
    compression: Compression | None = None
    sustained: float = 1.0
    memory: MemoryMode = MemoryMode.MODELLED

    def __post_init__(self) -> None:
        sizes = ("cores", "mm_tokens", "mm_columns", "mv_columns", "misc_lanes", "clock_hz")
        more = ("link_bytes_per_cycle", "weight_channels", "kv_capacity_tokens")
        _at_least_one("DspChain", self, (*sizes, *more, "prefill_bucket", "decode_bucket"))
        if self.chain_stages != self.group:
            raise ValueError(
                f"DspChain chain_stages must be {self.group}, one candidate each, not "
                f"{self.chain_stages}"
            )
        for unit in ("mm", "mv"):
            tile, columns = getattr(self, f"{unit}_tile_columns"), getattr(self, f"{unit}_columns")
            if tile < columns or tile % columns:
                raise ValueError(
                    f"DspChain {unit}_tile_columns must be a multiple of {unit}_columns = "
                    f"{columns}, not {tile}"
                )
        if self.prefill_bucket % self.group:
            raise ValueError(
                f"DspChain prefill_bucket must be a multiple of {self.group} tokens, not "
                f"{self.prefill_bucket}"
            )
        for name in ("pipeline_cycles", "misc_pipeline_cycles"):
            if getattr(self, name) < 0:
                raise ValueError(f"DspChain {name} must be at least 0, not {getattr(self, name)}")
        self._check_memory()

    def _check_memory(self) -> None:
        used = self.cores * self.hbm.channels_per_core
        if used > self.hbm.channels:
            raise ValueError(
                f"DspChain needs {used} HBM channels for {self.cores} cores; there are "
                f"{self.hbm.channels}"
            )
        if self.weight_channels > self.hbm.channels_per_core:
            raise ValueError(
                f"DspChain weight_channels must be at most channels_per_core = "
                f"{self.hbm.channels_per_core}, not {self.weight_channels}"
            )
        for name, widths in (("weight_bits", self.weight_bits), ("head_bits", (self.head_bits,))):
            for bits in widths:
                if bits not in CODE_BITS:
                    raise ValueError(f"DspChain {name} must be {_WIDTHS}, not {bits}")
        if not self.weight_bits:
            raise ValueError("DspChain weight_bits needs at least one width")
        if not 0 < self.sustained <= 1:
            raise ValueError(
                f"DspChain sustained must be above 0 and at most 1, not {self.sustained}"
            )
        if self.memory is not MemoryMode.MODELLED:
            raise ValueError(
                f"A DspChain runs programs with its memory modelled, not {self.memory.value}"
            )

    @property
    def group(self) -> int:
        """Candidates of one pass: M of N:M."""
        return CANDIDATES

    @property
    def fill_cycles(self) -> int:
        """Cycles from a pass entering the chains to its result: one a stage, and the pipeline."""
        return self.chain_stages + self.pipeline_cycles

    @property
    def peak_macs_per_cycle(self) -> int:
        """Products all cores can start in one cycle."""
        return self.cores * self.mm_tokens * self.group * self.mm_columns

    @property
    def peak_mv_macs_per_cycle(self) -> int:
        """Products all cores can start in one cycle for a single token."""
        return self.cores * self.mv_columns * self.group

    @property
    def dram(self) -> HbmParams:
        """Main memory, by the name every machine has it under."""
        return self.hbm

    def layer_bits(self, layer: int) -> int:
        """Return the weight width of a decoder layer; the widths repeat over the layers."""
        return self.weight_bits[layer % len(self.weight_bits)]

    def bytes_per_cycle(self, channels: int, *, cross: bool = False) -> Fraction:
        """Return what `channels` pseudo-channels deliver, or one reached across the switch."""
        percent = self.hbm.cross_channel_percent if cross else self.hbm.same_channel_percent
        share = Fraction(percent * (1 if cross else channels), 100 * self.hbm.channels)
        return share * self.hbm.bandwidth_bytes_per_s / self.clock_hz

    def seconds(self, cycles: int) -> float:
        """Return the time of `cycles`, `sustained` included."""
        return cycles / (self.clock_hz * self.sustained)
