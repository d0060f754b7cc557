"""AlexNet (Krizhevsky, Sutskever and Hinton 2012, "ImageNet Classification with Deep CNNs")."""

from typing import Literal

from torch import nn

from vgglab._checks import Count, checked
from vgglab.lrn import from_paper
from vgglab.models.parts import ConvNet, conv_relu, fc_layers, initialize


@checked
def alexnet(
    groups: Literal[1, 2] = 2,
    lrn: bool = True,
    in_channels: Count = 3,
    num_classes: Count = 1000,
    image_size: Count = 227,
) -> ConvNet:
    """Return the paper's network: two groups for its two GPUs, LRN after layers 1 and 2, overlapping pooling.

    (N, in_channels, image_size, image_size) -> class scores (N, num_classes). The paper writes 224, but the 55
    positions of its unpadded 11x11 kernel with stride 4 need 227. torchvision's alexnet is the later "one weird
    trick" (arXiv:1404.5997): other channels, no groups, no LRN. Source: sections 3.3 to 3.5 and 4.2, figure 2.
    """
    features = nn.Sequential(
        *conv_relu(in_channels, 96, 11, stride=4),
        *([from_paper()] if lrn else []),
        nn.MaxPool2d(3, stride=2),
        *conv_relu(96, 256, 5, padding=2, groups=groups),
        *([from_paper()] if lrn else []),
        nn.MaxPool2d(3, stride=2),
        *conv_relu(256, 384, 3, padding=1),
        *conv_relu(384, 384, 3, padding=1, groups=groups),
        *conv_relu(384, 256, 3, padding=1, groups=groups),
        nn.MaxPool2d(3, stride=2),
    )
    return initialize(ConvNet(features, fc_layers(features, image_size, 4096, num_classes), image_size))
