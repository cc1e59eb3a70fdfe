"""Pricing: counted events times the energy of each, and nothing else."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from cost_models.energy import HOROWITZ_45NM, SRAM_MACROS, EnergyTable, MissingPrice
from simulator.arch import Accelerator, BufferParams, DspChain
from simulator.counts import Event
from simulator.result import Result, Totals
from workloads.canonical import Spec

__all__ = ["Cost", "Price", "price", "prices"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Price(Spec):
    """Energy of one counted event and the sentence that justifies it."""

    pj: float
    source: str
    assumed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost(Spec):
    """What a run costs: dynamic energy by event. Area and static power are not modelled yet.

    breakdown maps (component, action, variant) to picojoules and sums to energy_pj.
    """

    energy_pj: float
    latency_cycles: int
    breakdown: Mapping[Event, float] = field(hash=False)
    prices: Mapping[Event, Price] = field(hash=False)
    table: str
    table_digest: str

    def __post_init__(self) -> None:
        total = math.fsum(self.breakdown.values())
        if total != self.energy_pj:
            raise ValueError(f"Breakdown sums to {total} pJ, not to energy_pj = {self.energy_pj}")

    @property
    def energy_j(self) -> float:
        """Energy in joules."""
        return self.energy_pj * 1e-12

    def by_component(self) -> dict[str, float]:
        """Return picojoules by component, largest first."""
        components = {component for component, _, _ in self.breakdown}
        totals = {
            name: math.fsum(pj for (c, _, _), pj in self.breakdown.items() if c == name)
            for name in components
        }
        return dict(sorted(totals.items(), key=lambda item: (-item[1], item[0])))


def _sram(buffer: BufferParams, table: EnergyTable) -> Price:
    """Price one bit by the smallest tabulated macro that holds the buffer, else 1 MiB banks."""
    fitting = [macro for macro in SRAM_MACROS if macro[0] >= buffer.capacity_bytes]
    capacity, action = fitting[0] if fitting else SRAM_MACROS[-1]
    banks = -(-buffer.capacity_bytes // capacity)
    macro = f"a {capacity >> 10} KiB macro" if banks == 1 else f"{banks} banks of 1024 KiB"
    entry = table.entry(action)
    source = (
        f"{entry.source}; {buffer.capacity_bytes} B as {macro}, a write costs as much as a read"
    )
    return Price(pj=entry.pj / 64, source=source, assumed=True)


def _mac(table: EnergyTable) -> dict[Event, Price]:
    gated = table.entry("gated_mac")
    found = {}
    for precision, product, total in (("int8", "int8", "int32"), ("fp16", "fp16", "fp32")):
        multiply, add = table.entry(f"{product}_mul"), table.entry(f"{total}_add")
        source = f"{product} multiply and {total} add: {multiply.source}"
        found["mac", precision, "full"] = Price(pj=multiply.pj + add.pj, source=source)
        found["mac", precision, "gated"] = Price(
            pj=gated.pj, source=gated.source, assumed=gated.assumed
        )
    return found


def _training(table: EnergyTable) -> dict[Event, Price]:
    multiply, add, compare = (table.entry(a) for a in ("fp32_mul", "fp32_add", "fp16_add"))
    update = f"an update as three fp32 multiplies and three fp32 adds: {multiply.source}"
    selection = f"a comparison as one fp16 add: {compare.source}"
    return {
        ("wuve", "update", "full"): Price(pj=3 * (multiply.pj + add.pj), source=update),
        ("sore", "compare", "full"): Price(pj=compare.pj, source=selection, assumed=True),
    }


def _vector(table: EnergyTable) -> dict[Event, Price]:
    multiply, add = table.entry("int32_mul"), table.entry("int32_add")
    source = f"an element operation as one int32 multiply and one int32 add: {multiply.source}"
    return {("vector", "op", "full"): Price(pj=multiply.pj + add.pj, source=source, assumed=True)}


def _delta(table: EnergyTable) -> dict[Event, Price]:
    add, read = table.entry("int8_add"), table.entry(SRAM_MACROS[0][1])
    source = (
        f"a difference and a state kept up to date as two int8 adds, and 16 b of a "
        f"{SRAM_MACROS[0][0] >> 10} KiB macro: {add.source}"
    )
    pj = 2 * add.pj + read.pj / 4
    return {("delta", "compare", "full"): Price(pj=pj, source=source, assumed=True)}


def prices(arch: Accelerator, table: EnergyTable = HOROWITZ_45NM) -> dict[Event, Price]:
    """Return the price of one count of every event the machine can report.

    Memories are priced a bit, `mac` a multiplier use, `vector` an element operation; index bits
    cost what data bits cost. Under the default table a machine with HBM pays for HBM. Raises
    MissingPrice if the table lacks an action.
    """
    out = _mac(table) | _vector(table) | _training(table) | _delta(table)
    if isinstance(arch, DspChain) and table == HOROWITZ_45NM:
        table = table.with_dram(arch.hbm.kind)
    dram = table.entry("dram_bit")
    bit = {"dram": Price(pj=dram.pj, source=dram.source, assumed=dram.assumed)}
    for buffer in fields(arch):
        if isinstance(getattr(arch, buffer.name), BufferParams):
            bit[buffer.name] = _sram(getattr(arch, buffer.name), table)
    for component, entry in bit.items():
        for action in ("read", "write"):
            for variant in ("full", "metadata"):
                out[component, action, variant] = entry
    return dict(sorted(out.items()))


def price(result: Result | Totals, *, table: EnergyTable = HOROWITZ_45NM) -> Cost:
    """Return the energy of `result`: the sum over its counts of count times price.

    Raises MissingPrice, naming event and known events, if a counted event has no price.
    """
    known = prices(result.arch, table)
    for event in result.counts:
        if event not in known:
            keys = ", ".join("/".join(key) for key in known)
            raise MissingPrice(f"No price for counted event {'/'.join(event)}; known: {keys}")
    breakdown = {event: n * known[event].pj for event, n in sorted(result.counts.items())}
    return Cost(
        energy_pj=math.fsum(breakdown.values()),
        latency_cycles=result.cycles,
        breakdown=breakdown,
        prices={event: known[event] for event in breakdown},
        table=table.name,
        table_digest=table.digest(),
    )
