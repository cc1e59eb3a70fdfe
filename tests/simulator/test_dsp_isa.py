import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.arch.load import load_arch
from simulator.dsp_isa import (
    Instruction,
    Loop,
    Module,
    ProgramFile,
    assemble,
    count,
    decode,
    disassemble,
    encode,
    execute,
    program_steps,
    read_program,
    size_words,
    write_program,
)
from simulator.dsp_isa.layout import FIELDS, WORDS
from simulator.engine import program_cycles, transfer

LD, ST, MM, MV, MISC, SYS = Module
ARCH = load_arch("flightllm-vhk158")


@st.composite
def instructions(draw):
    module = draw(st.sampled_from(Module))
    others = st.lists(st.sampled_from([m for m in Module if m is not module]), unique=True)
    fields = {
        name: draw(st.integers(0, (1 << width) - 1))
        for name, (_, _, width) in FIELDS[module].items()
    }
    return Instruction(
        module=module,
        waits=tuple(draw(others)),
        releases=tuple(draw(others)),
        fields=fields,
    )


@given(st.lists(instructions(), max_size=12))
def test_programs_survive_memory_and_text(program):
    """decode(encode(p)) == p and assemble(disassemble(p)) == p for any field values."""
    code = tuple(program)
    assert decode(encode(code)) == code
    assert assemble(disassemble(code)) == code
    assert len(encode(code)) == size_words(code)


@pytest.mark.parametrize("module", Module)
def test_fields_of_an_instruction_never_share_a_bit(module):
    """Opcode, masks and fields are disjoint and stay inside the instruction's words."""
    taken = np.zeros((WORDS[module], 32), dtype=int)
    taken[0, 18:] += 1
    for word, low, width in FIELDS[module].values():
        assert low + width <= 32
        taken[word, low : low + width] += 1
    assert taken.max() == 1


def test_lengths_are_those_of_the_published_isa():
    """LD ST MM MV MISC SYS take 7, 3, 4, 4, 3 and 1 words."""
    assert [WORDS[module] for module in (LD, ST, MM, MV, MISC, SYS)] == [7, 3, 4, 4, 3, 1]


def test_wait_mask_counts_the_other_modules_from_the_highest_bit():
    """MV waiting for LD sets the highest of the five wait bits."""
    word = int(encode((Instruction(module=MV, waits=(LD,), releases=(SYS,)),))[0])
    assert (word >> 28, word >> 23 & 31, word >> 18 & 31) == (4, 0b10000, 0b00001)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "LD wait=MV release=MM,MV buffer=2 cross=1 bank=5 address=3 bytes=9 channels=8 table=1",
            "12314005 00000003 00000009 00000800 00000000 00000000 00000001",
        ),
        (
            (
                "LD turned=1 split=1 rows=7 bits=4 shift=2 rows_8=6 rows_4=5 groups=3 metadata=2 "
                "rows_2=1"
            ),
            "10003000 00000000 00000000 00070024 00060005 00300002 00010000",
        ),
        (
            "ST wait=MISC release=SYS buffer=3 link=1 split=1 bank=9 address=4 shift=4",
            "2105b009 00000004 02000000",
        ),
        (
            "MM wait=LD emit=1 groups=256 act=2 out=4 passes=8 tokens=128 tabled=1 down=3 table=5",
            "38020100 00020000 00040008 80830005",
        ),
        (
            "MV wait=LD relu=1 groups=1 shift=8 vector=1 matrix=2 tabled=1 down=3 table=5",
            "48008001 80010002 00000000 01030005",
        ),
        (
            "MISC op=4 groups=3 turn=1 a=1 blocked=1 repeat=1 b=2 out=3 rows=5",
            "50010003 10013002 00030005",
        ),
        ("SYS wait=ST code=1", "f4000001"),
    ],
)
def test_words_of_every_module_are_pinned(text, words):
    """The bit layout is part of the interface: it does not move unnoticed."""
    assert " ".join(f"{word:08x}" for word in encode(assemble(text)).tolist()) == words


def _nested(times):
    load = Instruction(
        module=LD,
        fields={"address": 5, "bytes": 64, "channels": 8},
        strides={"address": (0, 100, 0, 7), "bank": (0, 0, 0, 2048)},
    )
    inner = Loop(axis=3, times=times, body=(load,))
    return (Loop(axis=1, times=3, body=(inner, Instruction(module=SYS))),)


def test_loops_unroll_in_order_with_linear_fields():
    """A field is its base plus stride times iteration of every loop; banks wrap around."""
    program = decode(encode(_nested(4)))
    loads = [i for i in program if i.module is LD]
    assert [i.get("address") for i in loads] == [
        5 + 100 * a + 7 * b for a in range(3) for b in range(4)
    ]
    assert [i.get("bank") for i in loads[:4]] == [0, 2048, 0, 2048]
    assert [i.module for i in program[:5]] == [LD] * 4 + [SYS]
    assert count(_nested(4))[LD] == len(loads) == 12


def test_a_loop_may_not_take_an_address_out_of_its_field():
    """Unrolling names module, field and value instead of wrapping an address."""
    load = Instruction(module=LD, strides={"address": (1 << 27,)})
    with pytest.raises(ValueError, match=r"LD address must be 0 to 268435455, but a loop takes"):
        encode((Loop(axis=0, times=4, body=(load,)),))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"fields": {"depth": 1}}, r"MV has no field 'depth'; known: emit, accumulate"),
        ({"fields": {"groups": 1 << 14}}, r"MV groups must be 0 to 16383, not 16384"),
        ({"waits": (MV,)}, r"MV cannot wait for itself"),
    ],
)
def test_an_impossible_instruction_is_refused(change, sentence):
    """Fields and tokens that have no bits are errors."""
    with pytest.raises(ValueError, match=sentence):
        Instruction(module=MV, **change)


def test_a_loop_checks_its_numbers():
    """A Loop runs at least once, on one of the axes."""
    with pytest.raises(ValueError, match="at least once, not 0 times"):
        Loop(axis=0, times=0, body=())
    with pytest.raises(ValueError, match="axis 0 to 3, not 4"):
        Loop(axis=4, times=1, body=())


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("\nJMP", r"Assembly line 2: unknown module 'JMP'; known: LD, ST"),
        ("MV wait=XX", r"line 1: unknown module 'XX'"),
        ("MV groups=4 groups=5", r"line 1: each part is one name=value, not 'groups=5'"),
        ("MV groups", r"line 1: each part is one name=value, not 'groups'"),
        ("MV groups=-1", r"line 1: groups takes a whole number, not '-1'"),
        ("MV depth=1", r"line 1: MV has no field 'depth'"),
    ],
)
def test_bad_assembly_names_the_line(text, sentence):
    """Every error of the assembler says which line and what is allowed."""
    with pytest.raises(ValueError, match=sentence):
        assemble(text)


def test_assembly_takes_comments_and_blank_lines():
    """Text after # is ignored."""
    assert assemble("# nothing\n\nSYS wait=ST # the end\n") == (
        Instruction(module=SYS, waits=(ST,)),
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([0x90000000], r"word 0: unknown opcode 9"),
        ([0xF0000000, 0x10000000, 0], r"word 1: a LD takes 7 words, 2 are left"),
    ],
)
def test_corrupt_words_are_named(words, sentence):
    """Decoding says which word is wrong."""
    with pytest.raises(ValueError, match=sentence):
        decode(np.array(words, dtype=np.uint32))


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "step.bin"
    words = encode(_nested(2))
    write_program(
        path, ProgramFile(name="step", arch_digest="ab", words=words, tokens={"MV>LD": 2})
    )
    return path, words


def test_program_files_survive_the_disk(saved):
    """A program read back has the same words, tokens and names."""
    path, words = saved
    found = read_program(path)
    assert np.array_equal(found.words, words)
    assert (found.name, found.arch_digest, found.tokens) == ("step", "ab", {"MV>LD": 2})


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda b: b[:-5], r"step\.bin' is truncated or corrupt"),
        (lambda b: b[:20], r"step\.bin' is truncated or corrupt"),
        (lambda b: b[:7], r"step\.bin' is truncated or corrupt"),
        (lambda b: b[:60] + bytes([b[60] ^ 1]) + b[61:], r"truncated or corrupt"),
        (lambda b: b"ELF" + b, r"step\.bin' is not a program file"),
        (lambda b: b[:6] + b"\x09\x00" + b[8:], r"version 9; this reads 3"),
    ],
)
def test_a_damaged_program_file_is_named(saved, damage, sentence):
    """Truncation, a flipped bit, another version and another format are told apart."""
    path, _ = saved
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=sentence):
        read_program(path)


def test_a_missing_program_file_is_named(tmp_path):
    """A path without a file is an error with the path."""
    with pytest.raises(ValueError, match=r"gone\.bin' does not exist"):
        read_program(tmp_path / "gone.bin")


def test_a_dangling_wait_names_module_source_and_instruction():
    """A token that nobody gives stops the program; the sentence says who waits for whom."""
    program = assemble("LD bytes=64 channels=8 release=MV\nMV wait=LD\nMV wait=LD,ST\n")
    with pytest.raises(
        ValueError, match=r"MV waits at instruction 2 for a token of LD that never comes"
    ):
        execute(ARCH, program)


def test_two_modules_that_wait_for_each_other_are_both_named():
    """A cycle of waits is a deadlock although every token has a giver."""
    program = assemble("ST wait=MISC release=MISC\nMISC wait=ST release=ST\n")
    both = r"deadlocks: ST waits .* \(waiting: ST at instruction 0, MISC at instruction 1\)"
    with pytest.raises(ValueError, match=both):
        execute(ARCH, program)


def test_modules_overlap_and_wait_for_tokens_only():
    """LD runs ahead by its free halves; MV starts with the first tile and its latency."""
    text = "LD wait=MV release=MV bytes=6371 channels=8\nMV wait=LD release=LD groups=90 passes=1\n"
    program = assemble(text * 3)
    done = execute(ARCH, program, {"MV>LD": 2})
    load, latency, product = 10, 40, 113
    assert done.busy[LD] == 3 * load
    assert done.busy[MV] == 3 * product
    assert done.cycles == load + latency + 3 * product
    assert execute(ARCH, program, {"MV>LD": 1}).cycles == 3 * (load + latency + product)


def test_every_instruction_is_told_when_it_ran():
    """Numbers are those of the program; LD's second tile starts when its first has gone."""
    text = "LD wait=MV release=MV bytes=6371 channels=8\nMV wait=LD release=LD groups=90 passes=1\n"
    seen = {}
    execute(
        ARCH,
        assemble(text * 2),
        {"MV>LD": 2},
        on_run=lambda number, start, end: seen.update({number: (start, end)}),
    )
    assert seen == {0: (0, 10), 2: (10, 20), 1: (50, 163), 3: (163, 276)}


@st.composite
def pipelines(draw):
    """Draw a loop of LD, MV and MISC with random lengths and free halves."""
    load = Instruction(
        module=LD,
        waits=(MV,),
        releases=(MV,),
        fields={"bytes": draw(st.integers(0, 20000)), "channels": 8},
    )
    product = Instruction(
        module=MV,
        waits=(LD,),
        releases=(LD, MISC),
        fields={"groups": draw(st.integers(0, 40)), "passes": draw(st.integers(0, 4))},
    )
    after = Instruction(
        module=MISC,
        waits=(MV,),
        fields={"op": draw(st.integers(0, 5)), "rows": 1, "groups": draw(st.integers(0, 99))},
    )
    body = (load, product, after)
    inner = Loop(axis=3, times=draw(st.integers(1, 9)), body=body)
    return (Loop(axis=1, times=draw(st.integers(1, 4)), body=(*body, inner)),), draw(
        st.integers(1, 3)
    )


@given(pipelines())
def test_engine_and_executor_agree_to_the_cycle(case):
    """The folded max-plus time is the time of the unrolled program, token by token."""
    code, halves = case
    tokens = {"MV>LD": halves}
    exact = execute(ARCH, decode(encode(code)), tokens).cycles
    steps = program_steps(ARCH, code)
    found = transfer(steps, Module, tokens)
    zero = np.zeros(len(Module) + halves, dtype=np.int64)
    assert found(zero)[: len(Module)].max() == exact
    assert found.tokens == tokens
    assert program_cycles(steps, tokens, Module) == exact
