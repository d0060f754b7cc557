"""LeNet-5 (LeCun, Bottou, Bengio and Haffner 1998, "Gradient-Based Learning Applied to Document Recognition")."""

from collections import OrderedDict
from functools import partial
from typing import Annotated

import torch
from torch import Tensor, nn

from vgglab._checks import Count, checked, integer
from vgglab.models.parts import ConvNet, initialize

# Table I: the maps of S2 that each of the 16 maps of C3 looks at.
C3_TABLE = "012 123 234 345 045 015 0123 1234 2345 0345 0145 0125 0134 1245 0235 012345".split()


@checked
def lenet(
    in_channels: Count = 1, num_classes: Count = 10, image_size: Annotated[int, partial(integer, at_least=16)] = 32
) -> ConvNet:
    """Return LeNet-5 with its trained subsampling, its sparse C3, and distances to fixed codes as its output.

    (N, in_channels, image_size, image_size) -> scores (N, num_classes), minus the paper's distances, so that the
    largest wins. Most code that is called LeNet has a full C3, plain pooling and an FC output instead. The paper draws
    its ten codes as bitmaps of the digits; here they are random signs, the alternative that it names. Source: section
    II.B, figure 2, Table I.
    """
    features = OrderedDict(
        C1=nn.Conv2d(in_channels, 6, 5),
        C1_tanh=ScaledTanh(),
        S2=subsampling(6),
        S2_tanh=ScaledTanh(),
        C3=TableConv2d(),
        C3_tanh=ScaledTanh(),
        S4=subsampling(16),
        S4_tanh=ScaledTanh(),
        C5=nn.Conv2d(16, 120, ((image_size - 4) // 2 - 4) // 2),
        C5_tanh=ScaledTanh(),
    )
    classifier = OrderedDict(F6=nn.Linear(120, 84), F6_tanh=ScaledTanh(), output=CodeDistance(84, num_classes))
    return initialize(ConvNet(nn.Sequential(features), nn.Sequential(classifier), image_size), "xavier")


def subsampling(channels: int) -> nn.Sequential:
    """Return the sum over 2x2 windows, times one weight and plus one bias for each channel (S2 and S4)."""
    return nn.Sequential(nn.AvgPool2d(2, divisor_override=1), nn.Conv2d(channels, channels, 1, groups=channels))


class ScaledTanh(nn.Module):
    """1.7159 tanh(2x/3), which maps 1 to 1 and -1 to -1 (appendix A)."""

    def forward(self, x: Tensor) -> Tensor:
        return 1.7159 * torch.tanh(2 / 3 * x)


class TableConv2d(nn.Module):
    """A 5x5 convolution whose every output channel sees only the input channels that Table I gives it (C3)."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.ModuleList(nn.Conv2d(len(inputs), 1, 5) for inputs in C3_TABLE)

    def forward(self, x: Tensor) -> Tensor:
        channels = x.split(1, dim=1)
        seen = [torch.cat([channels[int(i)] for i in inputs], dim=1) for inputs in C3_TABLE]
        return torch.cat([conv(inputs) for conv, inputs in zip(self.maps, seen, strict=True)], dim=1)


class CodeDistance(nn.Module):
    """Minus the squared distance to each class's code of fixed signs: the radial basis functions of the output."""

    def __init__(self, units: int, num_classes: int) -> None:
        super().__init__()
        seed = torch.Generator().manual_seed(1998)
        signs = 2.0 * torch.randint(2, (num_classes, units), generator=seed, device="cpu") - 1
        self.codes = nn.Buffer(signs.to(torch.get_default_device()))

    def forward(self, x: Tensor) -> Tensor:
        return -(x[:, None] - self.codes).square().sum(dim=2)
