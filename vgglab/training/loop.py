"""Training and testing: fit and evaluate, what they report (History, Evaluation), and the run that fit drives (Run)."""

import json
import math
import signal
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgglab import _checks as checks
from vgglab import machine
from vgglab._checks import Count, FilePath, Whole, checked
from vgglab._files import write_text
from vgglab.data import Splits, batches, derived_seed
from vgglab.data.images import Batch
from vgglab.machine import Precision
from vgglab.training import checkpoint as checkpoints
from vgglab.training.console import Progress, signals_noted
from vgglab.training.processes import Processes
from vgglab.training.recipe import SCHEDULES, Recipe, find_recipe


@dataclass(frozen=True)
class Evaluation:
    """How many of total images were named correctly, and the mean cross-entropy over them (nats)."""

    correct: int
    total: int
    loss: float

    @property
    def accuracy(self) -> float:
        return self.correct / self.total


@dataclass
class History:
    """What happened in a run: where (environment), how (recipe), and one row for each epoch.

    Each row holds epoch, train_loss and train_accuracy (over the epoch, augmented and with dropout), test_loss,
    test_accuracy, and seconds since the start of training, testing left out.
    """

    recipe: dict[str, Any]
    environment: dict[str, Any]
    epochs: list[dict[str, Any]]

    def save(self, path: FilePath) -> None:
        """Write the history as JSON, under a temporary name first."""
        write_text(path, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: FilePath) -> "History":
        """Read a history that save wrote; raises ValueError for another file."""
        try:
            history = cls(**json.loads(checks.path("path", path).read_text(encoding="utf-8")))
            if not all(isinstance(part, dict) for part in (history.recipe, history.environment, *history.epochs)):
                raise TypeError("its recipe, its environment or one of its epochs is something else")
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"{path} is not a saved History: {error}") from None
        return history

    @property
    def accuracy(self) -> float:
        """The test accuracy after the last epoch."""
        return self.epochs[-1]["test_accuracy"]


def _images(name: str, value: Any) -> Any:
    if not hasattr(value, "stream") or not len(value):
        raise TypeError(f"{name} must be vgglab.data.Images, at least one, not {checks.shown(value)}")
    return value


def _splits(name: str, value: Any) -> Splits:
    if not isinstance(value, Splits) or not (len(value.train) and len(value.test)):
        raise TypeError(f"{name} must be a vgglab.data.Splits with images in both parts, not {checks.shown(value)}")
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
    recipe = replace(recipe, epochs=epochs or recipe.epochs, size=getattr(model, "image_size", None) or recipe.size)
    arithmetic = machine.find_precision(precision, processes.device)
    run = Run(model, splits, recipe, processes, arithmetic, seed, Path(checkpoint) if checkpoint else None)
    _test(model, run.splits.train[:1], recipe, recipe.size, arithmetic)  # refuses what does not go together
    with run.running(compile, progress):
        while run.epoch < recipe.epochs:
            train_one_epoch(run)
            run.end_epoch(_test(model, run.splits.test, recipe, recipe.size, arithmetic, processes))
    return run.history


def train_one_epoch(run: "Run") -> None:
    """Batch, forward, loss, backward, step: the loop of lesson 05."""
    for x, labels in run.batches():
        with machine.autocast(run.device, run.precision):
            scores = _scores(run.network(x), run.splits.train.classes)
        loss = F.cross_entropy(scores, labels, reduction="sum", label_smoothing=run.recipe.label_smoothing)
        run.optimizer.zero_grad()
        (loss / run.images_in_step).backward()
        run.optimizer.step()
        run.note(loss, scores, labels)


@checked
def evaluate(
    model: nn.Module,
    images: Annotated[Any, _images],
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
    device = machine.device_of(model)
    chosen = Recipe(batch_size=500) if recipe is None else find_recipe(recipe)
    chosen = replace(chosen, flip_test=flip or chosen.flip_test)
    size = size or getattr(model, "image_size", None) or (chosen.size if recipe else None)
    with _enough_memory(chosen.batch_size):
        return _test(model, images, chosen, size, machine.find_precision(precision, device))


@torch.inference_mode()
def _test(
    model: nn.Module, images: Any, recipe: Recipe, size: int | None, precision: str, processes: Processes | None = None
) -> Evaluation:
    """The Evaluation of model, each of the processes, if there are several, testing its share."""
    device, training = machine.device_of(model), model.training
    total = torch.zeros(2, dtype=torch.float64, device=device)  # correct answers, and the losses
    try:
        model.eval()
        share = processes.share if processes else (0, 1)
        for x, labels in batches(images, recipe.batch_size, size, device=device, share=share):
            x = x.to(memory_format=torch.channels_last)
            with checks.running("size", x.shape), machine.autocast(device, precision):
                outputs = [model(view) for view in ((x, x.flip(-1)) if recipe.flip_test else (x,))]
            scores = torch.stack([_scores(output, images.classes) for output in outputs])
            logs = scores.log_softmax(2).logsumexp(0) - math.log(len(outputs))
            total[0] += (logs.argmax(1) == labels).sum()
            total[1] += F.nll_loss(logs, labels, reduction="sum")
    finally:
        model.train(training)
    correct, loss = (processes.sum(total) if processes else total).tolist()
    return Evaluation(int(correct), len(images), loss / len(images))


def _scores(output: Any, classes: tuple[str, ...]) -> Tensor:
    """What a network gave as float32 scores, if it is one for each class, or with more columns."""
    if not isinstance(output, Tensor) or output.ndim != 2 or output.shape[1] < len(classes):
        given = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"model must give a score for each of the classes, (N, {len(classes)}), not {given}")
    return output.float()


@contextmanager
def _finally_on(device: torch.device, model: nn.Module) -> Iterator[None]:
    """Bring model to device, however the block ends."""
    try:
        yield
    finally:
        model.to(device)


@contextmanager
def _enough_memory(batch_size: int) -> Iterator[None]:
    """Answer a GPU that is out of memory inside the block with what to try."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        traceback.clear_frames(error.__traceback__)  # they hold what fills the memory, and a notebook holds them
        raise MemoryError(
            f"the GPU's memory is too small for batch_size={batch_size} with this network and these images: "
            "try a smaller batch_size"
        ) from error


class Run:
    """One training run: what is trained, and where it stands: epochs done, and steps done in the next one.

    All random numbers depend on the seed, the epoch and the step alone, so these three are all that has to be
    remembered of them.
    """

    def __init__(
        self, model: nn.Module, splits: Splits, recipe: Recipe, processes: Processes, precision: str, seed: int,
        checkpoint: Path | None,
    ) -> None:  # fmt: skip
        machine.keep_freed_memory()
        self.home = machine.device_of(model)
        self.model = model.to(processes.device).to(memory_format=torch.channels_last)
        self.device = machine.device_of(model)
        self.splits = replace(splits, train=splits.train.to(self.device), test=splits.test.to(self.device))
        self.optimizer = torch.optim.SGD(
            model.parameters(), recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay, fused=True
        )
        images = f"{len(splits.train)} + {len(splits.test)} images, MD5 {splits.train.checksum()}"
        decides = {"data": f"{splits.name}, {images}", "seed": seed}
        self.identity = {"recipe": asdict(recipe), **decides}  # must agree for a run to go on; the device need not
        environment = {**decides, "processes": processes.world_size, **machine.environment(self.device, precision)}
        self.history = History(asdict(recipe), environment, [])
        self.recipe, self.processes, self.precision, self.seed = recipe, processes, precision, seed
        self.checkpoint = checkpoint
        self.begin_epoch()
        if checkpoint:
            self.restore(checkpoint)

    @contextmanager
    def running(self, compile: bool, progress: bool) -> Iterator[None]:
        """Inside the block self.network trains the model, progress is shown, and signals wait for the step to end."""
        mode = "reduce-overhead" if self.device.type == "cuda" else "default"  # the former with CUDA graphs
        network: Any = torch.compile(self.model, mode=mode, dynamic=False) if compile else self.model
        with (
            _finally_on(self.home, self.model),
            _enough_memory(self.recipe.batch_size),
            torch.random.fork_rng([self.device] if self.device.type == "cuda" else []),  # the caller's numbers stay
            self.processes.wrap(network) as self.network,
            Progress(progress and self.processes.is_main) as self.shown,
            signals_noted(self.checkpoint is not None) as self.signals,
        ):
            images = f"{len(self.splits.train):,} images of {self.recipe.size}×{self.recipe.size}"
            self.shown.line(f"{self.splits.name}, {images}, {self.device}, {self.precision}")
            yield

    def begin_epoch(self) -> None:
        self.epoch, self.step = len(self.history.epochs), 0
        self.steps = math.ceil(len(self.splits.train) / self.recipe.batch_size)
        self.seconds = self.history.epochs[-1]["seconds"] if self.epoch else 0.0
        self.losses = torch.zeros(self.steps, device=self.device)
        self.correct = torch.zeros((), dtype=torch.int64, device=self.device)

    def batches(self) -> Iterator[Batch]:
        """Yield the batches that the epoch has left, the learning rate and the random numbers set for each step."""
        recipe, seed, count = self.recipe, derived_seed(self.seed, self.epoch), len(self.splits.train)
        stream = batches(
            self.splits.train, recipe.batch_size, recipe.size, shuffle=True, seed=seed, augment=recipe.augment,
            start=self.step, share=self.processes.share,
        )  # fmt: skip
        self.network.train()
        self.start = time.perf_counter() - self.seconds
        for x, labels in stream:
            torch.manual_seed(derived_seed(derived_seed(seed, self.step), self.processes.rank))  # for dropout
            done = (self.epoch + (self.step + 1) / (self.steps + 1)) / recipe.epochs
            for group in self.optimizer.param_groups:
                group["lr"] = recipe.lr * SCHEDULES[recipe.schedule](done)
            images = min(recipe.batch_size, count - self.step * recipe.batch_size)
            self.images_in_step = images / self.processes.world_size  # as their gradients are averaged
            yield x.to(memory_format=torch.channels_last), labels
        self.stop_unless_finite()
        self.seconds = time.perf_counter() - self.start

    def note(self, loss: Tensor, scores: Tensor, labels: Tensor) -> None:
        """Note what a step did, show it, and stop if a signal asked for it."""
        self.losses[self.step] = loss.detach()
        self.correct += (scores.detach().argmax(1) == labels).sum()
        self.step += 1
        self.seconds = time.perf_counter() - self.start
        if self.device.type == "cpu":  # on a GPU these would wait for it
            self.stop_unless_finite()
            done = self.epoch * self.steps + self.step
            rate, left = done / self.seconds, self.steps * self.recipe.epochs - done
            self.shown.status(
                f"epoch {self.epoch + 1} of {self.recipe.epochs} · step {self.step} of {self.steps} · "
                f"loss {loss.item() / self.images_in_step:.3f} · {rate * self.recipe.batch_size:,.0f} images/s · "
                f"{left / rate:.0f} s left"
            )
        if self.signals:
            self.save()
            self.shown.line(f"stopped and saved in epoch {self.epoch + 1} after step {self.step}")
            raise KeyboardInterrupt if self.signals[0] == signal.SIGINT else SystemExit(128 + self.signals[0])

    def end_epoch(self, tested: Evaluation) -> None:
        """Note in the history what the epoch and the test after it gave, and save the run."""
        count, classes = len(self.splits.train), len(self.splits.train.classes)
        row = {
            "epoch": self.epoch + 1,
            "train_loss": self.processes.sum(self.losses.double()).sum().item() / count,
            "train_accuracy": self.processes.sum(self.correct).item() / count,
            "seconds": self.seconds,
            "test_loss": tested.loss,
            "test_accuracy": tested.accuracy,
        }
        self.history.epochs.append(row)
        self.shown.line(
            f"epoch {row['epoch']:2} of {self.recipe.epochs} · train loss {row['train_loss']:.3f}, "
            f"accuracy {row['train_accuracy']:.3f} · test accuracy {row['test_accuracy']:.4f} · {row['seconds']:.0f} s"
        )
        chance = math.log(classes)
        if all(abs(row[loss] - chance) < 0.01 * chance for loss in ("train_loss", "test_loss")):
            warnings.warn(
                f"the loss stands at ln {classes} = {chance:.3f} after epoch {row['epoch']}: the network gives every "
                "class the same score and learns nothing; try another initialization or lr, or batch normalization",
                stacklevel=4,
            )
        self.begin_epoch()
        self.save()

    def save(self) -> None:
        """Write a checkpoint, if one was asked for."""
        if self.checkpoint and self.processes.is_main:
            checkpoints.save(self.checkpoint, self.state())

    def state(self) -> checkpoints.State:
        """All that a run needs to go on."""
        return {
            "identity": self.identity,
            "epochs": self.history.epochs,
            "step": self.step,
            "seconds": self.seconds,
            "losses": self.losses.cpu(),
            "correct": self.correct.cpu(),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def restore(self, checkpoint: Path) -> None:
        """Take up the run where its checkpoint left it, if there is one."""
        found = checkpoints.load(checkpoint, self.state()) if self.processes.is_main else None
        state = self.processes.broadcast(found)
        if state is None:
            return
        try:
            self.model.load_state_dict(state["model"])
            own = self.optimizer.state_dict()["param_groups"]
            self.optimizer.load_state_dict({"state": state["optimizer"]["state"], "param_groups": own})
            for parameter in self.model.parameters() if self.recipe.momentum else ():
                kept = self.optimizer.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))
                if kept.shape != parameter.shape:
                    raise ValueError("its momentum has other shapes than the weights")
            self.history.epochs = state["epochs"]
            self.begin_epoch()
            self.step, self.seconds = checks.integer("step", state["step"], 0, self.steps), state["seconds"]
            if self.processes.is_main:  # each process sums up its own images; after a restart the main one has all
                self.losses.copy_(state["losses"])
                self.correct.copy_(state["correct"])
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
            raise ValueError(f"{checkpoint} is not a checkpoint of this network: {error}") from None

    def stop_unless_finite(self) -> None:
        wrong = (~self.losses.isfinite()).nonzero()
        if len(wrong):
            step = int(wrong[0])
            raise FloatingPointError(
                f"the loss is {self.losses[step].item()} at step {step + 1} of {self.steps} in epoch {self.epoch + 1}: "
                f"try an lr below {self.recipe.lr}, batch normalization, or precision='float32'"
            )
