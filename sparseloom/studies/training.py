"""What N:M training buys on the SAT array: networks, methods and patterns beside dense training.

Source of the published figures: SAT, arXiv 2309.13015. Every sparse step has a dense one beside
it, mapped onto the same array.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from mapping.graph import skippable
from simulator.arch import NMArray
from simulator.arch.accelerator import kind
from simulator.arch.load import load_arch
from simulator.result import Result
from sparseloom.studies.together import simulate_together
from workloads.canonical import Spec
from workloads.graph import WorkloadGraph
from workloads.sparsity import parse
from workloads.training import Method, unfold_batch_norms
from workloads.zoo import BATCH_NORMED, build

__all__ = [
    "BDWP",
    "DENSE",
    "METHODS",
    "NETWORKS",
    "PATTERNS",
    "PUBLISHED",
    "Network",
    "Speedup",
    "TrainingStudy",
    "Variant",
    "mac_bound",
    "train",
    "training_step",
]

PUBLISHED: Final = 1.75
"""Average training speed-up of BDWP 2:8 over dense on the same array (arXiv 2309.13015)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network(Spec):
    """A network of the zoo at an image size; `averaged` if it counts in the average."""

    title: str
    source: str
    image: int
    averaged: bool = True

    def __str__(self) -> str:
        return f"{self.title}, {self.image}x{self.image}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant(Spec):
    """A training method with the N:M pattern of its sparse operands; none if it is dense."""

    method: Method
    pattern: str = ""

    def __str__(self) -> str:
        return f"{self.method} {self.pattern}".strip()


NETWORKS: Final = (
    Network(title="ResNet-9", source="resnet9", image=32),
    Network(title="VGG-19", source="vgg19", image=32),
    Network(title="ResNet-18", source="resnet18", image=224),
    Network(title="ResNet-18", source="resnet18", image=64, averaged=False),
    Network(title="ResNet-50", source="resnet50", image=224),
    Network(title="ViT-B/16", source="vit-b16", image=224),
)
"""Networks of the published average (assumed list); one of them also on small images."""

DENSE: Final = Variant(method=Method.DENSE)
BDWP: Final = Variant(method=Method.BDWP, pattern="2:8")
PATTERNS: Final = tuple(
    Variant(method=Method.BDWP, pattern=pattern) for pattern in ("2:4", "2:8", "1:8", "2:16")
)
METHODS: Final = (
    DENSE,
    Variant(method=Method.SR_STE, pattern="2:8"),
    Variant(method=Method.SDGP, pattern="2:8"),
    BDWP,
)

Case = tuple[Network, Variant]


@dataclass(frozen=True, slots=True, kw_only=True)
class Speedup(Spec):
    """Cycles of one training step beside the dense one's.

    `bound` is Amdahl's: dense products over those left when sparse ones shrink to N/M.
    """

    network: Network
    variant: Variant
    dense_cycles: int
    cycles: int
    bound: float

    @property
    def speedup(self) -> float:
        """Dense cycles over cycles."""
        return self.dense_cycles / self.cycles


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingStudy:
    """Training steps of every network and variant on one machine."""

    arch: NMArray
    batch: int
    graphs: Mapping[Case, WorkloadGraph]
    results: Mapping[Case, Result]

    @property
    def networks(self) -> tuple[Network, ...]:
        """Networks in order."""
        return tuple(dict.fromkeys(network for network, _ in self.graphs))

    @property
    def averaged(self) -> tuple[Network, ...]:
        """Networks that count in an average."""
        return tuple(network for network in self.networks if network.averaged)

    def speedup(self, network: Network, variant: Variant = BDWP) -> Speedup:
        """Return one step beside the dense one."""
        return Speedup(
            network=network,
            variant=variant,
            dense_cycles=self.results[network, DENSE].cycles,
            cycles=self.results[network, variant].cycles,
            bound=mac_bound(self.graphs[network, variant], self.arch),
        )

    def average(self, variant: Variant = BDWP) -> float:
        """Return the arithmetic mean of the speed-ups of the averaged networks."""
        return fmean(self.speedup(network, variant).speedup for network in self.averaged)

    def average_bound(self, variant: Variant = BDWP) -> float:
        """Return the arithmetic mean of their bounds."""
        return fmean(self.speedup(network, variant).bound for network in self.averaged)


def training_step(
    network: Network, variant: Variant, *, batch: int, batch_norms: bool = True
) -> WorkloadGraph:
    """Return one training step; without `batch_norms` they stay folded, as for inference."""
    graph = build(network.source, image=network.image, batch=batch)
    if batch_norms and network.source in BATCH_NORMED:
        graph = unfold_batch_norms(graph)
    pattern = parse(variant.pattern) if variant.pattern else None
    return graph.training(variant.method, sparsity=pattern)


def mac_bound(step: WorkloadGraph, arch: NMArray) -> float:
    """Return the products of a step over those left when the array skips every zero it can.

    What stays dense counts in full: WU, a first layer, products of two activations, and zeros
    that lie across the reduction.
    """
    left = 0.0
    for op in step.gemm_ops:
        kept, group = skippable(arch, step.tensors[op.inputs[1]].sparsity) or (1, 1)
        left += op.macs * kept / group
    return step.macs / left


def train(
    networks: Sequence[Network] = NETWORKS,
    *,
    arch: str | NMArray = "sat-vcu1525",
    batch: int = 64,
    variants: Iterable[Variant] = (),
    on_network: Callable[[str], None] | None = None,
) -> TrainingStudy:
    """Simulate a training step of every network, dense, by every method and in every pattern.

    With `variants` only dense, BDWP 2:8 and these; networks that count in no average run just
    these two. `on_network` is called with each network when it is done.
    """
    machine = load_arch(arch)
    if not isinstance(machine, NMArray):
        raise ValueError(f"A training study needs an nm_array, not a {kind(machine)}")
    chosen = tuple(dict.fromkeys((DENSE, BDWP, *(variants or (*METHODS, *PATTERNS)))))
    graphs: dict[Case, WorkloadGraph] = {}
    results: dict[Case, Result] = {}
    for network in networks:
        steps = {
            (network, variant): training_step(network, variant, batch=batch)
            for variant in (chosen if network.averaged else (DENSE, BDWP))
        }
        graphs |= steps
        results |= simulate_together(steps, machine)
        if on_network:
            on_network(str(network))
    return TrainingStudy(arch=machine, batch=batch, graphs=graphs, results=results)
