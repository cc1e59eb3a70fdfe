"""The assembler: a schedule becomes a machine's program, tables and memory map."""

import collections.abc as abc
from collections.abc import Iterator
from typing import Any

import numpy as np

from rtl.machine import shapes
from rtl.machine.layout import Entries, Move, ProductLayout, Tile
from rtl.machine.machine import check_machine
from rtl.machine.program import LoadWord, MachineProgram, Region, mask, packed, step_words
from rtl.machine.shapes import TABLES, Bank, Source, Target, Work
from rtl.shapes import Mode
from simulator.arch import Dataflow, NMArray
from simulator.nm_tile import Tile as ArrayTile
from simulator.nm_tile import tile_job
from simulator.plan import Chunk, GemmPlan, StreamPlan
from simulator.schedule import Block, OpSchedule, Schedule, Step, Unit
from workloads.graph import Op, OpKind, Phase, WindowUse, WorkloadGraph
from workloads.training import SGD

__all__ = ["assemble", "layout_rules"]

Fields = dict[str, Any]

OPERANDS = {"act": Target.ACT, "weight": Target.WEIGHT, "saved": Target.SAVED}
POSTS = ("Relu", "Relu.grad")


def assemble(
    schedule: Schedule, graph: WorkloadGraph, arch: NMArray, *, optimizer: SGD | None = None
) -> MachineProgram:
    """Return the program that runs one training step of `graph` as `schedule` times it.

    Raises ValueError naming the operator for what the machine cannot do or the memory cannot hold
    in whole beats, and naming the memory for programs that are too long.
    """
    check_machine(arch)
    work = _Assembler(graph, arch, optimizer or SGD())
    ops = {op.name: op for op in graph.ops}
    for planned in schedule.ops:
        work.add(planned, ops[planned.name])
    return work.program()


def layout_rules(graph: WorkloadGraph, arch: NMArray) -> abc.Callable[[Op, GemmPlan], bool]:
    """Return whether the machine can lay a plan of one of `graph`'s products out in memory."""

    def lies(op: Op, plan: GemmPlan) -> bool:
        work = _Assembler(graph, arch, SGD())
        planned = OpSchedule(name=op.name, kind=op.kind.value, program=(), plan=plan)
        try:
            _Product(work, planned, op).check_moves()
        except ValueError:
            return False
        return True

    return lies


def _flat(block: Block) -> Iterator[Step]:
    for item in block:
        if isinstance(item, Step):
            yield item
        else:
            for _ in range(item.times):
                yield from _flat(item.body)


class _Assembler:
    """Gathers instructions, tables and regions, operator by operator."""

    def __init__(self, graph: WorkloadGraph, arch: NMArray, optimizer: SGD) -> None:
        self.graph, self.arch, self.optimizer = graph, arch, optimizer
        self.steps: dict[Unit, list[Fields]] = {unit: [] for unit in Unit}
        self.regions: dict[str, Region] = {}
        self.same: dict[str, str] = {}  # views to what they show
        self.words: list[LoadWord] = []
        self.names: list[str] = []
        self._tables: dict[str, dict[bytes, int]] = {name: {} for name in TABLES}
        self._used = dict.fromkeys(TABLES, 0)
        self._tag = 0
        self._beats = 0

    def program(self) -> MachineProgram:
        """Return what has been gathered."""
        return MachineProgram(
            words=(*step_words(self.arch, self.steps), *self.words),
            regions=dict(self.regions),
            beats=self._beats,
            ops=tuple(self.names),
        )

    def add(self, planned: OpSchedule, op: Op) -> None:
        """Add one operator; one without a program costs nothing and is left out."""
        if op.kind is OpKind.RESHAPE:
            self.same[op.output] = self.same.get(op.inputs[0], op.inputs[0])
        if not planned.program:
            return
        if planned.repeat > 1:
            raise self.refused(op, f"it runs {planned.repeat} times")
        if len(self.names) == shapes.OPS:
            raise self.refused(op, f"the machine runs at most {shapes.OPS} operators")
        self._add_tokens(planned)
        match planned.plan:
            case GemmPlan():
                _Product(self, planned, op).add()
            case StreamPlan():
                _Streamed(self, planned, op).add()
            case _:
                raise self.refused(op, "its program has no plan")
        self.names.append(planned.name)

    def refused(self, op: Op, why: str) -> ValueError:
        """Return the error that names an operator."""
        return ValueError(f"Op {op.name!r} cannot run on the RTL machine: {why}")

    def _add_tokens(self, planned: OpSchedule) -> None:
        counts = [0] * len(shapes.CHANNELS)
        for channel, count in planned.tokens.items():
            counts[mask([channel]).bit_length() - 1] = count
        word = packed(shapes.tokens(), counts)
        self.words.append(LoadWord(bank=Bank.TOKENS.value, address=len(self.names), word=word))

    def step(self, unit: Unit, step: Step, fields: Fields) -> None:
        """Add an instruction that waits as `step` does."""
        self.steps[unit].append({"op": len(self.names), "waits": mask(step.waits), **fields})

    def tag(self) -> int:
        """Return the number of a new output tile."""
        self._tag += 1
        return self._tag

    def region(self, name: str, bits: int, **layout: Any) -> Region:
        """Return where a tensor lies, placing it when it is first asked for."""
        name = self.same.get(name, name)
        if name not in self.regions:
            region = Region(beat=self._beats, size_bits=bits, **layout)
            self.regions[name] = region
            self._beats += -(-bits // shapes.beat_bits(self.arch))
        return self.regions[name]

    def tensor(self, name: str) -> Region:
        """Return where a tensor of the graph lies, dense."""
        spec = self.graph.tensors[name]
        return self.region(name, spec.size * spec.bits)

    def table(self, name: str, entries: Entries, op: Op) -> int:
        """Return where a table's entries begin; equal ones are held once."""
        key = np.stack([entries.address, entries.y, entries.x]).tobytes()
        if key not in self._tables[name]:
            base = self._used[name]
            self._used[name] += entries.address.size
            if self._used[name] > shapes.TABLE_ENTRIES:
                raise self.refused(op, f"table {name} overflows {shapes.TABLE_ENTRIES} entries")
            self._tables[name][key] = base
            layout, span = shapes.table_entry(), 1 << shapes.ITEM_BITS
            rows = zip(entries.address, entries.y, entries.x, strict=True)
            for at, (address, y, x) in enumerate(rows, start=base):
                entry = {"address": int(address) % span, "y": int(y), "x": int(x)}
                word = LoadWord(
                    bank=Bank[name.upper()].value, address=at, word=packed(layout, entry)
                )
                self.words.append(word)
        return self._tables[name][key]

    def check_move(self, op: Op, move: Move) -> None:
        """Raise ValueError unless runs begin on beats and, but for a lone one, end on them."""
        bits = shapes.beat_bits(self.arch)
        runs = [stride for count, stride in move.strides if count > 1]
        ends = [move.run] if runs else []
        for offset in (move.start, *runs, *ends):
            if offset % bits:
                raise self.refused(
                    op,
                    f"a tile's {move.run} bits at {move.start} with strides {runs} are not whole "
                    f"beats of {bits}",
                )

    def move(self, op: Op, step: Step, region: Region, move: Move, fields: Fields) -> None:
        """Add a transfer; all of it lies in whole beats but the end of a single run."""
        self.check_move(op, move)
        bits = shapes.beat_bits(self.arch)
        run = -(-move.run // bits)
        strides = [*move.strides, *[(1, 0)] * (3 - len(move.strides))]
        beats = run * int(np.prod([count for count, _ in strides]))
        if beats != step.cycles:
            raise self.refused(op, f"step {step.label!r} takes {step.cycles} cycles, not {beats}")
        loops: Fields = {}
        for level, (count, stride) in enumerate(strides):
            loops |= {f"count_{level}": count, f"stride_{level}": stride // bits}
        self.step(
            Unit.DMA,
            step,
            {
                "items": move.items,
                "address": region.beat + move.start // bits,
                "beats": beats,
                "run": run,
                **loops,
                **fields,
            },
        )


class _Product:
    """Adds one product."""

    def __init__(self, work: _Assembler, planned: OpSchedule, op: Op) -> None:
        assert isinstance(planned.plan, GemmPlan)
        self.work, self.planned, self.op, self.plan = work, planned, op, planned.plan
        self.bits = work.arch.operand_bits
        self._check()
        self.layout = ProductLayout(
            planned.plan, op.phase is Phase.WU, op.phase is Phase.BP, self.bits
        )
        self.weight = self._weight_region()
        self.depth = dict(planned.plan.depth) | {"saved": planned.plan.depth["out"]}
        self.visits = {name: self.layout.visits(depth) for name, depth in self.depth.items()}
        self.tiles = self.layout.visits(3)
        self.seen = dict.fromkeys((*self.depth, "store", "array"), 0)
        self.slots = {name: planned.tokens.get(f"{name}.free", 0) for name in self.depth}
        self.sizes = {name: max(map(self._items(name), self.visits[name])) for name in self.depth}
        self.tags = [work.tag() for _ in self.visits["out"]]

    def _check(self) -> None:
        op, plan = self.op, self.plan
        problems = {
            "it has groups": plan.gemm.groups > 1,
            "SDGP's products scatter columns": plan.window_use is WindowUse.SCATTER_N,
            "products of two activations are not laid out": op.phase is not Phase.WU
            and not self.work.graph.tensors[op.inputs[1]].parameter,
            "its tile cuts an image that its results are added into": plan.window_use
            is WindowUse.SCATTER
            and plan.window is not None
            and plan.m * plan.window.batch != plan.gemm.m,
            f"fused work other than one of {', '.join(POSTS)}": len(op.post) > 1
            or any(post not in POSTS for post in op.post),
            "it reads more than two operands and a saved tensor": len(op.inputs) > 2 + plan.saved,
            "a stride beyond the kernel skips image rows": plan.window is not None
            and any(s > k for s, k in zip(plan.window.stride, plan.window.kernel, strict=True)),
            "only one phase of a training step is laid out": op.phase
            not in (Phase.FF, Phase.BP, Phase.WU),
        }
        for why, found in problems.items():
            if found:
                raise self.work.refused(op, why)

    def _weight_region(self) -> Region:
        """Return what the product reads as its second operand."""
        op, work, s = self.op, self.work, self.plan.setting
        if op.phase is Phase.WU:
            return work.tensor(op.inputs[1])
        forward = next(o for o in work.graph.ops if o.name == f"{op.name.rpartition('.')[0]}.ff")
        weight = work.graph.tensors[forward.inputs[1]]
        own = work.graph.tensors[op.inputs[1]]
        if s.indexed and not self.plan.select:
            role = "ff" if op.phase is Phase.FF else "bp"
            groups = self.plan.gemm.n * -(-self.plan.gemm.k // s.group)
            bits = groups * s.kept * (self.bits + s.index_bits)
            return work.region(
                f"{weight.name}:{role}", bits, layout=role, kept=s.kept, group=s.group
            )
        if str(own.sparsity) != "dense" and not s.indexed:
            raise work.refused(op, f"weights that are {own.sparsity} are not stored dense")
        return work.region(f"{weight.name}:dense", weight.size * self.bits)

    def _items(self, name: str) -> abc.Callable[[Tile], int]:
        if name == "weight":
            return lambda tile: self.layout.weight_move(tile, self.weight).items
        move = self.layout.act_move if name == "act" else self.layout.out_move
        return lambda tile: move(tile).items

    def check_moves(self) -> None:
        """Raise ValueError unless all tiles lie in whole beats."""
        if self.plan.select:
            self._check_group()
        for tile in self.visits["act"]:
            self.work.check_move(self.op, self.layout.act_move(tile))
        for tile in self.visits["weight"]:
            self.work.check_move(self.op, self.layout.weight_move(tile, self.weight))
        for tile in self.visits["out"]:
            self.work.check_move(self.op, self.layout.out_move(tile))

    def _base(self, name: str, visit: int) -> int:
        return visit % self.slots[name] * self.sizes[name] if self.slots[name] else 0

    def add(self) -> None:
        """Add every step, waits merged into the next step that takes time, frees into the last."""
        waits: tuple[str, ...] = ()
        for step in _flat(self.planned.program):
            if step.unit is Unit.DMA:
                self._transfer(step)
            elif step.label == "take":
                waits += step.waits
            elif step.label == "give":
                self._give(step.releases)
            else:
                self._array(waits)
                waits = ()

    def _give(self, channels: tuple[str, ...]) -> None:
        last = self.work.steps[Unit.ARRAY][-1]
        for channel in channels:
            last["gives" if channel == "out.full" else "frees"] |= mask([channel])

    def _transfer(self, step: Step) -> None:
        name = step.label.removeprefix("load ")
        visit = self.seen[name]
        self.seen[name] += 1
        if name == "store":
            self._store(step, visit)
            return
        tile = self.visits[name][visit]
        fields: Fields = {
            "target": OPERANDS[name],
            "base": self._base(name, visit),
            "gives": mask(step.releases),
        }
        if name == "act":
            region, move = self.work.tensor(self.op.inputs[0]), self.layout.act_move(tile)
        elif name == "weight":
            region, move = self.weight, self.layout.weight_move(tile, self.weight)
            s = self.plan.setting
            if region.layout != "dense":
                fields["extra"] = s.index_bits
            if self.plan.select:
                fields |= self._selection(move, fields)
        else:
            region, move = self.work.tensor(self.op.inputs[2]), self.layout.out_move(tile)
        self.work.move(self.op, step, region, move, fields)

    def _selection(self, move: Move, fields: Fields) -> Fields:
        """Return the fields of a load that SORE compresses."""
        s, lanes = self.plan.setting, self.work.arch.max_m
        training = self.work.arch.training
        turned = self.layout.weight_transposed
        if turned and training and not training.transposer:
            raise self.work.refused(self.op, "selecting along rows takes a transposer")
        self._check_group()
        beats = move.bits // (lanes * self.bits)
        return {
            "select": 1,
            "turned": turned,
            "gives": 0,
            "place": {
                "outer": 1,
                "inner": beats // s.group,
                "length": beats,
                "inner_stride": s.kept * lanes,
                "lane_stride": 1,
                "pair_stride": lanes,
                "base": fields["base"],
                "kept": s.kept,
                "group": s.group,
                "weight": 1,
                "gives": fields["gives"],
            },
        }

    def _check_group(self) -> None:
        s, lanes, gemm = self.plan.setting, self.work.arch.max_m, self.plan.gemm
        if s.group != lanes or gemm.k % lanes or self.plan.n % lanes:
            raise self.work.refused(
                self.op, f"selections take whole groups and blocks of {lanes} rows and columns"
            )

    def _store(self, step: Step, visit: int) -> None:
        tile = self.visits["out"][visit]
        self.work.move(
            self.op,
            step,
            self.work.tensor(self.op.output),
            self.layout.out_move(tile),
            {
                "store": 1,
                "source": Source.SUMS,
                "base": self._base("out", visit),
                "saved": self._base("saved", visit),
                "frees": mask(step.releases),
                "relu": self.op.post == ("Relu",),
                "gate": self.op.post == ("Relu.grad",),
                "tag": self.tags[visit],
            },
        )

    def _array(self, waits: tuple[str, ...]) -> None:
        work, s, arch = self.work, self.plan.setting, self.work.arch
        index = self.seen["array"]
        self.seen["array"] += 1
        tile = self.tiles[index]
        # Which visit of each operand's loops this step belongs to.
        at = {name: index // (len(self.tiles) // len(found)) for name, found in self.visits.items()}
        m, k, n = tile["u"][1] * tile["m"][1], tile["k"][1], tile["n"][1]
        job = tile_job(arch, s, ArrayTile(groups=1, m=m, k=k, n=n))
        lanes = arch.rows * arch.interleave if s.dataflow is Dataflow.OS else arch.cols
        across = n if s.dataflow is Dataflow.WS else m
        outer = -(-across // (arch.cols if s.dataflow is Dataflow.WS else lanes))
        groups = -(-k // s.group)
        tables = {
            "act": self.layout.act_tables(tile),
            "weight": self.layout.weight_tables(tile, self.weight),
            "out": self.layout.out_tables(tile),
        }
        bases = {
            f"{name}_{axis}": work.table(f"{name}_{axis}", entries, self.op)
            for name, pair in tables.items()
            for axis, entries in zip(("row", "col"), pair, strict=True)
        }
        step = Step(unit=Unit.ARRAY, label="array", cycles=job.slots, waits=waits)
        work.step(
            Unit.ARRAY,
            step,
            {
                "frees": 0,
                "gives": 0,
                "job": {
                    "mode": Mode.of(s.dataflow),
                    "kept": s.kept,
                    "group": s.group,
                    "length": job.length,
                    "folds": job.folds,
                },
                "outer": outer,
                "inner": job.folds // outer,
                "indexed": s.indexed,
                **bases,
                **{f"{name}_base": self._base(name, at[name]) for name in ("act", "weight", "out")},
                "m_limit": m,
                "k_limit": k,
                "n_limit": n,
                "group_limit": groups,
                "pair_limit": groups * s.kept if s.indexed else k,
                **self.layout.bounds,
                "tag": self.tags[at["out"]],
            },
        )


class _Streamed:
    """Adds one operator that streams through a unit."""

    def __init__(self, work: _Assembler, planned: OpSchedule, op: Op) -> None:
        assert isinstance(planned.plan, StreamPlan)
        self.work, self.planned, self.op, self.plan = work, planned, op, planned.plan
        self.chunks = list(planned.plan.all())
        self.stream = planned.plan.stream
        for flow in (*self.stream.reads, *self.stream.writes):
            if flow.bits != flow.granule_bits * self.stream.granules:
                raise work.refused(op, f"tensor {flow.role!r} is not whole granules")
        elements = self.stream.ops_per_granule
        columns = work.graph.tensors[op.output].shape[-1]
        if op.kind is OpKind.UPDATE and elements > 1 and elements % columns:
            raise work.refused(op, "rows of the weight are cut in strips")

    def add(self) -> None:
        """Add every step; the give behind a chunk's work goes with its last cycle."""
        counts = {"load": 0, "store": 0, "work": 0}
        for step in _flat(self.planned.program):
            if step.label == "give":
                self.work.steps[self.stream.unit][-1]["frees"] |= mask(step.releases)
                continue
            kind = "work"
            if step.unit is Unit.DMA:
                kind = "store" if step.label == "store" else "load"
            index = counts[kind]
            counts[kind] += 1
            if kind == "work":
                self._work(step, self.chunks[index], index)
            elif kind == "load":
                self._load(step, *divmod(index, len(self.stream.reads)))
            else:
                self._store(step, *divmod(index, len(self.stream.writes)))

    def _pair_bits(self, role: str) -> int:
        """Return the width of a tensor's items in the buffer."""
        if role not in ("ff", "bp"):
            return self.work.arch.operand_bits
        return self.work.arch.operand_bits + (self._selected(role)[1] - 1).bit_length()

    def _selected(self, role: str) -> tuple[int, int]:
        """Return (N, M) of a selection."""
        out = self.op.inputs[0] if self.op.kind is OpKind.SELECT else self.op.output
        dims = self.work.graph.tensors[out].dims
        for op in self.work.graph.ops:
            if op.kind is OpKind.SELECT and op.inputs == (out,):
                spec = self.work.graph.tensors[op.output]
                if (spec.dims[-1] != dims[-1]) == (role == "bp"):
                    sparsity: Any = spec.sparsity
                    return sparsity.n, sparsity.m
        raise self.work.refused(self.op, f"no selection makes {role!r}")

    def _region(self, role: str, bits: int) -> Region:
        op, work = self.op, self.work
        if op.kind is OpKind.UPDATE:
            names = dict(zip(("gradient", "master", "momentum"), op.inputs, strict=True))
            if role in names:
                return work.tensor(names[role])
        elif op.kind is not OpKind.SELECT:
            return work.tensor(op.output if role == "out" else op.inputs[int(role[3:])])
        weight = op.inputs[0] if op.kind is OpKind.SELECT else op.output
        if role in ("ff", "bp"):
            kept, group = self._selected(role)
            return work.region(f"{weight}:{role}", bits, layout=role, kept=kept, group=group)
        return work.region(f"{weight}:dense", bits)

    @property
    def _slot(self) -> int:
        return self.work.arch.act_buffer.capacity_bytes // 4 // 2

    def _places(self, chunk: Chunk, index: int) -> dict[str, int]:
        """Return where a chunk's tensors lie in the buffer: `in` or `out`, and the role."""
        places = {}
        for way, flows, sizes, slot in (
            ("in", self.stream.reads, chunk.reads, 0),
            ("out", self.stream.writes, chunk.writes, 2),
        ):
            at = (slot + index % 2) * self._slot
            for flow, bits in zip(flows, sizes, strict=True):
                places[f"{way} {flow.role}"] = at
                at += bits // self._pair_bits(flow.role)
        return places

    def _transfer(self, step: Step, way: str, index: int, which: int, fields: Fields) -> None:
        chunk = self.chunks[index]
        flows, sizes = (
            (self.stream.reads, chunk.reads) if way == "in" else (self.stream.writes, chunk.writes)
        )
        flow, bits = flows[which], sizes[which]
        width = self._pair_bits(flow.role)
        move = Move(items=bits // width, start=chunk.start * flow.granule_bits, run=bits)
        base = self._places(chunk, index)[f"{way} {flow.role}"]
        extra = width - self.work.arch.operand_bits
        region = self._region(flow.role, flow.bits)
        self.work.move(self.op, step, region, move, {"base": base, "extra": extra, **fields})

    def _load(self, step: Step, index: int, which: int) -> None:
        fields = {"target": Target.ACT, "gives": mask(step.releases)}
        self._transfer(step, "in", index, which, fields)

    def _store(self, step: Step, index: int, which: int) -> None:
        fields = {"store": 1, "source": Source.ITEMS, "frees": mask(step.releases)}
        self._transfer(step, "out", index, which, fields)

    def _work(self, step: Step, chunk: Chunk, index: int) -> None:
        places = self._places(chunk, index)
        make = {Unit.VECTOR: self._vector, Unit.WUVE: self._update, Unit.SORE: self._select}
        fields, cycles = make[self.stream.unit](chunk, places, mask(step.releases))
        if cycles != step.cycles:
            raise self.work.refused(
                self.op, f"its rows fill no whole beats: {cycles} cycles, not {step.cycles}"
            )
        self.work.step(self.stream.unit, step, {"frees": 0, **fields})

    def _vector(self, chunk: Chunk, places: dict[str, int], gives: int) -> tuple[Fields, int]:
        op, lanes = self.op, self.work.arch.vector_lanes
        known = {
            "SoftmaxCrossEntropy": (Work.LOSS, op.passes),
            "Relu.grad": (Work.RELU_GRAD, 1),
            "Relu": (Work.RELU, 1),
        }
        if op.source not in known or op.post:
            raise self.work.refused(op, f"the vector unit knows {', '.join(known)} alone")
        work, passes = known[op.source]
        width = self.work.graph.tensors[op.inputs[0]].shape[-1] if work is Work.LOSS else chunk.ops
        rows = chunk.granules if work is Work.LOSS else 1
        beats = -(-width // lanes)
        fields = {
            "work": work,
            "rows": rows,
            "beats": beats,
            "first": places["in in_0"],
            "second": places.get("in in_1", 0),
            "out": places["out out"],
            "gives": gives,
        }
        return fields, rows * beats * passes

    def _update(self, chunk: Chunk, places: dict[str, int], gives: int) -> tuple[Fields, int]:
        assert self.work.arch.training is not None
        lanes = self.work.arch.training.wuve.lanes
        roles = [flow.role for flow in self.stream.writes]
        picked = [role for role in ("ff", "bp") if role in roles]
        fields: Fields = {
            "groups": -(-chunk.ops // lanes),
            "blocks": 1,
            "rows": 1,
            "gives": 0 if picked else gives,
            **{f"{name}_base": places[f"in {name}"] for name in ("gradient", "master", "momentum")},
            **{f"new_{name}_base": places[f"out {name}"] for name in ("master", "momentum")},
            "copy_base": places.get("out copy", 0),
            **{f"with_{role}": role in roles for role in ("copy", "ff", "bp")},
            **{name: _single(getattr(self.work.optimizer, name)) for name in shapes.WUVE_SETTINGS},
        }
        if str(self.work.optimizer) != self.op.source:
            raise self.work.refused(self.op, f"it is {self.op.source}, not {self.work.optimizer}")
        width = self.work.graph.tensors[self.op.output].shape[-1]
        for role in picked:
            kept, group = self._selected(role)
            if group != lanes or width % lanes or chunk.ops % (group * width):
                raise self.work.refused(
                    self.op, f"selections take whole groups and blocks of {lanes} rows and columns"
                )
            groups = chunk.ops // (group * width)
            fields |= {"groups": groups, "blocks": width // lanes, "rows": group}
            fields[role] = {
                "outer": groups,
                "inner": width // lanes,
                "length": chunk.ops // lanes,
                "outer_stride": width * kept,
                "inner_stride": lanes * kept if role == "ff" else kept,
                "lane_stride": kept if role == "ff" else width // group * kept,
                "pair_stride": 1,
                "base": places[f"out {role}"],
                "kept": kept,
                "group": group,
                "gives": gives if role == picked[-1] else 0,
            }
        return fields, fields["groups"] * fields["blocks"] * fields["rows"]

    def _select(self, chunk: Chunk, places: dict[str, int], gives: int) -> tuple[Fields, int]:
        assert self.work.arch.training is not None
        lanes = self.work.arch.training.sore.lanes
        kept, group = self._selected("bp")
        width = self.work.graph.tensors[self.op.inputs[0]].shape[-1]
        blocks = -(-chunk.ops * group // (lanes * width))
        row = width // group * kept
        place = {
            "outer": blocks,
            "inner": width // group,
            "length": blocks * width,
            "outer_stride": lanes * row,
            "inner_stride": kept,
            "lane_stride": row,
            "pair_stride": 1,
            "base": places["out bp"],
            "kept": kept,
            "group": group,
            "gives": gives,
        }
        fields = {"blocks": blocks, "width": width, "first": places["in dense"], "place": place}
        return fields, blocks * width


def _single(number: float) -> int:
    return int(np.float32(number).view(np.uint32))
