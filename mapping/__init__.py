"""Choosing: dataflow and tiling per operator, exactly legal for the machine."""

from mapping.graph import MAPPERS
from mapping.machines import map_graph
from mapping.types import MapperResult, Mapping, NoMapping

__all__ = ["MAPPERS", "MapperResult", "Mapping", "NoMapping", "map_graph"]
