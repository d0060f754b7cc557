"""Every exercise: its folded solution, the forms of a right answer, and typical slips."""

import ast
import inspect
import re
import symtable
from decimal import Decimal
from fractions import Fraction
from functools import partial
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.resnet import BasicBlock

from vgglab import data
from vgglab.course import figures
from vgglab.course.exercises import JUDGES, LESSONS, verdict
from vgglab.course.exercises.judge import Values
from vgglab.course.exercises.reading import number
from vgglab.models import vgg
from vgglab.models.resnet import basic
from vgglab.receptive_field import stack

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
    one.weight.data, one.bias.data = weight, torch.zeros(second.out_channels)
    return one


def unflipped(first, second):
    one = without_biases(first, second)
    one.bias.data = second(first(torch.zeros(1, first.in_channels, 9, 9)))[0, :, 0, 0]
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


def grouped(x, weight, groups):
    return torch.cat([F.conv2d(part, w) for part, w in zip(x.chunk(groups, 1), weight.chunk(groups), strict=True)], 1)


def spoils(x, weight, groups):
    result = grouped(x, weight, groups)
    x.zero_()
    return result


class Block(nn.Module):
    """A residual block whose projection is registered first; parts of it can be wrong."""

    def __init__(self, c_in, c_out, stride, bias=False, always=False, norm=nn.BatchNorm2d, end=F.relu, strided=True):
        super().__init__()
        if always or stride > 1 or c_in != c_out:
            self.side = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride if strided else 1, bias=False), norm(c_out))
        self.one = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=bias)
        self.two = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=bias)
        self.norms, self.end = nn.ModuleList([nn.BatchNorm2d(c_out), nn.BatchNorm2d(c_out)]), end

    def forward(self, x):
        f = self.norms[1](self.two(self.norms[0](self.one(x)).relu_()))
        return self.end(f + (self.side(x) if hasattr(self, "side") else x))


def torchvisions(c_in, c_out, stride):
    projection = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))
    return BasicBlock(c_in, c_out, stride, None if stride == 1 and c_in == c_out else projection)


def relu_before(c_in, c_out, stride):
    block = torchvisions(c_in, c_out, stride)
    block.bn2 = nn.Sequential(block.bn2, nn.ReLU())
    return block


MATRIX = torch.tensor([[8, 2, 0], [1, 3, 0], [1, 5, 0]])
RECALL, PRECISION = MATRIX.diagonal() / MATRIX.sum(1), MATRIX.diagonal() / MATRIX.sum(0).clip(1)
LINEAR = nn.Sequential(nn.Flatten(), nn.Linear(1024, 10)).requires_grad_(False)
SOME = (torch.randn(5, 1, 32, 32, generator=torch.Generator().manual_seed(0)), torch.arange(5))
CURVES = {"global average pooling": [0.05, 0.1, 0.2, 0.3], "flatten and FC layers": [0.1, 0.2, 0.3, 0.4]}
FOUND = dict(zip(range(64, 161, 16), (0.5, 0.8, 0.9, 0.9125, 0.9025, 0.8, 0.5), strict=True))
LINES = {"S = 73": {64: 0.7, 73: 0.72, 128: 0.5}, "S from 73 to 146": {64: 0.5, 73: 0.6, 128: 0.9}}
IN_PER_CENT = {side: 100 * share for side, share in FOUND.items()}

# For each exercise the forms of right answers; one that takes more than the answer has a tuple of all in a Given.
Given = type("Given", (tuple,), {})
RIGHT = {
    "S-1": [4.61, "4.605 nats", np.log(100), torch.tensor(100.0).log(), Decimal("4.6052")],
    "RF-1": [11, 11.0, (11, 11), [11], torch.tensor(11), np.int64(11), stack([3] * 5), "11", "11 pixels"],
    "RF-2": [268, (268, 268), torch.tensor([268]), "268"],
    "RF-3": [(31, 15), ((31, 31), 15), "31 pixels, 15 layers", {"width": 31, "number of layers": 15}, Given((31, 15))],
    "RF-4": [("conv4_1", 8), ("conv4_1", (8, 8)), ["Conv4_1", "8"], "conv4_1, 8"],
    "RF-5": [12, "12 layers"],
    "RF-7": [(27, 53, 13), "27 to 53, 13", Given((27, 53, 13)), {"first row": 27, "last row": 53, "rows outside": 13}],
    "SK-1": [(5, 63), (5, 62.8), (5, 62.80991), (5, "63 %"), "5 layers, 63 per cent", np.array([5, 62.81])],
    "SK-2": [(34_944, 105_415_200), "34,944, 105,415,200", {"macs": 105_415_200, "parameters": 34_944}],
    "SK-3": [9 / 16, Fraction(9, 16), "9/16", 0.56, 0.563, torch.tensor(0.5625)],
    "SK-4": [(1 / 3, (3, 3)), (0.33, "3x3"), ("33 %", (3, 3)), (Fraction(1, 3), stack([(3, 1), (1, 3)]))],
    "SK-6": [(398, 210), "398, 210", "398,210", torch.tensor([398, 210])],
    "LRN-1": [30 / 3726, "30/3726", 0.0080515, Fraction(30, 3726), torch.tensor(30 / 3726)],
    "LRN-2": [(2e-5, 1), (1e-4 / 5, 1.0), ("2·10⁻⁵", 1), "2e-5, 1"],
    "LRN-3": [200, (2 / (2 * 1e-4 * 0.75 - 1e-4)) ** 0.5, 199.99999989, 199.92],
    "LRN-4": [7_426_048, "7,426,048", "7 426 048 activations"],
    "VB-1": [1_475_328, "1,475,328"],
    "VB-2": [[590_080, 2_359_808, 2_359_808], "590,080 2,359,808 2,359,808"],
    "VB-3": [15_227_688, 15_227_688.0],
    "VB-4": [(3.9, 7), (3.901, 7.048), "3.90 GB, 7 times", "3.63 GiB, 7"],
    "VB-6": [12, "n = 12"],
    "TR-1": [4690],
    "TR-3": [0.6, [0.6], torch.tensor([0.6])],
    "TR-4": ["A", " a ", "configuration A", "none"],
    "TE-1": [(9, 14), [9, 14], torch.tensor([9, 14]), "9 x 14"],
    "TE-2": [11.2, 11.24, "11.2"],
    "TE-5": [Given((sizes, FOUND, LINES)) for sizes in ([96, 112, 128], {96, 112, 128}, np.array([96, 112, 128]))]
    + [Given(([96, 112, 128], IN_PER_CENT, LINES)), Given(("96, 112, 128", FOUND, LINES))],
    "NB-1": [[54, 26, 12, 5], "54 → 26 → 12 → 5", "54 -> 26 -> 12 -> 5", np.array([54, 26, 12, 5])],
    "NB-3": [1_043_456, "1,043,456"],
    "NB-4": [16.9, Decimal("16.94"), 16.941176],
    "NB-5": [
        Given((shares, CURVES))
        for shares in ([0.05, 0.1, 0.25, 0.35], "5 %, 10 %, 25 %, 35 %", [5, 10, 25, 35], {1: 5, 2: 10, 3: 20, 4: 39})
    ],
    "NB-6": [Block, torchvisions],
    "EX-1": [(0.10, 0.50), (0.1037, 0.4963)],
    "EX-2": [10],
    "EX-3": [Given(([], {})), Given((set(), {}))],
    "SEE-1": ["bottom", " Bottom ", "the bottom edge", "lower"],
    "SEE-2": [25],
    "SEE-3": [Given((parts, MATRIX)) for parts in ((RECALL, PRECISION), ((100 * RECALL).round(), PRECISION.tolist()))],
    "SEE-5": [Given(((0.03, 0.15), 0.2, 0.4)), Given(((3.0, 15.0), 0.2, 0.4))],
}  # fmt: skip

# For each exercise answers that learners give, and words of what they are told.
WRONG = {
    "S-1": [(4.6, "to 0.01"), (2.0, "base 10"), (0.01, "probability"), ("log(100)", "takes one number: loss")],
    "RF-1": [(15, "overlap"), (10, "to what"), (11.5, "is not it"), ((11, 12), "takes one number"), (True, "takes")],
    "RF-2": [(212, "VGG-16's"), (252, "last pooling"), (266, "is not it")],
    "RF-3": [((31, 4), "four see 9"), (31, "two numbers: width, number"), ((15, 31), "another order")],
    "RF-4": [(("conv4_1", 1), "own stride"), (("conv4_1", 7), "distance"), (("conv3_3", 4), "name of the layer")],
    "RF-5": [(45, "two strides"), (11, "99"), (13, "too many")],
    "RF-6": [(off_by_one, "single 1 at (0, 0) it gives 0"), (lambda kernel: kernel, "pair"), (stack, "raises")],
    "RF-7": [((34, 60, 6), "in jumps"), ((27, 54, 13), "one of the 27"), ((22, 48, 18), "layer reads"), (27, "three")],
    "SK-1": [((5, 37), "what is left"), ((11, 63), "layers 11"), ((5, 0.63), "a share"), ((5, 60), "rounded too far")],
    "SK-2": [((34_848, 105_415_200), "biases"), ((34_944, 210_830_400), "operations"), ((34_944, 1.05e8), "digit")],
    "SK-3": [(9 / 25, "first layer"), (0.6, "to 0.01"), (0.57, "last digit"), (0.5, "is not it")],
    "SK-4": [((2 / 3, 3), "left"), ((33.3, (3, 3)), "per cent"), ((1 / 3, (3, 1)), "field height and width")],
    "SK-5": [(without_biases, "zeros"), (unflipped, "instead of"), (lambda first, second: second, "it gives")]
    + [(lambda first, second: without_biases(second, first), "for first"), (lambda *pair: pair, "tuple")],
    "SK-6": [((398, 211), "ten million"), ((421, 210), "is not it"), ((210, 398), "another order")],
    "LRN-1": [(30 / 3727, "added 1"), (30 / 3728, "added 2"), (0.00805, "rounded too far"), (30 / 4510, "position")],
    "LRN-2": [((1e-4, 1.0), "Caffe"), ((2e-5, 2.0), "paper's"), ((5e-4, 1.0), "window")],
    "LRN-3": [(1000, "falls"), (199, "is not it"), (89, "multiplied"), (89.44, "multiplied"), (141.4, "AlexNet's")],
    "LRN-4": [(3_211_264, "one LRN"), (4_214_784, "counts too"), (7_426_000, "every digit")],
    "LRN-5": [
        (lambda x, n, alpha, beta: x / (1 + alpha * F.avg_pool2d(x**2, n, 1)) ** beta, "n = 3"),
        (lambda x, n, alpha, beta: x / (1 + 0.5 * F.avg_pool2d(x**2, n, 1, n // 2)) ** 0.75, "instead of"),
        (lambda x, n, a, b: x / (1 + a * F.avg_pool2d(x**2, n, 1, n // 2, False, False)) ** b, "divided by"),
    ],
    "VB-1": [(1_474_560, "biases"), (1_770_240, "arrive"), (1_475_000, "every digit")],
    "VB-2": [(5_309_696, "three numbers"), ([2_359_808] * 3, "block 3"), ([2_359_808, 590_080, 2_359_808], "order")],
    "VB-3": [(14_714_688, "alone"), (39_803_688, "averaged"), (138_357_544, "is not it")],
    "VB-4": [((0.061, 7), "one image"), ((7.8, 7), "4 bytes"), ((3.86, 7), "input"), (3.862, "two numbers: gigabytes")]
    + [((4, 7), "to 0.01"), ((3.63, 7), "GiB"), ("3.90 GiB, 7", "is not it"), ((3.9, 28), "not bytes")],
    "VB-5": [(lambda matrix, *sides: matrix.T, "instead of"), (lambda matrix, *sides: matrix, "the shape")]
    + [(lambda m, c, h, w: m.view(w, h, c, -1).permute(3, 2, 1, 0).flatten(1), "instead of")],
    "VB-6": [("12/64", "64ths"), (13, "more than"), (11, "still fits")],
    "VB-7": [
        (lambda config, image_size, width: vgg("A", 3, 1000, image_size, width), "config = "),
        (lambda config, image_size, width: vgg(config, 3, 1000, image_size), "instead of"),
        (lambda *given: nn.Sequential(vgg(given[0], 3, 1000, *given[1:]), nn.Softmax(1)), "instead of"),
        (lambda *given: vgg(given[0], 3, 1000, *given[1:]).features, "tensors of weights"),
    ],
    "TR-1": [(4680, "smaller batch"), (469, "one epoch")],
    "TR-2": [(mean_of_batches, "for 3 images, batch_size = 2 it gives 0.5 instead of 0.6667"), (in_training_mode, "1")],
    "TR-3": [(0.3, "zero_grad"), (0.7, "double"), (-0.6, "sign")],
    "TR-4": [("B", "last losses"), ("E", "deepest"), ("F", "is not it"), (3, "one word")],
    "TE-1": [((14, 9), "another order"), ("15, 20", "rows 15: the window of 7"), (9, "two numbers: rows, columns")],
    "TE-2": [(5.6, "mirror"), (36, "more than one crop"), (11.25, "last digit"), (11, "to 0.1")],
    "TE-3": [(without_mirrors, "instead of"), (scores_averaged, "instead of")],
    "TE-4": [
        (lambda scores: scores.mean((2, 3)).softmax(1), "(1, 2, 1, 2)"),
        (lambda scores: scores.flatten(2).softmax(2).mean(2), "instead of"),
        (lambda scores: scores.softmax(1), "the shape"),
    ],
    "TE-5": [
        (Given(([112], FOUND, LINES)), "96 is near enough"),
        (Given(([80, 96, 112, 128], FOUND, LINES)), "80 is more than"),
        (Given(([112], {64: 0.5}, LINES)), "seven sizes"),
        (Given(([112], dict.fromkeys(FOUND, 0), LINES)), "no accuracy"),
        (Given(([112], FOUND | {96: 0.9012}, LINES)), "no accuracy on 400"),
        (Given(([112], FOUND | LINES["S = 73"], LINES)), "seven sizes"),
        (Given(([112], FOUND | {64: 0.7, 128: 0.5}, LINES)), "that of S = 73"),
        (Given(([112], FOUND | {128: 0.8}, LINES)), "not what the lesson measured"),
        (Given(([96],)), "by_scale"),
    ],
    "NB-1": [([55, 27, 13, 6], "from 227"), ([54, 27, 13, 6], "left out"), ([54, 26, 12], "four numbers")],
    "NB-2": [(first_group_only, "it gives"), (lambda x, weight, groups: F.conv2d(x, weight), "raises RuntimeError")]
    + [(lambda x, weight, groups: F.conv2d(x, weight, None, 1, 0, 1, groups), "to do without"), (spoils, "copy")],
    "NB-3": [(1_042_432, "biases"), (1_072_000, "reproduce"), (1_043_000, "every digit")],
    "NB-4": [(8.5, "not one"), (0.059, "way round"), (17, "to 0.1")],
    "NB-5": [
        (Given(([0, 0, 0, 0], CURVES)), "further"),
        (Given((CURVES["global average pooling"], CURVES)), "shares of global"),
        (Given(([0.35, 0.25, 0.1, 0.05], CURVES)), "in this order"),
        (Given(([0.15, 0.16, 0.2, 0.3], CURVES)), "moved by 1 it is no steadier"),
        (Given(([0.1], CURVES)), "four shares"),
        (Given(([0.1] * 4,)), "curves"),
    ],
    "NB-6": [
        (partial(Block, end=lambda y: y), "it gives -"),
        (relu_before, "it gives"),
        (partial(Block, bias=True), "it has 8 tensors of weights and biases instead of 6"),
        (partial(Block, always=True), "it has 9 tensors"),
        (partial(Block, norm=nn.Identity), "for in_channels = 2, out_channels = 3, stride = 1 it has 7 tensors"),
        (lambda c_in, c_out, stride: Block(c_out, c_in, stride), "of the shape (2,) instead of (3,)"),
        (partial(Block, strided=False), "must match the size"),
        (lambda c_in, c_out, stride: nn.Sequential(*basic(c_in, c_out, stride), nn.ReLU()), "it gives"),
        (lambda c_in, c_out, stride: Block, "cannot be compared"),
    ],
    "EX-1": [((0.16, 0.44), "many seeds"), ((-0.14, 0.74), "√5"), (0.3, "two numbers")],
    "EX-2": [(7, "1.96"), (9, "0.31")],
    "EX-3": [(Given((np.array(["none"]), {})), "list of labels"), (Given((3, {})), "list of labels")],
    "EX-4": [(0.3, "Comparison"), ("mirrored is better", "Comparison")],
    "SEE-1": [("top", "negative"), ("left", "alike")],
    "SEE-2": [(64, "crop"), (5, "side")],
    "SEE-3": [(Given(((PRECISION, RECALL), MATRIX)), "recall of class 1"), (Given((RECALL, MATRIX)), "recall and")],
    "SEE-4": [(Given(((100.0, 0.1), LINEAR, *SOME)), "before minus after"), (Given((0.5, LINEAR, *SOME)), "two")],
    "SEE-5": [(Given(((0.15, 0.03), 0.2, 0.4)), "order"), (Given(((0, 0), 0.2, 0.4)), "further")],
}  # fmt: skip


def said(name, answer):
    return verdict(name, *answer) if isinstance(answer, Given) else verdict(name, answer)


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_answer_counts_in_every_form(name):
    assert {repr(form): said(name, form) for form in RIGHT[name]} == dict.fromkeys(
        map(repr, RIGHT[name]), f"[ok] {name}"
    )


@pytest.mark.parametrize("name", BY_NAME)
def test_typical_wrong_answers_are_told_what_went_wrong(name):
    assert len(WRONG[name]) >= 2
    for answer, words in WRONG[name]:
        line = said(name, answer)
        assert line.startswith(f"[not yet] {name}: ") and words in line, (answer, line)


@pytest.mark.parametrize("name", [name for name, judge in JUDGES.items() if isinstance(judge, Values)])
def test_no_slip_lies_within_the_tolerance_of_what_is_right(name):
    for part in JUDGES[name].parts:
        if not isinstance(part.truth, str):
            assert part.judge(part.truth, "") is None and part.slips
            for slip, line in part.slips:
                rounded = round(slip / part.step) * part.step if part.step else slip
                assert not part.fits(number(slip), part.truth) and not part.fits(number(rounded), part.truth), slip
                assert part.judge(slip, "") == line
