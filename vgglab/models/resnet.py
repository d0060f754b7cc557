"""ResNet-18, 34, 50, 101 and 152 (He, Zhang, Ren and Sun, arXiv:1512.03385)."""

from collections import OrderedDict

from torch import nn

from vgglab import _checks as checks
from vgglab.models.parts import ConvNet, initialize

# Table 1: how many blocks the stages conv2_x to conv5_x have.
RESNET_CONFIGS = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
}
SMALLEST_IMAGE = 32


def resnet(depth, version=1, in_channels=3, num_classes=1000, shortcuts=True):
    """Return a residual network, or with shortcuts False the plain network of the same layers.

    (N, in_channels, H, W), at least 32 pixels -> class scores (N, num_classes). In version 1, the paper's, the
    first 1x1 of a bottleneck takes the stride; in version 1.5, which is torchvision's resnet50, 101 and 152, the
    3x3 takes it, which costs ResNet-50 6% more operations. Basic blocks are the same in both. Raises ValueError
    or TypeError for an unknown depth or version, or other numbers out of range. Source: Table 1, figures 3, 5.
    """
    checks.choice("depth", depth, RESNET_CONFIGS)
    checks.choice("version", version, (1, 1.5))
    in_channels = checks.integer("in_channels", in_channels, 1)
    num_classes = checks.integer("num_classes", num_classes, 1)
    shortcuts = checks.flag("shortcuts", shortcuts)
    kind, blocks = RESNET_CONFIGS[depth]

    def stage(in_channels, width, count, stride):
        modules = []
        for index in range(count):
            step = stride if index == 0 else 1
            if kind == "basic":
                layers, out_channels = basic(in_channels, width, step), width
            else:
                layers, out_channels = bottleneck(in_channels, width, step, version), 4 * width
            if shortcuts:
                modules.append(Residual(layers, in_channels, out_channels, step))
            else:
                modules.append(nn.Sequential(*layers, nn.ReLU(inplace=True)))
            in_channels = out_channels
        return nn.Sequential(*modules)

    widening = 1 if kind == "basic" else 4
    features = OrderedDict()
    features["conv1"], features["norm1"] = conv_bn(in_channels, 64, 7, stride=2)
    features["relu1"] = nn.ReLU(inplace=True)
    features["pool1"] = nn.MaxPool2d(3, stride=2, padding=1)
    features["conv2_x"] = stage(64, 64, blocks[0], stride=1)
    features["conv3_x"] = stage(64 * widening, 128, blocks[1], stride=2)
    features["conv4_x"] = stage(128 * widening, 256, blocks[2], stride=2)
    features["conv5_x"] = stage(256 * widening, 512, blocks[3], stride=2)
    features["average"] = nn.AdaptiveAvgPool2d(1)
    classifier = nn.Linear(512 * widening, num_classes)
    return initialize(ConvNet(nn.Sequential(features), classifier, smallest_image=SMALLEST_IMAGE))


class Residual(nn.Module):
    """y = ReLU(F(x) + x); a 1x1 convolution projects x where F changes its shape (equations 1 and 2)."""

    def __init__(self, layers, in_channels, out_channels, stride):
        super().__init__()
        same = stride == 1 and in_channels == out_channels
        self.residual = nn.Sequential(*layers)
        self.shortcut = nn.Identity() if same else nn.Sequential(*conv_bn(in_channels, out_channels, 1, stride))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.relu(self.residual(x) + self.shortcut(x))


def basic(in_channels, width, stride):
    """Return the layers of F in ResNet-18 and 34: two 3x3 convolutions (figure 5, left)."""
    return [
        *conv_bn(in_channels, width, 3, stride),
        nn.ReLU(inplace=True),
        *conv_bn(width, width, 3),
    ]


def bottleneck(in_channels, width, stride, version):
    """Return the layers of F in the deeper ones: 1x1 down, 3x3, 1x1 up to four times the width (figure 5, right)."""
    first, second = (stride, 1) if version == 1 else (1, stride)
    return [
        *conv_bn(in_channels, width, 1, first),
        nn.ReLU(inplace=True),
        *conv_bn(width, width, 3, second),
        nn.ReLU(inplace=True),
        *conv_bn(width, 4 * width, 1),
    ]


def conv_bn(in_channels, out_channels, kernel_size, stride=1):
    """Return a padded convolution without bias and its batch normalization, a list of two modules."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False)
    return [conv, nn.BatchNorm2d(out_channels)]
