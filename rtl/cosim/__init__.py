"""Co-simulation: the same points played on the software model and on the RTL."""

from rtl.cosim.campaign import ENGINES, CosimReport, cosimulate

__all__ = ["ENGINES", "CosimReport", "cosimulate"]
