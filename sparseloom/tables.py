"""Terminal tables of the command line, built from plain documents."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from sparseloom.schema import CAUSES

if TYPE_CHECKING:
    from rich.table import Table

    from sparseloom.explanation import Explanation, OpStory
    from sparseloom.reproduce import Row, Section
    from sparseloom.studies.tables import Cell
    from sparseloom.studies.tables import Table as StudyTable

__all__ = [
    "SIDES",
    "catalogue_table",
    "causes_lines",
    "design_tables",
    "explanation_table",
    "mapped_lines",
    "mapped_table",
    "ops_table",
    "placement_table",
    "plain_table",
    "reproduction_table",
    "run_table",
    "si",
    "study_table",
    "two_sided",
]


def si(value: float, unit: str) -> str:
    """Return `value` with three significant digits and an SI prefix.

    >>> si(0.0030535, "s")
    '3.05 ms'
    """
    for scale, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""), (1e-3, "m"), (1e-6, "µ")):
        if abs(value) >= scale:
            return f"{value / scale:.3g} {prefix}{unit}"
    return f"{value / 1e-9:.3g} n{unit}"


def _table(title: str, columns: Sequence[tuple[str, str]]) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name, justify in columns:
        table.add_column(
            name,
            justify="right" if justify.startswith("right") else "left",
            no_wrap="fold" not in justify,
            overflow="fold" if "fold" in justify else "ellipsis",
        )
    return table


def plain_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> "Table":
    """Return a table of texts, everything but the first column to the right."""
    table = _table(title, [(name, "right" if i else "left") for i, name in enumerate(columns)])
    for row in rows:
        table.add_row(*row)
    return table


def run_table(document: Mapping[str, Any]) -> "Table":
    """Return the headline numbers of a run, its baseline in a column of its own."""
    d = document
    beside = "baseline_cycles" in d
    columns = [("", "left"), (d["sparsity"], "right")]
    if beside:
        columns += [(d["baseline"], "right"), ("ratio", "right")]
    table = _table(f"{d['workload']} on {d['arch']}", columns)

    def row(name: str, key: str, text: Any, ratio: float | None = None) -> None:
        cells = [name, text(d[key])]
        if beside:
            before = text(d[f"baseline_{key}"]) if f"baseline_{key}" in d else ""
            cells += [before, f"{ratio:.2f}x" if ratio is not None else ""]
        table.add_row(*cells)

    row("cycles", "cycles", lambda v: f"{v:,}", d.get("speedup"))
    for name, spent in d.get("passes", {}).items():
        cells = [f"  {name}", f"{spent['cycles']:,}"]
        if beside:
            before, speedup = spent.get("baseline_cycles"), spent.get("speedup")
            cells += [f"{before:,}" if before is not None else ""]
            cells += [f"{speedup:.2f}x" if speedup is not None else ""]
        table.add_row(*cells)
    row("time", "seconds", lambda v: si(v, "s"), d.get("speedup"))
    row("dynamic energy", "energy_j", lambda v: si(v, "J"), d.get("energy_ratio"))
    row("utilisation", "utilisation", lambda v: f"{v:.1%}")
    row("dense MACs", "macs_dense", lambda v: f"{v:,}")
    if two_sided(d):
        row("MACs with a weight", "macs_weight", lambda v: f"{v:,}")
        row("MACs with an activation", "macs_act", lambda v: f"{v:,}")
    row("effectual MACs", "macs_effectual", lambda v: f"{v:,}")
    for key, name, unit in (
        ("prefill_s", "prefill", "s"),
        ("decode_s", "decode", "s"),
        ("tokens_per_s", "decode rate", "token/s"),
    ):
        if key in d:
            row(name, key, lambda v, unit=unit: si(v, unit))
    if "bandwidth_utilisation" in d:
        row("bandwidth utilisation", "bandwidth_utilisation", lambda v: f"{v:.1%}")
        row("instructions", "instruction_bytes", lambda v: si(v, "B"))
    return table


def two_sided(document: Mapping[str, Any]) -> bool:
    """Whether the machine looks at the zeros of both operands."""
    return bool(document["arch_parameters"].get("type") == "PEGrid")


SIDES: Final = (("weights", "macs_weight"), ("activations", "macs_act"), ("both", "macs_effectual"))
"""Columns of a grid's operators: the share of the products that zeros of each leave."""


def ops_table(document: Mapping[str, Any], top: int) -> "Table":
    """Return the `top` operators with the most cycles, in the order they run."""
    ops = document["ops"]
    chosen = sorted(range(len(ops)), key=lambda i: (-ops[i]["cycles"], i))[:top]
    beside = "baseline_cycles" in document
    columns = [("operator", "fold"), ("kind", "left"), ("cycles", "right"), ("share", "right")]
    columns += [("speed-up", "right")] if beside else []
    sides = SIDES if two_sided(document) else ()
    columns += [(name, "right") for name, _ in sides]
    columns += [("mostly", "left")] + ([] if sides else [("dataflow", "left")])
    shown = f"busiest {len(chosen)} of {len(ops)} operators"
    table = _table(shown, columns)
    for index in sorted(chosen):
        op = ops[index]
        speedup = op.get("speedup") if op["macs_dense"] else None
        cells = [
            op["name"],
            op["kind"],
            f"{op['cycles']:,}",
            f"{op['cycles'] / max(document['cycles'], 1):.1%}",
        ]
        cells += [f"{speedup:.2f}x" if speedup else ""] if beside else []
        dense = op["macs_dense"]
        cells += [f"{op[key] / dense:.1%}" if dense else "" for _, key in sides]
        flow = [] if sides else [f"{op['dataflow']} {op['nm']}".strip()]
        table.add_row(*cells, op["bottleneck"], *flow)
    return table


def _cost(value: float, unit: str) -> str:
    return f"{value:,} {unit}" if isinstance(value, int) else si(value, unit)


MAPPED = {
    "energy": "dynamic energy ",
    "edp": "energy-delay products of all operators ",
    "dram_bytes": "DRAM traffic ",
}
"""What stands in front of a mapping's cost; cycles say it themselves."""


def mapped_lines(document: Mapping[str, Any]) -> list[str]:
    """Return the headline of a mapping: cost, bound and what it took."""
    d = document
    cost, bound = (_cost(d[key], d["unit"]) for key in ("cost", "bound"))
    gap = "proved optimal in its space" if not d["gap"] else f"bound {bound}, gap {d['gap']:.2%}"
    return [
        f"{d['workload']} on {d['arch']}, weights {d['sparsity']}, mapper {d['mapper']}",
        f"{MAPPED.get(d['objective'], '')}{cost}, {gap}",
        f"{d['considered']:,} candidates in {d['seconds']:.2f} s",
        *_fused_lines(d),
    ]


def _fused_lines(document: Mapping[str, Any]) -> list[str]:
    fused = document.get("fused")
    if not fused:
        return []
    kept = sum(len(chain) - 1 for chain in fused["chains"])
    unfused = "nothing" if fused["unfused"] is None else _cost(fused["unfused"], document["unit"])
    lines = [f"{kept} tensors stay on chip, in {len(fused['chains'])} chains; unfused: {unfused}"]
    return [*lines, *(f"  {' -> '.join(chain)}" for chain in fused["chains"])]


def mapped_table(document: Mapping[str, Any], top: int) -> "Table":
    """Return the `top` operators that cost most: dataflow, tile and loop order of each."""
    ops = sorted(document["ops"], key=lambda op: -op["cost"])[:top]
    columns = [("operator", "fold"), (document["objective"], "right"), ("gap", "right")]
    columns += [("dataflow", "left"), ("tile u x m x k x n", "right"), ("loops", "left")]
    table = _table(f"costliest {len(ops)} of {len(document['ops'])} operators", columns)
    for op in ops:
        gap = (op["cost"] - op["bound"]) / op["cost"] if op["cost"] else 0.0
        table.add_row(
            op["name"],
            _cost(op["cost"], document["unit"]),
            f"{gap:.1%}",
            " ".join(filter(None, (op["dataflow"], op["nm"], _width(op)))),
            " x ".join(map(str, op["tile"].values())) if op["tile"] else "",
            op["order"],
        )
    return table


def _width(op: Mapping[str, Any]) -> str:
    return f"{op['bits']}-bit" if "bits" in op else ""


def explanation_table(explanation: "Explanation", top: int) -> "Table":
    """Return the `top` operators with the most cycles: why, on which dataflow, what was lost.

    Operators of several layers that are equal in everything share a row.
    """
    from sparseloom.explanation import alike

    groups = alike(explanation.ops)
    chosen = sorted(groups, key=lambda group: -group.cycles)[:top]
    shown = sum(group.members for group in chosen)
    rivals = any(op.rivals for op in explanation.ops)
    columns = [("operator", "fold"), ("cycles", "right"), ("roof", "left")]
    columns += [("dataflows (cycles)", "fold")] if rivals else []
    title = f"busiest {shown} of {len(explanation.ops)} operators"
    table = _table(title, [*columns, ("why", "fold")])
    for group in chosen:
        op = group.story
        times = f"{group.members} x " if group.members > 1 else ""
        cells = [group.name, f"{times}{op.cycles:,}"]
        cells += ["" if op.of_roof is None else f"{op.of_roof:.0%} of {op.roof}"]
        cells += [_flows(op)] if rivals else []
        table.add_row(*cells, op.sentence)
    return table


def _flows(op: "OpStory") -> str:
    """Return the cycles of an operator under every dataflow, the setting behind the best."""
    return ", ".join(
        f"{flow} {cycles:,}" if i else f"{flow} {op.setting}: {cycles:,}"
        for i, (flow, cycles) in enumerate(op.rivals)
    )


def causes_lines(causes: Iterable[tuple[str, int, float]]) -> list[str]:
    """Return one line for each cause of cycles that occurs."""
    return [
        f"  {share:6.1%}  {cycles:>15,}  {CAUSES[cause]}"
        for cause, cycles, share in causes
        if cycles
    ]


def catalogue_table(title: str, rows: Sequence[Mapping[str, Any]]) -> "Table":
    """Return one table of the catalogue."""
    keys = [key for key in ("name", "proof", "options", "summary") if key in rows[0]]
    table = _table(title, [(key, "fold" if key == "summary" else "left") for key in keys])
    for row in rows:
        cells = (row[key] for key in keys)
        table.add_row(*(", ".join(c) if isinstance(c, list) else str(c) for c in cells))
    return table


def _figure(value: float, unit: str) -> str:
    """Return a published or reproduced figure in its unit."""
    match unit:
        case "cycles" | "instructions":
            return f"{value:,.0f}"
        case "%":
            return f"{value:.2%}"
    return f"{value:.2f}{unit}"


def _error(row: "Row") -> str:
    return "0" if row.error == 0 else f"{row.error:+.1%}"


def reproduction_table(section: "Section") -> "Table":
    """Return published figures beside ours: error, verdict, source and note."""
    corrected = any(row.uncorrected is not None for row in section.rows)
    names = ("published", *(["uncorrected"] if corrected else []), "ours", "error")
    columns = (("", "fold"), *((name, "right") for name in names))
    table = _table(section.title, (*columns, ("", "left"), ("source and note", "fold")))
    for row in section.rows:
        values = (row.published, *([row.uncorrected] if corrected else []), row.ours)
        figures = ("" if value is None else _figure(value, row.unit) for value in values)
        told = "; ".join(part for part in (row.source, row.note) if part)
        table.add_row(row.what, *figures, _error(row), "" if row.matches else "off", told)
    return table


def _cell(value: "Cell") -> str:
    match value:
        case str():
            return value
        case int():
            return f"{value:,}"
        case _:
            return f"{value:.2f}x"


def study_table(found: "StudyTable") -> "Table":
    """Return one table of a study."""
    texts = [
        "fold" if all(isinstance(row[i], str) for row in found.rows) else "right"
        for i in range(len(found.columns))
    ]
    table = _table(found.title, list(zip(found.columns, texts, strict=True)))
    for row in found.rows:
        table.add_row(*map(_cell, row))
    return table


def placement_table(document: Mapping[str, Any]) -> "Table":
    """Return the figures of a placement and what it uses of the device."""
    d = document
    table = _table(f"{d['problem']} on {d['device']}", [("", "left"), ("", "right")])
    for kind, count in d["placed_by_kind"].items():
        table.add_row(f"{kind} units placed", f"{count:,}")
    table.add_row("weighted wire length", _length(d["objective"]))
    table.add_row("proved lower bound", _length(d["bound"]))
    table.add_row("gap", f"{d['gap']:.2%} ({d['status']})")
    table.add_row("time", f"{d['seconds']:.1f} s ({d['solver']})")
    for resource, share in d["utilisation"].items():
        used, available = d["used"][resource], d["available"][resource]
        table.add_row(resource.upper(), f"{used:,} of {available:,} ({share:.2%})")
    for slr, wires in enumerate(d["crossing_wires"]):
        table.add_row(f"wires from SLR {slr} to {slr + 1}", f"{wires:,}")
    table.add_row("registers at crossings", f"{d['crossing_registers']:,}")
    return table


def _length(value: float) -> str:
    return f"{value:,.6g}" if abs(value) < 1e6 else f"{value:,.0f}"


FRONT_ROWS: Final = 12
"""Most designs of a front that a table shows."""


def design_tables(document: Mapping[str, Any]) -> list["Table"]:
    """Return the chosen machines beside the reference, any cycles saved by cause, and the front."""
    d = document
    return [_beside(d), *([_saved(d)] if d["saved_by_cause"] else []), _front(d)]


def _beside(d: Mapping[str, Any]) -> "Table":
    machines = [*d["machines"], d["reference"]]
    titles = [("", "left"), *((m["name"], "right-fold") for m in d["machines"])]
    titles += [(f"reference {d['reference']['name']}", "right-fold"), ("limit of all", "right")]
    proof = f"gap {d['gap']:.2%} ({d['status']}) over {d['candidates']} candidates"
    table = _table(f"{d['problem']} on {d['device']}: {proof}", titles)
    table.add_row("cycles", *(f"{m['cycles']:,}" for m in machines), "")
    for job in d["reference"]["cycles_by_workload"]:
        table.add_row(f"  {job}", *(f"{m['cycles_by_workload'][job]:,}" for m in machines), "")
    table.add_row("dynamic energy", *(si(m["energy_j"], "J") for m in machines), "")
    for name in d["reference"]["takes"]:
        limit = d["budget"].get(name)
        cells = [_amount(m["takes"][name]) for m in machines]
        table.add_row(name, *cells, _amount(limit["limit"]) if limit else "none")
    return table


def _amount(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) and value < 1e9 else f"{value:.4g}"


def _saved(d: Mapping[str, Any]) -> "Table":
    rows = [(CAUSES[cause], f"{cycles:,}") for cause, cycles in d["saved_by_cause"].items()]
    return plain_table("Cycles saved over the reference, by cause", ("", "cycles"), rows)


def _front(d: Mapping[str, Any]) -> "Table":
    """Return the fastest of the front that fit; what all take alike has no column."""
    fitting = [m for m in d["front"] if not m["lacks"]]
    shown = fitting[:FRONT_ROWS]
    more = f", the fastest {len(shown)} of these" if len(shown) < len(fitting) else ""
    title = (
        f"Pareto front: {len(d['front'])} of {d['candidates']} candidates, {len(fitting)} fit{more}"
    )
    takes = [n for n in d["reference"]["takes"] if len({m["takes"][n] for m in fitting}) > 1]
    table = _table(title, [("", "fold"), *((n, "right") for n in ("cycles", "energy", *takes))])
    for m in shown:
        costs = (_amount(m["takes"][name]) for name in takes)
        table.add_row(m["name"], f"{m['cycles']:,}", si(m["energy_j"], "J"), *costs)
    return table
