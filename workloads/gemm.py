"""A graph of one matrix product, for questions about a single shape."""

from workloads.graph import Gemm, Op, OpKind, TensorSpec, WorkloadGraph
from workloads.pruning import runs_dense
from workloads.sparsity import Dense, Sparsity, check_sparsity

__all__ = ["gemm_graph"]


def _operand(
    name: str, dims: tuple[str, ...], shape: tuple[int, ...], sparsity: Sparsity, axis: int
) -> tuple[TensorSpec, list[str]]:
    """Return the operand and the sentences its reader should know."""
    try:
        check_sparsity(sparsity)
        sparsity.nnz(shape, axis=axis)
    except ValueError as error:
        raise ValueError(f"GEMM {name}: {error}") from None
    short = runs_dense(sparsity, shape, axis)
    spec = TensorSpec(
        name=name,
        dims=dims,
        shape=shape,
        parameter=name == "weight",
        sparsity=Dense() if short else sparsity,
    )
    why = f"Dense in spite of {sparsity}, since the reduction is shorter than one group: {name}"
    return spec, [why] if short else []


def gemm_graph(
    m: int,
    k: int,
    n: int,
    *,
    weight: Sparsity | None = None,
    activation: Sparsity | None = None,
    groups: int = 1,
) -> WorkloadGraph:
    """Return the graph of one (m, k) by (k, n) product, `groups` times over; dense by default.

    Tensors are `activation` (m, k), `weight` (k, n) and `output` (m, n), with a leading g when
    groups > 1; explicit masks have these shapes. Raises ValueError for a size below 1 or a
    sparsity that does not fit.
    """
    gemm = Gemm(groups=groups, m=m, k=k, n=n)
    lead, g = ((groups,), ("g",)) if groups > 1 else ((), ())
    act, act_notes = _operand(
        "activation",
        (*g, "m", "k"),
        (*lead, m, k),
        Dense() if activation is None else activation,
        -1,
    )
    par, par_notes = _operand(
        "weight", (*g, "k", "n"), (*lead, k, n), Dense() if weight is None else weight, -2
    )
    out = TensorSpec(name="output", dims=(*g, "m", "n"), shape=(*lead, m, n))
    op = Op(
        name="gemm",
        kind=OpKind.GEMM,
        inputs=("activation", "weight"),
        output="output",
        gemm=gemm,
        source="Gemm",
    )
    return WorkloadGraph(
        name=f"gemm-{m}x{k}x{n}",
        ops=(op,),
        tensors={spec.name: spec for spec in (act, par, out)},
        notes=(*act_notes, *par_notes),
    )
