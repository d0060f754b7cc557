"""Training and testing a network: fit and evaluate."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import nn

from vgglab import _checks as checks
from vgglab import machine
from vgglab._checks import Count, FilePath, Whole, checked
from vgglab.data import Splits
from vgglab.data.images import ImageSet
from vgglab.machine import Precision
from vgglab.training.processes import Processes
from vgglab.training.recipe import Recipe, find_recipe
from vgglab.training.run import History, Run
from vgglab.training.testing import Evaluation, Tester, class_scores, enough_memory, own_size


def _splits(name: str, value: Any) -> Splits:
    if not isinstance(value, Splits):
        raise TypeError(f"{name} must be a vgglab.data.Splits, not {checks.shown(value)}")
    return value


@checked
def fit(
    model: nn.Module,
    splits: Annotated[Splits, _splits],
    *,
    recipe: Recipe | str | None = None,
    epochs: Count | None = None,
    device: str | torch.device = "auto",
    precision: Precision = "auto",
    compile: bool = False,
    seed: Whole = 0,
    checkpoint: FilePath | None = None,
    progress: bool = True,
) -> History:
    """Train model on splits.train in place by stochastic gradient descent and return the History of the run.

    recipe is a Recipe or a name of RECIPES ("gpu" on a GPU and "cpu" elsewhere if None), with its own epochs unless
    given, and the size of the model where it has one. After each epoch the network is tested on splits.test, and saved
    if checkpoint names a file, as it is on Ctrl-C and SIGTERM; the same call goes on from there, to the same weights.
    precision "auto" is bfloat16 where the hardware has it. Under torchrun all processes train together, each on its
    share of a batch. Raises FloatingPointError for a loss that is not finite, MemoryError for too small a GPU,
    ValueError for a checkpoint of another run, OSError for one that cannot be written. Source: section 3.1.
    """
    processes = Processes(device)
    recipe = find_recipe(recipe, processes.device)
    recipe = replace(recipe, epochs=epochs or recipe.epochs, size=own_size(model) or recipe.size)
    arithmetic = machine.find_precision(precision, processes.device)
    run = Run(model, splits, recipe, processes, arithmetic, seed, Path(checkpoint) if checkpoint else None)
    with run.running(compile, progress):
        while run.epoch < recipe.epochs:
            train_one_epoch(run)
            run.end_epoch()
    return run.history


def train_one_epoch(run: Run) -> None:
    """Batch, forward, loss, backward, step: the loop of lesson 05."""
    for x, labels in run.batches():
        with checks.running("images", x.shape):
            with machine.autocast(run.device, run.precision):
                scores = class_scores(run.network(x), run.splits.train.classes)
            loss = F.cross_entropy(scores, labels, reduction="sum", label_smoothing=run.recipe.label_smoothing)
            run.optimizer.zero_grad()
            (loss / run.images_in_step).backward()
            run.optimizer.step()
        run.note(loss, scores, labels)


@checked
def evaluate(
    model: nn.Module,
    images: ImageSet,
    *,
    recipe: Recipe | str | None = None,
    size: Count | None = None,
    precision: Precision = "auto",
    flip: bool = False,
) -> Evaluation:
    """Return the Evaluation of model on images: correct out of all, the last batch counted as it is.

    With the recipe and the precision of a run it gives what the run's history says. size (pixels) is the model's own
    where None, or the recipe's. flip averages the class probabilities of each image and its mirror image (section
    3.2). The model's mode is left as it was. Raises MemoryError when the GPU's memory is too small.
    """
    chosen = Recipe(batch_size=500) if recipe is None else find_recipe(recipe)
    chosen = replace(chosen, flip_test=flip or chosen.flip_test)
    size = size or own_size(model) or (chosen.size if recipe else None)
    arithmetic = machine.find_precision(precision, machine.device_of(model))
    with enough_memory(chosen.batch_size):
        tester = Tester(model, chosen, size, arithmetic)
        tester.try_on(images)
        return tester.test(images)
