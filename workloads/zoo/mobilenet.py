"""MobileNetV1 and V2 by shape, width 1.0 (arXiv 1704.04861 table 1, arXiv 1801.04381 table 2)."""

from workloads.builder import GraphBuilder, feature_map
from workloads.graph import WorkloadGraph

__all__ = ["mobilenet_v1", "mobilenet_v2"]

RELU = ("Relu",)
RELU6 = ("Relu6",)

V1_BLOCKS = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2),
    (512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1),
)  # fmt: skip
"""(features, stride) of each depthwise-separable block."""

V2_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2),
             (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))  # fmt: skip
"""(expansion, features, blocks, stride of the first block) of each stage."""


def _head(net: GraphBuilder, x: str, name: str) -> None:
    pooled = net.flatten("flatten", net.pool("avgpool", x, 1, "GlobalAveragePool"))
    net.linear(name, pooled, 1000)


def mobilenet_v1(*, image: int = 224, batch: int = 1) -> WorkloadGraph:
    """Build MobileNetV1: 0.57 GMAC at 224."""
    net = GraphBuilder()
    x = net.tensor("input", feature_map(batch, image, 3))
    x = net.conv("features.0", x, 32, 3, stride=2, post=RELU)
    for i, (features, stride) in enumerate(V1_BLOCKS, start=1):
        channels = net.shape(x)[-1]
        x = net.conv(
            f"features.{i}.depthwise", x, channels, 3, stride=stride, groups=channels, post=RELU
        )
        x = net.conv(f"features.{i}.pointwise", x, features, 1, post=RELU)
    _head(net, x, "classifier")
    return net.build("mobilenet-v1")


def _inverted(
    net: GraphBuilder, block: str, x: str, expansion: int, features: int, stride: int
) -> str:
    channels = net.shape(x)[-1]
    y, layer = x, 0
    if expansion > 1:
        y = net.conv(f"{block}.conv.0.0", y, expansion * channels, 1, post=RELU6)
        layer = 1
    hidden = net.shape(y)[-1]
    y = net.conv(f"{block}.conv.{layer}.0", y, hidden, 3, stride=stride, groups=hidden, post=RELU6)
    y = net.conv(f"{block}.conv.{layer + 1}", y, features, 1)
    return net.add(f"{block}.add", y, x) if stride == 1 and channels == features else y


def mobilenet_v2(*, image: int = 224, batch: int = 1) -> WorkloadGraph:
    """Build MobileNetV2, operators named as in torchvision: 0.30 GMAC at 224."""
    net = GraphBuilder()
    x = net.tensor("input", feature_map(batch, image, 3))
    x = net.conv("features.0.0", x, 32, 3, stride=2, post=RELU6)
    index = 1
    for expansion, features, blocks, first in V2_STAGES:
        for i in range(blocks):
            stride = first if i == 0 else 1
            x = _inverted(net, f"features.{index}", x, expansion, features, stride)
            index += 1
    x = net.conv(f"features.{index}.0", x, 1280, 1, post=RELU6)
    _head(net, x, "classifier.1")
    return net.build("mobilenet-v2")
