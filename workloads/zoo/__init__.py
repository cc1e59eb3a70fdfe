"""Well-known networks by shape: true operators and sizes, no weights."""

import inspect
from collections.abc import Callable
from typing import Final

from workloads.graph import WorkloadGraph
from workloads.zoo.decoder import llama2_7b, llama3_8b, mistral_7b, opt_6_7b
from workloads.zoo.encoder import bert_base, vit_b16
from workloads.zoo.mobilenet import mobilenet_v1, mobilenet_v2
from workloads.zoo.resnet import resnet9, resnet18, resnet50
from workloads.zoo.vgg import vgg19

__all__ = ["BATCH_NORMED", "ZOO", "build", "check_size"]

ZOO: Final[dict[str, Callable[..., WorkloadGraph]]] = {
    "resnet9": resnet9,
    "resnet18": resnet18,
    "resnet50": resnet50,
    "vgg19": vgg19,
    "mobilenet-v1": mobilenet_v1,
    "mobilenet-v2": mobilenet_v2,
    "vit-b16": vit_b16,
    "bert-base": bert_base,
    "opt-6.7b": opt_6_7b,
    "llama2-7b": llama2_7b,
    "llama3-8b": llama3_8b,
    "mistral-7b": mistral_7b,
}
"""Builders by name; their keyword arguments are the options of `build`."""

MOST_DECODED: Final = 1 << 20
"""Tokens of a run that are decoded: every length of the KV cache has operators of its own."""

BATCH_NORMED: Final = frozenset(
    ("resnet9", "resnet18", "resnet50", "vgg19", "mobilenet-v1", "mobilenet-v2")
)
"""Networks that train with a batch norm behind every convolution, folded here into its weight.
VGG-19 in the form with batch norms, as it is trained today."""


def build(name: str, **options: int | None) -> WorkloadGraph:
    """Build a network by name; options are sizes such as image, batch, length, prefill, decode.

    Raises ValueError for an unknown name or option, listing the known ones, and for a size that
    is not a whole number of at least 1 (prefill and decode may be 0).

    >>> build("resnet18").macs
    1814073344
    """
    if name not in ZOO:
        raise ValueError(f"Unknown network {name!r}; known: {', '.join(ZOO)}")
    known = inspect.signature(ZOO[name]).parameters
    for option, value in options.items():
        if option not in known:
            raise ValueError(f"{name} has no option {option!r}; known: {', '.join(known)}")
        if value is not None or known[option].default is not None:
            check_size(name, option, value)
    return ZOO[name](**options)


def check_size(owner: str, option: str, value: object) -> None:
    """Raise ValueError, naming the owner, for a size below 1; prefill and decode may be 0."""
    least = 0 if option in ("prefill", "decode") else 1
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(
            f"{owner} option {option} must be a whole number of at least {least}, not {value!r}"
        )
    if option == "decode" and value > MOST_DECODED:
        raise ValueError(f"{owner} option decode must be at most {MOST_DECODED:,}, not {value}")
