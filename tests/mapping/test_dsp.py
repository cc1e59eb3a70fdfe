"""Decoders on a DspChain: reading graphs, programs, exact times, published rows."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from mapping.dsp import compile_model, decoder_of, kv_place, published, simulate_decoder
from mapping.dsp.compile import block_map, program_file
from mapping.dsp.emit import SLOTS
from mapping.dsp.kv import kv_summary
from mapping.dsp.model import Attention, Linear, kept_rows, masked_rows
from mapping.dsp.tiles import Tile, Unit, core_rows, core_share, split_groups, tiles
from mapping.dsp.timing import Timeline, busy_cycles
from simulator.arch.load import load_arch
from simulator.dsp_isa import (
    Base,
    Buffer,
    MiscOp,
    Module,
    decode,
    encode,
    execute,
    execute_file,
    program_steps,
    walk,
    write_program,
)
from simulator.engine import transfer
from workloads.gemm import gemm_graph
from workloads.pruning import prune
from workloads.sparsity import Explicit, NofM, Unstructured
from workloads.zoo import build
from workloads.zoo.decoder import decoder

VHK158 = load_arch("flightllm-vhk158")
U280 = load_arch("flightllm-u280")
SMALL = {"layers": 3, "width": 256, "heads": 8, "hidden": 704, "vocabulary": 1000}


def small(like="llama2-7b", **options):
    """Return a decoder of three layers."""
    return decoder("small", like, **SMALL, **options)


def small_arch(**changes):
    """Return a VHK158 with tiles and buckets that fit the small decoder."""
    values = {"mv_tile_columns": 64, "mm_tokens": 32, "prefill_bucket": 32, "decode_bucket": 4}
    return load_arch(VHK158, **{**values, **changes})


def model(graph, arch, percent=100):
    """Return the compiled model of a graph."""
    return compile_model(decoder_of(graph, attention_percent=percent), arch)


@pytest.fixture(scope="module")
def llama():
    """Return LLaMA-2-7B compiled for the VHK158 as published."""
    graph, percent, _ = published(VHK158, build("llama2-7b", prefill=128, decode=1))
    return model(graph, VHK158, percent)


# Reading graphs


def test_llama_layer_is_read_with_roles_and_fused_work():
    """Gate and up are one weight; rotary, residual and gating join the projection before them."""
    layer = decoder_of(small(prefill=8)).layers[1]
    read = [
        (node.name.rpartition(".")[2], node.role, node.then)
        for node in layer
        if isinstance(node, Linear)
    ]
    rotary = (MiscOp.MUL, MiscOp.MUL, MiscOp.ADD)
    assert read == [
        ("q_proj", "q", rotary),
        ("k_proj", "k", rotary),
        ("v_proj", "v", ()),
        ("o_proj", "", (MiscOp.ADD,)),
        ("gate_proj+up_proj", "wide", (MiscOp.SILU, MiscOp.MUL)),
        ("down_proj", "", (MiscOp.ADD,)),
    ]
    gated = next(n for n in layer if isinstance(n, Linear) and n.gated)
    assert (gated.name, gated.n, gated.results) == (
        "model.layers.1.mlp.gate_proj+up_proj",
        2 * 704,
        704,
    )


def test_opt_layer_is_read_with_relu_and_biases():
    """OPT has layer norms, a ReLU on fc1, and no gate."""
    layer = decoder_of(small("opt-6.7b", decode=3)).layers[0]
    fc1 = next(n for n in layer if n.name.endswith("fc1"))
    assert (fc1.relu, fc1.role, fc1.gated) == (True, "wide", False)
    assert next(n for n in layer if isinstance(n, Attention)).heads == 8


def test_both_phases_read_the_same_layers():
    """Prefill and decode graphs give the same decoder."""
    both = decoder_of(small(prefill=8, decode=4))
    only = decoder_of(small(decode=4))
    assert (both.layers, both.after) == (only.layers, only.after)
    assert (both.prefill, both.decode, only.prefill, only.decode) == (8, 4, 0, 4)


def test_weights_of_the_published_run_are_counted():
    """95.12 % of the 6,607,077,376 weights are kept."""
    graph, percent, notes = published(VHK158, build("llama2-7b", prefill=128))
    found = decoder_of(graph)
    total = sum(node.k * node.n for _, node in found.linears)
    assert total == 6_607_077_376
    assert sum(node.nonzeros for _, node in found.linears) / total == pytest.approx(
        0.9512, abs=1e-4
    )
    assert percent == 30
    assert "q_proj and k_proj keep 70 %" in notes[0]


def test_other_models_and_own_sparsity_are_not_compressed():
    """The published compression is for its model, and only without a sparsity of one's own."""
    opt = build("opt-6.7b", prefill=16)
    own = build("llama2-7b", prefill=16).sparsify(NofM(4, 16))
    for graph in (opt, own):
        assert published(VHK158, graph) == (graph, 100, ())


def own_weights(graph, seed=0):
    """Return a decoder with values: whole rows of 0, 2, 4, 8 and 16 of 16, and some more zeros."""
    rng = np.random.default_rng(seed)
    values = {}
    for name, spec in graph.tensors.items():
        if spec.parameter:
            kept = np.resize([16, 8, 4, 2, 0], spec.shape[1])
            mask = prune(rng.normal(size=spec.shape), NofM(tuple(kept.tolist()), 16))
            mask[rng.integers(spec.shape[0], size=9), 1] = False
            values[name] = mask * rng.normal(size=spec.shape).astype(np.float32)
    return replace(graph, values=values)


def test_weights_of_its_own_say_what_a_decoder_keeps():
    """A row runs at the N of its fullest group; zeros beyond that are gated."""
    graph = own_weights(small(prefill=8, decode=2))
    for _, node in decoder_of(graph).linears:
        names = [node.name.replace("gate_proj+up_proj", part) for part in ("gate_proj", "up_proj")]
        masks = [
            graph.values[f"{name}.weight"] != 0 for name in (names if node.gated else names[:1])
        ]
        rows = sum(mask.shape[1] for mask in masks)
        assert node.nonzeros == sum(int(mask.sum()) for mask in masks)
        assert node.kept_rows[0] == sum(sum(~mask.any(axis=0)) for mask in masks)
        assert sum(node.kept_rows.values()) == rows
        assert set(node.kept_rows) == {16, 8, 4, 2, 0}
        assert 0 < node.places - node.nonzeros < 9 * len(masks) + 1
    result = simulate_decoder(graph, small_arch()).result
    assert result.sparsity == "rows of N:16"
    assert result.macs_effectual < result.macs_dense
    assert result.cycles < simulate_decoder(small(prefill=8, decode=2), small_arch()).result.cycles
    assert any("are zeros that run at dense time, gated" in note for note in result.notes)


@pytest.mark.parametrize("kept", range(17))
def test_a_mask_of_any_fullness_runs_at_the_next_n(kept):
    """One group of `kept` weights sets the N of its row, up to 2, 4, 8 or 16."""
    mask = np.zeros((40, 3), dtype=bool)  # the last group has 8 places
    mask[16 : 16 + kept, 1] = True
    mask[39, 2] = True
    most = next(n for n in (0, 2, 4, 8, 16) if n >= kept)
    expected = Counter([0, most, 2])
    assert masked_rows(mask) == dict(sorted(expected.items(), reverse=True))


def test_an_explicit_mask_is_skipped_as_far_as_its_rows_allow():
    """A mask without values says the same as weights with those zeros."""
    graph = own_weights(small(decode=2))
    masks = {name: Explicit(value != 0) for name, value in graph.values.items()}
    tensors = {n: replace(t, sparsity=masks.get(n, t.sparsity)) for n, t in graph.tensors.items()}
    masked = replace(graph, tensors=tensors, values={})
    assert decoder_of(masked).layers == decoder_of(graph).layers


def test_own_weights_keep_their_zeros_in_the_published_run():
    """Known weights are not compressed again; attention is the published one."""
    graph = replace(own_weights(small(prefill=8)), name="llama2-7b")
    used, percent, notes = published(VHK158, graph)
    assert (used, percent) == (graph, 30)
    assert notes[0].startswith("Published compression of llama2-7b: prefill attention 30 % of its")


@pytest.mark.parametrize(
    ("graph", "sentence"),
    [
        (
            lambda: small("opt-6.7b", activation="Gelu", prefill=8),
            r"fc1': a DspChain has Relu and Silu as activations, not Gelu",
        ),
        (lambda: gemm_graph(4, 16, 16), r"runs decoder LLMs with phases prefill and decode"),
        (lambda: small(prefill=8, batch=2), r"batch must be 1, not 2"),
        (
            lambda: small(prefill=8).sparsify(NofM(3, 16)),
            r"self_attn\.k_proj\.weight' keeps 3 of 16; a chain holds rows of 0, 2, 4, 8, 16 of 16",
        ),
    ],
)
def test_what_the_machine_cannot_run_is_named(graph, sentence):
    """Another kind of workload, a batch and an impossible N are one sentence each."""
    with pytest.raises(ValueError, match=sentence):
        decoder_of(graph())


@pytest.mark.parametrize(
    ("sparsity", "rows"),
    [
        (NofM(2, 16), {2: 256}),
        (NofM(1, 8), {2: 256}),
        (NofM(2, 4), {8: 256}),
        (NofM((16, 8) * 128, 16), {16: 128, 8: 128}),
        (NofM(0, 16), {0: 256}),
        (Unstructured(0.5), {16: 256}),
    ],
)
def test_rows_keep_their_n_of_16(sparsity, rows):
    """N:M with M dividing 16 scales to 16; other structures run dense."""
    assert kept_rows(sparsity, "w", 256) == rows


# Tiles


def test_tiles_cover_the_rows_and_ragged_ones_cost_full():
    """1100 dense rows on 64 chains in tiles of 512: three tiles of eight passes."""
    unit = Unit(tile_columns=512, chains=64, half_bytes=1 << 20, group=16)
    runs = tiles(unit, {16: 1100})
    assert [(times, tile.rows, tile.passes) for times, tile in runs] == [(2, 512, 8), (1, 76, 8)]
    mixed = tiles(unit, {8: 600, 16: 200, 0: 50})
    assert [(t.rows, t.passes) for _, t in mixed] == [(512, 4 + 3), (288, 4)]
    assert sum(times * tile.values for times, tile in mixed) == 200 * 16 + 600 * 8
    assert tiles(unit, {0: 600}) == [(1, Tile(rows=512, passes=0, values=0, indexed=0))]


def test_cores_share_rows_of_every_kind():
    """The busiest core has ceil(rows / cores) rows, as many of each N as its order gives."""
    assert core_rows({16: 1638, 8: 2458}, 4) == {16: 410, 8: 614}
    assert sum(core_rows({16: 5, 4: 6, 2: 7}, 4).values()) == 5
    assert core_rows({16: 4096}, 3, granule=128) == {16: 1408}
    assert sum(core_rows({16: 1638, 8: 2458}, 3, granule=128).values()) == 1408


def test_reductions_split_into_parts_that_fit_half_a_buffer():
    """Parts are as few and as equal as can be."""
    unit = Unit(tile_columns=512, chains=64, half_bytes=1 << 20, group=16)
    assert split_groups(unit, 256, 8) == [128, 128]
    assert split_groups(unit, 688, 8) == [115, 115, 115, 115, 114, 114]
    assert split_groups(unit, 256, 4) == [256]


# Programs


def cases():
    """Yield machines, graphs and phases that use every emitter."""
    yield "on chip", small_arch(), small(prefill=40, decode=9), "decode"
    yield "in place", small_arch(concatenates_kv=False), small(prefill=40, decode=9), "decode"
    yield "off chip", small_arch(always_on_chip=False), small(prefill=40, decode=9), "decode"
    yield "prefill", small_arch(), small(prefill=70), "prefill"
    deep = decoder("deep", "llama2-7b", **{**SMALL, "layers": 12}, prefill=70, decode=4)
    yield "deep", small_arch(), deep, "decode"
    yield "deep", small_arch(), deep, "prefill"
    yield "deep off chip", small_arch(always_on_chip=False), deep, "decode"
    yield "opt", small_arch(cores=3), small("opt-6.7b", prefill=40, decode=9), "decode"
    yield "opt off", small_arch(always_on_chip=False), small("opt-6.7b", decode=9), "decode"
    yield "opt prefill", small_arch(), small("opt-6.7b", prefill=70), "prefill"
    yield "mixed widths", small_arch(weight_bits=(3, 8)), small(decode=9), "decode"
    grouped = small(kv_heads=4, prefill=70, decode=9)
    yield "grouped", small_arch(), grouped, "decode"
    yield "grouped", small_arch(), grouped, "prefill"
    yield "grouped off chip", small_arch(always_on_chip=False), grouped, "decode"
    few = small(kv_heads=2, head_size=48, prefill=70, decode=9)
    yield "fewer keys than cores", small_arch(concatenates_kv=False), few, "decode"
    yield "fewer keys than cores", small_arch(), few, "prefill"
    halves = small_arch(mv_buffer={"capacity_bytes": 4096})
    yield "keys in parts", halves, grouped, "decode"
    zero = small(prefill=40, decode=9).sparsify(NofM(0, 16))
    yield "no weights", small_arch(), zero, "decode"
    yield "no weights", small_arch(), zero, "prefill"


CASES = list(cases())


@pytest.mark.parametrize(
    ("arch", "graph", "phase"), [c[1:] for c in CASES], ids=[f"{c[0]}-{c[3]}" for c in CASES]
)
def test_folded_time_is_the_time_of_the_unrolled_program(arch, graph, phase):
    """Compiled, encoded, decoded and run token by token: same cycles, busy cycles and counts."""
    compiled = model(graph, arch)
    program = compiled.program(phase, 70 if phase == "prefill" else 45)
    words = encode(program.code)
    assert 4 * len(words) == program.size_bytes
    done = execute(arch, decode(words), program.tokens)
    assert done.cycles == Timeline(arch).cycles(program)
    assert done.busy == busy_cycles(arch, program.code)
    assert done.instructions == program.instructions


@pytest.mark.parametrize(
    ("arch", "graph", "phase"), [c[1:] for c in CASES], ids=[f"{c[0]}-{c[3]}" for c in CASES]
)
def test_programs_give_back_every_token(arch, graph, phase):
    """A program leaves the free slots it found and no token besides."""
    program = model(graph, arch).program(phase, 70 if phase == "prefill" else 45)
    left = transfer(program_steps(arch, program.code), Module, program.tokens).tokens
    assert left == SLOTS


def loads_of_keys(graph, arch, phase="decode", length=45):
    """Return bytes of keys and values that one core reads a layer for products."""
    program = model(graph, arch).program(phase, length)
    buffer = Buffer.MATRIX if phase == "decode" else Buffer.WEIGHT
    loads = [
        times * i.get("bytes")
        for i, times in walk(program.code)
        if i.module is Module.LD and i.get("base") == Base.KV and i.get("buffer") == buffer
    ]
    return sum(loads) // SMALL["layers"]


@pytest.mark.parametrize("kv_heads", [1, 2, 4, 8])
def test_a_decode_step_reads_every_key_once(kv_heads):
    """Queries that share keys share their LD: bytes follow the heads of keys, not of queries."""
    graph = small(kv_heads=kv_heads, decode=9)
    assert graph.macs == small(decode=9).macs - 3 * 9 * 2 * 256 * 32 * (8 - kv_heads)
    padded, size, busiest = 48, 32, -(-kv_heads // 4)  # 48 tokens: bucket 4, groups of 16
    assert loads_of_keys(graph, small_arch()) == busiest * 2 * padded * size


def attention_work(graph, arch):
    """Return what one core does in attention of a decode step besides reading keys and values."""
    (_, layer, *_) = model(graph, arch).program("decode", 45).stages
    (code,) = (s.code for s in layer.sections if isinstance(s.node, Attention))
    work = Counter()
    for i, times in walk(code):
        match i.module:
            case Module.LD if i.get("base") == Base.ACTIVATIONS:
                work["read"] += times * i.get("bytes")
            case Module.ST:
                work["stored"] += times * i.get("bytes")
            case Module.MV:
                work["products"] += times * i.get("groups") * i.get("passes")
            case Module.MISC:
                work["softmax"] += times * i.get("rows") * i.get("groups")
    return work


@pytest.mark.parametrize("on_chip", [True, False])
def test_sharing_keys_leaves_all_other_work_of_attention(on_chip):
    """Queries, products, softmax and contexts of a core are those of its queries."""
    arch = small_arch(always_on_chip=on_chip)
    shared, alone = (attention_work(small(kv_heads=n, decode=9), arch) for n in (4, 8))
    assert shared == alone
    assert shared["stored"] >= 2 * 32
    assert shared["products"] == 2 * (2 + 3)


def test_keys_that_fit_no_half_buffer_load_for_every_query():
    """A tile of several parts cannot stay, so its queries read it in turn."""
    halves = small_arch(mv_buffer={"capacity_bytes": 2048})
    shared, alone = (loads_of_keys(small(kv_heads=n, decode=9), halves) for n in (4, 8))
    assert shared == alone == 2 * 2 * 48 * 32


def test_a_prompt_streams_keys_past_every_query():
    """MM reads keys for each query's tile of tokens, however many share them."""
    shared, alone = (
        loads_of_keys(small(kv_heads=n, prefill=64), small_arch(), "prefill", 64) for n in (4, 8)
    )
    assert shared == alone > 0


@pytest.mark.parametrize(
    ("kv_heads", "cores", "heads", "keys"),
    [(8, 4, 2, 2), (4, 4, 2, 1), (2, 4, 4, 1), (4, 3, 4, 2), (1, 3, 8, 1)],
)
def test_cores_divide_keys_and_their_queries_together(kv_heads, cores, heads, keys):
    """The busiest core has whole heads of keys with all their queries, and as much KV cache."""
    arch = small_arch(cores=cores, hbm={"channels_per_core": 4}, kv_capacity_tokens=128)
    compiled = model(small(kv_heads=kv_heads, decode=4), arch)
    layer = {n.role: n for n in compiled.decoder.layers[0] if isinstance(n, Linear)}
    rows = {role: core_share(layer[role].n, cores, layer[role].granule) // 32 for role in "qkv"}
    assert rows == {"q": heads, "k": keys, "v": keys}
    assert compiled.kv_bytes == 3 * cores * 2 * keys * 128 * 32


def test_layers_share_a_loop_until_their_widths_differ():
    """Equal layers are one stage; mixed precision splits them."""
    stages = model(small(decode=4), small_arch()).program("decode", 4).stages
    assert [stage.times for stage in stages] == [1, 1, 2, 1]
    mixed = model(small(decode=4), small_arch(weight_bits=(3, 8))).program("decode", 4).stages
    assert [(stage.times, stage.bits) for stage in mixed[1:-1]] == [(1, 3), (1, 8), (1, 3)]


def test_every_weight_is_read_once_a_step():
    """LD bytes of the base register of weights are the weights, their indices and scales."""
    arch = small_arch()
    compiled = model(small(decode=4).sparsify(NofM(8, 16)), arch)
    read = sum(
        i.get("bytes") * times
        for i, times in walk(compiled.program("decode", 4).code)
        if i.module is Module.LD and i.get("buffer") == 2 and i.get("base") == 0
    )
    expected = 0
    for _, node in compiled.decoder.linears:
        kept = node.nonzeros
        indexed = kept if 8 in node.kept_rows else 0
        expected += (kept * 4 + indexed * 4) // 8
    padded = sum(-(-n.n // 4) * 4 * n.k // 2 for _, n in compiled.decoder.linears)
    assert 4 * read == pytest.approx(expected, rel=1e-3)
    assert expected <= padded


def test_weight_addresses_never_overlap():
    """Every LD of weights reads its own lines."""
    compiled = model(small(decode=4), small_arch())
    loads = [
        (i.get("address"), -(-i.get("bytes") // 64))
        for i in decode(encode(compiled.program("decode", 4).code))
        if i.module is Module.LD and i.get("base") == 0 and i.get("buffer") in (2, 4)
    ]
    ends = [(start, start + size) for start, size in sorted(loads) if size]
    assert all(end <= start for (_, end), (start, _) in pairwise(ends))
    assert ends[-1][1] * 64 * 4 == compiled.weight_bytes


def test_layers_of_mixed_widths_set_as_much_memory_aside_as_the_widest_layer_takes():
    """Memory for weights ends behind the head, which follows layers of one size."""
    graph = small(decode=4)
    narrow, wide = (model(graph, small_arch(weight_bits=(bits,))) for bits in (4, 8))
    mixed = model(graph, small_arch(weight_bits=(4, 8, 4)))
    assert narrow.weight_bytes == narrow.weight_memory_bytes
    assert narrow.weight_bytes < mixed.weight_bytes < wide.weight_bytes
    assert mixed.weight_memory_bytes == wide.weight_memory_bytes
    ends = [
        i.get("address") + -(-i.get("bytes") // 64)
        for i in decode(encode(mixed.program("decode", 4).code))
        if i.module is Module.LD and i.get("base") == 0 and i.get("buffer") in (2, 4)
    ]
    assert max(ends) * 64 * mixed.arch.cores == mixed.weight_memory_bytes
    detail = simulate_decoder(graph, mixed.arch).result.detail
    assert detail["weight_memory_bytes"] == mixed.weight_memory_bytes


def test_padding_of_mixed_widths_must_fit_the_memory():
    """What layers of 4 bits leave free beside one of 8 counts against the HBM."""
    graph = small(decode=4)
    wide = model(graph, small_arch(weight_bits=(8,)))
    held = wide.weight_memory_bytes + wide.kv_bytes
    for capacity in (held, held - 1):
        arch = small_arch(weight_bits=(4, 4, 8), hbm={"capacity_bytes": capacity})
        if capacity == held:
            assert model(graph, arch).weight_bytes + wide.kv_bytes < capacity
            continue
        with pytest.raises(ValueError, match=f"weights take {wide.weight_memory_bytes} B and the"):
            model(graph, arch)


@pytest.mark.parametrize("percent", [1, 30, 100])
def test_block_map_is_causal_and_keeps_its_share(percent):
    """The diagonal is kept, nothing above it, and every row its share of blocks."""
    kept = block_map(32, percent)
    assert kept.diagonal().all()
    assert not np.triu(kept, 1).any()
    rows = np.arange(1, 33)
    assert (kept.sum(axis=1) == np.maximum(1, np.round(rows * percent / 100))).all()


@pytest.mark.parametrize("block", [8, 32, 64, 96])
def test_every_tile_of_tokens_scores_the_blocks_it_touches(block):
    """Blocks may be smaller or larger than a tile of tokens; the diagonal is always scored."""
    coarse = replace(VHK158.compression, attention_block=block)
    needed = model(small(prefill=256), replace(small_arch(), compression=coarse), 30).needed(256)
    kept = block_map(-(-256 // block), 30)
    wanted = []
    for tile in range(0, 256, 32):
        columns = {c for t in range(tile, tile + 32) for c in np.flatnonzero(kept[t // block])}
        wanted.append(min(256, block * len(columns)))
    assert list(needed) == wanted


def test_skipped_blocks_save_time_and_never_change_the_rest():
    """The tile map skips blocks of attention only."""
    coarse = replace(VHK158.compression, attention_block=16)
    arch = replace(small_arch(), compression=coarse)
    graph = small(prefill=256)
    dense, sparse = (
        Timeline(arch).shares(model(graph, arch, p).program("prefill", 256))[1] for p in (100, 30)
    )
    attention = [isinstance(n, Attention) for n in decoder_of(graph).layers[0]]
    assert (sparse[:, attention] < 0.8 * dense[:, attention]).all()
    others = [not a for a in attention]
    assert (sparse[1:, others] == dense[1:, others]).all()


@pytest.mark.parametrize(
    ("arch", "graph", "sentence"),
    [
        (
            VHK158,
            lambda: build("llama2-7b", prefill=1800, decode=300),
            r"prefill 1800 and decode 300 need 2100 tokens of KV cache; the machine holds 2048",
        ),
        (
            load_arch(U280, weight_bits=(8,), head_bits=8, kv_capacity_tokens=8192),
            lambda: build("llama2-7b", prefill=16),
            r"llama2-7b: weights take 66\d+ B and the KV cache \d+ B; the HBM holds 8589934592 B",
        ),
    ],
)
def test_what_does_not_fit_the_memory_is_named(arch, graph, sentence):
    """KV capacity and HBM capacity are one sentence each."""
    with pytest.raises(ValueError, match=sentence):
        model(graph(), arch)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"act_buffer": {"capacity_bytes": 40000}},
            r"inputs of model\.layers\.0\.mlp\.down_proj, take 45056 B; the act_buffer holds 40000",
        ),
        (
            {"out_buffer": {"capacity_bytes": 4000}},
            r"scores of one head, take 4096 B; the out_buffer holds 4000 B",
        ),
    ],
)
def test_tiles_that_fit_no_buffer_are_named(change, sentence):
    """Need and size of the buffer are in the sentence."""
    with pytest.raises(ValueError, match=sentence):
        model(small(prefill=40), small_arch(**change))


def test_a_compiled_program_runs_from_its_file(tmp_path):
    """Saved, loaded and run, a program takes the cycles it was compiled with."""
    arch = small_arch()
    program = model(small(decode=4), arch).program("decode", 4)
    path = tmp_path / "step.bin"
    write_program(path, program_file(program, arch))
    assert execute_file(arch, path).cycles == Timeline(arch).cycles(program)
    with pytest.raises(ValueError, match=r"step\.bin' was made for another machine"):
        execute_file(VHK158, path)


# Length-adaptive compilation


def test_library_is_the_sum_over_all_lengths():
    """Naive storage is one program a length and core, adaptive one a bucket."""
    compiled = model(small(prefill=8, decode=4), small_arch())
    found = compiled.library(66)
    naive = sum(
        compiled.program(phase, length).size_bytes * 4
        for phase in ("prefill", "decode")
        for length in range(1, 67)
    )
    buckets = {("prefill", size) for size in (32, 64, 96)}
    buckets |= {("decode", size) for size in range(4, 69, 4)}
    assert found.naive_bytes == naive
    assert found.naive_programs == 2 * 66 * 4
    assert found.programs == len(buckets)
    assert found.adaptive_bytes == sum(compiled.program(*b).size_bytes for b in buckets)


# Runs


def test_a_run_is_the_sum_of_its_steps():
    """Decode is the sum over KV lengths of the exact time of each length's bucket."""
    arch = small_arch()
    graph = small(prefill=40, decode=9)
    done = simulate_decoder(graph, arch)
    compiled, timeline = model(graph, arch), Timeline(arch)
    steps = sum(timeline.cycles(compiled.program("decode", 40 + i)) for i in range(1, 10))
    prompt = timeline.cycles(compiled.program("prefill", 40))
    rows = done.result.per_op
    of = {p: [str(n).startswith(p) for n in rows["name"]] for p in ("prefill.", "decode.")}
    assert rows["cycles"][of["decode."]].sum() == steps
    assert rows["cycles"][of["prefill."]].sum() == prompt
    assert done.result.cycles == steps + prompt


def test_rows_split_their_cycles_into_causes():
    """Compute and stalls of every operator are not negative and sum to its cycles."""
    rows = simulate_decoder(small(prefill=40, decode=9), small_arch()).result.per_op
    causes = [rows["array_busy"], *(rows[n] for n in rows.dtype.names if n.startswith("stall_"))]
    assert (np.array(causes) >= 0).all()
    assert (np.sum(causes, axis=0) == rows["cycles"]).all()


def test_products_are_counted_for_real_tokens():
    """Dense MACs are the graph's, except that masked scores count; none exceeds the peak."""
    graph = small(prefill=40, decode=9)
    result = simulate_decoder(graph, small_arch()).result
    assert result.macs_dense == graph.macs
    assert result.macs_effectual == graph.macs
    assert 0 < result.utilisation < 1
    uses = sum(n for (part, _, _), n in result.counts.items() if part == "mac")
    assert uses <= result.cycles * result.arch.peak_macs_per_cycle


def test_products_with_a_weight_and_with_an_activation_are_counted():
    """Weights' zeros are left alone, skipped blocks of attention by both; activations are dense."""
    graph = small(prefill=96, decode=9).sparsify(NofM(4, 16), first_layer=True)
    arch = small_arch(compression=replace(VHK158.compression, model="small", attention_block=16))
    rows = simulate_decoder(graph, arch).result.per_op
    assert (rows["macs_weight"] == rows["macs_effectual"]).all()
    products = rows[rows["kind"] == "gemm"]
    assert (4 * products["macs_weight"] == products["macs_dense"]).all()
    assert (products["macs_act"] == products["macs_dense"]).all()
    dense = small(prefill=96, decode=9)
    result = simulate_decoder(dense, arch).result
    scores = result.per_op[result.per_op["name"] == "prefill.model.layers.0.self_attn"]
    assert scores["macs_act"] == scores["macs_effectual"]
    assert 0 < scores["macs_act"] < scores["macs_dense"]
    assert result.macs_effectual <= min(result.macs_weight, result.macs_act)
    assert max(result.macs_weight, result.macs_act) <= result.macs_dense == dense.macs


def test_slow_instruction_memory_is_charged():
    """DDR that streams instructions slower than they run adds its own row."""
    graph = small(decode=4)
    fast = simulate_decoder(graph, small_arch())
    slow = simulate_decoder(graph, small_arch(ddr={"bandwidth_bytes_per_s": 10**8}))
    row = slow.result.per_op[-1]
    assert row["kind"] == "fetch"
    assert slow.result.cycles == fast.result.cycles + row["cycles"]
    assert not (fast.result.per_op["kind"] == "fetch").any()


def test_narrow_weights_move_fewer_bytes_at_the_same_products():
    """3, 4, 5 and 8 bits a weight: bytes follow the width."""
    read, written = [], []
    for bits in (3, 4, 5, 8):
        arch = small_arch(weight_bits=(bits,), head_bits=bits)
        result = simulate_decoder(small(decode=4), arch).result
        read.append(result.counts["dram", "read", "full"])
        written.append(result.counts["mv_buffer", "write", "full"])
        assert result.macs_effectual == small(decode=4).macs
    assert written == pytest.approx([written[-1]] * 4, rel=1e-3)  # int8 behind the dequantiser
    steps = np.diff(read)
    assert steps[2] == pytest.approx(3 * steps[0], rel=1e-2)
    assert steps[0] == pytest.approx(steps[1], rel=1e-2)


def test_zeros_that_save_no_time_are_named():
    """Unstructured weights run at dense time with a sentence; their products count as gated."""
    graph = small(decode=4)
    dense, gated = (
        simulate_decoder(g, small_arch()).result for g in (graph, graph.sparsify(Unstructured(0.5)))
    )
    assert gated.cycles == dense.cycles
    assert gated.counts["mac", "int8", "full"] < dense.counts["mac", "int8", "full"]
    assert any("50.0% of the weights of 18 projections" in note for note in gated.notes)
    assert any("are zeros that run at dense time" in note for note in gated.notes)
    assert not any("dense time" in note for note in dense.notes)


def test_more_zeros_never_take_longer():
    """Fewer kept weights, fewer cycles."""
    cycles = [
        simulate_decoder(
            small(prefill=64, decode=4).sparsify(NofM(n, 16)), small_arch()
        ).result.cycles
        for n in (16, 8, 4, 2, 0)
    ]
    assert cycles == sorted(cycles, reverse=True)
    assert len(set(cycles)) == 5


# The KV cache


def test_heads_of_the_cache_lie_apart_and_fill_it():
    """Keys and values of all heads and layers share the cache of each core, none overlapping."""
    compiled = model(small(kv_heads=8, decode=4), small_arch(cores=3, hbm={"channels_per_core": 4}))
    places = [
        kv_place(compiled, layer, role, head)
        for layer in range(3)
        for role in "kv"
        for head in range(8)
    ]
    for core in range(3):
        own = sorted((p.first_line, p.lines) for p in places if p.core == core)
        assert all(first + size <= after for (first, size), (after, _) in pairwise(own))
        assert own[-1][0] + own[-1][1] <= compiled.kv_bytes // 3 // 64
    assert sum(p.lines for p in places) * 64 == 2 * 3 * 8 * 2048 * 32
    assert {p.core: p.channels for p in places} == {
        core: tuple(range(4 * core, 4 * core + 4)) for core in range(3)
    }


def test_programs_read_the_cache_where_it_lies():
    """A prompt reads the first head's keys and values of every layer at their place."""
    compiled = model(small(prefill=32), small_arch())
    read = {
        i.get("address") // (4 if i.get("split") else 1)  # pieces of a line, or lines
        for i in decode(encode(compiled.program("prefill", 32).code))
        if i.module is Module.LD and i.get("base") == Base.KV and i.get("buffer") == Buffer.WEIGHT
    }
    firsts = {kv_place(compiled, layer, role, 0).first_line for layer in range(3) for role in "kv"}
    assert firsts <= read


def test_the_summary_of_the_cache_is_that_of_its_heads():
    """Two heads on four cores use the channels of two."""
    compiled = model(small(kv_heads=2, decode=4), small_arch())
    found = kv_summary(compiled)
    assert found["channels"] == [[*range(8)], [*range(8, 16)]]
    assert (found["tokens"], found["heads"], found["heads_per_core"]) == (2048, 2, 1)
    assert found["bytes_per_channel"] == 3 * 2 * 2048 * 32 // 8


@pytest.mark.parametrize("place", [(3, "k", 0), (0, "q", 0), (0, "v", 8), (-1, "v", 0)])
def test_a_place_outside_the_cache_is_refused(place):
    """Layers, roles and heads are named."""
    compiled = model(small(decode=4), small_arch())
    with pytest.raises(ValueError, match=r"keys k and values v of 8 heads in 3 layers, not '"):
        kv_place(compiled, *place)
