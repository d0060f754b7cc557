"""The exercises of lesson 07: the networks around VGG."""

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vgglab.course.exercises.judge import Complaint, Function, Judge, Measured, Value, Values, random
from vgglab.course.exercises.reading import Answer, shares
from vgglab.models.resnet import Residual, basic
from vgglab.receptive_field import output_size

SIDES = list(accumulate((3, 3, 3), lambda side, window: output_size(side, window, 2), initial=output_size(224, 11, 4)))
FULL = 832 * (256 + 160 + 32 + 128) + 9 * 160 * 320 + 25 * 32 * 128  # weights of module 5a
BIASES = 256 + 160 + 320 + 32 + 128 + 128
TWO, BOTTLENECK = 2 * 9 * 256 * 256, 256 * 64 + 9 * 64 * 64 + 64 * 256
GROUPS = ((1, 1, 1, 1), (2, 2, 1, 2), (2, 4, 1, 2), (4, 2, 3, 2), (3, 3, 3, 3), (12, 8, 3, 4))
BLOCKS = ((1, 1, 1), (2, 2, 1), (2, 3, 1), (2, 2, 2), (2, 4, 2), (3, 2, 3))  # channels in and out, stride
UP = "a window that does not fit is left out"


class NoGroups(TorchFunctionMode):
    """Raise ValueError at a convolution that is called with groups."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        place = 8 if "convolution" in name else 6
        if "conv" in name and kwargs.get("groups", args[place] if len(args) > place else 1) != 1:
            raise ValueError("groups= is what you are to do without")
        return func(*args, **kwargs)


def given_weights(block: nn.Module, *sizes: int) -> Tensor:
    """What a block gives in training once it has the weights of lessons_block; ValueError where it has other ones.

    Parameters of one shape are handed over in order; those of all batch normalizations are still the same.
    """
    ours, theirs = (sorted(one.parameters(), key=lambda p: p.shape) for one in (lessons_block(*sizes), block))
    if len(theirs) != len(ours):
        raise ValueError(f"it has {len(theirs)} tensors of weights and biases instead of {len(ours)}")
    for one, other in zip(ours, theirs, strict=True):
        if other.shape != one.shape:
            raise ValueError(f"it has weights of the shape {tuple(other.shape)} instead of {tuple(one.shape)}")
        other.data = one.data
    with torch.no_grad():
        return block.train()(random(2, sizes[0], 7, 7))


def lessons_block(in_channels: int, out_channels: int, stride: int) -> Residual:
    """The lesson's, with the same random weights at each call."""
    torch.manual_seed(0)
    return Residual(basic(in_channels, out_channels, stride), in_channels, out_channels, stride)


def steadier(answer: Answer, curves: Mapping[str, Sequence[float]]) -> Complaint:
    """Judge the shares of answers that change at 1 to 4 pixels; curves has those of the lesson's networks."""
    pixels = ["1", "2", "3", "4"]
    found, before = shares(answer, pixels), shares(curves["flatten and FC layers"], pixels)
    for name, curve in curves.items():
        if all(one.off(other) <= 0.005 for one, other in zip(found, curve, strict=True)):
            return f"these are the shares of {name}"
    return moved([one.value for one in found], [one.value for one in before], pixels)


def moved(found: list[float], before: list[float], pixels: list[str]) -> Complaint:
    """Judge shares that change at these moves: they grow, are smaller than before within two pixels, and in sum."""
    if 0 in found[1:] or found[0] >= found[-1]:
        return f"more answers change when the image moves further; in this order, please: {', '.join(pixels)} pixels"
    for pixel, one, other in zip(pixels, found, before, strict=True):
        if one >= other and int(pixel) <= 2:
            return f"moved by {pixel} it is no steadier than before: does it see moved images in training?"
    if sum(found) >= sum(before):
        return f"they add up to {sum(found):.2f}, and to no more than {sum(before):.2f} before"
    return None


EXERCISES: dict[str, Judge] = {
    "NB-1": Values(
        "how often does a window of 11 fit with stride 4, and then a window of 3 with stride 2?",
        layer_1=Value(SIDES[0], (55, "that is from 227"), (56, "that needs padding, which this layer has not")),
        pooling_1=Value(SIDES[1], (27, UP)),
        pooling_2=Value(SIDES[2], (13, UP)),
        pooling_3=Value(SIDES[3], (6, UP)),
    ),
    "NB-2": Function(
        "grouped_conv(x, weight, groups)",
        "which channels of x, and which rows of weight, belong to a group?",
        lambda x, weight, groups: F.conv2d(x, weight, groups=groups),
        lambda: [(random(1, c, 5, 5), random(out, c // groups, k, k), groups) for c, out, k, groups in GROUPS],
        rules=NoGroups,
    ),
    "NB-3": Values(
        "how many convolutions has the module, and what does each of them get to see?",
        parameters=Value(
            FULL + BIASES,
            (FULL, "the biases are missing"),
            (832 * 384 + 9 * 832 * 320 + 25 * 832 * 128 + 832, "what do the 3x3 and the 5x5 get to see?"),
            (1_072_000, "that is the paper's, which we could not reproduce: count them"),
        ),
    ),
    "NB-4": Values(
        "how many weights has each of the three layers of a bottleneck?",
        times=Value(
            TWO / BOTTLENECK,
            (TWO / BOTTLENECK / 2, "two 3x3, not one"),
            (BOTTLENECK / TWO, "that is the other way round"),
            step=0.1,
        ),
    ),
    "NB-5": Measured('four shares: check("NB-5", answer, curves)', steadier, Mapping),
    "NB-6": Function(
        "residual(in_channels, out_channels, stride)",
        "which layers has F, when does the shortcut project, and what follows where the two meet?",
        lambda *sizes: given_weights(lessons_block(*sizes), *sizes),
        lambda: BLOCKS,
        then=given_weights,
    ),
}
