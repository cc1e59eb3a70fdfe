"""The common base of our components, and structured signals."""

from typing import TYPE_CHECKING, Any

from amaranth.hdl import Signal
from amaranth.lib import data, wiring

__all__ = ["Unit", "structured"]


class Unit(wiring.Component):
    """A component whose ports are a function of the parameters given to its constructor."""

    if TYPE_CHECKING:
        # Ports become attributes in the constructor, where a type checker cannot see them.
        def __getattr__(self, name: str) -> Any:
            """Return the port called `name`."""


def structured(layout: data.Layout, name: str) -> Any:
    """Return a signal called `name` whose fields are those of `layout`."""
    return Signal(layout, name=name)
