"""Choosing: dataflow and tiling per operator, exactly legal for the machine."""

from mapping.cache import Cache
from mapping.graph import MAPPERS
from mapping.machines import Simulated, map_graph, simulate_graph, total_graph
from mapping.objective import Objective
from mapping.types import MapperResult, Mapping, NoMapping

__all__ = [
    "MAPPERS",
    "Cache",
    "MapperResult",
    "Mapping",
    "NoMapping",
    "Objective",
    "Simulated",
    "map_graph",
    "simulate_graph",
    "total_graph",
]
