"""The six VGG configurations of Simonyan and Zisserman (arXiv:1409.1556, Table 1), built from one table."""

import copy
from collections.abc import Iterable
from functools import partial
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from vgglab._checks import Count, Positive, Share, checked, choice
from vgglab.lrn import from_paper
from vgglab.models.parts import ConvNet, fc_layers, initialize

# One tuple is one block, closed by 2x2 max-pooling; "conv3-64" is a 3x3 convolution with 64 output channels.
# fmt: off
VGG_CONFIGS = {
    "A": (("conv3-64",), ("conv3-128",), ("conv3-256",) * 2, ("conv3-512",) * 2, ("conv3-512",) * 2),
    "A-LRN": (("conv3-64", "LRN"), ("conv3-128",), ("conv3-256",) * 2, ("conv3-512",) * 2, ("conv3-512",) * 2),
    "B": (("conv3-64",) * 2, ("conv3-128",) * 2, ("conv3-256",) * 2, ("conv3-512",) * 2, ("conv3-512",) * 2),
    "C": (
        ("conv3-64",) * 2, ("conv3-128",) * 2, ("conv3-256", "conv3-256", "conv1-256"),
        ("conv3-512", "conv3-512", "conv1-512"), ("conv3-512", "conv3-512", "conv1-512"),
    ),
    "D": (("conv3-64",) * 2, ("conv3-128",) * 2, ("conv3-256",) * 3, ("conv3-512",) * 3, ("conv3-512",) * 3),
    "E": (("conv3-64",) * 2, ("conv3-128",) * 2, ("conv3-256",) * 4, ("conv3-512",) * 4, ("conv3-512",) * 4),
}
# fmt: on
Config = Annotated[str, partial(choice, accepted=VGG_CONFIGS)]


class VGG(ConvNet):
    """Convolutional features, then three FC layers; made by vgg()."""


@checked
def vgg_block(num_convs: Count, in_channels: Count, out_channels: Count) -> nn.Sequential:
    """Return num_convs times 3x3 convolution (padding 1) and ReLU, then 2x2 max-pooling of stride 2.

    (N, in_channels, H, W) -> (N, out_channels, H // 2, W // 2). Source: section 2.1.
    """
    return _blocks(in_channels, [[f"conv3-{out_channels}"] * num_convs])


@checked
def vgg(
    config: Config,
    in_channels: Count = 3,
    num_classes: Count = 1000,
    image_size: Count = 224,
    width: Positive = 1.0,
    dropout: Share = 0.5,
    batch_norm: bool = False,
) -> VGG:
    """Return one of the six configurations (VGG_CONFIGS), with every channel and FC unit scaled by width.

    (N, in_channels, image_size, image_size) -> class scores (N, num_classes). batch_norm puts batch normalization
    after each convolution, which the paper does not have. Source: Table 1, section 2.
    """
    features = _blocks(in_channels, VGG_CONFIGS[config], width, batch_norm)
    classifier = fc_layers(features, image_size, _scaled(4096, width), num_classes, dropout)
    return initialize(VGG(features, classifier, image_size))


def _blocks(
    in_channels: int, blocks: Iterable[Iterable[str]], width: float = 1.0, batch_norm: bool = False
) -> nn.Sequential:
    modules: list[nn.Module] = []
    for block in blocks:
        for layer in block:
            if layer == "LRN":
                modules.append(from_paper())
                continue
            kernel, out_channels = map(int, layer.removeprefix("conv").split("-"))
            out_channels = _scaled(out_channels, width)
            modules.append(nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2))
            if batch_norm:
                modules.append(nn.BatchNorm2d(out_channels))
            modules.append(nn.ReLU(inplace=True))
            in_channels = out_channels
        modules.append(nn.MaxPool2d(2, 2))
    return nn.Sequential(*modules)


def _scaled(channels: int, width: float) -> int:
    return max(1, round(channels * width))


def init_from(model: VGG, trained: VGG) -> list[str]:
    """Copy the first four convolutions and the three FC layers of a trained A into model, and return their names.

    Block by block: A's blocks 1 to 3 hold its first four convolutions, and each goes to the same place in the deeper
    network's block. Raises TypeError for what vgg() did not make, ValueError if trained is no A (or A-LRN) or a layer's
    shape differs. Source: section 3.1.
    """
    pairs = list(zip(_starting_layers("model", model), _starting_layers("trained", trained), strict=True))
    convolutions = sum(isinstance(layer, nn.Conv2d) for layer in trained.features)
    if convolutions != 8:
        raise ValueError(f"trained must be a configuration A, not one of {convolutions} convolutions")
    for name, source in pairs:
        ours = tuple(model.get_parameter(f"{name}.weight").shape)
        theirs = tuple(trained.get_parameter(f"{source}.weight").shape)
        if ours != theirs:
            raise ValueError(f"trained must match model: {name} has the shape {ours}, {source} of trained {theirs}")
    for name, source in pairs:
        model.get_submodule(name).load_state_dict(trained.get_submodule(source).state_dict())
    return [name for name, _ in pairs]


def _starting_layers(argument: str, network: VGG) -> list[str]:
    """The first convolution of blocks 1 and 2, the first two of block 3, and the FC layers, by name."""
    if not isinstance(network, VGG):
        raise TypeError(f"{argument} must be a network made by vgg(), not {type(network).__name__}")
    kinds = [type(layer) for layer in network.features]
    convolutions = [place for place, kind in enumerate(kinds) if kind is nn.Conv2d]
    pools = [place for place, kind in enumerate(kinds) if kind is nn.MaxPool2d]
    first, second, third = (next(place for place in convolutions if place > pool) for pool in (-1, *pools[:2]))
    fourth = convolutions[convolutions.index(third) + 1]
    return [*(f"features.{place}" for place in (first, second, third, fourth)), *(f"classifier.{i}" for i in (0, 3, 6))]


@checked
def from_torchvision(config: Literal["A", "B", "D", "E"], state_dict: dict[str, Tensor]) -> VGG:
    """Return a configuration with torchvision's weights (vgg11, 13, 16, 19, plain or _bn), size 224.

    Raises ValueError for a state dict of another network, naming the difference, and for weights that hold NaN or
    infinity, as the classifier of torchvision's IMAGENET1K_FEATURES does.
    """
    first, last = "features.0.weight", "classifier.6.weight"
    named = isinstance(state_dict, dict) and all(isinstance(tensor, Tensor) for tensor in state_dict.values())
    if not named or any(getattr(state_dict.get(name), "ndim", 0) < 2 for name in (first, last)):
        raise ValueError(f"state_dict must be that of a torchvision VGG, with {first} and {last}")
    with torch.device("meta"):
        channels, classes = state_dict[first].shape[1], len(state_dict[last])
        model = vgg(config, channels, classes, batch_norm="features.1.running_mean" in state_dict)
    try:
        model.load_state_dict(state_dict, assign=True)
    except RuntimeError as error:
        raise ValueError(f"state_dict is not that of configuration {config}: {error}") from error
    broken = [name for name, tensor in state_dict.items() if not tensor.isfinite().all()]
    if broken:
        raise ValueError(f"state_dict holds NaN or infinity in {', '.join(broken)}: these weights classify nothing")
    return copy.deepcopy(model).float()
