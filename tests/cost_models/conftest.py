"""Hand-made machines and results for tests of what comes after simulation."""

import numpy as np
import pytest

from simulator.arch import BufferParams, DramParams, NMArray
from simulator.result import OP_RECORD, Provenance, Result


def _arch(**changes):
    buffer = BufferParams(capacity_bytes=32 << 10)
    values = {
        "rows": 4,
        "cols": 4,
        "max_m": 8,
        "clock_hz": 200_000_000,
        "act_buffer": buffer,
        "weight_buffer": buffer,
        "out_buffer": buffer,
        "dram": DramParams(bandwidth_bytes_per_s=1_600_000_000, latency_cycles=40),
    }
    return NMArray(**(values | changes))


def _result(counts=None, ops=({},), arch=None):
    per_op = np.zeros(len(ops), dtype=OP_RECORD)
    for i, op in enumerate(ops):
        for key, value in {"name": f"op{i}", "kind": "gemm", "cycles": 100, **op}.items():
            per_op[key][i] = value
    return Result(
        workload="hand",
        sparsity="dense",
        arch=arch or _arch(),
        cycles=int(per_op["cycles"].sum()),
        counts=counts or {},
        per_op=per_op,
        provenance=Provenance(
            workload_digest="w", arch_digest="a", schedule_digest="s", seed=0, version="0"
        ),
    )


@pytest.fixture(scope="session")
def make_arch():
    """Return a function that makes a small machine, fields changed by keyword."""
    return _arch


@pytest.fixture(scope="session")
def make_result():
    """Return a function that makes a result of counts and operator records."""
    return _result
