"""Figures of testing at any size: score maps over a picture, crops, accuracy against scale and against cost."""

from itertools import product

import numpy as np
from matplotlib.patches import Rectangle
from matplotlib.ticker import EngFormatter

from vgglab.plots.style import GREY, MARKERS, ORANGE, PALETTE, figure


def score_maps(picture, maps, window, stride=32):
    """The picture (H, W) with its first window, then under each name of maps its values (rows, columns) over it.

    Each value stands in the middle of its window, a square of window pixels.
    """
    height, width = picture.shape
    panels = (len(maps) + 2) // 2
    fig, axes = figure(2, panels, size=(4.6 * panels, 2 * (4.6 * height / width + 0.5)))
    for axis in axes.flat:
        axis.set_axis_off()
    first, *others = axes.flat
    first.imshow(picture, cmap="gray")
    first.add_patch(Rectangle((1, 1), window - 2, window - 2, fill=False, color=ORANGE, linewidth=3))
    first.set_title(f"the picture, one window of {window} pixels")
    for axis, (name, values) in zip(others, maps.items(), strict=False):
        rows, columns = values.shape
        edge = (window - stride) / 2
        axis.imshow(picture, cmap="gray")
        extent = (edge, edge + columns * stride, edge + rows * stride, edge)
        axis.imshow(values, cmap="viridis", vmin=0, vmax=1, alpha=0.55, extent=extent)
        for row, column in product(range(rows), range(columns)):
            x, y = window / 2 + stride * column, window / 2 + stride * row
            axis.text(x, y, f"{values[row, column]:.1f}", color="white", ha="center", va="center", fontsize=12)
        axis.set(title=name, xlim=(0, width), ylim=(height, 0))
    return fig


def crop_grid(picture, crop, rows, columns):
    """The picture (H, W) with the frames of the crops that start at rows and columns; beside it all of them, twice."""
    fig, (whole, parts) = figure(1, 2, size=(14, 5), width_ratios=(1, 1.8))
    picture, places = np.asarray(picture), list(product(rows, columns))
    whole.imshow(picture, cmap="gray", vmin=0, vmax=255)
    for top, left in places:
        whole.add_patch(Rectangle((left, top), crop, crop, fill=False, color=GREY, linewidth=0.8))
        whole.plot(left + crop / 2, top + crop / 2, "o", color=ORANGE, markersize=5)
    for (top, left), color, line in zip((places[0], places[-1]), PALETTE, ("-", "--"), strict=False):
        whole.add_patch(Rectangle((left, top), crop, crop, fill=False, color=color, linewidth=3, linestyle=line))
    whole.set_title(f"{len(places)} places: frames and centres")
    tiles = {place: picture[place[0] :, place[1] :][:crop, :crop] for place in places}
    framed = [[np.pad(tiles[top, left], 2, constant_values=255) for left in columns] for top in rows]
    mirrored = [[tile[:, ::-1] for tile in line] for line in framed]
    gap = np.full((len(rows) * (crop + 4), crop // 3), 255)
    parts.imshow(np.hstack([np.block(framed), gap, np.block(mirrored)]), cmap="gray", vmin=0, vmax=255)
    parts.set_title(f"{2 * len(places)} crops: as they are, and mirrored")
    for axis in (whole, parts):
        axis.set_axis_off()
    return fig


def accuracy_by_scale(accuracies):
    """Accuracy against the size of the test images, for a dict of names and {pixels: accuracy}."""
    fig, axis = figure(size=(9, 4.4))
    for (name, line), color, marker in zip(accuracies.items(), PALETTE, MARKERS, strict=False):
        axis.plot(line.keys(), line.values(), color=color, marker=marker, label=name)
    axis.set(xlabel="test scale Q: side of the image (pixels)", ylabel="share of images right")
    axis.set_xticks(sorted({side for line in accuracies.values() for side in line}))
    axis.legend()
    return fig


def accuracy_against_cost(methods):
    """Accuracy with its standard error against multiply-adds per image, for a dict of names and the three numbers."""
    fig, axis = figure(size=(10, 4.6))
    for (name, (macs, accuracy, error)), color, marker in zip(methods.items(), PALETTE, MARKERS, strict=False):
        axis.errorbar(macs, accuracy, error, color=color, marker=marker, markersize=9, capsize=4, linestyle="")
        axis.annotate(name, (macs, accuracy), xytext=(9, 6), textcoords="offset points")
    axis.set(xscale="log", xlabel="multiply-adds for one image (logarithmic)", ylabel="share of images right")
    axis.xaxis.set_major_formatter(EngFormatter(sep=" "))
    axis.margins(x=0.25)
    return fig
