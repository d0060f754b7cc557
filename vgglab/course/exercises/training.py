"""The exercises of lesson 05: steps, gradients, and counting what is right."""

import math
from collections.abc import Iterator

import torch
from torch import nn

from vgglab.course.exercises.judge import Function, Judge, Value, Values
from vgglab.data import Images, batches


def images_to_count() -> Iterator[tuple[nn.Module, Images, int]]:
    """Networks in training mode, images of which the first are named rightly and the rest not, and batch sizes."""
    for count, batch_size, right in ((1, 1, 1), (2, 2, 1), (3, 2, 2), (5, 3, 4), (7, 4, 5)):
        pixels = torch.randint(256, (count, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(32 * 32, 10))
        (x, _), *_ = batches(Images(pixels, torch.zeros(count, dtype=torch.int64)), count, size=32)
        names = model.eval()(x).argmax(1)
        labels = torch.where(torch.arange(count) < right, names, (names + 1) % 10)
        yield model.train(), Images(pixels, labels), batch_size


def share_right(model: nn.Module, images: Images, batch_size: int) -> float:
    """The share of images that a network names rightly, all at once."""
    ((x, labels),) = batches(images, len(images), size=32)
    return (model.eval()(x).argmax(1) == labels).float().mean().item()


EXERCISES: dict[str, Judge] = {
    "TR-1": Values(
        "how many batches has one epoch? Then ten of them",
        steps=Value(
            10 * math.ceil(60_000 / 128),
            {4680: "the last, smaller batch of each epoch counts too", 469: "that is one epoch"},
        ),
    ),
    "TR-2": Function(
        "accuracy(model, images, batch_size)",
        "two sums over all batches, one division at the end, and the model in eval mode",
        share_right,
        images_to_count,
    ),
    "TR-3": Values(
        "which gradient does the second step find, and which the third?",
        distance=Value(
            0.1 * (1 + 2 + 3),
            {
                0.3: "that is with zero_grad: each step sees its own gradient alone",
                0.7: "the sum grows, it does not double",
                -0.6: "how far: a distance, without the sign",
            },
        ),
    ),
    "TR-4": Values(
        "one epoch for each configuration, the shallowest first, and the mean of the last losses",
        letter_of_the_configuration=Value(
            "A or none", {"b": "does A learn? Look at the last losses", "e": "that is the deepest; which is the first?"}
        ),
    ),
}
