"""What every notebook keeps to, and the tool that executes them."""

import ast
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

import vgglab
from vgglab import training
from vgglab.course.experiments.registry import EXPERIMENTS

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TOOLS = ROOT / "tools"
PACKAGE = Path(vgglab.__file__).parent
sys.path.insert(0, str(TOOLS))

from fingerprint import fingerprint  # noqa: E402

KNOWN_TAGS = {"nbval-ignore-output", "result", "remove-cell"}


def claims(prefix, last, quoted=()):
    """The ids that a lesson must assert; quoted ones are reported results that nobody can compute here."""
    return {f"{prefix}{number}" for number in range(1, last + 1)} - set(quoted)


CLAIMS = {
    "01_receptive_fields": claims("RF", 9),
    "02_small_kernels": claims("SK", 7),
    "03_local_response_norm": claims("LRN", 6, quoted=["LRN5"]),
    "04_vgg_blocks": claims("VB", 15),
    "05_training": claims("TR", 8),
    "06_testing_at_any_size": claims("TE", 7),
    "07_neighbours": claims("NB", 13),
    "08_the_papers_experiments": {"LRN6", "SK5", "SK6", "TE5"},
    "09_what_vgg_sees": claims("SEE", 9),
}


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_cells_are_short_tagged_and_executed_in_order(notebook):
    nbformat.validate(notebook)
    assert [cell.execution_count for cell in code(notebook)] == list(range(1, len(code(notebook)) + 1))
    for cell in code(notebook):
        assert len(cell.source.splitlines()) <= 15, cell.id
        assert not cell.source.rstrip().endswith(";"), cell.id
        assert set(cell.metadata.get("tags", [])) <= KNOWN_TAGS, cell.id


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_outputs_are_those_of_the_code_as_it_is(path):
    notebook = nbformat.read(path, as_version=4)
    stored = notebook.metadata.get("vgglab", {}).get("fingerprint")
    assert stored == fingerprint(notebook, PACKAGE), f"{path.name} is of other code or records: run `make refresh`"


def test_nbval_compares_most_cells():
    cells = [cell for path in NOTEBOOKS for cell in code(nbformat.read(path, as_version=4))]
    ignored = [cell.id for cell in cells if "nbval-ignore-output" in cell.metadata.get("tags", [])]
    assert len(ignored) <= 0.22 * len(cells), f"{len(ignored)} of {len(cells)} are not compared: at most 22 % may be"


def test_outputs_are_text_and_png_and_never_errors(notebook):
    for cell in code(notebook):
        for output in cell.outputs:
            assert output.output_type != "error", cell.id
            assert "image/svg+xml" not in output.get("data", {}), cell.id
            assert output.get("name") != "stderr", cell.id


def test_no_word_of_the_machine_it_ran_on(notebook):
    text = nbformat.writes(notebook)
    assert not re.search(r"/(home|root|work|tmp|Users)/", text)


def test_links_lead_to_notebooks_that_are_there(notebook):
    for cell in notebook.cells:
        for target in re.findall(r"\]\(([^)#]+\.ipynb)\)", cell.source):
            assert (ROOT / "notebooks" / target).exists(), target


@pytest.mark.parametrize("name", CLAIMS)
def test_every_claim_is_asserted(name):
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    lines = "\n".join(cell.source for cell in code(notebook)).splitlines()
    asserted = set(
        re.findall(
            r"\b[A-Z]{2,3}\d+\b", "\n".join(line.split("#")[-1] for line in lines if "#" in line and "assert" in line)
        )
    )
    assert CLAIMS[name] <= asserted


def write_notebook(path, *sources, tags=()):
    cells = [nbformat.v4.new_code_cell(source, id=f"cell-{i}") for i, source in enumerate(sources)]
    cells[-1].metadata["tags"] = list(tags)
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"author": "somebody"}), path)


def tool(*arguments, root, instead="notebooks.find_data = lambda: None", **environment):
    program = (
        f"import sys; from pathlib import Path; sys.path.insert(0, {str(TOOLS)!r}); import notebooks; {instead};"
        f"notebooks.ROOT = notebooks.NOTEBOOKS = Path({str(root)!r}); notebooks.BUILD = notebooks.ROOT / 'build';"
        "notebooks.main()"
    )
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


def test_refresh_executes_the_whole_notebook_or_changes_no_byte(tmp_path):
    path = tmp_path / "clock.ipynb"
    write_notebook(path, "print(1 + 1)", "import time; print(time.time())", tags=["nbval-ignore-output"])

    def refresh():
        done = tool("refresh", str(path), root=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout, path.read_bytes(), nbformat.read(path, as_version=4)

    _, contents, first = refresh()
    said, again, _ = refresh()
    assert again == contents and "unchanged" in said
    assert first.cells[0].outputs[0].text == "2\n" and "author" not in first.metadata
    assert {"python", "torch", "vgglab"} <= first.metadata.vgglab.versions.keys()

    changed = nbformat.from_dict(first)
    changed.cells[0].source, changed.cells[1].metadata["output_of"] = "print(1 + 2)", "an old day"
    nbformat.write(changed, path)
    _, _, second = refresh()
    assert second.cells[0].outputs[0].text == "3\n"
    assert second.cells[1].outputs[0].text != first.cells[1].outputs[0].text
    assert second.cells[1].metadata == {"tags": ["nbval-ignore-output"]}


def test_refresh_runs_where_no_other_file_or_record_is(tmp_path):
    path = tmp_path / "where.ipynb"
    write_notebook(path, "import os; print(os.listdir(), os.listdir('..'), os.environ.get('VGGLAB_RECORDS'))")
    assert tool("refresh", str(path), root=tmp_path, VGGLAB_RECORDS="own").returncode == 0
    assert nbformat.read(path, as_version=4).cells[0].outputs[0].text == "[] ['notebooks'] None\n"


def test_refresh_is_refused_without_the_real_data(tmp_path):
    path = tmp_path / "sum.ipynb"
    write_notebook(path, "1 + 1")
    contents, nowhere = path.read_bytes(), str(tmp_path / "nothing")
    homes = {"HOME": nowhere, "XDG_CACHE_HOME": nowhere, "LOCALAPPDATA": nowhere}
    done = tool("refresh", str(path), root=tmp_path, instead="pass", VGGLAB_DATA=nowhere, **homes)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and "VGGLAB_DATA" in done.stderr
    assert path.read_bytes() == contents


def test_run_writes_pages_and_results_and_reports_failures(tmp_path):
    write_notebook(
        tmp_path / "good.ipynb", "import ipywidgets", "ipywidgets.IntSlider()", "print('91 % right')", tags=["result"]
    )
    write_notebook(tmp_path / "bad.ipynb", "1 / 0", "print('never')")
    before = {path: path.read_bytes() for path in tmp_path.glob("*.ipynb")}
    done = tool("run", root=tmp_path)
    assert done.returncode == 1 and "ZeroDivisionError" in done.stderr
    summary = (tmp_path / "build" / "summary.md").read_text()
    assert "good: 91 % right" in summary and "failed: ZeroDivisionError" in summary and "never" not in summary
    pages = tmp_path / "build" / "pages"
    good, bad = ((pages / "notebooks" / f"{name}.html").read_text() for name in ("good", "bad"))
    assert "91 % right" in good and "IntSlider(value" not in good and "widget-view" not in good
    assert "ZeroDivisionError" in bad and (pages / "index.html").exists()
    assert not re.search(r'(src|rel="stylesheet" href)="(https?:)?//', good)
    assert {path: path.read_bytes() for path in tmp_path.glob("*.ipynb")} == before


SHOP = {
    "__init__.py": """__version__ = "1"\n""",
    "till.py": """from shop import rules

def total(prices):
    'Add up.'
    return rules.rounded(sum(prices))  # of all
""",
    "rules.py": """from dataclasses import dataclass

@dataclass
class Bill:
    sum: float
    paid: bool = False

def rounded(x, digits=2):
    from shop.limits import LIMIT
    return Bill(round(min(x, LIMIT), digits))
""",
    "limits.py": "LIMIT = 100\n",
    "signs/__init__.py": "from shop.signs.closed import bye\nfrom shop.signs.open import hello\n__all__ = ['bye']\n",
    "signs/open.py": "def hello():\n    return f'hello {1:{2}}'\n",
    "signs/closed.py": "def bye():\n    return 'bye'\n",
    "records/prices.json": "[1]",
    "records/wages.json": "[1]",
    "records/week-1.json": "[1]",
}
CELLS = (
    "from shop import signs\nfrom shop.till import total",
    "%matplotlib inline\ntotal(json.loads((RECORDS / 'prices.json').read_text()))",
    "for path in RECORDS.glob('week-*.json'):\n    signs.hello()",
)


@pytest.fixture
def shop(tmp_path):
    """A small package with records."""
    for name, text in SHOP.items():
        path = tmp_path / "shop" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "shop"


def as_json(*sources):
    return {"cells": [{"cell_type": "code", "source": source} for source in sources]}


def replaced(path, old, new):
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize(
    "name, old, new",
    [
        ("till.py", "sum(", "max("),
        ("rules.py", "digits=2", "digits=1"),
        ("rules.py", "    paid: bool = False\n", ""),
        ("rules.py", "paid: bool = False", "paid = False"),
        ("rules.py", "import dataclass", "import field as dataclass"),
        ("limits.py", "100", "10"),
        ("signs/open.py", "{2}", "{3}"),
        ("records/prices.json", "1", "2"),
        ("records/week-1.json", "1", "2"),
    ],
)
def test_a_change_of_what_a_notebook_runs_or_reads_is_noticed(shop, name, old, new):
    before = fingerprint(as_json(*CELLS), shop)
    replaced(shop / name, old, new)
    assert fingerprint(as_json(*CELLS), shop) != before


@pytest.mark.parametrize(
    "name, old, new",
    [
        ("__init__.py", '"1"', '"2"'),
        ("till.py", "Add up.", "Sum up."),
        ("till.py", "# of all", "# of everything"),
        ("rules.py", "(x, digits=2):", "(x: float, digits: int = 2) -> Bill:"),
        ("till.py", "from shop import rules", "import shop.rules as rules"),
        ("limits.py", "LIMIT", "from typing import Final\nLIMIT: Final"),
        ("signs/__init__.py", "'bye'", "'bye', 'hello'"),
        ("signs/closed.py", "'bye'", "'good bye'"),
        ("records/wages.json", "1", "2"),
    ],
)
def test_a_change_of_anything_else_is_not(shop, name, old, new):
    before = fingerprint(as_json(*CELLS), shop)
    replaced(shop / name, old, new)
    assert fingerprint(as_json(*CELLS), shop) == before


def test_a_name_is_the_same_from_a_package_and_from_its_module(shop):
    ways = ("from shop.signs import hello", "from shop.signs.open import hello")
    one, other = (fingerprint(as_json(f"{way}\nhello()"), shop) for way in ways)
    assert one == other != fingerprint(as_json("from shop.signs import bye as hello\nhello()"), shop)


def test_cells_and_new_records_are_noticed(shop):
    prints = {fingerprint(as_json(*cells), shop) for cells in (CELLS, CELLS[:2], CELLS[::-1], ("\n".join(CELLS),))}
    assert len(prints) == 4
    (shop / "records" / "week-2.json").write_text("[1]")
    assert fingerprint(as_json(*CELLS), shop) not in prints
    handed_on = (*CELLS, "print(signs)")
    before = fingerprint(as_json(*handed_on), shop)
    replaced(shop / "signs" / "closed.py", "'bye'", "'good bye'")
    assert fingerprint(as_json(*handed_on), shop) != before


def lessons():
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in NOTEBOOKS}


def prints(notebooks, folder):
    return {name: fingerprint(notebook, folder) for name, notebook in notebooks.items()}


@pytest.fixture(scope="module")
def current():
    return prints(lessons(), PACKAGE)


class Dressed(ast.NodeTransformer):
    """Puts docstrings and annotations into code that has none."""

    def visit_FunctionDef(self, node):
        node.body = node.body[ast.get_docstring(node) is not None :]
        node.body.insert(0, ast.Expr(ast.Constant("Another docstring.")))
        node.returns = ast.Name("Sequence")
        for argument in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]:
            argument.annotation = ast.Name("Sequence")
        return self.generic_visit(node)

    def visit_Assign(self, node):
        plain = len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)
        return ast.AnnAssign(node.targets[0], ast.Name("Sequence"), node.value, simple=1) if plain else node

    def visit_ClassDef(self, node):
        node.body = [self.visit(child) if isinstance(child, ast.FunctionDef) else child for child in node.body]
        return node


def moved(text):
    return re.sub(r"(?m)^(\s*)from vgglab\b", r"\1from vgglab.house", text)


def test_a_house_that_moved_and_is_annotated_is_the_same(tmp_path, current):
    shutil.copytree(PACKAGE, tmp_path / "vgglab" / "house", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "vgglab" / "__init__.py").touch()
    for path in (tmp_path / "vgglab" / "house").rglob("*.py"):
        tree = Dressed().visit(ast.parse(moved(path.read_text(encoding="utf-8"))))
        text = ast.unparse(ast.fix_missing_locations(tree))
        path.write_text(f"{text}\nfrom collections.abc import Sequence  # a type\n", encoding="utf-8")
    notebooks = lessons()
    for notebook in notebooks.values():
        for cell in notebook["cells"]:
            cell["source"] = moved("".join(cell["source"]))
    assert prints(notebooks, tmp_path / "vgglab") == current


def test_a_changed_line_of_training_makes_the_lesson_stale(tmp_path, current):
    shutil.copytree(PACKAGE, tmp_path / "vgglab")
    file = Path(inspect.getsourcefile(inspect.unwrap(training.fit))).relative_to(PACKAGE)
    replaced(tmp_path / "vgglab" / file, ".backward()", ".backward(retain_graph=True)")
    after = prints(lessons(), tmp_path / "vgglab")
    changed = {name for name in after if after[name] != current[name]}
    assert {"00_start_here", "05_training"} <= changed and "04_vgg_blocks" not in changed


def test_records_make_those_lessons_stale_that_read_them(tmp_path, current):
    shutil.copytree(PACKAGE, tmp_path / "vgglab")
    readers = {name: lessons()[name] for name in ("05_training", "08_the_papers_experiments")}
    for record in (tmp_path / "vgglab").rglob("*.json"):
        contents = record.read_bytes()
        record.write_bytes(contents + b"\n")
        reader = "08_the_papers_experiments" if record.stem in EXPERIMENTS else "05_training"
        after = prints(readers, tmp_path / "vgglab")
        assert {name for name in after if after[name] != current[name]} == {reader}, record.name
        record.write_bytes(contents)
    assert {record.stem for record in (tmp_path / "vgglab").rglob("*.json")} >= {*EXPERIMENTS, "benchmark-cpu"}


def interpreter(minor):
    """A Python of this version, None where there is none."""
    here = [sys.executable] if sys.version_info[1] == minor else []
    for python in (*here, *Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python"), f"python3.{minor}"):
        if shutil.which(python) and not subprocess.run([python, "-c", ""], capture_output=True).returncode:
            return python


@pytest.mark.parametrize("minor", [11, 12, 13])
def test_the_fingerprint_is_the_same_on_every_python(minor, current):
    if (python := interpreter(minor)) is None:
        pytest.skip(f"Python 3.{minor} is not here")
    program = (
        f"import json, sys; sys.path.insert(0, {str(TOOLS)!r}); from fingerprint import fingerprint;"
        f"print({{name: fingerprint(lesson, {str(PACKAGE)!r}) for name, lesson in json.load(sys.stdin).items()}})"
    )
    done = subprocess.run([python, "-c", program], input=json.dumps(lessons()), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ast.literal_eval(done.stdout) == current
