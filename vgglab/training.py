"""Training and testing a network: the loop, what it is told (Recipe), and what it reports (History, Evaluation)."""

import hashlib
import json
import math
import os
import platform
import time
import warnings
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import torch
import torch.nn.functional as F

from vgglab import checkpoint as checkpoints
from vgglab import checks
from vgglab.data import batches
from vgglab.files import write_text
from vgglab.live import Progress
from vgglab.models import initialize, vgg

SCHEDULES = {
    "constant": lambda t: 1.0,
    "divide-by-10": lambda t: 0.1 ** int(4 * t),
    "one-cycle": lambda t: min(t / 0.2, (1 - t) / 0.8),
}


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run: the network, the size of its images (pixels), and how it is trained.

    schedule is a name of SCHEDULES, a factor on lr as training goes from 0 to 1; augment one of
    vgglab.data.AUGMENTATIONS; initialization one of vgglab.models.INITIALIZATIONS.
    """

    config: str = "A"
    width: float = 1.0
    size: int = 224
    batch_norm: bool = False
    dropout: float = 0.5
    initialization: str = "xavier"
    epochs: int = 10
    batch_size: int = 128
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str = "constant"
    augment: str | None = None

    def __post_init__(self):
        checks.integer("epochs", self.epochs, at_least=1)
        checks.integer("batch_size", self.batch_size, at_least=1)
        checks.number("lr", self.lr, above=0)
        checks.number("momentum", self.momentum, at_least=0)
        checks.number("weight_decay", self.weight_decay, at_least=0)
        checks.choice("schedule", self.schedule, SCHEDULES)

    def model(self, in_channels=1, num_classes=10, seed=0):
        """Return the recipe's VGG, its weights drawn with seed."""
        model = vgg(self.config, in_channels, num_classes, self.size, self.width, self.dropout, self.batch_norm)
        return initialize(model, self.initialization, seed)


RECIPES = {
    # Section 3.1: 370,000 iterations of 256 over 1.3 million images are 74 epochs.
    "paper": Recipe(epochs=74, batch_size=256, schedule="divide-by-10", augment="flip", initialization="std-0.01"),
    # Dive into Deep Learning, section 8.2: a quarter of the channels (there with 4096 FC units), plain SGD.
    "d2l": Recipe(width=0.25, lr=0.05, momentum=0.0, weight_decay=0.0),
    "cpu": Recipe(
        width=0.25, size=32, batch_norm=True, epochs=6, lr=0.1, schedule="one-cycle", augment="flip", dropout=0.2
    ),
    "gpu": Recipe(
        width=1.0, size=32, batch_norm=True, epochs=15, lr=0.1, schedule="one-cycle", augment="shift+flip",
        batch_size=512,
    ),
}  # fmt: skip


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
            return cls(**json.loads(Path(path).read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path} is not a saved History: {error}") from None

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
    seed=0,
    checkpoint=None,
    resume=True,
    progress=True,
):
    """Train model on dataset.train in place by stochastic gradient descent and return its History.

    recipe is a Recipe or a name of RECIPES ("gpu" on a GPU and "cpu" elsewhere if None); epochs, lr, batch_size and
    size (pixels) override it. After each epoch the network is tested on dataset.test, and saved if checkpoint names
    a file; resume continues from that file. precision is "float32", "bfloat16" (autocast) or "auto": bfloat16 where
    the hardware has it. Raises FloatingPointError when the loss is no longer finite, ValueError or TypeError for bad
    arguments and for a checkpoint of another run. Source of the method: section 3.1.
    """
    device = _device(device)
    precision = _precision(precision, device)
    recipe = find_recipe(recipe, device)
    given = {"epochs": epochs, "lr": lr, "batch_size": batch_size, "size": size or getattr(model, "image_size", None)}
    recipe = replace(recipe, **{name: value for name, value in given.items() if value is not None})
    keep_freed_memory()

    model.to(device, memory_format=torch.channels_last)
    train, test = dataset.train.to(device), dataset.test.to(device)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    history = History(asdict(recipe), _environment(dataset, device, precision, seed), [])
    if checkpoint is not None and resume:
        history.epochs = checkpoints.restore(checkpoint, model, optimizer, _identity(history))

    with Progress(progress) as shown:
        shown.line(f"{dataset.name}, {len(train):,} images of {recipe.size}×{recipe.size}, {device}, {precision}")
        for epoch in range(len(history.epochs), recipe.epochs):
            row = _epoch(model, optimizer, train, recipe, epoch, seed, precision, shown)
            tested = evaluate(model, test, size=recipe.size, precision=precision)
            row["seconds"] += history.epochs[-1]["seconds"] if history.epochs else 0.0
            row |= {"test_loss": tested.loss, "test_accuracy": tested.accuracy}
            history.epochs.append(row)
            shown.line(_describe(row, recipe.epochs))
            _warn_if_nothing_is_learned(row, len(train.classes))
            if checkpoint is not None:
                checkpoints.save(checkpoint, model, optimizer, history.epochs, _identity(history))
    return history


def _epoch(model, optimizer, images, recipe, epoch, seed, precision, shown):
    """One pass over the images; its random numbers depend on the seed and the epoch alone."""
    device = images.pixels.device
    steps = math.ceil(len(images) / recipe.batch_size)
    losses = torch.zeros(steps, device=device)
    correct = torch.zeros((), dtype=torch.int64, device=device)
    epoch_seed = seed * 1_000_003 + epoch
    model.train()
    start = time.perf_counter()
    with _random_state(epoch_seed, device):
        stream = batches(images, recipe.batch_size, recipe.size, True, seed=epoch_seed, augment=recipe.augment)
        for step, (x, labels) in enumerate(stream):
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr * SCHEDULES[recipe.schedule]((epoch + (step + 1) / (steps + 1)) / recipe.epochs)
            with _autocast(device, precision):
                scores = model(x.to(memory_format=torch.channels_last))
            loss = F.cross_entropy(scores.float(), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[step] = loss.detach() * len(labels)
            correct += (scores.detach().argmax(1) == labels).sum()
            if device.type == "cpu":
                _stop_unless_finite(losses[: step + 1], epoch, steps, recipe)
                rate = (step + 1) * recipe.batch_size / (time.perf_counter() - start)
                left = (steps * (recipe.epochs - epoch) - step - 1) * recipe.batch_size / rate
                shown.status(
                    f"epoch {epoch + 1} of {recipe.epochs} · step {step + 1} of {steps} · loss {loss.item():.3f} · "
                    f"{rate:,.0f} images/s · {left:.0f} s left"
                )
    _stop_unless_finite(losses, epoch, steps, recipe)
    return {
        "epoch": epoch + 1,
        "train_loss": losses.sum().item() / len(images),
        "train_accuracy": correct.item() / len(images),
        "seconds": time.perf_counter() - start,
    }


@torch.inference_mode()
def evaluate(model, images, *, batch_size=500, size=None, precision="float32"):
    """Return the Evaluation of model on images: correct out of all, the last batch counted as it is.

    size (pixels) is the model's own where None. The model's mode is left as it was.
    """
    parameter = next(model.parameters())
    device, precision = parameter.device, _precision(precision, parameter.device)
    size = size or getattr(model, "image_size", None)
    training = model.training
    model.eval()
    correct, loss = torch.zeros((), dtype=torch.int64, device=device), torch.zeros((), device=device)
    for x, labels in batches(images, batch_size, size, device=device):
        with _autocast(device, precision):
            scores = model(x.to(memory_format=torch.channels_last))
        correct += (scores.argmax(1) == labels).sum()
        loss += F.cross_entropy(scores.float(), labels, reduction="sum")
    model.train(training)
    return Evaluation(correct.item(), len(images), loss.item() / len(images))


def find_recipe(recipe=None, device="auto"):
    """Return a Recipe given as such or by its name in RECIPES; None is "gpu" on a GPU and "cpu" elsewhere."""
    if recipe is None:
        recipe = "gpu" if _device(device).type == "cuda" else "cpu"
    if isinstance(recipe, Recipe):
        return recipe
    return RECIPES[checks.choice("recipe", recipe, RECIPES)]


def _device(device):
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.device(device)
    except RuntimeError as error:
        raise ValueError(f'device must be "auto", "cpu", "cuda" or the like, not {device!r}: {error}') from None


def _precision(precision, device):
    checks.choice("precision", precision, ("auto", "float32", "bfloat16"))
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    in_hardware = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bfloat16" if in_hardware else "float32"


def _autocast(device, precision):
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


@contextmanager
def _random_state(seed, device):
    """Seed torch inside the block, for dropout, and leave the caller's random state as it was."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _describe(row, epochs):
    return (
        f"epoch {row['epoch']:2} of {epochs} · train loss {row['train_loss']:.3f}, "
        f"accuracy {row['train_accuracy']:.3f} · test accuracy {row['test_accuracy']:.4f} · {row['seconds']:.0f} s"
    )


def _stop_unless_finite(losses, epoch, steps, recipe):
    wrong = (~losses.isfinite()).nonzero()
    if len(wrong):
        raise FloatingPointError(
            f"the loss is {losses[wrong[0, 0]].item()} at step {wrong[0, 0].item() + 1} of {steps} in epoch "
            f"{epoch + 1}: try an lr below {recipe.lr}, batch normalization, or precision='float32'"
        )


def _warn_if_nothing_is_learned(row, num_classes):
    chance = math.log(num_classes)
    if all(abs(row[loss] - chance) < 0.01 * chance for loss in ("train_loss", "test_loss")):
        warnings.warn(
            f"the loss stands at ln {num_classes} = {chance:.3f} after epoch {row['epoch']}: the network gives every "
            "class the same score and learns nothing; try another initialization or lr, or batch normalization",
            stacklevel=3,
        )


def _identity(history):
    """What must agree for a run to be continued: another number of epochs or device is not another run's."""
    environment = history.environment
    return {"recipe": history.recipe, "data": environment["data"], "seed": environment["seed"]}


def _environment(dataset, device, precision, seed):
    checksum = hashlib.md5(dataset.train.pixels.cpu().numpy(), usedforsecurity=False).hexdigest()
    return {
        "data": f"{dataset.name}, {len(dataset.train)} + {len(dataset.test)} images, MD5 of the pixels {checksum}",
        "seed": seed,
        "precision": precision,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def _processor():
    """The CPU's model name where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def keep_freed_memory():
    """Let glibc keep the memory that a training step frees, so that the next step need not ask for it again."""
    import ctypes

    if os.name == "posix" and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for option in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
            libc.mallopt(option, 2**31 - 1)


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # the names in glibc's malloc.h
