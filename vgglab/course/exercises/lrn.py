"""The exercises of lesson 03: local response normalization by hand and within a channel."""

from collections.abc import Iterator

import torch.nn.functional as F

from vgglab.course.exercises.judge import Case, equals, function, random, value


def maps_to_normalize() -> Iterator[Case]:
    """Maps from one position to several channels, with windows of 1, 3 and 5."""
    for shape, n in (((1, 1, 1, 1), 1), ((1, 1, 1, 1), 3), ((1, 1, 2, 2), 3), ((1, 2, 3, 3), 3), ((2, 3, 5, 6), 5)):
        x, alpha, beta = random(*shape), 0.5, 0.75
        normalized = x / (1 + alpha * F.avg_pool2d(x**2, n, stride=1, padding=n // 2)) ** beta
        yield f"x of shape {shape} and n = {n}", (x, n, alpha, beta), equals(normalized)


EXERCISES = {
    "LRN-1": value(
        30 / (29**2 + 30**2 + 31**2 + 32**2),
        "its own square and those of the channels within two of it, at its position",
        [
            (30 / (28**2 + 29**2 + 30**2 + 31**2 + 32**2), "28 stands at another position"),
            (30 / (29**2 + 31**2 + 32**2), "the number itself is in its window too"),
        ],
    ),
    "LRN-2": value(
        (1e-4 / 5, 1.0),
        "Caffe multiplies the sum by alpha / local_size, and has its own default for k",
        [
            ((1e-4, 1.0), "the paper's α is not divided by the window, Caffe's is"),
            ((2e-5, 2.0), "k = 2 is the paper's"),
        ],
    ),
    "LRN-3": value(
        200,
        "try all responses from 1 to 1000, or set the derivative to zero",
        [(1000, "the output falls again before that"), (141, "the derivative has 2β - 1 in it, not 2β")],
    ),
    "LRN-4": value(
        7_426_048,
        "one number for each that a convolution gives, and A has eight convolutions",
        [
            (3_211_264, "that is one LRN after the first convolution; here one follows each"),
            (7_426_048 - 3_211_264, "the LRN after the first convolution counts too"),
        ],
    ),
    "LRN-5": function(maps_to_normalize, "the sum runs over the channel's own n x n window and is divided by n²"),
}
