"""Programs as text, one instruction a line: `MV wait=LD,ST release=LD emit=1 groups=256`."""

from collections.abc import Iterable

from simulator.dsp_isa.layout import FIELDS, Instruction, Module

__all__ = ["assemble", "disassemble"]

_MASKS = {"wait": "waits", "release": "releases"}


def disassemble(program: Iterable[Instruction]) -> str:
    """Return the text of a flat program; fields that are 0 are left out."""
    return "".join(f"{_line(instruction)}\n" for instruction in program)


def _line(instruction: Instruction) -> str:
    parts = [str(instruction.module)]
    for name, attribute in _MASKS.items():
        modules = getattr(instruction, attribute)
        parts += [f"{name}={','.join(modules)}"] if modules else []
    values = ((name, instruction.get(name)) for name in FIELDS[instruction.module])
    return " ".join(parts + [f"{name}={value}" for name, value in values if value])


def assemble(text: str) -> tuple[Instruction, ...]:
    """Return the program of `text`; # starts a comment, blank lines are skipped.

    Raises ValueError naming the line, what was found and what is allowed.
    """
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if words:
            try:
                found.append(_instruction(words))
            except ValueError as error:
                raise ValueError(f"Assembly line {number}: {error}") from None
    return tuple(found)


def _module(name: str) -> Module:
    if name not in set(Module):
        raise ValueError(f"unknown module {name!r}; known: {', '.join(Module)}")
    return Module(name)


def _instruction(words: list[str]) -> Instruction:
    module = _module(words[0])
    masks: dict[str, tuple[Module, ...]] = {"waits": (), "releases": ()}
    given: set[str] = set()
    fields: dict[str, int] = {}
    for word in words[1:]:
        name, equals, value = word.partition("=")
        if not equals or name in given:
            raise ValueError(f"each part is one name=value, not {word!r}")
        given.add(name)
        if name in _MASKS:
            masks[_MASKS[name]] = tuple(_module(part) for part in value.split(","))
        elif value.isdecimal():
            fields[name] = int(value)
        else:
            raise ValueError(f"{name} takes a whole number, not {value!r}")
    return Instruction(
        module=module, waits=masks["waits"], releases=masks["releases"], fields=fields
    )
