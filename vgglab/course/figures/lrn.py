"""Figures of local response normalization: one position's channels, still and moving, and curves."""

from collections.abc import Callable

from ipywidgets import FloatLogSlider, VBox
from torch import Tensor

from vgglab.course.figures.moving import moving
from vgglab.course.figures.style import BLUE, GREY, MARKERS, ORANGE, Figure, figure


def lrn_spike(before: Tensor, after: Tensor, kept: Tensor) -> Figure:
    """Bars of one position's channels before and after, and the share of its lone response that each unit keeps."""
    fig, axes = figure(1, 3, size=(14, 4))
    panels = [
        ("Before", before, GREY, "response"),
        ("After", after, BLUE, "response"),
        ("What the neighbours leave", kept, ORANGE, "share of the response alone"),
    ]
    for axis, (title, values, color, label) in zip(axes, panels, strict=True):
        axis.bar(range(len(values)), values, color=color)
        axis.set(title=title, xlabel="channel", ylabel=label, xticks=range(0, len(values), 2))
        axis.grid(axis="x", visible=False)
    axes[2].set_ylim(0, 1.05)
    return fig


def lrn_channels(before: Tensor, after: Tensor) -> Figure:
    """One position's channels before and after the layer, and the divisors, on scales where equal steps are ratios."""
    fig, (responses, divisors) = figure(1, 2, size=(10, 3.8))
    responses.plot(before, "o", color=GREY, markersize=9, label="before")
    responses.plot(after, "s", color=BLUE, markersize=8, label="after")
    divisors.plot(before / after, "D", color=ORANGE, markersize=8)
    responses.set(yscale="log", ylim=(0.05, 400), yticks=(1, 10, 100), title="Response")
    divisors.set(yscale="log", ylim=(0.9, 110), yticks=(1, 3, 10, 30, 100), title="Divided by")
    for axis in fig.axes:
        axis.set(xlabel="channel", xticks=range(0, len(before), 3))
        axis.minorticks_off()
        axis.yaxis.set_major_formatter("{x:g}")
    responses.legend(loc="lower center", ncols=2)
    return fig


def move_lrn(before: Tensor, layer: Callable[..., Tensor]) -> VBox:
    """A lrn_channels that follows sliders for the settings n, k, alpha and beta of layer, which takes (1, C, 1, 1)."""
    fig = lrn_channels(before, before)
    _, after = fig.axes[0].lines
    (divisors,) = fig.axes[1].lines

    def draw(n: int = 5, k: float = 2.0, alpha: float = 1e-4, beta: float = 0.75) -> Figure:
        normalized = layer(before.view(1, -1, 1, 1), n, k, alpha, beta).flatten()
        after.set_ydata(normalized)
        divisors.set_ydata(before / normalized)
        return fig

    logarithmic = FloatLogSlider(1e-4, min=-6, max=-3, step=0.25)
    return moving(draw, n=(1, 9, 2), k=(1.0, 4.0, 0.5), alpha=logarithmic, beta=(0.0, 1.0, 0.25))


def lrn_curves(responses: Tensor, outputs: dict[str, Tensor]) -> Figure:
    """One curve over responses for each label of outputs, with its highest point where that is not the last."""
    fig, axis = figure(size=(9, 4.5))
    for marker, (label, values) in zip(MARKERS, outputs.items(), strict=False):
        (line,) = axis.plot(responses, values, marker=marker, markevery=len(values) // 8, label=label)
        peak = values.argmax()
        if peak < len(values) - 1:
            place, text = (responses[peak], values[peak]), f"highest at {responses[peak]:.0f}"
            axis.annotate(text, place, (0, 8), textcoords="offset points", ha="center", color=line.get_color())
    axis.set(xlabel="response of all five channels", ylabel="response after the layer")
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return fig
