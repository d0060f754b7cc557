"""Figures of VGG's configurations and of where their parameters and activations are."""

from matplotlib.axes import Axes

from vgglab.cost import Ledger
from vgglab.course.figures.style import BLUE, GREEN, GREY, ORANGE, PINK, SKY, Figure, figure

KINDS = {"input": ("input", GREY), "Conv2d": ("conv", BLUE), "MaxPool2d": ("pool", SKY), "Linear": ("FC", ORANGE)}
FC = ("FC-4096", "FC-4096", "FC-1000")


def configurations(configs: dict[str, tuple[tuple[str, ...], ...]]) -> Figure:
    """Configurations such as VGG_CONFIGS as columns, equal blocks at equal heights."""
    fig, axis = figure(size=(13, 9))
    heights = [max(map(len, blocks)) for blocks in zip(*configs.values(), strict=True)]
    for column, blocks in enumerate(configs.values()):
        top = 0.0
        for layers, height in zip(blocks, heights, strict=True):
            for row, layer in enumerate(layers):
                color = {"conv3": SKY, "conv1": ORANGE, "LRN": PINK}[layer.split("-")[0]]
                _box(axis, column, top + row, layer, color)
            _box(axis, column, top + height, "2×2 max-pooling", "white", height=0.6)
            top += height + 0.8
        for row, layer in enumerate(FC):
            _box(axis, column, top + row, layer, GREEN)
    axis.set(xlim=(-0.5, len(configs) - 0.5), ylim=(top + len(FC), -0.1), xticks=range(len(configs)), yticks=[])
    axis.set_xticklabels(configs, fontsize=16)
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
        axis.bar_label(bars, [f"{value:.1f}" if value >= 0.05 else "" for value in values], padding=3, fontsize=11)
        axis.set(xlabel=f"{column} (millions)", xlim=(0, 1.12 * max(values)))
        axis.grid(axis="y", visible=False)
    axes[0].set_yticks(range(len(rows)), names, fontsize=12)
    axes[0].invert_yaxis()
    return fig


def _box(axis: Axes, column: int, top: float, text: str, color: str, height: float = 0.92) -> None:
    axis.bar(column, height, 0.9, top, color=color, alpha=0.65 if color != "white" else 1, edgecolor=GREY)
    axis.text(column, top + height / 2, text, ha="center", va="center", fontsize=12)
