"""The benchmark's record as a figure."""

from vgglab.plots.style import BLUE, GREY, figure


def ratios(record):
    """One bar for each comparison: how many times the book's images/s vgglab does, on a logarithmic axis."""
    comparisons = record["comparisons"]
    fig, axis = figure(size=(11, 0.62 * len(comparisons) + 1.4))
    for row, comparison in enumerate(comparisons.values()):
        axis.barh(row, comparison["ratio"], color=BLUE)
        rates = [comparison[side]["images_per_second"] for side in ("d2l", "vgglab")]
        axis.text(
            comparison["ratio"], row, f"  {comparison['ratio']:.1f}×   ({rates[1]:,.0f} against {rates[0]:,.0f})",
            va="center",
        )  # fmt: skip
    axis.axvline(1, color=GREY)
    axis.set(xscale="log", xlabel="vgglab's images/s divided by d2l's", yticks=range(len(comparisons)))
    axis.set_yticklabels(comparisons)
    axis.set_xlim(0.7, 8 * max(row["ratio"] for row in comparisons.values()))
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    return fig
