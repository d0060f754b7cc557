"""Figures of recorded experiments: errors seed by seed, paired differences, verdicts, what learned at all."""

from math import isfinite

from vgglab.course.experiments.records import t_interval
from vgglab.course.figures.style import BLUE, GREY, ORANGE, RED, figure

LEARNED = "cividis"
VERDICTS = {"first is better": (BLUE, "o"), "second is better": (RED, "s"), "cannot tell": (GREY, "D")}


def error_rates(panels, sharex=False):
    """Errors (%) in panels side by side, for a dict of titles and {label: list of errors}.

    One value is a diamond; of several, each is a dot, above them their mean and its 95 % interval by Student's t.
    """
    labels = list(dict.fromkeys(label for rows in panels.values() for label in rows))
    size = (max(10, 4.4 * len(panels)), 0.62 * len(labels) + 1.5)
    fig, axes = figure(1, len(panels), size=size, sharey=True, sharex=sharex, squeeze=False)
    for axis, (title, rows) in zip(axes[0], panels.items(), strict=True):
        for label, values in rows.items():
            place = labels.index(label)
            if len(values) == 1:
                axis.plot(values, [place], "D", color=ORANGE, markersize=10)
                axis.annotate(f"{values[0]:.1f}", (values[0], place), (9, 0), textcoords="offset points", va="center")
            else:
                _seeds(axis, values, place, BLUE, "o")
        axis.set(title=title, xlabel="error (%)")
        axis.margins(x=0.16)
    axes[0][0].set_yticks(range(len(labels)), labels)
    axes[0][0].set_ylim(len(labels) - 0.5, -0.5)
    return fig


def pairing(record, a, b):
    """The accuracies of rows a and b of a Record, joined seed by seed, and beside them their differences.

    The differences carry both intervals of the Comparison: Student's t, and the bootstrap, which is too narrow.
    """
    accuracies, compared = record.accuracies(), record.compare(a, b)
    one, other = ([100 * accuracies[row][seed] for seed in compared.seeds] for row in (a, b))
    fig, (left, right) = figure(1, 2, size=(12, 4.4), width_ratios=(1, 1.5))
    for x, y in zip(other, one, strict=True):
        left.plot([0, 1], [x, y], "o-", color=GREY, markerfacecolor=BLUE, markeredgecolor=BLUE, markersize=9)
    left.set(xlim=(-0.3, 1.3), xticks=[0, 1], ylabel="test images right (%)", title="one line for each seed")
    left.set_xticklabels([b, a])
    left.grid(axis="x", visible=False)
    differences = [x - y for x, y in zip(one, other, strict=True)]
    right.plot(differences, [0] * len(differences), "o", color=BLUE, markersize=9)
    intervals = {"by Student's t": (compared.low, compared.high), "by bootstrap": compared.bootstrap}
    for place, (low, high), color in zip((1, 2), intervals.values(), (BLUE, ORANGE), strict=True):
        _interval(right, compared.difference, low, high, place, color, "D")
    right.axvline(0, color="black", linewidth=1)
    right.set(title=f"{a} minus {b}: mean, two 95 % intervals", xlabel="percentage points", ylim=(2.6, -0.6))
    right.set_yticks(range(3), ["each seed", *intervals])
    return fig


def forest(rows):
    """Paired differences with their 95 % intervals, for a dict of labels and (Record, a, b): accuracy of a minus b.

    Each seed is a dot; colour and marker say whether the interval lies above, below or across zero.
    """
    fig, axis = figure(size=(12, 0.5 * len(rows) + 1.7))
    for place, (record, a, b) in enumerate(rows.values()):
        accuracies, compared = record.accuracies(), record.compare(a, b)
        values = [100 * (accuracies[a][seed] - accuracies[b][seed]) for seed in compared.seeds]
        verdict = "first is better" if compared.low > 0 else "second is better" if compared.high < 0 else "cannot tell"
        _seeds(axis, values, place, *VERDICTS[verdict])
    axis.axvline(0, color="black", linewidth=1)
    axis.set(xlabel="← second is better · points of accuracy · first is better →", ylim=(len(rows) - 0.4, -0.6))
    axis.set_yticks(range(len(rows)), rows)
    handles = [axis.plot([], [], marker, color=color, label=name)[0] for name, (color, marker) in VERDICTS.items()]
    axis.legend(handles=handles, loc="upper left", bbox_to_anchor=(1, 1))
    return fig


def learned_grid(record, columns, rows):
    """How many runs of each network "column, row" of a Record learned, as a grid, and below it their mean accuracy.

    A network that the record does not have leaves its cell empty.
    """
    table = {row["row"]: row for row in record.table()}
    cells = [[table.get(f"{column}, {row}") for column in columns] for row in rows]
    fig, axis = figure(size=(1.7 * len(columns) + 2.6, 0.85 * len(rows) + 1))
    shares = [[cell["learned"] / cell["runs"] if cell else float("nan") for cell in line] for line in cells]
    shown = axis.imshow(shares, cmap=LEARNED, vmin=0, vmax=1, aspect="auto")
    for y, line in enumerate(cells):
        for x, cell in enumerate(line):
            color = "black" if cell and shares[y][x] > 0.5 else "white"
            text = f"{cell['learned']} of {cell['runs']}\n{100 * cell['accuracy']:.0f} % right" if cell else "–"
            axis.text(x, y, text, ha="center", va="center", color=color if cell else "black")
    axis.set_xticks(range(len(columns)), columns)
    axis.set_yticks(range(len(rows)), rows)
    axis.set_xlabel("configuration, from 11 to 19 weight layers")
    axis.grid(visible=False)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    fig.colorbar(shown, ax=axis, label="share of runs that learned")
    return fig


def _seeds(axis, values, place, color, marker):
    """A dot for each of values at height place, and just above them their mean and its interval."""
    axis.plot(values, [place + 0.14] * len(values), "o", color=color, alpha=0.45, markersize=6, markeredgewidth=0)
    _interval(axis, sum(values) / len(values), *t_interval(values), place - 0.14, color, marker)


def _interval(axis, mean, low, high, place, color, marker):
    if isfinite(low):
        axis.plot([low, high], [place, place], color=color, solid_capstyle="butt", linewidth=3)
    axis.plot([mean], [place], marker, color=color, markersize=9, markeredgecolor="white", zorder=3)
