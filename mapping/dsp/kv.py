"""Where the KV cache of a compiled decoder lies: on which core, in which HBM channels."""

from dataclasses import dataclass
from typing import Any

from mapping.dsp.compile import CompiledModel
from mapping.dsp.emit import LINE_BYTES
from workloads.canonical import Spec

__all__ = ["KvPlace", "kv_place", "kv_summary"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KvPlace(Spec):
    """The keys or the values of one head of one layer, all tokens together.

    They take `lines` of 64 bytes from `first_line` on, counted from the core's KV base register;
    line after line goes to the next of the core's `channels`.
    """

    core: int
    first_line: int
    lines: int
    channels: tuple[int, ...]


def _channels(model: CompiledModel, core: int) -> tuple[int, ...]:
    own = model.arch.hbm.channels_per_core
    return tuple(range(core * own, (core + 1) * own))


def kv_place(model: CompiledModel, layer: int, role: str, head: int) -> KvPlace:
    """Return where keys (role "k") or values ("v") of a head lie.

    Raises ValueError for a layer, role or head that the decoder has not.
    """
    attention, layout = model.decoder.attention, model.layout
    layers, heads = len(model.decoder.layers), attention.kv_heads
    if not (0 <= layer < layers and role in ("k", "v") and 0 <= head < heads):
        raise ValueError(
            f"{model.decoder.name} has keys k and values v of {heads} heads in {layers} layers, "
            f"not {role!r} of head {head} in layer {layer}"
        )
    core, local = divmod(head, -(-heads // model.arch.cores))
    half = layout.kv_layer_lines // 2 if role == "v" else 0
    return KvPlace(
        core=core,
        first_line=layer * layout.kv_layer_lines + half + local * layout.kv_head_lines,
        lines=layout.kv_head_lines,
        channels=_channels(model, core),
    )


def kv_summary(model: CompiledModel) -> dict[str, Any]:
    """Return the cache in plain figures: tokens, heads of a core, its channels, their bytes."""
    arch, heads = model.arch, model.decoder.attention.kv_heads
    used = len(range(0, heads, -(-heads // arch.cores)))
    lines = model.layout.kv_layer_lines * len(model.decoder.layers)
    return {
        "tokens": arch.kv_capacity_tokens,
        "heads": heads,
        "heads_per_core": -(-heads // arch.cores),
        "channels": [list(_channels(model, core)) for core in range(used)],
        "bytes_per_channel": -(-lines // arch.hbm.channels_per_core) * LINE_BYTES,
    }
