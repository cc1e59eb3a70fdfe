"""Energy tables: picojoules of primitive actions, each with the place its number comes from."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from workloads.canonical import Spec

__all__ = ["DRAM", "HOROWITZ_45NM", "SRAM_MACROS", "EnergyTable", "Entry", "MissingPrice"]


class MissingPrice(ValueError):
    """A counted event, or an action it consists of, has no price; prices are never assumed 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry(Spec):
    """The energy of one action and its source; `assumed` marks a choice rather than a citation."""

    pj: float
    source: str
    assumed: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.pj < float("inf"):
            raise ValueError(f"An energy must be a finite number of at least 0 pJ, not {self.pj}")
        if not self.source:
            raise ValueError(f"An energy of {self.pj} pJ must cite its source")


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyTable(Spec):
    """Energies of one technology by action name (see HOROWITZ_45NM for the names in use)."""

    name: str
    node_nm: int
    vdd_v: float
    entries_pj: Mapping[str, Entry]
    source: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "entries_pj", dict(self.entries_pj))

    def __hash__(self) -> int:
        return int(self.digest()[:15], 16)

    def entry(self, action: str) -> Entry:
        """Return the entry of `action`, or raise MissingPrice listing the known ones."""
        if action not in self.entries_pj:
            raise MissingPrice(
                f"Energy table {self.name!r} has no action {action!r}; "
                f"known: {', '.join(sorted(self.entries_pj))}"
            )
        return self.entries_pj[action]

    def with_entries(self, **entries_pj: Entry) -> "EnergyTable":
        """Return this table with some entries replaced or added."""
        return replace(self, entries_pj={**self.entries_pj, **entries_pj})

    def with_dram(self, kind: str) -> "EnergyTable":
        """Return this table with main memory of `kind`, one of DRAM."""
        if kind not in DRAM:
            raise ValueError(f"Unknown DRAM {kind!r}; known: {', '.join(DRAM)}")
        table = self.with_entries(dram_bit=DRAM[kind])
        return replace(table, name=f"{self.name}, {kind} DRAM")


_HOROWITZ = "Horowitz, Computing's energy problem, ISSCC 2014, 45 nm 0.9 V"

DRAM: Final[Mapping[str, Entry]] = {
    "horowitz": Entry(
        pj=1950 / 64,
        source=f"{_HOROWITZ}: 1300 to 2600 pJ per 64 b; the midpoint is our choice",
        assumed=True,
    ),
    "lpddr4": Entry(pj=8.0, source="LPDDR4 8 pJ/b, as the Timeloop and Accelergy tables use it"),
    "ddr3": Entry(pj=70.0, source="DDR3 70 pJ/b, Malladi et al., ISCA 2012"),
    "hbm2": Entry(
        pj=6.25, source="HBM2 6.25 pJ/b, widely quoted; primary source not confirmed", assumed=True
    ),
    "hbm3": Entry(
        pj=4.05, source="HBM3 4.05 pJ/b, widely quoted; primary source not confirmed", assumed=True
    ),
}
"""Main memories by name: energy per bit moved, array access and interface together."""

SRAM_MACROS: Final[tuple[tuple[int, str], ...]] = (
    (8 << 10, "sram_8KiB_64b"),
    (32 << 10, "sram_32KiB_64b"),
    (1 << 20, "sram_1MiB_64b"),
)
"""Tabulated SRAM macros: capacity in bytes and action name, smallest first."""

HOROWITZ_45NM: Final = EnergyTable(
    name="horowitz-45nm",
    node_nm=45,
    vdd_v=0.9,
    source=_HOROWITZ,
    entries_pj={
        "int8_add": Entry(pj=0.03, source=_HOROWITZ),
        "int32_add": Entry(pj=0.1, source=_HOROWITZ),
        "int8_mul": Entry(pj=0.2, source=_HOROWITZ),
        "int32_mul": Entry(pj=3.1, source=_HOROWITZ),
        "fp16_add": Entry(pj=0.4, source=_HOROWITZ),
        "fp16_mul": Entry(pj=1.1, source=_HOROWITZ),
        "fp32_add": Entry(pj=0.9, source=_HOROWITZ),
        "fp32_mul": Entry(pj=3.7, source=_HOROWITZ),
        "sram_8KiB_64b": Entry(pj=10.0, source=_HOROWITZ),
        "sram_32KiB_64b": Entry(pj=20.0, source=_HOROWITZ),
        "sram_1MiB_64b": Entry(pj=100.0, source=_HOROWITZ),
        "dram_bit": DRAM["horowitz"],
        "gated_mac": Entry(
            pj=0.0,
            source="operands are held, nothing toggles; clock and leakage are not counted",
            assumed=True,
        ),
    },
)
"""The default: 45 nm. An SRAM action is one 64-bit access."""
