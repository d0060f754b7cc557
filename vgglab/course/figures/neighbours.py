"""Figures of the networks around VGG: the map of a decade, modules as drawings, gradients, shifts, training effort."""

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import NullFormatter

from vgglab.cost import Ledger
from vgglab.course.figures.style import BLUE, GREEN, GREY, MARKERS, ORANGE, PALETTE, SKY, Figure, figure

LABELS = {
    "above": ((0, 8), "center", "bottom"),
    "below": ((0, -9), "center", "top"),
    "left": ((-9, 0), "right", "center"),
}
KINDS = {"1×1": ORANGE, "3×3": SKY, "5×5": GREEN}  # colours of convolutions in a drawing; all else is white


def decade(
    tables: dict[str, Ledger], errors: dict[str, float], groups: dict[str, list[str]], labels: dict[str, str]
) -> Figure:
    """Top-5 error against MACs, and memory of parameters against activations, for the ledgers of networks.

    float32, one image. errors (per cent) may lack names; groups maps a title to its names and gives colour and
    marker; labels says where a name stands: "above" (where it is not in labels), "below" or "left".
    """
    fig, (left, right) = figure(1, 2, size=(15, 6.5))
    for layer, ((title, names), color, marker) in enumerate(zip(groups.items(), PALETTE, MARKERS, strict=False)):
        look = {"s": 130, "color": color, "marker": marker, "edgecolor": "white", "zorder": 10 - layer}
        left.scatter([], [], label=title, **look)
        for name in names:
            table = tables[name]
            places = [(right, table.activations * 4e-6, table.parameters * 4e-6)]
            if name in errors:
                places.append((left, table.macs / 1e9, errors[name]))
            offset, across, up = LABELS[labels.get(name, "above")]
            for axis, x, y in places:
                axis.scatter(x, y, **look)
                axis.annotate(name, (x, y), offset, textcoords="offset points", ha=across, va=up, fontsize=12)
    left.set(xscale="log", xlabel="multiply-adds for one image (10⁹)", ylabel="top-5 error (%)")
    right.set(xscale="log", yscale="log", xlabel="activations of one image (MB)", ylabel="parameters (MB)")
    left.legend(fontsize=12)
    left.set(xlim=(0.08, 40), ylim=(0, 22))
    right.set(xlim=(0.12, 700), ylim=(0.15, 1100))
    _plain_ticks(left.xaxis, [0.1, 0.3, 1, 3, 10, 30])
    _plain_ticks(right.xaxis, [0.3, 1, 3, 10, 30, 100, 300])
    _plain_ticks(right.yaxis, [0.3, 1, 3, 10, 30, 100, 300])
    return fig


def branch_costs(versions: dict[str, dict[str, int]]) -> Figure:
    """Multiply-adds (millions) of an inception module's branches, stacked, one bar for each version."""
    fig, axis = figure(size=(11, 3.4))
    hatches = ("", "//", "..", "xx")
    for row, branches in enumerate(versions.values()):
        start = 0.0
        for (name, macs), color, hatch in zip(branches.items(), PALETTE, hatches, strict=False):
            axis.barh(row, macs / 1e6, left=start, color=color, hatch=hatch, edgecolor="white", label=name)
            start += macs / 1e6
        axis.text(start, row, f" {start:.0f}", va="center")
        if row == 0:
            axis.legend(loc="upper left", bbox_to_anchor=(1, 1), title="branch")
    axis.set(xlabel="multiply-adds (millions)", yticks=range(len(versions)))
    axis.set_yticklabels(versions)
    axis.set_xlim(0, 1.1 * axis.dataLim.x1)
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    return fig


def schematic(drawings: dict[str, tuple[str, list[list[str]], list[str]]]) -> Figure:
    """Modules as drawings from left to right, one under the other, with their titles.

    Each is what comes in, the layers of every branch in order (none is a plain line), and what happens where the
    branches meet. A convolution begins with its size, "3×3, 128".
    """
    rows = [len(branches) for _, branches, _ in drawings.values()]
    fig, axes = figure(len(drawings), 1, size=(12, sum(rows) + 0.4 * len(rows)), squeeze=False, height_ratios=rows)
    for axis, (title, (source, branches, meeting)) in zip(axes.flat, drawings.items(), strict=True):
        _draw_branches(axis, source, branches, meeting)
        axis.set_title(title, loc="left")
    return fig


def _draw_branches(axis: Axes, source: str, branches: list[list[str]], meeting: list[str]) -> None:
    columns, middle = max(map(len, branches)), (len(branches) - 1) / 2
    split, join = 0.5, columns + 0.7  # where the branches leave each other, and meet
    end = join + len(meeting)
    axis.plot([-0.5, split], [middle, middle], color=GREY)
    for y, layers in enumerate(reversed(branches)):
        axis.plot([split, split, join, join], [middle, y, y, middle], color=GREY)
        for place, layer in enumerate(layers):
            _box(axis, split + columns * (place + 0.5) / len(layers), y, layer)
    axis.annotate("", (end, middle), (join, middle), arrowprops={"arrowstyle": "-|>", "color": GREY, "lw": 2.2})
    for x, text in enumerate([source, *meeting]):
        _box(axis, join + x - 1 if x else -0.5, middle, text)
    axis.set(xlim=(-1, end), ylim=(-0.55, 2 * middle + 0.55))
    axis.set_axis_off()


def _box(axis: Axes, x: float, y: float, text: str) -> None:
    look = {"boxstyle": "round", "facecolor": KINDS.get(text[:3], "white"), "edgecolor": "black"}
    axis.text(x, y, text, ha="center", va="center", fontsize=16, bbox=look, zorder=3)


def gradients(panels: dict[str, dict[str, list[float]]]) -> Figure:
    """A number for each convolution, its gradient's norm times its weights', a panel a title, on one log scale."""
    fig, axes = figure(1, len(panels), size=(15, 4.6), sharey=True)
    for axis, (title, curves) in zip(axes, panels.items(), strict=True):
        for (name, sizes), color, marker in zip(curves.items(), PALETTE, MARKERS, strict=False):
            axis.semilogy(range(1, len(sizes) + 1), sizes, color=color, marker=marker, markevery=4, label=name)
        axis.set(title=title, xlabel="convolution, from the image")
    axes[0].set_ylabel("‖gradient‖ · ‖weights‖")
    axes[0].legend(loc="center")
    return fig


def shifts(curves: dict[str, list[float]]) -> Figure:
    """The share of answers that change against the shift (pixels from 1), one line for each name."""
    fig, axis = figure(size=(9, 4.2))
    for (name, shares), color, marker in zip(curves.items(), PALETTE, MARKERS, strict=False):
        axis.plot(range(1, len(shares) + 1), [100 * share for share in shares], color=color, marker=marker, label=name)
    axis.set(xlabel="the image moves by (pixels)", ylabel="answers that change (%)", ylim=(0, None))
    axis.set_xticks(range(1, len(shares) + 1))
    axis.legend()
    return fig


def effort(results: dict[str, dict[str, float]], seconds: dict[str, float]) -> Figure:
    """The accuracies (shares) of each name under its conditions, joined by a line, and its seconds under the first."""
    fig, (left, right) = figure(1, 2, size=(12, 4.4), sharey=True)
    for name, shares in results.items():
        left.plot([100 * share for share in shares.values()], [name] * len(shares), color=GREY, zorder=1)
    conditions = list(next(iter(results.values())))
    for title, color, marker in zip(conditions, (BLUE, ORANGE), MARKERS, strict=False):
        accuracies = [100 * shares[title] for shares in results.values()]
        left.scatter(accuracies, list(results), s=110, color=color, marker=marker, label=title)
    left.axvline(10, color=GREY, linestyle=":")
    left.text(11, 0.5, "chance", color=GREY, va="center")
    left.set(xlabel="test images right (%)", xlim=(0, 100))
    left.legend(loc="upper center", bbox_to_anchor=(0.5, 1.14), ncols=2)
    bars = right.barh(list(seconds), list(seconds.values()), color=GREY)
    right.bar_label(bars, fmt="%.1f", padding=3)
    right.set(xlabel=f"training time {conditions[0]} (seconds)", xlim=(0, 1.15 * max(seconds.values())))
    right.grid(axis="y", visible=False)
    left.invert_yaxis()
    return fig


def _plain_ticks(axis: Axis, ticks: list[float]) -> None:
    """Label a logarithmic axis at ticks, in plain numbers."""
    axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_minor_formatter(NullFormatter())
