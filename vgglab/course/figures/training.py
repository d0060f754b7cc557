"""Figures of training: augmented pictures, schedules, losses, curves."""

from collections.abc import Callable
from typing import Any

from vgglab.course.figures.style import GREY, MARKERS, PALETTE, Figure, figure, picture_grid
from vgglab.data import Images
from vgglab.training import History


def pictures(rows: dict[str, Images]) -> Figure:
    """One row of pictures for each name of rows."""
    columns = max(len(images) for images in rows.values())
    fig, axes = picture_grid(len(rows), columns, (columns * 1.1 + 2.4, len(rows) * 1.15))
    for row, (name, images) in zip(axes, rows.items(), strict=True):
        for axis, picture in zip(row, images.pixels, strict=False):
            axis.imshow(picture[0], cmap="gray", vmin=0, vmax=255)
        row[0].text(-0.1, 0.5, name, ha="right", va="center", fontsize=13, transform=row[0].transAxes)
    return fig


def recorded_runs(record: dict[str, Any]) -> Figure:
    """Test accuracy against seconds of training for each run of a record, a dict of titles and runs over seeds."""
    fig, axis = figure(size=(11, 4.6))
    for (title, target), color, marker in zip(record.items(), PALETTE, MARKERS, strict=False):
        for number, run in enumerate(target["runs"]):
            seconds, accuracies = zip(*run["epochs"], strict=True)
            axis.plot(seconds, accuracies, color=color, marker=marker, label=title if number == 0 else None, alpha=0.7)
    axis.set(xscale="log", xlabel="seconds of training", ylabel="share of test images right", ylim=(0.8, 0.96))
    axis.legend(loc="upper left", fontsize=12)
    return fig


def training_curves(histories: dict[str, History]) -> Figure:
    """Loss and accuracy against the epoch, for each name of histories; dashed on training images."""
    fig, (left, right) = figure(1, 2, size=(12, 4.4))
    for (name, history), color, marker in zip(histories.items(), PALETTE * 2, MARKERS * 2, strict=False):
        epochs = [row["epoch"] for row in history.epochs]
        for axis, kind in ((left, "loss"), (right, "accuracy")):
            for part, line in (("train", "--"), ("test", "-")):
                values = [row[f"{part}_{kind}"] for row in history.epochs]
                axis.plot(epochs, values, line, color=color, marker=marker, label=f"{name}, {part}")
    left.set(xlabel="epoch", ylabel="cross-entropy (nats)")
    right.set(xlabel="epoch", ylabel="share of images right")
    for axis in (left, right):
        axis.xaxis.get_major_locator().set_params(integer=True)
    right.legend(fontsize=12)
    return fig


def schedules(schedules: dict[str, Callable[[float], float]], lr: float) -> Figure:
    """The learning rate from the start to the end of training, one line for each schedule."""
    fig, axis = figure(size=(9, 3.8))
    progress = [step / 400 for step in range(401)]
    for (name, schedule), color, line in zip(schedules.items(), PALETTE, ("-", "--", "-."), strict=False):
        axis.plot(progress, [lr * schedule(min(t, 0.9999)) for t in progress], line, color=color, label=name)
    axis.set(xlabel="progress of training (0 start, 1 end)", ylabel="learning rate")
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return fig


def losses(curves: dict[str, list[float]], level: float) -> Figure:
    """The loss of each step, one line for each name of curves, with a dotted line at level."""
    fig, axis = figure(size=(9, 4))
    for (name, values), color, line in zip(curves.items(), PALETTE, ("-", "--", "-.", ":"), strict=False):
        axis.plot(range(1, len(values) + 1), values, line, color=color, label=name)
    axis.axhline(level, color=GREY, linestyle=":")
    axis.text(1.01, level, f"{level:.3f}", transform=axis.get_yaxis_transform(), va="center", color=GREY)
    axis.set(xlabel="step", ylabel="cross-entropy (nats)")
    axis.legend()
    return fig


def signal(strengths: dict[str, list[float]]) -> Figure:
    """The standard deviation of what leaves each weight layer, one line for each initialization, logarithmic."""
    fig, axis = figure(size=(9, 4.4))
    for (name, values), color, marker in zip(strengths.items(), PALETTE, MARKERS, strict=False):
        axis.semilogy(range(1, len(values) + 1), values, color=color, marker=marker, label=name)
    axis.set(xlabel="weight layer", ylabel="standard deviation of its output")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return fig


def gaps(accuracies: dict[str, tuple[float, float]]) -> Figure:
    """Training and test accuracy side by side for a dict of names and (train, test) accuracies."""
    fig, axis = figure(size=(9, 4))
    for row, (train, test) in enumerate(accuracies.values()):
        axis.plot([test, train], [row, row], color=GREY, zorder=1)
        axis.scatter(train, row, s=90, color=PALETTE[1], marker="s", label="training images" if row == 0 else None)
        axis.scatter(test, row, s=90, color=PALETTE[0], marker="o", label="images held out" if row == 0 else None)
        axis.annotate(
            f"gap {train - test:.3f}", ((train + test) / 2, row), xytext=(0, 7), ha="center", textcoords="offset points"
        )
    axis.set(xlabel="share of images right", yticks=range(len(accuracies)), ylim=(len(accuracies) - 0.5, -0.7))
    axis.set_yticklabels(accuracies)
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return fig
