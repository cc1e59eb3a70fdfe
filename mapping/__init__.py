"""Choosing: dataflow and tiling per operator, exactly legal for the machine."""

from mapping.graph import MAPPERS
from mapping.machines import Simulated, map_graph, simulate_graph
from mapping.types import MapperResult, Mapping, NoMapping

__all__ = [
    "MAPPERS",
    "MapperResult",
    "Mapping",
    "NoMapping",
    "Simulated",
    "map_graph",
    "simulate_graph",
]
