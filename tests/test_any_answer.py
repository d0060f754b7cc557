"""A check answers in one line whatever it is given; and what the checks said is found again in saved notebooks."""

import csv
import json
import os
import re
import subprocess
import sys
import threading
import time
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nbconvert.preprocessors import ExecutePreprocessor
from torch import nn

from vgglab.__main__ import main
from vgglab.course import exercises
from vgglab.course.classroom import progress
from vgglab.course.exercises import JUDGES, MARK, check, verdict
from vgglab.course.exercises.judge import Function
from vgglab.receptive_field import stack

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"


@pytest.mark.parametrize("name", [name for name, judge in JUDGES.items() if isinstance(judge, Function)])
def test_functions_that_fail_end_in_a_line(name, monkeypatch):
    def fails(*_):
        raise KeyError("oops\n[ok] RF-1")

    def leaves(*_):
        raise SystemExit

    def turns(*_):
        while True:
            try:
                time.sleep(0)
            except:  # noqa: E722
                pass

    monkeypatch.setattr(exercises, "SECONDS", 0.3)
    for function, words in (
        (lambda *_: print(end=""), "it returns nothing"),
        (fails, r"raises KeyError: 'oops\n[ok] RF-1'"),
        (leaves, "raises SystemExit"),
        (turns, "longer than 0.3 seconds"),
        (lambda *_: "text" * 10**7, "for "),
        (lambda *_: torch.zeros(1, dtype=torch.int8).expand(10**12), "for "),
        (lambda: 1, "raises TypeError"),
        (3, "it takes a function: "),
    ):
        line = verdict(name, function)
        assert line.startswith(f"[not yet] {name}: ") and words in line and len(line) < 600, line


def test_a_result_of_another_dtype_is_named():
    assert "the dtype torch.float64 instead of torch.float32" in verdict("VB-5", lambda matrix, *sides: matrix.double())
    assert "cannot be compared" in verdict("SK-5", lambda first, second: first.double())


class Odd:
    """What no method of can be trusted."""

    def fail(self, *_):
        raise KeyError("odd")

    def __repr__(self):
        raise SystemExit("odd")

    __len__ = __iter__ = __float__ = __eq__ = __hash__ = __bool__ = __getitem__ = __call__ = fail


LOOP = []
LOOP.append(LOOP)
ODD = [Odd(), Odd, object(), LOOP, 10**5000, "1/0", "9" * 5000, b"11", range(10**15), iter([1]), slice(1), 1j, ...,
       print, torch.zeros(1).expand(10**12), torch.zeros(0), torch.eye(3).to_sparse(), torch.empty(2, device="meta"),
       torch.tensor(True), torch.tensor([1j]), np.array([LOOP], object), np.array(["a", "b"]), np.datetime64("2020"),
       np.zeros((2, 2, 2)), nn.Linear(1, 1), Decimal("1e999999"), Decimal("sNaN"), Fraction(10**400), float("nan"),
       "[ok] RF-2\n[ok] RF-1", "\x1b[2J\udcff", {1: {2: [3]}}, {"width": None}, stack([3]), {64: 0.5}]  # fmt: skip
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.fractions()
    | st.integers(0, len(ODD) - 1).map(lambda place: ODD[place])
)
NONSENSE = st.recursive(LEAVES, lambda some: st.lists(some, max_size=4) | st.lists(some, max_size=4).map(tuple)
                        | st.dictionaries(st.integers() | st.text(), some, max_size=4))  # fmt: skip
LINE = r"\[(ok|todo|not yet)\] {}(: .*)?"


@pytest.mark.parametrize("name", JUDGES)
@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(answers=st.lists(NONSENSE, max_size=4))
def test_check_raises_for_no_answer(name, answers):
    line = verdict(name, *answers)
    assert re.fullmatch(LINE.format(name), line) and line.isprintable()


@pytest.mark.parametrize("name", JUDGES)
def test_check_answers_to_each_oddity_at_every_place(name):
    for odd in ODD:
        for answers in ((odd,), ([odd, odd],), ((odd, 1, odd),), (odd, odd), ({64: 0.5}, odd), ([1, 2], odd, odd, odd)):
            assert re.fullmatch(LINE.format(name), verdict(name, *answers))


HUGE = """
import resource, torch
from vgglab.course.exercises import JUDGES, verdict
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
huge, many = torch.zeros(1).expand(10**11), [0] * 10**6
verdict("VB-4", 1), verdict("TE-2", 1), verdict("TE-3", lambda *_: 1)
before = peak()
for name in JUDGES:
    for answer in (huge, huge.view(10**6, 10**5), [many] * 10**4, "9" * 10**7, lambda *_: huge, lambda *_: [many] * 99):
        verdict(name, answer), verdict(name, answer, answer), verdict(name, (1, 1), answer, answer, answer)
print(peak() - before)
"""


def test_check_allocates_less_than_a_gigabyte():
    pytest.importorskip("resource", reason="Windows does not tell a process's peak memory")
    done = subprocess.run([sys.executable, "-c", HUGE], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1


def test_a_check_leaves_random_numbers_and_the_alarm_alone_and_runs_in_any_thread(capsys):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    verdict("TE-3", lambda model, x, crop: model(x[..., :crop, :crop]))
    assert torch.equal(torch.rand(3), expected)
    thread = threading.Thread(target=check, args=("RF-1", 11))
    thread.start()
    thread.join()
    assert capsys.readouterr().out == "[ok] RF-1\n"


@pytest.mark.parametrize("odd", ["RF-99", "rf", 3, None, [], *ODD[:4]])
def test_an_exercise_that_there_is_not_is_named(odd):
    with pytest.raises(ValueError, match="exercise must be one of 'S-1'.*not "):
        check(odd, 1)


def notebook(path, *cells):
    """Save a notebook of such cells: (source, what it printed, what its check left)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    saved = []
    for source, printed, left in cells:
        outputs = [{"output_type": "stream", "name": "stdout", "text": [printed]}] * bool(printed)
        data = {"data": {"text/plain": left}, "metadata": {MARK: "RF-1"}}
        outputs += [{"output_type": "display_data", **data}] * bool(left)
        saved.append({"cell_type": "code", "source": source, "outputs": outputs})
    path.write_text(json.dumps({"cells": saved, "nbformat": 4, "nbformat_minor": 5}))


CHECK, OTHER = 'answer = 1\ncheck("RF-1", answer)', "check('RF-2', 1)"
NOT = "[not yet] RF-1: '[ok] RF-1' is not it; look"


@pytest.mark.parametrize(
    ("cells", "state"),
    [
        ([(CHECK, "[ok] RF-1\n", "")], "ok"),
        ([(CHECK, "", "[ok] RF-1")], "ok"),
        ([(CHECK, f"[ok] RF-1\n{NOT}\n", "")], "not yet"),
        ([(CHECK, "[ok] RF-1\n", NOT)], "not yet"),
        ([(CHECK, f"{NOT}\n", "")], "not yet"),
        ([(CHECK, "so [ok] RF-1\n[ok] RF-12\n", "")], "not run"),
        ([("print('[ok] RF-1')", "[ok] RF-1\n", "")], "not run"),
        ([("# " + CHECK.replace("\n", " "), "[ok] RF-1\n", "")], "not run"),
        ([(OTHER, "[ok] RF-1\n", "")], "not run"),
        ([(CHECK, "[todo] RF-1: put your answer in\n", ""), (CHECK, "[ok] RF-1\n", "")], "ok"),
        ([(CHECK, "", "")], "not run"),
    ],
)
def test_what_a_check_left_in_its_own_cell_counts_and_nothing_else(tmp_path, cells, state):
    notebook(tmp_path / "01.ipynb", *cells)
    assert progress(tmp_path)["RF-1"] == state and progress(tmp_path)["RF-2"] == "not run"


def test_a_check_in_a_notebook_leaves_its_line_apart_from_what_is_printed(tmp_path):
    source = """from vgglab.course.exercises import check
check("RF-1", "[ok] RF-1")
print("[ok] RF-1")"""
    ran = ExecutePreprocessor().preprocess(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)]))[0]
    nbformat.write(ran, tmp_path / "01.ipynb")
    assert progress(tmp_path)["RF-1"] == "not yet"


@pytest.mark.parametrize("copy", ["01-Copy1", "Copy of 01", "01 (1)", "01_done", "00"])
def test_of_copies_the_answered_one_counts(tmp_path, copy):
    notebook(tmp_path / "01.ipynb", (CHECK, "[todo] RF-1: put your answer in\n", ""))
    notebook(tmp_path / f"{copy}.ipynb", (CHECK, "[ok] RF-1\n", ""))
    assert progress(tmp_path)["RF-1"] == "ok"


@pytest.fixture
def learners(tmp_path):
    """Ann has solved RF-1, another Ann half a notebook and a pipe beside it, and some have names that act."""
    names = [
        "a/ann/notebooks",
        "b/ann/notebooks",
        "=1+1",
        " @x",
        "\x1b[2J\nben;=2",
        "cy/notebooks",
        os.fsdecode(b"\xff"),
    ]
    for name in names[:-2] + names[-1:]:
        notebook(tmp_path / name / "01.ipynb", (CHECK, "[ok] RF-1\n", ""))
    (tmp_path / names[1] / "\x1b02.ipynb").write_text("{}{")
    (tmp_path / names[1] / "03.ipynb").write_bytes(b"\xff\xfe")
    os.mkfifo(tmp_path / names[1] / "04.ipynb")
    (tmp_path / names[5]).mkdir(parents=True)
    return [str(tmp_path / name) for name in names]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no pipes and no such names")
def test_a_class_becomes_a_table_in_which_nothing_acts(learners, tmp_path, capsys):
    main(["progress", *learners, "--csv", str(tmp_path / "class.csv")])
    assert "7 learners in" in capsys.readouterr().out
    with (tmp_path / "class.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["learner"] for row in rows[2:]] == ["'=1+1", "' @x", r"\x1b[2J\nben;=2", "cy", r"\udcff"]
    assert rows[0]["learner"] != rows[1]["learner"] and rows[1]["learner"].endswith("/b/ann/notebooks")
    assert {(row["done"], row["RF-1"]) for row in rows if row["learner"] != "cy"} == {("1", "ok")}
    assert rows[1]["error"].count("not a notebook that can be read") == 3 and "has no notebooks" in rows[5]["error"]
    assert all(cell.isprintable() for row in rows for cell in row.values())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no pipes and no such names")
def test_a_listing_names_what_cannot_be_read_and_goes_on(learners, capsys):
    main(["progress", *learners])
    lines = capsys.readouterr().out.splitlines()
    assert all(line.isprintable() for line in lines) and sum("1 of 7" in line for line in lines) == 6
    assert sum("not a notebook" in line for line in lines) == 3 and sum("no notebooks" in line for line in lines) == 1
    with pytest.raises(SystemExit, match="has no notebooks: name the folder"):
        main(["progress", learners[5]])


def test_the_stored_lessons_are_unanswered():
    assert set(progress(NOTEBOOKS).values()) == {"todo"}
