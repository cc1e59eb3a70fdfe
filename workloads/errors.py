"""The error of workload files that cannot be read or understood."""

from pathlib import Path

__all__ = ["WorkloadError", "check_file"]


class WorkloadError(ValueError):
    """A workload file is missing, damaged or asks for something that is not allowed."""


def check_file(path: Path) -> None:
    """Raise WorkloadError if `path` is a folder or missing."""
    if path.is_dir():
        raise WorkloadError(f"{path} is a folder, not a file")
    if not path.is_file():
        raise WorkloadError(f"No such file: {path}")
