"""ResNet-9, ResNet-18 and ResNet-50 by shape, batch norms folded.

ResNet-18/50: He et al., "Deep Residual Learning", CVPR 2016, table 1; ResNet-50 is v1.5 (stride in
the 3x3 convolution), operators named as in torchvision. ResNet-9 is the DAWNBench CIFAR network.
"""

from workloads.builder import GraphBuilder, feature_map
from workloads.graph import WorkloadGraph

__all__ = ["resnet9", "resnet18", "resnet50"]

RELU = ("Relu",)


def _head(net: GraphBuilder, x: str) -> None:
    pooled = net.flatten("flatten", net.pool("avgpool", x, 1, "GlobalAveragePool"))
    net.linear("fc", pooled, 1000)


def _stem(net: GraphBuilder, batch: int, image: int) -> str:
    x = net.tensor("input", feature_map(batch, image, 3))
    x = net.conv("conv1", x, 64, 7, stride=2, post=RELU)
    # 3x3 windows of stride 2 read each input 9 / 4 times.
    return net.pool("maxpool", x, -(-net.shape(x)[1] // 2), passes=3)


def _basic(net: GraphBuilder, block: str, x: str, width: int, stride: int) -> str:
    y = net.conv(f"{block}.conv1", x, width, 3, stride=stride, post=RELU)
    y = net.conv(f"{block}.conv2", y, width, 3)
    return net.add(f"{block}.add", y, _shortcut(net, block, x, width, stride), post=RELU)


def _bottleneck(net: GraphBuilder, block: str, x: str, width: int, stride: int) -> str:
    y = net.conv(f"{block}.conv1", x, width, 1, post=RELU)
    y = net.conv(f"{block}.conv2", y, width, 3, stride=stride, post=RELU)
    y = net.conv(f"{block}.conv3", y, 4 * width, 1)
    return net.add(f"{block}.add", y, _shortcut(net, block, x, 4 * width, stride), post=RELU)


def _shortcut(net: GraphBuilder, block: str, x: str, features: int, stride: int) -> str:
    if stride == 1 and net.shape(x)[-1] == features:
        return x
    return net.conv(f"{block}.downsample.0", x, features, 1, stride=stride)


def resnet18(*, image: int = 224, batch: int = 1) -> WorkloadGraph:
    """Build ResNet-18: 20 convolutions and a classifier, 1.81 GMAC at 224."""
    net = GraphBuilder()
    x = _stem(net, batch, image)
    for stage, width in enumerate((64, 128, 256, 512), start=1):
        for i in range(2):
            stride = 2 if stage > 1 and i == 0 else 1
            x = _basic(net, f"layer{stage}.{i}", x, width, stride)
    _head(net, x)
    return net.build("resnet18")


def resnet50(*, image: int = 224, batch: int = 1) -> WorkloadGraph:
    """Build ResNet-50 v1.5: 53 convolutions and a classifier, 4.09 GMAC at 224."""
    net = GraphBuilder()
    x = _stem(net, batch, image)
    stages = zip((64, 128, 256, 512), (3, 4, 6, 3), strict=True)
    for stage, (width, blocks) in enumerate(stages, start=1):
        for i in range(blocks):
            stride = 2 if stage > 1 and i == 0 else 1
            x = _bottleneck(net, f"layer{stage}.{i}", x, width, stride)
    _head(net, x)
    return net.build("resnet50")


def _residual(net: GraphBuilder, name: str, x: str) -> str:
    features = net.shape(x)[-1]
    y = net.conv(f"{name}.0", x, features, 3, post=RELU)
    return net.add(f"{name}.add", net.conv(f"{name}.1", y, features, 3, post=RELU), x)


def resnet9(*, image: int = 32, batch: int = 1) -> WorkloadGraph:
    """Build ResNet-9: 8 convolutions and a 10-way classifier, for CIFAR-sized images."""
    net = GraphBuilder()
    x = net.tensor("input", feature_map(batch, image, 3))
    x = net.conv("conv1", x, 64, 3, post=RELU)
    x = net.halve("pool2", net.conv("conv2", x, 128, 3, post=RELU))
    x = _residual(net, "res1", x)
    x = net.halve("pool3", net.conv("conv3", x, 256, 3, post=RELU))
    x = net.halve("pool4", net.conv("conv4", x, 512, 3, post=RELU))
    x = _residual(net, "res2", x)
    pooled = net.flatten("flatten", net.pool("maxpool", x, 1, "GlobalMaxPool"))
    net.linear("classifier", pooled, 10)
    return net.build("resnet9")
