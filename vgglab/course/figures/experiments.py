"""Figures of recorded experiments: errors seed by seed, paired differences, verdicts, what learned at all."""

from collections.abc import Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes

from vgglab.course.figures.style import BLUE, GREY, ORANGE, RED, Figure, figure

if TYPE_CHECKING:
    from vgglab.course.experiments import Comparison

VERDICTS = {"first is better": (BLUE, "o"), "second is better": (RED, "s"), "cannot tell": (GREY, "D")}
Sample = tuple[list[float], tuple[float, float]]  # values, and the interval (low, high) of their mean


def error_rates(panels: dict[str, dict[str, float | Sample]], sharex: bool = False) -> Figure:
    """Errors (%) in panels side by side, under their titles.

    A single error is a diamond; of a sample, each is a dot, above them their mean and its interval.
    """
    labels = list(dict.fromkeys(label for rows in panels.values() for label in rows))
    size = (max(10, 4.4 * len(panels)), 0.62 * len(labels) + 1.5)
    fig, axes = figure(1, len(panels), size=size, sharey=True, sharex=sharex, squeeze=False)
    for axis, (title, rows) in zip(axes[0], panels.items(), strict=True):
        for label, errors in rows.items():
            place = labels.index(label)
            if isinstance(errors, tuple):
                _seeds(axis, *errors, place, BLUE, "o")
            else:
                axis.plot([errors], [place], "D", color=ORANGE, markersize=10)
                axis.annotate(f"{errors:.1f}", (errors, place), (9, 0), textcoords="offset points", va="center")
        axis.set(title=title, xlabel="error (%)")
        axis.margins(x=0.16)
    axes[0][0].set_yticks(range(len(labels)), labels)
    axes[0][0].set_ylim(len(labels) - 0.5, -0.5)
    return fig


def pairing(compared: "Comparison") -> Figure:
    """The accuracies of two networks, joined seed by seed, and beside them their differences.

    The differences carry both intervals: Student's t, and the bootstrap, which is too narrow.
    """
    fig, (left, right) = figure(1, 2, size=(12, 4.4), width_ratios=(1, 1.5))
    for a, b in compared.accuracies:
        left.plot([0, 1], [b, a], "o-", color=GREY, markerfacecolor=BLUE, markeredgecolor=BLUE, markersize=9)
    left.set(xlim=(-0.3, 1.3), xticks=[0, 1], ylabel="test images right (%)", title="one line for each seed")
    left.set_xticklabels([compared.b, compared.a])
    left.grid(axis="x", visible=False)
    right.plot(compared.differences, [0] * len(compared.differences), "o", color=BLUE, markersize=9)
    intervals = {"by Student's t": (compared.low, compared.high), "by bootstrap": compared.bootstrap}
    for place, (low, high), color in zip((1, 2), intervals.values(), (BLUE, ORANGE), strict=True):
        _interval(right, compared.difference, low, high, place, color, "D")
    right.axvline(0, color="black", linewidth=1)
    right.set(xlabel="percentage points", ylim=(2.6, -0.6))
    right.set_title(f"{compared.a} minus {compared.b}: mean, two 95 % intervals")
    right.set_yticks(range(3), ["each seed", *intervals])
    return fig


def forest(comparisons: dict[str, "Comparison"]) -> Figure:
    """Paired differences of accuracies with their 95 % intervals, one line for each label.

    Each seed is a dot; colour and marker say whether the interval lies above, below or across zero.
    """
    fig, axis = figure(size=(12, 0.5 * len(comparisons) + 1.7))
    for place, compared in enumerate(comparisons.values()):
        verdict = "first is better" if compared.low > 0 else "second is better" if compared.high < 0 else "cannot tell"
        _seeds(axis, compared.differences, (compared.low, compared.high), place, *VERDICTS[verdict])
    axis.axvline(0, color="black", linewidth=1)
    axis.set(xlabel="← second is better · points of accuracy · first is better →", ylim=(len(comparisons) - 0.4, -0.6))
    axis.set_yticks(range(len(comparisons)), comparisons)
    handles = [axis.plot([], [], marker, color=color, label=name)[0] for name, (color, marker) in VERDICTS.items()]
    axis.legend(handles=handles, loc="upper left", bbox_to_anchor=(1, 1))
    return fig


def learned_grid(table: list[dict[str, Any]], columns: Sequence[str], rows: Sequence[str]) -> Figure:
    """How many runs of each network "column, row" in a record's table learned, and below it their mean accuracy.

    A network that the table does not have leaves its cell empty.
    """
    networks = {network["row"]: network for network in table}
    cells = [[networks.get(f"{column}, {row}") for column in columns] for row in rows]
    fig, axis = figure(size=(1.7 * len(columns) + 2.6, 0.85 * len(rows) + 1))
    shares = [[cell["learned"] / cell["runs"] if cell else float("nan") for cell in line] for line in cells]
    shown = axis.imshow(shares, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    for y, line in enumerate(cells):
        for x, cell in enumerate(line):
            color = "white" if shares[y][x] <= 0.5 else "black"
            text = f"{cell['learned']} of {cell['runs']}\n{100 * cell['accuracy']:.0f} % right" if cell else "–"
            axis.text(x, y, text, ha="center", va="center", color=color)
    axis.set_xticks(range(len(columns)), columns)
    axis.set_yticks(range(len(rows)), rows)
    axis.set_xlabel("configuration, from 11 to 19 weight layers")
    axis.grid(visible=False)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    fig.colorbar(shown, ax=axis, label="share of runs that learned")
    return fig


def _seeds(axis: Axes, values: list[float], interval: tuple[float, float], place: int, color: str, marker: str) -> None:
    """A dot for each of values at height place, and just above them their mean and its interval."""
    axis.plot(values, [place + 0.14] * len(values), "o", color=color, alpha=0.45, markersize=6, markeredgewidth=0)
    _interval(axis, sum(values) / len(values), *interval, place - 0.14, color, marker)


def _interval(axis: Axes, mean: float, low: float, high: float, place: float, color: str, marker: str) -> None:
    if isfinite(low):
        axis.plot([low, high], [place, place], color=color, solid_capstyle="butt", linewidth=3)
    axis.plot([mean], [place], marker, color=color, markersize=9, markeredgecolor="white", zorder=3)
