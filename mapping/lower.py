"""Lowering: a mapped GEMM becomes a folded program of DMA and array steps."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from mapping.problem import Problem, TileShape
from simulator.arch import NMArray
from simulator.nm_tile import NMSetting, tile_events, tile_job
from simulator.plan import GemmPlan
from simulator.schedule import Block, Repeat, Step, Unit

__all__ = ["GemmProgram", "dma_cycles", "gemm_plan", "lower_gemm"]

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

    @property
    def runs(self) -> tuple[tuple[int, int], ...]:
        """(size, times) in order, the first tile apart: it may differ from those behind it."""
        runs = ((self.size, 1), (self.size, self.full - 1), (self.rest, 1))
        return tuple((size, times) for size, times in runs if size and times)


def _loops(problem: Problem, shape: TileShape) -> tuple[_Loop, ...]:
    p = problem
    extents = {"u": (p.units, shape.units), "m": (p.unit_m, shape.m), "n": (p.gemm.n, shape.n)}
    extents["k"] = (p.gemm.k, shape.k)
    return tuple(_Loop.over(index, *extents[index]) for index in (*shape.order, "k"))


def _depths(problem: Problem, loops: tuple[_Loop, ...]) -> dict[str, int]:
    """Return the innermost loop that changes each operand's tile; kept activations have none."""
    return {
        operand: max(
            (d for d, x in enumerate(loops) if x.index in indices and x.count > 1), default=-1
        )
        for operand, indices in problem.indices.items()
        if not (operand == "act" and problem.kept_in)
    }


@dataclass(frozen=True, slots=True)
class GemmProgram:
    """Builds the program of one mapped GEMM.

    Loops run in the mapping's order, the reduction innermost. An operand is fetched whenever its
    tile changes; its buffer has two slots if it is fetched more than once. The store of an
    output tile is issued behind the next tile's first fetch, so that the one DMA queue never
    holds a prefetch back for a result that is not ready. Results still drain for a while when the
    array is free again, and the store waits for the last of them. A saved tensor that the results
    meet on their way out is loaded with their tile, beside it in the output buffer.

    Activations that are kept in their buffer are not loaded. Results that are kept do not reach
    memory: the DMA turns them around into the activation buffer, rounded and paced as in a store.
    """

    arch: NMArray
    problem: Problem
    setting: NMSetting
    loops: tuple[_Loop, ...]
    depth: Mapping[str, int]  # innermost loop that changes an operand's tile, -1 if none
    known: dict[Hashable, Step] = field(default_factory=dict)  # steps built so far

    @classmethod
    def of(
        cls, arch: NMArray, problem: Problem, setting: NMSetting, shape: TileShape
    ) -> "GemmProgram":
        """Return the builder of `problem` tiled by `shape`."""
        loops = _loops(problem, shape)
        return cls(arch, problem, setting, loops, _depths(problem, loops))

    def tokens(self) -> Mapping[str, int]:
        """Return the free buffer slots at the start: two where double buffering is needed."""
        slots = {f"{operand}.free": 1 + (depth >= 0) for operand, depth in self.depth.items()}
        return slots | ({"saved.free": slots["out.free"]} if self.problem.saved else {})

    def program(self) -> Block:
        """Return the whole program."""
        sizes = {loop.index: loop.size for loop in self.loops}
        body = self._around(-1, sizes, self._nest(0, sizes, None, first_k=True))
        return (*body, self._last_store(0, sizes))

    def _nest(self, level: int, sizes: Sizes, owed: Step | None, *, first_k: bool) -> Block:
        """Return the loops from `level` in; a store owed is issued behind the first array step."""
        if level == len(self.loops):
            return (self._once(self._array, sizes, first_k), *([owed] if owed else []))
        loop = self.loops[level]
        block: Block = ()
        for size, times in loop.runs:
            inner = sizes | {loop.index: size}
            body = self._nest(level + 1, inner, owed, first_k=first_k)
            body = self._around(level, inner, body)
            block += body if times == 1 else (Repeat(times=times, body=body),)
            owed = self._last_store(level + 1, inner) if level <= self.depth["out"] else None
            first_k = first_k and loop.index != "k"
        return block

    def _last_store(self, level: int, sizes: Sizes) -> Step:
        """Return the store of the last output tile of the loops from `level` in."""
        last = {loop.index: loop.rest or loop.size for loop in self.loops[level:]}
        return self._once(self._store, sizes | last)

    def _once(self, make: Callable[..., Step], sizes: Sizes, *more: Hashable) -> Step:
        """Return make(sizes, *more), built once: the loops come by the same tiles many times."""
        key = (make.__name__, *(sizes[index] for index in "umnk"), *more)
        if key not in self.known:
            self.known[key] = make(sizes, *more)
        return self.known[key]

    def _around(self, level: int, sizes: Sizes, body: Block) -> Block:
        """Wrap one iteration of `level` in the buffers that change with it."""
        for operand in ("out", "weight", "act"):
            if self.depth.get(operand) != level:
                continue
            if operand == "out":
                saved = (self._once(self._load_saved, sizes),) if self.problem.saved else ()
                # The tile's last array step tells when its results are out.
                late = _last_array(body).latency
                body = (*saved, _pass("take", "out.free"), *body, _pass("give", "out.full", late))
            else:
                load = self._once(self._load, sizes, operand)
                take, give = _pass("take", f"{operand}.full"), _pass("give", f"{operand}.free")
                body = (load, take, *body, give)
        return body

    def _load(self, sizes: Sizes, operand: str) -> Step:
        if operand == "act":
            elements, index_bits = self.problem.act_elements(sizes["u"], sizes["m"], sizes["k"]), 0
        elif self.problem.select and self.setting.indexed:
            return self._select_weight(sizes)
        else:
            elements = self.problem.weight_values(self.setting, sizes["u"], sizes["k"], sizes["n"])
            index_bits = self.setting.index_bits
        bits = {"full": self.arch.operand_bits * elements}
        if index_bits:
            bits["metadata"] = index_bits * elements
        targets = (("dram", "read"), (f"{operand}_buffer", "write"))
        return Step(
            unit=Unit.DMA,
            label=f"load {operand}",
            cycles=dma_cycles(self.arch, sum(bits.values())),
            latency=self.arch.dram.latency_cycles,
            waits=(f"{operand}.free",),
            releases=(f"{operand}.full",),
            counts={(*target, variant): n for target in targets for variant, n in bits.items()},
        )

    def _load_saved(self, sizes: Sizes) -> Step:
        bits = self._stored_bits(sizes)
        return Step(
            unit=Unit.DMA,
            label="load saved",
            cycles=dma_cycles(self.arch, bits),
            latency=self.arch.dram.latency_cycles,
            waits=("saved.free",),
            releases=("saved.full",),
            counts={("dram", "read", "full"): bits, ("out_buffer", "write", "full"): bits},
        )

    def _stored_bits(self, sizes: Sizes) -> int:
        outputs = self.problem.stored_elements(sizes["u"], sizes["m"], sizes["n"])
        return self.arch.operand_bits * outputs

    def _select_weight(self, sizes: Sizes) -> Step:
        """Return a load of dense weights that SORE compresses as they pass, at its own pace.

        A selection along the axis that lies contiguous in memory goes through the transposer.
        """
        assert self.arch.training is not None
        sore, s = self.arch.training.sore, self.setting
        width = sizes["n"] * (1 if self.problem.shared_weights else sizes["u"])
        values = self.problem.weight_values(s, sizes["u"], sizes["k"], sizes["n"])
        stored = self.arch.operand_bits * width * sizes["k"]
        groups = width * -(-sizes["k"] // s.group)
        return Step(
            unit=Unit.DMA,
            label="load weight",
            cycles=max(dma_cycles(self.arch, stored), -(-groups // sore.lanes) * s.group),
            latency=self.arch.dram.latency_cycles + s.kept + s.group * self.problem.turned,
            waits=("weight.free",),
            releases=("weight.full",),
            counts={
                ("dram", "read", "full"): stored,
                ("weight_buffer", "write", "full"): self.arch.operand_bits * values,
                ("weight_buffer", "write", "metadata"): s.index_bits * values,
                ("sore", "compare", "full"): width * sizes["k"] * s.kept,
            },
        )

    def _array(self, sizes: Sizes, first_k: bool) -> Step:
        shape = TileShape(units=sizes["u"], m=sizes["m"], k=sizes["k"], n=sizes["n"])
        tile = self.problem.array_tile(shape)
        job = tile_job(self.arch, self.setting, tile)
        # Scattered results are added into the image, whichever comes first.
        fresh = first_k and self.problem.indices["out"] == "umn"
        return Step(
            unit=Unit.ARRAY,
            label="array",
            cycles=job.slots,
            latency=job.late_slots,
            busy=job.busy_slots,
            counts={
                **tile_events(self.arch, self.setting, tile, first_k=fresh),
                ("mac", self.arch.precision.value, "offered"): job.mac_slots,
            },
        )

    def _store(self, sizes: Sizes) -> Step:
        """Return the step that empties an output tile: into memory, or into the next's buffer."""
        bits = self._stored_bits(sizes)
        outputs = bits // self.arch.operand_bits
        buffers = ("out", "saved") if self.problem.saved else ("out",)
        read = bits if self.problem.saved else 0
        target = "act_buffer" if self.problem.kept_out else "dram"
        return Step(
            unit=Unit.DMA,
            label="store",
            cycles=dma_cycles(self.arch, bits),
            waits=tuple(f"{name}.full" for name in buffers),
            releases=tuple(f"{name}.free" for name in buffers),
            counts={
                ("out_buffer", "read", "full"): self.arch.acc_bits * outputs + read,
                (target, "write", "full"): bits,
            },
        )


@lru_cache(maxsize=1024)
def _pass(label: str, channel: str, latency: int = 0) -> Step:
    """Return a step of no cycles that takes a token or gives one."""
    waits, releases = ((channel,), ()) if label == "take" else ((), (channel,))
    return Step(
        unit=Unit.ARRAY, label=label, cycles=0, latency=latency, waits=waits, releases=releases
    )


def _last_array(block: Block) -> Step:
    """Return the array step that runs last."""
    for item in reversed(block):
        if isinstance(item, Repeat):
            return _last_array(item.body)
        if item.label == "array":
            return item
    raise ValueError("A tile has no array step")


def lower_gemm(
    arch: NMArray, problem: Problem, setting: NMSetting, shape: TileShape
) -> tuple[Block, Mapping[str, int]]:
    """Return the program of a mapped GEMM and its initial tokens."""
    builder = GemmProgram.of(arch, problem, setting, shape)
    return builder.program(), builder.tokens()


def gemm_plan(problem: Problem, setting: NMSetting, shape: TileShape) -> GemmPlan:
    """Return what `lower_gemm` makes a program of, for the layout in memory."""
    loops = _loops(problem, shape)
    return GemmPlan(
        gemm=problem.gemm,
        window=problem.window,
        window_use=problem.window_use,
        setting=setting,
        units=shape.units,
        m=shape.m,
        k=shape.k,
        n=shape.n,
        order=shape.order,
        depth=_depths(problem, loops),
        saved=problem.saved,
        select=problem.select and setting.indexed,
    )
