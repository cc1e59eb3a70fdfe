"""Dense systolic arrays beside SCALE-Sim (github scalesim-project/SCALE-Sim).

Its counts are of the array alone, so the preset `systolic` runs with memory ideal.
"""

from collections.abc import Callable
from typing import Final

from mapping import map_graph
from simulator.arch import Dataflow
from simulator.arch.load import load_arch
from simulator.result import Result
from simulator.simulate import simulate
from sparseloom.reproduce.row import Row, Section
from workloads.gemm import gemm_graph

__all__ = ["section", "whole_layer_cycles"]

SOURCE: Final = "SCALE-Sim"

Shape = tuple[int, int, int]

ALEXNET_CONV1: Final = (55 * 55, 11 * 11 * 3, 96)
"""(m, k, n) of 11x11x96, stride 4, on 224x224x3; SCALE-Sim rounds the output up to 55x55."""

LAYERS: Final[dict[str, tuple[int, int, Shape]]] = {
    "ResNet-50 3x3x64 at 56x56": (32, 32, (56 * 56, 576, 64)),
    "ResNet-50 classifier": (32, 32, (1, 2048, 1000)),
    "BERT-base feed-forward, 128 tokens": (128, 128, (128, 768, 3072)),
    "ragged 100 x 77 x 50": (16, 8, (100, 77, 50)),
}
"""(rows, columns, (m, k, n)) of products that the whole formulas are compared on."""


def whole_layer_cycles(flow: Dataflow, rows: int, cols: int, shape: Shape) -> int:
    """Return SCALE-Sim's closed form for a product (m, k, n)."""
    m, k, n = shape
    match flow:
        case Dataflow.WS:
            return -(-k // rows) * -(-n // cols) * (2 * rows + cols + m - 2)
        case Dataflow.IS:
            return -(-k // rows) * -(-m // cols) * (2 * rows + cols + n - 2)
        case Dataflow.OS:
            return -(-m // rows) * -(-n // cols) * (rows + cols + k - 2)


def _run(flow: Dataflow, rows: int, cols: int, shape: Shape) -> Result:
    arch = load_arch("systolic", rows=rows, cols=cols, dataflow=flow.value, memory="ideal")
    return simulate(map_graph(gemm_graph(*shape), arch).schedule, arch)


def _alexnet() -> tuple[Row, ...]:
    result = _run(Dataflow.WS, 32, 32, ALEXNET_CONV1)
    used, idle = (result.counts["mac", "int8", variant] for variant in ("full", "gated"))
    return (
        Row(
            what="AlexNet conv1, WS 32x32: cycles printed",
            published=112283,
            ours=result.cycles - 1,
            unit="cycles",
            source=f"{SOURCE}, printed",
            note=f"it prints the last cycle's index: ours is {result.cycles:,} cycles less 1",
            tolerance=0,
        ),
        Row(
            what="AlexNet conv1, WS 32x32: mapping efficiency",
            published=0.9453,
            ours=used / (used + idle),
            unit="%",
            source=f"{SOURCE}, printed",
            note="PEs of a fold that hold a weight",
            tolerance=0.0001,
        ),
    )


def _formula(what: str, flow: Dataflow, rows: int, cols: int, shape: Shape) -> Row:
    return Row(
        what=f"{what}, {flow.upper()} {rows}x{cols}",
        published=whole_layer_cycles(flow, rows, cols, shape),
        ours=_run(flow, rows, cols, shape).cycles,
        unit="cycles",
        source=f"{SOURCE}, formula",
        tolerance=0,
    )


def section(on_step: Callable[[str], None]) -> Section:
    """Return what SCALE-Sim prints, and its formulas at several sizes, beside our folds."""
    rows = _alexnet()
    on_step("AlexNet conv1")
    for what, (height, width, shape) in LAYERS.items():
        rows += tuple(_formula(what, flow, height, width, shape) for flow in Dataflow)
        on_step(what)
    return Section(
        name="scale-sim",
        title="Dense systolic arrays: SCALE-Sim (github scalesim-project/SCALE-Sim)",
        rows=rows,
    )
