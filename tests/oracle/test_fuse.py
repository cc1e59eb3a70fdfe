"""Fusion against brute force over every set of tensors that could stay on chip."""

from itertools import product

import numpy as np
import pytest

from cost_models import price
from mapping.cache import Cache
from mapping.fuse import Keeping, rows
from mapping.graph import map_graph
from mapping.types import NoMapping
from simulator.arch.load import load_arch
from simulator.simulate import simulate
from workloads.builder import GraphBuilder
from workloads.graph import OpKind

BUFFERS = ("act_buffer", "weight_buffer", "out_buffer")


def network(rng):
    """Return a small network of random operators with residuals and views."""
    net = GraphBuilder()
    x = net.tensor("input", (1, 8, 8, 3))
    for i in range(int(rng.integers(3, 7))):
        kind = rng.choice(["conv", "conv", "residual", "norm", "pool"])
        if kind == "conv":
            kernel, stride = int(rng.choice([1, 3])), int(rng.integers(1, 3))
            x = net.conv(f"op{i}", x, int(rng.integers(2, 9)), kernel, stride=stride)
        elif kind == "residual":
            y = net.conv(f"op{i}", x, net.shape(x)[-1], 3, post=("Relu",))
            x = net.add(f"add{i}", y, x)
        elif kind == "norm":
            x = net.vector(f"op{i}", OpKind.NORM, (x,), "LayerNorm", passes=2)
        elif net.shape(x)[1] > 1:
            x = net.halve(f"op{i}", x)
    net.linear("head", net.flatten("flat", x), 5)
    return net.build("random")


def machine(rng):
    """Return a small array whose activation buffer often holds no two tensors."""
    sizes = [int(rng.choice([400, 900, 3000])), 900, 900]
    return load_arch(
        "nm-tiny",
        overlap=bool(rng.integers(2)),
        dram={"bandwidth_bytes_per_s": int(rng.choice([10**8, 10**9, 10**10]))},
        memory=str(rng.choice(["modelled", "modelled", "steady"])),
        **{name: {"capacity_bytes": size} for name, size in zip(BUFFERS, sizes, strict=True)},
    )


def measured(result, objective):
    """Return what a simulated run comes to under an objective that sums over operators."""
    match objective:
        case "cycles":
            return result.cycles
        case "energy":
            return price(result).energy_j
    return result.totals().dram_bytes


def brute_force(monkeypatch, graph, arch, objective):
    """Return the measured cost of every set of kept tensors that fits, by what is kept."""
    sizes = [len(row.ops) - 1 for row in rows(graph)]
    found, cache = {}, Cache()
    for kept in product((False, True), repeat=sum(sizes)):
        parts = np.split(np.array(kept), np.cumsum(sizes)[:-1])
        forced = iter(
            [Keeping(0, tuple(part.tolist())) for part in parts for _ in ("cost", "bound")]
        )
        with monkeypatch.context() as patch:
            patch.setattr("mapping.graph.best_keeping", lambda *_, it=forced: next(it))
            try:
                mapped = map_graph(graph, arch, objective=objective, fuse=True, cache=cache)
            except NoMapping:
                continue
        found[kept] = measured(simulate(mapped.schedule, arch), objective)
    return found


@pytest.mark.parametrize("seed", range(12))
def test_fusion_equals_brute_force_over_all_sets_of_kept_tensors(monkeypatch, seed):
    """The choice is the cheapest, its cost exact, its bound proved; greedy's bound holds."""
    rng = np.random.default_rng(seed)
    graph, arch = network(rng), machine(rng)
    objective = ("cycles", "dram_bytes", "energy")[seed % 3]
    every = brute_force(monkeypatch, graph, arch, objective)
    found = map_graph(graph, arch, objective=objective, fuse=True)
    least = min(every.values())
    assert found.cost == pytest.approx(least, rel=1e-12, abs=0)
    assert found.bound == pytest.approx(least, rel=1e-12, abs=0)
    assert measured(simulate(found.schedule, arch), objective) == pytest.approx(
        least, rel=1e-12, abs=0
    )
    apart = next((cost for kept, cost in every.items() if not any(kept)), None)
    assert found.fused.unfused == (
        apart if apart is None else pytest.approx(apart, rel=1e-12, abs=0)
    )
    quick = map_graph(graph, arch, objective=objective, mapper="greedy", fuse=True)
    assert quick.bound <= least * (1 + 1e-12)
    assert quick.fused.unfused is None or quick.cost <= quick.fused.unfused
