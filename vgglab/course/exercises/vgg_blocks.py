"""The exercises of lesson 04: where VGG's parameters and activations are."""

from functools import cache
from itertools import count

import torch

from vgglab.cost import Ledger, conv, ledger
from vgglab.course.exercises.judge import Function, Judge, Value, Values, random
from vgglab.models import vgg

CONVOLUTIONS = 14_714_688  # of D
NARROW, MIDDLE, WIDE = (conv(3, c_in, c_out, 1).parameters for c_in, c_out in ((128, 256), (256, 256), (512, 512)))
AVERAGED = CONVOLUTIONS + 513 * 1000
SHAPES = ((1, 1, 1, 1), (1, 1, 1, 2), (1, 1, 2, 3), (2, 2, 1, 1), (3, 3, 2, 4), (1, 3, 2, 2), (1, 2), (3, 5))


@cache
def widest() -> int:
    """The last n/64 at which A, for grey images of 32 pixels and ten classes, has at most a million parameters."""
    with torch.device("meta"):
        networks = (vgg("A", 1, 10, image_size=32, width=n / 64) for n in count(1))
        sizes = (sum(p.numel() for p in network.parameters()) for network in networks)
        return next(n for n, size in enumerate(sizes) if size > 1_000_000)


@cache
def ledger_of_d() -> Ledger:
    """What VGG-16 costs."""
    with torch.device("meta"):
        return ledger(vgg("D"), (3, 224, 224))


def numbers(*without: str, images: int = 64) -> tuple[float, float]:
    """The gigabytes of the activations of VGG-16, without these kinds of rows, and how many for each parameter."""
    table = ledger_of_d()
    total = images * sum(row.activations for row in table.rows if row.kind not in ("ReLU", *without))
    return 4 * total / 1e9, total / table.parameters


EXERCISES: dict[str, Judge] = {
    "VB-1": Values(
        "how many channels enter and leave each of its three convolutions?",
        parameters=Value(
            NARROW + 2 * MIDDLE,
            {
                NARROW + 2 * MIDDLE - 3 * 256: "the biases are missing",
                3 * MIDDLE: "how many channels arrive at the first of the three?",
                NARROW + MIDDLE: "that is the block 3 of B, with two convolutions",
            },
        ),
    ),
    "VB-2": Values(
        "in which block does each stand? It has as many channels in as out, and a bias for each",
        first=Value(MIDDLE, {WIDE: "the first of them stands in block 3", 9 * 256**2: "its biases are missing"}),
        second=Value(WIDE, {9 * 512**2: "its biases are missing"}),
        third=Value(WIDE, {9 * 512**2: "its biases are missing"}),
    ),
    "VB-3": Values(
        "which layers stay as they are, and how many numbers arrive at the only FC layer?",
        parameters=Value(
            AVERAGED,
            {
                CONVOLUTIONS: "that is the convolutions alone",
                CONVOLUTIONS + 25_089 * 1000: "how many numbers arrive when each map is averaged?",
                AVERAGED - 1000: "the FC layer has biases, too",
            },
        ),
    ),
    "VB-4": Values(
        "take the table's total without ReLU for each image; which of the two grows with the batch?",
        gigabytes=Value(
            lambda: numbers()[0],
            lambda: {
                numbers("input")[0]: "the input counts, too",
                numbers("MaxPool2d")[0]: "what the poolings give counts, too",
                numbers(images=1)[0]: "that is one image",
                numbers(images=128)[0]: "4 bytes a number, and the forward pass alone",
            },
            step=0.01,
            unit="GB",
        ),
        times=Value(
            lambda: numbers()[1],
            lambda: {
                numbers(images=1)[1]: "that is one image",
                numbers(images=256)[1]: "numbers, not bytes",
            },
            step=1,
        ),
    ),
    "VB-5": Function(
        "to_pytorch(weight)",
        "in which order does PyTorch have the axes of each?",
        lambda weight: weight.permute((3, 2, 0, 1) if weight.ndim == 4 else (1, 0)),
        lambda: [(random(*shape),) for shape in SHAPES],
    ),
    "VB-6": Values(
        "count the parameters for several n; which is the last to fit?",
        n=Value(
            widest,
            {12 / 64: "n, the number of 64ths, please", 13: "that has more than a million", 11: "one more still fits"},
        ),
    ),
}
