"""Paths that a user gives: what to call them, and why there is no file to read."""

from pathlib import Path

__all__ = ["absence", "named"]


def absence(path: Path) -> str | None:
    """Return why no file can be read at `path`, as the end of a sentence; None if one can.

    >>> absence(Path("/"))
    'is a folder, not a file'
    """
    if path.is_dir():
        return "is a folder, not a file"
    return None if path.is_file() else "does not exist"


def named(source: str | Path) -> str:
    """Return a source in quotes as it was given, and whether it is a folder.

    >>> named("resnet99"), named("/")
    ("'resnet99'", "'/', a folder")
    """
    folder = str(source) and Path(source).is_dir()
    return f"{str(source)!r}{', a folder' if folder else ''}"
