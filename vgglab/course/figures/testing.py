"""Figures of testing at any size: score maps over a picture, still and moving, crops, accuracy by scale and cost."""

from collections.abc import Callable
from itertools import product

import numpy as np
from ipywidgets import IntSlider, VBox
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from torch import Tensor

from vgglab.course.figures.moving import moving
from vgglab.course.figures.style import BLUE, GREY, MARKERS, ORANGE, PALETTE, Figure, figure, picture_grid

STRIDE = 32  # pixels between neighbouring windows, after five halvings


def score_maps(
    picture: Tensor, probabilities: Tensor, classes: tuple[str, ...], shown: list[int], window: int
) -> Figure:
    """The picture (H, W) with the class that each cell of a map names, then the probabilities of the classes shown.

    probabilities is (classes, rows, columns). Each cell stands in the middle of its window, a square of window pixels.
    """
    height, width = picture.shape
    panels, outline = (len(shown) + 2) // 2, [withStroke(linewidth=3, foreground="black")]
    fig, axes = picture_grid(2, panels, (6 * panels, 2 * (6 * height / width + 0.5)))
    rows, columns = probabilities.shape[1:]
    edge = (window - STRIDE) / 2
    extent = (edge, edge + columns * STRIDE, edge + rows * STRIDE, edge)
    best = probabilities.argmax(0)
    for axis, label in zip(axes.flat, (None, *shown), strict=False):
        axis.imshow(picture, cmap="gray")
        if label is None:
            axis.add_patch(Rectangle((1, 1), window - 2, window - 2, fill=False, color=ORANGE, linewidth=3))
        else:
            axis.imshow(probabilities[label], cmap="viridis", vmin=0, vmax=1, alpha=0.55, extent=extent)
        for row, column in product(range(rows), range(columns)):
            named = classes[best[row, column]].replace(" ", "\n").replace("/", "/\n")
            name = named if label is None else f"{probabilities[label, row, column]:.1f}"
            x, y = window / 2 + STRIDE * column, window / 2 + STRIDE * row
            text = axis.text(x, y, name, color="white", ha="center", va="center", fontsize=11 if label is None else 14)
            text.set_path_effects(outline)
        title = f"what each cell names; one window of {window} pixels" if label is None else classes[label]
        axis.set(title=title, xlim=(0, width), ylim=(height, 0))
    return fig


def move_score_map(answer: Callable[[int], tuple[Tensor, Tensor]], classes: tuple[str, ...], window: int) -> VBox:
    """A picture and its map of one class's probability, which follow sliders for the test size Q and for one cell.

    answer(Q) gives the picture (H, W), its shorter side Q pixels, and the probabilities (classes, rows, columns).
    """
    sides = (window, 224)
    picture, probabilities = answer(sides[1])
    fig, [[whole, cells]] = picture_grid(1, 2, (13, 4.6))
    pixels = whole.imshow(picture, cmap="gray", vmin=0, vmax=255)
    frame = whole.add_patch(Rectangle((0, 0), window, window, fill=False, color=ORANGE, linewidth=3))
    whole.set(xlim=(-2, picture.shape[1] + 2), ylim=(picture.shape[0] + 2, -2))
    values = cells.imshow(probabilities[0], cmap="viridis", vmin=0, vmax=1)
    chosen = cells.add_patch(Rectangle((0, 0), 1, 1, fill=False, color=ORANGE, linewidth=4))
    cells.set(xlim=(-0.1, probabilities.shape[2] + 0.1), ylim=(probabilities.shape[1] + 0.1, -0.1))
    fig.colorbar(values, ax=cells, shrink=0.8, label="probability of the class")

    def draw(size: int = 160, row: int = 0, column: int = 0, name: str = classes[0]) -> Figure:
        picture, probabilities = answer(size)
        height, width = picture.shape
        rows, columns = probabilities.shape[1:]
        row, column = min(row, rows - 1), min(column, columns - 1)
        cell = probabilities[:, row, column]
        pixels.set(data=picture, extent=(0, width, height, 0))
        values.set(data=probabilities[classes.index(name)], extent=(0, columns, rows, 0))
        frame.set_xy((STRIDE * column, STRIDE * row))
        chosen.set_xy((column, row))
        whole.set_title(f"Q = {size}: {height} × {width} pixels")
        cells.set_title(f"{rows} × {columns} answers; this one: {classes[cell.argmax()]}, {cell.max():.2f}")
        return fig

    size = IntSlider(160, *sides, 8, description="Q")
    return moving(draw, size=size, row=(0, 5), column=(0, 9), name=list(classes))


def crop_grid(picture: Tensor, crop: int, rows: list[int], columns: list[int]) -> Figure:
    """The picture (H, W) with the middles of the crops that start at rows and columns; beside it all of them, twice."""
    fig, [[whole, parts]] = picture_grid(1, 2, (14, 5), width_ratios=(1, 1.8))
    pixels, places = picture.numpy(), list(product(rows, columns))
    whole.imshow(pixels, cmap="gray", vmin=0, vmax=255)
    for top, left in places:
        whole.plot(left + crop / 2, top + crop / 2, "o", color=ORANGE, markersize=5)
    for (top, left), color, line in zip((places[0], places[-1]), PALETTE, ("-", "--"), strict=False):
        whole.add_patch(Rectangle((left, top), crop, crop, fill=False, color=color, linewidth=3, linestyle=line))
    whole.set_title(f"{len(places)} middles, first and last frame")
    tiles = {place: pixels[place[0] :, place[1] :][:crop, :crop] for place in places}
    framed = [[np.pad(tiles[top, left], 2, constant_values=255) for left in columns] for top in rows]
    mirrored = [[tile[:, ::-1] for tile in line] for line in framed]
    gap = np.full((len(rows) * (crop + 4), crop // 3), 255)
    parts.imshow(np.hstack([np.block(framed), gap, np.block(mirrored)]), cmap="gray", vmin=0, vmax=255)
    parts.set_title(f"{2 * len(places)} crops: as they are, and mirrored")
    return fig


def accuracy_by_scale(accuracies: dict[str, dict[int, float]], photos: int) -> Figure:
    """Accuracy on so many photos against their size, ± one standard error, a line {pixels: accuracy} for each name."""
    fig, axis = figure(size=(9, 4.4))
    for (name, line), color, marker in zip(accuracies.items(), PALETTE, MARKERS, strict=False):
        errors = [(share * (1 - share) / photos) ** 0.5 for share in line.values()]
        axis.errorbar(
            line.keys(), line.values(), errors, color=color, marker=marker, markersize=8, capsize=5, label=name
        )
    axis.set(xlabel="test scale Q: side of the image (pixels)", ylabel="share of images right")
    axis.set_xticks(sorted({side for line in accuracies.values() for side in line}))
    axis.legend()
    return fig


def costs_and_gains(methods: dict[str, tuple[int, float]], gains: dict[str, tuple[float, float]]) -> Figure:
    """Bars of multiply-adds and milliseconds per image, and points gained over the first method with their error.

    methods gives (multiply-adds, milliseconds), gains (points, paired standard error) for every method but the first.
    """
    fig, (work, duration, right) = figure(1, 3, size=(14, 0.6 * len(methods) + 1.6), sharey=True)
    macs, milliseconds = zip(*methods.values(), strict=True)
    millions = [count / 1e6 for count in macs]
    for axis, values, text in ((work, millions, " {:,.0f} million"), (duration, milliseconds, " {:.1f}")):
        bars = axis.barh(range(len(methods)), values, height=0.55, color=GREY)
        axis.bar_label(bars, fmt=text)
        axis.margins(x=0.5)
        axis.set_xticks([])
    points, errors = zip(*gains.values(), strict=True)
    places = [list(methods).index(name) for name in gains]
    right.errorbar(points, places, xerr=errors, fmt="o", color=BLUE, markersize=9, capsize=5)
    right.axvline(0, color=GREY, linestyle="--", linewidth=1.5)
    first = next(iter(methods))
    titles = ("multiply-adds for one image", "milliseconds for one image", f"points gained over “{first}”, ± error")
    for axis, title in zip((work, duration, right), titles, strict=True):
        axis.set_title(title, fontsize=13)
        axis.grid(axis="y", visible=False)
    work.set_yticks(range(len(methods)), methods)
    work.invert_yaxis()
    return fig


def padding_reach(inside: Tensor, alone: Tensor, difference: Tensor, untouched: range) -> Figure:
    """Features (H, W) of a window inside its picture and cut out, on one scale, and their difference.

    A frame stands around the rows and columns in untouched, which no padding reaches.
    """
    fig, [axes] = picture_grid(1, 3, (11, 3.6))
    low, high = min(inside.min(), alone.min()), max(inside.max(), alone.max())
    axes[0].imshow(inside, cmap="gray", vmin=low, vmax=high)
    features = axes[1].imshow(alone, cmap="gray", vmin=low, vmax=high)
    differences = axes[2].imshow(difference, cmap="gray", vmin=0)
    edge, side = untouched[0] - 0.5, len(untouched)
    for axis, title in zip(axes, ("inside the picture", "cut out", "relative difference"), strict=True):
        axis.add_patch(Rectangle((edge, edge), side, side, fill=False, color=ORANGE, linewidth=3))
        axis.set_title(title)
    fig.colorbar(features, ax=axes[:2], shrink=0.8, label="mean over channels")
    fig.colorbar(differences, ax=axes[2], shrink=0.8)
    return fig
