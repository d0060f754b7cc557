"""What a learner has done: the lines that the exercises' checks left in the saved notebooks."""

import csv
import re
from pathlib import Path

import nbformat

from vgglab._files import replacing
from vgglab.course.exercises import LESSONS, STATES

LINE = re.compile(rf"\[({'|'.join(STATES)})\] ([A-Z]+-\d+)\b")
NOT_RUN = "not run"


def progress(folder):
    """Return {exercise: "ok", "not yet", "todo" or "not run"} of the notebooks in folder, in the course's order.

    What counts is the last line that a check printed before the notebook was saved; no cell is run. Raises
    FileNotFoundError where there is no notebook, ValueError for a damaged one.
    """
    folder = Path(folder)
    paths = sorted(folder.glob("*.ipynb"))
    if not paths:
        raise FileNotFoundError(f"{folder} has no notebooks: name the folder with the saved .ipynb files")
    states = {exercise: NOT_RUN for lesson in LESSONS.values() for exercise in lesson}
    for path in paths:
        for state, exercise in LINE.findall(printed(path)):
            if exercise in states:
                states[exercise] = state
    return states


def printed(path):
    """Return all that the cells of a saved notebook with a check in them printed."""
    try:
        cells = nbformat.read(path, as_version=4).cells
        outputs = [out for cell in cells if "check(" in cell.source for out in cell.get("outputs", [])]
        return "".join(out.get("text", "") for out in outputs)
    except Exception as error:  # nbformat's own errors, JSON's, a file that cannot be read
        raise ValueError(f"{path} is not a notebook that can be read: {type(error).__name__}") from None


def table(states):
    """Return the lines that show a learner which exercises are done."""
    lines = []
    for lesson, exercises in LESSONS.items():
        done = [exercise for exercise in exercises if states[exercise] == "ok"]
        open_ones = [f"{exercise} ({states[exercise]})" for exercise in exercises if states[exercise] != "ok"]
        lines.append(f"{lesson:26} {len(done)} of {len(exercises)}  {', '.join(open_ones)}".rstrip())
    total = sum(map(len, LESSONS.values()))
    return [*lines, f"{'in all':26} {sum(state == 'ok' for state in states.values())} of {total}"]


def write_csv(folders, path):
    """Write a row for each learner's folder: its name, how many exercises are done, the state of each, or an error."""
    exercises = [exercise for lesson in LESSONS.values() for exercise in lesson]
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["learner", "done", "of", *exercises, "error"])
        for folder in folders:
            try:
                states = progress(folder)
                done = sum(state == "ok" for state in states.values())
                writer.writerow([learner(folder), done, len(exercises), *states.values(), ""])
            except (OSError, ValueError) as error:
                writer.writerow([learner(folder), "", len(exercises), *[""] * len(exercises), error])


def learner(folder):
    """Return whose folder it is: its name, or that of the one above where it is called notebooks."""
    folder = Path(folder).resolve()
    return folder.parent.name if folder.name == "notebooks" else folder.name


def add_progress(commands):
    """Add the command "progress" to the subparsers of python -m vgglab."""
    parser = commands.add_parser(
        "progress",
        help="which exercises are done",
        description="Read the checks' answers in saved notebooks and say which exercises are done. No cell is run.",
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="with a learner's saved notebooks")
    parser.add_argument("--csv", type=Path, help="write a table with one row for each folder to this file")
    parser.set_defaults(run=_command)


def _command(options):
    if options.csv:
        write_csv(options.folders, options.csv)
        print(f"{len(options.folders)} learners in {options.csv}")
        return
    for folder in options.folders:
        if len(options.folders) > 1:
            print(learner(folder))
        print(*table(progress(folder)), sep="\n")
