"""What every notebook keeps to, and the tool that executes them."""

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TOOL = ROOT / "tools" / "notebooks.py"
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


def tool(*arguments, root):
    program = (
        "import sys; from pathlib import Path; sys.path.insert(0, {tools!r}); import notebooks;"
        "notebooks.ROOT = notebooks.NOTEBOOKS = Path({root!r}); notebooks.BUILD = Path({root!r}, 'build');"
        "notebooks.main()"
    ).format(tools=str(TOOL.parent), root=str(root))
    return subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True)


def test_refresh_changes_no_byte_a_second_time(tmp_path):
    path = tmp_path / "clock.ipynb"
    write_notebook(path, "print(1 + 1)", "import time; print(time.time())", tags=["nbval-ignore-output"])
    for _ in range(2):
        assert tool("refresh", str(path), root=tmp_path).returncode == 0
        contents = path.read_bytes()
    assert tool("refresh", str(path), root=tmp_path).returncode == 0
    assert path.read_bytes() == contents
    notebook = nbformat.read(path, as_version=4)
    assert notebook.cells[0].outputs[0].text == "2\n" and "author" not in notebook.metadata


def test_refresh_runs_a_changed_cell_anew(tmp_path):
    path = tmp_path / "clock.ipynb"
    write_notebook(path, "print('old')", tags=["nbval-ignore-output"])
    tool("refresh", str(path), root=tmp_path)
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[0].source = "print('new')"
    nbformat.write(notebook, path)
    tool("refresh", str(path), root=tmp_path)
    assert nbformat.read(path, as_version=4).cells[0].outputs[0].text == "new\n"


def test_run_writes_pages_and_results_and_reports_failures(tmp_path):
    write_notebook(tmp_path / "good.ipynb", "print('91 % right')", tags=["result"])
    write_notebook(tmp_path / "bad.ipynb", "1 / 0", "print('never')")
    before = {path: path.read_bytes() for path in tmp_path.glob("*.ipynb")}
    done = tool("run", root=tmp_path)
    assert done.returncode == 1 and "ZeroDivisionError" in done.stderr
    summary = (tmp_path / "build" / "summary.md").read_text()
    assert "good: 91 % right" in summary and "failed: ZeroDivisionError" in summary and "never" not in summary
    pages = tmp_path / "build" / "pages"
    good, bad = ((pages / "notebooks" / f"{name}.html").read_text() for name in ("good", "bad"))
    assert "91 % right" in good and "ZeroDivisionError" in bad and (pages / "index.html").exists()
    assert not re.search(r'(src|rel="stylesheet" href)="(https?:)?//', good)
    assert {path: path.read_bytes() for path in tmp_path.glob("*.ipynb")} == before
