"""Every width, layout and port shape of the PEGrid's RTL, as functions of its parameters.

An operand beat is one chunk: the bitmask, bit p for position p, below the present values packed
to the front in order of their positions. What follows the last present value is not looked at.
"""

from amaranth.hdl import ShapeLike, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from rtl.shapes import COUNTER_BITS, LENGTH_BITS
from simulator.arch.delta import MAX_THRESHOLD, DeltaParams
from simulator.arch.pe_grid import PEGrid

__all__ = [
    "accumulator",
    "bounded",
    "chunk_beat",
    "counters",
    "delta_job",
    "delta_ports",
    "delta_values",
    "dense_chunk",
    "difference",
    "grid_job",
    "grid_tally",
    "heads",
    "operand",
    "operand_range",
    "out_beat",
    "packer_ports",
    "pe_grid",
    "pe_ports",
    "pe_tally",
    "position",
    "results",
    "seen_chunks",
    "side_name",
    "stored_chunks",
    "top_name",
    "total",
    "working_chunk",
]


def side_name(row: int) -> str:
    """Return the name of a row's operand stream."""
    return f"side{row}"


def top_name(col: int) -> str:
    """Return the name of a column's operand stream."""
    return f"top{col}"


def bounded(most: int) -> ShapeLike:
    """An integer from 0 to `most`."""
    return unsigned(bits_for(most))


def operand(grid: PEGrid) -> ShapeLike:
    """One activation or weight."""
    return signed(grid.operand_bits)


def accumulator(grid: PEGrid) -> ShapeLike:
    """One sum."""
    return signed(grid.acc_bits)


def position(grid: PEGrid) -> ShapeLike:
    """A position of a chunk."""
    return range(grid.chunk)


def _values(grid: PEGrid) -> data.ArrayLayout:
    return data.ArrayLayout(operand(grid), grid.chunk)


def chunk_beat(grid: PEGrid) -> data.StructLayout:
    """One compressed chunk on a stream."""
    return data.StructLayout({"mask": grid.chunk, "packed": _values(grid)})


def dense_chunk(grid: PEGrid) -> data.StructLayout:
    """One decoded chunk: values by position, zero where absent; `last` of its tile."""
    return data.StructLayout({"mask": grid.chunk, "value": _values(grid), "last": 1})


def working_chunk(grid: PEGrid) -> data.StructLayout:
    """What a PE works on: both chunks and the positions that still wait for a multiplier."""
    members = {"act": dense_chunk(grid), "weight": dense_chunk(grid), "left": grid.chunk}
    return data.StructLayout(members)


def seen_chunks(grid: PEGrid) -> int:
    """Chunks of a FIFO that the PE compares in one cycle."""
    return grid.fifo_depth if grid.look_ahead else 1


def heads(grid: PEGrid) -> data.ArrayLayout:
    """The chunks of a FIFO that the PE compares, the oldest first."""
    return data.ArrayLayout(dense_chunk(grid), seen_chunks(grid))


def stored_chunks(grid: PEGrid) -> data.ArrayLayout:
    """All places of a FIFO, the youngest chunk first."""
    return data.ArrayLayout(dense_chunk(grid), grid.fifo_depth)


def grid_job(grid: PEGrid) -> data.StructLayout:
    """Run-time settings of one GridJob."""
    length = unsigned(LENGTH_BITS)
    return data.StructLayout({"chunks": length, "tiles": length, "accumulate": 1})


def results(grid: PEGrid, rows: int) -> data.ArrayLayout:
    """The sums of all columns of `rows` rows, row by row."""
    return data.ArrayLayout(data.ArrayLayout(accumulator(grid), grid.cols), rows)


def out_beat(grid: PEGrid) -> data.ArrayLayout:
    """The results that leave in one cycle."""
    return results(grid, grid.drain_rows)


def pe_tally(grid: PEGrid) -> data.StructLayout:
    """What one PE does in a cycle: its state, empty chunks passed and multiplier uses."""
    uses = bounded(grid.macs_per_pe)
    return data.StructLayout(
        {
            "work": 1,
            "vacant": 1,
            "wait": 1,
            "finished": 1,
            "empty": bounded(seen_chunks(grid)),
            "effectual": uses,
            "full": uses,
            "gated": uses,
        }
    )


def grid_tally(grid: PEGrid) -> data.ArrayLayout:
    """The tallies of all PEs, row by row."""
    return data.ArrayLayout(pe_tally(grid), grid.pes)


def total() -> ShapeLike:
    """One event counter."""
    return unsigned(COUNTER_BITS)


def counters() -> data.StructLayout:
    """Event counters, cumulative since reset."""
    names = (
        *("cycles", "array_busy"),
        *("pe_work", "pe_vacant", "pe_wait", "pe_imbalance", "pe_drain"),
        *("effectual", "mac_full", "mac_gated", "empty_chunks"),
        *("side_chunks", "side_values", "top_chunks", "top_values", "out_beats"),
    )
    return data.StructLayout(dict.fromkeys(names, total()))


def pe_grid(grid: PEGrid) -> dict[str, wiring.Member]:
    """Ports of the whole grid: a stream for every row and every column."""
    names = [side_name(row) for row in range(grid.rows)]
    names += [top_name(col) for col in range(grid.cols)]
    return {
        "job": In(stream.Signature(grid_job(grid))),
        **{name: In(stream.Signature(chunk_beat(grid))) for name in names},
        "out": Out(stream.Signature(out_beat(grid))),
        "counters": Out(counters()),
    }


def delta_values(grid: PEGrid) -> data.ArrayLayout:
    """One dense chunk before the delta encoder, and its state."""
    return _values(grid)


def operand_range(grid: PEGrid) -> tuple[int, int]:
    """Return the least and the largest operand."""
    half = 1 << (grid.operand_bits - 1)
    return -half, half - 1


def difference(grid: PEGrid) -> ShapeLike:
    """The difference of two operands."""
    return signed(grid.operand_bits + 1)


def delta_job(grid: PEGrid) -> data.StructLayout:
    """Run-time settings of one DeltaJob."""
    return data.StructLayout(
        {
            "chunks": bounded(grid.delta_chunks),
            "frames": unsigned(LENGTH_BITS),
            "threshold": bounded(MAX_THRESHOLD),
            "resume": 1,
        }
    )


def packer_ports(grid: PEGrid) -> dict[str, wiring.Member]:
    """Ports of the packer."""
    return {
        "mask": In(grid.chunk),
        "value": In(_values(grid)),
        "beat": Out(chunk_beat(grid)),
        "count": Out(bounded(grid.chunk)),
    }


def delta_ports(params: DeltaParams) -> dict[str, wiring.Member]:
    """Ports of the delta encoder of one row."""
    grid = params.grid
    return {
        "job": In(stream.Signature(delta_job(grid))),
        "side": In(stream.Signature(delta_values(grid))),
        "out": Out(stream.Signature(chunk_beat(grid))),
        "counters": Out(data.StructLayout({"chunks": total(), "values": total()})),
    }


def pe_ports(grid: PEGrid) -> dict[str, wiring.Member]:
    """Ports of one processing element."""
    return {
        "act": In(dense_chunk(grid)),
        "act_push": In(1),
        "act_space": Out(1),
        "weight": In(dense_chunk(grid)),
        "weight_push": In(1),
        "weight_space": Out(1),
        "done": Out(1),
        "barrier": In(1),
        "drop": In(1),
        "shift": In(1),
        "below": In(accumulator(grid)),
        "result": Out(accumulator(grid)),
        "tally": Out(pe_tally(grid)),
    }
