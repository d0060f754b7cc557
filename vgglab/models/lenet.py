"""LeNet-5 (LeCun, Bottou, Bengio and Haffner 1998, "Gradient-Based Learning Applied to Document Recognition")."""

from collections import OrderedDict

import torch
from torch import nn

from vgglab import _checks as checks
from vgglab.models.parts import LARGEST_IMAGE, ConvNet, initialize

# Table I: the maps of S2 that each of the 16 maps of C3 looks at.
C3_TABLE = (
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5)),
    (0, 1, 2, 3, 4, 5),
)
SMALLEST_IMAGE = 16


def lenet(in_channels=1, num_classes=10, image_size=32):
    """Return LeNet-5 with its trained subsampling, its sparse C3, and distances to fixed codes as its output.

    (N, in_channels, image_size, image_size), at least 16 pixels -> scores (N, num_classes), which are minus the
    paper's distances, so that the largest wins. 60,000 parameters at 32 pixels. Most code that is called LeNet
    has a full C3, plain pooling and an FC output instead. The paper draws its ten codes as bitmaps of the
    digits; here they are random signs, the alternative that it names. Raises ValueError or TypeError for
    numbers out of range. Source: section II.B, figure 2, Table I.
    """
    in_channels = checks.integer("in_channels", in_channels, 1)
    num_classes = checks.integer("num_classes", num_classes, 1)
    image_size = checks.integer("image_size", image_size, SMALLEST_IMAGE, LARGEST_IMAGE)
    side = ((image_size - 4) // 2 - 4) // 2
    features = OrderedDict(
        C1=nn.Conv2d(in_channels, 6, 5),
        C1_tanh=ScaledTanh(),
        S2=subsampling(6),
        S2_tanh=ScaledTanh(),
        C3=TableConv2d(C3_TABLE, 5),
        C3_tanh=ScaledTanh(),
        S4=subsampling(16),
        S4_tanh=ScaledTanh(),
        C5=nn.Conv2d(16, 120, side),
        C5_tanh=ScaledTanh(),
    )
    classifier = OrderedDict(F6=nn.Linear(120, 84), F6_tanh=ScaledTanh(), output=CodeDistance(84, num_classes))
    model = ConvNet(nn.Sequential(features), nn.Sequential(classifier), image_size)
    return initialize(model, "xavier")


def subsampling(channels):
    """Return the sum over 2x2 windows, times one weight and plus one bias for each channel (S2 and S4)."""
    return nn.Sequential(nn.AvgPool2d(2, divisor_override=1), nn.Conv2d(channels, channels, 1, groups=channels))


class ScaledTanh(nn.Module):
    """1.7159 tanh(2x/3), which maps 1 to 1 and -1 to -1 (appendix A)."""

    def forward(self, x):
        return 1.7159 * torch.tanh(2 / 3 * x)


class TableConv2d(nn.Module):
    """A convolution whose every output channel sees only the input channels that a table gives it (C3)."""

    def __init__(self, table, kernel_size):
        super().__init__()
        self.table = table
        self.maps = nn.ModuleList(nn.Conv2d(len(inputs), 1, kernel_size) for inputs in table)

    def forward(self, x):
        channels = x.split(1, dim=1)
        seen = [torch.cat([channels[i] for i in inputs], dim=1) for inputs in self.table]
        return torch.cat([conv(inputs) for conv, inputs in zip(self.maps, seen, strict=True)], dim=1)


class CodeDistance(nn.Module):
    """Minus the squared distance to each class's code of fixed signs: the radial basis functions of the output."""

    def __init__(self, units, num_classes):
        super().__init__()
        seed = torch.Generator().manual_seed(1998)
        signs = 2.0 * torch.randint(2, (num_classes, units), generator=seed, device="cpu") - 1
        self.register_buffer("codes", signs.to(torch.get_default_device()))

    def forward(self, x):
        return -(x[:, None] - self.codes).square().sum(dim=2)
