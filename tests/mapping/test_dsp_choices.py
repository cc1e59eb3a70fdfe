"""What a decoder's operators cost on a DspChain, and the tiles its compiler chose."""

import math

import pytest

from mapping.dsp import simulate_decoder
from mapping.dsp.events import code_events
from mapping.dsp.model import Attention, Linear
from mapping.dsp.timing import Timeline
from mapping.objective import Objective, energy_j
from simulator.dsp_isa import Module, walk
from tests.mapping.test_dsp import model, small, small_arch
from workloads.sparsity import NofM

PREFILL, DECODE = 40, 9
GRAPH = small(prefill=PREFILL, decode=DECODE).sparsify(NofM(4, 16))


def mapped(objective, graph=GRAPH, arch=None):
    return simulate_decoder(graph, arch or small_arch(), objective=objective).mapped


def run_events(arch, node, code, pairs, tokens):
    """Return the events of one run, its products split at the weights that are not zero."""
    events = code_events(arch, code)
    offered = events.pop(("mac", "int8", "offered"), 0)
    full = tokens * node.nonzeros if isinstance(node, Linear) else 0
    full = 2 * node.heads * node.size * pairs if isinstance(node, Attention) else full
    return {**events, ("mac", "int8", "full"): full, ("mac", "int8", "gated"): offered - full}


def steps(compiled):
    """Yield phase, length, tokens and scored pairs of every step of the run, one by one."""
    yield "prefill", PREFILL, PREFILL, PREFILL * PREFILL
    for length in range(PREFILL + 1, PREFILL + DECODE + 1):
        yield "decode", length, 1, length


def test_the_delay_product_sums_energy_times_time_of_every_step():
    """Every step alone: the energy of an operator's run times the time the run adds."""
    arch = small_arch()
    compiled, timeline, cost = model(GRAPH, arch), Timeline(small_arch()), []
    for phase, length, tokens, pairs in steps(compiled):
        program = compiled.program(phase, length)
        for stage, shares in zip(program.stages, timeline.shares(program), strict=True):
            for layer in shares.tolist():
                for section, cycles in zip(stage.sections, layer, strict=True):
                    node = section.node
                    last = phase == "prefill" and node in compiled.decoder.after
                    rows = 1 if last else tokens
                    energy = energy_j(arch, run_events(arch, node, section.code, pairs, rows))
                    cost.append(energy * arch.seconds(cycles))
    assert mapped(Objective.EDP).cost == pytest.approx(math.fsum(cost), rel=1e-12, abs=0)


def test_a_delay_product_feels_the_share_of_cycles_that_progress():
    """`sustained` divides the time: at half of it the product doubles, energy stays."""
    whole, half = (small_arch(sustained=share) for share in (1.0, 0.5))
    for objective, ratio in ((Objective.EDP, 2), (Objective.ENERGY, 1)):
        costs = [mapped(objective, arch=arch).cost for arch in (whole, half)]
        assert costs[1] == pytest.approx(ratio * costs[0], rel=1e-12, abs=0)


def test_loads_and_widths_are_those_of_the_instructions():
    """Loads of all operators are all LDs of all runs; tiles are no larger than instructions."""
    arch = small_arch(weight_bits=(3, 5), head_bits=8)
    found, compiled = mapped(Objective.CYCLES, arch=arch), model(GRAPH, arch)
    loads = sum(
        times
        for phase, length, *_ in steps(compiled)
        for item, times in walk(compiled.program(phase, length).code)
        if item.module is Module.LD
    )
    assert sum(op.detail["loads"] for op in found.schedule.ops) == loads
    bits = {op.name: op.detail.get("bits") for op in found.schedule.ops}
    assert bits["decode.lm_head"] == 8
    widths = [bits[f"prefill.model.layers.{n}.mlp.down_proj"] for n in range(3)]
    assert (widths, bits["prefill.model.layers.0.self_attn"]) == ([3, 5, 3], None)
    tiles = {choice.op: choice.shape for choice in found.mappings}
    assert tiles["prefill.model.layers.0.self_attn.q_proj"].m == arch.mm_tokens
    query = tiles["decode.model.layers.0.self_attn.q_proj"]
    assert (query.m, query.n) == (1, arch.mv_tile_columns)
    assert set(tiles) == {op.name for op in found.schedule.ops if op.kind in ("gemm", "matmul")}


def test_fetched_instructions_cost_time_and_nothing_else():
    """Instructions slower than the run have a row of their own, with cycles and no energy."""
    slow = small_arch(ddr={"bandwidth_bytes_per_s": 10**8})
    for objective in Objective:
        found = mapped(objective, arch=slow)
        fetch = {op.name: cost for op, cost in zip(found.schedule.ops, found.op_costs, strict=True)}
        assert (fetch["decode.instructions"] > 0) == (objective is Objective.CYCLES)
