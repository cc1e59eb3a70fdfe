"""Front ends: every source of a workload, one graph.

Formats with heavy libraries (ONNX) are imported when a file asks for them, not before.
"""

from pathlib import Path
from typing import Any

from workloads.errors import WorkloadError
from workloads.frontends.decoder_yaml import load_shape
from workloads.frontends.scalesim import load_scalesim
from workloads.graph import WorkloadGraph
from workloads.paths import named
from workloads.zoo import ZOO, build, check_size
from workloads.zoo.decoder import decoder_graph

__all__ = ["WorkloadError", "load", "load_scalesim"]


def load(source: str | Path | WorkloadGraph, **options: Any) -> WorkloadGraph:
    """Return the workload that `source` names, with the options of its kind.

    A zoo name takes the network's sizes (image, batch, length, prefill, decode); a decoder's
    .yaml takes prefill, decode and batch; an .onnx path takes inputs, batch and record, and one
    of a decoder prefill and decode, its lengths then; a SCALE-Sim topology .csv and a graph take
    none. Raises ValueError naming what was found and what is known.

    >>> load("resnet9", batch=2).name
    'resnet9'
    """
    if isinstance(source, WorkloadGraph):
        _no_options("A workload graph", options)
        return source
    if isinstance(source, str) and source in ZOO:
        return build(source, **options)
    if not isinstance(source, str | Path):
        raise WorkloadError(f"A workload is a name, a file or a graph, not {source!r}")
    path = Path(source)
    match path.suffix.lower():
        case ".onnx" if {"prefill", "decode"} & set(options):
            from workloads.frontends.onnx_decoder import load_onnx_decoder

            _phase_options(f"{path} as a decoder", options, "inputs")
            return load_onnx_decoder(path, **options)
        case ".onnx":
            from workloads.frontends.onnx import load_onnx

            _known_options(f"{path}", options, ("inputs", "batch", "record", "fuse"))
            return load_onnx(path, **options)
        case ".csv":
            _no_options(f"{path}", options)
            return load_scalesim(path)
        case ".yaml" | ".yml":
            _phase_options(f"{path}", options)
            return decoder_graph(load_shape(path), **options)
    raise WorkloadError(
        f"Unknown workload {named(source)}: give a network ({', '.join(ZOO)}), "
        "a decoder's .yaml, an .onnx file or a SCALE-Sim topology .csv"
    )


def _no_options(what: str, options: dict[str, Any]) -> None:
    if options:
        raise WorkloadError(f"{what} takes no options, but {', '.join(options)} was given")


def _phase_options(what: str, options: dict[str, Any], *more: str) -> None:
    _known_options(what, options, ("prefill", "decode", "batch", *more))
    for name in options.keys() - set(more):
        check_size(what, name, options[name])
    tokens = [options[name] for name in ("prefill", "decode") if name in options]
    if tokens and not any(tokens):
        raise WorkloadError(f"{what} needs prefill or decode of at least 1")


def _known_options(what: str, options: dict[str, Any], known: tuple[str, ...]) -> None:
    for name in options:
        if name not in known:
            raise WorkloadError(f"{what} has no option {name!r}; known: {', '.join(known)}")
