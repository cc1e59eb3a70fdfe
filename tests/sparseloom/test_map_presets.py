"""`sl.map` on every preset, by every mapper and for every objective."""

from functools import cache

import pytest

import sparseloom as sl
from mapping import MAPPERS, Objective
from simulator.arch.load import PRESETS
from workloads.zoo.decoder import decoder


@cache
def graph(preset):
    if isinstance(sl.arch(preset), sl.DspChain):
        size = {"layers": 2, "width": 64, "heads": 4, "hidden": 128, "vocabulary": 100}
        return decoder("tiny", "opt-6.7b", **size, prefill=30, decode=5)
    return sl.gemm(100, 200, 90, weight=sl.NofM(2, 8))


def simulated(workload, machine, objective):
    """Return the objective of a run under it."""
    result = sl.simulate(workload, machine, objective=objective)
    rows = result.per_op
    return {
        Objective.CYCLES: result.cycles,
        Objective.ENERGY: sl.price(result).energy_j,
        Objective.DRAM_BYTES: int((rows["dram_read_bytes"] + rows["dram_write_bytes"]).sum()),
    }[objective]


@pytest.mark.parametrize("objective", Objective)
@pytest.mark.parametrize("preset", PRESETS)
def test_mappers_of_every_machine_share_one_interface(preset, objective):
    """Proofs have no gap, greedy costs no less, and what is simulated is what was costed."""
    machine, workload = sl.arch(preset), graph(preset)
    found = {m: sl.map(workload, machine, mapper=m, objective=objective) for m in MAPPERS}
    for name, mapped in found.items():
        assert (mapped.mapper, mapped.objective) == (name, objective)
        assert 0 < mapped.bound <= found["exhaustive"].cost <= mapped.cost
        assert len(mapped.op_costs) == len(mapped.schedule.ops) <= mapped.considered
        assert mapped.gap == 0 or name == "greedy"
    if objective is not Objective.EDP:  # of operators, which a run does not sum
        cost = simulated(workload, machine, objective)
        assert found["exhaustive"].cost == pytest.approx(cost, rel=1e-12, abs=0)


@pytest.mark.parametrize("preset", [name for name in PRESETS if name.startswith("flightllm")])
def test_a_graph_that_is_no_decoder_is_refused_by_name(preset):
    """A DspChain maps decoders; anything else is one clear sentence."""
    with pytest.raises(ValueError, match=r"gemm-4x4x4.*decoder"):
        sl.map(sl.gemm(4, 4, 4), preset)
