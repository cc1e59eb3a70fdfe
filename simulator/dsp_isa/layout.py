"""The six modules of a DspChain core and the bits of their instructions.

An instruction is 1 to 7 words of 32 bits. The first holds opcode (4 bits), wait and release masks
(5 bits each: the other five modules in the order of `Module`, first one highest) and 18 bits of
its own; fields never cross a word. The halves of a matrix buffer alternate with every LD and
every product that waits for LD, so programs do not name them. Addresses in memory count 64-byte
lines from a base register, those of split transfers pieces of 16 bytes, on the chip 64 results or
16 rows of the table. Sizes count bytes, groups 16 candidates. `simulator.dsp_isa.values` says what
the instructions compute.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Final

from workloads.canonical import Spec

__all__ = [
    "FIELDS",
    "LINE_BYTES",
    "LINE_ELEMENTS",
    "MISC_PHASES",
    "NORM_EPSILON",
    "OPCODES",
    "ROW_ENTRY",
    "TABLE_ROWS",
    "WORDS",
    "Base",
    "Buffer",
    "Instruction",
    "MiscOp",
    "Module",
    "mask_modules",
    "module_mask",
]


LINE_BYTES: Final = 64
"""What an address in memory counts."""

LINE_ELEMENTS: Final = 64
"""What an address in the out buffer counts."""

TABLE_ROWS: Final = 16
"""Output rows whose bias and scale are a line of the row table."""


ROW_ENTRY: Final[Mapping[str, tuple[int, int]]] = {
    "bias": (0, 16),
    "scale": (16, 8),
    "shift": (24, 4),
    "down": (28, 4),
}
"""(lowest bit, width) of what the row table has of an output row.

Codes become int8 times scale / 2**shift, of all rows in a chain those of its first; sums go down
by 2**down, halves up, and gain bias.
"""

NORM_EPSILON: Final = 1
"""What norms add to the variance, of 2**16."""


class Module(StrEnum):
    """In-order modules of a core; each runs its own instructions in program order."""

    LD = "LD"
    ST = "ST"
    MM = "MM"
    MV = "MV"
    MISC = "MISC"
    SYS = "SYS"


class Buffer(IntEnum):
    """On-chip memories that LD fills and ST drains."""

    WEIGHT = 0
    ACT = 1
    MATRIX = 2
    OUT = 3
    TABLE = 4


class Base(IntEnum):
    """Base registers; the host sets them once per core, so that all cores run one program."""

    WEIGHTS = 0
    KV = 1
    ACTIVATIONS = 2
    NEW_TOKEN = 3  # the KV cache from the row of the token being decoded
    POSITION = 4  # cosines and sines of the position of that token, or of all of a prompt
    LAST_TOKENS = 5  # the tile of activations that holds a prompt's last token


class MiscOp(IntEnum):
    """What MISC computes."""

    ADD = 0
    MUL = 1
    SOFTMAX = 2
    LAYERNORM = 3
    RMSNORM = 4
    SILU = 5


MISC_PHASES: Final[Mapping[MiscOp, int]] = {
    MiscOp.ADD: 1,
    MiscOp.MUL: 1,
    MiscOp.SOFTMAX: 2,
    MiscOp.LAYERNORM: 2,
    MiscOp.RMSNORM: 2,
    MiscOp.SILU: 1,
}
"""Times an operation reads its row: two-phase ones gather statistics first."""

OPCODES: Final[Mapping[Module, int]] = {
    Module.LD: 1,
    Module.ST: 2,
    Module.MM: 3,
    Module.MV: 4,
    Module.MISC: 5,
    Module.SYS: 15,
}

WORDS: Final[Mapping[Module, int]] = {
    Module.LD: 7,
    Module.ST: 3,
    Module.MM: 4,
    Module.MV: 4,
    Module.MISC: 3,
    Module.SYS: 1,
}

Place = tuple[int, int, int]
"""(word, lowest bit, width) of a field."""

_CHAIN: Final[dict[str, Place]] = {
    "emit": (0, 17, 1),
    "accumulate": (0, 16, 1),
    "relu": (0, 15, 1),
    "sparse": (0, 14, 1),
    "groups": (0, 0, 14),
    "passes": (2, 0, 16),
    "out": (2, 16, 12),
}

FIELDS: Final[Mapping[Module, Mapping[str, Place]]] = {
    Module.LD: {
        "buffer": (0, 15, 3),
        "cross": (0, 14, 1),
        "turned": (0, 13, 1),
        "split": (0, 12, 1),
        "bank": (0, 0, 12),
        "base": (1, 28, 4),
        "address": (1, 0, 28),
        "bytes": (2, 0, 32),
        "rows": (3, 16, 16),
        "channels": (3, 8, 8),
        "shift": (3, 4, 4),
        "bits": (3, 0, 4),
        "rows_8": (4, 16, 16),
        "rows_4": (4, 0, 16),
        "groups": (5, 20, 12),
        "metadata": (5, 0, 20),
        "rows_2": (6, 16, 16),
        "table": (6, 0, 16),
    },
    Module.ST: {
        "buffer": (0, 15, 3),
        "cross": (0, 14, 1),
        "link": (0, 13, 1),
        "split": (0, 12, 1),
        "bank": (0, 0, 12),
        "base": (1, 28, 4),
        "address": (1, 0, 28),
        "channels": (2, 27, 5),
        "shift": (2, 23, 4),
        "bytes": (2, 0, 23),
    },
    Module.MM: {
        **_CHAIN,
        "act": (1, 16, 16),
        "weight": (1, 0, 12),
        "tokens": (3, 24, 8),
        "tabled": (3, 23, 1),
        "down": (3, 16, 5),
        "table": (3, 0, 16),
    },
    Module.MV: {
        **_CHAIN,
        "shift": (1, 28, 4),
        "vector": (1, 16, 12),
        "matrix": (1, 0, 12),
        "tabled": (3, 24, 1),
        "down": (3, 16, 5),
        "table": (3, 0, 16),
    },
    Module.MISC: {
        "op": (0, 14, 4),
        "groups": (0, 0, 14),
        "turn": (1, 28, 1),
        "a": (1, 16, 12),
        "blocked": (1, 13, 1),
        "repeat": (1, 12, 1),
        "b": (1, 0, 12),
        "out": (2, 16, 12),
        "rows": (2, 0, 16),
    },
    Module.SYS: {"code": (0, 0, 18)},
}

RING: Final = frozenset({"bank", "act", "weight", "matrix", "vector", "out", "a", "b"})
"""Buffer addresses: in a loop they wrap around their buffer."""


def module_mask(owner: Module, modules: tuple[Module, ...]) -> int:
    """Return the 5-bit mask of `modules` in an instruction of `owner`."""
    others = [module for module in Module if module is not owner]
    return sum(1 << (4 - others.index(module)) for module in modules)


def mask_modules(owner: Module, mask: int) -> tuple[Module, ...]:
    """Return the modules of a 5-bit mask, in their order."""
    others = [module for module in Module if module is not owner]
    return tuple(module for i, module in enumerate(others) if mask >> (4 - i) & 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction(Spec):
    """One instruction: it waits for tokens before it starts and gives tokens when it ends.

    It takes one token of every module in `waits` and gives one to every module in `releases`.
    `fields` not named are 0. `strides` say by how much a field grows with the iteration of each
    enclosing loop, outermost first; in a flat program there are none.
    """

    module: Module
    waits: tuple[Module, ...] = ()
    releases: tuple[Module, ...] = ()
    fields: Mapping[str, int] = field(default_factory=dict, hash=False)
    strides: Mapping[str, tuple[int, ...]] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        known = FIELDS[self.module]
        for name in (*self.fields, *self.strides):
            if name not in known:
                raise ValueError(f"{self.module} has no field {name!r}; known: {', '.join(known)}")
        if self.module in (*self.waits, *self.releases):
            raise ValueError(f"{self.module} cannot wait for itself or release itself")
        order = list(Module)
        for name in ("waits", "releases"):
            chosen = tuple(sorted(set(getattr(self, name)), key=order.index))
            object.__setattr__(self, name, chosen)
        object.__setattr__(self, "fields", {k: v for k, v in self.fields.items() if v})
        for name, value in self.fields.items():
            width = known[name][2]
            if not 0 <= value < 1 << width:
                raise ValueError(
                    f"{self.module} {name} must be 0 to {(1 << width) - 1}, not {value}"
                )

    def get(self, name: str) -> int:
        """Return the value of a field."""
        if name not in FIELDS[self.module]:
            raise ValueError(f"{self.module} has no field {name!r}")
        return self.fields.get(name, 0)

    @property
    def words(self) -> int:
        """Length in 32-bit words."""
        return WORDS[self.module]
