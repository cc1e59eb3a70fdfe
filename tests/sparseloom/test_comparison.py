"""Comparison: ratios over the first result and the text table."""

import pytest

import sparseloom as sl


@pytest.fixture(scope="module")
def results():
    machine = sl.arch("nm-tiny")
    graphs = [sl.gemm(64, 128, 32), sl.gemm(64, 128, 32, weight=sl.NofM(2, 8))]
    return [sl.simulate(graph, machine) for graph in graphs]


def test_compare_states_ratios_over_the_first(results):
    compared = sl.compare(results)
    dense, sparse = results
    assert compared.rows[0].speedup == compared.rows[0].energy_ratio == 1.0
    assert compared.speedup == dense.seconds / sparse.seconds
    assert compared.energy_ratio == sl.price(dense).energy_j / sl.price(sparse).energy_j
    assert compared.rows[1].cycles == sparse.cycles


def test_comparison_table_has_a_line_for_each_result(results):
    lines = sl.compare(results).table().splitlines()
    assert len(lines) == 3
    assert lines[0].split()[:3] == ["workload", "sparsity", "cycles"]
    assert f"{results[1].cycles:,}" in lines[2]
    assert "2:8" in lines[2]


def test_compare_nothing_is_refused():
    with pytest.raises(ValueError, match="nothing to compare: give at least one result"):
        sl.compare([])
