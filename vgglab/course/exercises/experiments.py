"""The exercises of lesson 08: intervals, and comparisons of one's own."""

import math
from collections.abc import Mapping

from vgglab.course.exercises.judge import Complaint, Judge, Measured, Value, Values
from vgglab.course.exercises.reading import Answer, Unreadable, unordered
from vgglab.course.experiments import Comparison, t_interval, t_quantile

LOW, HIGH = t_interval([0.4, 0.1, 0.5, 0.3, 0.2])


def significant(answer: Answer, findings: Mapping[str, Comparison]) -> Complaint:
    """Judge the labels of the findings that stay beside zero by Bonferroni's rule."""
    labels = unordered(answer)
    if not set(labels) <= set(findings):
        raise Unreadable
    right = [label for label, found in findings.items() if stays_beside_zero(found, len(findings))]
    missing, surplus = [x for x in right if x not in labels], [x for x in labels if x not in right]
    if missing:
        return f"{missing[0]} stays beside zero too; widen its interval by the ratio of the quantiles"
    return f"{surplus[0]}: its widened interval holds zero" if surplus else None


def stays_beside_zero(found: Comparison, comparisons: int) -> bool:
    """Whether the interval of one of so many comparisons lies beside zero at the level of Bonferroni's rule."""
    degrees = len(found.seeds) - 1
    widen = t_quantile(degrees, 1 - 0.05 / comparisons) / t_quantile(degrees)
    return abs(found.difference) > widen * (found.high - found.low) / 2


def compared(answer: Answer) -> Complaint:
    """Judge a Comparison of three seeds."""
    if not isinstance(answer, Comparison):
        raise Unreadable
    if len(answer.seeds) < 3:
        return f"three seeds, please, not {len(answer.seeds)}: seeds=3 in the experiment"
    return None


EXERCISES: dict[str, Judge] = {
    "EX-1": Values(
        "mean ± t · spread / √5: which t do five seeds need?",
        low=Value(LOW, {0.16: "1.96 is for many seeds", -0.14: "√5 is missing"}, step=0.01),
        high=Value(HIGH, {0.44: "1.96 is for many seeds", 0.74: "√5 is missing"}, step=0.01),
    ),
    "EX-2": Values(
        "the smallest n with t / √n · 0.4 below 0.3, and t itself depends on n",
        seeds=Value(
            next(n for n in range(2, 100) if t_quantile(n - 1) / math.sqrt(n) * 0.4 < 0.3),
            {7: "1.96 in place of t gives that; with few seeds t is larger", 9: "its interval still reaches 0.31"},
        ),
    ),
    "EX-3": Measured('a list of labels of findings: check("EX-3", answer, findings)', significant, Mapping),
    "EX-4": Measured("the Comparison that compare returns", compared),
}
