"""The common base of our components, their repeated parts, and structured signals."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from amaranth.hdl import ClockSignal, Instance, Module, ResetSignal, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In

__all__ = ["Unit", "add_part", "structured", "tree_sum"]


class Unit(wiring.Component):
    """A component whose ports are a function of the parameters given to its constructor."""

    if TYPE_CHECKING:
        # Ports become attributes in the constructor, where a type checker cannot see them.
        def __getattr__(self, name: str) -> Any:
            """Return the port called `name`."""


def structured(layout: data.Layout, name: str) -> Any:
    """Return a signal called `name` whose fields are those of `layout`."""
    return Signal(layout, name=name)


def tree_sum(values: Sequence[Value]) -> Value:
    """Return the sum of one value or more, added pairwise: as deep as the logarithm of many."""
    if len(values) == 1:
        return values[0]
    half = len(values) // 2
    return tree_sum(values[:half]) + tree_sum(values[half:])


def add_part(
    m: Module,
    name: str,
    members: dict[str, wiring.Member],
    build: Callable[[], Unit],
    module: str | None,
) -> Any:
    """Add a part with ports `members` to `m`; returns its ports.

    The part is what `build` returns or, if `module` is given, an instance of the module of that
    name, which is elaborated elsewhere once however often it is placed.
    """
    if module is None:
        m.submodules[name] = built = build()
        return built
    # The instance's ports as free signals: nothing of the part is elaborated here.
    part = wiring.Signature(members).create(path=(name,))
    ports = {
        f"{'i' if member.flow is In else 'o'}_{port}": Value.cast(getattr(part, port))
        for port, member in members.items()
    }
    m.submodules[name] = Instance(module, i_clk=ClockSignal(), i_rst=ResetSignal(), **ports)
    return part
