import pytest

from workloads.errors import WorkloadError
from workloads.frontends.scalesim import load_scalesim
from workloads.graph import OpKind
from workloads.pruning import nnz_of
from workloads.sparsity import Dense, NofM

CONV = (
    "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, "
    "Num Filter, Strides"
)


def topology(folder, *lines, name="net.csv"):
    path = folder / name
    path.write_text("\n".join(lines) + "\n")
    return path


def test_conv_has_the_size_scale_sim_prints(tmp_path):
    # 36 folds of 2 * 32 + 32 + m - 2 cycles are AlexNet conv1's 112284 only with m = 55 * 55.
    graph = load_scalesim(topology(tmp_path, f"{CONV},", "Conv1, 224, 224, 11, 11, 3, 96, 4,"))
    (op,) = graph.ops
    assert (op.gemm.m, op.gemm.k, op.gemm.n) == (3025, 363, 96)
    assert 36 * (2 * 32 + 32 + op.gemm.m - 2) == 112_284
    assert op.window.out == (55, 55)
    assert graph.name == "net"


def test_conv_with_dividing_stride_needs_no_padding(tmp_path):
    graph = load_scalesim(topology(tmp_path, CONV, "a,8,6,3,3,4,5,1", "", "b,9,9,3,3,4,5,2,"))
    assert [op.window.padding for op in graph.ops] == [(0, 0, 0, 0)] * 2
    assert [op.window.out for op in graph.ops] == [(6, 4), (4, 4)]
    assert graph.tensors["a.out"].shape == (1, 6, 4, 5)


def test_conv_of_two_strides_uses_both(tmp_path):
    header = CONV.replace("Strides", "Stride height, Stride width")
    (op,) = load_scalesim(topology(tmp_path, header, "a,9,9,3,3,4,5,2,3,")).ops
    assert op.window.stride == (2, 3)
    assert op.window.out == (4, 3)


def test_conv_named_dp_is_depthwise(tmp_path):
    graph = load_scalesim(topology(tmp_path, CONV, "Conv2DP,10,10,3,3,16,1,1,"))
    (op,) = graph.ops
    assert op.kind is OpKind.DEPTHWISE
    assert (op.gemm.groups, op.gemm.m, op.gemm.k, op.gemm.n) == (16, 64, 9, 1)
    assert graph.tensors["Conv2DP.weight"].shape == (16, 9, 1)


def test_gemm_columns_are_m_n_k(tmp_path):
    graph = load_scalesim(topology(tmp_path, "Layer,M,N,K,", "qkv,128,1536,512,", "up,4,5,6,"))
    assert [(op.gemm.m, op.gemm.n, op.gemm.k) for op in graph.ops] == [(128, 1536, 512), (4, 5, 6)]
    assert graph.tensors["up.weight"].shape == (6, 5)


def test_gemm_batch_makes_groups(tmp_path):
    graph = load_scalesim(topology(tmp_path, "Layer,M,N,K,batch", "s,4,5,8,12,", "t,4,5,8,2:4,3"))
    assert [op.gemm.groups for op in graph.ops] == [12, 3]
    assert graph.tensors["t.weight"].sparsity == NofM(2, 4)


@pytest.mark.parametrize("header", [f"{CONV}, Sparsity", f"{CONV},"])
def test_sparsity_column_prunes_each_layer(header, tmp_path):
    lines = ["a,8,8,3,3,16,4,1,1:4,", "b,8,8,3,3,16,4,1,1:1,", "c,8,8,1,1,3,4,1,2:4,"]
    graph = load_scalesim(topology(tmp_path, header, *lines))
    assert [graph.tensors[f"{n}.weight"].sparsity for n in "abc"] == [NofM(1, 4), Dense(), Dense()]
    assert nnz_of(graph, "a.weight") == 9 * 16 * 4 // 4
    assert graph.notes == ("Dense, since the reduction is shorter than one group: c",)


def test_byte_order_mark_and_quotes_are_read(tmp_path):
    path = tmp_path / "bom.csv"
    path.write_bytes(b'\xef\xbb\xbfLayer,M,N,K\r\n"a, first",1,2,3\r\n')
    assert [op.name for op in load_scalesim(path).ops] == ["a, first"]


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ([CONV], "holds no layers; a header and one line a layer are needed"),
        ([], "holds no layers"),
        (["a,b,c", "x,1,2"], "line 1: found the header 'a, b, c', allowed are layer name, IFMAP"),
        (
            [CONV, "a,8,8,3,3,16,4"],
            "line 2: found 7 columns, needed are 8: layer name, IFMAP height",
        ),
        (
            [CONV, "a,8,8,3,3,x,4,1"],
            "line 2, column channels: found 'x', allowed is a whole number",
        ),
        (
            [CONV, "a,8,8,3,3,0,4,1"],
            "line 2, column channels: found '0', allowed is a whole number",
        ),
        ([CONV, "a,8,8,3,3,-1,4,1"], "line 2, column channels: found '-1'"),
        ([CONV, "a,8,8,3,3,2.5,4,1"], "line 2, column channels: found '2.5'"),
        ([CONV, "a,8,8,3,3,,4,1"], "line 2, column channels: found ''"),
        ([CONV, "a,8,8,3,3,99999999999,4,1"], "found '99999999999', .* from 1 to 2147483648"),
        ([CONV, ",8,8,3,3,1,4,1"], "line 2, column layer name: found nothing, a name is needed"),
        ([CONV, "a,8,8,9,3,1,4,1"], "line 2: found a 9x3 filter, allowed is at most its 8x8 IFMAP"),
        ([CONV, "a,8,8,3,3,8,4,1,5:4"], "line 2, column sparsity: N:M sparsity needs .* not 5:4"),
        ([CONV, "a,8,8,3,3,8,4,1,0:0"], "line 2, column sparsity: N:M sparsity needs .* not 0:0"),
        ([CONV, "a,8,8,3,3,8,4,1,NPU"], "column sparsity: found 'NPU', allowed is N:M such as 2:4"),
        ([CONV, "a,8,8,3,3,8,4,1,1:2,1:2"], "line 2: found 2 cells after stride, too many"),
        ([CONV, "a,8,8,3,3,8,4,1", "", "a,8,8,3,3,8,4,1"], "line 4: a second layer is named 'a'"),
        (["Layer,M,N,K", "a,1,2,3,z"], "line 2, column batch: found 'z'"),
    ],
)
def test_bad_line_names_file_line_column_found_and_allowed(lines, sentence, tmp_path):
    path = topology(tmp_path, *lines)
    with pytest.raises(WorkloadError, match=sentence) as caught:
        load_scalesim(path)
    assert str(path) in str(caught.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(WorkloadError, match=r"File '.*none\.csv' does not exist"):
        load_scalesim(tmp_path / "none.csv")


def test_binary_file_is_refused(tmp_path):
    path = tmp_path / "net.csv"
    path.write_bytes(b"\xff\xfe\x00\x81" * 20)
    with pytest.raises(WorkloadError, match=r"net\.csv is not a topology in CSV text"):
        load_scalesim(path)


def test_huge_file_is_refused_unread(tmp_path):
    path = tmp_path / "net.csv"
    with path.open("wb") as file:
        file.truncate(1 << 25)
    with pytest.raises(WorkloadError, match="has 33554432 bytes; a topology has at most 16777216"):
        load_scalesim(path)
