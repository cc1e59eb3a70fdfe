"""Mistyped values of files are named with what is wanted there, in the user's words."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import pytest

from workloads.wanted import owner, wanted
from workloads.yaml_file import parse_yaml


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, kw_only=True)
class Part:
    size: int = 1
    share: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Whole:
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  a dataclass takes no ClassVar here

    active: bool = True
    name: str = ""
    colour: Colour | None = None
    part: Part | None = None
    parts: tuple[Part, ...] = ()
    pair: tuple[int, int] = (1, 1)
    numbers: dict[str, tuple[float, ...]] = field(default_factory=dict)
    either: Mapping[str, int | str] = field(default_factory=dict)
    colours: tuple[Colour, ...] = ()
    widths: tuple[int, ...] = field(default=(), metadata={"wanted": "a list of 3 and 4"})

    def __post_init__(self):
        if self.name == "bad":
            raise ValueError("Whole name must not be bad while active")


CASES = {
    "active: 7": "line 1: active is 7; it must be true or false",
    "name: 7": "line 1: name is 7; it must be a text",
    "colour: green": "line 1: colour is 'green'; it must be red, blue or null",
    "part: 7": r"line 1: part is 7; it must be a mapping \(size, share\) or null",
    "part: {size: x}": r"line 1: part\.size is 'x'; it must be a whole number",
    "part: {size: true}": r"line 1: part\.size is true; it must be a whole number",
    "part:\n  share: x": r"line 2: part\.share is 'x'; it must be a number",
    "parts: 7": "line 1: parts is 7; it must be a list of mappings",
    "parts:\n- size: 1\n- size: null": r"line 3: parts\.1\.size is null; it must be a whole number",
    "pair: 7": "line 1: pair is 7; it must be a list of 2 whole numbers",
    "numbers: 7": "line 1: numbers is 7; it must be a mapping",
    "numbers: {a: 7}": r"line 1: numbers\.a is 7; it must be a list of numbers",
    "numbers: {a: [no]}": r"line 1: numbers\.a\.0 is false; it must be a number",
    "either: {a: [1]}": r"line 1: either\.a is \[1\]; it must be a whole number or a text",
    "colours: 7": "line 1: colours is 7; it must be a list of entries, each red or blue",
    "widths: 4": "line 1: widths is 4; it must be a list of 3 and 4",
    "pair: [1]": r"line 1: key 'pair\.1' is missing",
    "part: {3: 4}": r"line 1: unknown key 'part\.3'; known: size, share",
    "active: on\nname: bad": "line 2: Whole name must not be bad while active",
    f"active: {'x' * 500}": r"active is 'x{10,30}\.\.\.x+'; it must be",
}


@pytest.mark.parametrize("text", CASES)
def test_a_mistyped_value_is_named_with_its_line_and_what_is_wanted(text):
    """Of every kind of field, wherever it stands; a truth is no number."""
    file = parse_yaml(text, "file")
    with pytest.raises(ValueError, match=CASES[text]):
        file.build(Whole, file.content)


def test_truths_stand_where_they_are_wanted():
    """Only where no truth is wanted is one refused."""
    file = parse_yaml("active: false\nwidths: [3]\npart: {size: 2}", "file")
    assert file.build(Whole, file.content) == Whole(active=False, widths=(3,), part=Part(size=2))


def test_the_owner_of_a_key_is_the_dataclass_around_it():
    assert owner(Whole, ["parts", 0]) is Part
    assert owner(Whole, []) is Whole
    assert wanted(Whole, ["parts", 0, "share"]) == "a number"
