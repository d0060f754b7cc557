"""The checks behind the lessons' exercises: check("RF-2", answer) answers in one line."""

import sys

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
from vgglab.course.exercises.judge import SECONDS, Judge, TimeUp, time_limit
from vgglab.course.exercises.reading import Answer, Unanswered, printable, shown

LESSONS: dict[str, dict[str, Judge]] = {
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
STATES = ("ok", "not yet", "todo")  # the best first
MARK = "vgglab"  # in the metadata of an output: a check wrote it


def check(exercise: str, *answer: Answer) -> None:
    """Print [ok], [todo] while the answer is missing, or [not yet] and what to look at.

    An answer is a value, or a function that is tried on inputs from small to large, followed by what the exercise
    needs of the lesson. Whatever it is, nothing is raised but the KeyboardInterrupt of who stops the cell; a loop
    without an end is stopped after 7 seconds in the main thread (by SIGALRM; in other threads and on Windows it is
    not). Raises ValueError for an exercise that there is not.
    """
    line = verdict(exercise, *answer)
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is None:
        print(line)
    else:  # apart from what the cell prints, so that it can be told from it in the saved notebook
        shell.display_pub.publish({"text/plain": line}, {MARK: exercise})


def verdict(exercise: str, *answer: Answer) -> str:
    """Return the line that check prints."""
    judge = JUDGES[checks.choice("exercise", exercise if isinstance(exercise, str) else shown(exercise), JUDGES)]
    try:
        with torch.random.fork_rng([]), time_limit(SECONDS):
            complaint = _judged(judge, *(answer or (None,)))
    except Unanswered:
        return f"[todo] {exercise}: put your answer in and run this cell again"
    except TimeUp:
        complaint = f"it takes longer than {SECONDS} seconds: does every loop in it end?"
    return f"[ok] {exercise}" if complaint is None else f"[not yet] {exercise}: {printable(complaint)}"


def _judged(judge: Judge, *answer: Answer) -> str | None:
    """What the judge says; where it cannot read the answer, or an odd one makes it fail, which form is wanted."""
    try:
        return judge(*answer)
    except (Unanswered, TimeUp, KeyboardInterrupt):
        raise
    except BaseException:
        return f"it takes {judge.form}, not {shown(answer[0])}"
