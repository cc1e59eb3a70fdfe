"""SIGMA's flexible dot-product engines in Amaranth: distribution network and forwarding tree."""

from rtl.flex_dpe.core import FlexDpeCore
from rtl.flex_dpe.engine import Engine
from rtl.flex_dpe.shapes import flex_ports

__all__ = ["Engine", "FlexDpeCore", "flex_ports"]
