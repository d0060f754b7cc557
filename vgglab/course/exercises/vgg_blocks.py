"""The exercises of lesson 04: where VGG's parameters and activations are."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from vgglab.course.exercises.judge import Answer, Case, Judge, equals, function, random, value
from vgglab.models import VGG_CONFIGS, vgg

MAPS = ((1, 1, 1, 1), (2, 1, 1, 3), (1, 2, 2, 1), (2, 2, 2, 1), (3, 2, 4, 2), (4, 7, 7, 5))  # channels, sides, units


def first_matrices() -> Iterator[Case]:
    """The first FC matrix of a channels-last framework, from maps of one position to maps of many."""
    for channels, height, width, units in MAPS:
        matrix = random(height * width * channels, units)
        right = torch.einsum("hwio->oihw", matrix.view(height, width, channels, units)).flatten(1)
        text = f"{channels} channels of {height}x{width} and {units} units"
        yield text, (matrix, channels, height, width), equals(right)


def tables() -> Iterator[Case]:
    """The blocks of all six configurations, for narrow networks on small images."""
    for image_size, config in zip((32, 64, 32, 64, 32, 96), VGG_CONFIGS, strict=True):
        text = f"configuration {config}, {image_size} pixels and a width of 1/16"
        yield (
            text,
            (VGG_CONFIGS[config], image_size, 1 / 16),
            builds(vgg(config, image_size=image_size, width=1 / 16), image_size),
        )


def builds(right: nn.Module, image_size: int) -> Judge:
    """Judge a network by its weights' shapes, and by its scores once it has the weights of the right one."""

    def judge(result: Answer) -> str | None:
        if not isinstance(result, nn.Module):
            return f"it returns {type(result).__name__} instead of a network"
        ours, theirs = list(right.parameters()), list(result.parameters())
        if len(ours) != len(theirs):
            return f"it has {len(theirs)} tensors of weights and biases instead of {len(ours)}"
        for place, (one, other) in enumerate(zip(ours, theirs, strict=True), 1):
            if one.shape != other.shape:
                return f"tensor {place} of its weights is {tuple(other.shape)} instead of {tuple(one.shape)}"
            other.data = one.data
        return equals(scores(right))(scores(result))

    def scores(network: nn.Module) -> Tensor:
        with torch.no_grad():
            return network.eval()(random(2, 3, image_size, image_size).float())

    return judge


EXERCISES = {
    "VB-1": value(
        1_475_328,
        "from 128 to 256 channels, then twice from 256 to 256, and one bias for each output channel",
        [
            (1_474_560, "the biases are missing: one for each of the 256 output channels"),
            (3 * (9 * 256 * 256 + 256), "the first of the three has 128 input channels"),
        ],
    ),
    "VB-2": value(
        5_309_696,
        "one layer of 256 channels and two of 512, each with as many in as out",
        [
            (3 * (9 * 512**2 + 512), "one of the three stands in block 3, which has 256 channels"),
            (9 * 256**2 + 2 * 9 * 512**2, "the biases are missing"),
        ],
    ),
    "VB-3": value(
        14_714_688 + 512 * 1000 + 1000,
        "the convolutions stay as they are; one FC layer from 512 to 1000 follows",
        [
            (14_714_688, "that is the convolutions alone"),
            (39_803_688, "averaged, 512 numbers arrive, not 25,088"),
        ],
    ),
    "VB-4": value(
        (3.901, 7),
        "64 images, 4 bytes a number; the parameters are counted once",
        [((0.061, 7), "that is one image"), ((7.8, 7), "4 bytes a number, forward pass alone")],
    ),
    "VB-5": function(first_matrices, "which of channels, height and width runs fastest in each flattening?"),
    "VB-6": value(
        12,
        "count the parameters for n / 64, n = 1, 2, ..., and keep the last that fits",
        [(12 / 64, "the number of 64ths, please"), (13, "n = 13 has more than a million")],
    ),
    "VB-7": function(tables, "what does the lesson's build have in this place, and what does width do to it?"),
}
