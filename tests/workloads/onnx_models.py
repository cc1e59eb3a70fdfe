"""Small ONNX models for tests, and plain references for what their operators compute."""

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

OPSET = 17


def pp_ocr(part: str) -> Path:
    """The PP-OCRv4 model that ships inside the rapidocr-onnxruntime wheel."""
    spec = importlib.util.find_spec("rapidocr_onnxruntime")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("tests need `pip install --no-deps rapidocr-onnxruntime==1.4.4`")
    return next(Path(spec.submodule_search_locations[0]).glob(f"models/*{part}*.onnx"))


def node(kind, inputs, outputs, **attributes):
    return helper.make_node(kind, inputs, outputs, name=f"{kind}.{outputs[0]}", **attributes)


def model(nodes, inputs, weights=None, *, outputs=("y",), opset=OPSET, domains=()):
    """A model whose inputs are {name: shape}; None or a string in a shape is a free size."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs],
        [numpy_helper.from_array(v, n) for n, v in (weights or {}).items()],
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def saved(proto, folder, name="model.onnx"):
    path = Path(folder) / name
    path.write_bytes(proto.SerializeToString())
    return path


def run(proto, feeds, outputs):
    """What ONNX Runtime computes for `outputs`, unoptimised; intermediates are allowed."""
    proto = onnx.ModelProto.FromString(proto.SerializeToString())
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(list(outputs), feeds)


def im2col(x, window, groups):
    """(b, h, w, c) to (g, m, k) with k = (kh, kw, c of one group)."""
    top, left, bottom, right = window.padding
    x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    height, width = window.out
    columns = np.empty((groups, window.batch, height, width, *window.kernel, window.channels))
    for i in range(window.kernel[0]):
        for j in range(window.kernel[1]):
            down, across = i * window.dilation[0], j * window.dilation[1]
            part = x[:, down :: window.stride[0], across :: window.stride[1]][:, :height, :width]
            part = part.reshape(window.batch, height, width, groups, window.channels)
            columns[..., i, j, :] = np.moveaxis(part, 3, 0)
    return columns.reshape(groups, window.batch * height * width, -1)


def product(graph, op, act):
    """What `op` computes from channels-last or plain activations, biases included: (g, m, n)."""
    weight = graph.values[op.inputs[1]].astype(np.float64).reshape(op.gemm.groups, op.gemm.k, -1)
    g = op.gemm
    if op.window:
        rows = im2col(act, op.window, g.groups)
    else:
        rows = act.astype(np.float64).reshape(g.groups, g.m, g.k)
    out = rows @ weight
    if len(op.inputs) > 2:
        out = out + graph.values[op.inputs[2]].reshape(g.groups, 1, -1)
    return out
