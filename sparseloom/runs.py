"""A run: one workload on one machine, from source to price, with the dense baseline beside it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cost_models import Cost, price
from mapping import MapperResult, simulate_graph
from simulator.arch import Accelerator, NMArray
from simulator.arch.load import PRESETS, load_arch, read_arch_file
from simulator.result import Result
from workloads.frontends import load
from workloads.graph import Phase, WorkloadGraph
from workloads.pruning import sparsify
from workloads.sparsity import Dense, NofM, Sparsity, parse
from workloads.training import Method, unfold_batch_norms
from workloads.zoo import BATCH_NORMED

__all__ = [
    "BASELINES",
    "PHASES",
    "Prepared",
    "Run",
    "check_trainer",
    "named_arch",
    "prepared",
    "run",
]

BASELINES = ("dense",)
PHASES = ("infer", "train")
MOST_MACS = 1 << 52
"""Counts of a run are 64-bit; bits moved and slots are some thousand times the products."""

TRAINED_SMALL = {"vgg19": 32}
"""Networks of the zoo that train on smaller images than they infer on, unless asked otherwise."""

OnOp = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """Everything one run produced; `arch_name` is the preset or file that was asked for.

    `method` is the training method, None for inference.
    """

    arch_name: str
    method: str | None = None
    arch: Accelerator
    graph: WorkloadGraph
    sparsity: Sparsity
    mapped: MapperResult
    result: Result
    cost: Cost
    baseline: "Run | None" = None
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def speedup(self) -> float | None:
        """Cycles of the baseline over cycles of this run; None without a baseline."""
        return self.baseline.result.cycles / max(self.result.cycles, 1) if self.baseline else None

    def to_json(self) -> dict[str, Any]:
        """Return the document that `run --json` prints and result.json holds."""
        from sparseloom.document import document

        return document(self)

    def write(self, folder: str | Path) -> tuple[Path, ...]:
        """Write result.json and report.html into `folder`, whole or not at all."""
        from sparseloom.outputs import write_run

        return write_run(self.to_json(), Path(folder))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """A workload ready to be mapped: sparsified or expanded to a training step, and as it was.

    `dense` is the baseline's graph, `method` the training method, None for inference.
    """

    graph: WorkloadGraph
    dense: WorkloadGraph
    sparsity: Sparsity
    method: str | None
    options: dict[str, Any]


def prepared(
    source: str | Path | WorkloadGraph,
    sparsity: str | Sparsity | None,
    *,
    first_layer: bool = False,
    phase: str = "infer",
    method: str | None = None,
    options: Mapping[str, Any],
) -> Prepared:
    """Load and sparsify `source`; the arguments are those of `run`."""
    if phase not in PHASES:
        raise ValueError(f"Unknown phase {phase!r}; known: {', '.join(PHASES)}")
    if method is not None and phase != "train":
        raise ValueError(f"Method {method!r} is a training method: it needs phase train")
    structure = parse(sparsity) if isinstance(sparsity, str) else sparsity or Dense()
    given = {key: value for key, value in options.items() if value is not None}
    if phase == "train" and source in TRAINED_SMALL:
        given.setdefault("image", TRAINED_SMALL[str(source)])
    dense = load(source, **given)
    if dense.macs > MOST_MACS:
        raise ValueError(
            f"Workload {dense.name!r} has {dense.macs:,} multiply-accumulates; counts stay exact "
            f"up to {MOST_MACS:,}"
        )
    if phase == "train":
        dense = unfold_batch_norms(dense) if source in BATCH_NORMED else dense
        chosen = Method(method or ("dense" if isinstance(structure, Dense) else "bdwp"))
        wanted = None if isinstance(structure, Dense) else structure
        graph = dense.training(chosen, sparsity=wanted, first_layer=first_layer)
        dense, method = dense.training(Method.DENSE), chosen.value
    else:
        graph = sparsify(dense, structure, first_layer=first_layer)
    return Prepared(graph=graph, dense=dense, sparsity=structure, method=method, options=given)


def named_arch(arch: str | Path | Accelerator, memory: str | None) -> tuple[Accelerator, str]:
    """Return the machine, with another memory mode if asked, and what to call it."""
    machine = load_arch(arch, **({} if memory is None else {"memory": memory}))
    return machine, "custom" if isinstance(arch, Accelerator) else str(arch)


def check_trainer(ready: Prepared, machine: Accelerator, arch_name: str) -> None:
    """Refuse, before the work, a machine without the units or selector a training step needs."""
    if not ready.method:
        return
    units = machine.training if isinstance(machine, NMArray) else None
    if units is None:
        able = [name for name in PRESETS if read_arch_file(name).values.get("training")]
        raise ValueError(
            f"Phase train needs an arch with `training` units (sore, wuve), which {arch_name!r} "
            f"has not; presets that have them: {', '.join(able) or 'none'}"
        )
    for op in ready.graph.ops:
        kept = ready.graph.tensors[op.output].sparsity
        if op.phase is not Phase.SELECT or not isinstance(kept, NofM):
            continue
        if not (isinstance(kept.n, int) and units.sore.selects(kept.n, kept.m)):
            raise ValueError(
                f"Op {op.name!r} (select pass) keeps {kept.n}:{kept.m}, but the SORE of "
                f"{arch_name!r} keeps N of 1 to max_n = {units.sore.max_n} in groups of M up to "
                f"max_m = {units.sore.max_m}"
            )


def _once(
    graph: WorkloadGraph, arch_name: str, arch: Accelerator, **options: Any
) -> dict[str, Any]:
    done = simulate_graph(graph, arch, **options)
    return {
        "arch_name": arch_name,
        "arch": arch,
        "graph": graph,
        "mapped": done.mapped,
        "result": done.result,
        "cost": price(done.result),
    }


def run(
    source: str | Path | WorkloadGraph,
    *,
    arch: str | Path | Accelerator,
    sparsity: str | Sparsity | None = None,
    baseline: str | None = None,
    memory: str | None = None,
    first_layer: bool = False,
    phase: str = "infer",
    method: str | None = None,
    mapper: str = "exhaustive",
    objective: str = "cycles",
    fuse: bool = False,
    seed: int = 0,
    on_op: OnOp | None = None,
    **options: Any,
) -> Run:
    """Load, sparsify, map, simulate and price `source` on `arch`.

    Every operator is mapped by `mapper` at the least cost under `objective`; with `fuse` tensors
    between operators may stay on chip.

    With phase="train" the workload is one training step by `method` (dense, sr-ste, sdgp or
    bdwp; bdwp by default, dense if the weights are), and its dense baseline is method dense.
    Networks of the zoo train with the batch norms that are folded for inference.

    `sparsity` goes on the weights; left out, they are dense, or compressed as the machine's
    published run of this model was. The first layer stays dense unless `first_layer`. With
    baseline="dense" the same workload also runs dense on the same array. Options are those of
    the source (batch, prefill, decode, image, length, inputs); None leaves one out. `on_op` is
    called with the name of every operator once it is mapped. Raises ValueError with a sentence
    for anything the source, the machine or the options do not allow.
    """
    if baseline not in (None, *BASELINES):
        raise ValueError(f"Unknown baseline {baseline!r}; known: {', '.join(BASELINES)}")
    machine, arch_name = named_arch(arch, memory)
    ready = prepared(
        source, sparsity, first_layer=first_layer, phase=phase, method=method, options=options
    )
    check_trainer(ready, machine, arch_name)
    chosen: dict[str, Any] = {
        "mapper": mapper,
        "objective": objective,
        "fuse": fuse,
        "seed": seed,
        "on_op": on_op,
    }
    beside = None
    if baseline:
        beside = Run(
            sparsity=Dense(),
            method=Method.DENSE.value if ready.method else None,
            options=ready.options,
            **_once(ready.dense, arch_name, machine, compress=False, **chosen),
        )
    return Run(
        sparsity=ready.sparsity,
        method=ready.method,
        baseline=beside,
        options=ready.options,
        **_once(ready.graph, arch_name, machine, compress=sparsity is None, **chosen),
    )
