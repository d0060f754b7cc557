"""What the networks share: the weights they start from, the check of their input, features before FC layers."""

from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Annotated, Any, TypeVar

import torch
from torch import Tensor, nn

from vgglab import _checks as checks
from vgglab._checks import Seed, checked

Network = TypeVar("Network", bound=nn.Module)
INITIALIZATIONS: dict[str, Callable[..., Tensor]] = {
    "paper": partial(nn.init.normal_, std=0.1),
    "std-0.01": partial(nn.init.normal_, std=0.01),
    "xavier": nn.init.xavier_uniform_,
    "kaiming": partial(nn.init.kaiming_normal_, nonlinearity="relu"),
}
Initialization = Annotated[str, partial(checks.choice, accepted=INITIALIZATIONS)]


@checked
def initialize(
    model: Annotated[Network, checks.module], scheme: Initialization = "kaiming", seed: Seed | None = None
) -> Network:
    """Draw the weights of every convolution and FC layer anew, set their biases to zero, and return the model.

    "paper" is N(0, variance 0.01) as section 3.1 writes it, "std-0.01" the reading that most code has instead,
    "xavier" and "kaiming" the two later ones. A seed gives the same weights on every device; None draws from torch's
    global generator.
    """
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            weight = module.weight.detach()
            drawn_here = generator is None or weight.device.type in ("cpu", "meta")  # a generator is the CPU's
            drawn = weight if drawn_here else torch.empty_like(weight, device="cpu")
            weight.copy_(INITIALIZATIONS[scheme](drawn, generator=generator))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model


class ConvNet(nn.Module):
    """Features, then a classifier; FC layers on more than one position fix the size of the images to image_size."""

    def __init__(
        self, features: nn.Sequential, classifier: nn.Module, image_size: int | None = None, smallest_image: int = 1
    ) -> None:
        super().__init__()
        self.features = features
        self.classifier = classifier
        self.image_size = image_size
        self.smallest_image = smallest_image

    def forward(self, x: Tensor) -> Tensor:
        self.check_images(x, self.image_size)
        return self.classifier(self.features(x).flatten(1))

    def check_images(self, x: Any, side: int | None) -> None:
        """Raise unless x is (N, channels, side, side), or without a side large enough, in the type of the weights."""
        first = next(layer for layer in self.features.modules() if isinstance(layer, nn.Conv2d))
        channels, dtype = first.in_channels, first.weight.dtype
        if not isinstance(x, Tensor) or x.dtype != dtype and not torch.is_autocast_enabled(x.device.type):
            given = getattr(x, "dtype", type(x).__name__)
            raise TypeError(f"x must be a {dtype} tensor (N, {channels}, H, W), not {given}")
        fits = all(length == side if side else length >= self.smallest_image for length in x.shape[2:])
        if x.ndim != 4 or x.shape[1] != channels or not fits:
            sides = f"{side}, {side})" if side else f"H, W) with H and W at least {self.smallest_image}"
            hint = "; its FC layers fix the size, and vgglab.inference tests VGG at others" if side else ""
            raise ValueError(f"x must be (N, {channels}, {sides} for this network, not {tuple(x.shape)}{hint}")


def conv_relu(in_channels: int, out_channels: int, kernel_size: int, **options: Any) -> list[nn.Module]:
    """Return a convolution and its ReLU."""
    return [nn.Conv2d(in_channels, out_channels, kernel_size, **options), nn.ReLU(inplace=True)]


def fc_layers(
    features: nn.Sequential, image_size: int, units: int, num_classes: int, dropout: float = 0.5
) -> nn.Sequential:
    """Return the three FC layers that AlexNet, ZFNet and VGG end in, over what features leave of an image."""
    if not (side := map_side(features, image_size)):
        smallest = next(size for size in count(1) if map_side(features, size))
        raise ValueError(f"image_size must be at least {smallest}, not {image_size}: its features are one position")
    *_, last = (layer for layer in features if isinstance(layer, nn.Conv2d))
    return nn.Sequential(
        nn.Linear(last.out_channels * side**2, units),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Linear(units, units),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Linear(units, num_classes),
    )


def map_side(features: nn.Sequential, side: int) -> int:
    """Return how many positions, along one side, features leave of an image of this side."""
    for layer in features:
        if isinstance(layer, (nn.Conv2d, nn.MaxPool2d)):
            kernel, stride, padding = (
                checks.pair(name, getattr(layer, name))[0] for name in ("kernel_size", "stride", "padding")
            )
            side = max(0, (side + 2 * padding - kernel) // stride + 1)
    return side
