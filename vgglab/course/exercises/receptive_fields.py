"""The exercises of lesson 01: how much a unit sees."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from vgglab.course.exercises.judge import Answer, Case, Judge, equals, function, random, value


def kernels_to_split() -> Iterator[Case]:
    """The 25 kernels with a single 1, then a random one; each is to come apart into two 3x3 with nine channels."""
    for row in range(5):
        for col in range(5):
            kernel = torch.zeros(5, 5, dtype=torch.float64)
            kernel[row, col] = 1
            yield f"the kernel with a single 1 at ({row}, {col})", (kernel,), splits(kernel)
    yield "a random kernel", (random(5, 5),), splits(random(5, 5))


def splits(kernel: Tensor) -> Judge:
    """Judge a pair of weights by whether the two convolutions one after the other answer as kernel does."""
    image = random(1, 1, 9, 9, seed=1)

    def judge(result: Answer) -> str | None:
        if not isinstance(result, tuple) or len(result) != 2 or not all(map(torch.is_tensor, result)):
            return "it does not return the pair first, second of tensors"
        first, second = result
        for name, weight, shape in (("first", first, (9, 1, 3, 3)), ("second", second, (1, 9, 3, 3))):
            if weight.shape != shape:
                return f"{name} has the shape {tuple(weight.shape)} instead of {shape}"
        found = F.conv2d(F.conv2d(image, first.double()), second.double())
        complaint = equals(F.conv2d(image, kernel[None, None]))(found)
        return complaint and complaint.replace("it gives", "the two give")

    return judge


EXERCISES = {
    "RF-1": value(
        11,
        "every layer adds one pixel on each side",
        [
            (15, "15 would be five windows side by side, but they overlap"),
            (243, "243 would be five layers with stride 3"),
            (10, "10 is what the five layers add; to what?"),
        ],
    ),
    "RF-2": value(
        268,
        "from the top a pooling doubles r, and then each convolution of its block adds 2",
        [
            (212, "212 is VGG-16's; E has four convolutions in its last three blocks"),
            (124, "that is what comes from the top with the blocks in the wrong order: the last block comes first"),
        ],
    ),
    "RF-3": value(
        (31, 15),
        "a layer with dilation d adds 2d, one without adds 2",
        [((31, 4), "four layers without dilation see 9 only"), ((30, 15), "start from a field of 1")],
    ),
    "RF-4": value(
        ("conv4_1", 8),
        "go through fields in order; the jump is the stride of the field, not of the layer",
        [(("conv4_1", 1), "1 is the layer's own stride; three poolings lie before it")],
    ),
    "RF-5": value(
        12,
        "7, then 11 after the pooling; then each 3x3 adds 8",
        [
            (45, "each adds more than 2 here: the two strides before it make the jump 4"),
            (11, "11 layers see 99 pixels, one too few"),
        ],
    ),
    "RF-6": function(kernels_to_split, "compare the places that a channel of first copies with those second can reach"),
}
