"""The exercises of lesson 05: steps, gradients, and counting what is right."""

from collections.abc import Iterator

import torch
from torch import nn

from vgglab.course.exercises.judge import Case, equals, function, value
from vgglab.data import Images, batches


def images_to_count() -> Iterator[Case]:
    """Images and batch sizes, whose last batch is the smaller one; the first images are named rightly, the rest not."""
    for count, batch_size, right in ((1, 1, 1), (2, 2, 1), (3, 2, 2), (5, 3, 4), (7, 4, 5)):
        pixels = torch.randint(256, (count, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(32 * 32, 10))
        (x, _), *_ = batches(Images(pixels, torch.zeros(count, dtype=torch.int64)), count, size=32)
        names = model.eval()(x).argmax(1)
        labels = torch.where(torch.arange(count) < right, names, (names + 1) % 10)
        text = (
            f"{count} images in batches of {batch_size}, {right} of them named rightly by a network in training mode,"
        )
        yield text, (model.train(), Images(pixels, labels), batch_size), equals(right / count)


EXERCISES = {
    "TR-1": value(
        4690,
        "how many batches has one epoch? Then ten of them",
        [(4680, "the last, smaller batch of each epoch counts too"), (469, "that is one epoch")],
    ),
    "TR-2": function(images_to_count, "two sums over all batches, one division at the end, and the model in eval mode"),
    "TR-3": value(
        0.1 * (1 + 2 + 3),
        "the gradients that step 2 finds are 1 from step 1 and 1 from its own",
        [
            (0.3, "that is with zero_grad: each step sees its own gradient alone"),
            (0.7, "the sum grows, it does not double"),
        ],
    ),
    "TR-4": value(
        "A",
        "one epoch for each configuration, the shallowest first, and the mean of the last losses",
        [("B", "does A learn? Look at the last losses"), ("E", "that is the deepest; which is the first?")],
    ),
}
