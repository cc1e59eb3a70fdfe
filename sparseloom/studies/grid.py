"""What zeros buy on a sparse PE grid: modes, densities, FIFOs, balance, gating, and differences.

Every question is one product of random masks, timed exactly; array time alone unless it says
otherwise. Speed-ups are over the same product without a zero on the same machine.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cost_models import price
from mapping import map_graph
from simulator.arch import PEGrid
from simulator.arch.load import load_arch
from simulator.arch.pe_grid import Skip
from simulator.result import Result
from simulator.simulate import simulate
from simulator.units.delta import encode
from workloads.canonical import Spec
from workloads.gemm import gemm_graph
from workloads.graph import WorkloadGraph
from workloads.recording import recorded
from workloads.sparsity import (
    Balanced,
    Block,
    ConstantFanIn,
    Dense,
    Explicit,
    NofM,
    Sparsity,
    Unstructured,
)

__all__ = [
    "DENSITIES",
    "MACHINES",
    "MODES",
    "PRODUCT",
    "DeltaRun",
    "Energy",
    "GridPoint",
    "Mode",
    "balance_sweep",
    "crossing",
    "delta_run",
    "density_sweep",
    "drift",
    "energy_sweep",
    "fifo_sweep",
    "mode_points",
    "skip_points",
    "uneven",
]

Shape = tuple[int, int, int]

PRODUCT: Final[Shape] = (256, 1152, 256)
"""(m, k, n) of a 3 x 3 convolution of 128 channels on 16 x 16 pixels."""

DENSITIES: Final = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode(Spec):
    """A way to use zeros: a preset with fields changed, and the zeros it is made for."""

    name: str
    arch: str
    changes: Mapping[str, Any] = field(default_factory=dict, hash=False)
    weight: Sparsity = field(default_factory=Dense)
    activation: Sparsity = field(default_factory=Dense)

    def machine(self, **changes: Any) -> PEGrid:
        """Return the grid; only array time counts."""
        return _grid(self.arch, **{"memory": "ideal", **self.changes, **changes})


MODES: Final = (
    Mode(
        name="weight skip",
        arch="sparten-like",
        changes={"skip": "weights"},
        weight=Unstructured(0.25),
    ),
    Mode(
        name="activation skip",
        arch="sparten-like",
        changes={"skip": "activations"},
        activation=Unstructured(0.25),
    ),
    Mode(
        name="dual skip",
        arch="sparten-like",
        weight=Unstructured(0.5),
        activation=Unstructured(0.5),
    ),
    Mode(
        name="block skip",
        arch="sparten-like",
        changes={"skip": "weights", "look_ahead": True},
        weight=Block((64, 32), 0.25),
    ),
    Mode(name="balanced bank, 32x", arch="s4-like", weight=Balanced(32, 1 / 32)),
    Mode(name="constant fan-in", arch="s4-like", weight=ConstantFanIn(144)),
    Mode(
        name="2:4 lanes",
        arch="s4-like",
        changes={"chunk": 4, "macs_per_pe": 2},
        weight=NofM(2, 4),
    ),
)
"""Static zeros, dynamic zeros, both, whole blocks, and quotas of several granularities."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GridPoint:
    """One timed product: `x` is what was varied, `dense_cycles` those without a zero."""

    label: str
    x: float
    result: Result
    dense_cycles: int

    @property
    def speedup(self) -> float:
        """Cycles without a zero over cycles."""
        return self.dense_cycles / self.result.cycles

    @property
    def possible(self) -> float:
        """Products over effectual products."""
        return self.result.macs_dense / self.result.macs_effectual

    def share(self, cause: str) -> float:
        """Return the share of the cycles that PEs spend on a cause."""
        return {name: share for name, _, share in self.result.bottlenecks()}.get(cause, 0.0)


def _grid(arch: str, **changes: Any) -> PEGrid:
    machine = load_arch(arch, **changes)
    if not isinstance(machine, PEGrid):
        raise ValueError(f"A grid study needs a pe_grid, not {arch!r}")
    return machine


def _run(machine: PEGrid, shape: Shape, weight: Sparsity, activation: Sparsity) -> Result:
    graph = gemm_graph(*shape, weight=weight, activation=activation)
    return simulate(map_graph(graph, machine).schedule, machine)


def _point(
    label: str, x: float, machine: PEGrid, shape: Shape, weight: Sparsity, activation: Sparsity
) -> GridPoint:
    return GridPoint(
        label=label,
        x=x,
        result=_run(machine, shape, weight, activation),
        dense_cycles=_run(machine, shape, Dense(), Dense()).cycles,
    )


def mode_points(modes: Iterable[Mode] = MODES, *, shape: Shape = PRODUCT) -> list[GridPoint]:
    """Return every mode on the zeros it is made for; x is the density of its products."""
    points = []
    for mode in modes:
        density = mode.weight.density_for(shape[1:]) * mode.activation.density_for(shape[:2])
        points.append(
            _point(mode.name, density, mode.machine(), shape, mode.weight, mode.activation)
        )
    return points


def density_sweep(
    densities: Sequence[float] = DENSITIES, *, shape: Shape = PRODUCT
) -> list[GridPoint]:
    """Return presets over the density of their weights; x is that density.

    s4-like takes balanced banks, the others zeros anywhere; with "both" the activations are as
    sparse as the weights.
    """
    chunk = _grid("s4-like").chunk
    points = []
    for d in densities:
        balanced, anywhere = Balanced(chunk, max(d, 1 / chunk)), Unstructured(d)
        cases: tuple[tuple[str, str, Sparsity, Sparsity], ...] = (
            ("s4-like, balanced", "s4-like", balanced, Dense()),
            ("s4-like, anywhere", "s4-like", anywhere, Dense()),
            ("sparten-like, weights", "sparten-like", anywhere, Dense()),
            ("sparten-like, both", "sparten-like", anywhere, anywhere),
            ("eyeriss-v2-pe, both", "eyeriss-v2-pe", anywhere, anywhere),
        )
        for label, arch, weight, activation in cases:
            machine = _grid(arch, memory="ideal")
            points.append(_point(label, d, machine, shape, weight, activation))
    return points


def fifo_sweep(
    depths: Sequence[int] = (1, 2, 4, 8, 16, 32),
    *,
    density: float = 0.4,
    shape: Shape = PRODUCT,
) -> list[GridPoint]:
    """Return sparten-like over its FIFO depth, x; both operands have `density`."""
    zeros = Unstructured(density)
    return [
        _point(
            f"D = {depth}",
            depth,
            _grid("sparten-like", memory="ideal", fifo_depth=depth),
            shape,
            zeros,
            zeros,
        )
        for depth in depths
    ]


def uneven(shape: Shape, density: float, spread: float, seed: int = 0) -> Explicit:
    """Return a weight mask (k, n) whose features differ in density.

    Densities are log-normal about `density` with deviation `spread` of their logarithm, 1 at most.
    """
    _, k, n = shape
    rng = np.random.default_rng(seed)
    own = np.minimum(density * np.exp(spread * rng.standard_normal(n)), 1)
    return Explicit(rng.random((k, n)) < own)


def balance_sweep(
    spreads: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
    *,
    density: float = 0.3,
    shape: Shape = PRODUCT,
) -> list[GridPoint]:
    """Return sparten-like with and without greedy balance; x is how much features differ."""
    return [
        _point(
            f"balance {balance}",
            spread,
            _grid("sparten-like", memory="ideal", balance=balance),
            shape,
            uneven(shape, density, spread),
            Dense(),
        )
        for balance in ("none", "greedy")
        for spread in spreads
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy(Spec):
    """Cycles and dynamic energy of one product on one machine at a density of both operands."""

    label: str
    density: float
    cycles: int
    energy_j: float


MACHINES: Final[tuple[tuple[str, str, Mapping[str, Any]], ...]] = (
    ("plain array", "systolic", {}),
    ("grid that computes", "sparten-like", {"skip": "none", "zero": "compute"}),
    ("grid that gates", "sparten-like", {"skip": "none", "zero": "gate"}),
    ("grid that skips", "sparten-like", {}),
)
"""Machines of 1024 multipliers that treat zeros differently: label, preset, fields changed."""


def energy_sweep(densities: Sequence[float] = DENSITIES, *, shape: Shape = PRODUCT) -> list[Energy]:
    """Return what zeros are worth to machines of 1024 multipliers; memory is modelled.

    The plain array multiplies everything and moves operands as they are; grids move bitmasks and
    non-zeros, and compute, gate or skip.
    """
    found = []
    for label, arch, changes in MACHINES:
        machine = load_arch(arch, **changes)
        for d in densities:
            graph = gemm_graph(*shape, weight=Unstructured(d), activation=Unstructured(d))
            result = simulate(map_graph(graph, machine).schedule, machine)
            energy = price(result).energy_j
            found.append(Energy(label=label, density=d, cycles=result.cycles, energy_j=energy))
    return found


def crossing(x: Sequence[float], first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return the first x at which two curves cross, linear between their points; None if never.

    >>> crossing([0, 1, 2], [0, 1, 2], [1.5, 1.5, 1.5])
    1.5
    """
    gap = np.subtract(first, second)
    for i in range(len(gap) - 1):
        if gap[i] * gap[i + 1] < 0 or (gap[i] == 0 and gap[i + 1] != 0):
            step = gap[i] / (gap[i] - gap[i + 1])
            return float(x[i] + step * (x[i + 1] - x[i]))
    return None


def drift(frames: int, k: int, *, step: float = 2.0, seed: int = 0) -> NDArray[np.int8]:
    """Return int8[frames, k] of activations that wander slowly, each at its own pace."""
    rng = np.random.default_rng(seed)
    pace = step * rng.random(k)
    path = rng.integers(-60, 60, k) + (pace * rng.standard_normal((frames, k))).cumsum(axis=0)
    drifted: NDArray[np.int8] = np.clip(np.rint(path), -128, 127).astype(np.int8)
    return drifted


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DeltaRun:
    """A sequence sent as differences above `threshold`, and the same sequence sent whole.

    `density` is the share of activations that are sent, `error` the largest relative error of a
    frame's sums (of their root mean square), 0 with threshold 0 unless differences are clipped,
    infinite where sums that are 0 are missed.
    """

    threshold: int
    density: float
    error: float
    result: Result
    whole: Result

    @property
    def speedup(self) -> float:
        """Cycles of whole frames over cycles of differences."""
        return self.whole.cycles / self.result.cycles


def delta_run(frames: NDArray[np.int8], weight: NDArray[np.int8], threshold: int) -> DeltaRun:
    """Return frames int8[frames, k] times weight int8[k, n] on delta-rnn-like, as differences.

    A frame is a row of the product and sums go on from frame to frame. Raises ValueError for
    operands of other types or shapes, and for more features than the grid has columns: their sums
    would not stay in the PEs.
    """
    machine = _grid("delta-rnn-like")
    for name, found in (("frames", frames), ("weight", weight)):
        if found.dtype != np.int8 or found.ndim != 2:
            raise ValueError(
                f"Differences are of int8 in two dimensions; {name} is {found.dtype}{found.shape}"
            )
    if frames.shape[1] != len(weight):
        raise ValueError(f"Frames have {frames.shape[1]} values and the weight {len(weight)} rows")
    (count, k), n = frames.shape, weight.shape[1]
    if n > machine.cols:
        raise ValueError(
            f"Differences add up in the PEs: a layer has {machine.cols} features at most, not {n}"
        )
    sent, mask, _ = encode(frames, threshold)
    graph = gemm_graph(count, k, n)
    whole = recorded(graph, {"activation": np.ones_like(mask)})
    changed = recorded(graph, {"activation": mask})
    sums = sent.astype(np.int64).cumsum(axis=0) @ weight
    exact = frames.astype(np.int64) @ weight
    wrong, right = (np.sqrt((x**2.0).mean(axis=1)) for x in (sums - exact, exact))
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.where(wrong > 0, wrong / right, 0.0).max()
    return DeltaRun(
        threshold=threshold,
        density=float(mask.mean()),
        error=float(error),
        result=_simulated(changed, machine),
        whole=_simulated(whole, machine),
    )


def _simulated(graph: WorkloadGraph, machine: PEGrid) -> Result:
    return simulate(map_graph(graph, machine).schedule, machine)


def skip_points(graph: WorkloadGraph) -> list[GridPoint]:
    """Return a whole workload on sparten-like, skipping nothing, one side, or both.

    Memory is modelled; `dense_cycles` are those of skipping nothing.
    """
    results = {
        skip.value: _simulated(graph, _grid("sparten-like", skip=skip.value)) for skip in Skip
    }
    return [
        GridPoint(label=f"skip {skip}", x=i, result=found, dense_cycles=results["none"].cycles)
        for i, (skip, found) in enumerate(results.items())
    ]
