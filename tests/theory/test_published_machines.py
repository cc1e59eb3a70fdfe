"""Published tables of sparse machines: exact where the machine is, residuals where it is not.

SIGMA and TPU: TeAAL (MICRO 2023) artefact. Tensor cores and DSTC: Sparseloop (MICRO 2022)
artefact, Figs. 13 and 15, whose tables are (features, reduction, pixels).
"""

import pytest

from mapping import map_graph
from simulator.arch.load import load_arch
from simulator.simulate import simulate
from workloads.gemm import gemm_graph
from workloads.sparsity import NofM, Unstructured

SIGMA = [  # M, N, K, SIGMA cycles, TPU cycles; the (M, K) operand has density .2 on SIGMA
    (128, 2048, 4096, 66454, 73728),
    (320, 3072, 4096, 100576, 319488),
    (2048, 4096, 32, 4213, 68096),
    (84, 1024, 4096, 33376, 40960),
    (256, 256, 2048, 5014, 16384),
]
LAYERS = [  # features, reduction, pixels, activation density; cycles: dense, flexible 1:4, dual
    # compressed 1:4, DSTC at weight density .5
    (128, 1152, 1024, 0.44, 147456, 66707, 42271, 51197),
    (512, 1024, 256, 0.27, 131072, 59295, 32768, 35482),
    (512, 128, 1024, 0.56, 65536, 29648, 21784, 30226),
    (512, 256, 1024, 0.82, 131072, 59295, 56549, 78640),
]
DSTC = [  # activation density, weight density, time, our residual beyond reading the plot
    (0.7, 1.0, 3300, 0.12),
    (0.3, 1.0, 1930, 0.02),
    (1.0, 0.4, 2500, 0.07),
    (0.5, 0.4, 1480, 0.06),
]
"""Fig. 13, 4096^3, beside 4600 at densities (1, 1). A vector of 32 at density .7 fills three or
four groups of eight lanes, 80 % of the dense time on average; the plot shows 72 %."""


def cycles(arch, m, k, n, weight=None, activation=None):
    machine = load_arch(arch)
    graph = gemm_graph(m, k, n, weight=weight, activation=activation)
    return simulate(map_graph(graph, machine).schedule, machine).cycles


@pytest.mark.parametrize(("m", "n", "k", "sigma", "tpu"), SIGMA)
def test_sigma_and_tpu_equal_the_published_cycles(m, n, k, sigma, tpu):
    fifth = Unstructured(0.2)
    assert cycles("sigma-like", m, k, n, activation=fifth) == sigma
    assert cycles("sigma-like", n, k, m, weight=fifth) == sigma
    assert cycles("dense-tpu", m, k, n) == cycles("dense-tpu", n, k, m) == tpu


@pytest.mark.parametrize(("f", "k", "pixels", "act", "dense", "flexible", "dual", "dstc"), LAYERS)
def test_tensor_cores_equal_the_published_cycles(f, k, pixels, act, dense, flexible, dual, dstc):
    def ours(arch, weight):
        return cycles(arch, pixels, k, f, weight, Unstructured(act))

    assert ours("stc-like", None) == dense
    assert [2 * ours("stc-like", NofM(*nm)) for nm in ((2, 4), (1, 4), (2, 16))] == [dense] * 3
    assert ours("stc-flexible", NofM(1, 4)) == flexible
    assert ours("stc-dual", NofM(1, 4)) == pytest.approx(dual, rel=1e-4)
    assert ours("dstc-like", NofM(2, 4)) == pytest.approx(dstc, rel=0.015)
    assert ours("dstc-like", Unstructured(0.5)) == pytest.approx(dstc, rel=0.015)


@pytest.mark.parametrize(("act", "weight", "time", "residual"), DSTC)
def test_dstc_speedup_is_the_published_one_within_its_residual(act, weight, time, residual):
    size = (4096, 4096, 4096)
    sparse = cycles("dstc-like", *size, Unstructured(weight), Unstructured(act))
    assert sparse / cycles("dstc-like", *size) == pytest.approx(time / 4600, rel=residual)
