"""The exercises of lesson 08: intervals, and comparisons of one's own."""

from collections.abc import Mapping

from vgglab.course.exercises.judge import Answer, Judge, answered, shown, value
from vgglab.course.experiments import Comparison, t_quantile


def significant(answer: Answer, findings: Mapping[str, Comparison]) -> str | None:
    """Judge the labels of the findings that stay beside zero by Bonferroni's rule."""
    answer = answered(answer) if answer != [] else answer
    if not isinstance(answer, (list, tuple, set)) or not set(answer) <= set(findings):
        return f"it takes a list of labels of findings, not {shown(answer)}"
    right = [label for label, found in findings.items() if stays_beside_zero(found, len(findings))]
    missing, surplus = [x for x in right if x not in answer], [x for x in answer if x not in right]
    if missing:
        return f"{missing[0]} stays beside zero too; widen its interval by the ratio of the quantiles"
    return f"{surplus[0]}: its widened interval holds zero" if surplus else None


def stays_beside_zero(found: Comparison, comparisons: int) -> bool:
    """Whether the interval of one of so many comparisons lies beside zero at the level of Bonferroni's rule."""
    degrees = len(found.seeds) - 1
    widen = t_quantile(degrees, 1 - 0.05 / comparisons) / t_quantile(degrees)
    return abs(found.difference) > widen * (found.high - found.low) / 2


def compared(answer: Answer) -> str | None:
    """Judge a Comparison of three seeds."""
    answer = answered(answer)
    if not isinstance(answer, Comparison):
        return f"it takes the Comparison that compare returns, not {shown(answer)}"
    if len(answer.seeds) < 3:
        return f"three seeds, please, not {len(answer.seeds)}: seeds=3 in the experiment"
    return None


EXERCISES: dict[str, Judge] = {
    "EX-1": value(
        (0.10, 0.50),
        "mean ± t · spread / √5, with t = 2.776",
        [
            ((0.16, 0.44), "1.96 is for many seeds; five need t = 2.776"),
            ((-0.14, 0.74), "divide the spread by √5"),
        ],
    ),
    "EX-2": value(
        10,
        "the smallest n with t / √n · 0.4 below 0.3, and t itself depends on n",
        [
            (7, "1.96 in place of t gives that; with few seeds t is larger"),
            (9, "with nine the interval still reaches 0.31"),
        ],
    ),
    "EX-3": significant,
    "EX-4": compared,
}
