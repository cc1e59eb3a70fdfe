"""Operators that stream through a unit beside the array: vector work, updates, selections."""

import collections.abc as abc
from dataclasses import dataclass

from mapping.lower import dma_cycles
from mapping.space import split_counts
from mapping.types import NoMapping
from simulator.arch import NMArray
from simulator.counts import Event
from simulator.engine import program_cycles
from simulator.schedule import Block, Repeat, Step, Unit
from workloads.canonical import Spec

__all__ = ["Stream", "lower_stream", "map_stream"]

MOST_CHUNKS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream(Spec):
    """An operator that reads, works on and writes its data once, chunk by chunk, on `unit`.

    `ops` are element operations of the vector unit, elements of WUVE, or whole groups of `group`
    values of which SORE keeps `kept`.
    """

    read_bytes: int
    write_bytes: int
    ops: int
    unit: Unit = Unit.VECTOR
    kept: int = 1
    group: int = 1


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


def _chunk(stream: Stream, chunks: int) -> tuple[Stream, Stream]:
    """Return an inner and the last of `chunks` chunks; the last takes what is left over."""
    sizes = (stream.read_bytes, stream.write_bytes, stream.ops)
    inner = [size // chunks for size in sizes]
    last = [size - (chunks - 1) * part for size, part in zip(sizes, inner, strict=True)]
    first, final = (
        Stream(
            read_bytes=r,
            write_bytes=w,
            ops=v,
            unit=stream.unit,
            kept=stream.kept,
            group=stream.group,
        )
        for r, w, v in (inner, last)
    )
    return first, final


def _largest(stream: Stream, chunks: int) -> int:
    _, last = _chunk(stream, chunks)
    return max(last.read_bytes, last.write_bytes)


def lower_stream(arch: NMArray, stream: Stream, chunks: int) -> tuple[Block, abc.Mapping[str, int]]:
    """Return the program of `stream` cut into `chunks`, and its initial tokens."""
    inner, last = _chunk(stream, chunks)
    tokens = {"in.free": 2, "out.free": 2}
    tail = (_load(arch, last), _work(arch, last))
    if chunks == 1:
        return (*tail, _store(arch, last)), tokens
    head, store = (_load(arch, inner), _work(arch, inner)), _store(arch, inner)
    middle: Block = (Repeat(times=chunks - 2, body=(*head, store)),) if chunks > 2 else ()
    return (*head, *middle, *tail, store, _store(arch, last)), tokens


def _load(arch: NMArray, chunk: Stream) -> Step:
    bits = 8 * chunk.read_bytes
    return Step(
        unit=Unit.DMA,
        label="load",
        cycles=dma_cycles(arch, bits),
        latency=arch.dram.latency_cycles,
        waits=("in.free",),
        releases=("in.full",),
        counts={("dram", "read", "full"): bits, ("act_buffer", "write", "full"): bits},
    )


def _pace(arch: NMArray, chunk: Stream) -> tuple[int, int, dict[Event, int]]:
    """Return cycles, latency and events of a chunk's work on its unit."""
    units = arch.training
    if chunk.unit is Unit.WUVE and units:
        cycles = -(-chunk.ops // units.wuve.lanes)
        return cycles, units.wuve.latency, {("wuve", "update", "full"): chunk.ops}
    if chunk.unit is Unit.SORE and units:
        cycles = -(-chunk.ops // units.sore.lanes) * chunk.group
        compared = chunk.ops * chunk.group * chunk.kept
        return cycles, chunk.kept, {("sore", "compare", "full"): compared}
    return -(-chunk.ops // arch.vector_lanes), 0, {("vector", "op", "full"): chunk.ops}


def _work(arch: NMArray, chunk: Stream) -> Step:
    cycles, latency, events = _pace(arch, chunk)
    return Step(
        unit=chunk.unit,
        label=chunk.unit.value,
        cycles=cycles,
        latency=latency,
        waits=("in.full", "out.free"),
        releases=("in.free", "out.full"),
        counts={
            ("act_buffer", "read", "full"): 8 * chunk.read_bytes,
            ("act_buffer", "write", "full"): 8 * chunk.write_bytes,
            **events,
        },
    )


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
