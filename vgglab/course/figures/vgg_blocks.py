"""Figures of VGG's configurations and of where their parameters and activations are."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.patches import Patch

from vgglab.cost import Ledger, Row
from vgglab.course.figures.style import BLUE, GREEN, GREY, ORANGE, PINK, SKY, Figure, figure

KINDS = {"input": ("input", GREY), "Conv2d": ("conv", BLUE), "MaxPool2d": ("pool", SKY), "Linear": ("FC", ORANGE)}
FC = ("FC-4096", "FC-4096", "FC-1000")
SLOT, GAP = 860, 130  # in channels: the least width of a block, which its label needs, and what is left beside it


def configurations(configs: dict[str, tuple[tuple[str, ...], ...]]) -> Figure:
    """Configurations such as VGG_CONFIGS as columns, equal blocks at equal heights; what a column changes is framed."""
    fig, axis = figure(size=(13, 9))
    heights = [max(map(len, blocks)) for blocks in zip(*configs.values(), strict=True)]
    before = next(iter(configs.values()))
    for column, blocks in enumerate(configs.values()):
        top = 0.0
        for layers, old_layers, height in zip(blocks, before, heights, strict=True):
            for row, layer in enumerate(layers):
                color = {"conv3": SKY, "conv1": ORANGE, "LRN": PINK}[layer.split("-")[0]]
                _box(axis, column, top + row, layer, color, new=layer not in old_layers[row : row + 1])
            _box(axis, column, top + height, "2×2 max-pooling", "white", height=0.6)
            top += height + 0.8
        for row, layer in enumerate(FC):
            _box(axis, column, top + row, layer, GREEN)
        before = blocks
    axis.set(xlim=(-0.5, len(configs) - 0.5), ylim=(top + len(FC), -0.1), xticks=range(len(configs)), yticks=[])
    axis.set_xticklabels(configs, fontsize=16)
    axis.set_xlabel("thick frame: not in the column on its left")
    axis.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    axis.spines[:].set_visible(False)
    axis.grid(visible=False)
    return fig


def shape_walk(table: Ledger) -> Figure:
    """A VGG's Ledger as columns, as high as a layer's maps and as wide as its channels; FC layers are no maps."""
    blocks: list[list[Row]] = [[]]
    for row in (row for row in table.rows if row.kind in KINDS):
        blocks[-1].append(row)
        if row.kind in ("input", "MaxPool2d"):
            blocks.append([])
    fig, axis = figure(size=(13, 5))
    left = 0
    for rows in blocks:
        flat = rows[0].kind == "Linear"
        channels, sides = zip(*((200, 112) if flat else row.output_shape[:2] for row in rows), strict=True)
        edges = [left + sum(channels[:place]) for place in range(len(rows))]
        colors = [KINDS[row.kind][1] for row in rows]
        rim = GREY if rows[0].kind == "input" else "white"  # three channels are thinner than a white rim
        axis.bar(edges, sides, channels, align="edge", color=colors, edgecolor=rim, hatch="//" if flat else "")
        for place in (0, -1) if rows is blocks[-2] else (0,):
            text = "not to scale" if flat else f"{sides[place]}×{sides[place]}"
            axis.text(edges[place], sides[place] + 4, text, fontsize=13)
        axis.text(left, -8, _label(rows), fontsize=13, va="top")
        left += max(SLOT, sum(channels)) + GAP
    axis.set(ylabel="side of the maps (pixels)", yticks=[0, 56, 112, 224], xticks=[], xlim=(-GAP, left))
    axis.legend(handles=[Patch(color=color, label=name) for name, color in list(KINDS.values())[1:]])
    axis.grid(axis="x", visible=False)
    return fig


def _label(rows: list[Row]) -> str:
    first = rows[0]
    if first.kind == "Linear":
        return "FC, units:\n" + "\n".join(f"{row.output_shape[0]:,}" for row in rows)
    layers = "image" if first.kind == "input" else f"{sum(row.kind == 'Conv2d' for row in rows)} conv"
    return f"{layers}\n{first.output_shape[0]} channels"


def ledger_bars(table: Ledger) -> Figure:
    """The parameters and the activations of a Ledger's layers, in millions, side by side; ReLUs are left out."""
    rows = [row for row in table.rows if row.kind in KINDS]
    names = [f"{KINDS[row.kind][0]}  {'×'.join(map(str, row.output_shape))}" for row in rows]
    fig, axes = figure(1, 2, size=(13, 7.5), sharey=True)
    for axis, column in zip(axes, ("parameters", "activations"), strict=True):
        values = [getattr(row, column) / 1e6 for row in rows]
        bars = axis.barh(range(len(rows)), values, color=[KINDS[row.kind][1] for row in rows])
        axis.bar_label(bars, [f"{value:.1f}" if value >= 0.05 else f"{value:.1g}" for value in values], padding=3)
        axis.set(xlabel=f"{column} (millions)", xlim=(0, 1.12 * max(values)))
        axis.grid(axis="y", visible=False)
    axes[0].set_yticks(range(len(rows)), names, fontsize=12)
    axes[0].invert_yaxis()
    kinds = [Patch(color=color, label=kind) for kind, color in KINDS.values()]
    axes[1].legend(handles=kinds, loc="lower right", title="ReLU left out")
    return fig


def _box(axis: Axes, column: int, top: float, text: str, color: str, height: float = 0.92, new: bool = False) -> None:
    frame: dict[str, Any] = {"edgecolor": "black", "linewidth": 3} if new else {"edgecolor": GREY}
    axis.bar(column, height, 0.9, top, color=to_rgba(color, 0.65), zorder=3 if new else 2, **frame)
    weight = "bold" if new else "normal"
    axis.text(column, top + height / 2, text, ha="center", va="center", fontsize=12, fontweight=weight, zorder=4)
