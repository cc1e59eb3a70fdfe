"""A decode step on the core as RTL: the model's cycles, and numpy's memory and out buffer."""

from dataclasses import replace

import numpy as np
import pytest
from decoder_step import flat, prepare

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


def random_tile(rng, least=False):
    """Return fields of an LD and bytes of its tile: rows of any N, distinct indices, any codes."""
    rows = {n: 16 * int(rng.integers(0, 3)) for n in (16, 8, 4, 2)}
    rows = {16: 16, 8: 0, 4: 0, 2: 0} if least or not any(rows.values()) else rows
    groups, bits = 1 if least else int(rng.integers(1, 6)), int(rng.choice([3, 4, 5, 8]))
    chains = {n: count * n // 16 for n, count in rows.items()}
    groups = max(groups, -(-16 // (sum(chains.values()) * bits)))  # two words of codes
    codes = rng.integers(0, 256, sum(chains.values()) * groups * 2 * bits, dtype=np.uint8)
    nibbles = [
        np.sort(rng.permuted(np.tile(np.arange(16), (count * groups, 1)), axis=1)[:, :n], axis=1)
        .reshape(-1, 16 // n, groups, n)
        .transpose(0, 2, 1, 3)
        .ravel()
        for n, count in rows.items()
        if n < 16
    ]
    pairs = np.concatenate(nibbles).astype(np.uint8).reshape(-1, 2)
    indices = pairs[:, 0] | pairs[:, 1] << 4
    fields = {"rows": sum(rows.values()), "groups": groups, "bits": bits}
    fields |= {f"rows_{n}": rows[n] for n in (8, 4, 2)}
    fields |= {"metadata": indices.size, "bytes": codes.size + indices.size}
    passes = sum(-(-count // 4) for count in chains.values())
    return fields, passes, np.concatenate([codes, indices])


def random_products(rng, tiles, least=False):
    """Return a program of products of random tiles, each with its own row table, and memory."""
    memory, at = rng.integers(0, 256, 1 << 17, dtype=np.uint8), 2
    text = ["LD buffer=3 bytes=128 channels=1 shift=4"]
    for number in range(tiles):
        fields, passes, content = random_tile(rng, least)
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


def assert_products(model, rng, tiles, least=False):
    """Compare values and cycles, and values with pauses."""
    program, memory = random_products(rng, tiles, least)
    registers, tokens = Registers(), {"MV>LD": 2}
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
        assert_products(model, np.random.default_rng(seed), 8, least)


@pytest.mark.long
def test_products_of_many_random_tiles_are_exact(model):
    """The same, deeper."""
    for seed in range(300):
        assert_products(model, np.random.default_rng(1000 + seed), 16, seed % 4 == 0)


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
def test_many_random_steps_are_exact(model):
    """Operands and lengths drawn anew."""
    rng = np.random.default_rng(5)
    for seed in range(20):
        step = prepare(ARCH, past=int(rng.integers(1, 60)), seed=seed)
        assert_exact(model, step)
        assert_values(step, run(model, step, pause_seed=seed + 1))


def test_a_run_that_leaves_memory_or_time_fails(model, step):
    """Neither is taken for a result."""
    with pytest.raises(RuntimeError, match="The machine is not done after 100 cycles"):
        run(model, step, limit=100)
    words = encode(assemble("LD buffer=3 bytes=64 channels=1 address=100000\n"))
    with pytest.raises(RuntimeError, match="The machine left its memory"):
        run(model, step, words)
