"""Instructions against numpy without instructions: a decoder's step, bit for bit and in floats."""

from dataclasses import replace

import numpy as np
import pytest
from decoder_step import (
    SIZE,
    VOCABULARY,
    flat,
    follow,
    graph,
    narrow,
    plain_prompt,
    plain_step,
    prepare,
    prepare_prompt,
    split_gated,
    step_in_floats,
)

from mapping.dsp import compile_model, decoder_of
from mapping.dsp.image import (
    arranged,
    check_node,
    check_prompt,
    memory_image,
    prompt_image,
    quantise_rows,
    row_counts,
)
from mapping.dsp.model import Attention
from simulator.arch.load import load_arch
from simulator.dsp_isa import Base, Module, assemble, run_values
from simulator.dsp_isa.layout import LINE_BYTES
from simulator.units.dequantiser import dequantise

ARCH = load_arch("flightllm-tiny")


def values(step, program=None, arch=ARCH):
    image = step.image
    program = program or flat(step)
    return run_values(arch, program, image.registers, image.memory, step.program.tokens)


def stored(step, found):
    """Return logits int8, and the new keys and values int8[layers, heads, size], from memory."""
    layout, registers = step.model.layout, step.image.registers
    logits = found.memory[step.image.logits :][:VOCABULARY].view(np.int8)
    rows = []
    for half in (0, layout.kv_layer_lines // 2):
        first = registers.bases[Base.NEW_TOKEN] + half
        lines = [
            first + layer * layout.kv_layer_lines + head * layout.kv_head_lines
            for layer in range(len(step.model.decoder.layers))
            for head in range(step.step.keys.shape[1])
        ]
        found_rows = [found.memory[line * LINE_BYTES :][:SIZE] for line in lines]
        rows.append(np.array(found_rows).view(np.int8).reshape(len(step.step.keys), -1, SIZE))
    return logits, *rows


@pytest.mark.parametrize(
    ("past", "layers", "heads", "kv_heads"),
    [(1, 1, 2, 2), (15, 1, 2, 2), (16, 1, 2, 1), (40, 4, 2, 2), (7, 2, 4, 4), (20, 1, 8, 4)],
)
def test_a_program_leaves_the_bits_of_a_plain_block(past, layers, heads, kv_heads):
    """Tokens, tiles, packing and addresses change nothing: logits, keys and values are equal."""
    arch = load_arch(ARCH, mv_buffer={"capacity_bytes": 1 << 17})  # holds a reduction of 512
    step = prepare(arch, past=past, layers=layers, heads=heads, kv_heads=kv_heads)
    found = stored(step, values(step, arch=arch))
    for each, expected in zip(found, plain_step(step), strict=True):
        np.testing.assert_array_equal(each, expected)


def cached(prepared, memory, tokens):
    """Return keys and values int8[layers, heads, tokens, size] of memory."""
    layout, first = prepared.model.layout, prepared.image.registers.bases[Base.KV]
    decoder = prepared.model.decoder
    found = []
    for half in (0, layout.kv_layer_lines // 2):
        lines = np.add.outer(
            np.arange(len(decoder.layers)) * layout.kv_layer_lines,
            np.arange(decoder.attention.kv_heads) * layout.kv_head_lines,
        )
        rows = memory.reshape(-1, LINE_BYTES).view(np.int8)
        at = (first + half + lines)[..., None] + np.arange(tokens)
        found.append(rows[at])
    return tuple(found)


ROOMY = {
    "hbm": 1 << 21,
    "mv_buffer": 1 << 17,
    "act_buffer": 1 << 15,
    "weight_buffer": 1 << 14,
    "out_buffer": 1 << 16,
}
"""Bytes that hold all widths of weights and a reduction of 512."""


@pytest.mark.parametrize(
    ("length", "layers", "heads", "kv_heads"),
    [(16, 1, 2, 2), (9, 1, 2, 2), (1, 1, 2, 1), (37, 2, 4, 2), (11, 4, 4, 4), (7, 1, 8, 4)],
)
def test_a_prompt_leaves_the_bits_of_a_plain_block(length, layers, heads, kv_heads):
    """Full buckets and others, of one to three tiles: logits of the last token, keys, values."""
    arch = load_arch(ARCH, **{name: {"capacity_bytes": size} for name, size in ROOMY.items()})
    prompt = prepare_prompt(arch, length, layers=layers, heads=heads, kv_heads=kv_heads)
    memory = values(prompt, arch=arch).memory
    logits = memory[prompt.image.logits :][:VOCABULARY].view(np.int8)
    for found, expected in zip(
        (logits, *cached(prompt, memory, length)), plain_prompt(prompt), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


def test_a_step_behind_a_prompt_reads_what_it_left():
    """Its keys and values, from memory, make the logits of a plain step on the plain ones."""
    prompt = prepare_prompt(ARCH, 10)
    step = follow(prompt, values(prompt).memory, 10)
    _, keys, old = (each.astype(np.int8) for each in plain_prompt(prompt))
    plain = replace(step, step=replace(step.step, keys=keys, values=old))
    found = stored(plain, values(step))
    for each, expected in zip(found, plain_step(plain), strict=True):
        np.testing.assert_array_equal(each, expected)


def test_a_length_of_a_bucket_changes_nothing_before_its_last_token():
    """Attention is causal, and a bucket's program the same: keys and values of 5 tokens of 9."""
    whole, short = prepare_prompt(ARCH, 9), prepare_prompt(ARCH, 5)
    step = replace(
        whole.step,
        **{name: getattr(whole.step, name)[:5] for name in ("tokens", "cosines", "sines")},
    )
    short = replace(whole, step=step, image=prompt_image(whole.model, whole.rows, step))
    assert short.program == whole.program
    for one, other in zip(
        cached(short, values(short).memory, 5), cached(whole, values(whole).memory, 5), strict=True
    ):
        np.testing.assert_array_equal(one, other)
        assert one.any()


@pytest.mark.parametrize(
    ("arch", "heads", "change", "sentence"),
    [
        ({}, 2, {"before": ()}, "tokens' rows, not a decoder without"),
        ({"mm_tokens": 32}, 2, {}, "16 columns and 4, 8 or 16 tokens, not of 16 and 32"),
        ({"mm_tile_columns": 32}, 2, {}, "16 columns and 4, 8 or 16 tokens, not of 32 and 8"),
        ({}, 2, {"attention_percent": 30}, "all scores, not 30 % of their blocks"),
        ({"weight_bits": (5,)}, 2, {}, "rows that fill lines, not those of model.layers.0.self_a"),
        ({"weight_buffer": {"capacity_bytes": 4096}}, 2, {}, "half of weight_buffer, not 256"),
        ({"out_buffer": {"capacity_bytes": 8192}}, 2, {}, "66 lines of the out_buffer, .* has 64"),
    ],
)
def test_a_prompt_without_an_image_is_named(arch, heads, change, sentence):
    """What it needs and what was found."""
    model = compile_model(
        decoder_of(graph(9, heads=heads, kv_heads=heads)), load_arch(ARCH, **arch)
    )
    changed = replace(model, decoder=replace(model.decoder, **change))
    with pytest.raises(ValueError, match=f"tiny: an image of a prompt needs .*{sentence}"):
        check_prompt(changed)


def test_zeros_of_a_prompt_lie_where_no_step_writes():
    """A prompt adds the out buffer's last lines: logits of a step must end before them."""
    model = compile_model(decoder_of(graph(9)), ARCH)
    head = model.spots["lm_head"]
    for line, fits in ((252, True), (253, False)):
        moved = replace(model, spots={**model.spots, "lm_head": replace(head, results=line)})
        if fits:
            check_prompt(moved)
        else:
            with pytest.raises(ValueError, match="257 lines of the out_buffer, which has 256"):
                check_prompt(moved)


def test_heads_of_another_size_have_no_prompts():
    """A row of the cache is a line."""
    model = compile_model(decoder_of(graph(9)), ARCH)
    layer = tuple(
        replace(node, size=128) if isinstance(node, Attention) else node
        for node in model.decoder.layers[0]
    )
    changed = replace(model, decoder=replace(model.decoder, layers=(layer,)))
    with pytest.raises(ValueError, match="needs heads of 64, not 128"):
        check_prompt(changed)


def test_a_step_leaves_all_but_its_own_rows_as_they_were():
    """Only logits and one row of every head's keys and values change."""
    step = prepare(ARCH)
    changed = np.flatnonzero(values(step).memory != step.image.memory)
    logits = (changed >= step.image.logits) & (changed < step.image.logits + VOCABULARY)
    layout, first = step.model.layout, step.image.registers.bases[Base.NEW_TOKEN]
    own = (changed // LINE_BYTES - first) % layout.kv_head_lines == 0
    assert (logits | own).all()


def test_a_step_is_close_to_floats():
    """With 8-bit weights, logits in plain floats differ by rounding: 2 % of their spread."""
    arch = load_arch(ARCH, weight_bits=(8,), head_bits=8)
    step = prepare(arch, past=12)
    logits = stored(step, values(step, arch=arch))[0] / 16
    exact = step_in_floats(step)
    assert np.std(logits - exact) < 0.1 * np.std(exact)
    assert np.corrcoef(logits, exact)[0, 1] > 0.99


def test_a_length_of_a_bucket_looks_at_its_own_tokens_alone():
    """What lies behind the last token changes nothing, and the program is the bucket's."""
    short = prepare(ARCH, past=9)
    assert short.program == prepare(ARCH, past=12).program
    memory = short.image.memory.copy()
    behind = short.image.registers.bases[Base.NEW_TOKEN] + 1
    memory[behind * LINE_BYTES : (behind + 6) * LINE_BYTES] = 99
    other = values(replace(short, image=replace(short.image, memory=memory)))
    for found, expected in zip(stored(short, other), plain_step(short), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("bits", [3, 4, 5, 8])
def test_quantised_rows_are_close_to_their_weights(bits):
    """A code is off by half a step at most, and the factor of a chain by a 64th."""
    rng = np.random.default_rng(3)
    kept = np.repeat([16, 8], [16, 16])
    weight = rng.normal(0, 0.1, (64, 32))
    weight[:, 16:].reshape(-1, 16, 16)[:, 8:] = 0
    rows = quantise_rows(weight, kept, bits)
    ints = dequantise(rows.codes, rows.scale.astype(np.uint8), rows.shift.astype(np.uint8))
    back = ints / 2.0 ** (rows.down + 4)
    largest = np.abs(weight).max(axis=0)
    largest[16:] = largest[16:].reshape(-1, 2).max(axis=1).repeat(2)
    step = largest / ((1 << (bits - 1)) - 1)
    assert (np.abs(back - weight) <= step / 2 + largest / 32).all()
    assert (ints[weight == 0] == 0).all()


def test_a_row_with_more_weights_than_it_keeps_is_named():
    """The image never drops a weight."""
    with pytest.raises(ValueError, match="Row 3 keeps 8 of 16 weights, but has 16"):
        quantise_rows(np.ones((16, 4)), np.array([16, 16, 16, 8]), 8)


def node(**changes):
    decoder = decoder_of(graph(9))
    return replace(next(n for _, n in decoder.linears), **changes)


@pytest.mark.parametrize(
    ("arch", "changes", "sentence"),
    [
        ({"cores": 2, "hbm": {"channels": 2}}, {}, "one core, not 2"),
        ({"mv_tile_columns": 64}, {}, "mv_tile_columns in multiples of 128, not 64"),
        ({}, {"k": 96}, "widths in multiples of 64, not 96 to 128"),
        ({}, {"kept_rows": {16: 120, 8: 8}}, r"rows of each N above 0 in sixteens, not \{16: 120"),
        ({}, {"kept_rows": {16: 112, 0: 16}}, r"rows of each N above 0 in sixteens, not \{16: 112"),
        (
            {},
            {"gated": True, "n": 256, "kept_rows": {16: 128, 8: 128}},
            r"one N for both gated projections, not \[8, 16\]",
        ),
        ({"mv_buffer": {"capacity_bytes": 16384}}, {}, "fits half of mv_buffer, not 128"),
    ],
)
def test_a_projection_without_an_image_is_named(arch, changes, sentence):
    """The node, what the image needs and what was found."""
    with pytest.raises(ValueError, match=f"q_proj: a memory image needs .*{sentence}"):
        check_node(load_arch(ARCH, **arch), node(**changes))


SYS = "SYS\n"
STREAM = "LD bytes=256 buffer=0 rows=16 groups=1 channels=1 release=MM"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("MM", "Instruction 1: MM finds no filled half buffer"),
        ("MV", "Instruction 1: MV finds no filled half buffer"),
        (
            f"{STREAM}\nMM wait=LD tokens=8",
            "Instruction 2: MM has no defined values in a reduction in parts",
        ),
        (
            f"{STREAM}\nMM wait=LD tokens=8 emit=1",
            "Instruction 2: MM multiplies 0 elements of a token by 16",
        ),
        (
            "LD bytes=260 buffer=2 rows=16 bits=8 groups=1 channels=1",
            "Instruction 1: LD brings 260 B of weights for portions of 16 rows with 256",
        ),
        (
            "LD address=1000000 bytes=64 channels=1",
            r"Instruction 1: LD reaches byte 64\d* of memory, which",
        ),
        (
            "ST address=1000000 bytes=64 channels=1",
            r"Instruction 1: ST reaches byte 64\d* of memory, which",
        ),
    ],
)
def test_an_instruction_without_values_is_named(text, sentence):
    """Its number, and why."""
    with pytest.raises(ValueError, match=sentence):
        values(prepare(ARCH), assemble(SYS + text + "\n"))


def test_values_are_those_of_one_core():
    """A machine of several cores has no single memory."""
    with pytest.raises(ValueError, match="Values are those of a machine of one core, not 4"):
        values(prepare(ARCH), arch=load_arch("flightllm-vhk158"))


def test_a_reduction_in_parts_adds_up():
    """Two products, the second on top of the first, are one of twice the depth."""
    step = prepare(ARCH)
    load = "LD buffer=2 base=1 bytes=1024 channels=1 rows=16 groups=4 release=MV"
    whole = values(
        step,
        assemble(
            "LD buffer=3 base=2 bytes=128 channels=1 bank=2 shift=4\n"
            f"{load}\nMV wait=LD groups=4 passes=4 vector=2 shift=4\n"
            f"{load} address=16\n"
            "MV wait=LD groups=4 passes=4 vector=3 shift=4 accumulate=1 emit=1 out=8 down=2\n"
        ),
    )
    start = step.image.registers.bases[Base.KV] * LINE_BYTES
    rows = step.image.memory.view(np.int8)[start : start + 2048].reshape(2, 16, 64)
    token = narrow(step.step.token.astype(np.int16) << 4, 4).reshape(2, 64)
    sums = np.einsum("pk,prk->r", token, rows.astype(np.int64))
    np.testing.assert_array_equal(whole.out[512:528], np.clip((sums + 2) >> 2, -32768, 32767))


def test_every_place_of_the_chip_is_used_once_in_a_layer():
    """No two products share a line of the out buffer, nor two projections one of the table."""
    model = compile_model(decoder_of(graph(9)), ARCH)
    program = [item for item in flat(prepare(ARCH)) if item.module is Module.MV]
    outs = [item.get("out") for item in program]
    scores = model.spots["model.layers.0.self_attn"].results
    assert outs.count(scores) == 2  # heads, one after the other
    assert len(set(outs)) == len(outs) - 1
    tables = [spot.table for spot in model.spots.values()]
    assert len({t for t in tables if t}) == len([t for t in tables if t])


def test_gated_columns_alternate_by_half_tiles():
    """A tile's first half is the gate's."""
    step = prepare(ARCH)
    gated = next(n for _, n in step.model.decoder.linears if n.gated)
    names = ["model.layers.0.mlp.gate_proj", "model.layers.0.mlp.up_proj"]
    weights = {name: np.full((128, 256), value) for value, name in enumerate(names, 1)}
    whole = arranged(gated, weights, ARCH.mv_tile_columns)
    gate, up = split_gated(whole[0], ARCH.mv_tile_columns)
    assert (set(gate), set(up), gate.size) == ({1}, {2}, 256)
    assert row_counts(gated).tolist() == [8] * 512


def test_an_image_needs_every_projection():
    """A projection that is not there is a KeyError with its name."""
    step = prepare(ARCH)
    rows = {name: each for name, each in step.rows.items() if name != "lm_head"}
    with pytest.raises(KeyError, match="lm_head"):
        memory_image(step.model, rows, step.step)
