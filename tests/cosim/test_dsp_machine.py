"""Prompts and decode steps on the core as RTL: the model's cycles, numpy's memory and buffer."""

from dataclasses import replace

import numpy as np
import pytest
from decoder_step import flat, follow, prepare, prepare_prompt

from rtl.cosim.dsp_machine import build_dsp
from simulator.arch.load import load_arch
from simulator.dsp_isa import Module, Registers, assemble, encode, execute, run_values
from simulator.dsp_isa.layout import LINE_ELEMENTS

pytestmark = pytest.mark.rtl

ARCH = load_arch("flightllm-tiny")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return build_dsp(ARCH, tmp_path_factory.mktemp("core"))


@pytest.fixture(scope="module")
def step():
    return prepare(ARCH)


def run(model, step, words=None, **options):
    """Run a step's program, or other words on its memory, and return what the machine did."""
    image, words = step.image, step.words if words is None else words
    return model.run(words, image.registers, image.memory, step.program.tokens, **options)


def values(step, program):
    return run_values(ARCH, program, step.image.registers, step.image.memory, step.program.tokens)


def assert_values(step, ran, program=None):
    """Compare every byte of memory and every result on the chip."""
    expected = values(step, program or flat(step))
    np.testing.assert_array_equal(ran.memory, expected.memory)
    np.testing.assert_array_equal(ran.out, expected.out[: ran.out.size])
    return expected


def assert_exact(model, step):
    """Compare values, all cycles, and every module's busy ones."""
    ran, modelled = run(model, step), execute(ARCH, flat(step), step.program.tokens)
    expected = assert_values(step, ran)
    assert (expected.memory != step.image.memory).sum() > 200
    assert (ran.cycles, ran.busy) == (modelled.cycles, modelled.busy)
    return ran


def test_a_decoder_block_takes_the_models_cycles_and_leaves_numpys_bits(model, step):
    """Attention, feed-forward part and head; 4 and 5-bit weights; rows of 16, 8, 4 and 2 of 16."""
    assert_exact(model, step)


@pytest.mark.parametrize("past", [15, 16])
def test_a_full_bucket_and_the_next_one_are_exact(model, past):
    """16 and 17 tokens: the last length of a program and the first of another."""
    assert_exact(model, prepare(ARCH, past=past))


def test_queries_that_share_keys_are_exact(model):
    """One load of keys and of values serves both heads: products use a half buffer twice."""
    step = prepare(ARCH, past=20, kv_heads=1)
    assert_exact(model, step)
    assert_values(step, run(model, step, pause_seed=4))


def test_four_heads_and_two_tiles_of_rows_are_exact(model):
    """Heads between the first and the last are a loop of the compiler's; so are tiles."""
    assert_exact(model, prepare(ARCH, heads=4, kv_heads=4))


@pytest.mark.parametrize(("length", "changes"), [(13, {}), (17, {"kv_heads": 1})])
def test_a_prompt_takes_the_models_cycles_and_leaves_numpys_bits(model, length, changes):
    """One and two buckets, neither full; rows of 16, 8, 4 and 2 of 16; queries that share keys."""
    prompt = prepare_prompt(ARCH, length, **changes)
    assert_exact(model, prompt)
    assert_values(prompt, run(model, prompt, pause_seed=length))


def test_decode_steps_follow_a_prompt_on_the_cache_it_left(model):
    """Memory goes from run to run: the prompt's, then two tokens', the second reads the first's."""
    prompt = prepare_prompt(ARCH, 15)
    memory = assert_exact(model, prompt).memory
    for position in (15, 16):
        step = follow(prompt, memory, position, seed=position)
        memory = assert_exact(model, step).memory


def test_pauses_on_every_channel_cost_cycles_alone(model, step):
    """Instructions, loads, stores and answers come late in any order: no bit changes."""
    free = run(model, step)
    for seed in (1, 2, 3):
        paused = run(model, step, pause_seed=seed)
        assert_values(step, paused)
        assert paused.cycles > free.cycles


def test_results_depend_on_the_values(model, step):
    """Another token takes as long and leaves other bits: nothing is compared with itself."""
    other = prepare(ARCH, seed=2)
    ran, first = assert_exact(model, other), run(model, step)
    assert ran.cycles == first.cycles
    assert (ran.out != first.out).any()


def random_rows(rng, least=False):
    """Return rows by N for a tile of MV."""
    rows = {n: 16 * int(rng.integers(0, 3)) for n in (16, 8, 4, 2)}
    return {16: 16, 8: 0, 4: 0, 2: 0} if least or not any(rows.values()) else rows


def random_tile(rng, rows, least=False):
    """Return fields of an LD, passes by chains, and bytes of its tile: distinct indices, any codes.

    Portions of 16 rows of one N have their codes, then their indices.
    """
    groups, bits = 1 if least else int(rng.integers(1, 6)), int(rng.choice([3, 4, 5, 8]))
    chains = {n: count * n // 16 for n, count in rows.items()}
    groups = max(groups, -(-16 // (sum(chains.values()) * bits)))  # two words of codes
    portions, listed = [], 0
    for n in (n for n, count in rows.items() for _ in range(count // 16)):
        portions.append(rng.integers(0, 256, n * groups * 2 * bits, dtype=np.uint8))
        if n < 16:
            each = np.tile(np.arange(16), (16 * groups, 1))
            kept = np.sort(rng.permuted(each, axis=1)[:, :n], axis=1)
            chained = kept.reshape(-1, 16 // n, groups, n).transpose(0, 2, 1, 3)
            pairs = chained.astype(np.uint8).reshape(-1, 2)
            portions.append(pairs[:, 0] | pairs[:, 1] << 4)
            listed += len(pairs)
    content = np.concatenate(portions)
    fields = {"rows": sum(rows.values()), "groups": groups, "bits": bits}
    fields |= {f"rows_{n}": rows[n] for n in (8, 4, 2)}
    fields |= {"metadata": listed, "bytes": content.size}
    return fields, chains.values(), content


def random_products(rng, tiles, least=False):
    """Return a program of products of random tiles, each with its own row table, and memory."""
    memory, at = rng.integers(0, 256, 1 << 17, dtype=np.uint8), 2
    text = ["LD buffer=3 bytes=128 channels=1 shift=4"]
    for number in range(tiles):
        fields, chains, content = random_tile(rng, random_rows(rng, least), least)
        passes = sum(-(-count // 4) for count in chains)
        memory[64 * at : 64 * at + content.size] = content
        table = 8 * number
        text.append(f"LD buffer=4 bank={table} address={1900 + table} bytes=512 channels=1")
        load = " ".join(f"{name}={value}" for name, value in fields.items())
        text.append(f"LD wait=MV release=MV buffer=2 channels=1 address={at} table={table} {load}")
        text.append(
            f"MV wait=LD release=LD emit=1 tabled=1 table={table} shift={rng.integers(0, 9)} "
            f"groups={fields['groups']} passes={passes} out={4 + 2 * number}"
        )
        at += -(-content.size // 64)
    return assemble("\n".join(text)), memory


def random_matrices(rng, tiles):
    """Return a program of products of a tile of tokens and random tiles of columns, and memory."""
    memory, at = rng.integers(0, 256, 1 << 17, dtype=np.uint8), 0
    text = []
    for number in range(tiles):
        kept = int(rng.choice([16, 8, 4, 2]))
        rows = {n: 16 * (n == kept) for n in (16, 8, 4, 2)}
        fields, chains, content = random_tile(rng, rows)
        groups = fields["groups"]
        memory[64 * at : 64 * at + content.size] = content
        load = " ".join(f"{name}={value}" for name, value in fields.items())
        acts = f"bank={number} address={1000 + 8 * number} bytes={128 * groups} rows=8"
        drawn = f"tabled={rng.integers(2)} relu={rng.integers(2)} down={rng.integers(16)}"
        places = f"table={number} act={number} out={2 * number} passes={sum(chains)} tokens=8"
        text += [
            f"LD buffer=4 bank={number} address={1900 + number} bytes=64 channels=1",
            f"LD wait=MM buffer=0 channels=1 address={at} table={number} {load}",
            f"LD release=MM buffer=1 groups={groups} channels=1 {acts}",
            f"MM wait=LD release=LD emit=1 groups={groups} {drawn} {places}",
        ]
        at += -(-content.size // 64)
    return assemble("\n".join(text)), memory


def assert_products(model, program, memory):
    """Compare values and cycles, and values with pauses."""
    registers, tokens = Registers(), {"MV>LD": 2, "MM>LD": 2}
    expected = run_values(ARCH, program, registers, memory, tokens)
    modelled = execute(ARCH, program, tokens)
    for seed in (0, 1):
        ran = model.run(encode(program), registers, memory, tokens, pause_seed=seed)
        np.testing.assert_array_equal(ran.out, expected.out[: ran.out.size])
        assert seed or (ran.cycles, ran.busy) == (modelled.cycles, modelled.busy)


@pytest.mark.parametrize("least", [False, True])
def test_products_of_random_tiles_are_exact(model, least):
    """Rows of every N and width, whatever codes, scales and biases; and the smallest tile."""
    for seed in range(6):
        assert_products(model, *random_products(np.random.default_rng(seed), 8, least))


def test_products_of_random_tiles_of_tokens_are_exact(model):
    """Columns of every N and width, with the row table or without, for eight tokens."""
    for seed in range(4):
        assert_products(model, *random_matrices(np.random.default_rng(seed), 12))


@pytest.mark.long
def test_products_of_many_random_tiles_are_exact(model):
    """The same, deeper."""
    for seed in range(300):
        rng = np.random.default_rng(1000 + seed)
        assert_products(model, *random_products(rng, 16, seed % 4 == 0))
        assert_products(model, *random_matrices(rng, 24))


DEADLOCKS = {
    "dangling": (
        "LD base=2 bytes=64 buffer=3 channels=1 release=MISC\nMISC wait=LD,MV rows=1 groups=1\n"
    ),
    "circle": "ST wait=MISC release=MISC bytes=64\nMISC wait=ST,SYS release=ST rows=1 groups=1\n",
}


@pytest.mark.parametrize("text", DEADLOCKS.values(), ids=DEADLOCKS)
def test_a_deadlock_has_the_same_name_in_model_and_machine(model, step, text):
    """Who waits at which instruction for whose token, word by word."""
    program = assemble(text)
    with pytest.raises(ValueError, match=r"deadlocks: .* waits at instruction \d") as modelled:
        execute(ARCH, program)
    bare = replace(step.program, tokens={})
    with pytest.raises(ValueError, match="deadlocks") as ran:
        run(model, replace(step, program=bare), encode(program))
    assert str(ran.value) == str(modelled.value)


def test_what_the_block_does_not_use_is_exact(model, step):
    """ReLU behind a product, LayerNorm, several rows of softmax."""
    table, load, product = (
        next(line for line in flat(step) if line.module is module and line.get(name) == value)
        for module, name, value in (
            (Module.LD, "buffer", 4),
            (Module.LD, "buffer", 2),
            (Module.MV, "tabled", 1),
        )
    )
    embed = flat(step)[1]
    tokens = {"waits": (), "releases": ()}
    program = (
        replace(embed, **tokens),
        replace(table, **tokens),
        replace(load, waits=(), releases=(Module.MV,)),
        replace(
            product,
            waits=(Module.LD,),
            releases=(Module.MISC,),
            fields={**product.fields, "relu": 1, "vector": embed.get("bank")},
        ),
        *assemble(
            "MISC wait=MV op=3 rows=2 groups=4 a=8 out=20\n"
            "MISC op=2 rows=2 groups=4 a=8 out=22\n"
            "MISC op=5 rows=1 groups=3 a=2 out=24\n"
        ),
    )
    ran = run(model, step, encode(program))
    expected = assert_values(step, ran, program)
    relu = expected.out[8 * LINE_ELEMENTS :][: 2 * LINE_ELEMENTS]
    assert (relu >= 0).all()
    assert (relu == 0).any()
    assert ran.cycles == execute(ARCH, program).cycles


@pytest.mark.long
@pytest.mark.parametrize(("past", "layers"), [(1, 1), (30, 2), (40, 4)])
def test_all_widths_of_weights_are_exact(model, past, layers):
    """Layers of 4, 8, 5 and 3 bits, one and three buckets of keys; and with pauses."""
    step = prepare(ARCH, past=past, layers=layers, seed=layers)
    assert_exact(model, step)
    for seed in range(10, 14):
        assert_values(step, run(model, step, pause_seed=seed))


@pytest.mark.long
@pytest.mark.parametrize(("length", "layers", "kv_heads"), [(1, 1, 4), (37, 2, 2), (48, 3, 4)])
def test_longer_prompts_of_all_widths_are_exact(model, length, layers, kv_heads):
    """Layers of 4, 8 and 5 bits, up to three buckets, then a token; and with pauses."""
    arch = load_arch(ARCH, hbm={"capacity_bytes": 1 << 21})  # holds all weights
    prompt = prepare_prompt(arch, length, layers=layers, heads=4, kv_heads=kv_heads, seed=length)
    memory = assert_exact(model, prompt).memory
    assert_exact(model, follow(prompt, memory, length))
    for seed in range(20, 24):
        assert_values(prompt, run(model, prompt, pause_seed=seed))


@pytest.mark.long
def test_many_random_prompts_are_exact(model):
    """Operands and lengths drawn anew, and a token behind each."""
    rng = np.random.default_rng(6)
    for seed in range(10):
        length = int(rng.integers(1, 60))
        prompt = prepare_prompt(ARCH, length, seed=seed)
        memory = assert_exact(model, prompt).memory
        assert_values(prompt, run(model, prompt, pause_seed=seed + 1))
        assert_exact(model, follow(prompt, memory, length, seed=seed))


@pytest.mark.long
def test_many_random_steps_are_exact(model):
    """Operands and lengths drawn anew."""
    rng = np.random.default_rng(5)
    for seed in range(20):
        step = prepare(ARCH, past=int(rng.integers(1, 60)), seed=seed)
        assert_exact(model, step)
        assert_values(step, run(model, step, pause_seed=seed + 1))


def test_a_matrix_and_a_vector_on_the_chains_at_once_are_refused(model, step):
    """The model has a module for each; the machine has one row of chains."""
    load = "LD bytes=256 rows=16 groups=1 channels=1"
    text = (
        f"{load} buffer=0 release=MM\n{load} buffer=2 release=MV\n"
        "LD buffer=1 bytes=128 rows=8 groups=1 channels=1 release=MM\n"
        "MM wait=LD emit=1 tokens=8 groups=1 passes=16\n"
        "MM emit=1 tokens=8 groups=1 passes=16 out=4\n"
        "MV wait=LD emit=1 groups=1 passes=4 out=8\n"
    )
    with pytest.raises(ValueError, match=r"no MV beside an MM on the same chains \(4 and 5\)"):
        run(model, step, encode(assemble(text)))


def test_a_run_that_leaves_memory_or_time_fails(model, step):
    """Neither is taken for a result."""
    with pytest.raises(RuntimeError, match="The machine is not done after 100 cycles"):
        run(model, step, limit=100)
    words = encode(assemble("LD buffer=3 bytes=64 channels=1 address=100000\n"))
    with pytest.raises(RuntimeError, match="The machine left its memory"):
        run(model, step, words)
