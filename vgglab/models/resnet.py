"""ResNet-18, 34, 50, 101 and 152 (He, Zhang, Ren and Sun, arXiv:1512.03385)."""

from collections import OrderedDict
from functools import partial
from typing import Annotated

from torch import Tensor, nn

from vgglab._checks import Count, checked, choice
from vgglab.models.parts import ConvNet, initialize

# Table 1: how many blocks the stages conv2_x to conv5_x have.
RESNET_CONFIGS = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
}


@checked
def resnet(
    depth: Annotated[int, partial(choice, accepted=RESNET_CONFIGS)],
    version: Annotated[float, partial(choice, accepted=(1, 1.5))] = 1,
    in_channels: Count = 3,
    num_classes: Count = 1000,
    shortcuts: bool = True,
) -> ConvNet:
    """Return a residual network, or with shortcuts False the plain network of the same layers.

    (N, in_channels, H, W), at least 32 pixels -> class scores (N, num_classes). In version 1, the paper's, the first
    1x1 of a bottleneck takes the stride; in version 1.5, which is torchvision's resnet50, 101 and 152, the 3x3 takes
    it, which costs ResNet-50 6% more operations. Basic blocks are the same in both. Source: Table 1, figures 3, 5.
    """
    kind, blocks = RESNET_CONFIGS[depth]
    block, widening = (basic, 1) if kind == "basic" else (partial(bottleneck, version=version), 4)

    def stage(in_channels: int, width: int, count: int, stride: int) -> nn.Sequential:
        modules: list[nn.Module] = []
        for step in (stride, *[1] * (count - 1)):
            layers = block(in_channels, width, step)
            if shortcuts:
                modules.append(Residual(layers, in_channels, widening * width, step))
            else:
                modules.append(nn.Sequential(*layers, nn.ReLU(inplace=True)))
            in_channels = widening * width
        return nn.Sequential(*modules)

    conv1, norm1 = conv_bn(in_channels, 64, 7, stride=2)
    features = OrderedDict(
        conv1=conv1,
        norm1=norm1,
        relu1=nn.ReLU(inplace=True),
        pool1=nn.MaxPool2d(3, stride=2, padding=1),
        conv2_x=stage(64, 64, blocks[0], stride=1),
        conv3_x=stage(64 * widening, 128, blocks[1], stride=2),
        conv4_x=stage(128 * widening, 256, blocks[2], stride=2),
        conv5_x=stage(256 * widening, 512, blocks[3], stride=2),
        average=nn.AdaptiveAvgPool2d(1),
    )
    classifier = nn.Linear(512 * widening, num_classes)
    return initialize(ConvNet(nn.Sequential(features), classifier, smallest_image=32))


class Residual(nn.Module):
    """y = ReLU(F(x) + x); a 1x1 convolution projects x where F changes its shape (equations 1 and 2)."""

    def __init__(self, layers: list[nn.Module], in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        same = stride == 1 and in_channels == out_channels
        self.residual = nn.Sequential(*layers)
        self.shortcut = nn.Identity() if same else nn.Sequential(*conv_bn(in_channels, out_channels, 1, stride))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.residual(x) + self.shortcut(x))


def basic(in_channels: int, width: int, stride: int) -> list[nn.Module]:
    """Return the layers of F in ResNet-18 and 34: two 3x3 convolutions (figure 5, left)."""
    return [*conv_bn(in_channels, width, 3, stride), nn.ReLU(inplace=True), *conv_bn(width, width, 3)]


def bottleneck(in_channels: int, width: int, stride: int, version: float) -> list[nn.Module]:
    """Return the layers of F in the deeper ones: 1x1 down, 3x3, 1x1 up to four times the width (figure 5, right)."""
    first, second = (stride, 1) if version == 1 else (1, stride)
    return [
        *conv_bn(in_channels, width, 1, first),
        nn.ReLU(inplace=True),
        *conv_bn(width, width, 3, second),
        nn.ReLU(inplace=True),
        *conv_bn(width, 4 * width, 1),
    ]


def conv_bn(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> list[nn.Module]:
    """Return a padded convolution without bias and its batch normalization."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False)
    return [conv, nn.BatchNorm2d(out_channels)]
