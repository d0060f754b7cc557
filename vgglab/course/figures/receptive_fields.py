"""Figures of receptive fields: the cone below a unit, the walk up a network, a unit's place, and what counts in it."""

from math import sqrt
from statistics import NormalDist

from ipywidgets import VBox
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor, linspace

from vgglab.course.figures.moving import moving
from vgglab.course.figures.style import BLUE, GREY, MARKERS, ORANGE, PALETTE, RED, SKY, Figure, figure
from vgglab.receptive_field import ReceptiveField, Region


def cone(chains: dict[str, list[tuple[int, int]]], inputs: int) -> Figure:
    """Chains of layers (kernel, stride) over a line of inputs; what the middle top unit sees is filled."""
    fig, axes = figure(1, len(chains), size=(6.2 * len(chains), 4.2), squeeze=False)
    for axis, (title, layers) in zip(axes[0], chains.items(), strict=True):
        places: list[list[float]] = [list(range(inputs))]
        for kernel, stride in layers:
            below = places[-1]
            starts = range(0, len(below) - kernel + 1, stride)
            places.append([(below[start] + below[start + kernel - 1]) / 2 for start in starts])
        seen = {(len(places[-1]) - 1) // 2}
        for level in range(len(layers), -1, -1):
            color = BLUE if level else ORANGE
            faces = [color if unit in seen else "white" for unit in range(len(places[level]))]
            axis.scatter(places[level], [level] * len(faces), s=170, c=faces, edgecolors=color, marker="s", zorder=3)
            if level:
                kernel, stride = layers[level - 1]
                lines = [(unit, unit * stride + i) for unit in seen for i in range(kernel)]
                for unit, other in lines:
                    axis.plot([places[level][unit], places[level - 1][other]], [level, level - 1], color=GREY, lw=1)
                seen = {other for _, other in lines}
        names = [f"{kernel} wide" + (f", stride {stride}" if stride > 1 else "") for kernel, stride in layers]
        counts = [f"{len(units)} unit" + "s" * (len(units) > 1) for units in places[1:]]
        labels = [f"{inputs} pixels", *(f"{name}\n→ {count}" for name, count in zip(names, counts, strict=True))]
        axis.set(title=title, xticks=range(inputs), xlabel="pixel", ylim=(-0.4, len(layers) + 0.4))
        axis.set_yticks(range(len(layers) + 1), labels)
        axis.grid(visible=False)
        axis.spines["left"].set_visible(False)
        axis.tick_params(axis="y", length=0)
    return fig


def field_walk(image: Tensor, fields: dict[str, ReceptiveField]) -> Figure:
    """Fields of layers: those narrower than image (H, W) as boxes over it, and the widths of all as bars."""
    fig, (left, right) = figure(1, 2, size=(13, 6.5), width_ratios=(1, 1.05))
    side = image.shape[-1]
    left.imshow(image, cmap="gray", alpha=0.6)
    for (name, field), color in zip(fields.items(), _block_colors(fields), strict=True):
        if field.size[1] < side:
            region = field.region(*_unit_at(field, side / 2, side / 2))
            _box(left, region, color, "-" if name.startswith("conv") else "--")
    left.set(title="of each layer, the unit next to the middle", xlabel="pixel", ylabel="pixel")
    left.grid(visible=False)
    sizes = [field.size[1] for field in fields.values()]
    bars = right.barh(range(len(fields)), sizes, color=_block_colors(fields))
    right.vlines(side, -0.5, sum(size < side for size in sizes) - 2.5, color=GREY, linestyle=":")
    right.text(side + 6, 2, "width of the image", color=GREY)
    right.bar_label(bars, padding=3)
    right.set(xlabel="width of the field (pixels)", xlim=(0, 1.1 * max(sizes)))
    right.set_yticks(range(len(fields)), fields, fontsize=12)
    right.grid(axis="y", visible=False)
    right.invert_yaxis()
    return fig


def field_at(image: Tensor, layer: str, field: ReceptiveField, row: int, column: int) -> Figure:
    """The field of the unit of layer whose centre is next to the pixel (row, column) of image (H, W)."""
    fig, axis = figure(size=(7, 6.6))
    height, width = image.shape
    axis.set(xlim=(-width / 2, 1.5 * width), ylim=(1.5 * height, -height / 2), xlabel="pixel", ylabel="pixel")
    axis.set_facecolor("gainsboro")
    axis.grid(visible=False)
    axis.imshow(image, cmap="gray", zorder=0)
    _put_field(axis, layer, field, row, column)
    return fig


def move_field(image: Tensor, fields: dict[str, ReceptiveField]) -> VBox:
    """A field_at that follows a menu of the layers and a slider for each axis; layers that see everything are left out.

    image is (H, W); the menu starts at the last layer, the place in the upper left corner.
    """
    height, width = image.shape
    fields = {layer: field for layer, field in fields.items() if not field.covers_image}
    last = next(reversed(fields))
    fig = field_at(image, last, fields[last], 0, 0)

    def draw(layer: str = last, row: int = 0, column: int = 0) -> Figure:
        _put_field(fig.axes[0], layer, fields[layer], row, column)
        return fig

    return moving(draw, row=(0, height - 1), column=(0, width - 1), layer=list(reversed(fields)))


def profiles(shares: dict[int, Tensor]) -> Figure:
    """The share of the gradient on each row, 2n + 1 of them for each n, over Gaussians of variance 2n/3."""
    fig, axis = figure(size=(10, 4.4))
    part = linspace(-1, 1, 201)
    for (n, values), color, marker in zip(shares.items(), PALETTE, MARKERS, strict=False):
        axis.plot(linspace(-1, 1, 2 * n + 1), n * values, color=color, marker=marker, lw=0, label=f"{n} layers")
        gaussian = NormalDist(sigma=sqrt(2 * n / 3))
        axis.plot(part, [n * gaussian.pdf(n * x) for x in part.tolist()], color=color, lw=1.2)
    axis.set(xlabel="from one rim of the field to the other", ylabel="gradient (area 1)")
    axis.set_xticks((-1, -0.5, 0, 0.5, 1), ("rim", "", "middle", "", "rim"))
    axis.legend(title="lines: Gaussians\nof variance 2n/3")
    return fig


def effective_fields(gradients: dict[str, tuple[Tensor, Region]]) -> Figure:
    """Gradient maps (H, W) under their names, each with its field as a dashed box."""
    fig, axes = figure(1, len(gradients), size=(3.6 * len(gradients), 3.7), squeeze=False)
    for axis, (name, (gradient, region)) in zip(axes[0], gradients.items(), strict=True):
        shown = axis.imshow(gradient / gradient.max(), cmap="magma")
        _box(axis, region, "white", "--")
        axis.set(title=name, xlabel="pixel")
        axis.grid(visible=False)
    axes[0][0].set_ylabel("pixel")
    fig.colorbar(shown, ax=list(axes[0]), label="mean |gradient|, largest = 1")
    return fig


def _unit_at(field: ReceptiveField, row: float, column: float) -> tuple[int, int]:
    """The unit whose centre is next to this pixel."""
    first = field.center(0, 0)
    steps = ((at - start) / jump for at, start, jump in zip((row, column), first, field.stride, strict=True))
    unit = [max(0, round(step)) for step in steps]
    return unit[0], unit[1]


def _put_field(axis: Axes, layer: str, field: ReceptiveField, row: int, column: int) -> None:
    for artist in [*axis.patches, *axis.lines]:
        artist.remove()
    unit = _unit_at(field, row, column)
    region = field.region(*unit)
    _box(axis, region, ORANGE, "-")
    axis.add_patch(Rectangle(*_rectangle(region), facecolor=ORANGE, alpha=0.35))
    axis.plot(column, row, "+", color=SKY, markersize=14, markeredgewidth=2.5)
    y, x = field.center(*unit)
    axis.plot(x, y, "o", color=ORANGE, markeredgecolor="black")
    rows, columns = f"{region.top} to {region.bottom}", f"{region.left} to {region.right}"
    axis.set_title(f"{layer}, unit {unit}: rows {rows}, columns {columns}".replace("-", "−"))


def _block_colors(names: dict[str, ReceptiveField]) -> list[str]:
    """One colour for each block, which a pooling ends, and red for the FC layers."""
    block, colors = 0, list[str]()
    for name in names:
        colors.append(RED if name.startswith("fc") else PALETTE[block % 5])
        block += name.startswith("pool")
    return colors


def _rectangle(region: Region) -> tuple[tuple[float, float], int, int]:
    """Its corner, width and height."""
    height, width = region.bottom - region.top + 1, region.right - region.left + 1
    return (region.left - 0.5, region.top - 0.5), width, height


def _box(axis: Axes, region: Region, color: str, line: str) -> None:
    axis.add_patch(Rectangle(*_rectangle(region), fill=False, edgecolor=color, linestyle=line, linewidth=2))
