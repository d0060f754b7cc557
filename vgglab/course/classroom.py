"""What a learner has done: the lines that the exercises' checks left in the saved notebooks."""

import csv
import glob
import re
from argparse import Namespace
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from vgglab._checks import FilePath, checked, extra
from vgglab._files import replacing
from vgglab.course.exercises import JUDGES, LESSONS, STATES

LINE = re.compile(rf"\[({'|'.join(STATES)})\] ([A-Z]+-\d+)\b")


@checked
def progress(folder: FilePath) -> dict[str, str]:
    """Return {exercise: "ok", "not yet", "todo" or "not run"} of the notebooks in folder, in the course's order.

    What counts is the last line that a check printed before the notebook was saved; no cell is run. Raises
    FileNotFoundError where there is no notebook, ValueError for a damaged one.
    """
    paths = sorted(Path(folder).glob("*.ipynb"))
    if not paths:
        raise FileNotFoundError(f"{folder} has no notebooks: name the folder with the saved .ipynb files")
    said = {exercise: state for path in paths for state, exercise in LINE.findall(printed(path))}
    return {exercise: said.get(exercise, "not run") for exercise in JUDGES}


def printed(path: Path) -> str:
    """Return all that the cells of a saved notebook with a check in them printed."""
    with extra("course"):
        import nbformat
    try:
        cells = nbformat.read(path, as_version=4).cells
        outputs = [out for cell in cells if "check(" in cell.source for out in cell.get("outputs", [])]
        return "".join(out.get("text", "") for out in outputs)
    except Exception as error:  # nbformat's own errors, JSON's, a file that cannot be read
        raise ValueError(f"{path} is not a notebook that can be read: {type(error).__name__}") from None


def table(states: dict[str, str]) -> Iterator[str]:
    """Yield the lines that show a learner which exercises are done."""
    for lesson, exercises in LESSONS.items():
        left = [f"{exercise} ({states[exercise]})" for exercise in exercises if states[exercise] != "ok"]
        yield f"{lesson:26} {len(exercises) - len(left)} of {len(exercises)}  {', '.join(left)}".rstrip()
    yield f"{'in all':26} {list(states.values()).count('ok')} of {len(states)}"


def write_csv(folders: Iterable[Path], path: Path) -> None:
    """Write a row for each learner's folder: its name, how many exercises are done, the state of each, or an error."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["learner", "done", "of", *JUDGES, "error"])
        writer.writeheader()
        for folder in folders:
            row = {"learner": learner(folder), "of": len(JUDGES)}
            try:
                states = progress(folder)
                writer.writerow(row | {"done": list(states.values()).count("ok")} | states)
            except (OSError, ValueError) as error:
                writer.writerow(row | {"error": error})


def learner(folder: Path) -> str:
    """Return whose folder it is: its name, or that of the one above where it is called notebooks."""
    folder = folder.resolve()
    return folder.parent.name if folder.name == "notebooks" else folder.name


def add_progress(commands: Any) -> None:
    """Add the command "progress" to the subparsers of python -m vgglab."""
    parser = commands.add_parser(
        "progress",
        help="which exercises are done",
        description="Read the checks' answers in saved notebooks and say which exercises are done. No cell is run.",
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="with a learner's saved notebooks")
    parser.add_argument("--csv", type=Path, help="write a table with one row for each folder to this file")
    parser.set_defaults(run=_command)


def _command(options: Namespace) -> None:
    folders: list[Path] = []
    for folder in options.folders:  # the shells of Windows hand a pattern such as class/* on as it is
        folders += [folder] if folder.exists() else map(Path, sorted(glob.glob(str(folder))) or [folder])
    if options.csv:
        write_csv(folders, options.csv)
        print(f"{len(folders)} learners in {options.csv}")
        return
    for folder in folders:
        if len(folders) > 1:
            print(learner(folder))
        print(*table(progress(folder)), sep="\n")
