"""The tool that says how far a lesson's assertions are from their bounds."""

import json

import margins
import nbformat
import pytest

CELL = """
import math, torch
def check(value): assert 0.5 < value < 0.9 and len([value]) == 1
check(float(torch.tensor({value})))
assert all(share > 0.1 for share in (0.4, {value})), "and a message"
assert math.isclose({value}, 0.75, abs_tol=0.5)
assert {value} > 0.65
torch.testing.assert_close(torch.ones(2), torch.ones(2))
"""
SOLUTION = "<summary>Solution</summary>\n\n```python\nassert 1 <= {value} + 1\n```"


def noted(folder, value):
    cells = [
        nbformat.v4.new_code_cell(CELL.format(value=value), id="code"),
        nbformat.v4.new_markdown_cell(SOLUTION.format(value=value), id="help"),
    ]
    path, out = folder / "lesson.ipynb", folder / f"{value}.json"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    margins.run(path, out)
    return out


def test_margins_are_noted_in_each_run_and_compared(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # which it changes
    files = [noted(tmp_path, value) for value in (0.75, 0.625)]
    notes = json.loads(files[1].read_text())["notes"]
    assert notes["code | 0.5 < value"] == [0.5, 0.625, 0.125] and notes["code | value < 0.9"][:2] == [0.625, 0.9]
    assert notes["code | share > 0.1"][0] == 0.4 and notes["help | 1 <= 0.625 + 1"][2] == 0.625
    assert notes["code | math.isclose(0.625, 0.75, abs_tol=0.5)"] == pytest.approx([0.25, 1.0, 0.75])
    assert "code | FAILS: assert 0.625 > 0.65" in notes
    margins.show(files)
    shown = capsys.readouterr().out
    assert "| `value < 0.9` | 0.625 to 0.75 | 0.9 | 0.15 | 0.12 | 2 |" in shown and "share" not in shown
