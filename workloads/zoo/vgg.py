"""VGG-19 by shape (Simonyan and Zisserman, arXiv 1409.1556, table 1, column E)."""

from workloads.builder import GraphBuilder, feature_map
from workloads.graph import WorkloadGraph

__all__ = ["vgg19"]

RELU = ("Relu",)
STAGES = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))
CIFAR_IMAGE = 32


def _features(net: GraphBuilder, x: str) -> str:
    index = 0  # numbered as torchvision does: a convolution and its ReLU take two places
    for width, convs in STAGES:
        for _ in range(convs):
            x = net.conv(f"features.{index}", x, width, 3, post=RELU)
            index += 2
        x = net.halve(f"features.{index}", x)
        index += 1
    return x


def vgg19(*, image: int = 224, batch: int = 1) -> WorkloadGraph:
    """Build VGG-19: 16 convolutions and three linear layers, 19.6 GMAC at 224.

    With image=32 the classifier is the single 512 to 10 layer of its CIFAR form; at other sizes
    an average pool brings the features to 7 by 7.
    """
    net = GraphBuilder()
    x = _features(net, net.tensor("input", feature_map(batch, image, 3)))
    if image == CIFAR_IMAGE:
        net.linear("classifier", net.flatten("flatten", x), 10)
        return net.build("vgg19")
    if net.shape(x)[1] != 7:
        x = net.pool("avgpool", x, 7, "AveragePool")
    y = net.linear("classifier.0", net.flatten("flatten", x), 4096, post=RELU)
    y = net.linear("classifier.3", y, 4096, post=RELU)
    net.linear("classifier.6", y, 1000)
    return net.build("vgg19")
