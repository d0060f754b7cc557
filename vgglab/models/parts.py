"""What the networks share: the weights they start from, the check of their input, features before FC layers."""

import torch
from torch import nn

from vgglab import _checks as checks

INITIALIZATIONS = {
    "paper": lambda weight, seed: nn.init.normal_(weight, std=0.1, generator=seed),
    "std-0.01": lambda weight, seed: nn.init.normal_(weight, std=0.01, generator=seed),
    "xavier": lambda weight, seed: nn.init.xavier_uniform_(weight, generator=seed),
    "kaiming": lambda weight, seed: nn.init.kaiming_normal_(weight, nonlinearity="relu", generator=seed),
}


def initialize(model, scheme="kaiming", seed=None):
    """Draw the weights of every convolution and FC layer anew, set their biases to zero, and return the model.

    "paper" is N(0, variance 0.01) as section 3.1 writes it, "std-0.01" the reading that most code has instead,
    "xavier" and "kaiming" the two later ones. seed None draws from torch's global generator. Raises ValueError
    for an unknown scheme.
    """
    draw = INITIALIZATIONS[checks.choice("scheme", scheme, INITIALIZATIONS)]
    generator = None if seed is None else torch.Generator().manual_seed(checks.seed("seed", seed))
    for module in checks.module("model", model).modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            draw(module.weight, generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model


LARGEST_IMAGE = 4096  # pixels
LARGEST_LAYER = 2**32  # weights


class ConvNet(nn.Module):
    """Features, then a classifier; FC layers on more than one position fix the size of the images to image_size."""

    def __init__(self, features, classifier, image_size=None, smallest_image=1):
        super().__init__()
        self.features = features
        self.classifier = classifier
        self.image_size = image_size
        self.smallest_image = smallest_image

    def forward(self, x):
        check_images(x, self.features[0], self.image_size, self.smallest_image)
        return self.classifier(self.features(x).flatten(1))


def conv_relu(in_channels, out_channels, kernel_size, **options):
    """Return a convolution and its ReLU as a list of two modules."""
    return [nn.Conv2d(in_channels, out_channels, kernel_size, **options), nn.ReLU(inplace=True)]


def fc_layers(inputs, units, num_classes, dropout=0.5):
    """Return the three FC layers that AlexNet, ZFNet and VGG end in, with ReLU and dropout after the first two."""
    if inputs * units > LARGEST_LAYER:
        raise ValueError(f"image_size and width must give an FC layer at most 2**32 weights, not {inputs * units:,}")
    return nn.Sequential(
        nn.Linear(inputs, units),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Linear(units, units),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Linear(units, num_classes),
    )


def check_images(x, conv, side=None, smallest=1):
    """Raise unless x suits the first convolution: (N, channels, side, side), or (N, channels, H, W) of smallest.

    TypeError for another dtype, which only autocast would convert, ValueError for another shape.
    """
    channels, dtype = conv.in_channels, conv.weight.dtype
    if not isinstance(x, torch.Tensor) or x.dtype != dtype and not torch.is_autocast_enabled(x.device.type):
        given = getattr(x, "dtype", type(x).__name__)
        raise TypeError(f"x must be a {dtype} tensor (N, {channels}, H, W), not {given}")
    fits = x.ndim == 4 and x.shape[1] == channels
    if side is None:
        fits = fits and min(x.shape[2:]) >= smallest
        wanted, hint = f"(N, {channels}, H, W) with H and W at least {smallest}", ""
    else:
        fits = fits and tuple(x.shape[2:]) == (side, side)
        wanted = f"(N, {channels}, {side}, {side})"
        hint = "; its FC layers fix the size, and vgglab.inference tests VGG at others"
    if not fits:
        raise ValueError(f"x must be {wanted} for this network, not {tuple(x.shape)}{hint}")
