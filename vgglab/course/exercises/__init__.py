"""The checks behind the lessons' exercises: check("RF-2", answer) answers in one line."""

import torch

from vgglab import _checks as checks
from vgglab.course.exercises import (
    experiments,
    lrn,
    neighbours,
    receptive_fields,
    seeing,
    small_kernels,
    start,
    testing,
    training,
    vgg_blocks,
)
from vgglab.course.exercises.judge import Answer, Unanswered

LESSONS = {
    "00_start_here": start.EXERCISES,
    "01_receptive_fields": receptive_fields.EXERCISES,
    "02_small_kernels": small_kernels.EXERCISES,
    "03_local_response_norm": lrn.EXERCISES,
    "04_vgg_blocks": vgg_blocks.EXERCISES,
    "05_training": training.EXERCISES,
    "06_testing_at_any_size": testing.EXERCISES,
    "07_neighbours": neighbours.EXERCISES,
    "08_the_papers_experiments": experiments.EXERCISES,
    "09_what_vgg_sees": seeing.EXERCISES,
}
JUDGES = {exercise: judge for lesson in LESSONS.values() for exercise, judge in lesson.items()}
STATES = ("ok", "todo", "not yet")


def check(exercise: str, answer: Answer, *given: Answer) -> None:
    """Print [ok], [todo] while answer is missing, or [not yet] with a counterexample and what to look at.

    answer is a value, or a function that is tried on inputs from small to large; given is what the exercise needs of
    the lesson. Raises ValueError for an exercise that there is not.
    """
    print(verdict(exercise, answer, *given))


def verdict(exercise: str, answer: Answer, *given: Answer) -> str:
    """Return the line that check prints."""
    judge = JUDGES[checks.choice("exercise", exercise, JUDGES)]
    try:
        with torch.random.fork_rng([]):
            complaint = judge(answer, *given)
    except Unanswered:
        return f"[todo] {exercise}: put your answer in and run this cell again"
    return f"[ok] {exercise}" if complaint is None else f"[not yet] {exercise}: {complaint}"
