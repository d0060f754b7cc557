"""The exercises of lesson 04: where VGG's parameters and activations are."""

from collections.abc import Iterator

import torch

from vgglab.course.exercises.judge import Case, equals, function, random, value


def weights_to_turn() -> Iterator[Case]:
    """Weights in TensorFlow's layout: of convolutions, from one number to unequal sides, then of an FC layer."""
    for shape in ((1, 1, 1, 1), (1, 1, 1, 2), (1, 1, 2, 3), (2, 2, 1, 1), (3, 3, 2, 4), (1, 3, 2, 2)):
        weight = random(*shape)
        yield f"a convolution's weights of shape {shape}", (weight,), equals(torch.einsum("hwio->oihw", weight))
    for sides in ((1, 2), (3, 5)):
        yield f"an FC matrix of shape {sides}", (random(*sides),), equals(random(*sides).T)


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
    "VB-5": function(weights_to_turn, "the output channels come first, then the input channels, then height and width"),
    "VB-6": value(
        12,
        "count the parameters for n / 64, n = 1, 2, ..., and keep the last that fits",
        [(12 / 64, "the number of 64ths, please"), (13, "n = 13 has more than a million")],
    ),
}
