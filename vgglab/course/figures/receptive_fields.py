"""Figures of receptive fields: the cone below a unit, the walk up a network, and what counts inside the field."""

from math import sqrt
from statistics import NormalDist

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor

from vgglab.course.figures.style import BLUE, GREY, MARKERS, ORANGE, PALETTE, RED, Figure, figure
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
            unit = round((side / 2 + field.padding[1] - field.size[1] / 2) / field.stride[1])
            _box(left, field.region(unit, unit), color, "-" if name.startswith("conv") else "--")
    left.set(title="one unit of each layer, near the middle", xlabel="pixel", ylabel="pixel")
    left.grid(visible=False)
    sizes = [field.size[1] for field in fields.values()]
    bars = right.barh(range(len(fields)), sizes, color=_block_colors(fields))
    right.axvline(side, color=GREY, linestyle=":")
    right.text(side + 6, 2, "width of the image", color=GREY)
    right.bar_label(bars, padding=3, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})
    right.set(xlabel="width of the field (pixels)", xlim=(0, 1.1 * max(sizes)))
    right.set_yticks(range(len(fields)), fields, fontsize=12)
    right.grid(axis="y", visible=False)
    right.invert_yaxis()
    return fig


def profiles(shares: dict[int, Tensor]) -> Figure:
    """The share of the gradient on each row, 2n + 1 of them for each n, over Gaussians of variance 2n/3."""
    fig, axis = figure(size=(10, 4.4))
    for (n, values), color, marker in zip(shares.items(), PALETTE, MARKERS, strict=False):
        offsets = range(-n, n + 1)
        axis.plot(offsets, values, color=color, marker=marker, lw=0, label=f"{n} layers: field {2 * n + 1}")
        gaussian = NormalDist(sigma=sqrt(2 * n / 3))
        axis.plot(offsets, [gaussian.pdf(x) for x in offsets], color=color, lw=1.2)
    axis.set(xlabel="rows from the middle of the field", ylabel="share of the gradient")
    axis.legend(title="lines: Gaussians of variance 2n/3")
    return fig


def effective_fields(gradients: dict[str, tuple[Tensor, Region]]) -> Figure:
    """Gradient maps (H, W) under their names, each with its field as a dashed box."""
    fig, axes = figure(1, len(gradients), size=(5 * len(gradients), 5), squeeze=False)
    for axis, (name, (gradient, region)) in zip(axes[0], gradients.items(), strict=True):
        shown = axis.imshow(gradient / gradient.max(), cmap="magma")
        _box(axis, region, "white", "--")
        axis.set(title=name, xlabel="pixel")
        axis.grid(visible=False)
    axes[0][0].set_ylabel("pixel")
    fig.colorbar(shown, ax=list(axes[0]), shrink=0.8, label="mean |gradient|, largest = 1")
    return fig


def _block_colors(names: dict[str, ReceptiveField]) -> list[str]:
    """One colour for each block, which a pooling ends, and red for the FC layers."""
    block, colors = 0, list[str]()
    for name in names:
        colors.append(RED if name.startswith("fc") else PALETTE[block % 5])
        block += name.startswith("pool")
    return colors


def _box(axis: Axes, region: Region, color: str, line: str) -> None:
    height, width = region.bottom - region.top + 1, region.right - region.left + 1
    corner = (region.left - 0.5, region.top - 0.5)
    axis.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=color, linestyle=line, linewidth=2))
