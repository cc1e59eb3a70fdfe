"""The error of workload files that cannot be read or understood."""

__all__ = ["WorkloadError"]


class WorkloadError(ValueError):
    """A workload file is missing, damaged or asks for something that is not allowed."""
