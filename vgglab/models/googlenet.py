"""GoogLeNet (Szegedy et al., arXiv:1409.4842): nine inception modules, global average pooling, no FC-4096."""

from collections import OrderedDict
from functools import partial
from typing import Annotated

import torch
from torch import Tensor, nn

from vgglab._checks import Count, checked, integer
from vgglab.lrn import from_paper
from vgglab.models.parts import ConvNet, conv_relu, initialize


@checked
def googlenet(
    auxiliary: bool = True,
    in_channels: Count = 3,
    num_classes: Count = 1000,
    image_size: Annotated[int, partial(integer, at_least=32)] = 224,
) -> "GoogLeNet":
    """Return the paper's network, which has LRN and no batch normalization.

    (N, in_channels, H, W), at least 32 pixels -> class scores (N, num_classes). With auxiliary, training mode takes
    image_size only and returns the scores and those of the heads at 4a and 4d, whose losses the paper adds with
    weights 1, 0.3 and 0.3. The paper does not state its LRN's constants: AlexNet's stand here. torchvision's googlenet
    has batch normalization in place of LRN and biases, 3x3 kernels where the paper has 5x5, a 2x2 window where the
    paper's last max-pooling has 3x3, and other windows before its heads. Source: Table 1, figure 3, section 5.
    """
    return initialize(GoogLeNet(auxiliary, in_channels, num_classes, image_size))


class GoogLeNet(ConvNet):
    """Table 1 line by line, then the two heads that only training uses; made by googlenet()."""

    def __init__(self, auxiliary: bool, in_channels: int, num_classes: int, image_size: int) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["conv1"] = nn.Sequential(*conv_relu(in_channels, 64, 7, stride=2, padding=3))
        layers["pool1"] = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        layers["norm1"] = from_paper()
        layers["conv2"] = nn.Sequential(*conv_relu(64, 64, 1), *conv_relu(64, 192, 3, padding=1))
        layers["norm2"] = from_paper()
        layers["pool2"] = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        #                          in   1x1  reduce, 3x3  reduce, 5x5  pool projection
        layers["3a"] = Inception(192, 64, (96, 128), (16, 32), 32)
        layers["3b"] = Inception(256, 128, (128, 192), (32, 96), 64)
        layers["pool3"] = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        layers["4a"] = Inception(480, 192, (96, 208), (16, 48), 64)
        layers["4b"] = Inception(512, 160, (112, 224), (24, 64), 64)
        layers["4c"] = Inception(512, 128, (128, 256), (24, 64), 64)
        layers["4d"] = Inception(512, 112, (144, 288), (32, 64), 64)
        layers["4e"] = Inception(528, 256, (160, 320), (32, 128), 128)
        layers["pool4"] = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        layers["5a"] = Inception(832, 256, (160, 320), (32, 128), 128)
        layers["5b"] = Inception(832, 384, (192, 384), (48, 128), 128)
        classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.4), nn.Linear(1024, num_classes))
        super().__init__(nn.Sequential(layers), classifier, image_size, smallest_image=32)
        side = (image_size + 1) // 16  # of 4a and 4d
        heads = {"4a": auxiliary_head(512, side, num_classes), "4d": auxiliary_head(528, side, num_classes)}
        self.auxiliary = nn.ModuleDict(heads if auxiliary else {})

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:  # type: ignore[override]
        heads = self.auxiliary if self.training else nn.ModuleDict()
        self.check_images(x, self.image_size if heads else None)
        auxiliary_scores = []
        for name, layer in self.features.named_children():
            x = layer(x)
            if name in heads:
                auxiliary_scores.append(heads[name](x))
        scores = self.classifier(x)
        return (scores, *auxiliary_scores) if heads else scores


class Inception(nn.Module):
    """Four branches that see the same input, concatenated along the channels (figure 2b)."""

    def __init__(self, in_channels: int, conv1: int, conv3: tuple[int, int], conv5: tuple[int, int], pool: int) -> None:
        super().__init__()
        self.branch_1x1 = nn.Sequential(*conv_relu(in_channels, conv1, 1))
        self.branch_3x3 = nn.Sequential(*conv_relu(in_channels, conv3[0], 1), *conv_relu(*conv3, 3, padding=1))
        self.branch_5x5 = nn.Sequential(*conv_relu(in_channels, conv5[0], 1), *conv_relu(*conv5, 5, padding=2))
        self.branch_pool = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), *conv_relu(in_channels, pool, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch_1x1(x), self.branch_3x3(x), self.branch_5x5(x), self.branch_pool(x)], dim=1)


def auxiliary_head(in_channels: int, side: int, num_classes: int) -> nn.Sequential:
    """Return the classifier of section 5: 5x5 average pooling of stride 3 (of the whole, where it is smaller)."""
    kernel = min(side, 5)
    pooled = (side - kernel) // 3 + 1
    return nn.Sequential(
        nn.AvgPool2d(kernel, stride=3),
        *conv_relu(in_channels, 128, 1),
        nn.Flatten(),
        nn.Linear(128 * pooled * pooled, 1024),
        nn.ReLU(inplace=True),
        nn.Dropout(0.7),
        nn.Linear(1024, num_classes),
    )
