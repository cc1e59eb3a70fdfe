"""Lowering: a mapped GEMM becomes a folded program of DMA and array steps."""

from collections.abc import Mapping
from dataclasses import dataclass

from mapping.problem import Problem, TileShape
from simulator.arch import NMArray
from simulator.nm_tile import NMSetting, tile_events, tile_job
from simulator.schedule import Block, Repeat, Step, Unit

__all__ = ["GemmProgram", "dma_cycles", "lower_gemm"]

Sizes = dict[str, int]


def dma_cycles(arch: NMArray, bits: int) -> int:
    """Return the cycles a transfer occupies the DMA: whole bytes at the DRAM's bandwidth."""
    size = -(-bits // 8)
    return -(-size * arch.clock_hz // arch.dram.bandwidth_bytes_per_s)


@dataclass(frozen=True, slots=True)
class _Loop:
    """One tile loop: `full` tiles of `size`, then one of `rest` unless it is 0."""

    index: str
    size: int
    full: int
    rest: int

    @classmethod
    def over(cls, index: str, extent: int, size: int) -> "_Loop":
        return cls(index, size, extent // size, extent % size)

    @property
    def count(self) -> int:
        return self.full + bool(self.rest)


@dataclass(frozen=True, slots=True)
class GemmProgram:
    """Builds the program of one mapped GEMM.

    Loops run u, then m and n in the mapping's order, then k. An operand is fetched whenever its
    tile changes; its buffer has two slots if it is fetched more than once. The store of an
    output tile is issued behind the next tile's first fetch, so that the one DMA queue never
    holds a prefetch back for a result that is not ready.
    """

    arch: NMArray
    problem: Problem
    setting: NMSetting
    shape: TileShape

    @property
    def loops(self) -> tuple[_Loop, ...]:
        p, s = self.problem, self.shape
        extents = {"u": (p.units, s.units), "m": (p.unit_m, s.m), "n": (p.gemm.n, s.n)}
        inner = {"k": (p.gemm.k, s.k)}
        order = ("u", *s.order, "k")
        return tuple(_Loop.over(i, *(extents | inner)[i]) for i in order)

    def depth(self, indices: str) -> int:
        """Return the innermost loop that changes an operand's tile, -1 if none does."""
        return max(
            (d for d, x in enumerate(self.loops) if x.index in indices and x.count > 1), default=-1
        )

    @property
    def act_depth(self) -> int:
        """Loop depth at which activations are fetched."""
        return self.depth("um" if self.problem.window else "umk")

    @property
    def weight_depth(self) -> int:
        """Loop depth at which weights are fetched."""
        return self.depth("kn" if self.problem.shared_weights else "ukn")

    def tokens(self) -> Mapping[str, int]:
        """Return the free buffer slots at the start: two where double buffering is needed."""
        outputs = self.depth("umn") >= 0
        return {
            "act.free": 1 + (self.act_depth >= 0),
            "weight.free": 1 + (self.weight_depth >= 0),
            "out.free": 1 + outputs,
        }

    def program(self) -> Block:
        """Return the whole program."""
        sizes = {loop.index: loop.size for loop in self.loops}
        body, last = self._nest(0, sizes, None)
        return (*self._around(-1, sizes, body), last)

    def _nest(self, level: int, sizes: Sizes, prev: Step | None) -> tuple[Block, Step]:
        """Return the program of the loops from `level` in, and the store it still owes."""
        loop = self.loops[level]
        if loop.index == "k":
            return self._reduction(loop, sizes, prev), self._store(sizes)
        inner = sizes | {loop.index: loop.size}
        body, owed = self._nest(level + 1, inner, prev)
        block: Block = self._around(level, inner, body)
        if loop.full > 1:
            body, owed = self._nest(level + 1, inner, owed)
            block += (Repeat(times=loop.full - 1, body=self._around(level, inner, body)),)
        if loop.rest:
            inner = sizes | {loop.index: loop.rest}
            body, owed = self._nest(level + 1, inner, owed)
            block += self._around(level, inner, body)
        return block, owed

    def _reduction(self, loop: _Loop, sizes: Sizes, prev: Step | None) -> Block:
        level = len(self.loops) - 1
        middle = loop.count - 2

        def tile(k: int, *, first: bool = False, last: bool = False) -> Block:
            inner = sizes | {"k": k}
            return self._around(level, inner, (self._array(inner, first=first, last=last),))

        block = tile(loop.size, first=True, last=middle < 0) + ((prev,) if prev else ())
        if middle > 0:
            block += (Repeat(times=middle, body=tile(loop.size)),)
        if middle >= 0:
            block += tile(loop.rest or loop.size, last=True)
        return block

    def _around(self, level: int, sizes: Sizes, body: Block) -> Block:
        """Wrap one iteration in the fetches that belong to `level`."""
        for name, depth in (("weight", self.weight_depth), ("act", self.act_depth)):
            if depth == level:
                load = self._load_weight(sizes) if name == "weight" else self._load_act(sizes)
                take = Step(unit=Unit.ARRAY, label="take", cycles=0, waits=(f"{name}.full",))
                give = Step(unit=Unit.ARRAY, label="give", cycles=0, releases=(f"{name}.free",))
                body = (load, take, *body, give)
        return body

    def _load(self, name: str, values: int, indices: int) -> Step:
        counts = {("dram", "read", "full"): values, (f"{name}_buffer", "write", "full"): values}
        if indices:
            counts |= {
                ("dram", "read", "metadata"): indices,
                (f"{name}_buffer", "write", "metadata"): indices,
            }
        return Step(
            unit=Unit.DMA,
            label=f"load {name}",
            cycles=dma_cycles(self.arch, values + indices),
            latency=self.arch.dram.latency_cycles,
            waits=(f"{name}.free",),
            releases=(f"{name}.full",),
            counts=counts,
        )

    def _load_act(self, sizes: Sizes) -> Step:
        return self._load("act", 8 * self.problem.act_bytes(sizes["u"], sizes["m"], sizes["k"]), 0)

    def _load_weight(self, sizes: Sizes) -> Step:
        bits = self.problem.weight_bits(self.setting, sizes["u"], sizes["k"], sizes["n"])
        return self._load("weight", *bits)

    def _array(self, sizes: Sizes, *, first: bool, last: bool) -> Step:
        shape = TileShape(units=sizes["u"], m=sizes["m"], k=sizes["k"], n=sizes["n"])
        tile = self.problem.array_tile(shape)
        job = tile_job(self.arch, self.setting, tile)
        return Step(
            unit=Unit.ARRAY,
            label="array",
            cycles=job.slots,
            busy=job.busy_slots,
            waits=("out.free",) if first else (),
            releases=("out.full",) if last else (),
            counts={
                **tile_events(self.arch, self.setting, tile, first_k=first),
                ("mac", "int8", "offered"): job.mac_slots,
            },
        )

    def _store(self, sizes: Sizes) -> Step:
        outputs = sizes["u"] * sizes["m"] * sizes["n"]
        return Step(
            unit=Unit.DMA,
            label="store",
            cycles=dma_cycles(self.arch, 8 * outputs),
            waits=("out.full",),
            releases=("out.free",),
            counts={
                ("out_buffer", "read", "full"): self.arch.acc_bits * outputs,
                ("dram", "write", "full"): 8 * outputs,
            },
        )


def lower_gemm(
    arch: NMArray, problem: Problem, setting: NMSetting, shape: TileShape
) -> tuple[Block, Mapping[str, int]]:
    """Return the program of a mapped GEMM and its initial tokens."""
    builder = GemmProgram(arch, problem, setting, shape)
    return builder.program(), builder.tokens()
