"""One tile of a GEMM on the NMArray: its controller job and its on-chip events."""

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from simulator.arch import ArrayJob, Dataflow, NMArray
from simulator.arch.nm_job import fold_rows
from simulator.counts import Counts
from simulator.units.nm_beats import gemm_job
from workloads.canonical import Spec

__all__ = ["NMSetting", "Tile", "encoded_bits", "kept_values", "tile_events", "tile_job"]

IntLike = TypeVar("IntLike", int, NDArray[np.int64])


@dataclass(frozen=True, slots=True, kw_only=True)
class NMSetting(Spec):
    """Run-time setting of the array: dataflow, N kept of each group of M, and the storage format.

    `indexed` says whether the weights are stored compressed (value and index) or dense.
    """

    dataflow: Dataflow
    kept: int
    group: int
    indexed: bool

    @property
    def index_bits(self) -> int:
        """Stored bits of one index: ceil(log2 M)."""
        return (self.group - 1).bit_length() if self.indexed else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile(Spec):
    """A block of the iteration space: `groups` products of (m, k) by (k, n)."""

    groups: int
    m: int
    k: int
    n: int


def tile_job(arch: NMArray, setting: NMSetting, tile: Tile) -> ArrayJob:
    """Return the controller job of `tile`: its groups' products back to back."""
    job = gemm_job(
        arch,
        setting.dataflow,
        m=tile.m,
        k=tile.k,
        n=tile.n,
        kept=setting.kept,
        group=setting.group,
    )
    return replace(job, folds=tile.groups * job.folds) if tile.groups > 1 else job


def kept_values(setting: NMSetting, k: IntLike) -> IntLike:
    """Return the values stored of `k` positions: N of every group, a ragged last one included."""
    return -(-k // setting.group) * setting.kept if setting.indexed else k


def encoded_bits(arch: NMArray, setting: NMSetting, tile: Tile) -> tuple[int, int]:
    """Return (value bits, index bits) of the stored weights of `tile`."""
    kept = tile.groups * kept_values(setting, tile.k) * tile.n
    return arch.operand_bits * kept, setting.index_bits * kept


def tile_events(arch: NMArray, setting: NMSetting, tile: Tile, *, first_k: bool) -> Counts:
    """Return the buffer reads and writes, in bits, while `tile` runs on the array.

    Only valid lanes are read: ragged edges cost time, not accesses. Partial sums live in the
    output buffer; every reduction fold after the first reads them back (`first_k` is False when
    an earlier tile of the same output already wrote them).
    """
    m_lanes = fold_rows(arch) if setting.dataflow is Dataflow.OS else arch.cols
    m_folds, n_folds = -(-tile.m // m_lanes), -(-tile.n // arch.cols)
    k_folds = -(-tile.k // (arch.rows * setting.group))
    match setting.dataflow:
        case Dataflow.OS:
            act_reads, weight_reads, writes = n_folds, m_folds, 1
        case Dataflow.WS:
            act_reads, weight_reads, writes = n_folds, 1, k_folds
        case Dataflow.IS:
            act_reads, weight_reads, writes = 1, m_folds, k_folds
    values, indices = encoded_bits(arch, setting, tile)
    acts = arch.operand_bits * tile.groups * tile.m * tile.k
    sums = arch.acc_bits * tile.groups * tile.m * tile.n
    return {
        ("act_buffer", "read", "full"): act_reads * acts,
        ("weight_buffer", "read", "full"): weight_reads * values,
        ("weight_buffer", "read", "metadata"): weight_reads * indices,
        ("out_buffer", "write", "full"): sums * writes,
        ("out_buffer", "read", "full"): sums * (writes - first_k),
    }
