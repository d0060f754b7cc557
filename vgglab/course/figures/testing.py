"""Figures of testing at any size: score maps over a picture, crops, accuracy against scale and against cost."""

from itertools import product

import numpy as np
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from torch import Tensor

from vgglab.course.figures.style import GREY, MARKERS, ORANGE, PALETTE, Figure, figure, picture_grid


def score_maps(picture: Tensor, maps: dict[str, Tensor], window: int) -> Figure:
    """The picture (H, W) with its first window, then under each name of maps its values (rows, columns) over it.

    Each value stands in the middle of its window, a square of window pixels.
    """
    height, width = picture.shape
    stride = 32  # pixels between neighbouring windows, after five halvings
    panels, outline = (len(maps) + 2) // 2, [withStroke(linewidth=3, foreground="black")]
    fig, axes = picture_grid(2, panels, (4.6 * panels, 2 * (4.6 * height / width + 0.5)))
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
            text = axis.text(x, y, f"{values[row, column]:.1f}", color="white", ha="center", va="center", fontsize=12)
            text.set_path_effects(outline)
        axis.set(title=name, xlim=(0, width), ylim=(height, 0))
    return fig


def crop_grid(picture: Tensor, crop: int, rows: list[int], columns: list[int]) -> Figure:
    """The picture (H, W) with the frames of the crops that start at rows and columns; beside it all of them, twice."""
    fig, [[whole, parts]] = picture_grid(1, 2, (14, 5), width_ratios=(1, 1.8))
    pixels, places = picture.numpy(), list(product(rows, columns))
    whole.imshow(pixels, cmap="gray", vmin=0, vmax=255)
    for top, left in places:
        whole.add_patch(Rectangle((left, top), crop, crop, fill=False, color=GREY, linewidth=0.8))
        whole.plot(left + crop / 2, top + crop / 2, "o", color=ORANGE, markersize=5)
    for (top, left), color, line in zip((places[0], places[-1]), PALETTE, ("-", "--"), strict=False):
        whole.add_patch(Rectangle((left, top), crop, crop, fill=False, color=color, linewidth=3, linestyle=line))
    whole.set_title(f"{len(places)} places: frames and centres")
    tiles = {place: pixels[place[0] :, place[1] :][:crop, :crop] for place in places}
    framed = [[np.pad(tiles[top, left], 2, constant_values=255) for left in columns] for top in rows]
    mirrored = [[tile[:, ::-1] for tile in line] for line in framed]
    gap = np.full((len(rows) * (crop + 4), crop // 3), 255)
    parts.imshow(np.hstack([np.block(framed), gap, np.block(mirrored)]), cmap="gray", vmin=0, vmax=255)
    parts.set_title(f"{2 * len(places)} crops: as they are, and mirrored")
    return fig


def accuracy_by_scale(accuracies: dict[str, dict[int, float]]) -> Figure:
    """Accuracy against the size of the test images, one line {pixels: accuracy} for each name."""
    fig, axis = figure(size=(9, 4.4))
    for (name, line), color, marker in zip(accuracies.items(), PALETTE, MARKERS, strict=False):
        axis.plot(line.keys(), line.values(), color=color, marker=marker, label=name)
    axis.set(xlabel="test scale Q: side of the image (pixels)", ylabel="share of images right")
    axis.set_xticks(sorted({side for line in accuracies.values() for side in line}))
    axis.legend()
    return fig


def costs_and_accuracies(methods: dict[str, tuple[int, float, float, float]]) -> Figure:
    """Bars of multiply-adds and milliseconds per image, and accuracy with its standard error, for each method."""
    fig, (work, duration, right) = figure(1, 3, size=(14, 0.6 * len(methods) + 1.6), sharey=True)
    macs, milliseconds, accuracies, errors = zip(*methods.values(), strict=True)
    millions = [count / 1e6 for count in macs]
    for axis, values, text in ((work, millions, " {:,.0f} million"), (duration, milliseconds, " {:.1f}")):
        bars = axis.barh(range(len(methods)), values, height=0.55, color=GREY)
        axis.bar_label(bars, fmt=text)
        axis.margins(x=0.5)
        axis.set_xticks([])
    right.errorbar(accuracies, range(len(methods)), xerr=errors, fmt="o", color=PALETTE[0], markersize=9, capsize=5)
    titles = ("multiply-adds for one image", "milliseconds for one image", "share of images right ± standard error")
    for axis, title in zip((work, duration, right), titles, strict=True):
        axis.set_title(title, fontsize=13)
        axis.grid(axis="y", visible=False)
    work.set_yticks(range(len(methods)), methods)
    work.invert_yaxis()
    return fig
