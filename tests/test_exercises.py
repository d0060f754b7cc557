"""Every exercise with its solution, unanswered, and with typical wrong answers; and the table of what is done."""

import ast
import csv
import inspect
import re
import shutil
import symtable
from pathlib import Path

import nbformat
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vgglab import data
from vgglab.__main__ import main
from vgglab.course import figures
from vgglab.course.classroom import progress
from vgglab.course.exercises import LESSONS, check, verdict
from vgglab.models import vgg

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
NAMES = [(lesson, exercise) for lesson, judges in LESSONS.items() for exercise in judges]
BY_NAME = {exercise: lesson for lesson, exercise in NAMES}
TITLE = re.compile(r"\*\*([A-Z]+-\d+)\*\* · (\d+) min · [●○]{3} — ")


ALSO = {"EX-3": "judge("}  # cells that an exercise needs for what they do, not for the names that they define


class Exercise:
    """An exercise as it stands in a notebook: title, answer cell, folded solution, and the code cells before it."""

    def __init__(self, name):
        cells = nbformat.read(NOTEBOOKS / f"{BY_NAME[name]}.ipynb", as_version=4).cells
        place = next(i for i, cell in enumerate(cells) if f'check("{name}",' in cell.source)
        self.before = [cell.source for cell in cells[:place] if cell.cell_type == "code"]
        self.title, self.answer, self.help = (cell.source for cell in cells[place - 1 : place + 2])
        self.minutes = int(next(m[2] for m in TITLE.finditer(self.title) if m[1] == name))
        self.solution = re.search(r"```python\n(.*?)```", self.help.split("Solution</summary>")[1], re.DOTALL)[1]
        call = next(line for line in self.answer.splitlines() if line.startswith("check("))
        self.answered = ast.unparse(ast.parse(call).body[0].value.args[1])
        self.call = call.replace("check(", "said = verdict(")


@pytest.fixture(scope="module")
def spaces():
    """By lesson, what the cells that the solutions need have defined so far."""
    return {}


@pytest.fixture
def small(monkeypatch, lesson):
    """Small data instead of the lessons' whole, and no figure, so that what a solution needs is ready in seconds."""
    garments = data.drawn_garments(
        train=6000 if lesson == "09_what_vgg_sees" else 1000, test=1000 if lesson == "09_what_vgg_sees" else 400
    )
    monkeypatch.setattr(data, "load", lambda *_, **__: garments)
    for name, _ in inspect.getmembers(figures, inspect.isfunction):
        monkeypatch.setattr(figures, name, lambda *_, **__: None)


def defined_and_used(source):
    """The global names that a cell defines, and those that it takes from the cells before."""
    top = symtable.symtable(source, "cell", "exec")
    defined = {symbol.get_name() for symbol in top.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    used, scopes = set(), [top]
    while scopes:
        scope = scopes.pop()
        used |= {s.get_name() for s in scope.get_symbols() if s.is_referenced() and (s.is_global() or scope is top)}
        scopes += scope.get_children()
    return defined, used


def needed(cells, last, also="\0"):
    """The cells that last depends on, in order: the last to define each name, and all with also in them."""
    defined, used = defined_and_used(last)
    wanted, chosen = used - defined, []
    for source in reversed(cells):
        defined, used = defined_and_used(source)
        if defined & wanted or also in source:
            wanted = (wanted - defined) | (used - defined)
            chosen.insert(0, source)
    return chosen


def without_asserts(source):
    """What a lesson asserts of its whole data need not hold of small ones."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(getattr(node, "body", None), list):
            node.body = [part for part in node.body if not isinstance(part, ast.Assert)] or [ast.Pass()]
    return compile(ast.unparse(tree), "<cell>", "exec")


@pytest.mark.parametrize(("lesson", "name"), NAMES, ids=[name for _, name in NAMES])
def test_the_solution_is_right_and_no_answer_is_to_do(lesson, name, spaces, small, capsys):
    exercise, space = Exercise(name), spaces.setdefault(lesson, {"done": set()})
    for source in needed(exercise.before, f"{exercise.answer}\n{exercise.solution}", ALSO.get(name, "\0")):
        if source not in space["done"]:
            exec(without_asserts(source), space)
            space["done"].add(source)
    own = dict(space) | {"verdict": verdict}
    capsys.readouterr()
    exec(exercise.answer, own)
    assert capsys.readouterr().out == f"[todo] {name}: put your answer in and run this cell again\n"
    exec(exercise.solution if lesson < "05" else without_asserts(exercise.solution), own)
    exec(exercise.call, own)
    assert own["said"] == f"[ok] {name}"


def test_every_lesson_has_four_to_eight_exercises_from_short_to_long():
    for lesson, judges in LESSONS.items():
        minutes = [Exercise(name).minutes for name in judges]
        if lesson != "00_start_here":
            assert 4 <= len(judges) <= 8 and min(minutes) <= 5 and max(minutes) >= 10, lesson


def off_by_one(kernel):
    first = torch.eye(9, dtype=kernel.dtype).view(9, 1, 3, 3)
    second = torch.zeros(1, 9, 3, 3, dtype=kernel.dtype)
    second[0, 4] = kernel[1:4, 1:4]
    return first, second


def without_biases(first, second):
    one = nn.Conv2d(first.in_channels, second.out_channels, first.kernel_size[0] + second.kernel_size[0] - 1)
    weight = F.conv2d(
        first.weight.transpose(0, 1), second.weight.flip(2, 3), padding=second.kernel_size[0] - 1
    ).transpose(0, 1)
    one.weight.data, one.bias.data = weight, torch.zeros(second.out_channels).double()
    return one


def unflipped(first, second):
    one = without_biases(first, second)
    one.bias.data = second(first(torch.zeros(1, first.in_channels, 9, 9).double()))[0, :, 0, 0]
    one.weight.data = one.weight.data.flip(2, 3)
    return one


def mean_of_batches(model, images, batch_size):
    model.eval()
    parts = list(data.batches(images, batch_size, size=32))
    return sum((model(x).argmax(1) == labels).float().mean().item() for x, labels in parts) / len(parts)


def in_training_mode(model, images, batch_size):
    parts = data.batches(images, batch_size, size=32)
    return sum((model(x).argmax(1) == labels).sum().item() for x, labels in parts) / len(images)


def without_mirrors(model, x, crop):
    bottom, right = x.shape[2] - crop, x.shape[3] - crop
    places = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
    return sum(model(x[:, :, i : i + crop, j : j + crop]).softmax(1) for i, j in places) / 5


def scores_averaged(model, x, crop):
    bottom, right = x.shape[2] - crop, x.shape[3] - crop
    places = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
    crops = [x[:, :, i : i + crop, j : j + crop] for i, j in places]
    return (sum(model(part) + model(part.flip(3)) for part in crops) / 10).softmax(1)


def first_group_only(x, weight, groups):
    return F.conv2d(x[:, : weight.shape[1]], weight)


def features_alone(config, image_size, width):
    return vgg(config, 3, 1000, image_size, width).features


MATRIX = torch.tensor([[8, 2, 0], [1, 3, 0], [1, 5, 0]])
LINEAR = nn.Sequential(nn.Flatten(), nn.Linear(1024, 10)).requires_grad_(False)
SOME = (torch.randn(5, 1, 32, 32, generator=torch.Generator().manual_seed(0)), torch.arange(5))
FOUND = dict(zip(range(64, 161, 16), (0.5, 0.8, 0.9, 0.91, 0.9, 0.8, 0.5), strict=True))

# For each exercise at least two answers that learners give, with what else the check takes.
WRONG = {
    "S-1": [(0.01,), (2.0,), ("log(100)",)],
    "RF-1": [(15,), (10,), (11.5,)],
    "RF-2": [(212,), (266,)],
    "RF-3": [((31, 4),), (31,), ((30, 15),)],
    "RF-4": [(("conv4_1", 1),), (("pool3", 8),), ("conv4_1",)],
    "RF-5": [(45,), (11,), (13,)],
    "RF-6": [(off_by_one,), (lambda kernel: kernel,), (lambda kernel: (kernel, kernel),)],
    "SK-1": [((5, 37),), ((11, 63),), ((5, 0.63),)],
    "SK-2": [((34_848, 105_415_200),), ((34_944, 105_705_600),), ((34_944, 34_944 * 55),)],
    "SK-3": [(9 / 25,), (0.5,)],
    "SK-4": [((2 / 3, (3, 3)),), ((1 / 3, (3, 1)),)],
    "SK-5": [(without_biases,), (unflipped,), (lambda first, second: second,)],
    "SK-6": [((398, 211),), ((421, 210),)],
    "LRN-1": [(30 / 3726 * 5,), (30 / (28**2 + 29**2 + 30**2 + 31**2 + 32**2),)],
    "LRN-2": [((1e-4, 1.0),), ((2e-5, 2.0),), ((5e-4, 1.0),)],
    "LRN-3": [(1000,), (199,)],
    "LRN-4": [(3_211_264,), (4_214_784,)],
    "LRN-5": [
        (lambda x, n, alpha, beta: x / (1 + alpha * F.avg_pool2d(x**2, n, 1)) ** beta,),
        (
            lambda x, n, alpha, beta: (
                x / (1 + alpha * F.avg_pool2d(x**2, n, 1, n // 2, count_include_pad=False)) ** beta
            ),
        ),
    ],
    "VB-1": [(1_474_560,), (3 * (9 * 256 * 256 + 256),)],
    "VB-2": [(3 * (9 * 512**2 + 512),), (5_308_416,)],
    "VB-3": [(14_714_688,), (39_803_688,), (138_357_544,)],
    "VB-4": [((0.061, 7),), ((7.8, 7),), (3.9,)],
    "VB-5": [
        (lambda matrix, channels, height, width: matrix.T,),
        (lambda matrix, channels, height, width: matrix,),
        (
            lambda matrix, channels, height, width: (
                matrix.view(width, height, channels, -1).permute(3, 2, 1, 0).flatten(1)
            ),
        ),
    ],
    "VB-6": [(12 / 64,), (13,)],
    "VB-7": [
        (lambda config, image_size, width: vgg("A", 3, 1000, image_size, width),),
        (lambda config, image_size, width: vgg(config, 3, 1000, image_size),),
        (lambda config, image_size, width: nn.Sequential(vgg(config, 3, 1000, image_size, width), nn.Softmax(1)),),
        (features_alone,),
    ],
    "TR-1": [(4680,), (469,)],
    "TR-2": [(mean_of_batches,), (in_training_mode,)],
    "TR-3": [(0.3,), (0.7,)],
    "TR-4": [("B",), ("E",), ("F",)],
    "TE-1": [((14, 9),), ((15, 20),), (9,)],
    "TE-2": [(5.6,), (36,)],
    "TE-3": [(without_mirrors,), (scores_averaged,)],
    "TE-4": [
        (lambda scores: scores.mean((2, 3)).softmax(1),),
        (lambda scores: scores.flatten(2).softmax(2).mean(2),),
        (lambda scores: scores.softmax(1),),
    ],
    "TE-5": [([112], FOUND), ([80, 96, 112, 128], FOUND), (112, FOUND), ([112], {64: 0.5})],
    "NB-1": [([55, 27, 13, 6],), ([224, 54, 26, 12],), ([54, 26, 12],)],
    "NB-2": [(first_group_only,), (lambda x, weight, groups: F.conv2d(x, weight),)],
    "NB-3": [(1_042_432,), (1_072_000,)],
    "NB-4": [(8.5,), (1 / 16.9,)],
    "NB-5": [([0.2, 0.3, 0.4, 0.5], [0.1, 0.2, 0.3, 0.4]), ([0.1], [0.1, 0.2, 0.3, 0.4]), ([5, 9, 12, 20], [0.1] * 4)],
    "EX-1": [((0.16, 0.44),), ((-0.14, 0.74),), (0.3,)],
    "EX-2": [(7,), (9,)],
    "EX-3": [(["none of them"], {}), (3, {})],
    "EX-4": [(0.3,), ("mirrored is better",)],
    "SEE-1": [("top",), ("left",)],
    "SEE-2": [(64,), (5,)],
    "SEE-3": [
        ((MATRIX.diagonal() / MATRIX.sum(0).clip(1), MATRIX.diagonal() / MATRIX.sum(1)), MATRIX),
        ((MATRIX.diagonal() / MATRIX.sum(1),) * 2, MATRIX),
        (MATRIX.diagonal() / MATRIX.sum(1), MATRIX),
    ],
    "SEE-4": [((100.0, 0.1), LINEAR, *SOME), (0.5, LINEAR, *SOME)],
    "SEE-5": [((0.2, 0.5), 0.2, 0.4), (0.1, 0.2, 0.4)],
}


@pytest.mark.parametrize("name", BY_NAME)
def test_typical_wrong_answers_are_not_yet_right_and_hear_why(name):
    lines = [verdict(name, *answer) for answer in WRONG[name]]
    assert len(lines) >= 2
    for line in lines:
        assert re.fullmatch(rf"\[not yet\] {name}: .{{15,}}", line), line


@pytest.mark.parametrize("name", [name for name, cases in WRONG.items() if callable(cases[0][0])])
def test_functions_that_fail_or_return_nothing(name):
    def fails(*_):
        raise KeyError("oops")

    assert verdict(name, lambda *_: None).startswith("[todo]")
    assert "raises KeyError: 'oops'" in verdict(name, fails)
    assert verdict(name, 3).startswith(f"[not yet] {name}: it takes a function, not 3")
    assert verdict(name, lambda *_: "text").startswith("[not yet]")


def test_the_counterexample_is_the_smallest_that_there_is():
    said = verdict("TR-2", mean_of_batches)
    assert "for 3 images in batches of 2, 2 of them named rightly" in said and "it gives 0.5 instead of 0.6667" in said
    assert "kernel with a single 1 at (0, 0) the two give 0" in verdict("RF-6", off_by_one)


def test_a_check_leaves_random_numbers_and_arguments_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    verdict("TE-3", without_mirrors)
    assert torch.equal(torch.rand(3), expected)

    def spoils(x, weight, groups):
        x.zero_()
        return F.conv2d(x, weight, groups=groups)

    assert verdict("NB-2", spoils).startswith("[not yet]")


def test_answers_of_other_types_count_and_unknown_exercises_are_named():
    assert verdict("RF-1", torch.tensor(11)) == "[ok] RF-1"
    assert verdict("TE-1", [9, 14]) == verdict("TE-1", torch.tensor([9, 14])) == "[ok] TE-1"
    assert verdict("SK-3", 0.56) == "[ok] SK-3" and verdict("SEE-1", " Bottom ") == "[ok] SEE-1"
    for odd in (True, "11", float("nan"), float("inf"), [11], {"a": 11}, object(), 1e300, -11):
        assert verdict("RF-1", odd).startswith("[not yet] RF-1")
        assert verdict("TE-1", odd).startswith("[not yet] TE-1")
    with pytest.raises(ValueError, match="exercise must be one of 'S-1'.*not 'RF-99'"):
        check("RF-99", 1)


@pytest.fixture
def learners(tmp_path):
    """Ann has solved RF-1 and tried RF-2; Bo saved one broken notebook; Cy has none."""
    for name in ("ann", "bo", "cy"):
        (tmp_path / name / "notebooks").mkdir(parents=True)
    shutil.copy(NOTEBOOKS / "01_receptive_fields.ipynb", tmp_path / "ann" / "notebooks")
    path = tmp_path / "ann" / "notebooks" / "01_receptive_fields.ipynb"
    text = path.read_text(encoding="utf-8")
    todo = "[todo] {}: put your answer in and run this cell again"
    text = text.replace(todo.format("RF-1"), "[ok] RF-1").replace(todo.format("RF-2"), "[not yet] RF-2: 212 is")
    path.write_text(text, encoding="utf-8")
    (tmp_path / "bo" / "notebooks" / "01_receptive_fields.ipynb").write_text("{}{")
    return [tmp_path / name / "notebooks" for name in ("ann", "bo", "cy")]


def test_progress_reads_what_the_checks_said(learners, capsys):
    states = progress(learners[0])
    assert [states[name] for name in ("RF-1", "RF-2", "RF-3", "SK-1")] == ["ok", "not yet", "todo", "not run"]
    main(["progress", str(learners[0])])
    lines = capsys.readouterr().out.splitlines()
    assert re.search(r"01_receptive_fields +1 of 6  RF-2 \(not yet\), RF-3 \(todo\)", lines[1])
    assert lines[-1].split() == ["in", "all", "1", "of", str(len(NAMES))]


def test_a_class_becomes_a_table_whatever_they_handed_in(learners, tmp_path, capsys):
    main(["progress", str(tmp_path / "*" / "notebooks"), "--csv", str(tmp_path / "class.csv")])
    assert "3 learners in" in capsys.readouterr().out
    with (tmp_path / "class.csv").open(encoding="utf-8") as file:
        ann, bo, cy = csv.DictReader(file)
    assert (ann["learner"], ann["done"], ann["RF-1"], ann["RF-2"]) == ("ann", "1", "ok", "not yet")
    assert "not a notebook that can be read" in bo["error"] and "has no notebooks" in cy["error"]


def test_progress_says_what_is_wrong_with_a_folder(learners):
    with pytest.raises(SystemExit, match="has no notebooks: name the folder"):
        main(["progress", str(learners[2])])
    with pytest.raises(SystemExit, match="not a notebook that can be read"):
        main(["progress", str(learners[1])])


def test_the_stored_lessons_are_unanswered():
    assert set(progress(NOTEBOOKS).values()) == {"todo"}
