"""The rooms of the module: who imports whom, where the README shows them, and that all that is public is tested."""

import ast
import importlib
import inspect
import re
from pathlib import Path

import nbformat
import pytest
from test_bad_input import DOORS

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "vgglab").rglob("*.py"))
ANYWHERE = {"_checks", "_files", "machine"}
ROOMS = {
    "_checks": set(),
    "_files": {"_checks"},
    "machine": {"_checks"},
    "_table": set(),
    "lrn": ANYWHERE,
    "models": ANYWHERE | {"lrn"},
    "_trace": ANYWHERE,
    "_rules": ANYWHERE | {"_trace"},
    "_walk": ANYWHERE | {"_trace", "_rules"},
    "receptive_field": ANYWHERE | {"_trace", "_rules", "_walk", "_table"},
    "cost": ANYWHERE | {"_trace", "_table"},
    "data": ANYWHERE,
    "training": ANYWHERE | {"data", "models"},
    "inference": ANYWHERE | {"data", "models", "_trace"},
    "seeing": ANYWHERE | {"data", "receptive_field", "_trace"},
}
EVERY_ROOM = {"course", "commands", "__main__", "__init__"}


def imported(tree):
    """The parts of vgglab that a file imports, as paths: ("course", "figures"), ("models",)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1:] for alias in node.names if alias.name.startswith("vgglab."))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "vgglab":
            parts = node.module.split(".")[1:]
            yield from ([*parts, alias.name] for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_what_the_table_allows(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    room, *inside = path.relative_to(ROOT / "vgglab").with_suffix("").parts
    for other, *rest in imported(tree):
        if room not in EVERY_ROOM:
            assert other in {room} | ROOMS[room], f"{room} must not import {other}"
        if room == "course" and other == "course" and rest:
            assert rest[0] in {inside[0], "experiments"} or inside[0] == "classroom", f"{path.name} imports {rest[0]}"


def test_every_room_is_in_the_table_and_in_the_readmes_map_and_nothing_else_is():
    rooms = {path.relative_to(ROOT / "vgglab").parts[0] for path in FILES}
    assert {Path(room).stem for room in rooms} == ROOMS.keys() | EVERY_ROOM
    the_map = re.search(r"\| room .*?\n\n", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)[0]
    named = {name.removeprefix("vgglab/").rstrip("/") for name in re.findall(r"`([\w/]+(?:/|\.py))`", the_map)}
    assert named == rooms - {"__init__.py"}


@pytest.mark.parametrize("folder", ("vgglab", "tests", "tools", "benchmarks"))
def test_a_file_can_be_read_in_one_sitting(folder):
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / folder).rglob("*.py")}
    assert {path.name: lines for path, lines in lengths.items() if lines > 400} == {}


def public_functions():
    """Those that the reference shows, by their modules; its classes are what these take and return."""
    reference = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    for module, members in re.findall(r"automodule:: (\S+)\n +:members:(.*)", reference):
        for name, one in vars(importlib.import_module(module)).items():
            if inspect.isfunction(one) and one.__module__.startswith(module) and not name.startswith("_"):
                if not members or name in members.split(", "):
                    yield f"{one.__module__.split('.')[-1]}.{name}"


def test_every_public_function_is_called_in_a_test_or_a_lesson():
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("*.py")]
    lessons = [nbformat.read(path, as_version=4).cells for path in (ROOT / "notebooks").glob("*.ipynb")]
    cells = [cell.source for lesson in lessons for cell in lesson if cell.cell_type == "code"]
    trees = [ast.parse(re.sub(r"(?m)^\s*[%!].*", "", text)) for text in texts + cells]
    calls = [node.func for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    called = {getattr(function, "id", getattr(function, "attr", None)) for function in calls}
    functions = set(public_functions())
    assert len(functions) > 40
    assert {name for name in functions - DOORS.keys() if name.split(".")[1] not in called} == set()
