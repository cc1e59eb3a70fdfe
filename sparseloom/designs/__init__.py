"""Choosing a design: which machine to build on a device for given workloads, with proof."""

from sparseloom.designs.explore import design
from sparseloom.designs.outcome import Design, Machine
from sparseloom.designs.spec import DESIGNS, DesignSpec, load_design

__all__ = ["DESIGNS", "Design", "DesignSpec", "Machine", "design", "load_design"]
