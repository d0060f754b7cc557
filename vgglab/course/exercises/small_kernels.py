"""The exercises of lesson 02: what kernels cost, and two layers as one."""

import math
from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor, nn

from vgglab import cost
from vgglab.course.exercises.judge import Function, Judge, Value, Values, random
from vgglab.course.exercises.reading import Answer
from vgglab.receptive_field import output_size, stack

FIRST = cost.conv(11, 3, 96, output_size(227, 11, stride=4))  # AlexNet's first layer
SAVED = 100 * (1 - 5 * 9 / 11**2)
BUDGET = 10_000_000


def pairs_to_collapse() -> Iterator[tuple[nn.Conv2d, nn.Conv2d]]:
    """Pairs of convolutions, from one channel and one weight to several, without biases (zeros) and with them."""
    for c_in, c_mid, c_out, k1, k2, bias in (
        (1, 1, 1, 1, 1, 0), (1, 1, 1, 1, 1, 1), (1, 1, 1, 3, 3, 0), (1, 2, 1, 3, 3, 1), (2, 1, 3, 3, 1, 1),
        (2, 5, 3, 3, 5, 1),
    ):  # fmt: skip
        yield convolution(c_in, c_mid, k1, bias), convolution(c_mid, c_out, k2, bias)


def convolution(c_in: int, c_out: int, kernel: int, bias: int) -> nn.Conv2d:
    """Return a convolution with random weights, its biases times bias."""
    layer = nn.Conv2d(c_in, c_out, kernel).float()
    layer.weight.data = random(c_out, c_in, kernel, kernel, seed=c_in)
    layer.bias.data = bias * random(c_out, seed=c_out)  # type: ignore[union-attr]
    return layer


def alone(result: Answer, first: nn.Conv2d, second: nn.Conv2d) -> Tensor:
    """What the one convolution of an answer makes of images."""
    if type(result) is not nn.Conv2d or not hasattr(result, "weight"):
        raise ValueError(f"it returns {type(result).__name__} instead of one nn.Conv2d")
    if (result.stride, result.padding, result.dilation, result.groups) != ((1, 1), (0, 0), (1, 1), 1):
        raise ValueError("it returns a convolution with a stride, padding, dilation or groups")
    if result.weight.dtype != first.weight.dtype:
        raise ValueError(f"it returns weights of {result.weight.dtype} instead of {first.weight.dtype}")
    return F.conv2d(random(2, first.in_channels, 12, 12), result.weight, result.bias)


EXERCISES: dict[str, Judge] = {
    "SK-1": Values(
        "how far does each 3x3 widen a field of 1, and how many weights has a layer for each pair of channels?",
        layers=Value((11 - 1) // 2, {11: "11 is the width", 4: "four see 9", 10: "each adds 2 pixels"}),
        per_cent=Value(SAVED, {100 - SAVED: "that is what is left, not what is saved"}, step=1, unit="%"),
    ),
    "SK-2": Values(
        "how many places does a kernel take along a side, and how many numbers does it multiply at each?",
        parameters=Value(
            FIRST.parameters,
            {FIRST.parameters - 96: "the biases are missing", 11 * 11 * 96 + 96: "the image has three channels"},
        ),
        macs=Value(
            FIRST.macs,
            {
                FIRST.parameters * 55**2: "biases are not multiplied: count the weights alone",
                2 * FIRST.macs: "those are operations, two for each multiply-add",
                FIRST.macs // 55**2 * 54**2: "how often does the kernel fit along a side, the first place included?",
                FIRST.macs // 55**2 * 56**2: "there is no padding",
            },
        ),
    ),
    "SK-3": Values(
        "write down the weights of both: kernel times channels in times channels out, for each layer",
        a=Value(9 / (25 - 9), {9 / 25: "the pair's first layer depends on a, too", 16 / 9: "that is 1/a"}, step=0.01),
    ),
    "SK-4": Values(
        "count the weights of the two thin layers; a field is (height, width), the .size of a stack",
        share_saved=Value(
            1 - 6 / 9, {6 / 9: "that is what is left", 1 / 2: "a 3x3 has 9 weights"}, step=0.01, unit="share"
        ),
        field_height_and_width=Value(
            stack([(3, 1), (1, 3)]).size[0], {4: "the second layer is 1 high", 5: "3x1 is no 3x3"}
        ),
    ),
    "SK-5": Function(
        "collapse(first, second)",
        "what does the pair answer to an image of zeros?",
        lambda first, second: second(first(random(2, first.in_channels, 12, 12))).detach(),
        pairs_to_collapse,
        alone,
    ),
    "SK-6": Values(
        "how many weights has each for one pair of channels? C goes in squared, and is rounded down",
        C_of_the_stack=Value(math.isqrt(BUDGET // 63), {399: "that is over ten million", 1054: "that is one layer"}),
        C_of_the_single_layer=Value(math.isqrt(BUDGET // 225), {211: "that is over ten million"}),
    ),
}
