"""What each ONNX operator means to a machine, and the geometry of its convolutions."""

import math
from collections.abc import Mapping
from typing import Any, Final

from workloads.graph import OpKind, Window

__all__ = [
    "FREE_CONSTANTS",
    "KINDS",
    "LAYOUT_CARRIERS",
    "PASSES",
    "SPATIAL",
    "conv_window",
    "transposed_overlaps",
    "window_passes",
]

_ELEMENTWISE = """
    Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr
    BitwiseXor Cast CastLike Ceil Celu Clip Cos Cosh DequantizeLinear Div DynamicQuantizeLinear
    Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish IsInf IsNaN
    LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod Mul Neg Not Or Pow PRelu QuantizeLinear
    Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Sub Sum Swish
    Tan Tanh ThresholdedRelu Where Xor QuickGelu FastGelu BiasGelu
"""
_NORM = """
    BatchNormalization GroupNormalization InstanceNormalization LayerNormalization
    LpNormalization LRN MeanVarianceNormalization RMSNormalization SimplifiedLayerNormalization
    SkipLayerNormalization CumSum ArgMax ArgMin ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp
    ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare
"""
_SOFTMAX = "Softmax LogSoftmax Hardmax"
_POOL = "AveragePool GlobalAveragePool GlobalLpPool GlobalMaxPool LpPool MaxPool"
_MOVE = """
    CenterCropPad Compress Concat DepthToSpace Expand EyeLike Gather GatherElements GatherND OneHot
    Pad Resize ReverseSequence ScatterElements ScatterND Slice SpaceToDepth Split Tile
    Transpose Trilu Upsample
"""
_RESHAPE = """
    Constant ConstantOfShape Dropout Flatten Identity Range Reshape Shape Size Squeeze Unsqueeze
"""

KINDS: Final[Mapping[str, OpKind]] = {
    name: kind
    for kind, names in (
        (OpKind.ELEMENTWISE, _ELEMENTWISE),
        (OpKind.NORM, _NORM),
        (OpKind.SOFTMAX, _SOFTMAX),
        (OpKind.POOL, _POOL),
        (OpKind.MOVE, _MOVE),
        (OpKind.RESHAPE, _RESHAPE),
    )
    for name in names.split()
}
"""Operators without a product; whatever is neither here nor a product is opaque."""

PASSES: Final[Mapping[str, int]] = {
    "GroupNormalization": 2,
    "InstanceNormalization": 2,
    "LayerNormalization": 2,
    "LpNormalization": 2,
    "MeanVarianceNormalization": 2,
    "RMSNormalization": 2,
    "SimplifiedLayerNormalization": 2,
    "SkipLayerNormalization": 2,
    "Softmax": 3,
    "LogSoftmax": 3,
}
"""Times an operator reads its input; 1 for the others."""

SPATIAL: Final = frozenset(
    (
        *_POOL.split(),
        *("Conv", "ConvTranspose", "LRN", "Resize", "Upsample", "DepthToSpace", "SpaceToDepth"),
        *("BatchNormalization", "GroupNormalization", "InstanceNormalization"),
    )
)
"""Operators whose data is channels first."""

LAYOUT_CARRIERS: Final = frozenset(
    (*_ELEMENTWISE.split(), "Concat", "Dropout", "Identity", "Pad", "Slice", "Split")
)
"""Operators whose output has the axes of their input."""

FREE_CONSTANTS: Final = frozenset({OpKind.POOL, OpKind.RESHAPE, OpKind.SOFTMAX})
"""Kinds whose constant inputs are settings (shapes, axes), not data."""

Attributes = Mapping[str, Any]


def _pair(values: list[int]) -> tuple[int, int]:
    """Treat one spatial axis as an image of height 1."""
    return (1, values[0]) if len(values) == 1 else (values[0], values[1])


def _strides(attributes: Attributes, axes: int) -> list[int]:
    return list(attributes.get("strides") or [1] * axes)


def _padding(
    attributes: Attributes, image: list[int], kernel: list[int]
) -> tuple[int, int, int, int]:
    """Return (top, left, bottom, right), automatic padding worked out."""
    axes = len(kernel)
    auto = attributes.get("auto_pad", b"NOTSET").decode()
    pads = list(attributes.get("pads") or [0] * 2 * axes)
    if auto != "NOTSET":
        pads = [0] * 2 * axes
    if auto.startswith("SAME"):
        strides, dilations = _strides(attributes, axes), _dilations(attributes, axes)
        for axis in range(axes):
            steps = -(-image[axis] // strides[axis]) - 1
            reach = steps * strides[axis] + (kernel[axis] - 1) * dilations[axis] + 1
            total = max(0, reach - image[axis])
            small = total // 2
            pads[axis] = small if auto == "SAME_UPPER" else total - small
            pads[axis + axes] = total - pads[axis]
    return (0, pads[0], 0, pads[1]) if axes == 1 else (pads[0], pads[1], pads[2], pads[3])


def _dilations(attributes: Attributes, axes: int) -> list[int]:
    return list(attributes.get("dilations") or [1] * axes)


def conv_window(attributes: Attributes, shape: tuple[int, ...], weight: tuple[int, ...]) -> Window:
    """Return the window of a 1-D or 2-D Conv on (b, c, ...) with weights (n, cin, ...)."""
    image, kernel = list(shape[2:]), list(weight[2:])
    axes = len(kernel)
    return Window(
        batch=shape[0],
        image=_pair(image),
        channels=weight[1],
        kernel=_pair(kernel),
        stride=_pair(_strides(attributes, axes)),
        padding=_padding(attributes, image, kernel),
        dilation=_pair(_dilations(attributes, axes)),
    )


def transposed_overlaps(attributes: Attributes) -> bool:
    """Whether a ConvTranspose adds overlapping results, so that col2im is work, not a move."""
    kernel = attributes.get("kernel_shape") or []
    dilations = _dilations(attributes, len(kernel))
    strides = _strides(attributes, len(kernel))
    return any((k - 1) * d + 1 > s for k, d, s in zip(kernel, dilations, strides, strict=True))


def window_passes(attributes: Attributes) -> int:
    """Return how often overlapping pooling windows read each input, rounded up."""
    kernel = attributes.get("kernel_shape") or [1]
    steps = math.prod(_strides(attributes, len(kernel)))
    return max(1, -(-math.prod(kernel) // steps))
