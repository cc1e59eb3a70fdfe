"""Design-space sweeps that resume: points from a specification, results in one SQLite file."""

from sparseloom.sweeps.run import SweepReport, sweep
from sparseloom.sweeps.spec import EXAMPLE, SweepSpec, read_spec
from sparseloom.sweeps.store import open_store

__all__ = ["EXAMPLE", "SweepReport", "SweepSpec", "open_store", "read_spec", "sweep"]
