"""The exercises of lesson 03: local response normalization by hand and within a channel."""

import torch
import torch.nn.functional as F

from vgglab.course.exercises.judge import Function, Judge, Value, Values, random
from vgglab.lrn import local_response_norm
from vgglab.models import VGG_CONFIGS

SIDES = (224, 112, 56, 28, 14)
AFTER = [[int(layer[6:]) * side**2 for layer in block] for side, block in zip(SIDES, VGG_CONFIGS["A"], strict=True)]
ADDED = sum(map(sum, AFTER))
RESPONSES = torch.arange(1, 1001, dtype=torch.float64).view(-1, 1, 1, 1)
SHAPES = (((1, 1, 1, 1), 1), ((1, 1, 1, 1), 3), ((1, 1, 2, 2), 3), ((1, 2, 3, 3), 3), ((2, 3, 5, 6), 5))

EXERCISES: dict[str, Judge] = {
    "LRN-1": Values(
        "which numbers of its position are within its radius, and to which power does each go in?",
        the_number=Value(
            30 / (29**2 + 30**2 + 31**2 + 32**2),
            (30 / (28**2 + 29**2 + 30**2 + 31**2 + 32**2), "28 stands at another position"),
            (30 / (29**2 + 31**2 + 32**2), "the number itself is in its window too"),
            (30 / (29**2 + 30**2 + 31**2), "the window reaches two channels to each side"),
            (30 / 3727, "the example has no bias, and you have added 1"),
            (30 / 3728, "the example has no bias, and you have added 2"),
            step=1e-7,
        ),
    ),
    "LRN-2": Values(
        "write Caffe's sum beside the paper's: what stands before it, and which k does Caffe take by itself?",
        alpha=Value(
            1e-4 / 5, (1e-4, "Caffe treats alpha otherwise than the paper"), (5e-4, "multiplied by the window?")
        ),
        k=Value(1.0, (2, "that is the paper's"), (0, "that would divide silence by nothing")),
    ),
    "LRN-3": Values(
        "draw the output over the response, or look for where its slope is zero",
        response=Value(
            lambda: int(local_response_norm(RESPONSES).argmax()) + 1,
            (1000, "the output falls again before that"),
            ((2 / 5e-4 / 0.5) ** 0.5, "the paper's alpha is not multiplied by the window"),
            ((2 / 2e-5 / 0.5) ** 0.5, "the paper's alpha is not divided by the window"),
            ((2 / 1e-4) ** 0.5, "is k AlexNet's, and is the 2β of the derivative there?"),
            ((2 / 1.5e-4) ** 0.5, "the response stands above the fraction line, too"),
            within=0.5,
        ),
    ),
    "LRN-4": Values(
        "what shape does each convolution of A give, and what does an LRN behind it give?",
        activations=Value(
            ADDED,
            (AFTER[0][0], "that is one LRN after the first convolution; here one follows each"),
            (ADDED - AFTER[0][0], "the LRN after the first convolution counts too"),
            (sum(block[0] for block in AFTER), "three blocks have two convolutions"),
        ),
    ),
    "LRN-5": Function(
        "within_channel(x, n, alpha, beta)",
        "over which positions does the sum run at the border, and what is it divided by there?",
        lambda x, n, alpha, beta: x / (1 + alpha * F.avg_pool2d(x**2, n, stride=1, padding=n // 2)) ** beta,
        lambda: [(random(*shape), n, 1 / n, 0.25 + 0.5 * n) for shape, n in SHAPES],
    ),
}
