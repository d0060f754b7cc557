"""The exercises of lesson 07: the networks around VGG."""

from collections.abc import Iterator

import torch.nn.functional as F

from vgglab.course.exercises.judge import Case, equals, function, random, steadier, value


def convolutions_to_group() -> Iterator[Case]:
    """Inputs and weights of grouped convolutions, from one group to as many as channels."""
    for c_in, c_out, kernel, groups in (
        (1, 1, 1, 1),
        (2, 2, 1, 2),
        (2, 4, 1, 2),
        (4, 2, 3, 2),
        (3, 3, 3, 3),
        (12, 8, 3, 4),
    ):
        x, weight = random(1, c_in, 5, 5), random(c_out, c_in // groups, kernel, kernel)
        text = f"{c_in} to {c_out} channels in {groups} groups"
        yield text, (x, weight, groups), equals(F.conv2d(x, weight, groups=groups))


EXERCISES = {
    "NB-1": value(
        (54, 26, 12, 5),
        "(n - 11) / 4 + 1, then three times (n - 3) / 2 + 1, rounded down each time",
        [
            ((55, 27, 13, 6), "those are the sides for 227"),
            ((56, 28, 13, 6), "that needs padding; this layer has none"),
        ],
    ),
    "NB-2": function(convolutions_to_group, "each group has its share of the input channels and of the rows of weight"),
    "NB-3": value(
        1_043_456,
        "six convolutions; the 3x3 and the 5x5 see what their 1x1 gives them",
        [
            (1_042_432, "the biases are missing"),
            (
                832 * (256 + 128) + 9 * 832 * 320 + 25 * 832 * 128 + 256 + 320 + 128 + 128,
                "the 1x1 reductions come before the 3x3 and 5x5",
            ),
        ],
    ),
    "NB-4": value(
        2 * 9 * 256 * 256 / (256 * 64 + 9 * 64 * 64 + 64 * 256),
        "weights are kernel · kernel · in · out; a bottleneck has three layers",
        [
            (8.5, "two 3x3, not one"),
            (1 / 16.9, "that is the bottleneck over the two 3x3; how many times more have they?"),
        ],
    ),
    "NB-5": steadier(4, "the flattening network that saw no moves"),
}
