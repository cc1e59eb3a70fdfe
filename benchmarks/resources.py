"""What the generated RTL takes in synthesis: the figures behind `cost_models.fpga`.

Run as `python benchmarks/resources.py` with Yosys on the PATH; 0.23 gave what is recorded. A PE
is synthesised on its own, the array around PEs that are black boxes, units with 4 and 8 lanes.
"""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from amaranth.back import verilog
from amaranth.lib import wiring

from rtl.export import verilog_text
from rtl.machine.vector import VectorUnit
from rtl.nm_array import ProcessingElement
from simulator.arch import NMArray, Precision
from simulator.arch.load import load_arch

SYNTHESIS = "synth_xilinx -family xcup -noiopad -noclkbuf"
SAT = load_arch("sat-vcu1525")


def cells(text: str, *, without: str = "") -> dict[str, int]:
    """Return the number of LUTs (shift registers included) and DSPs of a Verilog text."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "top.v").write_text(text)
        hidden = f"blackbox {without}; " if without else ""
        script = f"read_verilog top.v; {hidden}{SYNTHESIS}; tee -q -o stat.json stat -json"
        subprocess.run(["yosys", "-q", "-p", script], cwd=folder, check=True)
        found = Path(folder, "stat.json").read_text()
    totals = re.findall(r'"(\w+)": (\d+)', found[found.rindex('"num_cells_by_type"') :])
    return {
        "lut": sum(int(n) for name, n in totals if re.match(r"LUT\d|SRL", name)),
        "dsp": sum(int(n) for name, n in totals if name.startswith("DSP")),
    }


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


def measured() -> Iterator[tuple[str, dict[str, int]]]:
    """Yield (what, cells) of every part."""
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
            pe = re.findall(r"module (nm_pe_\w+)", text)[0]
            yield f"{precision} {rows} x {cols} around PEs", cells(text, without=pe)
    for lanes in (4, 8):
        assert SAT.training is not None
        yield f"SORE, {lanes} lanes", cells(verilog_text(replace(SAT.training.sore, lanes=lanes)))
        yield f"WUVE, {lanes} lanes", cells(verilog_text(replace(SAT.training.wuve, lanes=lanes)))
        unit = VectorUnit(replace(SAT, vector_lanes=lanes))
        yield f"vector unit, {lanes} lanes", cells(converted(unit))


def main() -> None:
    """Print LUTs and DSPs of every part."""
    if shutil.which("yosys") is None:
        raise SystemExit("benchmarks/resources.py needs Yosys on the PATH")
    for what, found in measured():
        print(f"{what:32} {found['lut']:7,} LUT {found['dsp']:4} DSP", flush=True)


if __name__ == "__main__":
    main()
