"""Compiled kernels of the PEGrid: its max-plus recurrence over bit-packed chunks.

    a(r,i)   = max(a(r,i-1) + 1, max_c s(r,c,i-D))       row broadcast of chunk i
    w(c,i)   = max(w(c,i-1) + 1, max_r s(r,c,i-D))       column broadcast
    s(r,c,i) = max(s(r,c,i-1) + cost(r,c,i-1), a(r,i) + 1, w(c,i) + 1)

cost = max(e, ceil(popcount(act & weight) / macs_per_pe)), where e is 1 for a tile's last chunk
whatever the PE looks past: it reports its end in the cycle in which it starts that chunk.

This module needs numba, which takes long to load: import it where a kernel runs. Machine code is
kept on disk where that is possible.
"""

from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

import numpy as np
from numba import njit
from numba.extending import intrinsic
from numpy.typing import NDArray

__all__ = ["CAUSES", "pass_chunks", "popcount", "quotient", "time_tiles"]

Words = NDArray[np.uint64]
Ints = NDArray[np.int64]
Compiled = TypeVar("Compiled", bound=Callable[..., Any])

T: Any = np.int32
"""Type of cycles inside a tile: narrow lanes are what makes the inner loop fast."""

SHIFT: Final = 16
"""x // q = x * ceil(2^16 / q) >> 16 for all x < 128 and q <= 64."""

CAUSES: Final = ("work", "vacant", "wait", "imbalance", "drain")
"""What a PE does in a cycle: multiply, pass an empty chunk, wait for one, or, with its tile done,
wait for the other PEs or for the shadow registers."""


def compiled(function: Compiled) -> Compiled:
    """Compile at the first call; keep the machine code unless no folder can be written."""
    try:
        return cast("Compiled", njit(cache=True, error_model="numpy")(function))
    except RuntimeError:
        return cast("Compiled", njit(error_model="numpy")(function))


def _popcount(context: Any, word: Any) -> Any:
    """Count the bits of a word in one instruction."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return word(word), generate


popcount: Any = intrinsic(_popcount)


def quotient(macs: int) -> tuple[Any, Any]:
    """Return (macs - 1, factor): ceil(p / macs) = (p + macs - 1) * factor >> SHIFT."""
    return T(macs - 1), T(-(-(1 << SHIFT) // macs))


@compiled
def _mark(busy: Words, start: int, count: int) -> None:
    """Set 1 to 64 bits from bit `start` on."""
    ones = np.uint64(0xFFFFFFFFFFFFFFFF) >> np.uint64(64 - count)
    word, shift = start >> 6, start & 63
    busy[word] |= ones << np.uint64(shift)
    if shift + count > 64:
        busy[word + 1] |= ones >> np.uint64(64 - shift)


@compiled
def time_tiles(
    act: Words,
    weight: Words,
    pairs: Ints,
    rows: int,
    cols: int,
    depth: int,
    least: int,
    ratio: tuple[Any, Any],
    busy: Words | None,
    record: Ints,
) -> None:
    """Time tiles, each alone with its first broadcast in cycle 0.

    act uint64[chunks, row tiles * rows], weight uint64[chunks, column tiles * cols]; tile t meets
    row tile pairs[t, 0] with column tile pairs[t, 1]. Fills record int64[tiles, 6]: span (cycles
    up to the last final sum); summed over PEs their own ends, their chunks' cycles, their empty
    chunks and the cycles these took; and, given busy uint64[more words than the longest span /
    64], the cycles in which some PE multiplies.
    """
    chunks = act.shape[0]
    end = np.zeros((rows, cols), T)
    row_at, col_at = np.zeros(rows, T), np.zeros(cols, T)
    row_ring, col_ring = np.zeros((depth, rows), T), np.zeros((depth, cols), T)
    column = np.zeros(cols, np.uint64)
    for tile in range(record.shape[0]):
        side, top = pairs[tile, 0] * rows, pairs[tile, 1] * cols
        end[:] = 0
        row_at[:] = -1
        col_at[:] = -1
        row_ring[:] = 0
        col_ring[:] = 0
        spent = empty = vacant = np.int64(0)
        if busy is not None:
            busy[:] = 0
        for i in range(chunks):
            floor = T(least) if i < chunks - 1 else T(1)
            row_started, col_started = row_ring[i % depth], col_ring[i % depth]
            for c in range(cols):
                col_at[c] = max(col_at[c] + 1, col_started[c])
                col_started[c] = 0
                column[c] = weight[i, top + c]
            for r in range(rows):
                row_at[r] = max(row_at[r] + 1, row_started[r])
                arrival, word, own = row_at[r], act[i, side + r], end[r]
                latest = row_spent = row_empty = T(0)
                for c in range(cols):
                    matches = T(popcount(word & column[c]))
                    cost = max(T(T(T(matches + ratio[0]) * ratio[1]) >> T(SHIFT)), floor)
                    start = max(own[c], T(max(arrival, col_at[c]) + 1))
                    latest = max(latest, start)
                    col_started[c] = max(col_started[c], start)
                    own[c] = T(start + cost)
                    row_spent = T(row_spent + cost)
                    row_empty = T(row_empty + T(matches == 0))
                    if busy is not None and matches:
                        _mark(busy, start, cost)
                row_started[r] = latest
                spent += row_spent
                empty += row_empty
                vacant += row_empty * floor
        span, ends = T(0), np.int64(0)
        for r in range(rows):
            for c in range(cols):
                span = max(span, end[r, c])
                ends += end[r, c]
        record[tile, 0] = span
        record[tile, 1] = ends
        record[tile, 2] = spent
        record[tile, 3] = empty
        record[tile, 4] = vacant
        if busy is not None:
            for word in busy:
                record[tile, 5] += np.int64(popcount(word))


@compiled
def _accept(at: Ints, delays: Ints, opened: int, started: Ints, accept: Ints) -> None:
    """Advance the streams of one side by a chunk; `started` int64[streams, PEs] of chunk i - D."""
    for lane in range(at.size):
        at[lane] = max(at[lane] + 1 + delays[lane], opened, started[lane].max())
        accept[lane] = at[lane]


@compiled
def pass_chunks(
    act: Words,
    weight: Words,
    jobs: Ints,
    depth: int,
    least: int,
    ratio: tuple[Any, Any],
    delays: tuple[Ints, Ints, Ints],
    accept: tuple[Ints, Ints, Ints],
    emit: Ints,
    busy: Words,
    record: Ints,
) -> None:
    """Time jobs back to back under stalls, tile after tile.

    act uint64[beats, rows], weight uint64[beats, cols]; jobs int64[jobs, 2] are chunks and tiles;
    `delays` of side int64[beats, rows], top int64[beats, cols] and out int64[out beats]. Fills
    `accept` (side and top like their delays, jobs int64[jobs]), `emit` like out, the bits of
    `busy` (cycles in which some PE multiplies) and record int64[7]: cycles of the jobs' windows,
    PE cycles by CAUSES, and empty chunks.

    Nothing is accepted before a tile is open: in the cycle of the barrier of the tile before, or
    the cycle after the job is accepted.
    """
    side, top, out = delays
    accept_side, accept_top, accept_job = accept
    rows, cols = act.shape[1], weight.shape[1]
    beats_out = emit.size // (jobs[:, 1].sum())
    started = np.zeros((depth, rows, cols), np.int64)
    end = np.zeros((rows, cols), np.int64)
    row_at, col_at = np.full(rows, -1, np.int64), np.full(cols, -1, np.int64)
    barrier, left, beat, sent = -1, -1, 0, 0
    for job in range(jobs.shape[0]):
        accept_job[job] = barrier
        opened, first, before = barrier + 1, -1, 0
        for _ in range(jobs[job, 1]):
            end[:] = 0
            started[:] = 0
            for i in range(jobs[job, 0]):
                ring = started[i % depth]
                _accept(row_at, side[beat], opened, ring, accept_side[beat])
                _accept(col_at, top[beat], opened, ring.T, accept_top[beat])
                if first < 0:
                    first = before = min(row_at.min(), col_at.min())
                floor = least if i < jobs[job, 0] - 1 else 1
                for r in range(rows):
                    for c in range(cols):
                        matches = np.int64(popcount(act[beat, r] & weight[beat, c]))
                        spent = ((matches + ratio[0]) * ratio[1]) >> SHIFT
                        cost = max(spent, floor)
                        start = max(end[r, c], max(row_at[r], col_at[c]) + 1)
                        ring[r, c] = start
                        end[r, c] = start + cost
                        record[1] += spent
                        record[2] += cost - spent
                        record[3] -= cost
                        if matches:
                            _mark(busy, start, spent)
                        else:
                            record[6] += 1
                beat += 1
            finished = end.max()
            barrier = max(finished - 1, left)
            record[3] += end.sum() - rows * cols * before
            record[4] += rows * cols * finished - end.sum()
            record[5] += rows * cols * (barrier + 1 - finished)
            opened, before = barrier, barrier + 1
            for _beat in range(beats_out):
                left = max(barrier, left) + 1 + out[sent]
                emit[sent] = left
                sent += 1
        record[0] += barrier + 1 - first
