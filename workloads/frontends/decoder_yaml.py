"""Decoder LLMs described by shape: a YAML file with the sizes of a model that is like another.

    like: llama2-7b      # whose layers: a name of `workloads.zoo.decoder.FAMILIES`
    layers: 32
    width: 4096
    heads: 32
    kv_heads: 8          # default: heads
    hidden: 14336
    vocabulary: 128256

`name` (default: the file's), `head_size` (default: width / heads), `norm`, `activation`, `gated`
and `rotary` (default: those of `like`) may be given too.
"""

from dataclasses import fields
from pathlib import Path
from typing import Final

from workloads.yaml_file import among, read_yaml
from workloads.zoo.decoder import FAMILIES, DecoderShape, check_field, shape_like

__all__ = ["load_shape"]

REQUIRED: Final = ("like", "layers", "width", "heads", "hidden", "vocabulary")
KNOWN: Final = ("like", *(field.name for field in fields(DecoderShape)))


def load_shape(path: str | Path) -> DecoderShape:
    """Return the shape of the decoder that the YAML file `path` describes.

    Raises ValueError naming file, line and key for what is unknown, missing or impossible.
    """
    path = Path(path)
    file = read_yaml(path)
    content = file.mapping(f"a decoder is a mapping with keys {', '.join(KNOWN)}")
    for key, value in content.items():
        if key not in KNOWN:
            raise ValueError(f"{file.where(str(key))}: unknown key {key!r}; {among(key, KNOWN)}")
        if key != "like":
            check_field(file.where(key), key, value)
    for key in REQUIRED:
        if key not in content:
            raise ValueError(f"{file.name}: key {key!r} is missing")
    if content["like"] not in tuple(FAMILIES):
        raise ValueError(
            f"{file.where('like')}: unknown decoder {content['like']!r}; "
            f"{among(content['like'], FAMILIES)}"
        )
    settings = {"name": path.stem, **content}
    try:
        return shape_like(**settings)
    except ValueError as error:
        message = str(error).removeprefix(f"{settings['name']}: ")
        raise ValueError(f"{file.where(file.blamed(message))}: {message}") from None
