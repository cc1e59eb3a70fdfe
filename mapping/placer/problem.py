"""What is placed: units with demands, nets between them, caps, weights; and the result."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from mapping.placer.device import Device, Resource
from mapping.solver import Status
from workloads.canonical import Spec

__all__ = [
    "Caps",
    "Chain",
    "Grid",
    "Net",
    "Objective",
    "Placement",
    "Problem",
    "Spot",
    "Unit",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid(Spec):
    """Slots of one SLR: its bands in `columns` equal groups, its clock regions in `rows`."""

    columns: int = 1
    rows: int = 1

    def __post_init__(self) -> None:
        for name in ("columns", "rows"):
            if getattr(self, name) < 1:
                raise ValueError(f"Grid {name} must be at least 1, not {getattr(self, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps(Spec):
    """Share of every slot's resources that may be used, by resource."""

    dsp: float = 1.0
    bram: float = 1.0
    uram: float = 1.0
    lut: float = 1.0

    def __post_init__(self) -> None:
        for resource in Resource:
            if not 0 < self.share(resource) <= 1:
                raise ValueError(
                    f"Cap {resource.value} must be above 0 and at most 1, "
                    f"not {self.share(resource)}"
                )

    def share(self, resource: Resource) -> float:
        """Return the cap of one resource."""
        return float(getattr(self, resource.value))


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain(Spec):
    """`count` cascades of `length` DSPs each."""

    length: int
    count: int = 1

    def __post_init__(self) -> None:
        for name in ("length", "count"):
            if getattr(self, name) < 1:
                raise ValueError(f"Chain {name} must be at least 1, not {getattr(self, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit(Spec):
    """A tile, a set of DSP chains or a buffer that is placed whole in one slot.

    `dsp` are DSPs outside chains; `slr` pins the unit to an SLR.
    """

    name: str
    kind: str
    dsp: int = 0
    bram: int = 0
    uram: int = 0
    lut: int = 0
    chains: tuple[Chain, ...] = ()
    slr: int | None = None

    def __post_init__(self) -> None:
        for resource in Resource:
            if getattr(self, resource.value) < 0:
                raise ValueError(
                    f"Unit {self.name!r}: {resource.value} must be at least 0, "
                    f"not {getattr(self, resource.value)}"
                )

    def demand(self, resource: Resource) -> int:
        """Return what the unit needs of a resource, DSPs of chains included."""
        chained = sum(chain.length * chain.count for chain in self.chains)
        return int(getattr(self, resource.value)) + (chained if resource is Resource.DSP else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Net(Spec):
    """A stream of `bits` wires between two units."""

    source: str
    sink: str
    bits: int

    def __post_init__(self) -> None:
        if self.bits < 1:
            raise ValueError(
                f"Net {self.source!r} to {self.sink!r}: bits must be at least 1, not {self.bits}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective(Spec):
    """Cost of one bit over one step to the side, one step up, and extra over an SLR boundary."""

    across: float = 1.0
    along: float = 1.0
    crossing: float = 0.0

    def __post_init__(self) -> None:
        for name in ("across", "along", "crossing"):
            if getattr(self, name) < 0:
                raise ValueError(f"Objective {name} must be at least 0, not {getattr(self, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem(Spec):
    """Units and nets to place on the slots of a device.

    crossing_wires: wires that may cross one SLR boundary; registers_per_crossing are put on every
    such wire and only counted here.
    """

    name: str
    device: Device
    grid: Grid = field(default_factory=Grid)
    units: tuple[Unit, ...]
    nets: tuple[Net, ...] = ()
    caps: Caps = field(default_factory=Caps)
    crossing_wires: int
    registers_per_crossing: int = 2
    objective: Objective = field(default_factory=Objective)

    def __post_init__(self) -> None:
        for what in ("crossing_wires", "registers_per_crossing"):
            if getattr(self, what) < 0:
                raise ValueError(f"Problem {what} must be at least 0, not {getattr(self, what)}")
        names = [unit.name for unit in self.units]
        if not names:
            raise ValueError("There is nothing to place: no units")
        known = set(names)
        if len(known) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"Unit {twice!r} occurs twice")
        for net in self.nets:
            for end in (net.source, net.sink):
                if end not in known:
                    raise ValueError(f"Net {net.source!r} to {net.sink!r}: no unit {end!r}")
        for unit in self.units:
            if unit.slr is not None and not 0 <= unit.slr < len(self.device.slrs):
                raise ValueError(
                    f"Unit {unit.name!r}: slr must be 0 to {len(self.device.slrs) - 1} "
                    f"on {self.device.name}, not {unit.slr}"
                )
        self._check_grid()

    def joined(self) -> tuple[Net, ...]:
        """Return one net for each pair of units that nets join, bits added."""
        bits: dict[tuple[str, str], int] = defaultdict(int)
        for net in self.nets:
            if net.source != net.sink:
                first, second = sorted((net.source, net.sink))
                bits[first, second] += net.bits
        return tuple(Net(source=a, sink=b, bits=n) for (a, b), n in sorted(bits.items()))

    def chain_lengths(self) -> tuple[int, ...]:
        """Return the lengths of chains that occur, longest first."""
        lengths = {chain.length for unit in self.units for chain in unit.chains}
        return tuple(sorted(lengths, reverse=True))

    def classes(self) -> tuple[tuple[Unit, ...], ...]:
        """Return the units in groups of equal demand."""
        groups: dict[tuple[object, ...], list[Unit]] = defaultdict(list)
        for unit in self.units:
            groups[*(unit.demand(resource) for resource in Resource), unit.chains].append(unit)
        return tuple(map(tuple, groups.values()))

    def _check_grid(self) -> None:
        for name, size, what in (
            ("columns", len(self.device.bands), "bands"),
            ("rows", self.device.clock_rows, "clock regions"),
        ):
            parts = getattr(self.grid, name)
            if size % parts:
                raise ValueError(
                    f"Grid {name} must divide the {size} {what} of an SLR of "
                    f"{self.device.name}, not {parts}"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot(Spec):
    """Sites of one part of a unit: `size` neighbours of one column from site `first` of an SLR.

    `length` is that of a DSP chain, 0 for RAMB18 and URAM.
    """

    resource: Resource
    slr: int
    column: int
    first: int
    size: int
    length: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement(Spec):
    """Where every unit is, and the proof's figures.

    slots: slot (SLR, column, row) of every unit; spots: sites of a unit's parts, of its chains
    only where the model places nothing finer; kinds: number of units of each kind.
    gap = (objective - bound) / objective.
    """

    problem: str
    device: str
    slots: dict[str, tuple[int, int, int]]
    spots: dict[str, tuple[Spot, ...]]
    kinds: dict[str, int]
    objective: float
    bound: float
    status: Status
    solver: str
    crossing_wires: tuple[int, ...]
    crossing_registers: int
    used: dict[str, int]
    available: dict[str, int]
    seconds: float = field(compare=False)

    @property
    def placed(self) -> int:
        """Number of units placed."""
        return len(self.slots)

    @property
    def gap(self) -> float:
        """Relative distance of objective and bound; 0 when the placement is proved optimal."""
        return (self.objective - self.bound) / self.objective if self.objective else 0.0

    def summary(self) -> dict[str, Any]:
        """Return the figures as plain JSON values: all but where each unit is."""
        return {
            "problem": self.problem,
            "device": self.device,
            "placed": self.placed,
            "placed_by_kind": self.kinds,
            "objective": self.objective,
            "bound": self.bound,
            "gap": self.gap,
            "status": self.status.value,
            "solver": self.solver,
            "seconds": self.seconds,
            "crossing_wires": list(self.crossing_wires),
            "crossing_registers": self.crossing_registers,
            "used": self.used,
            "available": self.available,
            "utilisation": {name: used / self.available[name] for name, used in self.used.items()},
        }
