"""What a learner has done: the lines that the exercises' checks left in the saved notebooks."""

import csv
import glob
import json
import os
import re
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vgglab._checks import FilePath, checked
from vgglab._files import replacing
from vgglab.course.exercises import JUDGES, LESSONS, MARK, STATES
from vgglab.course.exercises.reading import printable

LINE = re.compile(rf"^\[({'|'.join(STATES)})\] ([A-Z]+-\d+)(?=:|$)", re.MULTILINE)
CALL = re.compile(r"""^[^#\n]*\bcheck\(\s*["']([A-Z]+-\d+)["']""", re.MULTILINE)
FORMULAS = tuple("=+-@＝＋－＠")


class Progress(dict[str, str]):
    """{exercise: "ok", "not yet", "todo" or "not run"}; unreadable maps a notebook that cannot be read to why."""

    unreadable: dict[str, str]


@checked
def progress(folder: FilePath) -> Progress:
    """Return the Progress of the notebooks in folder, in the course's order.

    What counts is the last line that a check left in its own cell before the notebook was saved, and of several copies
    the best; no cell is run. Raises FileNotFoundError where there is no notebook.
    """
    paths = sorted(path for path in Path(folder).glob("*.ipynb") if not path.name.startswith("."))
    if not paths:
        raise FileNotFoundError(
            f"{printable(str(folder))} has no notebooks: name the folder with the saved .ipynb files"
        )
    order = (*STATES, "not run")
    states = Progress(dict.fromkeys(JUDGES, "not run"))
    states.unreadable = {}
    for path in paths:
        try:
            for exercise, state in said(path):
                states[exercise] = min(states[exercise], state, key=order.index)
        except Exception as error:  # no file, no JSON, or JSON that is no notebook
            states.unreadable[path.name] = f"not a notebook that can be read: {type(error).__name__}"
    return states


def said(path: Path) -> list[tuple[str, str]]:
    """Return (exercise, state) for each cell of a saved notebook, as its own check left it."""
    if not path.is_file():
        raise FileNotFoundError(path)
    found = []
    for cell in json.loads(path.read_text(encoding="utf-8-sig"))["cells"]:
        names = set(CALL.findall("".join(cell["source"]))) & JUDGES.keys()
        outputs = cell.get("outputs", []) if names else []
        marked = ["".join(out["data"]["text/plain"]) for out in outputs if MARK in out.get("metadata", {})]
        printed = "".join("".join(out["text"]) for out in outputs if out.get("name") == "stdout")
        last = {exercise: state for state, exercise in LINE.findall("\n".join(marked) if marked else printed)}
        found += [(exercise, state) for exercise, state in last.items() if exercise in names]
    return found


def table(states: Progress) -> Iterator[str]:
    """Yield the lines that show a learner which exercises are done."""
    for lesson, exercises in LESSONS.items():
        left = [f"{exercise} ({states[exercise]})" for exercise in exercises if states[exercise] != "ok"]
        yield f"{lesson:26} {len(exercises) - len(left)} of {len(exercises)}  {', '.join(left)}".rstrip()
    yield f"{'in all':26} {list(states.values()).count('ok')} of {len(states)}"
    for name, reason in states.unreadable.items():
        yield f"{printable(name)} is {reason}"


def write_csv(folders: Sequence[Path], path: Path) -> None:
    """Write a row for each learner's folder: its name, how many exercises are done, the state of each, or an error."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["learner", "done", "of", *JUDGES, "error"], quoting=csv.QUOTE_ALL)
        writer.writeheader()
        for folder, name in zip(folders, learners(folders), strict=True):
            row: dict[str, Any] = {"learner": name, "of": len(JUDGES)}
            try:
                states = progress(folder)
                errors = [f"{notebook} is {reason}" for notebook, reason in states.unreadable.items()]
                row |= {"done": list(states.values()).count("ok")} | states | {"error": "; ".join(errors)}
            except (OSError, ValueError) as error:
                row["error"] = str(error)
            writer.writerow({column: harmless(str(value)) for column, value in row.items()})


def harmless(text: str) -> str:
    """Return a text that a spreadsheet takes for a text, and in which no character acts."""
    text = printable(text)
    return f"'{text}" if text.lstrip().startswith(FORMULAS) else text


def learners(folders: Sequence[Path]) -> list[str]:
    """Return whose folders these are: a folder's name, that above "notebooks", or the whole path where two agree."""
    paths = [Path(os.path.abspath(folder)) for folder in folders]
    names = [(path.parent if path.name == "notebooks" else path).name for path in paths]
    once = {name for name, count in Counter(names).items() if name and count == 1}
    return [printable(name if name in once else str(path)) for name, path in zip(names, paths, strict=True)]


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
    for folder, name in zip(folders, learners(folders), strict=True):
        try:
            lines = table(progress(folder))
        except (OSError, ValueError) as error:
            if len(folders) == 1:
                raise
            lines = iter([str(error)])
        print(*[name] * (len(folders) > 1), *lines, sep="\n")
