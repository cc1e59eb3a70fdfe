"""SCALE-Sim topology files: convolutions or GEMMs by shape, one a line."""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from workloads.builder import conv_gemm
from workloads.errors import WorkloadError
from workloads.graph import Gemm, Op, OpKind, TensorSpec, Window, WorkloadGraph
from workloads.pruning import runs_dense
from workloads.sparsity import Dense, NofM, Sparsity

__all__ = ["load_scalesim"]

CONV_COLUMNS: Final = (
    "IFMAP height",
    "IFMAP width",
    "filter height",
    "filter width",
    "channels",
    "number of filters",
    "strides",
)
GEMM_COLUMNS: Final = ("M", "N", "K")

MAX_SIZE: Final = 1 << 31
MAX_BYTES: Final = 1 << 24


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """One layer of the file, for messages as well."""

    where: str
    name: str
    cells: tuple[str, ...]
    sparsity: Sparsity


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """Return (line number, cells) of the lines that hold anything, the header included."""
    if not path.is_file():
        raise WorkloadError(f"No such file: {path}")
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
    return [(line, cells) for line, cells in rows if any(cells)]


def _header(path: Path, rows: list[tuple[int, list[str]]]) -> tuple[tuple[str, ...], bool]:
    """Return the numeric columns of the layout and whether a sparsity column follows."""
    if len(rows) < 2:
        raise WorkloadError(f"{path} holds no layers; a header and one line a layer are needed")
    line, header = rows[0]
    names = [re.sub(r"\s+", " ", cell.lower()) for cell in header]
    while names and not names[-1]:
        names.pop()
    sparse = bool(names) and "sparsity" in names[-1]
    if sparse:
        names.pop()
    for columns in (CONV_COLUMNS, GEMM_COLUMNS):
        if len(names) == len(columns) + 1 and names[0].startswith("layer"):
            return columns, sparse
    raise WorkloadError(
        f"{path}, line {line}: the header has {len(names)} columns ({', '.join(header)}); a "
        f"topology has a layer name and {', '.join(CONV_COLUMNS)}, or {', '.join(GEMM_COLUMNS)}, "
        "and optionally sparsity"
    )


def _sparsity(where: str, text: str) -> Sparsity:
    found = re.fullmatch(r"(\d{1,9}):(\d{1,9})", text)
    try:
        if found:
            n, m = int(found[1]), int(found[2])
            return Dense() if n == m and m > 0 else NofM(n, m)
    except ValueError as error:
        raise WorkloadError(f"{where}, column sparsity: {error}") from None
    raise WorkloadError(f"{where}, column sparsity: found {text!r}, allowed is N:M such as 2:4")


def _layer(
    path: Path, number: int, cells: list[str], columns: tuple[str, ...], sparse: bool
) -> _Line:
    where = f"{path}, line {number}"
    wanted = len(columns) + 1 + sparse
    while len(cells) > wanted and not cells[-1]:
        cells = cells[:-1]
    if len(cells) != wanted:
        raise WorkloadError(
            f"{where}: found {len(cells)} columns, needed are {wanted}: layer name, "
            f"{', '.join(columns)}{', sparsity' if sparse else ''}"
        )
    if not cells[0]:
        raise WorkloadError(f"{where}, column layer name: found nothing, a name is needed")
    sparsity = _sparsity(where, cells[-1]) if sparse else Dense()
    numbers = tuple(cells[1 : len(columns) + 1])
    return _Line(where=where, name=cells[0], cells=numbers, sparsity=sparsity)


def _sizes(line: _Line, columns: Sequence[str]) -> list[int]:
    sizes = []
    for text, column in zip(line.cells, columns, strict=True):
        if not re.fullmatch(r"[0-9]{1,12}", text) or not 1 <= int(text) <= MAX_SIZE:
            raise WorkloadError(
                f"{line.where}, column {column}: found {text!r}, allowed is a whole number from "
                f"1 to {MAX_SIZE}"
            )
        sizes.append(int(text))
    return sizes


def _conv(line: _Line) -> tuple[Gemm, Window]:
    height, width, kh, kw, channels, filters, stride = _sizes(line, CONV_COLUMNS)
    window = Window(
        batch=1,
        image=(height, width),
        channels=channels,
        kernel=(kh, kw),
        stride=(stride, stride),
    )
    try:
        return conv_gemm(window, 1, filters), window
    except ValueError as error:
        raise WorkloadError(f"{line.where}: {error}") from None


def _specs(line: _Line, gemm: Gemm, window: Window | None, sparsity: Sparsity) -> list[TensorSpec]:
    """Return the layer's activation, weight and output."""
    if window is None:
        act = TensorSpec(name=f"{line.name}.in", dims=("m", "k"), shape=(gemm.m, gemm.k))
        out = TensorSpec(name=f"{line.name}.out", dims=("m", "n"), shape=(gemm.m, gemm.n))
    else:
        dims = ("b", "h", "w", "c")
        shape = (1, *window.image, window.channels)
        act = TensorSpec(name=f"{line.name}.in", dims=dims, shape=shape)
        out = TensorSpec(name=f"{line.name}.out", dims=dims, shape=(1, *window.out, gemm.n))
    weight = TensorSpec(
        name=f"{line.name}.weight",
        dims=("k", "n"),
        shape=(gemm.k, gemm.n),
        parameter=True,
        sparsity=sparsity,
    )
    return [act, weight, out]


def load_scalesim(path: str | Path) -> WorkloadGraph:
    """Return the layers of a SCALE-Sim topology file, each reading an input of its own.

    Convolutions have (layer, IFMAP height, width, filter height, width, channels, filters,
    strides), without padding: SCALE-Sim gives padded image sizes. GEMMs have (layer, M, N, K). A
    last column "sparsity" holds N:M per layer, N = M being dense. Raises WorkloadError naming
    file, line, column, what was found and what is allowed.
    """
    path = Path(path)
    rows = _rows(path)
    columns, sparse = _header(path, rows)
    ops: list[Op] = []
    tensors: dict[str, TensorSpec] = {}
    short: list[str] = []
    names: set[str] = set()
    for number, cells in rows[1:]:
        line = _layer(path, number, cells, columns, sparse)
        if line.name in names:
            raise WorkloadError(f"{line.where}: a second layer is named {line.name!r}")
        names.add(line.name)
        op, specs = _operator(line, columns)
        if specs[1].sparsity != line.sparsity:
            short.append(line.name)
        ops.append(op)
        tensors.update((spec.name, spec) for spec in specs)
    notes = (f"Dense, since the reduction is shorter than one group: {', '.join(short)}",)
    return WorkloadGraph(
        name=path.stem, ops=tuple(ops), tensors=tensors, notes=notes if short else ()
    )


def _operator(line: _Line, columns: tuple[str, ...]) -> tuple[Op, list[TensorSpec]]:
    if columns is CONV_COLUMNS:
        kind, (gemm, window) = OpKind.CONV, _conv(line)
    else:
        m, n, k = _sizes(line, GEMM_COLUMNS)
        kind, gemm, window = OpKind.GEMM, Gemm(m=m, k=k, n=n), None
    short = runs_dense(line.sparsity, (gemm.k, gemm.n))
    specs = _specs(line, gemm, window, Dense() if short else line.sparsity)
    op = Op(
        name=line.name,
        kind=kind,
        inputs=(specs[0].name, specs[1].name),
        output=specs[2].name,
        gemm=gemm,
        window=window,
        source=kind.value,
    )
    return op, specs
