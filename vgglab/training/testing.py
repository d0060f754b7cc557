"""Testing a network: what evaluate does, and a run after each epoch."""

import math
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgglab import _checks as checks
from vgglab import machine
from vgglab.training.processes import Processes
from vgglab.training.recipe import Recipe


@dataclass(frozen=True)
class Evaluation:
    """How many of total images were named correctly, and the mean cross-entropy over them (nats)."""

    correct: int
    total: int
    loss: float

    @property
    def accuracy(self) -> float:
        return self.correct / self.total


class Tester:
    """Tests model as a recipe says, on images of size pixels (as they are if None), computing in precision."""

    def __init__(self, model: nn.Module, recipe: Recipe, size: int | None, precision: str) -> None:
        self.model, self.recipe, self.size, self.precision = model, recipe, size, precision
        self.device, self.layout = machine.device_of(model), torch.channels_last

    def try_on(self, images: Any, processes: int = 1) -> None:
        """Test on the fewest images that a step of one of the processes has, and find how they are to lie in memory.

        That is channels last, the faster way, but where the network views a map as a row. Raises ValueError where it
        does not run.
        """
        self.few = images[: fewest(len(images), self.recipe.batch_size, processes)]
        try:
            self.test(self.few)
        except ValueError as error:
            if "view size is not compatible" not in str(error):
                raise
            self.layout = torch.contiguous_format
            self.test(self.few)

    @torch.no_grad()
    def test(self, images: Any, processes: Processes | None = None) -> Evaluation:
        """Return the Evaluation on images, of which each of the processes, if there are several, tests its share."""
        total = torch.zeros(2, dtype=torch.float64, device=self.device)  # correct answers, and the losses
        share = processes.share if processes else (0, 1)
        with mode(self.model, training=False):
            for x, labels in images.to(self.device).stream(self.recipe.batch_size, self.size, share=share):
                x = x.to(memory_format=self.layout)
                with checks.running("images", x.shape), machine.autocast(self.device, self.precision):
                    outputs = [self.model(view) for view in ((x, x.flip(-1)) if self.recipe.flip_test else (x,))]
                scores = torch.stack([class_scores(output, images.classes) for output in outputs])
                logs = scores.log_softmax(2).logsumexp(0) - math.log(len(outputs))
                total[0] += (logs.argmax(1) == labels).sum()
                total[1] += F.nll_loss(logs, labels, reduction="sum")
        correct, loss = (processes.sum(total) if processes else total).tolist()
        return Evaluation(int(correct), len(images), loss / len(images))


def class_scores(output: Any, classes: tuple[str, ...]) -> Tensor:
    """What a network gave as float32 scores, if it is one for each class, or with more columns."""
    if not isinstance(output, Tensor) or output.ndim != 2 or output.shape[1] < len(classes):
        given = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"model must give a score for each of the classes, (N, {len(classes)}), not {given}")
    return output.float()


@contextmanager
def mode(model: nn.Module, training: bool) -> Iterator[None]:
    """Put model into training or eval mode inside the block; after it each of its modules is as it was."""
    before = {module: module.training for module in model.modules()}
    try:
        model.train(training)
        yield
    finally:
        for module, mode in before.items():
            module.training = mode


def fewest(images: int, batch_size: int, processes: int = 1) -> int:
    """1 where a process has a single image in a step, else 2."""
    return min(2, max(1, (images % batch_size or batch_size) // processes))


def own_size(model: nn.Module) -> int | None:
    """The side of the images that a network says it takes."""
    size = getattr(model, "image_size", None)
    return size if isinstance(size, int) else None


@contextmanager
def enough_memory(batch_size: int) -> Iterator[None]:
    """Answer a GPU that is out of memory inside the block with what to try."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        traceback.clear_frames(error.__traceback__)  # they hold what fills the memory, and a notebook holds them
        raise MemoryError(
            f"the GPU's memory is too small for batch_size={batch_size} with this network and these images: "
            "try a smaller batch_size"
        ) from error
