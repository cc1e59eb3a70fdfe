"""Published tables of sparse machines: exact where the machine is, residuals where it is not.

The rows are those that `sparseloom reproduce` shows; their sources stand there.
"""

import numpy as np
import pytest

from sparseloom.reproduce import eyeriss_v2, sigma_tpu, tensor_cores
from sparseloom.reproduce.product import run_product
from workloads.sparsity import Explicit, NofM, Unstructured


@pytest.fixture(scope="module")
def cores():
    """Return the rows of the tensor cores."""
    return tensor_cores.section(lambda _step: None).rows


def test_sigma_and_tpu_equal_the_published_cycles():
    """Five products on both machines, to the cycle."""
    rows = sigma_tpu.section(lambda _step: None).rows
    assert len(rows) == 2 * len(sigma_tpu.PRODUCTS) == 10
    assert [row.ours for row in rows] == [row.published for row in rows]


@pytest.mark.parametrize(("m", "n", "k", "sigma", "tpu"), sigma_tpu.PRODUCTS)
def test_sigma_and_tpu_do_not_care_which_operand_is_which(m, n, k, sigma, tpu):
    """The transposed product takes the same time."""
    fifth = Unstructured(sigma_tpu.DENSITY)
    assert run_product("sigma-like", n, k, m, weight=fifth).cycles == sigma
    assert run_product("dense-tpu", n, k, m).cycles == tpu


def test_tensor_cores_equal_the_published_cycles(cores):
    """Fig. 15: equal where only sizes matter, within a cycle or 1.5 % of drawn masks elsewhere."""
    rows = [row for row in cores if "Fig. 15" in row.source]
    assert len(rows) == 5 * len(tensor_cores.LAYERS)
    for row in rows:
        assert row.matches, row
        assert row.tolerance <= 0.015
    exact = [row for row in rows if row.what.startswith(("stc-like", "stc-flexible"))]
    assert all(row.error == 0 for row in exact)


@pytest.mark.parametrize("layer", tensor_cores.LAYERS, ids=str)
def test_tensor_core_with_one_quota_is_flat_below_it(layer):
    """1:4 and 2:16 take the time of 2:4; the structure of half the weights matters little."""
    f, k, pixels, act, dense, *_, dstc = layer
    for weight in (NofM(1, 4), NofM(2, 16)):
        found = run_product("stc-like", pixels, k, f, weight, Unstructured(act))
        assert 2 * found.cycles == dense
    found = run_product("dstc-like", pixels, k, f, Unstructured(0.5), Unstructured(act))
    assert found.cycles == pytest.approx(dstc, rel=0.015)


def test_dstc_time_is_the_published_one_within_its_residual(cores):
    """Fig. 13: what is beyond reading the plot is stated row by row."""
    rows = [row for row in cores if "Fig. 13" in row.source]
    for row, (*_, residual) in zip(rows, tensor_cores.DSTC, strict=True):
        assert abs(row.error) <= residual
        assert ("count in full" if row.error > 0 else "loses more") in row.note


def test_eyeriss_pe_multiplies_in_the_published_cycles():
    """Exact with the true masks; the densities alone are as far off as the public estimate."""
    rows = eyeriss_v2.section(lambda _step: None).rows
    exact, estimates = rows[:2], rows[2:]
    assert [row.ours for row in exact] == [1144158, 948572]
    assert [row.published for row in exact] == [1144158, 948572]
    assert [row.what[:3] for row in estimates] == ["L07", "L13", "L21", "L25"]
    assert all(0.01 < abs(row.error) <= 0.07 for row in estimates)


@pytest.mark.parametrize("layer", eyeriss_v2.MASKED)
def test_eyeriss_count_is_the_number_of_pairs_and_no_other_mask_has_it(layer):
    """The count is that of positions with both operands; masks shifted by one miss it."""
    act, weight = eyeriss_v2.masks(layer)
    *_, published = eyeriss_v2.LAYERS[layer]
    assert int((act.sum(axis=0) * weight.sum(axis=1)).sum()) == published
    shifted = Explicit(np.roll(act, 1, axis=1))
    shape = (*act.shape, weight.shape[1])
    assert run_product("eyeriss-v2-pe", *shape, Explicit(weight), shifted).array_busy != published
