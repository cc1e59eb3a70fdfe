"""Output folders: every file is written, or none is."""

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mapping.placer import Placement, Problem, SitesProblem
    from sparseloom.designs import Design, DesignSpec

__all__ = ["check_folder", "dumps", "write_files", "write_placed", "write_run"]


def dumps(document: Mapping[str, Any]) -> str:
    """Return the JSON text of a document, keys in their own order."""
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def check_folder(folder: Path) -> None:
    """Raise ValueError if `folder`, or something it would lie in, is a file."""
    for path in (folder.absolute(), *folder.absolute().parents):
        if path.is_dir():
            return
        if path.exists():
            raise ValueError(f"Output folder {str(folder)!r} cannot be: {str(path)!r} is a file")


def write_files(files: Mapping[str, str | bytes], folder: Path) -> tuple[Path, ...]:
    """Write `files` (name to text or bytes) into `folder`, made if missing; return their paths.

    They are written beside it first and then renamed into place, so that an error leaves what
    was there before. Raises ValueError, naming the folder, if it cannot be written.
    """
    check_folder(folder)
    try:
        return _written(files, folder.absolute())
    except OSError as error:
        raise ValueError(
            f"Output folder {str(folder)!r} cannot be written: {error.strerror}"
        ) from None


def _written(files: Mapping[str, str | bytes], folder: Path) -> tuple[Path, ...]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            (partial / name).write_bytes(data)
        folder.mkdir(exist_ok=True)
        for name in files:
            (partial / name).replace(folder / name)
    finally:
        shutil.rmtree(partial)
    return tuple(folder / name for name in files)


def write_run(document: Mapping[str, Any], folder: Path) -> tuple[Path, ...]:
    """Write result.json and report.html of a run's document into `folder`."""
    from sparseloom.report import render

    return write_files({"result.json": dumps(document), "report.html": render(document)}, folder)


def write_placed(
    problem: "Problem | SitesProblem | DesignSpec", found: "Placement | Design", folder: Path
) -> tuple[Path, ...]:
    """Write a placement's placement.json and floorplan.svg into `folder`, or a design's files.

    These are design.json, candidates.csv (one row a candidate) and front.svg.
    """
    from sparseloom.designs import Design, DesignSpec

    files: dict[str, str | bytes]
    if isinstance(found, Design):
        from sparseloom.designs.figures import front_svg
        from sparseloom.designs.outcome import to_dataframe

        files = {
            "design.json": dumps(found.to_json()),
            "candidates.csv": to_dataframe(found).to_csv(index=False),
            "front.svg": front_svg(found),
        }
    else:
        from sparseloom.floorplan import floorplan_svg

        assert not isinstance(problem, DesignSpec)
        files = {
            "placement.json": dumps({**found.summary(), **found.to_json()}),
            "floorplan.svg": floorplan_svg(problem, found),
        }
    return write_files(files, folder)
