"""What is known of the programs seen last: a mapper has timed what is simulated next."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, TypeVar

__all__ = ["PerProgram"]

V = TypeVar("V")

MOST: Final = 1024
"""Programs remembered; the ones not asked for the longest go first."""


class PerProgram(Generic[V]):
    """One value for each program, by the program object itself and its initial tokens."""

    def __init__(self) -> None:
        self._known: OrderedDict[int, tuple[Any, Mapping[str, int], V]] = OrderedDict()

    def get(self, program: Any, tokens: Mapping[str, int], make: Callable[[], V]) -> V:
        """Return the value of `program`, made by `make` if it is not known."""
        key = id(program)  # the entry holds the program, so no other has its id
        known = self._known.get(key)
        if known and known[0] is program and known[1] == tokens:
            self._known.move_to_end(key)
            return known[2]
        value = make()
        self._known[key] = program, tokens, value
        if len(self._known) > MOST:
            self._known.popitem(last=False)
        return value
