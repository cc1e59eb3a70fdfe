"""Operators that stream through the vector unit: element-wise work, norms, softmax, copies."""

import collections.abc as abc
from dataclasses import dataclass

from mapping.lower import dma_cycles
from mapping.space import split_counts
from mapping.types import NoMapping
from simulator.arch import NMArray
from simulator.engine import program_cycles
from simulator.schedule import Block, Repeat, Step, Unit
from workloads.canonical import Spec

__all__ = ["Stream", "lower_stream", "map_stream"]

MOST_CHUNKS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream(Spec):
    """An operator that reads, works on and writes its data once, chunk by chunk."""

    read_bytes: int
    write_bytes: int
    ops: int  # element operations

    def chunk(self, chunks: int) -> "tuple[Stream, Stream]":
        """Return an inner and the last of `chunks` chunks; the last takes what is left over."""
        sizes = (self.read_bytes, self.write_bytes, self.ops)
        inner = [size // chunks for size in sizes]
        last = [size - (chunks - 1) * part for size, part in zip(sizes, inner, strict=True)]
        return tuple(  # type: ignore[return-value]
            Stream(read_bytes=r, write_bytes=w, ops=v) for r, w, v in (inner, last)
        )


def map_stream(arch: NMArray, stream: Stream) -> tuple[Block, abc.Mapping[str, int]]:
    """Return the fastest program of `stream` over the chunk counts that fit.

    Two input and two output chunks share the activation buffer. Large chunks hide the DRAM's
    latency, small ones the first load and the last store.
    """
    slot = arch.act_buffer.capacity_bytes // 4
    if slot < 1:
        raise NoMapping(
            "Vector operators need act_buffer.capacity_bytes of at least 4, "
            f"not {arch.act_buffer.capacity_bytes}"
        )
    need = max(stream.read_bytes, stream.write_bytes)
    counts = [c for c in split_counts(max(MOST_CHUNKS, need)) if _largest(stream, c) <= slot]
    # Beyond the first few that fit, more chunks only pay latency more often.
    programs = [lower_stream(arch, stream, c) for c in counts if c <= MOST_CHUNKS] or [
        lower_stream(arch, stream, counts[0])
    ]
    return min(programs, key=lambda program: program_cycles(*program))


def _largest(stream: Stream, chunks: int) -> int:
    _, last = stream.chunk(chunks)
    return max(last.read_bytes, last.write_bytes)


def lower_stream(arch: NMArray, stream: Stream, chunks: int) -> tuple[Block, abc.Mapping[str, int]]:
    """Return the program of `stream` cut into `chunks`, and its initial tokens."""
    inner, last = stream.chunk(chunks)
    tokens = {"in.free": 2, "out.free": 2}
    tail = _compute(arch, last)
    if chunks == 1:
        return (*tail, _store(arch, last)), tokens
    head, store = _compute(arch, inner), _store(arch, inner)
    middle: Block = (Repeat(times=chunks - 2, body=(*head, store)),) if chunks > 2 else ()
    return (*head, *middle, *tail, store, _store(arch, last)), tokens


def _compute(arch: NMArray, chunk: Stream) -> Block:
    bits = 8 * chunk.read_bytes
    load = Step(
        unit=Unit.DMA,
        label="load",
        cycles=dma_cycles(arch, bits),
        latency=arch.dram.latency_cycles,
        waits=("in.free",),
        releases=("in.full",),
        counts={("dram", "read", "full"): bits, ("act_buffer", "write", "full"): bits},
    )
    work = Step(
        unit=Unit.VECTOR,
        label="vector",
        cycles=-(-chunk.ops // arch.vector_lanes),
        waits=("in.full", "out.free"),
        releases=("in.free", "out.full"),
        counts={
            ("act_buffer", "read", "full"): bits,
            ("act_buffer", "write", "full"): 8 * chunk.write_bytes,
            ("vector", "op", "full"): chunk.ops,
        },
    )
    return load, work


def _store(arch: NMArray, chunk: Stream) -> Step:
    bits = 8 * chunk.write_bytes
    return Step(
        unit=Unit.DMA,
        label="store",
        cycles=dma_cycles(arch, bits),
        waits=("out.full",),
        releases=("out.free",),
        counts={("act_buffer", "read", "full"): bits, ("dram", "write", "full"): bits},
    )
