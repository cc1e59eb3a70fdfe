"""What the generated RTL takes in synthesis: the figures behind `cost_models.fpga`.

Run as `python benchmarks/resources.py [nm_array] [pe_grid] [dsp_chain] [held-out]` with Yosys on
the PATH; 0.23 gave what is recorded, in an hour. Parts are synthesised on their own, what is around
many of them with these as black boxes. `held-out` are whole units that no figure was taken from,
beside what `cost_models.fpga` says of them.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from amaranth.back import verilog
from amaranth.lib import wiring

from cost_models.fpga import FpgaResources, dsp_chain, pe_grid
from rtl.dsp_chain import Vpu
from rtl.dsp_chain.mpe import Accumulators
from rtl.dsp_machine.engine import Engine
from rtl.dsp_machine.fetch import Decoder, Fetch
from rtl.dsp_machine.matrices import Matrices, TokenLanes
from rtl.dsp_machine.product import Product, Requantise
from rtl.dsp_machine.sequencer import Sequencer
from rtl.dsp_machine.special import RowUnit
from rtl.export import verilog_text
from rtl.machine.vector import VectorUnit
from rtl.nm_array import ProcessingElement
from rtl.pe_grid import DeltaEncoder, GridElement
from rtl.pe_grid.edge import Edge
from rtl.pe_grid.fifo import ChunkFifo
from simulator.arch import NMArray, PEGrid, Precision
from simulator.arch.delta import DeltaParams
from simulator.arch.dequantiser import DequantiserParams
from simulator.arch.dsp_cells import ChainParams, MpeParams
from simulator.arch.dsp_chain import DspChain
from simulator.arch.load import load_arch
from simulator.arch.pe_grid import Skip
from simulator.arch.special import SpecialParams

SYNTHESIS: Final = "synth_xilinx -family xcup -noiopad -noclkbuf"
SAT = load_arch("sat-vcu1525")
GRID = load_arch("grid-tiny")
FLIGHT = load_arch("flightllm-tiny")
assert isinstance(SAT, NMArray)
assert isinstance(GRID, PEGrid)
assert isinstance(FLIGHT, DspChain)

MEMORY_LUTS: Final = {
    name: luts
    for luts, names in {
        1: ("RAM32X1S", "RAM64X1S"),
        2: ("RAM128X1S", "RAM32X1D", "RAM64X1D"),
        4: ("RAM256X1S", "RAM128X1D", "RAM32M", "RAM64M"),
        8: ("RAM512X1S", "RAM256X1D", "RAM32M16", "RAM64M8"),
    }.items()
    for name in names
}
"""LUTs of a memory of LUTs (UG974)."""

Part = tuple[str, FpgaResources]


def cells(text: str, *, without: str = "", flat: bool = False) -> FpgaResources:
    """Return what a Verilog text takes, but for the modules that match `without`.

    Hierarchy is kept, unless it is to be `flat`.
    """
    found = statistics(text, without, " -flatten" if flat else "")
    totals = re.findall(r'"(\w+)": +(\d+)', found[found.rindex('"num_cells_by_type"') :])
    counts = {name: int(n) for name, n in totals}
    logic = sum(n for name, n in counts.items() if re.fullmatch(r"LUT\d|SRL\w+", name))
    memory = sum(n * MEMORY_LUTS[name] for name, n in counts.items() if name.startswith("RAM"))
    return FpgaResources(
        lut=logic + memory,
        ff=sum(n for name, n in counts.items() if name.startswith("FD")),
        dsp=sum(n for name, n in counts.items() if name.startswith("DSP")),
    )


def statistics(text: str, without: str, options: str = "") -> str:
    """Return the numbers of cells of a Verilog text, as Yosys prints them."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "top.v").write_text(text)
        hidden = f"blackbox {without}; " if without else ""
        top = re.findall(r"^module (\w+)\(", text, flags=re.MULTILINE)[-1]
        synthesis = f"{SYNTHESIS}{options} -top {top}"
        script = f"read_verilog top.v; {hidden}{synthesis}; tee -q -o stat.json stat -json"
        subprocess.run(["yosys", "-q", "-p", script], cwd=folder, check=True)
        return Path(folder, "stat.json").read_text()


def converted(component: wiring.Component) -> str:
    """Return the Verilog of a component."""
    return verilog.convert(component, name="top", emit_src=False, strip_internal_attrs=True)


def array(
    precision: Precision, max_m: int, rows: int = 2, cols: int = 2, **changes: int
) -> NMArray:
    """Return an array without training units."""
    latency = 4 if precision is Precision.FP16 else 1
    settings = {"adder_latency": latency, "interleave": latency, **changes}
    return replace(
        SAT, training=None, precision=precision, max_m=max_m, rows=rows, cols=cols, **settings
    )


def nm_parts() -> Iterator[Part]:
    """Yield what every part of an NMArray takes."""
    for precision in (Precision.INT8, Precision.FP16):
        for max_m in (1, 2, 4, 8, 16, 32):
            arch = array(precision, max_m)
            yield f"{precision} PE, max_m {max_m}", cells(converted(ProcessingElement(arch)))
    for max_m, macs in ((4, 2), (8, 2), (16, 2), (8, 4), (16, 4)):
        arch = array(Precision.INT8, max_m, macs_per_pe=macs)
        yield f"int8 PE, max_m {max_m}, {macs} macs", cells(converted(ProcessingElement(arch)))
    for max_m in (8, 16):
        arch = array(Precision.FP16, max_m, adder_latency=8, interleave=8)
        yield f"fp16 PE, max_m {max_m}, latency 8", cells(converted(ProcessingElement(arch)))
    for precision, max_m in ((Precision.INT8, 8), (Precision.FP16, 16)):
        for rows, cols in ((2, 2), (8, 2), (2, 8), (16, 16)):
            text = verilog_text(array(precision, max_m, rows, cols))
            yield f"{precision} {rows} x {cols} around PEs", cells(text, without="nm_pe_*")
    for lanes in (4, 8):
        assert SAT.training is not None
        for max_m in (8, 16):
            sore = replace(SAT.training.sore, lanes=lanes, max_m=max_m, max_n=max_m)
            yield f"SORE, {lanes} lanes, max_m {max_m}", cells(verilog_text(sore))
        yield f"WUVE, {lanes} lanes", cells(verilog_text(replace(SAT.training.wuve, lanes=lanes)))
        unit = VectorUnit(replace(SAT, vector_lanes=lanes))
        yield f"vector unit, {lanes} lanes", cells(converted(unit))


def grid(**changes: object) -> PEGrid:
    """Return a small grid whose PEs have the parameters of the presets."""
    return replace(GRID, fifo_depth=4, **changes)


def body(grid: PEGrid) -> FpgaResources:
    """Return what a PE takes but for its FIFOs."""
    return cells(converted(GridElement(grid)), without="top.*_fifo")


def around(grid: PEGrid) -> FpgaResources:
    """Return what is around the PEs and the edges of a grid."""
    return cells(verilog_text(grid), without="grid_pe_* *_edge")


def grid_parts() -> Iterator[Part]:
    """Yield what every part of a PEGrid takes."""
    for depth in (1, 2, 4, 8):
        for look_ahead in (False, True)[: 1 + (depth > 1)]:
            fifo = replace(GRID, chunk=16, fifo_depth=depth, look_ahead=look_ahead)
            name = f"FIFO of {depth} chunks of 16{', look-ahead' * look_ahead}"
            yield name, cells(converted(ChunkFifo(fifo)))
    for skip in Skip:
        for chunk in (8, 16, 32, 64):
            yield f"PE body, chunk {chunk}, skip {skip}", body(grid(chunk=chunk, skip=skip))
    for macs in (2, 4):
        for chunk in (8, 16, 32, 64):
            name = f"PE body, chunk {chunk}, {macs} macs"
            yield name, body(grid(chunk=chunk, macs_per_pe=macs))
    for depth in (2, 4):
        for chunk in (8, 16, 32, 64):
            name = f"PE body, chunk {chunk}, look-ahead past {depth}"
            yield name, body(replace(GRID, chunk=chunk, look_ahead=True, fifo_depth=depth))
    for chunk in (8, 16, 32, 64):
        yield f"edge, chunk {chunk}", cells(converted(Edge(grid(chunk=chunk))))
    for rows, cols in ((2, 2), (8, 2), (2, 8), (8, 8)):
        yield f"around {rows} x {cols} PEs", around(replace(GRID, rows=rows, cols=cols))
    for chunk, depth in ((8, 16), (16, 16), (32, 16), (64, 16), (16, 64), (16, 256)):
        delta = DeltaParams(grid=grid(chunk=chunk, delta_chunks=depth))
        name = f"delta encoder, {depth} chunks of {chunk}"
        yield name, cells(converted(DeltaEncoder(delta)))


def vpu(params: ChainParams) -> FpgaResources:
    """Return what a chain takes; its DSP slices are what `rtl.dsp_chain.dsp` stands for."""
    found = cells(converted(Vpu(params)), without="top.slice_*.dsp")
    return replace(found, dsp=params.stages)


def wide(columns: int) -> DspChain:
    """Return a small core of so many chains."""
    return replace(FLIGHT, mv_columns=columns, mm_tokens=2 * columns)


def chain_parts() -> Iterator[Part]:
    """Yield what every part of a DspChain takes."""
    for stages, group in ((8, 2), (16, 1), (16, 2), (16, 4), (32, 2)):
        params = ChainParams(stages=stages, group=group, load_groups=stages // group)
        yield f"chain of {stages} slices in groups of {group}", vpu(params)
    for depth in (2, 64):
        engine = MpeParams(chain=ChainParams(), vpus=1, depth=depth)
        yield f"accumulators of {depth} passes", cells(converted(Accumulators(engine)))
    for vpus, mpus in ((4, 1), (8, 1), (4, 2)):
        text = verilog_text(MpeParams(chain=ChainParams(), vpus=vpus, mpus=mpus, depth=2))
        name = f"around {mpus} x {vpus} chains and accumulators"
        yield name, cells(text, without="vpu_* *.accumulators_*")
    for columns in (4, 8):
        row = converted(Engine(wide(columns)))
        found = cells(row, without="*.vpu_0 *.accumulators_0", flat=True)
        yield f"around {columns} chains of a core", found
    yield "requantisers of 4 chains", cells(converted(Requantise(FLIGHT)))
    yield "lanes of a token", cells(converted(TokenLanes(FLIGHT)))
    yield "product without requantisers", cells(converted(Product(FLIGHT)), without="top.lanes")
    matrices = cells(converted(Matrices(FLIGHT)), without="top.lanes_*")
    yield "matrices without lanes of tokens", matrices
    yield "dequantiser, 16 lanes", cells(verilog_text(DequantiserParams(lanes=16)))
    unit = SpecialParams(lanes=4)
    yield "special-function unit, 4 lanes", cells(verilog_text(unit))
    around_lanes = cells(verilog_text(unit), without="special_lane_*")
    yield "special-function unit, 4 lanes, around these", around_lanes
    rows = cells(converted(RowUnit(FLIGHT)), without="top.unit")
    yield "rows of the special-function unit", rows
    yield "fetch", cells(converted(Fetch(FLIGHT)))
    yield "decoder", cells(converted(Decoder()))
    yield "sequencer", cells(converted(Sequencer()))


def held_out() -> Iterator[tuple[str, FpgaResources, FpgaResources]]:
    """Yield what whole units take in synthesis, and by the sum of parts."""
    grids = (
        GRID,
        replace(GRID, rows=4, cols=3, chunk=16, skip=Skip.WEIGHTS),
        replace(GRID, rows=2, cols=5, chunk=32, macs_per_pe=2),
        replace(GRID, rows=2, cols=2, chunk=24, fifo_depth=3),
    )
    for each in grids:
        what = f"{each.rows} x {each.cols} grid, chunk {each.chunk}, depth {each.fifo_depth}"
        yield what, cells(verilog_text(each)), pe_grid.core(each)
    chain = ChainParams(stages=16, load_groups=8)
    engines = (
        MpeParams(chain=chain, vpus=6, depth=64),
        MpeParams(chain=chain, vpus=2, mpus=3, depth=64),
        MpeParams(chain=ChainParams(stages=24, load_groups=12), vpus=2, depth=64),
    )
    for engine in engines:
        what = f"{engine.mpus} x {engine.vpus} chains of {engine.chain.stages}"
        found = cells(verilog_text(engine), without="*.dsp")
        yield what, replace(found, dsp=engine.slices), dsp_chain.engine(engine)
    found = cells(verilog_text(DequantiserParams(lanes=48)))
    yield "dequantiser, 48 lanes", found, dsp_chain.dequantiser(48)
    found = cells(verilog_text(SpecialParams(lanes=16)))
    yield "special-function unit, 16 lanes", found, dsp_chain.special(16)
    core = wide(8)
    text = converted(Engine(core))
    whole = replace(cells(text, without="*.dsp", flat=True), dsp=8 * core.chain_stages)
    yield "row of 8 chains of a core", whole, dsp_chain.row(8)
    parts = dsp_chain.REQUANTISER.times(8) + dsp_chain.PRODUCT
    yield "product of 8 chains", cells(converted(Product(core))), parts
    parts = dsp_chain.TOKEN.times(core.mm_tokens) + dsp_chain.MATRICES
    yield "matrices of 16 tokens", cells(converted(Matrices(core))), parts


def compare() -> None:
    """Print what was held out, and how far the sum of parts is off."""
    for what, whole, parts in held_out():
        print(f"{what:44}", end="", flush=True)
        for name in ("lut", "ff", "dsp"):
            theirs, ours = getattr(whole, name), getattr(parts, name)
            off = f"{ours / theirs - 1:+.1%}" if theirs else "-"
            print(f"{name.upper()} {theirs:7,} {ours:7,} {off:>7}  ", end="")
        print(flush=True)


PARTS: Final[dict[str, Callable[[], Iterator[Part]]]] = {
    "nm_array": nm_parts,
    "pe_grid": grid_parts,
    "dsp_chain": chain_parts,
}


def main() -> None:
    """Print LUTs, flip-flops and DSPs of every part, and what was held out."""
    if shutil.which("yosys") is None:
        raise SystemExit("benchmarks/resources.py needs Yosys on the PATH")
    asked = sys.argv[1:] or [*PARTS, "held-out"]
    unknown = [name for name in asked if name not in (*PARTS, "held-out")]
    if unknown:
        raise SystemExit(f"Unknown {unknown[0]!r}; known: {', '.join([*PARTS, 'held-out'])}")
    for name in asked:
        if name == "held-out":
            compare()
            continue
        for what, found in PARTS[name]():
            print(f"{what:52} {found.lut:7,} LUT {found.ff:7,} FF {found.dsp:4} DSP", flush=True)


if __name__ == "__main__":
    main()
