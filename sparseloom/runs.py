"""A run: one workload on one machine, from source to price, with the dense baseline beside it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cost_models import Cost, price
from mapping import MapperResult, map_graph
from simulator.arch import NMArray
from simulator.arch.load import load_arch
from simulator.result import Result
from simulator.simulate import simulate
from workloads.frontends import load
from workloads.graph import WorkloadGraph
from workloads.pruning import sparsify
from workloads.sparsity import Dense, Sparsity, parse
from workloads.training import Method, unfold_batch_norms
from workloads.zoo import BATCH_NORMED

__all__ = ["BASELINES", "PHASES", "Run", "run"]

BASELINES = ("dense",)
PHASES = ("infer", "train")
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
    arch: NMArray
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


def _once(
    graph: WorkloadGraph, arch_name: str, arch: NMArray, seed: int, on_op: OnOp | None
) -> dict[str, Any]:
    mapped = map_graph(graph, arch, on_op=on_op)
    result = simulate(mapped.schedule, arch, seed=seed)
    return {
        "arch_name": arch_name,
        "arch": arch,
        "graph": graph,
        "mapped": mapped,
        "result": result,
        "cost": price(result),
    }


def run(
    source: str | Path | WorkloadGraph,
    *,
    arch: str | Path | NMArray,
    sparsity: str | Sparsity = "dense",
    baseline: str | None = None,
    memory: str | None = None,
    first_layer: bool = False,
    phase: str = "infer",
    method: str | None = None,
    seed: int = 0,
    on_op: OnOp | None = None,
    **options: Any,
) -> Run:
    """Load, sparsify, map, simulate and price `source` on `arch`.

    With phase="train" the workload is one training step by `method` (dense, sr-ste, sdgp or
    bdwp; bdwp by default, dense if the weights are), and its dense baseline is method dense.
    Networks of the zoo train with the batch norms that are folded for inference.

    `sparsity` goes on the weights; the first layer stays dense unless `first_layer`. With
    baseline="dense" the same workload also runs dense on the same array. Options are those of
    the source (batch, prefill, decode, image, length, inputs); None leaves one out. `on_op` is
    called with the name of every operator once it is mapped. Raises ValueError with a sentence
    for anything the source, the machine or the options do not allow.
    """
    if baseline not in (None, *BASELINES):
        raise ValueError(f"Unknown baseline {baseline!r}; known: {', '.join(BASELINES)}")
    if phase not in PHASES:
        raise ValueError(f"Unknown phase {phase!r}; known: {', '.join(PHASES)}")
    if method is not None and phase != "train":
        raise ValueError(f"Method {method!r} is a training method: it needs phase train")
    structure = parse(sparsity) if isinstance(sparsity, str) else sparsity
    machine = load_arch(arch, **({"memory": memory} if memory else {}))
    arch_name = "custom" if isinstance(arch, NMArray) else str(arch)
    given = {key: value for key, value in options.items() if value is not None}
    if phase == "train" and source in TRAINED_SMALL:
        given.setdefault("image", TRAINED_SMALL[str(source)])
    dense = load(source, **given)
    if phase == "train":
        dense = unfold_batch_norms(dense) if source in BATCH_NORMED else dense
        chosen = Method(method or ("dense" if isinstance(structure, Dense) else "bdwp"))
        graph = dense.training(
            chosen,
            sparsity=None if isinstance(structure, Dense) else structure,
            first_layer=first_layer,
        )
        dense, method = dense.training(Method.DENSE), chosen.value
    else:
        graph = sparsify(dense, structure, first_layer=first_layer)
    beside = None
    if baseline:
        beside = Run(
            sparsity=Dense(),
            method="dense" if method else None,
            options=given,
            **_once(dense, arch_name, machine, seed, on_op),
        )
    return Run(
        sparsity=structure,
        method=method,
        baseline=beside,
        options=given,
        **_once(graph, arch_name, machine, seed, on_op),
    )
