"""What the grid study says: modes, curves, crossings and differences."""

import numpy as np
import pytest

from sparseloom.studies import grid, grid_figures

SHAPE = (64, 320, 64)


@pytest.fixture(scope="module")
def modes():
    """Return every mode by name."""
    return {point.label: point for point in grid.mode_points(shape=SHAPE)}


def test_no_mode_buys_more_than_its_zeros(modes):
    """Dense products over effectual ones bound every speed-up; every mode gains something."""
    assert len(modes) == len(grid.MODES) == 7
    for point in modes.values():
        assert 1.2 < point.speedup <= point.possible
        assert point.possible == pytest.approx(1 / point.x, rel=0.02)


@pytest.mark.parametrize(
    ("name", "gain"), [("balanced bank, 32x", 32), ("2:4 lanes", 2)], ids=["balanced", "2:4"]
)
def test_quotas_of_a_chunk_gain_exactly_their_density(modes, name, gain):
    """PEs in step lose nothing: cycles less the first are those of dense, divided."""
    point = modes[name]
    assert point.dense_cycles - 1 == gain * (point.result.cycles - 1)


def test_empty_blocks_pass_without_a_cycle_with_look_ahead():
    """Whole chunks without a weight cost broadcasts only; without look-ahead a cycle each."""
    (mode,) = (mode for mode in grid.MODES if mode.name == "block skip")
    (ahead,) = grid.mode_points([mode], shape=(32, 1024, 32))
    plain = grid.Mode(
        name="", arch=mode.arch, changes={**mode.changes, "look_ahead": False}, weight=mode.weight
    )
    (slow,) = grid.mode_points([plain], shape=(32, 1024, 32))
    assert ahead.result.cycles < slow.result.cycles
    assert ahead.speedup > 0.9 * ahead.possible


def test_deeper_fifos_never_take_longer_and_turn_waiting_into_imbalance():
    """What was waiting for chunks becomes waiting for the end of the tile."""
    points = grid.fifo_sweep((1, 2, 8), shape=SHAPE)
    cycles = [point.result.cycles for point in points]
    assert cycles == sorted(cycles, reverse=True)
    assert points[0].share("fifo") > points[-1].share("fifo")
    assert points[0].share("imbalance") < points[-1].share("imbalance")


def test_greedy_balance_is_worth_more_the_less_even_features_are():
    """Without spread order hardly matters; with spread it does."""
    points = grid.balance_sweep((0.0, 0.8), shape=SHAPE)
    none, greedy = points[:2], points[2:]
    worth = [g.speedup / n.speedup for n, g in zip(none, greedy, strict=True)]
    assert worth[1] > 1.3 * worth[0] > 1


def test_skipping_saves_time_gating_energy_and_dense_data_pay_for_bitmasks():
    """Gating leaves time alone; a plain array is cheaper only where almost nothing is zero."""
    found = {(e.label, e.density): e for e in grid.energy_sweep((0.2,), shape=SHAPE)}
    compute, gate, skip = (f"grid that {verb}" for verb in ("computes", "gates", "skips"))
    assert found[compute, 0.2].cycles == found[gate, 0.2].cycles > 3 * found[skip, 0.2].cycles
    assert found[compute, 0.2].energy_j > found[gate, 0.2].energy_j
    assert found["plain array", 0.2].energy_j > found[gate, 0.2].energy_j
    full = {e.label: e.energy_j for e in grid.energy_sweep((1.0,))}
    assert full["plain array"] < full[gate]


def test_crossing_is_between_points_and_may_not_be():
    """Curves cross where their difference changes sign."""
    assert grid.crossing([0, 1], [0, 2], [1, 1]) == 0.5
    assert grid.crossing([0, 1], [0, 0.5], [1, 1]) is None


@pytest.fixture(scope="module")
def deltas():
    """Return a short sequence at three thresholds."""
    weight = np.random.default_rng(0).integers(-128, 128, (96, 40)).astype(np.int8)
    frames = grid.drift(24, 96, step=1.0)
    return [grid.delta_run(frames, weight, threshold) for threshold in (0, 2, 200)]


def test_differences_without_threshold_lose_nothing_and_gain_time(deltas):
    """Sums of differences are the product of the frame itself."""
    assert deltas[0].error == 0
    assert deltas[0].density < 1
    assert deltas[0].speedup > 1


def test_thresholds_trade_what_is_sent_for_accuracy(deltas):
    """A larger threshold sends less and is further off; at the end nothing is sent."""
    assert [d.density for d in deltas] == sorted((d.density for d in deltas), reverse=True)
    assert deltas[1].error > 0
    assert deltas[2].density == 0
    assert deltas[0].result.cycles > deltas[1].result.cycles > deltas[2].result.cycles


def test_a_layer_wider_than_the_delta_grid_is_refused():
    """Sums stay in the PEs, so there is a column for every feature."""
    frames, weight = np.zeros((2, 8), np.int8), np.zeros((8, 769), np.int8)
    with pytest.raises(ValueError, match="has 768 features at most, not 769"):
        grid.delta_run(frames, weight, 0)


@pytest.mark.parametrize(
    ("frames", "weight", "sentence"),
    [
        (np.zeros((2, 8)), np.zeros((8, 4), np.int8), r"frames is float64\(2, 8\)"),
        (np.zeros(8, np.int8), np.zeros((8, 4), np.int8), r"frames is int8\(8,\)"),
        (np.zeros((2, 8), np.int8), np.zeros((8, 4)), r"weight is float64\(8, 4\)"),
        (np.zeros((2, 8), np.int8), np.zeros((5, 4), np.int8), "8 values and the weight 5 rows"),
    ],
)
def test_operands_of_a_delta_run_are_checked(frames, weight, sentence):
    """Other types and shapes are named, not left to numpy."""
    with pytest.raises(ValueError, match=sentence):
        grid.delta_run(frames, weight, 1)


@pytest.mark.parametrize("threshold", [-1, 1.5, "2"])
def test_a_threshold_is_a_whole_number(threshold):
    frames, weight = np.zeros((2, 8), np.int8), np.ones((8, 4), np.int8)
    with pytest.raises(ValueError, match=f"a whole number from 0 up, not {threshold!r}"):
        grid.delta_run(frames, weight, threshold)


def test_frames_of_zeros_are_sent_without_an_error():
    """Sums that are 0 and stay 0 miss nothing; those that are left standing miss everything."""
    frames, weight = np.zeros((2, 8), np.int8), np.ones((8, 4), np.int8)
    assert grid.delta_run(frames, weight, 1).error == 0
    frames[0] = 1
    assert grid.delta_run(frames, weight, 0).error == 0
    frames[0] = 3
    frames[1, 0] = 2
    frames[1, 1:] = 0
    frames[1, 1] = -2
    assert grid.delta_run(frames, weight, 2).error == np.inf


def test_a_study_needs_a_grid():
    """Other machines have no FIFOs."""
    with pytest.raises(ValueError, match="A grid study needs a pe_grid, not 'nm-tiny'"):
        grid.Mode(name="", arch="nm-tiny").machine()


def test_figures_draw_their_data(modes, deltas):
    """Every line and bar is there, with axes that say what they are."""
    points = grid.density_sweep((0.25, 1.0), shape=(32, 128, 32))
    density = grid_figures.by_density(points)
    lines = {line.get_label(): line for line in density.axes[0].lines}
    balanced = [p.speedup for p in points if p.label == "s4-like, balanced"]
    assert list(lines["s4-like, balanced"].get_ydata()) == balanced
    bars = grid_figures.by_mode(list(modes.values())).axes[0].patches
    assert [bar.get_width() for bar in bars] == [p.speedup for p in modes.values()]
    threshold = grid_figures.by_threshold(deltas).axes[0]
    assert threshold.get_xlabel()
    assert len(threshold.lines) == 3
