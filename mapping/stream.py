"""Operators that stream through a unit beside the array: vector work, updates, selections."""

import collections.abc as abc
import math

from mapping.lower import dma_cycles
from mapping.space import split_counts
from mapping.types import NoMapping
from simulator.arch import NMArray
from simulator.counts import Event
from simulator.engine import program_cycles
from simulator.plan import Chunk, Flow, Stream, StreamPlan
from simulator.schedule import Block, Repeat, Step, Unit

__all__ = ["lower_stream", "map_stream"]

MOST_CHUNKS = 4096


def map_stream(arch: NMArray, stream: Stream) -> tuple[Block, abc.Mapping[str, int], StreamPlan]:
    """Return the fastest program of `stream` over the chunk counts that fit, and its plan.

    Two input and two output chunks share the activation buffer with the tensors that stay in it.
    Large chunks hide the DRAM's latency, small ones the first load and the last store.
    """
    plans = [p for p in _plans(arch, stream) if _largest(p) <= _slot(arch, stream)]
    if not plans:
        need = 4 * _least(stream) + _resident(stream)
        raise NoMapping(
            f"Vector operators need act_buffer.capacity_bytes of at least {need}, "
            f"not {arch.act_buffer.capacity_bytes}"
        )
    # Beyond the first few that fit, more chunks only pay latency more often.
    few = [p for p in plans if p.chunks <= MOST_CHUNKS] or plans[:1]
    best = min(few, key=lambda plan: program_cycles(*lower_stream(arch, plan)))
    return *lower_stream(arch, best), best


def _resident(stream: Stream) -> int:
    """Return the bytes of the tensors that stay in the activation buffer."""
    flows = (*stream.reads, *stream.writes)
    return _bytes(flow.bits for flow in flows if flow.role in stream.resident)


def _slot(arch: NMArray, stream: Stream) -> int:
    return (arch.act_buffer.capacity_bytes - _resident(stream)) // 4


def _plans(arch: NMArray, stream: Stream) -> abc.Iterator[StreamPlan]:
    """Yield the cuts to try, in pieces that start on beats of memory where any such piece fits."""
    for align in sorted({_beat_granules(arch, stream), 1}, reverse=True):
        pieces = max(1, stream.granules // align)
        cuts = [
            StreamPlan(stream=stream, granules=pieces // count * align, chunks=count)
            for count in split_counts(pieces)
        ]
        if any(_largest(p) <= _slot(arch, stream) for p in cuts):
            yield from cuts
            return


def _beat_granules(arch: NMArray, stream: Stream) -> int:
    """Return the fewest granules of which every tensor has whole beats, 1 if a beat is no whole."""
    bits, rest = divmod(8 * arch.dram.bandwidth_bytes_per_s, arch.clock_hz)
    flows = [flow for flow in (*stream.loads, *stream.stores) if flow.granule_bits]
    if rest or not bits:
        return 1
    return math.lcm(*(bits // math.gcd(bits, flow.granule_bits) for flow in flows))


def _bytes(bits: abc.Iterable[int]) -> int:
    return sum(-(-n // 8) for n in bits)


def _largest(plan: StreamPlan) -> int:
    ends = plan.chunk(0), plan.chunk(plan.chunks - 1)
    return max(max(_bytes(_loaded(chunk)), _bytes(_stored(chunk))) for chunk in ends)


def _loaded(chunk: Chunk) -> list[int]:
    return [chunk.read(flow) for flow in chunk.stream.loads]


def _stored(chunk: Chunk) -> list[int]:
    return [chunk.written(flow) for flow in chunk.stream.stores]


def _least(stream: Stream) -> int:
    return _largest(StreamPlan(stream=stream, granules=1, chunks=stream.granules))


def lower_stream(arch: NMArray, plan: StreamPlan) -> tuple[Block, abc.Mapping[str, int]]:
    """Return the program of a stream cut as planned, and its initial tokens.

    Every tensor of a chunk is a transfer of its own. The stores of a chunk are issued behind the
    next chunk's loads. Nothing waits for tensors that stay on chip.
    """
    first, inner, last = plan.chunk(0), plan.chunk(1), plan.chunk(plan.chunks - 1)
    ways = (("in.free", _has_loads(plan.stream)), ("out.free", _has_stores(plan.stream)))
    tokens = {channel: 2 for channel, needed in ways if needed}
    block: Block = (*_loads(arch, first), *_work(arch, first))
    if plan.chunks == 1:
        return (*block, *_stores(arch, first)), tokens
    if plan.chunks > 2:
        block += (*_loads(arch, inner), *_work(arch, inner), *_stores(arch, first))
    if plan.chunks > 3:
        body = (*_loads(arch, inner), *_work(arch, inner), *_stores(arch, inner))
        block += (Repeat(times=plan.chunks - 3, body=body),)
    before = _stores(arch, inner if plan.chunks > 2 else first)
    return (
        *block,
        *_loads(arch, last),
        *_work(arch, last),
        *before,
        *_stores(arch, last),
    ), tokens


def _has_loads(stream: Stream) -> bool:
    return bool(stream.loads) or not stream.reads


def _has_stores(stream: Stream) -> bool:
    return bool(stream.stores) or not stream.writes


def _moves(flows: abc.Sequence[Flow], bits: abc.Sequence[int]) -> list[tuple[str, int]]:
    """Return (role, bits) of the transfers of a chunk, one at least: it passes the slot on."""
    moves = [(flow.role, size) for flow, size in zip(flows, bits, strict=True)]
    return [move for move in moves if move[1]] or [*moves, ("nothing", 0)][:1]


def _loads(arch: NMArray, chunk: Chunk) -> tuple[Step, ...]:
    """Return the transfers in: the first takes the buffer slot, the last makes it full."""
    if not _has_loads(chunk.stream):
        return ()
    moves = _moves(chunk.stream.loads, _loaded(chunk))
    return tuple(
        Step(
            unit=Unit.DMA,
            label=f"load {role}",
            cycles=dma_cycles(arch, bits),
            latency=arch.dram.latency_cycles,
            waits=("in.free",) if (role, bits) == moves[0] else (),
            releases=("in.full",) if (role, bits) == moves[-1] else (),
            counts={("dram", "read", "full"): bits, ("act_buffer", "write", "full"): bits},
        )
        for role, bits in moves
    )


def _pace(arch: NMArray, chunk: Chunk) -> tuple[int, int, dict[Event, int]]:
    """Return cycles, latency and events of a chunk's work on its unit."""
    units, stream, ops = arch.training, chunk.stream, chunk.ops
    if stream.unit is Unit.WUVE and units:
        cycles = -(-ops // units.wuve.lanes)
        return cycles, units.wuve.latency, {("wuve", "update", "full"): ops}
    if stream.unit is Unit.SORE and units:
        cycles = -(-ops // units.sore.lanes) * stream.group
        compared = ops * stream.group * stream.kept
        return cycles, stream.kept, {("sore", "compare", "full"): compared}
    return -(-ops // arch.vector_lanes), 0, {("vector", "op", "full"): ops}


def _work(arch: NMArray, chunk: Chunk) -> tuple[Step, ...]:
    """Return the unit's work: its input is free with the last beat taken, results come later."""
    cycles, latency, events = _pace(arch, chunk)
    unit, loads, stores = chunk.stream.unit, _has_loads(chunk.stream), _has_stores(chunk.stream)
    work = Step(
        unit=unit,
        label=unit.value,
        cycles=cycles,
        latency=latency + chunk.stream.latency,
        waits=("in.full",) * loads + ("out.free",) * stores,
        releases=("out.full",) * stores,
        counts={
            ("act_buffer", "read", "full"): sum(chunk.reads),
            ("act_buffer", "write", "full"): sum(chunk.writes),
            **events,
        },
    )
    give = Step(unit=unit, label="give", cycles=0, releases=("in.free",))
    return (work, give) if loads else (work,)


def _stores(arch: NMArray, chunk: Chunk) -> tuple[Step, ...]:
    if not _has_stores(chunk.stream):
        return ()
    moves = _moves(chunk.stream.stores, _stored(chunk))
    return tuple(
        Step(
            unit=Unit.DMA,
            label="store",
            cycles=dma_cycles(arch, bits),
            waits=("out.full",) if (role, bits) == moves[0] else (),
            releases=("out.free",) if (role, bits) == moves[-1] else (),
            counts={("act_buffer", "read", "full"): bits, ("dram", "write", "full"): bits},
        )
        for role, bits in moves
    )
