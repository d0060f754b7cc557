"""Figures of local response normalization: one position's channels, and curves."""

from torch import Tensor

from vgglab.course.figures.style import BLUE, GREY, MARKERS, ORANGE, Figure, figure


def lrn_spike(before: Tensor, after: Tensor, kept: Tensor) -> Figure:
    """Bars of one position's channels before and after, and the share of its lone response that each unit keeps."""
    fig, axes = figure(1, 3, size=(14, 4))
    panels = [
        ("Before", before, GREY, "response"),
        ("After", after, BLUE, "response"),
        ("Inhibited by the neighbours", kept, ORANGE, "share of the lone response"),
    ]
    for axis, (title, values, color, label) in zip(axes, panels, strict=True):
        axis.bar(range(len(values)), values, color=color)
        axis.set(title=title, xlabel="channel", ylabel=label, xticks=range(0, len(values), 2))
        axis.grid(axis="x", visible=False)
    axes[2].set_ylim(0, 1.05)
    return fig


def lrn_curves(responses: Tensor, outputs: dict[str, Tensor]) -> Figure:
    """One curve over responses for each label of outputs."""
    fig, axis = figure(size=(9, 4.5))
    for marker, (label, values) in zip(MARKERS, outputs.items(), strict=False):
        axis.plot(responses, values, marker=marker, markevery=len(values) // 8, label=label)
    axis.set(xlabel="response of all five channels", ylabel="response after the layer")
    axis.legend()
    return fig
