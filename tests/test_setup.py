"""The set-up files agree with one another."""

import json
import re
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
import rattler
import yaml

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import buttons  # noqa: E402

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text())


def names(requirements):
    return {re.sub(r"[-_.]+", "-", re.match(r"[A-Za-z0-9_.-]+", line)[0]).lower() for line in requirements}


def test_conda_gives_python_pip_and_make_and_pip_gives_the_rest():
    specs = [rattler.MatchSpec(line) for line in ENVIRONMENT["dependencies"] if isinstance(line, str)]
    versions = {spec.name.normalized: str(spec.version) for spec in specs}
    assert versions.keys() == {"python", "pip", "make"}
    assert versions["python"] == PROJECT["project"]["requires-python"]
    pip_lines = next(line["pip"] for line in ENVIRONMENT["dependencies"] if isinstance(line, dict))
    assert pip_lines == ["--constraint constraints.txt", "--editable ."]


def test_constraints_pin_every_requirement_and_name_no_address():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9.!]+", line) for line in lines)
    wanted = names(PROJECT["project"]["dependencies"]) | names(sum(PROJECT["dependency-groups"].values(), []))
    assert wanted <= names(lines)


def test_the_devcontainer_sets_up_as_the_readme_does():
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    assert container["image"].startswith("python:3.") and container["postCreateCommand"] == "make .venv/ready"
    assert "READY := .venv/ready" in (ROOT / "Makefile").read_text()


def test_buttons_lead_to_the_lessons_and_are_put_in_once(tmp_path):
    (tmp_path / "notebooks").mkdir()
    cells = [nbformat.v4.new_markdown_cell("# 00", id="title"), nbformat.v4.new_code_cell("1", id="one")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "notebooks" / "00_start_here.ipynb")
    (tmp_path / "README.md").write_text("# vgglab\n\nA course.\n\nMore.\n")
    for repository in ("old/name", "owner/course"):
        buttons.main(repository, tmp_path)
    readme = (tmp_path / "README.md").read_text()
    assert readme.count("[![Open in") == 2 and readme.endswith("\n\nA course.\n\nMore.\n") and "old/name" not in readme
    assert "github/owner/course/blob/main/notebooks/00_start_here.ipynb" in readme
    notebook = nbformat.read(tmp_path / "notebooks" / "00_start_here.ipynb", 4)
    assert [cell.id for cell in notebook.cells] == ["title", "buttons", "install", "one"]
    assert "git+https://github.com/owner/course" in notebook.cells[2].source
    with pytest.raises(SystemExit, match="OWNER/NAME"):
        buttons.main("nonsense", tmp_path)
