"""The six VGG configurations of Simonyan and Zisserman (arXiv:1409.1556, Table 1), built from one table."""

import torch
from torch import nn

from vgglab import checks
from vgglab.lrn import from_paper
from vgglab.models.common import LARGEST_IMAGE, ConvNet, fc_layers, initialize

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
FC_UNITS = 4096
LARGEST_WIDTH = 16
SMALLEST_IMAGE = 32
FIRST_AND_LAST = ("features.0.weight", "classifier.6.weight")


def vgg_block(num_convs, in_channels, out_channels):
    """Return num_convs times 3x3 convolution (padding 1) and ReLU, then 2x2 max-pooling of stride 2.

    (N, in_channels, H, W) -> (N, out_channels, H // 2, W // 2). Raises ValueError or TypeError for numbers
    below 1 or not whole. Source: section 2.1.
    """
    num_convs = checks.integer("num_convs", num_convs, 1, 1000)
    in_channels = checks.integer("in_channels", in_channels, 1, checks.LARGEST)
    out_channels = checks.integer("out_channels", out_channels, 1, checks.LARGEST)
    return nn.Sequential(*_block(in_channels, [f"conv3-{out_channels}"] * num_convs))


def vgg(config, in_channels=3, num_classes=1000, image_size=224, width=1.0, dropout=0.5, batch_norm=False):
    """Return one of the six configurations (VGG_CONFIGS), with every channel and FC unit scaled by width.

    (N, in_channels, image_size, image_size) -> class scores (N, num_classes). batch_norm puts batch
    normalization after each convolution, which the paper does not have. Raises ValueError or TypeError for an
    unknown configuration, a size below 32, or other numbers out of range. Source: Table 1, section 2.
    """
    checks.choice("config", config, VGG_CONFIGS)
    in_channels = checks.integer("in_channels", in_channels, 1, checks.LARGEST)
    num_classes = checks.integer("num_classes", num_classes, 1, checks.LARGEST)
    image_size = checks.integer("image_size", image_size, at_most=LARGEST_IMAGE)
    if image_size < SMALLEST_IMAGE:
        raise ValueError(
            f"image_size must be at least {SMALLEST_IMAGE}, not {image_size}: "
            "the five poolings halve the image five times, and 2**5 = 32 leaves one position"
        )
    width = checks.number("width", width, above=0, at_most=LARGEST_WIDTH)
    dropout = checks.number("dropout", dropout, at_least=0, at_most=1)
    batch_norm = checks.flag("batch_norm", batch_norm)

    features, channels = [], in_channels
    for layers in VGG_CONFIGS[config]:
        block = _block(channels, layers, width, batch_norm)
        channels = block[0].out_channels
        features += block
    side, units = image_size // 32, _scaled(FC_UNITS, width)
    classifier = fc_layers(channels * side * side, units, num_classes, dropout)
    return initialize(VGG(nn.Sequential(*features), classifier, image_size))


class VGG(ConvNet):
    """Convolutional features, then three FC layers; made by vgg()."""


def init_from(model, trained):
    """Copy the first four convolutions and the three FC layers of a trained A into model, in place.

    Block by block: A's blocks 1 to 3 hold its first four convolutions, and each goes to the same place in the
    deeper network's block. Returns the names of the layers copied. Raises TypeError for what vgg() did not make,
    ValueError if trained is not an A (or A-LRN) or a layer's shape differs. Source: section 3.1.
    """
    for argument, network in (("model", model), ("trained", trained)):
        if not isinstance(network, VGG):
            raise TypeError(f"{argument} must be a network made by vgg(), not {type(network).__name__}")
    sources = _convolutions(trained)
    if [len(block) for block in sources] != [1, 1, 2, 2, 2]:
        raise ValueError(f"trained must be a configuration A, not one of {sum(map(len, sources))} convolutions")
    pairs = [
        pair
        for ours, theirs in list(zip(_convolutions(model), sources, strict=True))[:3]
        for pair in zip(ours, theirs, strict=False)
    ]
    pairs += [(f"classifier.{i}", f"classifier.{i}") for i in (0, 3, 6)]
    modules, sources = dict(model.named_modules()), dict(trained.named_modules())
    for name, source in pairs:
        ours, theirs = modules[name].weight.shape, sources[source].weight.shape
        if ours != theirs:
            raise ValueError(
                f"trained must match model: {name} has the shape {tuple(ours)}, {source} of trained {tuple(theirs)}"
            )
    for name, source in pairs:
        modules[name].load_state_dict(sources[source].state_dict())
    return [name for name, _ in pairs]


def from_torchvision(config, state_dict):
    """Return configuration A, B, D or E with torchvision's weights (vgg11, 13, 16, 19, plain or _bn), size 224.

    It lies where the weights lie. Raises ValueError for a state dict of another network, naming the difference, and
    for weights that hold NaN or infinity, as the classifier of torchvision's IMAGENET1K_FEATURES does.
    """
    checks.choice("config", config, ("A", "B", "D", "E"))
    named = isinstance(state_dict, dict) and all(isinstance(value, torch.Tensor) for value in state_dict.values())
    if not named or any(getattr(state_dict.get(name), "ndim", 0) < 2 for name in FIRST_AND_LAST):
        raise ValueError(f"state_dict must be that of a torchvision VGG, with {' and '.join(FIRST_AND_LAST)}")
    with torch.device("meta"):
        model = vgg(
            config,
            in_channels=state_dict[FIRST_AND_LAST[0]].shape[1],
            num_classes=len(state_dict[FIRST_AND_LAST[1]]),
            batch_norm="features.1.running_mean" in state_dict,
        )
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in state_dict.items()}
    if given != expected:
        name = min(name for name in given.keys() | expected.keys() if given.get(name) != expected.get(name))
        raise ValueError(
            f"state_dict is not that of configuration {config}: {name} is {given.get(name, 'absent')}, "
            f"and must be {expected.get(name, 'absent')}"
        )
    broken = [name for name, tensor in state_dict.items() if not tensor.isfinite().all()]
    if broken:
        raise ValueError(f"state_dict holds NaN or infinity in {', '.join(broken)}: these weights classify nothing")
    model.to_empty(device=state_dict[FIRST_AND_LAST[0]].device).load_state_dict(state_dict)
    return model


def _block(in_channels, layers, width=1.0, batch_norm=False):
    modules = []
    for layer in layers:
        if layer == "LRN":
            modules.append(from_paper(n=5, k=2.0, alpha=1e-4, beta=0.75))
            continue
        kernel, out_channels = map(int, layer.removeprefix("conv").split("-"))
        out_channels = _scaled(out_channels, width)
        modules.append(nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2))
        if batch_norm:
            modules.append(nn.BatchNorm2d(out_channels))
        modules.append(nn.ReLU(inplace=True))
        in_channels = out_channels
    return [*modules, nn.MaxPool2d(2, 2)]


def _scaled(channels, width):
    return max(1, round(channels * width))


def _convolutions(model):
    """The names of the convolutions, one list for each block."""
    blocks = [[]]
    for index, module in enumerate(model.features):
        if isinstance(module, nn.MaxPool2d):
            blocks.append([])
        elif isinstance(module, nn.Conv2d):
            blocks[-1].append(f"features.{index}")
    return blocks[:-1]
