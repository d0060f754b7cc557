"""Figures of VGG's configurations and of where their parameters and activations are."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.patches import Patch

from vgglab.cost import Ledger
from vgglab.course.figures.style import BLUE, GREEN, GREY, ORANGE, PINK, SKY, Figure, figure

KINDS = {"input": ("input", GREY), "Conv2d": ("conv", BLUE), "MaxPool2d": ("pool", SKY), "Linear": ("FC", ORANGE)}
FC = ("FC-4096", "FC-4096", "FC-1000")


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
