"""What was asked for last, kept in a process up to a number of entries."""

import collections.abc as abc
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, TypeVar

__all__ = ["PerProgram", "Recent"]

K = TypeVar("K", bound=abc.Hashable)
V = TypeVar("V")

MOST_PROGRAMS: Final = 1024


class Recent(Generic[K, V]):
    """A mapping of at most `most` entries that forgets what was not asked for the longest."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._entries: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        """Return the entry of `key`, None without one."""
        if key not in self._entries:
            return None
        self._entries.move_to_end(key)
        return self._entries[key]

    def put(self, key: K, value: V) -> None:
        """Keep `value`."""
        self._entries[key] = value
        if len(self._entries) > self._most:
            self._entries.popitem(last=False)


class PerProgram(Generic[V]):
    """One value for each program, by the program object itself and its initial tokens.

    A mapper has timed what is simulated next.
    """

    def __init__(self) -> None:
        self._known: Recent[int, tuple[Any, Mapping[str, int], V]] = Recent(MOST_PROGRAMS)

    def get(self, program: Any, tokens: Mapping[str, int], make: Callable[[], V]) -> V:
        """Return the value of `program`, made by `make` if it is not known."""
        key = id(program)  # the entry holds the program, so no other has its id
        known = self._known.get(key)
        if known and known[0] is program and known[1] == tokens:
            return known[2]
        value = make()
        self._known.put(key, (program, tokens, value))
        return value
