"""Figures of what kernels cost and do: by size, counted beside measured, and maps side by side."""

from torch import Tensor

from vgglab.course.figures.style import BLUE, ORANGE, Figure, figure, picture_grid


def kernel_costs(costs: dict[int, tuple[int, int]]) -> Figure:
    """Parameters (thousands) and operations (millions) of one layer as bars, for a dict of kernel sizes and pairs."""
    fig, axes = figure(1, 2, size=(11, 3.8))
    labels = [f"{kernel}×{kernel}" for kernel in costs]
    columns = zip(*costs.values(), strict=True)
    units = (("parameters (thousands)", 1e3, BLUE), ("operations (millions)", 1e6, ORANGE))
    for axis, column, (label, unit, color) in zip(axes, columns, units, strict=True):
        bars = axis.bar(labels, [value / unit for value in column], color=color)
        axis.bar_label(bars, fmt="%.1f", padding=2)
        axis.set(ylabel=label, xlabel="kernel")
        axis.margins(y=0.12)
        axis.grid(axis="x", visible=False)
    return fig


def counted_and_measured(ratios: dict[str, tuple[float, float]]) -> Figure:
    """Bars of pairs (ratio of the MACs, ratio of the times) for a dict of labels, with a line where both are equal."""
    fig, axis = figure(size=(10, 4.2))
    for shift, name, color, hatch in ((-0.2, "multiply-adds", BLUE, ""), (0.2, "time on this computer", ORANGE, "//")):
        values = [pair[shift > 0] for pair in ratios.values()]
        places = [place + shift for place in range(len(ratios))]
        bars = axis.bar(places, values, 0.38, color=color, hatch=hatch, edgecolor="white", label=name)
        axis.bar_label(bars, fmt="%.2f", padding=3, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})
    axis.axhline(1, color="black", linewidth=1)
    axis.set(ylabel="one large kernel ÷ stack of 3×3", xticks=range(len(ratios)))
    axis.set_xticklabels(ratios)
    axis.margins(y=0.15)
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
    axis.grid(axis="x", visible=False)
    return fig


def maps(pictures: dict[str, Tensor]) -> Figure:
    """Each picture (H, W) of a dict under its name, side by side, each with its own scale of values."""
    fig, axes = picture_grid(1, len(pictures), (3.5 * len(pictures), 3.3))
    for axis, (name, values) in zip(axes[0], pictures.items(), strict=True):
        shown = axis.imshow(values, cmap="gray")
        axis.set_title(name)
        fig.colorbar(shown, ax=axis, shrink=0.8)
    return fig
