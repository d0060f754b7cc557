"""One training run, durable and spread over processes, and its History."""

import math
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vgglab import _checks as checks
from vgglab import machine
from vgglab.data import Splits
from vgglab.data.images import Batch, derived_seed
from vgglab.training import checkpoint as checkpoints
from vgglab.training.console import Progress, signals_noted
from vgglab.training.processes import Processes
from vgglab.training.recipe import SCHEDULES, Recipe
from vgglab.training.testing import Tester, enough_memory, fewest, mode


@dataclass
class History:
    """What happened in a run: where (environment), how (recipe), and one row for each epoch.

    Each row holds epoch, train_loss and train_accuracy (over the epoch, augmented and with dropout), test_loss,
    test_accuracy, and seconds since the start of training, testing left out.
    """

    recipe: dict[str, Any]
    environment: dict[str, Any]
    epochs: list[dict[str, Any]]

    @property
    def accuracy(self) -> float:
        """The test accuracy after the last epoch."""
        return self.epochs[-1]["test_accuracy"]


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
        self.home, self.model, self.device = machine.device_of(model), model, processes.device
        self.splits = replace(splits, train=splits.train.to(self.device), test=splits.test.to(self.device))
        self.recipe, self.processes, self.precision, self.seed = recipe, processes, precision, seed
        self.checkpoint = checkpoint
        images = f"{len(splits.train)} + {len(splits.test)} images, MD5 {splits.train.checksum()}"
        decides = {"data": f"{splits.name}, {images}", "seed": seed}
        self.identity = {"recipe": asdict(recipe), **decides}  # must agree for a run to go on; the device need not
        environment = {**decides, "processes": processes.world_size, **machine.environment(self.device, precision)}
        self.history = History(asdict(recipe), environment, [])

    @contextmanager
    def running(self, compile: bool, progress: bool) -> Iterator[None]:
        """Inside the block self.network trains the model, progress is shown, and signals wait for the step to end."""
        mode = "reduce-overhead" if self.device.type == "cuda" else "default"  # the former with CUDA graphs
        try:
            with (
                enough_memory(self.recipe.batch_size),
                torch.random.fork_rng([self.device] if self.device.type == "cuda" else []),  # the caller's stay
            ):
                self.prepare()
                network: Any = torch.compile(self.model, mode=mode, dynamic=False) if compile else self.model
                with (
                    self.processes.wrap(network) as self.network,
                    Progress(progress and self.processes.is_main) as self.shown,
                    signals_noted(self.checkpoint is not None) as self.signals,
                ):
                    images = f"{len(self.splits.train):,} images of {self.recipe.size}×{self.recipe.size}"
                    self.shown.line(f"{self.splits.name}, {images}, {self.device}, {self.precision}")
                    yield
        finally:
            self.model.to(self.home)

    def prepare(self) -> None:
        """Bring the model to the device, try it, and take up the run where its checkpoint left it, if there is one."""
        self.model.to(self.device)
        recipe = self.recipe
        self.tester = Tester(self.model, recipe, recipe.size, self.precision)
        self.tester.try_on(self.splits.test, self.processes.world_size)  # lets a network make weights at its first run
        try:
            self.model.to(memory_format=self.tester.layout)
            self.tester.test(self.tester.few)
        except ValueError:
            self.model.to(memory_format=torch.contiguous_format)
        self.try_a_single_image()
        parameters = list(self.model.parameters())
        if not any(parameter.requires_grad for parameter in parameters):
            raise ValueError("model must have a parameter that can be trained: none has requires_grad")
        fused = all(map(torch.ops.aten.is_non_overlapping_and_dense, parameters))  # it takes memory as it lies
        self.optimizer = torch.optim.SGD(
            parameters, recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay, fused=fused
        )
        self.begin_epoch()
        if self.checkpoint:
            self.restore(self.checkpoint)

    @torch.no_grad()
    def try_a_single_image(self) -> None:
        """Raise ValueError where a step has a single image and the network does not train on one; it stays as it was.

        On several GPUs batch normalization looks at the images of all of them.
        """
        count, size, together = len(self.splits.train), self.recipe.batch_size, self.processes.world_size
        if fewest(count, size, together) > 1 or together > 1 and self.device.type == "cuda":
            return
        buffers = [
            (module, name, buffer, buffer.clone())
            for module in self.model.modules()
            for name, buffer in module.named_buffers(recurse=False)
        ]
        try:
            with mode(self.model, training=True):
                x, _ = next(self.splits.train[:1].stream(1, self.recipe.size))
                with checks.running("images", x.shape), machine.autocast(self.device, self.precision):
                    self.model(x.to(memory_format=self.tester.layout))
        except ValueError as error:
            raise ValueError(
                f"{error}. splits.train leaves a step a single image: {count} images in batches of {size}, over "
                f"{together} processes. Take another batch_size, or another number of images"
            ) from error
        finally:
            for module, name, buffer, before in buffers:
                setattr(module, name, buffer.copy_(before))  # which the network may have replaced

    def begin_epoch(self) -> None:
        self.epoch, self.step = len(self.history.epochs), 0
        self.steps = math.ceil(len(self.splits.train) / self.recipe.batch_size)
        self.seconds = self.history.epochs[-1]["seconds"] if self.epoch else 0.0
        self.losses = torch.zeros(self.steps, device=self.device)
        self.correct = torch.zeros((), dtype=torch.int64, device=self.device)

    def batches(self) -> Iterator[Batch]:
        """Yield the batches that the epoch has left, the learning rate and the random numbers set for each step."""
        recipe, seed, count = self.recipe, derived_seed(self.seed, self.epoch), len(self.splits.train)
        stream = self.splits.train.stream(
            recipe.batch_size, recipe.size, True, seed, recipe.augment, self.step, self.processes.share
        )
        self.network.train()
        self.start = time.perf_counter() - self.seconds
        for x, labels in stream:
            torch.manual_seed(derived_seed(derived_seed(seed, self.step), self.processes.rank))  # for dropout
            done = (self.epoch + (self.step + 1) / (self.steps + 1)) / recipe.epochs
            for group in self.optimizer.param_groups:
                group["lr"] = recipe.lr * SCHEDULES[recipe.schedule](done)
            images = min(recipe.batch_size, count - self.step * recipe.batch_size)
            self.images_in_step = images / self.processes.world_size  # as their gradients are averaged
            yield x.to(memory_format=self.tester.layout), labels
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

    def end_epoch(self) -> None:
        """Test the network, note in the history what the epoch and the test gave, and save the run."""
        tested = self.tester.test(self.splits.test, self.processes)
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
