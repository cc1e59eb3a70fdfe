"""What a program must be for the core to run it, told before it runs."""

from collections.abc import Mapping, Sequence

from rtl.dsp_machine import shapes
from simulator.arch.dsp_cells import CANDIDATES
from simulator.arch.dsp_chain import DspChain
from simulator.dsp_isa.layout import LINE_BYTES, LINE_ELEMENTS, Buffer, Instruction, MiscOp, Module

__all__ = ["check_program"]


def check_program(arch: DspChain, program: Sequence[Instruction]) -> None:
    """Raise ValueError, naming the instruction, for one that the core has no hardware for."""
    gives: dict[Module, bool] = {}
    for number, item in enumerate(program):
        problem = _problem(arch, item)
        if item.module is Module.ST:
            linked = bool(item.get("link"))
            mixed = [m for m in item.releases if gives.setdefault(m, linked) != linked]
            problem = problem or (f"tokens for {mixed[0]} from link and memory" if mixed else None)
        if problem:
            raise ValueError(f"The RTL machine runs no {item.module} with {problem} ({number})")


def _problem(arch: DspChain, item: Instruction) -> str | None:
    match item.module:
        case Module.LD:
            return _load_problem(arch, item)
        case Module.ST:
            return _store_problem(arch, item)
        case Module.MV:
            if item.get("accumulate") or not item.get("emit"):
                return "a reduction in parts"
            words = item.get("groups") * item.get("passes")
            if not 0 < words <= shapes.half_words(arch):
                return f"{words} passes: half the buffer holds 1 to {shapes.half_words(arch)}"
            return _beyond(arch, item, {"vector": CANDIDATES * item.get("groups"), "out": 1})
        case Module.MISC:
            return _row_problem(arch, item)
        case Module.MM:
            return _matrices_problem(arch, item)
        case Module.SYS:
            return None


def _row_problem(arch: DspChain, item: Instruction) -> str | None:
    rows, length = item.get("rows"), CANDIDATES * item.get("groups")
    if not rows * length:
        return "no rows"
    first = item.get("b") if item.get("op") == MiscOp.SOFTMAX else 0
    if first and first + rows - 1 > length:
        return f"rows that grow to {first + rows - 1} elements of {length}"
    return _beyond(arch, item, dict.fromkeys(("a", "out"), rows * length))


def _matrices_problem(arch: DspChain, item: Instruction) -> str | None:
    if item.get("accumulate") or not item.get("emit"):
        return "a reduction in parts"
    if item.get("tokens") != arch.mm_tokens:
        return f"{item.get('tokens')} tokens instead of {arch.mm_tokens}"
    groups, passes = item.get("groups"), item.get("passes")
    words, most = groups * -(-passes // arch.mv_columns), shapes.weight_words(arch)
    if not 0 < words <= most or passes > CANDIDATES:
        return f"{passes} passes of {groups} groups: half the buffer holds {most} words"
    return _beyond(arch, item, {"out": arch.mm_tokens * CANDIDATES})


def _load_problem(arch: DspChain, item: Instruction) -> str | None:
    size, beat = item.get("bytes"), shapes.beat_bytes(arch)
    if not size or size % beat or item.get("metadata") % beat:
        return f"{size} B, {item.get('metadata')} of them indices: beats have {beat}"
    if item.get("split") and size % shapes.WORD_RESULTS:
        return f"{size} B instead of pieces of {shapes.WORD_RESULTS}"
    match item.get("buffer"):
        case Buffer.OUT:
            return _beyond(arch, item, {"bank": size})
        case Buffer.TABLE:
            lines = item.get("bank") + -(-size // LINE_BYTES)
            return None if lines <= shapes.TABLE_LINES else "a line that the row table has not"
        case Buffer.ACT:
            held = (item.get("rows"), item.get("groups"))
            fits = held[0] == arch.mm_tokens and held[1] <= shapes.act_words(arch)
            return None if fits else f"{held[0]} tokens of {held[1]} groups"
        case _:
            rows = [item.get(name) for name in ("rows", "rows_8", "rows_4", "rows_2")]
            codes, least = size - item.get("metadata"), 2 * CANDIDATES
            if item.get("bits") and codes < least:
                return f"{codes} B of codes, less than two words of the dequantiser ({least})"
            portions = any(count % shapes.WORD_RESULTS for count in rows)
            if portions:
                return f"rows in other portions than sixteens ({rows})"
            streams = item.get("buffer") == Buffer.WEIGHT
            return f"{rows[0]} columns for MM" if streams and rows[0] != CANDIDATES else None


def _store_problem(arch: DspChain, item: Instruction) -> str | None:
    size = item.get("bytes")
    whole = item.get("link") or item.get("split")
    step = shapes.WORD_RESULTS if whole else shapes.beat_bytes(arch)
    if not size or size % step:
        return f"{size} B instead of a multiple of {step}"
    linked = {"address": size} if item.get("link") else {}
    return _beyond(arch, item, {"bank": size} | linked)


def _beyond(arch: DspChain, item: Instruction, sizes: Mapping[str, int]) -> str | None:
    """Return what is wrong if a vector does not end inside the out buffer."""
    held = shapes.out_words(arch) * shapes.WORD_RESULTS
    for name, size in sizes.items():
        if item.get(name) * LINE_ELEMENTS + size > held:
            return f"{name} beyond the {held} results of the out buffer"
    return None
