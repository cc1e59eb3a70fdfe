"""Whole-graph costs under every objective are what the simulator and the prices say."""

import math

import pytest

import sparseloom as sl
from cost_models import price
from mapping import MAPPERS, Objective, map_graph
from simulator.arch.load import load_arch
from simulator.simulate import simulate, totals
from workloads.zoo import build

ARCHS = ["nm-tiny", "sat-vcu1525", "stc-like", "sigma-like"]


def small():
    return build("resnet9", image=32).sparsify(sl.NofM(2, 4))


@pytest.mark.parametrize("memory", ["modelled", "steady", "ideal"])
@pytest.mark.parametrize("arch", ARCHS)
def test_costs_of_a_run_are_its_cycles_energy_and_traffic(arch, memory):
    """What a mapper minimises is what the run of its schedule counts, vector work included."""
    machine, graph = load_arch(arch, memory=memory), small()
    for objective in Objective:
        found = map_graph(graph, machine, mapper="greedy", objective=objective)
        result = simulate(found.schedule, machine)
        energy_j = price(result).energy_j
        match objective:
            case Objective.CYCLES:
                assert found.cost == result.cycles
            case Objective.ENERGY:
                assert found.cost == pytest.approx(energy_j, rel=1e-12, abs=0)
            case Objective.DRAM_BYTES:
                moved = result.per_op["dram_read_bytes"] + result.per_op["dram_write_bytes"]
                assert found.cost == int(moved.sum())
            case Objective.EDP:
                assert 0 < found.cost < energy_j * result.seconds
        assert found.bound <= found.cost
        assert found.gap == (found.cost - found.bound) / found.cost


def test_energy_delay_product_is_the_sum_over_executions_of_operators():
    """Each operator's energy times its own time: a graph of one has the product of the run."""
    machine = load_arch("nm-tiny")
    found = map_graph(sl.gemm(30, 40, 50), machine, objective="edp")
    result = simulate(found.schedule, machine)
    assert found.cost == pytest.approx(price(result).energy_j * result.seconds, rel=1e-12, abs=0)
    assert math.isclose(sum(found.op_costs), found.cost)


def test_every_objective_is_least_under_the_mapper_that_minimises_it():
    """No other objective's optimum is better, and some is worse: the objective steers."""
    machine, graph = load_arch("nm-tiny"), sl.gemm(96, 160, 120)
    runs = {
        objective: simulate(map_graph(graph, machine, objective=objective).schedule, machine)
        for objective in Objective
    }
    figures = {
        Objective.CYCLES: lambda r: r.cycles,
        Objective.ENERGY: lambda r: price(r).energy_j,
        Objective.EDP: lambda r: price(r).energy_j * r.cycles,
        Objective.DRAM_BYTES: lambda r: int(
            (r.per_op["dram_read_bytes"] + r.per_op["dram_write_bytes"]).sum()
        ),
    }
    for objective, figure in figures.items():
        values = {other: figure(result) for other, result in runs.items()}
        assert values[objective] == min(values.values())
    assert len({r.cycles for r in runs.values()}) > 1


@pytest.mark.parametrize("arch", ["nm-tiny", "stc-like"])
def test_unknown_objective_lists_the_known(arch):
    with pytest.raises(
        ValueError, match="Unknown objective 'area'; known: cycles, energy, edp, dram_bytes"
    ):
        map_graph(sl.gemm(4, 4, 4), load_arch(arch), objective="area")


@pytest.mark.parametrize("mapper", list(MAPPERS))
def test_mappers_share_one_space_and_answer_alike(mapper):
    """Costs are at least the proved optimum, bounds at most; provers meet it."""
    machine, graph = load_arch("sat-vcu1525"), small()
    best = map_graph(graph, machine)
    found = map_graph(graph, machine, mapper=mapper)
    assert found.mapper == mapper
    assert found.bound <= best.cost <= found.cost
    assert found.cost == best.cost or mapper == "greedy"
    assert best.gap == 0


def test_closed_form_machines_prove_what_they_say():
    found = map_graph(small(), load_arch("stc-like"), mapper="integer", objective="energy")
    assert found.gap == 0 < found.cost
    assert found.objective is Objective.ENERGY


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("phase", ["infer", "train"])
def test_totals_are_the_sums_of_a_simulation(arch, phase):
    """Cycles, events, products and traffic without the causes are those with them."""
    graph = small()
    if phase == "train":
        if arch != "sat-vcu1525":
            return
        graph = build("resnet9", image=32).training("bdwp")
    machine = load_arch(arch)
    schedule = map_graph(graph, machine, mapper="greedy").schedule
    result, found = simulate(schedule, machine), totals(schedule, machine)
    assert (found.cycles, found.counts) == (result.cycles, result.counts)
    assert found.macs_effectual == result.macs_effectual
    assert (found.seconds, found.utilisation) == (result.seconds, result.utilisation)
    moved = result.per_op["dram_read_bytes"] + result.per_op["dram_write_bytes"]
    assert found.dram_bytes == int(moved.sum())
    assert price(found) == price(result)


def test_totals_refuse_another_machines_schedule():
    schedule = map_graph(sl.gemm(4, 4, 4), load_arch("nm-tiny")).schedule
    with pytest.raises(ValueError, match="was made for another machine"):
        totals(schedule, load_arch("systolic"))
