"""Pricing of counted events: energy, and where the machine's limits lie."""

from cost_models.energy import DRAM, HOROWITZ_45NM, EnergyTable, Entry, MissingPrice
from cost_models.price import Cost, Price, price, prices
from cost_models.roofline import Roofline, RooflinePoint, machine_roofline, roofline

__all__ = [
    "DRAM",
    "HOROWITZ_45NM",
    "Cost",
    "EnergyTable",
    "Entry",
    "MissingPrice",
    "Price",
    "Roofline",
    "RooflinePoint",
    "machine_roofline",
    "price",
    "prices",
    "roofline",
]
