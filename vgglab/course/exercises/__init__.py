"""The checks behind the lessons' exercises: check("RF-2", answer) answers in one line."""

import torch

from vgglab import _checks as checks
from vgglab import machine
from vgglab.course.exercises.judge import Unanswered
from vgglab.course.exercises.lessons_01_to_04 import RECEPTIVE_FIELDS, RESPONSE_NORM, SMALL_KERNELS, START, VGG_BLOCKS
from vgglab.course.exercises.lessons_05_to_09 import EXPERIMENTS, NEIGHBOURS, SEEING, TESTING, TRAINING

__all__ = ["LESSONS", "STATES", "check", "verdict"]

LESSONS = {
    "00_start_here": START,
    "01_receptive_fields": RECEPTIVE_FIELDS,
    "02_small_kernels": SMALL_KERNELS,
    "03_local_response_norm": RESPONSE_NORM,
    "04_vgg_blocks": VGG_BLOCKS,
    "05_training": TRAINING,
    "06_testing_at_any_size": TESTING,
    "07_neighbours": NEIGHBOURS,
    "08_the_papers_experiments": EXPERIMENTS,
    "09_what_vgg_sees": SEEING,
}
STATES = ("ok", "todo", "not yet")


def check(exercise, answer, *given):
    """Print [ok], [todo] while answer is missing, or [not yet] with a counterexample and what to look at.

    answer is a value, or a function that is tried on inputs from small to large; given is what the exercise needs of
    the lesson. Raises ValueError for an exercise that there is not.
    """
    print(verdict(exercise, answer, *given))


def verdict(exercise, answer, *given):
    """Return the line that check prints."""
    judges = {name: judge for lesson in LESSONS.values() for name, judge in lesson.items()}
    judge = judges[checks.choice("exercise", exercise, judges)]
    try:
        with machine.own_random_state(torch.device("cpu")):
            complaint = judge(answer, *given)
    except Unanswered:
        return f"[todo] {exercise}: put your answer in and run this cell again"
    return f"[ok] {exercise}" if complaint is None else f"[not yet] {exercise}: {complaint}"
