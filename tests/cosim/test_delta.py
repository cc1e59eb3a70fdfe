"""The delta encoder's RTL equals its model, and feeds the grid what the grid expects."""

from dataclasses import replace

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring

from rtl.cosim.grid_points import chunk_words
from rtl.cosim.one_stream import setting_word
from rtl.cosim.play import Stimulus, feed
from rtl.cosim.pysim import observe
from rtl.pe_grid import PEGridCore, shapes
from rtl.pe_grid.delta import DeltaEncoder
from rtl.pe_grid.testing import bare_grid
from rtl.unit import Unit
from simulator.arch.delta import DeltaJob
from simulator.units.delta import DeltaStalls, encode, run_sequence

pytestmark = pytest.mark.rtl

GRIDS = [
    replace(bare_grid(1, 1, chunk), delta_chunks=chunks)
    for chunk, chunks in [(1, 1), (1, 5), (3, 2), (4, 3), (8, 1), (16, 4), (13, 2)]
]
POINTS = 12
"""Points of each structure: the first without stalls, the second with a slow sink."""


def dense_words(chunks):
    return [int.from_bytes(chunk.tobytes(), "little") for chunk in chunks]


def job_word(job):
    names = ("chunks", "frames", "threshold", "resume")
    return setting_word(shapes.delta_job(job.arch), {n: getattr(job, n) for n in names})


def drawn_job(rng, grid, most, resume):
    job = DeltaJob(
        arch=grid,
        chunks=int(rng.integers(1, most, endpoint=True)),
        frames=int(rng.integers(1, 6)),
        threshold=int(rng.choice([0, 3, 40, 254, 255])),
        resume=resume,
    )
    # Slow drifts with some jumps, which are clipped.
    steps = rng.integers(-6, 7, (job.frames, job.chunks * grid.chunk)).cumsum(axis=0)
    jumps = rng.integers(-128, 128, steps.shape) * (rng.random(steps.shape) < 0.2)
    return job, np.clip(steps + jumps, -128, 127).astype(np.int8).reshape(-1, grid.chunk)


def drawn_point(grid, seed):
    rng = np.random.default_rng([grid.chunk, grid.delta_chunks, seed])
    first, resume = drawn_job(rng, grid, grid.delta_chunks, False), bool(rng.integers(2))
    drawn = [first, drawn_job(rng, grid, first[0].chunks if resume else grid.delta_chunks, resume)]
    jobs, beats = [job for job, _ in drawn], [beat for _, beat in drawn]
    quiet = DeltaStalls.none(jobs)
    if seed < 2:
        return jobs, beats, replace(quiet, out=quiet.out + 3 * seed)
    rate = rng.choice([0.1, 0.5])
    side, out = (
        np.where(rng.random(d.size) < rate, rng.integers(1, 6, d.size), 0)
        for d in (quiet.side, quiet.out)
    )
    return jobs, beats, DeltaStalls(side=side, out=out)


def stimulus(jobs, beats, stalls):
    words = [word for beat in beats for word in dense_words(beat)]
    return Stimulus(
        feeds={
            "job": feed([job_word(job) for job in jobs]),
            "side": feed(words, stalls.side.tolist()),
        },
        out_delays=tuple(stalls.out.tolist()),
        limit_cycles=2 * len(words) + int(stalls.side.sum() + stalls.out.sum()) + 40,
    )


def present_word(word, chunk):
    """Drop what stands behind the packed values: nobody may look at it."""
    present = (word & ((1 << chunk) - 1)).bit_count()
    return word & ((1 << (chunk + 8 * present)) - 1)


def assert_encoder_agrees(grid, points):
    stimuli = [stimulus(*point) for point in points]
    for (jobs, beats, stalls), rtl in zip(
        points, observe(DeltaEncoder(grid), stimuli), strict=True
    ):
        model = run_sequence(jobs, beats, stalls)
        (sent,) = chunk_words(model.chunks)
        assert [present_word(word, grid.chunk) for word in rtl.outputs] == sent
        assert rtl.accept["job"] == tuple(model.accept_job.tolist())
        assert rtl.accept["side"] == tuple(model.accept.tolist())
        assert rtl.emit == tuple(model.emit.tolist())
        assert model.counts == {
            ("delta", "compare", "full"): grid.chunk * rtl.counters["chunks"],
            ("delta", "value", "full"): rtl.counters["values"],
        }


@pytest.mark.parametrize("grid", GRIDS, ids=lambda g: f"w{g.chunk}-{g.delta_chunks}chunks")
def test_encoder_equals_its_model_under_stalls(grid):
    """Words sent, cycles of every acceptance and emission, and counters are the model's."""
    assert_encoder_agrees(grid, [drawn_point(grid, seed) for seed in range(POINTS)])


@pytest.mark.long
@pytest.mark.parametrize("grid", GRIDS, ids=lambda g: f"w{g.chunk}-{g.delta_chunks}chunks")
def test_encoder_equals_its_model_at_many_points(grid):
    """The same at 300 points of each structure."""
    assert_encoder_agrees(grid, [drawn_point(grid, 100 + seed) for seed in range(300)])


class DeltaRow(Unit):
    """A grid of one row behind its encoder; the grid's job stays on the `job` port."""

    def __init__(self, grid):
        self.grid = grid
        ports = {
            name: port for name, port in shapes.pe_grid(grid).items() if name != shapes.side_name(0)
        }
        encoder = shapes.delta_encoder(grid)
        super().__init__({**ports, "frames": encoder["job"], "side": encoder["side"]})

    def elaborate(self, platform):
        m = Module()
        m.submodules.grid = grid = PEGridCore(self.grid)
        m.submodules.encoder = encoder = DeltaEncoder(self.grid)
        tops = [shapes.top_name(col) for col in range(self.grid.cols)]
        for name in ("job", "out", *tops):
            wiring.connect(m, getattr(grid, name), wiring.flipped(getattr(self, name)))
        wiring.connect(m, encoder.job, wiring.flipped(self.frames))
        wiring.connect(m, encoder.side, wiring.flipped(self.side))
        wiring.connect(m, encoder.out, getattr(grid, shapes.side_name(0)))
        m.d.comb += self.counters.eq(grid.counters)
        return m


@pytest.mark.parametrize("threshold", [0, 9])
def test_grid_behind_an_encoder_computes_the_product_of_the_state(threshold):
    """Frame after frame, result beats are the exact product of what the encoder has sent."""
    grid = replace(bare_grid(1, 3, 4, depth=2), delta_chunks=3)
    rng = np.random.default_rng(threshold)
    frames = rng.integers(-60, 60, (5, 12), dtype=np.int8)
    weight = rng.integers(-128, 128, (12, 3), dtype=np.int8)
    sent, _, _ = encode(frames, threshold)
    wanted = sent.cumsum(axis=0, dtype=np.int32) @ weight.astype(np.int32)
    if threshold == 0:
        assert (wanted == frames.astype(np.int32) @ weight.astype(np.int32)).all()
    assert (row_results(grid, frames, weight, threshold) == wanted).all()


def row_results(grid, frames, weight, threshold):
    job = {"chunks": 3, "tiles": len(frames), "accumulate": 1}
    delta = DeltaJob(arch=grid, chunks=3, frames=len(frames), threshold=threshold)
    full = (1 << grid.chunk) - 1
    columns = [
        [full | int.from_bytes(c.tobytes(), "little") << grid.chunk for c in column.reshape(3, 4)]
        for column in weight.T.copy()
    ]
    feeds = {
        "job": feed([setting_word(shapes.grid_job(grid), job)]),
        "frames": feed([job_word(delta)]),
        "side": feed(dense_words(frames.reshape(-1, 4))),
        **{shapes.top_name(c): feed(words * len(frames)) for c, words in enumerate(columns)},
    }
    played = Stimulus(feeds=feeds, out_delays=(0,) * len(frames), limit_cycles=400)
    (seen,) = observe(DeltaRow(grid), [played])
    raw = b"".join(word.to_bytes(12, "little") for word in seen.outputs)
    return np.frombuffer(raw, np.int32).reshape(-1, 3)
