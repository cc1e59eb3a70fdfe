"""The `sparseloom` command: run, map, list, explain, place, rtl, cosim, reproduce, sweep, report.

Results go to stdout, progress and errors to stderr. Exit code 0 is success, 2 bad input (one
sentence, no traceback), 1 any other failure, 130 an interrupt. Libraries load inside the
commands that use them.
"""

import json
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from sparseloom.runs import Run
    from sparseloom.sweeps.run import SweepReport

__all__ = ["app", "main"]

PACKAGES: Final = ("sparseloom", "mapping", "cost_models", "rtl", "simulator", "workloads")
PLAIN_WIDTH: Final = 110
"""Columns of a table when stdout is not a terminal."""

HELP_WIDTH: Final = 100
"""Columns of a help page at most."""

INTERRUPTED: Final = 130
"""Exit code of a program stopped from the keyboard: 128 + SIGINT."""

WRONG_PATH: Final = (
    FileExistsError,
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)
"""Errors of the operating system that a better path would avoid."""

app = typer.Typer(
    name="sparseloom",
    help="Exact cycles, energy and RTL proof of sparse DNN accelerators.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"max_content_width": HELP_WIDTH},
)

Source = Annotated[
    str,
    typer.Argument(
        metavar="WORKLOAD",
        help="A network (`list zoo`), a decoder's .yaml, an .onnx or a SCALE-Sim topology .csv.",
        show_default=False,
    ),
]
Arch = Annotated[
    str,
    typer.Option(
        "--arch",
        metavar="MACHINE",
        help="A preset (`list archs`) or a machine .yaml.",
        show_default=False,
    ),
]
Sparsity = Annotated[
    str | None,
    typer.Option(
        metavar="PATTERN",
        help="Zeros of the weights: dense, N:M, unstructured:D, block:RxC:D or balanced:B:D, "
        "where D is the share kept; left out, dense, or as the machine compresses this model.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Batch = Annotated[
    int | None, typer.Option(metavar="N", help="Inputs processed together; 1 if left out.")
]
Prefill = Annotated[
    int | None,
    typer.Option(metavar="TOKENS", help="LLMs: length of the prompt; 512 without --decode."),
]
Decode = Annotated[
    int | None,
    typer.Option(metavar="TOKENS", help="LLMs: tokens generated behind the prompt, one by one."),
]
Image = Annotated[
    int | None,
    typer.Option(metavar="PIXELS", help="Vision networks: height and width of the image."),
]
Length = Annotated[int | None, typer.Option(metavar="TOKENS", help="Text encoders: length.")]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="NAME=SHAPE",
        help="ONNX: shape of an input, such as x=1x3x48x320; may be repeated.",
    ),
]
Record = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="ONNX: run the model on this image, .npy or .npz, and keep the zeros of its "
        "activations as masks.",
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(
        metavar="modelled|steady|ideal",
        help="Main memory: modelled, steady (the larger of array time and bytes over bandwidth) or "
        "ideal (array time alone); the machine's own if left out.",
    ),
]
FirstLayer = Annotated[
    bool,
    typer.Option("--first-layer", help="Sparsify the first layer too; it stays dense otherwise."),
]
Seed = Annotated[int, typer.Option(metavar="N", min=0, help="Seed of whatever is drawn.")]
Top = Annotated[
    int, typer.Option(metavar="N", min=1, help="Operators to show, those with the most cycles.")
]
Phase = Annotated[str, typer.Option(metavar="infer|train", help="Inference, or one training step.")]
Method = Annotated[
    str | None,
    typer.Option(
        metavar="dense|sr-ste|sdgp|bdwp",
        help="With --phase train: what is pruned; bdwp if left out and --sparsity is given.",
    ),
]
Mapper = Annotated[
    str,
    typer.Option(
        metavar="exhaustive|integer|greedy",
        help="What chooses mappings: the first two prove their optimum, greedy is fast.",
    ),
]
Objective = Annotated[
    str,
    typer.Option(
        metavar="cycles|energy|edp|dram_bytes",
        help="What mappings minimise, summed over operators: cycles, energy (J), edp (J s) or "
        "bytes of main memory.",
    ),
]
Fuse = Annotated[
    bool,
    typer.Option("--fuse", help="N:M arrays: also let tensors between operators stay on chip."),
]
Jobs = Annotated[
    int, typer.Option(metavar="N", min=1, help="Processes on this computer that simulate.")
]


class Engine(StrEnum):
    """What executes the RTL."""

    PYSIM = "pysim"
    VERILATOR = "verilator"


@app.callback()
def _options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of a failure.")
    ] = False,
) -> None:
    """Exact cycles, energy and RTL proof of sparse DNN accelerators."""
    del debug  # read by `main` before any command runs


def _console() -> "Console":
    from rich.console import Console

    width = None if sys.stdout.isatty() else PLAIN_WIDTH
    return Console(width=width, highlight=False, markup=False, emoji=False)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, allow_nan=False))


def _shapes(inputs: list[str] | None) -> dict[str, tuple[int, ...]] | None:
    """Read NAME=1x3x48x320 options; None if there are none."""
    if not inputs:
        return None
    shapes = {}
    for text in inputs:
        name, _, sizes = text.rpartition("=")
        if not name or not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", sizes):
            raise ValueError(f"--input takes NAME=1x3x48x320, not {text!r}")
        shapes[name] = tuple(int(size) for size in sizes.split("x"))
    return shapes


def _asked(options: dict[str, Any], *shown: str) -> dict[str, Any]:
    """Return a command's options, without those of what is `shown`, as the run takes them."""
    settings = {name: value for name, value in options.items() if name not in shown}
    record = settings["record"]
    return {
        **settings,
        "inputs": _shapes(settings["inputs"]),
        "record": str(record) if record else None,
    }


def _execute(**settings: Any) -> "Run":
    from sparseloom.progress import progress
    from sparseloom.runs import run as execute

    with progress("mapping") as step:
        return execute(settings.pop("source"), on_op=step, **settings)


@app.command()
def run(
    source: Source,
    arch: Arch,
    sparsity: Sparsity = None,
    baseline: Annotated[
        str | None,
        typer.Option(metavar="dense", help="Also run dense on the same machine, and compare."),
    ] = None,
    batch: Batch = None,
    prefill: Prefill = None,
    decode: Decode = None,
    image: Image = None,
    length: Length = None,
    inputs: Inputs = None,
    record: Record = None,
    memory: Memory = None,
    first_layer: FirstLayer = False,
    phase: Phase = "infer",
    method: Method = None,
    mapper: Mapper = "exhaustive",
    objective: Objective = "cycles",
    fuse: Fuse = False,
    seed: Seed = 0,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write result.json and report.html into this folder."),
    ] = None,
    top: Top = 10,
    as_json: AsJson = False,
) -> None:
    """Simulate a workload on a machine: cycles, energy, and what the sparsity buys."""
    settings = _asked(locals(), "out", "top", "as_json")
    if out:
        from sparseloom.outputs import check_folder

        check_folder(out)  # before the work, not after it
    done = _execute(**settings)
    document = done.to_json()
    written = _write(document, out) if out else ()
    if as_json:
        _print_json(document)
        return
    from sparseloom.tables import ops_table, run_table

    console = _console()
    console.print(run_table(document))
    console.print(ops_table(document, top))
    for note in document["notes"]:
        console.print(f"note: {note}")
    for path in written:
        console.print(f"wrote {path}", soft_wrap=True)


def _write(document: dict[str, Any], out: Path) -> tuple[Path, ...]:
    from sparseloom.outputs import write_run

    return write_run(document, out)


@contextmanager
def _told(kind: type[Warning]) -> Iterator[None]:
    """Write warnings of a kind as sentences on stderr."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", kind)
        others = warnings.showwarning

        def told(message: Warning | str, category: type[Warning], *place: Any) -> None:
            if issubclass(category, kind):
                print(f"sparseloom: {message}", file=sys.stderr)
            else:
                others(message, category, *place)

        warnings.showwarning = told  # type: ignore[assignment]  # only the place is left unnamed
        yield


@app.command(name="map")
def map_(
    source: Source,
    arch: Arch,
    mapper: Mapper = "exhaustive",
    objective: Objective = "cycles",
    fuse: Fuse = False,
    sparsity: Sparsity = None,
    batch: Batch = None,
    prefill: Prefill = None,
    decode: Decode = None,
    image: Image = None,
    length: Length = None,
    inputs: Inputs = None,
    record: Record = None,
    memory: Memory = None,
    first_layer: FirstLayer = False,
    phase: Phase = "infer",
    method: Method = None,
    seed: Seed = 0,
    top: Top = 12,
    as_json: AsJson = False,
) -> None:
    """Choose dataflow, tile and loop order of every operator, and prove the choice.

    With SPARSELOOM_CACHE_DIR set, proved choices are kept in that folder for the next run; if it
    cannot be written to, one sentence says so and the run goes on.
    """
    settings = _asked(locals(), "top", "as_json")
    from mapping.cache import CacheWarning
    from sparseloom.mapped import mapped_document
    from sparseloom.progress import progress

    folder = os.environ.get("SPARSELOOM_CACHE_DIR")
    with _told(CacheWarning), progress("mapping") as step:
        document = mapped_document(**settings, cache=Path(folder) if folder else None, on_op=step)
    if as_json:
        _print_json(document)
        return
    from sparseloom.tables import mapped_lines, mapped_table

    console = _console()
    for line in mapped_lines(document):
        console.print(line, soft_wrap=True)
    console.print(mapped_table(document, top))
    for note in document["notes"]:
        console.print(f"note: {note}")


@app.command()
def explain(
    source: Source,
    arch: Arch,
    sparsity: Sparsity = None,
    batch: Batch = None,
    prefill: Prefill = None,
    decode: Decode = None,
    image: Image = None,
    length: Length = None,
    inputs: Inputs = None,
    record: Record = None,
    memory: Memory = None,
    first_layer: FirstLayer = False,
    phase: Phase = "infer",
    method: Method = None,
    seed: Seed = 0,
    top: Top = 12,
    as_json: AsJson = False,
) -> None:
    """Say where the cycles go, which dataflow won, and why zeros did not buy more."""
    settings = _asked(locals(), "top", "as_json")
    from sparseloom.explanation import explain as explain_run
    from sparseloom.progress import progress

    done = _execute(**settings, baseline="dense")
    with progress("explaining"):
        explanation = explain_run(done)
    if as_json:
        _print_json(explanation.to_json())
        return
    from sparseloom.tables import causes_lines, explanation_table

    console = _console()
    title = f"{explanation.workload} on {explanation.arch}, weights {explanation.sparsity}"
    for line in (title, *explanation.sentences, "", *causes_lines(explanation.causes)):
        console.print(line, soft_wrap=True)
    for part in explanation.optimisations:
        console.print(
            f"Without {part.name}: {part.cycles_without:,} cycles, {part.worth:.2f}x as many."
        )
    console.print(explanation_table(explanation, top))
    for note in done.result.notes:
        console.print(f"note: {note}")


@app.command(name="list")
def list_(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="TABLE",
            help="A table, such as archs, zoo, placements or devices; all if left out.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show machines, networks, sparsities, dataflows and mappers."""
    from sparseloom.catalogue import CATALOGUE

    if what is not None and what not in CATALOGUE:
        raise ValueError(f"Unknown list {what!r}; known: {', '.join(CATALOGUE)}")
    chosen = {name: rows() for name, rows in CATALOGUE.items() if what in (None, name)}
    if as_json:
        _print_json(chosen)
        return
    from sparseloom.tables import catalogue_table

    console = _console()
    for name, rows in chosen.items():
        console.print(catalogue_table(name, rows))


class Solver(StrEnum):
    """What solves the integer program of a placement."""

    HIGHS = "highs"
    CBC = "cbc"


@app.command()
def place(
    spec: Annotated[
        str,
        typer.Argument(
            metavar="SPEC",
            help="A built-in spec (`list placements`) or a .yaml.",
            show_default=False,
        ),
    ],
    device: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Device or board (`list devices`); the spec's own if left out."
        ),
    ] = None,
    solver: Annotated[Solver, typer.Option(help="What solves the program.")] = Solver.HIGHS,
    time_limit: Annotated[
        float, typer.Option(metavar="SECONDS", min=1, help="Most time to solve.")
    ] = 60,
    store: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Designs: a sweep's store to keep and find simulated candidates in.",
        ),
    ] = None,
    jobs: Jobs = 1,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Write placement.json and floorplan.svg into this folder, or design.json, "
            "candidates.csv and front.svg.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Place units on a device, or choose the machine to build there, with bound and gap.

    A spec lists units, DSP chains and buffers, or, as a design, workloads and machines to choose
    from under a budget.
    """
    from sparseloom.designs import Design, DesignSpec
    from sparseloom.placing import load_placement
    from sparseloom.placing import place as solve
    from sparseloom.progress import counted

    if out:
        from sparseloom.outputs import check_folder

        check_folder(out)  # before the work, not after it
    problem = load_placement(spec, device=device)
    title = "simulating candidates" if isinstance(problem, DesignSpec) else "placing"
    with _resumable(), counted(title) as on_point:
        found = solve(
            problem,
            solver=solver.value,
            time_limit_s=time_limit,
            store=store,
            jobs=jobs,
            on_point=on_point,
        )
    written: tuple[Path, ...] = ()
    if out:
        from sparseloom.outputs import write_placed

        written = write_placed(problem, found, out)
    document = found.to_json() if isinstance(found, Design) else found.summary()
    if as_json:
        _print_json(document)
        return
    from sparseloom.tables import design_tables, placement_table

    console = _console()
    designed = isinstance(found, Design)
    for table in design_tables(document) if designed else [placement_table(document)]:
        console.print(table)
    for sentence in document.get("why", ()):
        console.print(sentence)
    notes = list(document.get("notes", ()))
    if document["status"] == "feasible":
        notes.append(f"Time ran out before the proof; more than {time_limit:g} s may find better")
    for note in notes:
        console.print(f"note: {note}")
    for path in written:
        console.print(f"wrote {path}", soft_wrap=True)


@app.command()
def rtl(
    arch: Arch,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder for .v and .json.", show_default=False)
    ],
    machine: Annotated[
        bool,
        typer.Option(
            "--machine", help="Also the whole machine: units, buffers, memory access behind AXI4."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write Verilog and parameters of the machine's units.

    Array or grid, and what goes with it; of a machine that is a model only as a whole those units
    that have RTL, with a note that says why.
    """
    from rtl.export import export, export_machine, exportable, unit_name
    from simulator.arch import NMArray
    from simulator.arch.accelerator import kind
    from simulator.arch.dsp_chain import DspChain
    from simulator.arch.load import load_arch
    from sparseloom.outputs import check_folder
    from sparseloom.progress import progress

    check_folder(out)  # before the work, not after it
    params = load_arch(arch)
    found, notes = exportable(params, arch)
    whole_machine = params if isinstance(params, NMArray | DspChain) else None
    if machine and not whole_machine:
        raise ValueError(
            f"Only an nm_array and a dsp_chain have a whole machine; {arch} is a {kind(params)}"
        )
    done = []
    with progress("exporting") as step:
        # The whole machine first: it may be refused.
        whole = [export_machine(whole_machine, out)] if machine and whole_machine else []
        for unit in found:
            done.append(export(unit, out))
            step(unit_name(unit))
    done += whole
    files = [str(file) for paths in done for file in (paths.verilog, paths.parameters)]
    if as_json:
        _print_json(
            {
                "arch": arch,
                "digest": params.digest(),
                "module": done[0].module,  # array, grid or matrix engine
                "modules": [paths.module for paths in done],
                "files": files,
                "notes": list(notes),
            }
        )
        return
    for note in notes:
        print(f"note: {note}")
    for file in files:
        print(f"wrote {file}")


@app.command()
def cosim(
    arch: Arch,
    points: Annotated[
        int, typer.Option(metavar="N", min=1, help="Jobs with random masks and stalls.")
    ] = 20,
    seed: Seed = 0,
    engine: Annotated[Engine, typer.Option(help="What executes the RTL.")] = Engine.PYSIM,
    as_json: AsJson = False,
) -> None:
    """Run the machine's RTL beside the simulator: same bits, cycles, counters, or exit 1.

    Points are dealt out to its units: array or grid, and SORE and WUVE, or the delta encoder.
    """
    from rtl.cosim import cosimulate
    from simulator.arch.accelerator import with_rtl
    from simulator.arch.load import load_arch
    from sparseloom.progress import progress

    with progress("co-simulating", points) as step:
        found = cosimulate(
            with_rtl(load_arch(arch), arch),
            points=points,
            seed=seed,
            engine=engine.value,
            on_point=lambda done: step(f"point {done}"),
        )
    if as_json:
        _print_json(
            {
                "arch": arch,
                "engine": engine.value,
                "seed": seed,
                "points": found.points,
                "points_by_unit": dict(found.points_by_unit),
                "cycles": found.cycles,
                "agrees": found.agrees,
                "mismatches": list(found.mismatches),
            }
        )
    else:
        verdict = "agree bit for bit and cycle for cycle" if found.agrees else "differ"
        shares = ", ".join(f"{name} {count}" for name, count in found.points_by_unit.items())
        print(
            f"{arch}: RTL ({engine.value}) and simulator {verdict} on {found.points} points "
            f"({shares}), {found.cycles:,} cycles"
        )
        for mismatch in found.mismatches:
            print(f"  {mismatch}")
    if not found.agrees:
        raise typer.Exit(1)


REPRODUCED: Final = {
    "scale-sim": "folds of dense arrays and AlexNet's first layer: SCALE-Sim",
    "eyeriss-v2": "a PE that skips both operands' zeros: Sparseloop's ground truth",
    "sigma-tpu": "SIGMA and a 128 x 128 TPU: TeAAL's baselines",
    "tensor-cores": "sparse tensor cores and DSTC: Sparseloop",
    "sat": "N:M training, average of five networks: SAT",
    "flightllm": "LLaMA-2-7B on sparse DSP chains: FlightLLM",
}
"""The sections of `reproduce`, which load when they run."""

_SECTIONS: Final = "\n".join(f"  {name:<14}{what}" for name, what in REPRODUCED.items())


@app.command(
    help="Show published figures beside ours: error, source, and why where they do not match."
    f"\n\n\b\nSections:\n{_SECTIONS}"
)
def reproduce(
    sections: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SECTION",
            help="Sections, such as sat; all if left out.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show published figures beside ours."""
    from sparseloom.progress import progress
    from sparseloom.reproduce import reproduce as execute

    with progress("reproducing") as step:
        found = execute(sections or (), on_step=step)
    if as_json:
        _print_json({"sections": [section.to_json() for section in found]})
        return
    from sparseloom.tables import reproduction_table, study_table

    console = _console()
    for section in found:
        console.print(reproduction_table(section))
        for table in section.tables:
            console.print(study_table(table))
        for sentence in section.sentences:
            console.print(sentence)


@app.command()
def sweep(
    spec: Annotated[
        Path | None,
        typer.Argument(metavar="SPEC", help="The sweep's YAML file.", show_default=False),
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="SQLite file for the points; one that exists is gone on with."
        ),
    ] = None,
    jobs: Jobs = 1,
    dask: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Run on the cluster of a Dask scheduler, tcp://HOST:PORT, or slurm:N, of N jobs.",
        ),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Run points again that failed before.")
    ] = False,
    example: Annotated[
        bool, typer.Option("--example", help="Print a sweep that takes about ten seconds.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run every point of a design space that the store does not hold yet."""
    from sparseloom.sweeps.spec import EXAMPLE

    if example:
        print(EXAMPLE, end="")
        return
    if spec is None or store is None:
        raise ValueError(
            "A sweep takes a specification and --store FILE; "
            "`sparseloom sweep --example` prints one"
        )
    from sparseloom.progress import counted
    from sparseloom.sweeps import sweep as run_sweep

    with _resumable(), counted("sweeping") as on_point:
        done = run_sweep(
            spec, store, jobs=jobs, dask=dask, retry_failed=retry_failed, on_point=on_point
        )
    if as_json:
        _print_json(
            {name: getattr(done, name) for name in
             ("store", "sweep", "points", "computed", "cached", "failed")}
        )  # fmt: skip
    else:
        _print_sweep(done)
    if done.failed and done.failed == done.points:
        raise typer.Exit(1)


def _print_sweep(done: "SweepReport") -> None:
    failed = f", {done.failed:,} failed" if done.failed else ""
    print(
        f"{done.points:,} points in {done.store}: {done.computed:,} computed, "
        f"{done.cached:,} found there{failed}"
    )
    if done.failed:
        print(f"`sparseloom report {done.store}` shows why points failed, and the others")


@contextmanager
def _resumable() -> Iterator[None]:
    """Say, when the keyboard stops a sweep, what is kept and how to go on."""
    try:
        yield
    except KeyboardInterrupt as stop:
        if str(stop):
            print(f"sparseloom: {stop}", file=sys.stderr)
        raise


def _report_sweep(store: Path, out: Path | None, as_json: bool, count: bool) -> None:
    from sparseloom.sweeps.report import meanings, sweep_tables, to_json, write_report
    from sparseloom.sweeps.store import open_store
    from sparseloom.sweeps.summary import summarise

    with open_store(store) as opened:
        if count:
            _print_json({"points": opened.count()}) if as_json else print(opened.count())
            return
        summary = summarise(opened)
        written = write_report(opened, summary, out) if out else ()
    if written and not any(path.suffix == ".parquet" for path in written):
        print(
            "sparseloom: points.parquet is not written, it needs pyarrow: "
            "pip install 'sparseloom[parquet]'",
            file=sys.stderr,
        )
    if as_json:
        _print_json(to_json(summary))
        return
    from sparseloom.tables import plain_table

    console = _console()
    console.print(f"{summary.name}: {summary.finished:,} points")
    for workload, tables in sweep_tables(summary):
        console.print(f"\n{workload}")
        for table in tables:
            console.print(plain_table(table.title, table.columns, table.rows))
    for name, unit, meaning in meanings(summary.objectives):
        console.print(f"{name}: {meaning}{f' ({unit})' if unit and unit != meaning else ''}")
    for reason, number in summary.failures.items():
        console.print(f"failed, {number:,} points: {reason}", soft_wrap=True)
    for path in written:
        console.print(f"wrote {path}", soft_wrap=True)


@app.command()
def report(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            help="A result.json, the folder that holds one, or a sweep's store.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Sweeps: write report.html, points.csv and points.parquet into this folder.",
        ),
    ] = None,
    count: Annotated[
        bool, typer.Option("--count", help="Sweeps: print only the number of finished points.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Build report.html from a result.json, or show what a sweep's store holds."""
    from sparseloom.sweeps.store import is_store

    if is_store(source):
        _report_sweep(source, out, as_json, count)
        return
    if count or out:
        wrong = "does not exist" if not source.exists() else "is none"
        raise ValueError(f"--out and --count need the store of a sweep; {str(source)!r} {wrong}")
    from sparseloom.report import report_file

    path = report_file(source)
    if as_json:
        _print_json({"report": str(path)})
    else:
        print(f"wrote {path}")


def _is_ours(error: BaseException) -> bool:
    """Whether one of our packages raised `error` itself: then its text is meant for the user."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    module = trace.tb_frame.f_globals.get("__name__", "") if trace else ""
    return module.split(".")[0] in PACKAGES


def _explained(error: Exception) -> str | None:
    """Return the sentence for bad input, None for any other failure."""
    usage = getattr(error, "format_message", None)
    if usage is not None:  # the option parser's own errors
        return str(usage())
    if isinstance(error, ValueError) and _is_ours(error):
        return str(error)
    if isinstance(error, WRONG_PATH):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error)
    return None


def _fail(error: Exception, debug: bool) -> int:
    sentence = _explained(error)
    if debug:
        import traceback

        traceback.print_exception(error)
    if sentence is not None:
        print(f"sparseloom: {' '.join(sentence.split())}", file=sys.stderr)
        return 2
    if isinstance(error, RuntimeError) and _is_ours(error):  # a tool is missing or failed
        print(f"sparseloom: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    if isinstance(error, MemoryError):
        print(f"sparseloom: Out of memory: {error}", file=sys.stderr)
        return 1
    text = " ".join(f"{type(error).__name__}: {error}".split())
    hint = "" if debug else " (`sparseloom --debug ...` shows where)"
    print(f"sparseloom: internal failure, {text}{hint}", file=sys.stderr)
    return 1


def invoke(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code."""
    debug = "--debug" in arguments
    try:
        given = [argument for argument in arguments if argument != "--debug"]
        code = app(args=given or ["--help"], standalone_mode=False)
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone
        sys.stderr.close()
        return 1
    except Exception as error:  # noqa: BLE001 - the one place where failures become sentences
        return _fail(error, debug)
    if code == INTERRUPTED:  # the option parser turns an interrupt into this code itself
        print("sparseloom: interrupted", file=sys.stderr)
    return code if isinstance(code, int) else 0


def main() -> None:
    """Entry point of the `sparseloom` command."""
    sys.exit(invoke(sys.argv[1:]))


if __name__ == "__main__":
    main()
