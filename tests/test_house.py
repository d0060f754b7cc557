"""The rooms of the module: who imports whom, what an import loads, and that every file can be read in one sitting."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

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
    at_the_top = set(ast.walk(ast.Module([node for node in tree.body if not isinstance(node, ast.FunctionDef)], [])))
    for other, *rest in imported(tree):
        if room not in EVERY_ROOM:
            assert other in {room} | ROOMS[room], f"{room} must not import {other}"
        if room == "course" and other == "course" and rest:
            assert rest[0] in {inside[0], "experiments"} or inside[0] == "classroom", f"{path.name} imports {rest[0]}"
    if room in ("__main__", "commands"):
        loaded = {other for other, *_ in imported(ast.Module(list(at_the_top & set(tree.body)), []))}
        assert "course" not in loaded, f"{room} imports the course before it is asked for"


def test_every_room_is_in_the_table():
    assert {path.relative_to(ROOT / "vgglab").with_suffix("").parts[0] for path in FILES} == ROOMS.keys() | EVERY_ROOM


def test_the_core_loads_neither_pictures_nor_notebooks_nor_torchvision():
    program = (
        "import sys, vgglab.receptive_field, vgglab.cost, vgglab.models, vgglab.training, vgglab.data;"
        "print(*{name.split('.')[0] for name in sys.modules} | {n for n in sys.modules if n == 'vgglab.course'})"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {"matplotlib", "IPython", "nbformat", "ipywidgets", "torchvision", "vgglab.course"} & set(loaded)


@pytest.mark.parametrize("folder", ("vgglab", "tests", "tools", "benchmarks"))
def test_a_file_can_be_read_in_one_sitting(folder):
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / folder).rglob("*.py")}
    assert {path.name: lines for path, lines in lengths.items() if lines > 400} == {}
