"""One look for every figure of the course: large text, quiet axes, colours that colour-blind readers tell apart."""

from typing import Any

from matplotlib import rc_context, rcsetup
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN = "#0072B2", "#E69F00", "#009E73"
PINK, SKY, RED, GREY = "#CC79A7", "#56B4E9", "#D55E00", "#7F7F7F"
PALETTE = (BLUE, ORANGE, GREEN, PINK, SKY, RED)
MARKERS = ("o", "s", "^", "D", "v", "P")

STYLE: dict[Any, Any] = {
    "font.size": 13,
    "axes.titlesize": 14,
    "axes.labelsize": 13,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.3,
    "lines.linewidth": 2.2,
    "legend.frameon": False,
    "figure.dpi": 90,
    "axes.prop_cycle": rcsetup.cycler(color=PALETTE),
}


def figure(rows: int = 1, columns: int = 1, size: tuple[float, float] = (10, 4), **kwargs: Any) -> tuple[Figure, Any]:
    """Return (figure, axes) in the course's style, size in inches; kwargs go to Figure.subplots."""
    with rc_context(STYLE):
        fig = Figure(figsize=size, layout="constrained", dpi=STYLE["figure.dpi"])
        return fig, fig.subplots(rows, columns, **kwargs)


def picture_grid(rows: int, columns: int, size: tuple[float, float], **kwargs: Any) -> tuple[Figure, Any]:
    """Return (figure, axes (rows, columns)) for pictures, without frames and ticks."""
    fig, axes = figure(rows, columns, size, squeeze=False, **kwargs)
    for axis in axes.flat:
        axis.set_axis_off()
    return fig, axes
