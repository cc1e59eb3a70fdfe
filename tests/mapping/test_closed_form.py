"""Programs of closed-form machines: cutting changes overlap and never work."""

import numpy as np
import pytest

from cost_models import price
from mapping import map_graph
from mapping.inference import _chunked
from simulator.arch.load import load_arch
from simulator.engine import unit_cycles
from simulator.schedule import OpSchedule, Step, Unit
from simulator.simulate import simulate
from workloads.gemm import gemm_graph
from workloads.sparsity import Explicit, NofM, Unstructured
from workloads.zoo import build


def run(graph, arch, **overrides):
    machine = load_arch(arch, **overrides)
    return simulate(map_graph(graph, machine).schedule, machine)


@pytest.mark.parametrize("chunks", [1, 2, 3, 64])
def test_chunks_sum_to_the_whole(chunks):
    step = Step(unit=Unit.ARRAY, label="array", cycles=1001, busy=77)
    program, tokens = _chunked(load_arch("stc-like"), step, 80_001, 4_444, chunks)
    op = OpSchedule(name="op", kind="gemm", program=program, tokens=tokens)
    units = unit_cycles(op)
    assert (units[Unit.ARRAY], units[Unit.DMA]) == (1001, 313 + 18)
    assert sum(step.busy * times for step, times in op.steps()) == 77


@pytest.mark.parametrize("arch", ["stc-dual", "dstc-like", "sigma-like", "dense-tpu"])
def test_modelled_memory_lies_between_steady_and_serial(arch):
    graph = gemm_graph(512, 512, 512, weight=NofM(2, 8), activation=Unstructured(0.5))
    array, steady, modelled = (
        run(graph, arch, memory=memory) for memory in ("ideal", "steady", "modelled")
    )
    transfers = int(modelled.per_op["dma_cycles"].sum())
    assert array.cycles <= steady.cycles == max(array.cycles, transfers)
    assert steady.cycles < modelled.cycles <= array.cycles + transfers + 200
    assert array.counts == steady.counts == modelled.counts


def test_operands_cross_main_memory_once_as_compressed():
    graph = gemm_graph(256, 512, 128, weight=NofM(1, 4), activation=Unstructured(0.5))
    counts = run(graph, "stc-dual").counts
    assert counts["dram", "read", "full"] == 8 * (256 * 512 // 2 + 512 * 128 // 4)
    assert counts["dram", "read", "metadata"] == 256 * 512 + 512 * 128
    assert counts["dram", "write", "full"] == 8 * 256 * 128


def test_convolution_reads_its_image_once_and_its_windows_through_the_port():
    done = run(build("resnet9", image=32), "stc-like")
    conv = next(op for op in build("resnet9", image=32).ops if op.gemm)
    row = done.per_op[0]
    g = conv.gemm
    weights = g.k * g.n
    assert row["dram_read_bytes"] == 32 * 32 * 3 + weights < g.m * g.k


@pytest.mark.parametrize("arch", ["stc-like", "dstc-like", "sigma-like", "dense-tpu"])
def test_vector_operators_run_on_the_lanes(arch):
    done = run(build("resnet9", image=32), arch, memory="steady")
    vector = done.per_op[done.per_op["macs_dense"] == 0]
    assert (vector["cycles"] > 0).any()
    assert (vector["array_cycles"] == 0).all()
    ideal = run(build("resnet9", image=32), arch, memory="ideal")
    assert (ideal.per_op["cycles"][ideal.per_op["macs_dense"] == 0] == 0).all()
    assert price(done).energy_j > 0


def test_known_values_give_true_counts():
    values = np.zeros((640, 400), dtype=np.float32)
    values[:, ::5] = 1.0
    graph = gemm_graph(128, 640, 400)
    known = graph.__class__(
        name="known", ops=graph.ops, tensors=graph.tensors, values={"weight": values}
    )
    masked = gemm_graph(128, 640, 400, weight=Explicit(values))
    for arch in ("dstc-like", "sigma-like"):
        assert run(known, arch).cycles == run(masked, arch).cycles < run(graph, arch).cycles
        assert run(known, arch).macs_effectual == 128 * 640 * 80


def test_training_step_is_refused_with_the_operator():
    with pytest.raises(ValueError, match=r"'.*\.ff' belongs to a training step, which this"):
        map_graph(build("resnet9", image=32).training("dense"), load_arch("stc-like"))


def test_unknown_mapper_lists_the_known():
    with pytest.raises(ValueError, match="Unknown mapper 'magic'; known: exhaustive"):
        map_graph(gemm_graph(1, 1, 1), load_arch("dense-tpu"), mapper="magic")
