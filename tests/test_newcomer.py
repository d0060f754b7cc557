"""The course as installed: what the wheel holds, and the tool that executes the lessons as a newcomer has them."""

import sys
from pathlib import Path
from zipfile import ZipFile

import nbformat
import newcomer
import pytest

ROOT = Path(__file__).parent.parent
UNSPOILT = """\
import os, urllib.error, urllib.request
from pathlib import Path
assert os.listdir() == ["1_unspoilt.ipynb"] and not (Path.home() / ".cache" / "vgglab").exists()
assert os.environ["ATEN_CPU_CAPABILITY"] == "avx2" and not [name for name in os.environ if "VGGLAB" in name]
try:
    urllib.request.urlopen("https://example.org")
    assert False, "there is a network"
except urllib.error.URLError:
    import d2l
"""


def test_the_wheel_holds_the_package_and_nothing_else(tmp_path):
    with ZipFile(newcomer.build(tmp_path)) as wheel:
        held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "vgglab").rglob("*") if path.is_file()}
    assert held == {name for name in files if "__pycache__" not in name}
    assert "vgglab/course/experiments/records/depth.json" in held


@pytest.mark.skipif(sys.platform == "win32", reason="the tool is for systems with a home in HOME")
def test_a_lesson_is_executed_as_a_newcomer_has_it_and_its_failure_is_told(tmp_path, monkeypatch, capsys):
    (tmp_path / "notebooks").mkdir()
    for name, source in {"1_unspoilt": UNSPOILT, "2_sound": "1 + 1", "3_left_out": "1 / 0"}.items():
        cell = nbformat.v4.new_code_cell(source, id="only")
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "notebooks" / f"{name}.ipynb")
    for name in ("vgglab", "pyproject.toml", "README.md", "LICENSE"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.setattr(newcomer, "ROOT", tmp_path)
    assert newcomer.main(["1", "2"]) == 1
    printed = capsys.readouterr().out
    assert "1_unspoilt                   FAILED in the cell only" in printed and "a newcomer has no d2l" in printed
    assert "2_sound                      passed" in printed and "the slowest cell" in printed
    assert "1 passed, 1 failed in" in printed and "3_left_out" not in printed
