"""SCALE-Sim topology files: convolutions or GEMMs by shape, one a line."""

import csv
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from workloads.builder import conv_gemm
from workloads.errors import WorkloadError
from workloads.graph import Gemm, Op, OpKind, TensorSpec, Window, WorkloadGraph
from workloads.paths import absence
from workloads.pruning import runs_dense
from workloads.sparsity import Dense, NofM, Sparsity

__all__ = ["load_scalesim"]

GEMM: Final = ("M", "N", "K")
CONV: Final = (
    "IFMAP height",
    "IFMAP width",
    "filter height",
    "filter width",
    "channels",
    "number of filters",
    "stride",
)
CONV_TWO_STRIDES: Final = (*CONV[:-1], "stride height", "stride width")

DEPTHWISE_MARK: Final = "DP"
"""SCALE-Sim takes a layer whose name contains this as depthwise."""

MAX_SIZE: Final = 1 << 31
MAX_BYTES: Final = 1 << 24

Rows = list[tuple[int, list[str]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    """One line of the file."""

    where: str
    name: str
    sizes: tuple[int, ...]
    sparsity: Sparsity
    batch: int


def _rows(path: Path) -> Rows:
    """Return (line number, cells) of the lines that hold anything, the header included."""
    if why := absence(path):
        raise WorkloadError(f"File {str(path)!r} {why}")
    if path.stat().st_size > MAX_BYTES:
        raise WorkloadError(
            f"{path} has {path.stat().st_size} bytes; a topology has at most {MAX_BYTES}"
        )
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, skipinitialspace=True)
            rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise WorkloadError(f"{path} is not a topology in CSV text: {error}") from None
    return [(number, cells) for number, cells in rows if any(cells)]


def _columns(path: Path, rows: Rows) -> tuple[str, ...]:
    """Return the sizes that the header promises after the layer's name."""
    if len(rows) < 2:
        raise WorkloadError(f"{path} holds no layers; a header and one line a layer are needed")
    number, header = rows[0]
    names = [cell.lower() for cell in header]
    if names[1:4] == ["m", "n", "k"]:
        return GEMM
    if len(names) > 7 and "ifmap" in names[1] and "stride" in names[7]:
        return CONV_TWO_STRIDES if len(names) > 8 and "stride" in names[8] else CONV
    raise WorkloadError(
        f"{path}, line {number}: found the header {', '.join(header)!r}, allowed are layer name, "
        f"{', '.join(CONV)} and layer name, {', '.join(GEMM)}"
    )


def _size(where: str, column: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,12}", text) or not 1 <= int(text) <= MAX_SIZE:
        raise WorkloadError(
            f"{where}, column {column}: found {text!r}, allowed is a whole number from 1 to "
            f"{MAX_SIZE}"
        )
    return int(text)


def _sparsity(where: str, text: str) -> Sparsity:
    if not re.fullmatch(r"[0-9]{1,9}:[0-9]{1,9}", text):
        raise WorkloadError(f"{where}, column sparsity: found {text!r}, allowed is N:M such as 2:4")
    n, m = map(int, text.split(":"))
    try:
        return Dense() if n == m > 0 else NofM(n, m)
    except ValueError as error:
        raise WorkloadError(f"{where}, column sparsity: {error}") from None


def _layer(path: Path, number: int, cells: list[str], columns: tuple[str, ...]) -> _Layer:
    """Read one line: name, sizes, then N:M sparsity and, for a GEMM, its batch, if any."""
    where = f"{path}, line {number}"
    if len(cells) <= len(columns):
        raise WorkloadError(
            f"{where}: found {len(cells)} columns, needed are {len(columns) + 1}: layer name, "
            f"{', '.join(columns)}"
        )
    if not cells[0]:
        raise WorkloadError(f"{where}, column layer name: found nothing, a name is needed")
    pairs = zip(columns, cells[1:], strict=False)
    sizes = tuple(_size(where, column, text) for column, text in pairs)
    more = [text for text in cells[len(columns) + 1 :] if text]
    batches = [text for text in more if columns is GEMM and ":" not in text]
    ratios = [text for text in more if text not in batches]
    if len(batches) > 1 or len(ratios) > 1:
        raise WorkloadError(f"{where}: found {len(more)} cells after {columns[-1]}, too many")
    return _Layer(
        where=where,
        name=cells[0],
        sizes=sizes,
        sparsity=_sparsity(where, ratios[0]) if ratios else Dense(),
        batch=_size(where, "batch", batches[0]) if batches else 1,
    )


def _window(layer: _Layer) -> tuple[Window, int]:
    """Return the window and the number of groups of a convolution.

    SCALE-Sim rounds the number of output rows and columns up where the stride does not divide
    (a last window hangs over the edge), which is padding at the bottom and right.
    """
    height, width, kh, kw, channels, _, down, *across = layer.sizes
    right = across[0] if across else down
    if kh > height or kw > width:
        raise WorkloadError(
            f"{layer.where}: found a {kh}x{kw} filter, allowed is at most its "
            f"{height}x{width} IFMAP"
        )
    groups = channels if DEPTHWISE_MARK in layer.name else 1
    window = Window(
        batch=1,
        image=(height, width),
        channels=channels // groups,
        kernel=(kh, kw),
        stride=(down, right),
        padding=(0, 0, (kh - height) % down, (kw - width) % right),
    )
    return window, groups


def _conv(layer: _Layer) -> tuple[OpKind, Gemm, Window]:
    window, groups = _window(layer)
    kind = OpKind.DEPTHWISE if groups > 1 else OpKind.CONV
    return kind, conv_gemm(window, groups, groups * layer.sizes[5]), window


def _specs(name: str, gemm: Gemm, window: Window | None, sparsity: Sparsity) -> list[TensorSpec]:
    """Return the layer's activation, weight and output."""
    lead, g = ((gemm.groups,), ("g",)) if gemm.groups > 1 else ((), ())
    if window is None:
        act = TensorSpec(name=f"{name}.in", dims=(*g, "m", "k"), shape=(*lead, gemm.m, gemm.k))
        out = TensorSpec(name=f"{name}.out", dims=(*g, "m", "n"), shape=(*lead, gemm.m, gemm.n))
    else:
        dims = ("b", "h", "w", "c")
        shape = (1, *window.image, window.channels * gemm.groups)
        act = TensorSpec(name=f"{name}.in", dims=dims, shape=shape)
        shape = (1, *window.out, gemm.n * gemm.groups)
        out = TensorSpec(name=f"{name}.out", dims=dims, shape=shape)
    weight = TensorSpec(
        name=f"{name}.weight",
        dims=(*g, "k", "n"),
        shape=(*lead, gemm.k, gemm.n),
        parameter=True,
        sparsity=sparsity,
    )
    return [act, weight, out]


def _operator(layer: _Layer, columns: tuple[str, ...]) -> tuple[Op, list[TensorSpec]]:
    kind: OpKind = OpKind.GEMM
    window: Window | None = None
    if columns is GEMM:
        m, n, k = layer.sizes
        gemm = Gemm(groups=layer.batch, m=m, k=k, n=n)
    else:
        kind, gemm, window = _conv(layer)
    short = runs_dense(layer.sparsity, (gemm.k, gemm.n))
    specs = _specs(layer.name, gemm, window, Dense() if short else layer.sparsity)
    op = Op(
        name=layer.name,
        kind=kind,
        inputs=(specs[0].name, specs[1].name),
        output=specs[2].name,
        gemm=gemm,
        window=window,
        source="Gemm" if columns is GEMM else "Conv",
    )
    return op, specs


def load_scalesim(path: str | Path) -> WorkloadGraph:
    """Return the layers of a SCALE-Sim topology file, each reading an input of its own.

    Convolutions have (layer, IFMAP height, width, filter height, width, channels, filters,
    stride) without padding, since SCALE-Sim gives padded images; GEMMs have (layer, M, N, K). A
    further cell N:M is the sparsity of the weights, N = M being dense; a further whole number is
    a GEMM's batch. As in SCALE-Sim, output sizes round up and a layer with DP in its name is
    depthwise. Raises WorkloadError naming file, line, column, what was found and what is allowed.
    """
    path = Path(path)
    rows = _rows(path)
    columns = _columns(path, rows)
    ops: list[Op] = []
    tensors: dict[str, TensorSpec] = {}
    short: list[str] = []
    for number, cells in rows[1:]:
        layer = _layer(path, number, cells, columns)
        if f"{layer.name}.in" in tensors:
            raise WorkloadError(f"{layer.where}: a second layer is named {layer.name!r}")
        op, specs = _operator(layer, columns)
        if specs[1].sparsity != layer.sparsity:
            short.append(layer.name)
        ops.append(op)
        tensors.update((spec.name, spec) for spec in specs)
    note = f"Dense, since the reduction is shorter than one group: {', '.join(short)}"
    return WorkloadGraph(
        name=path.stem, ops=tuple(ops), tensors=tensors, notes=(note,) if short else ()
    )
