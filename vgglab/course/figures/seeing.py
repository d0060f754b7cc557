"""Figures of what a network sees: filters, feature maps, crops, heat maps, and what it takes for what."""

import numpy as np
from matplotlib import colormaps
from matplotlib.patches import Rectangle
from torch import Tensor

from vgglab.course.figures.style import BLUE, GREY, MARKERS, ORANGE, SKY, Figure, figure, picture_grid
from vgglab.receptive_field import Region

SIGNED = "PuOr_r"  # orange above zero, purple below
COLUMNS = 8  # of filters


def filters(kernels: Tensor) -> Figure:
    """Kernels (N, rows, columns) side by side on one scale, orange for positive weights, purple for negative ones."""
    rows, largest = -(-len(kernels) // COLUMNS), float(abs(kernels).max())
    fig, axes = picture_grid(rows, COLUMNS, (1.35 * COLUMNS + 1.2, 1.6 * rows))
    for number, (axis, kernel) in enumerate(zip(axes.flat, kernels, strict=False)):
        shown = axis.imshow(kernel, cmap=SIGNED, vmin=-largest, vmax=largest)
        axis.set_title(number, fontsize=12)
    fig.colorbar(shown, ax=list(axes.flat), label="weight")
    return fig


def feature_maps(picture: Tensor, blocks: dict[str, Tensor]) -> Figure:
    """The picture (H, W), and a row of maps (N, rows, columns) for each name of blocks, each row on one scale."""
    columns = max(len(maps) for maps in blocks.values())
    fig, axes = picture_grid(len(blocks), columns + 1, (1.45 * (columns + 1), 1.6 * len(blocks)))
    axes[0, 0].imshow(picture, cmap="gray")
    for row, (name, maps) in zip(axes, blocks.items(), strict=True):
        for axis, values in zip(row[1:], maps, strict=False):
            axis.imshow(values, cmap="gray", vmin=0, vmax=float(maps.max()))
        title = row[1].set_title(name, loc="left", fontsize=13)
        title.set_in_layout(False)  # it may run over the maps beside it
    return fig


def excited(channels: dict[str, list[tuple[Tensor, Region, Tensor]]]) -> Figure:
    """For each name pictures (H, W) with a box around what a unit sees, and below them what is inside.

    The values are lists of (picture, Region, crop), the crop with NaN, shown blue, where it lies outside the picture.
    """
    count = max(len(found) for found in channels.values())
    fig, axes = picture_grid(2 * len(channels), count, (1.4 * count + 1.4, 2.9 * len(channels)))
    colors = colormaps["gray"].with_extremes(bad=SKY)
    for number, (name, found) in enumerate(channels.items()):
        above, below = axes[2 * number : 2 * number + 2]
        for whole, part, (picture, region, crop) in zip(above, below, found, strict=False):
            whole.imshow(picture, cmap="gray", vmin=0, vmax=255)
            height, width = crop.shape
            corner = (region.left - 0.5, region.top - 0.5)
            whole.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=ORANGE, linewidth=2))
            part.imshow(crop, cmap=colors, vmin=0, vmax=255)
        above[0].text(-0.12, 0.5, name, ha="right", va="center", fontsize=13, transform=above[0].transAxes)
        below[0].text(-0.12, 0.5, "inside", ha="right", va="center", fontsize=13, transform=below[0].transAxes)
    return fig


def heat_maps(pictures: Tensor, maps: dict[str, Tensor], titles: list[str] | None = None) -> Figure:
    """Pictures (N, H, W) side by side, titles above them, and below a row of maps (N, rows, columns) for each name.

    Orange is above zero, purple below, each map on its own scale; a map smaller than the picture lies in its middle.
    """
    height, width = pictures.shape[1:]
    fig, axes = picture_grid(1 + len(maps), len(pictures), (1.75 * len(pictures) + 2.6, 1.85 * (1 + len(maps)) + 0.3))
    for axis, picture, title in zip(axes[0], pictures, titles or [""] * len(pictures), strict=True):
        axis.imshow(picture, cmap="gray")
        axis.set_title(title, fontsize=13)
    for row, (name, values) in zip(axes[1:], maps.items(), strict=True):
        left, top = (width - values.shape[2]) / 2 - 0.5, (height - values.shape[1]) / 2 - 0.5
        extent = (left, left + values.shape[2], top + values.shape[1], top)
        for axis, heat in zip(row, values, strict=True):
            shown = axis.imshow(heat / (abs(heat).max() or 1), cmap=SIGNED, vmin=-1, vmax=1, extent=extent)
            axis.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
        row[0].text(-0.08, 0.5, name, ha="right", va="center", fontsize=13, transform=row[0].transAxes)
    fig.colorbar(shown, ax=list(axes[1:].flat), ticks=[-1, 0, 1], label="largest of the map = 1")
    return fig


def agreement(correlations: dict[int, list[float]]) -> Figure:
    """Rank correlations against the side of the patch (pixels): each image a dot, their means joined by a line."""
    fig, axis = figure(size=(9, 4.2))
    places = range(len(correlations))
    for place, values in zip(places, correlations.values(), strict=True):
        offsets = np.linspace(-0.12, 0.12, len(values))
        axis.scatter(place + offsets, values, s=22, color=GREY, alpha=0.6, label="one image" if place == 0 else None)
    means = [np.mean(values) for values in correlations.values()]
    axis.plot(places, means, color=BLUE, marker=MARKERS[0], markersize=9, label="their mean")
    axis.axhline(0, color=GREY, linestyle=":")
    axis.set(xlabel="side of the patch (pixels)", ylabel="rank correlation", ylim=(-1.05, 1.05))
    axis.set_xticks(places, correlations)
    axis.legend(loc="lower left", ncols=2)
    return fig


def confusion(matrix: Tensor, classes: tuple[str, ...]) -> Figure:
    """How many images of each true class (row) were given which name (column), shaded by the share of the row."""
    counts = matrix.numpy()
    shares = counts / counts.sum(1, keepdims=True).clip(1)
    fig, axis = figure(size=(10, 7.5))
    shown = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        color = "white" if shares[row, column] > 0.5 else "black"
        axis.text(column, row, count or "", ha="center", va="center", color=color, fontsize=12)
    axis.set_xticks(range(len(classes)), classes, rotation=40, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(len(classes)), classes)
    axis.set(xlabel="the network's answer", ylabel="what it is")
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    fig.colorbar(shown, ax=axis, label="share of the row")
    return fig
