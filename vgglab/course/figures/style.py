"""One look for every figure of the course: large text, quiet axes, colours that colour-blind readers tell apart."""

import matplotlib
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PINK, SKY, RED, YELLOW, GREY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#F0E442",
    "#7F7F7F",
)
PALETTE = (BLUE, ORANGE, GREEN, PINK, SKY, RED)
MARKERS = ("o", "s", "^", "D", "v", "P")

STYLE = {
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
    "axes.prop_cycle": matplotlib.cycler(color=PALETTE),
}


def figure(rows=1, columns=1, size=(10, 4), **kwargs):
    """Return (figure, axes) in the course's style, size in inches; kwargs go to Figure.subplots."""
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=size, layout="constrained", dpi=STYLE["figure.dpi"])
        return fig, fig.subplots(rows, columns, **kwargs)
