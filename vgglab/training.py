"""Training and testing a network: the loop, and what it reports (History, Evaluation)."""

import json
import math
import time
import traceback
import warnings
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

import torch
import torch.nn.functional as F

from vgglab import checkpoint as checkpoints
from vgglab import checks, machine
from vgglab.data import Dataset, batches, derived_seed
from vgglab.files import prepare, write_text
from vgglab.live import Progress
from vgglab.parallel import Processes
from vgglab.recipes import RECIPES, SCHEDULES, Recipe, find_recipe
from vgglab.reorder import pool_first
from vgglab.stopping import Stopping

__all__ = ["RECIPES", "SCHEDULES", "Evaluation", "History", "Recipe", "evaluate", "find_recipe", "fit"]


@dataclass(frozen=True)
class Evaluation:
    """How many of total images were named correctly, and the mean cross-entropy over them (nats)."""

    correct: int
    total: int
    loss: float

    @property
    def accuracy(self):
        return self.correct / self.total


@dataclass
class History:
    """What happened in a run: where (environment), how (recipe), and one row for each epoch.

    Each row holds epoch, train_loss and train_accuracy (over the epoch, augmented and with dropout), test_loss,
    test_accuracy, and seconds since the start of training, testing left out.
    """

    recipe: dict
    environment: dict
    epochs: list

    def save(self, path):
        """Write the history as JSON, under a temporary name first."""
        write_text(path, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path):
        """Read a history that save wrote; raises ValueError for another file."""
        try:
            history = cls(**json.loads(checks.path("path", path).read_text(encoding="utf-8")))
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"{path} is not a saved History: {error}") from None
        rows = history.epochs if isinstance(history.epochs, list) else [None]
        if not all(isinstance(part, dict) for part in (history.recipe, history.environment, *rows)):
            raise ValueError(f"{path} is not a saved History: its recipe, environment or epochs are something else")
        return history

    @property
    def accuracy(self):
        """The test accuracy after the last epoch."""
        return self.epochs[-1]["test_accuracy"]


def fit(
    model,
    dataset,
    *,
    recipe=None,
    epochs=None,
    lr=None,
    batch_size=None,
    size=None,
    device="auto",
    precision="auto",
    compile=False,
    seed=0,
    checkpoint=None,
    resume=True,
    progress=True,
):
    """Train model on dataset.train in place by stochastic gradient descent and return its History.

    recipe is a Recipe or a name of RECIPES ("gpu" on a GPU and "cpu" elsewhere if None); epochs, lr, batch_size and
    size (pixels) override it. After each epoch the network is tested on dataset.test, and saved if checkpoint names
    a file, as it is on Ctrl-C and SIGTERM; resume continues from that file, to the same weights. precision is
    "float32", "bfloat16" (autocast) or "auto": bfloat16 where the hardware has it. compile hands the network to
    torch.compile, with CUDA graphs on a GPU. Under torchrun all processes train together, batch_size being that of
    all. Wherever it is trained, model ends on the device where it was. Raises FloatingPointError when the loss is no
    longer finite, MemoryError when the GPU's memory is too small, ValueError or TypeError for bad arguments and for a
    checkpoint of another run, OSError for one that cannot be written. Source of the method: section 3.1.
    """
    home = machine.device_of(model)
    if not isinstance(dataset, Dataset) or not (len(dataset.train) and len(dataset.test)):
        raise TypeError(f"dataset must be a vgglab.data.Dataset with images in both parts, not {dataset!r}")
    flags = {"compile": compile, "resume": resume, "progress": progress}
    compile, resume, progress = (checks.flag(name, value) for name, value in flags.items())
    seed = checks.integer("seed", seed)
    checkpoint = None if checkpoint is None else checks.path("checkpoint", checkpoint)
    processes = Processes(device)
    if checkpoint is not None and processes.writes:
        prepare(checkpoint)
    device = processes.device
    precision = machine.find_precision(precision, device)
    recipe = find_recipe(recipe, device)
    given = {"epochs": epochs, "lr": lr, "batch_size": batch_size, "size": _size(size, model)}
    recipe = replace(recipe, **{name: value for name, value in given.items() if value is not None})
    dataset = replace(dataset, train=dataset.train.to(device), test=dataset.test.to(device))
    environment = {
        "data": f"{dataset.name}, {len(dataset.train)} + {len(dataset.test)} images, MD5 {dataset.train.checksum()}",
        "seed": seed,
        "processes": processes.count,
        **machine.environment(device, precision),
    }
    run = _Run(model, dataset, recipe, History(asdict(recipe), environment, []), processes, compile, checkpoint)
    if checkpoint is not None and resume:
        run.restore()
    _tally(model, dataset.train[:1], 1, recipe.size, precision, flip=False)  # refuses what does not go together
    with (
        _finally_on(home, model),
        Progress(progress and processes.writes) as shown,
        Stopping(checkpoint is not None) as stopping,
    ):
        shown.line(
            f"{dataset.name}, {len(dataset.train):,} images of {recipe.size}×{recipe.size}, {device}, {precision}"
        )
        while len(run.history.epochs) < recipe.epochs:
            with _enough_memory(recipe.batch_size):
                run.epoch(shown, stopping)
    return run.history


@contextmanager
def _finally_on(device, model):
    """Bring model to device, however the block ends."""
    try:
        yield
    finally:
        model.to(device)


class _Run:
    """One training run: what is trained, and where it stands: epochs done, and steps done in the next one.

    All random numbers depend on the seed, the epoch and the step alone, so these three are all that has to be
    remembered of them.
    """

    def __init__(self, model, dataset, recipe, history, processes, compile, checkpoint):
        machine.keep_freed_memory()
        self.model = model.to(processes.device, memory_format=torch.channels_last)
        self.network = pool_first(model)
        network = self.network
        if compile:
            mode = "reduce-overhead" if processes.device.type == "cuda" else "default"
            network = torch.compile(network, mode=mode, dynamic=False)
        self.trained = processes.join(network)
        self.optimizer = torch.optim.SGD(
            model.parameters(), recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay, fused=True
        )
        self.dataset, self.recipe, self.history, self.processes = dataset, recipe, history, processes
        self.precision, self.seed = history.environment["precision"], history.environment["seed"]
        self.checkpoint = checkpoint
        self.steps = math.ceil(len(dataset.train) / recipe.batch_size)
        self.begin_epoch()

    def begin_epoch(self):
        device = self.processes.device
        self.step, self.seconds = 0, self.history.epochs[-1]["seconds"] if self.history.epochs else 0.0
        self.losses = torch.zeros(self.steps, device=device)
        self.correct = torch.zeros((), dtype=torch.int64, device=device)

    def epoch(self, shown, stopping):
        """Finish the epoch that has been begun, test, and note both in the history."""
        recipe, epoch, device = self.recipe, len(self.history.epochs), self.processes.device
        seed = derived_seed(self.seed, epoch)
        stream = batches(
            self.dataset.train, recipe.batch_size, recipe.size, shuffle=True, seed=seed, augment=recipe.augment,
            start=self.step, share=self.processes.share,
        )  # fmt: skip
        self.trained.train()
        first, before, start = self.step, self.seconds, time.perf_counter()
        with machine.own_random_state(device):
            for x, labels in stream:
                torch.manual_seed(derived_seed(derived_seed(seed, self.step), self.processes.rank))  # for dropout
                self.train_step(x, labels, epoch)
                self.step += 1
                self.seconds = before + time.perf_counter() - start
                if device.type == "cpu":  # on a GPU these would wait for it
                    self.stop_unless_finite(self.step - 1)
                    shown.status(self.status(epoch, (self.step - first) / (self.seconds - before)))
                if stopping.asked:
                    self.save()
                    shown.line(f"stopped and saved in epoch {epoch + 1} after step {self.step}")
                    stopping.stop()
        losses = self.processes.sum(self.losses.double())
        self.stop_unless_finite()
        self.seconds = before + time.perf_counter() - start
        tested = self.evaluation()
        count = len(self.dataset.train)
        row = {
            "epoch": epoch + 1,
            "train_loss": losses.sum().item() / count,
            "train_accuracy": self.processes.sum(self.correct).item() / count,
            "seconds": self.seconds,
            "test_loss": tested.loss,
            "test_accuracy": tested.accuracy,
        }
        self.history.epochs.append(row)
        shown.line(_describe(row, recipe.epochs))
        _warn_if_nothing_is_learned(row, len(self.dataset.train.classes))
        self.begin_epoch()
        self.save()

    def train_step(self, x, labels, epoch):
        """Forward, backward, and one step against the gradient of the loss over the whole batch."""
        recipe, device = self.recipe, self.processes.device
        done = (epoch + (self.step + 1) / (self.steps + 1)) / recipe.epochs
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.lr * SCHEDULES[recipe.schedule](done)
        with machine.autocast(device, self.precision):
            scores = _one_for_each_class(
                self.trained(x.to(memory_format=torch.channels_last)), self.dataset.train.classes
            )
        loss = F.cross_entropy(scores.float(), labels, reduction="sum", label_smoothing=recipe.label_smoothing)
        size = min(recipe.batch_size, len(self.dataset.train) - self.step * recipe.batch_size)
        self.optimizer.zero_grad()
        (loss * (self.processes.count / size)).backward()  # the processes' gradients are averaged
        self.optimizer.step()
        self.losses[self.step] = loss.detach()
        self.correct += (scores.detach().argmax(1) == labels).sum()

    def evaluation(self):
        """The Evaluation on the test images, each process testing its share."""
        recipe, test, share = self.recipe, self.dataset.test, self.processes.share
        tally = _tally(self.network, test, recipe.batch_size, recipe.size, self.precision, recipe.flip_test, share)
        correct, loss = self.processes.sum(tally).tolist()
        return Evaluation(int(correct), len(test), loss / len(test))

    def save(self):
        """Write a checkpoint, if one was asked for."""
        if self.checkpoint is not None and self.processes.writes:
            state = {
                "identity": self.identity(),
                "epochs": self.history.epochs,
                "step": self.step,
                "seconds": self.seconds,
                "losses": self.losses,
                "correct": self.correct,
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
            }
            checkpoints.save(self.checkpoint, state)

    def restore(self):
        """Take up the run where its checkpoint left it, if there is one."""
        found = checkpoints.load(self.checkpoint, self.identity()) if self.processes.writes else None
        state = self.processes.from_writer(found)
        if state is not None:
            try:
                self.take_up(state)
            except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
                raise ValueError(f"{self.checkpoint} is not a checkpoint of this network: {error}") from None

    def take_up(self, state):
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
        if self.processes.writes:  # each process sums up its own images; after a restart the writer has all
            self.losses.copy_(state["losses"])
            self.correct.copy_(state["correct"])

    def identity(self):
        """What must agree for a run to be continued: another device is not another run's."""
        environment = self.history.environment
        return {"recipe": self.history.recipe, "data": environment["data"], "seed": environment["seed"]}

    def status(self, epoch, steps_per_second):
        left = self.steps * (self.recipe.epochs - epoch) - self.step
        return (
            f"epoch {epoch + 1} of {self.recipe.epochs} · step {self.step} of {self.steps} · "
            f"loss {self.losses[self.step - 1].item() * self.processes.count / self.recipe.batch_size:.3f} · "
            f"{steps_per_second * self.recipe.batch_size:,.0f} images/s · {left / steps_per_second:.0f} s left"
        )

    def stop_unless_finite(self, step=slice(None)):
        wrong = (~self.losses[step].isfinite()).reshape(-1).nonzero()
        if len(wrong):
            number = wrong[0, 0].item() if isinstance(step, slice) else step
            raise FloatingPointError(
                f"the loss is {self.losses[number].item()} at step {number + 1} of {self.steps} in epoch "
                f"{len(self.history.epochs) + 1}: try an lr below {self.recipe.lr}, batch normalization, or "
                "precision='float32'"
            )


@torch.inference_mode()
def evaluate(model, images, *, batch_size=500, size=None, precision="float32", flip=False):
    """Return the Evaluation of model on images: correct out of all, the last batch counted as it is.

    size (pixels) is the model's own where None. flip averages the class probabilities of each image and its mirror
    image (section 3.2). The model's mode is left as it was. Raises MemoryError when the GPU's memory is too small.
    """
    precision = machine.find_precision(precision, machine.device_of(model))
    flip, size = checks.flag("flip", flip), _size(size, model)
    if hasattr(images, "stream") and not len(images):
        raise ValueError("images must be at least one, not none")
    with _enough_memory(batch_size):
        correct, loss = _tally(model, images, batch_size, size, precision, flip).tolist()
    return Evaluation(int(correct), len(images), loss / len(images))


@torch.inference_mode()
def _tally(model, images, batch_size, size, precision, flip, share=(0, 1)):
    """The number of correct answers and the summed loss over a share of images, as one tensor of two numbers."""
    device, training = next(model.parameters()).device, model.training
    result = torch.zeros(2, dtype=torch.float64, device=device)
    try:
        model.eval()
        for x, labels in batches(images, batch_size, size, device=device, share=share):
            x = x.to(memory_format=torch.channels_last)
            with machine.autocast(device, precision):
                with checks.running("size", x.shape):
                    scores = [model(view) for view in ((x, x.flip(-1)) if flip else (x,))]
            scores = [_one_for_each_class(part, images.classes) for part in scores]
            logs = torch.stack(scores).float().log_softmax(2).logsumexp(0) - math.log(len(scores))
            result[0] += (logs.argmax(1) == labels).sum()
            result[1] += F.nll_loss(logs, labels, reduction="sum")
    finally:
        model.train(training)
    return result


def _size(size, model):
    return getattr(model, "image_size", None) if size is None else checks.integer("size", size, at_least=1)


def _one_for_each_class(scores, classes):
    """Return a network's scores if they are a tensor (N, number of classes), or with more columns."""
    if not isinstance(scores, torch.Tensor) or scores.ndim != 2 or scores.shape[1] < len(classes):
        given = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
        raise ValueError(f"model must give a score for each of the classes, (N, {len(classes)}), not {given}")
    return scores


@contextmanager
def _enough_memory(batch_size):
    """Answer a GPU that is out of memory inside the block with what to try."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        traceback.clear_frames(error.__traceback__)  # they hold what fills the memory, and a notebook holds them
        raise MemoryError(
            f"the GPU's memory is too small for batch_size={batch_size} with this network and these images: "
            "try a smaller batch_size"
        ) from error


def _describe(row, epochs):
    return (
        f"epoch {row['epoch']:2} of {epochs} · train loss {row['train_loss']:.3f}, "
        f"accuracy {row['train_accuracy']:.3f} · test accuracy {row['test_accuracy']:.4f} · {row['seconds']:.0f} s"
    )


def _warn_if_nothing_is_learned(row, num_classes):
    chance = math.log(num_classes)
    if all(abs(row[loss] - chance) < 0.01 * chance for loss in ("train_loss", "test_loss")):
        warnings.warn(
            f"the loss stands at ln {num_classes} = {chance:.3f} after epoch {row['epoch']}: the network gives every "
            "class the same score and learns nothing; try another initialization or lr, or batch normalization",
            stacklevel=4,
        )
