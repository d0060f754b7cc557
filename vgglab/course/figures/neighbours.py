"""Figures of the networks around VGG: the map of a decade, branches, gradients, shifts, training effort."""

from matplotlib.axis import Axis
from matplotlib.ticker import NullFormatter

from vgglab.cost import Ledger
from vgglab.course.figures.style import MARKERS, PALETTE, Figure, figure

LABELS = {
    "above": ((0, 8), "center", "bottom"),
    "below": ((0, -9), "center", "top"),
    "left": ((-9, 0), "right", "center"),
}


def decade(
    tables: dict[str, Ledger], errors: dict[str, float], groups: dict[str, list[str]], labels: dict[str, str]
) -> Figure:
    """Top-5 error against MACs, and memory of parameters against activations, for the ledgers of networks.

    float32, one image. errors (per cent) may lack names; groups maps a title to its names and gives colour and
    marker; labels says where a name stands: "above" (where it is not in labels), "below" or "left".
    """
    fig, (left, right) = figure(1, 2, size=(15, 6.5))
    for (title, names), color, marker in zip(groups.items(), PALETTE, MARKERS, strict=False):
        left.scatter([], [], s=110, color=color, marker=marker, label=title)
        for name in names:
            table = tables[name]
            places = [(right, table.activations * 4e-6, table.parameters * 4e-6)]
            if name in errors:
                places.append((left, table.macs / 1e9, errors[name]))
            offset, across, up = LABELS[labels.get(name, "above")]
            for axis, x, y in places:
                axis.scatter(x, y, s=110, color=color, marker=marker)
                axis.annotate(name, (x, y), offset, textcoords="offset points", ha=across, va=up, fontsize=12)
    left.set(xscale="log", xlabel="operations for one image (10⁹ multiply-adds)", ylabel="top-5 error (%)")
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


def gradients(panels: dict[str, dict[str, list[float]]]) -> Figure:
    """The norm of each convolution's gradient, one panel for each title, both on one logarithmic scale."""
    fig, axes = figure(1, len(panels), size=(13, 4.6), sharey=True)
    for axis, (title, curves) in zip(axes, panels.items(), strict=True):
        for (name, norms), color, marker in zip(curves.items(), PALETTE, MARKERS, strict=False):
            axis.semilogy(range(1, len(norms) + 1), norms, color=color, marker=marker, markevery=4, label=name)
        axis.set(title=title, xlabel="convolution, counted from the image")
        axis.legend(loc="center right")
    axes[0].set_ylabel("norm of its gradient")
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


def effort(results: dict[str, tuple[float, float]]) -> Figure:
    """Test accuracy and seconds of training side by side, for each name and its (accuracy, seconds)."""
    fig, axes = figure(1, 2, size=(12, 4.2), sharey=True)
    columns = zip(*results.values(), strict=True)
    labels = ("test images right (%)", "training time (seconds)")
    for axis, values, label, scale, color in zip(axes, columns, labels, (100, 1), PALETTE, strict=False):
        bars = axis.barh(list(results), [scale * value for value in values], color=color)
        axis.bar_label(bars, fmt="%.0f", padding=3)
        axis.set(xlabel=label, xlim=(0, 1.1 * scale * max(values)))
        axis.grid(axis="y", visible=False)
    axes[0].invert_yaxis()
    return fig


def _plain_ticks(axis: Axis, ticks: list[float]) -> None:
    """Label a logarithmic axis at ticks, in plain numbers."""
    axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_minor_formatter(NullFormatter())
