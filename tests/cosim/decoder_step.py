"""A small decoder's step: its program, memory before it, and a plain numpy block beside it."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mapping.dsp import compile_model, decoder_of
from mapping.dsp.image import (
    Prompt,
    QuantisedRows,
    Step,
    arranged,
    memory_image,
    prompt_image,
    quantise_rows,
    row_counts,
)
from simulator.dsp_isa import decode, encode
from simulator.units.dequantiser import dequantise
from simulator.units.special import rmsnorm, silu, softmax
from workloads.sparsity import NofM
from workloads.zoo.decoder import decoder

HIDDEN, VOCABULARY, SIZE = 256, 128, 64


def mixed(rows):
    """Return rows of every N in one weight."""
    return NofM(tuple(np.repeat([16, 8, 4, 2], np.array([4, 2, 1, 1]) * rows // 8).tolist()), 16)


def graph(past, layers=1, heads=2, kv_heads=2):
    """Return a decoder that decodes one token behind `past`; q, k and down are sparse."""
    net = decoder(
        "tiny",
        "llama2-7b",
        layers=layers,
        width=heads * SIZE,
        heads=heads,
        kv_heads=kv_heads,
        hidden=HIDDEN,
        vocabulary=VOCABULARY,
        prefill=past,
        decode=1,
    )
    tensors = dict(net.tensors)
    for name, spec in net.tensors.items():
        if any(part in name for part in ("q_proj", "o_proj")) and spec.parameter:
            tensors[name] = replace(spec, sparsity=mixed(heads * SIZE))
        elif "gate_proj" in name or "up_proj" in name:
            tensors[name] = replace(spec, sparsity=NofM(8, 16)) if spec.parameter else spec
    return replace(net, tensors=tensors)


@dataclass
class Prepared:
    """One decode step: everything the machine and its references need."""

    model: Any
    program: Any
    words: Any
    rows: dict[str, QuantisedRows]
    floats: dict[str, np.ndarray]
    step: Step
    image: Any


def draw_weights(net, rng):
    """Return float64[k, n] of every projection by name, its zeros where its sparsity says."""
    found = {}
    for op in net.gemm_ops:
        weight = net.tensors[op.inputs[1]]
        if weight.parameter and op.name.startswith("decode."):
            dense = rng.normal(0, 1.6 / np.sqrt(weight.shape[0]), weight.shape)
            kept = weight.sparsity.sample(weight.shape, rng)
            found[op.name.removeprefix("decode.")] = dense * kept
    return found


def rotation(position):
    """Return int8[size] cosines and sines; pairs lie 8 apart, the first of each turns back."""
    angle = position * 100.0 ** (-np.arange(SIZE // 2).reshape(-1, 1, 8) / (SIZE // 2))
    cosines = (np.cos(angle) * [[1], [1]]).ravel()
    sines = (np.sin(angle) * [[-1], [1]]).ravel()
    return tuple(np.clip(np.rint(x * 128), -128, 127).astype(np.int8) for x in (cosines, sines))


def prepare(arch, past=9, layers=1, seed=1, heads=2, kv_heads=2):
    """Compile a decode step behind `past` tokens and draw its operands."""
    rng = np.random.default_rng(seed)
    model, rows, floats = draw_model(arch, rng, past, layers, heads, kv_heads)
    program = model.program("decode", past + 1)
    cosines, sines = rotation(past)
    shape = (layers, kv_heads, past, SIZE)
    step = Step(
        token=rng.integers(-60, 60, heads * SIZE).astype(np.int8),
        keys=rng.integers(-40, 40, shape).astype(np.int8),
        values=rng.integers(-40, 40, shape).astype(np.int8),
        cosines=cosines,
        sines=sines,
    )
    image = memory_image(model, rows, step)
    words = encode(program.code)
    return Prepared(model, program, words, rows, floats, step, image)


def draw_model(arch, rng, past, layers, heads, kv_heads):
    """Return a compiled decoder, its quantised projections, and their weights before."""
    net = graph(past, layers, heads, kv_heads)
    model = compile_model(decoder_of(net), arch)
    drawn = draw_weights(net, rng)
    rows, floats = {}, {}
    for layer, node in model.decoder.linears:
        bits = arch.head_bits if layer is None else arch.layer_bits(layer)
        weight = arranged(node, drawn, arch.mv_tile_columns)
        bias = rng.normal(0, 0.2, node.n)
        rows[node.name] = quantise_rows(weight, row_counts(node), bits, bias)
        floats[node.name] = weight
    return model, rows, floats


def prepare_prompt(arch, length=9, layers=1, seed=1, heads=2, kv_heads=2):
    """Compile a prompt of `length` tokens and draw its operands."""
    rng = np.random.default_rng(seed)
    model, rows, floats = draw_model(arch, rng, length, layers, heads, kv_heads)
    program = model.program("prefill", length)
    cosines, sines = zip(*map(rotation, range(length)), strict=True)
    prompt = Prompt(
        tokens=rng.integers(-60, 60, (length, heads * SIZE)).astype(np.int8),
        cosines=np.array(cosines),
        sines=np.array(sines),
    )
    image = prompt_image(model, rows, prompt)
    return Prepared(model, program, encode(program.code), rows, floats, prompt, image)


def follow(prompt, memory, position, seed=9):
    """Return a decode step at `position` on the memory that a prompt, or a step, left."""
    rng = np.random.default_rng(seed)
    cosines, sines = rotation(position)
    width, layers = prompt.step.tokens.shape[1], len(prompt.model.decoder.layers)
    nothing = np.zeros((layers, prompt.model.decoder.attention.kv_heads, position, SIZE), np.int8)
    step = Step(
        token=rng.integers(-60, 60, width).astype(np.int8),
        keys=nothing,
        values=nothing,
        cosines=cosines,
        sines=sines,
    )
    program = prompt.model.program("decode", position + 1)
    image = memory_image(prompt.model, prompt.rows, step, memory)
    return replace(prompt, program=program, words=encode(program.code), step=step, image=image)


def flat(prepared):
    return decode(prepared.words)


# The same step without instructions, tiles, memory or buffers, on the numbers of the chip


def narrow(x, shift):
    return np.clip((x.astype(np.int64) + ((1 << shift) >> 1)) >> shift, -128, 127)


def wide(x):
    return np.clip(x, -(1 << 15), (1 << 15) - 1).astype(np.int16)


def sent(x):
    """Return what the link leaves of int16: rounded to 4 fraction bits."""
    return (narrow(x, 4) << 4).astype(np.int16)


def linear(rows, x):
    """Return int16 results of int16 x."""
    weight = dequantise(rows.codes, rows.scale.astype(np.uint8), rows.shift.astype(np.uint8))
    sums = narrow(x, 4) @ weight.astype(np.int64)
    return wide(((sums + ((1 << rows.down) >> 1)) >> rows.down) + rows.bias)


def norm(x):
    return sent(rmsnorm(x[None], np.full((1, x.size), 256, np.int16), x.size**2)[0])


def product(x, y):
    return wide((x.astype(np.int64) * y + 128) >> 8)


def turned(x, step):
    heads = x.reshape(-1, 2, 8)
    cosines, sines = (t.astype(np.int16) << 1 for t in (step.cosines, step.sines))
    along = product(x.reshape(-1, SIZE), cosines)
    across = product(heads[:, ::-1].reshape(-1, SIZE), sines)
    return wide(along.astype(np.int64) + across)


def attend(query, keys, values):
    """Return int16[size] of one head: query int16[size], keys and values int8[tokens, size]."""
    scores = wide((narrow(query, 4) @ keys.T.astype(np.int64) + 4) >> 3)
    shares = softmax(scores[None], 16)[0]
    return wide((narrow(shares, 8) @ values.astype(np.int64) + 4) >> 3)


def plain_prompt(prepared):
    """Return logits int8, and keys and values int8[layers, heads, tokens, size] of a prompt.

    Between operators tokens are int8, as in memory.
    """
    rows, prompt = prepared.rows, prepared.step
    heads = prepared.model.decoder.attention
    x = prompt.tokens.astype(np.int16) << 4
    keys, values = [], []
    for layer in range(len(prepared.model.decoder.layers)):
        at = f"model.layers.{layer}"
        y = np.array([norm(token) for token in x])
        q, k, v = (linear(rows[f"{at}.self_attn.{name}_proj"], y) for name in "qkv")
        q, k = (turned_prompt(each, prompt) for each in (q, k))
        q, k, v = (
            narrow(each.reshape(len(x), -1, SIZE), 4).astype(np.int64).swapaxes(0, 1)
            for each in (q, k, v)
        )
        keys.append(k)
        values.append(v)
        context = [
            [
                attend(query[t] << 4, k[own, : t + 1], v[own, : t + 1])
                for own, query in zip(np.arange(len(q)) // heads.queries, q, strict=True)
            ]
            for t in range(len(x))
        ]
        o = linear(rows[f"{at}.self_attn.o_proj"], sent(np.array(context).reshape(len(x), -1)))
        x = sent(wide(o.astype(int) + x))
        y = np.array([norm(token) for token in x])
        results = linear(rows[f"{at}.mlp.gate_proj+up_proj"], y)
        columns = prepared.model.arch.mv_tile_columns
        halves = (split_gated(each, columns) for each in results)
        hidden = sent(np.array([product(silu(gate), up) for gate, up in halves]))
        x = sent(wide(linear(rows[f"{at}.mlp.down_proj"], hidden).astype(int) + x))
    logits = narrow(linear(rows["lm_head"], norm(x[-1])), 4)
    return logits, np.array(keys), np.array(values)


def turned_prompt(x, prompt):
    """Return queries or keys int16[tokens, width] turned, each by its own position."""
    tables = zip(prompt.cosines, prompt.sines, strict=True)
    steps = (at_position(cosines, sines) for cosines, sines in tables)
    return np.array([turned(token, step).ravel() for token, step in zip(x, steps, strict=True)])


def at_position(cosines, sines):
    """Return a step that has nothing but its position."""
    nothing = np.zeros(0, np.int8)
    return Step(token=nothing, keys=nothing, values=nothing, cosines=cosines, sines=sines)


def split_gated(x, columns):
    """Return the gate's and the other's results of a vector of gated tiles."""
    halves = x.reshape(-1, 2, columns // 2)
    return halves[:, 0].ravel(), halves[:, 1].ravel()


def plain_step(prepared):
    """Return logits int8, and the new keys and values int8[layers, heads, size]."""
    rows, step = prepared.rows, prepared.step
    x = step.token.astype(np.int16) << 4
    new_keys, new_values = [], []
    for layer in range(len(prepared.model.decoder.layers)):
        at = f"model.layers.{layer}"
        y = norm(x)
        q, k, v = (linear(rows[f"{at}.self_attn.{name}_proj"], y) for name in "qkv")
        q, k, v = turned(q, step), narrow(turned(k, step), 4), narrow(v.reshape(-1, SIZE), 4)
        new_keys.append(k)
        new_values.append(v)
        heads = [
            attend(
                q[h],
                np.concatenate([step.keys[layer, own], k[own : own + 1]]),
                np.concatenate([step.values[layer, own], v[own : own + 1]]),
            )
            for h, own in enumerate(np.arange(len(q)) * len(k) // len(q))
        ]
        x = wide(
            linear(rows[f"{at}.self_attn.o_proj"], sent(np.concatenate(heads))).astype(int) + x
        )
        gate, up = split_gated(
            linear(rows[f"{at}.mlp.gate_proj+up_proj"], norm(x)),
            prepared.model.arch.mv_tile_columns,
        )
        hidden = sent(product(silu(gate), up))
        x = wide(linear(rows[f"{at}.mlp.down_proj"], hidden).astype(int) + x)
    logits = narrow(linear(rows["lm_head"], norm(x)), 4)
    return logits, np.array(new_keys), np.array(new_values)


# And in floats, with the weights before they were quantised


def step_in_floats(prepared):
    """Return float64 logits of the step."""
    step, weights = prepared.step, prepared.floats
    biases = {name: rows.bias / 256 for name, rows in prepared.rows.items()}
    cosines, sines = step.cosines / 128, step.sines / 128

    def apply(name, x):
        return x @ weights[name] + biases[name]

    def scaled(x):
        return x / np.sqrt((x**2).mean() + 2.0**-16)

    def turn(x):
        heads = x.reshape(-1, 2, 8)
        return x.reshape(-1, SIZE) * cosines + heads[:, ::-1].reshape(-1, SIZE) * sines

    x = step.token / 16
    for layer in range(len(prepared.model.decoder.layers)):
        at = f"model.layers.{layer}"
        y = scaled(x)
        q, k, v = (apply(f"{at}.self_attn.{name}_proj", y) for name in "qkv")
        q, k, v = turn(q), turn(k), v.reshape(-1, SIZE)
        heads = []
        for h in range(len(q)):
            keys = np.concatenate([step.keys[layer, h] / 16, k[h : h + 1]])
            values = np.concatenate([step.values[layer, h] / 16, v[h : h + 1]])
            scores = keys @ q[h] / np.sqrt(SIZE)
            shares = np.exp(scores - scores.max())
            heads.append(shares / shares.sum() @ values)
        x = apply(f"{at}.self_attn.o_proj", np.concatenate(heads)) + x
        columns = prepared.model.arch.mv_tile_columns
        gate, up = split_gated(apply(f"{at}.mlp.gate_proj+up_proj", scaled(x)), columns)
        x = apply(f"{at}.mlp.down_proj", gate / (1 + np.exp(-gate)) * up) + x
    return apply("lm_head", scaled(x))
