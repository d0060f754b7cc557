"""Networks that several test files look at."""

import torchvision
from torch import nn

from vgglab.receptive_field import ReceptiveField


def build(name, **options):
    """A torchvision network with random weights; the first parameter is there to save time."""
    if name in ("googlenet", "inception_v3"):
        options["init_weights"] = False
    return torchvision.models.get_model(name, weights=None, **options)


def square(size, stride, padding, covers_image=False):
    return ReceptiveField((size, size), (stride, stride), (padding, padding), covers_image)


class Function(nn.Module):
    """A function as a model."""

    def __init__(self, function, **modules):
        super().__init__()
        self.function = function
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x):
        return self.function(self, x)


class Gate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self):
        super().__init__()
        self.squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(2, 2, 1))

    def forward(self, x):
        return x * self.squeeze(x).sigmoid()
