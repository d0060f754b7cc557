"""The shipped benchmark as a figure: python benchmarks/figure.py cpu|gpu draws docs/benchmark-DEVICE.png anew."""

import sys
from pathlib import Path

import common

from vgglab.course.experiments.records import SHIPPED
from vgglab.course.figures.style import BLUE, GREY, figure


def ratios(record):
    """One bar for each comparison: how many times the book's images/s vgglab does, on a logarithmic axis."""
    from matplotlib.ticker import NullFormatter

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
    axis.set_yticklabels(name.replace(", bfloat16", "\nbfloat16 against float32") for name in comparisons)
    axis.set_xlim(0.8, 60 * max(row["ratio"] for row in comparisons.values()))
    axis.set_xticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    return fig


def draw(device):
    """Draw the figure of the shipped benchmark-DEVICE.json into docs/."""
    record = common.read(SHIPPED / f"benchmark-{device}.json")
    ratios(record).savefig(Path(__file__).parent.parent / "docs" / f"benchmark-{device}.png")


if __name__ == "__main__":
    draw(sys.argv[1])
