"""report.html: one self-contained page made from a run's document alone."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from sparseloom.figures import draw
from sparseloom.schema import SCHEMA, at_work
from sparseloom.tables import SIDES, si, two_sided

__all__ = ["read_document", "render", "report_file"]

_KEYS: Final[Mapping[str, type | tuple[type, ...]]] = {
    "workload": str,
    "arch": str,
    "sparsity": str,
    "cycles": int,
    "seconds": (int, float),
    "energy_j": (int, float),
    "macs_dense": int,
    "macs_effectual": int,
    "utilisation": (int, float),
    "bottleneck": str,
    "peak_macs_per_cycle": int,
    "bottlenecks": list,
    "energy": dict,
    "roofline": dict,
    "mapping": dict,
    "arch_parameters": dict,
    "arch_sources": dict,
    "digests": dict,
    "notes": list,
    "unsupported": dict,
    "ops": list,
}


def read_document(path: Path) -> dict[str, Any]:
    """Return the document in a result.json, or in the folder that holds one.

    Raises ValueError, naming the file, if it is not the document of a run.
    """
    file = path / "result.json" if path.is_dir() else path
    if not file.is_file():
        raise ValueError(
            f"{str(file)!r} does not exist; give a result.json, its folder or a sweep's store"
        )
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{str(file)!r} is not valid JSON: {error}") from None
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise ValueError(f"{str(file)!r} is not the result of a run (schema {SCHEMA})")
    for key, kind in _KEYS.items():
        if not isinstance(found.get(key), kind):
            raise ValueError(f"{str(file)!r}: key {key!r} is missing or of the wrong type")
    return found


def _headline(document: Mapping[str, Any]) -> list[dict[str, str]]:
    d = document
    beside = "baseline_cycles" in d
    rows = [
        ("cycles", f"{d['cycles']:,}", f"{d['baseline_cycles']:,}" if beside else ""),
        *(
            (f"of which {name}", f"{spent['cycles']:,}", _count(spent.get("baseline_cycles")))
            for name, spent in d.get("passes", {}).items()
        ),
        ("time", si(d["seconds"], "s"), si(d["baseline_seconds"], "s") if beside else ""),
        (
            "dynamic energy",
            si(d["energy_j"], "J"),
            si(d["baseline_energy_j"], "J") if beside else "",
        ),
        (
            "utilisation (effectual)",
            f"{d['utilisation']:.1%}",
            f"{d['baseline_utilisation']:.1%}" if beside else "",
        ),
        ("dense MACs", f"{d['macs_dense']:,}", ""),
        *(
            (label, f"{d[key]:,}", "")
            for label, key in (
                ("MACs with a weight", "macs_weight"),
                ("MACs with an activation", "macs_act"),
            )
            if two_sided(d)
        ),
        (
            "effectual MACs",
            f"{d['macs_effectual']:,}",
            f"{d['baseline_macs_effectual']:,}" if beside else "",
        ),
    ]
    rows += [
        (label, si(d[key], unit), "")
        for key, label, unit in (
            ("prefill_s", "prefill", "s"),
            ("decode_s", "decode", "s"),
            ("tokens_per_s", "decode rate", "token/s"),
        )
        if key in d
    ]
    return [{"name": name, "value": value, "baseline": base} for name, value, base in rows]


def _count(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _largest(document: Mapping[str, Any]) -> str:
    """Return what the largest part of the run is."""
    d = document
    cause, macs = d["bottleneck"], d["macs_effectual"]
    cycles = next((part["cycles"] for part in d["bottlenecks"] if part["cause"] == cause), 0)
    return at_work(cause, cycles, macs, d["peak_macs_per_cycle"])


def render(document: Mapping[str, Any]) -> str:
    """Return the page: headline numbers, figures, operators, notes, assumptions, provenance.

    The same document gives the same page. Values are escaped; nothing is loaded from elsewhere.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("sparseloom"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["si"] = si
    return environment.get_template("report.html.j2").render(
        d=document,
        headline=_headline(document),
        figures=draw(document),
        largest=_largest(document),
        sides=SIDES if two_sided(document) else (),
        parameters=_flat(document["arch_parameters"]),
    )


def _flat(parameters: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested machine parameters by dotted key, type tags left out."""
    out: dict[str, Any] = {}
    for key, value in parameters.items():
        if isinstance(value, Mapping):
            out |= _flat(value, f"{prefix}{key}.")
        elif key != "type":
            out[f"{prefix}{key}"] = value
    return out


def report_file(path: Path) -> Path:
    """Write report.html beside the result.json at `path` (or in folder `path`); return it."""
    from sparseloom.outputs import write_files

    document = read_document(path)
    try:
        page = render(document)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{str(path)!r} is not a complete result: {error}") from None
    folder = path if path.is_dir() else path.parent
    return write_files({"report.html": page}, folder)[0]
