"""The delta encoder's RTL feeds the grid what the grid expects."""

from dataclasses import replace

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring

from mapping import map_graph
from rtl.cosim.delta_points import delta_job_word, dense_words
from rtl.cosim.one_stream import setting_word
from rtl.cosim.play import Stimulus, feed
from rtl.cosim.pysim import observe
from rtl.pe_grid import PEGridCore, shapes
from rtl.pe_grid.delta import DeltaEncoder
from rtl.pe_grid.testing import bare_grid
from rtl.unit import Unit
from simulator.arch.delta import DeltaJob, DeltaParams
from simulator.arch.memory import MemoryMode
from simulator.arch.pe_grid import Skip
from simulator.simulate import simulate
from simulator.units.delta import encode
from workloads.gemm import gemm_graph
from workloads.recording import recorded

pytestmark = pytest.mark.rtl


class DeltaRow(Unit):
    """A grid of one row behind its encoder; the grid's job stays on the `job` port."""

    def __init__(self, grid):
        self.grid = grid
        ports = {
            name: port for name, port in shapes.pe_grid(grid).items() if name != shapes.side_name(0)
        }
        encoder = shapes.delta_ports(DeltaParams(grid=grid))
        super().__init__({**ports, "frames": encoder["job"], "side": encoder["side"]})

    def elaborate(self, platform):
        m = Module()
        m.submodules.grid = grid = PEGridCore(self.grid)
        m.submodules.encoder = encoder = DeltaEncoder(DeltaParams(grid=self.grid))
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


@pytest.mark.parametrize(("threshold", "depth"), [(0, 1), (9, 2), (40, 4)])
def test_simulated_frames_take_the_cycles_of_grid_and_encoder(threshold, depth):
    """What a user simulates, frames whose activations are the changes, is what the RTL takes."""
    grid = replace(
        bare_grid(1, 3, 4, depth=depth, skip=Skip.ACTIVATIONS, look_ahead=True),
        delta_chunks=3,
        memory=MemoryMode.IDEAL,
    )
    rng = np.random.default_rng(threshold)
    frames = rng.integers(-60, 60, (9, 12), dtype=np.int8)
    frames[1::2] = frames[::2][:4] + rng.integers(-12, 12, (4, 12), dtype=np.int8)
    weight = rng.integers(-128, 128, (12, 3), dtype=np.int8)
    _, mask, _ = encode(frames, threshold)
    graph = recorded(gemm_graph(9, 12, 3), {"activation": mask})
    simulated = simulate(map_graph(graph, grid).schedule, grid)
    seen = row_seen(grid, frames, weight, threshold)
    assert seen.counters["effectual"] == simulated.macs_effectual == 3 * mask.sum()
    assert seen.counters["cycles"] == simulated.cycles


def row_results(grid, frames, weight, threshold):
    """Return the results of frames, int32[frames, 3]."""
    seen = row_seen(grid, frames, weight, threshold)
    raw = b"".join(word.to_bytes(12, "little") for word in seen.outputs)
    return np.frombuffer(raw, np.int32).reshape(-1, 3)


def row_seen(grid, frames, weight, threshold):
    """Return what a row of 3 PEs behind its encoder does with frames of 3 chunks of 4."""
    job = {"chunks": 3, "tiles": len(frames), "accumulate": 1}
    delta = DeltaJob(arch=grid, chunks=3, frames=len(frames), threshold=threshold)
    full = (1 << grid.chunk) - 1
    columns = [
        [full | int.from_bytes(c.tobytes(), "little") << grid.chunk for c in column.reshape(3, 4)]
        for column in weight.T.copy()
    ]
    # Weights arrive with the first encoded chunk: a cycle for the encoder's job, one to encode.
    late = (2, *[0] * (3 * len(frames) - 1))
    feeds = {
        "job": feed([setting_word(shapes.grid_job(grid), job)]),
        "frames": feed([delta_job_word(delta)]),
        "side": feed(dense_words(frames.reshape(-1, 4))),
        **{shapes.top_name(c): feed(words * len(frames), late) for c, words in enumerate(columns)},
    }
    played = Stimulus(feeds=feeds, out_delays=(0,) * len(frames), limit_cycles=400)
    (seen,) = observe(DeltaRow(grid), [played])
    return seen
