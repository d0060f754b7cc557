"""The exercises of lesson 01: how much a unit sees."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from vgglab.course.exercises.judge import Function, Judge, Value, Values, random
from vgglab.course.exercises.reading import Answer
from vgglab.models import VGG_CONFIGS
from vgglab.receptive_field import ReceptiveField, stack

DILATED = stack([3] * 4, dilations=[1, 2, 4, 8]).size[0]


def fields(config: str) -> dict[str, ReceptiveField]:
    """The fields behind the convolutions and poolings of a configuration of 3x3, by the lesson's names."""
    layers: list[tuple[str, int, int]] = []
    for block, convolutions in enumerate(VGG_CONFIGS[config], 1):
        layers += [(f"conv{block}_{place}", 3, 1) for place in range(1, len(convolutions) + 1)]
        layers.append((f"pool{block}", 2, 2))
    names, kernels, strides = zip(*layers, strict=True)
    return {name: stack(kernels[:n], strides[:n]) for n, name in enumerate(names, 1)}


WHOLE, JUMP = next((name, field.stride[0]) for name, field in fields("D").items() if field.size[0] >= 56)
ENOUGH = next(n for n in range(99) if stack([7, 3] + [3] * n, [2, 2] + [1] * n).size[0] >= 100)


def kernels_to_split() -> Iterator[tuple[Tensor]]:
    """The 25 kernels with a single 1, then a random one."""
    for one in torch.eye(25):
        yield (one.view(5, 5),)
    yield (random(5, 5),)


def both(result: Answer, kernel: Tensor) -> Tensor:
    """What the two convolutions of an answer make of an image."""
    if not isinstance(result, (tuple, list)) or len(result) != 2 or not all(map(torch.is_tensor, result)):
        raise ValueError("it does not return the pair first, second of tensors")
    for name, weight, shape in zip(("first", "second"), result, ((9, 1, 3, 3), (1, 9, 3, 3)), strict=True):
        if weight.shape != shape or weight.dtype != kernel.dtype:
            raise ValueError(f"{name} is {weight.dtype} of shape {tuple(weight.shape)}, not {kernel.dtype} of {shape}")
    return F.conv2d(F.conv2d(random(1, 1, 9, 9), result[0]), result[1])


EXERCISES: dict[str, Judge] = {
    "RF-1": Values(
        "what is the field before the first layer, and by how much does each layer widen it?",
        width_in_pixels=Value(
            stack([3] * 5).size[0],
            {
                15: "that would be five windows side by side, but they overlap",
                243: "that would be five layers with stride 3",
                10: "that is what the five layers add; to what?",
            },
        ),
    ),
    "RF-2": Values(
        "in r = (r - 1) * stride + kernel, what do a pooling and a convolution each make of r?",
        width_in_pixels=Value(
            fields("E")["pool5"].size[0],
            {
                fields("D")["pool5"].size[0]: "that is VGG-16's; E has more convolutions",
                fields("E")["conv5_4"].size[0]: "the last pooling widens it, too",
                124: "from the top, the last block comes first",
            },
        ),
    ),
    "RF-3": Values(
        "how wide is the window of a 3x3 with dilation d, and by how much does it widen a field?",
        width=Value(DILATED, {30: "that is what the layers add; to what?", 9: "that is without dilation"}),
        number_of_layers=Value((DILATED - 1) // 2, {4: "without dilation four see 9", 16: "start from a field of 1"}),
    ),
    "RF-4": Values(
        "go through fields in order until a size reaches 56; the jump is the stride of that field",
        name_of_the_layer=Value(WHOLE, {"pool3": "its units see less", "conv4_2": "a layer before it sees 56, too"}),
        jump=Value(
            JUMP,
            {
                1: "that is the layer's own stride; three poolings lie before it",
                7: "the jump is the distance from one field's centre to the next one's",
                fields("D")["conv4_1"].size[0]: "that is the size of its field",
            },
        ),
    ),
    "RF-5": Values(
        "how wide is the field after the two given layers, and what does a 3x3 add behind them?",
        layers=Value(ENOUGH, {45: "the two strides make each add more", 11: "they see 99 pixels", 13: "one too many"}),
    ),
    "RF-6": Function(
        "split(kernel)",
        "which places can a channel of first reach together with second?",
        lambda kernel: F.conv2d(random(1, 1, 9, 9), kernel[None, None]),
        kernels_to_split,
        both,
    ),
}
