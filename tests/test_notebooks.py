"""What every notebook keeps to, and the tool that executes them."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from fingerprint import fingerprint

import vgglab

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TOOLS = ROOT / "tools"
PACKAGE = Path(vgglab.__file__).parent
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


def test_outputs_are_text_and_png_and_never_errors_or_words_of_the_machine(notebook):
    assert not re.search(r"/(home|root|work|tmp|Users)/", nbformat.writes(notebook))
    for cell in code(notebook):
        for output in cell.outputs:
            assert output.output_type != "error" and output.get("name") != "stderr", cell.id
            assert "image/svg+xml" not in output.get("data", {}), cell.id


@pytest.mark.parametrize("name", CLAIMS)
def test_every_claim_is_asserted(name):
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    comments = re.findall(r"assert.*#(.*)", "\n".join(cell.source for cell in code(notebook)))
    assert CLAIMS[name] <= set(re.findall(r"\b[A-Z]{2,3}\d+\b", " ".join(comments)))


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


def test_refresh_executes_the_whole_notebook_in_an_empty_folder_or_changes_no_byte(tmp_path):
    path = tmp_path / "clock.ipynb"
    alone = "import os; print(1 + 1, os.listdir(), os.listdir('..'), os.environ.get('VGGLAB_RECORDS'))"
    write_notebook(path, alone, "import time; print(time.time())", tags=["nbval-ignore-output"])

    def refresh():
        done = tool("refresh", str(path), root=tmp_path, VGGLAB_RECORDS="own")
        assert done.returncode == 0, done.stderr
        return done.stdout, path.read_bytes(), nbformat.read(path, as_version=4)

    _, contents, first = refresh()
    said, again, _ = refresh()
    assert again == contents and "unchanged" in said
    assert first.cells[0].outputs[0].text == "2 [] ['notebooks'] None\n" and "author" not in first.metadata
    assert {"python", "torch", "vgglab"} <= first.metadata.vgglab.versions.keys()

    changed = nbformat.from_dict(first)
    changed.cells[0].source, changed.cells[1].metadata["output_of"] = "print(1 + 2)", "an old day"
    nbformat.write(changed, path)
    _, _, second = refresh()
    assert second.cells[0].outputs[0].text == "3\n"
    assert second.cells[1].outputs[0].text != first.cells[1].outputs[0].text
    assert second.cells[1].metadata == {"tags": ["nbval-ignore-output"]}


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


DECIDING = [
    ("till.py", "sum(", "max("),
    ("rules.py", "digits=2", "digits=1"),
    ("rules.py", "    paid: bool = False\n", ""),
    ("rules.py", "paid: bool = False", "paid = False"),
    ("rules.py", "import dataclass", "import field as dataclass"),
    ("limits.py", "100", "10"),
    ("signs/open.py", "{2}", "{3}"),
    ("records/prices.json", "1", "2"),
    ("records/week-1.json", "1", "2"),
]
OTHERS = [
    ("__init__.py", '"1"', '"2"'),
    ("till.py", "Add up.", "Sum up."),
    ("till.py", "# of all", "# of everything"),
    ("rules.py", "(x, digits=2):", "(x: float, digits: int = 2) -> Bill:"),
    ("till.py", "from shop import rules", "import shop.rules as rules"),
    ("limits.py", "LIMIT", "from typing import Final\nLIMIT: Final"),
    ("signs/__init__.py", "'bye'", "'bye', 'hello'"),
    ("signs/closed.py", "'bye'", "'good bye'"),
    ("records/wages.json", "1", "2"),
]


@pytest.mark.parametrize(
    "noticed, name, old, new", [(True, *change) for change in DECIDING] + [(False, *change) for change in OTHERS]
)
def test_a_change_of_what_a_notebook_runs_or_reads_is_noticed_and_no_other(noticed, name, old, new, shop):
    before = fingerprint(as_json(*CELLS), shop)
    replaced(shop / name, old, new)
    assert (fingerprint(as_json(*CELLS), shop) != before) == noticed


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


RECORDS = "course/experiments/records"


@pytest.mark.parametrize(
    "file, stale, unchanged",
    [
        ("training/loop.py", "05_training", "04_vgg_blocks"),
        (f"{RECORDS}/depth.json", "08_the_papers_experiments", "05_training"),
        (f"{RECORDS}/initialization.json", "08_the_papers_experiments", "05_training"),
        (f"{RECORDS}/benchmark-cpu.json", "05_training", "08_the_papers_experiments"),
    ],
)
def test_a_changed_file_makes_those_lessons_stale_that_use_it(file, stale, unchanged, tmp_path):
    folder = shutil.copytree(PACKAGE, tmp_path / "vgglab")
    lessons = [nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4) for name in (stale, unchanged)]
    before = [fingerprint(lesson, folder) for lesson in lessons]
    with (folder / file).open("a") as changed:
        changed.write("\nnew = 1\n")
    after = [fingerprint(lesson, folder) for lesson in lessons]
    assert after[0] != before[0] and after[1] == before[1]


PYTHONS = sorted(Path.home().glob(".pyenv/versions/3.1[123].*/bin/python"))


@pytest.mark.parametrize("python", PYTHONS, ids=lambda python: python.parts[-3])
def test_the_fingerprint_is_the_same_on_every_python(python, shop):
    program = "import sys, fingerprint as f; print(f.fingerprint(eval(sys.argv[1]), sys.argv[2]))"
    command, cells = [python, "-c", program], as_json(*CELLS)
    done = subprocess.run([*command, repr(cells), shop], cwd=TOOLS, capture_output=True, text=True)
    assert done.stdout.strip() == fingerprint(cells, shop), done.stderr
