"""The drawn garments: ten balanced classes, no image twice, neither trivial nor noise, and drawn by the program."""

import re
from pathlib import Path

import draw_garments
import numpy as np
import PIL
import pytest
import torch
from torchvision.datasets import FashionMNIST

from vgglab import data
from vgglab.data.fashion_mnist import GARMENTS

PINS = (Path(__file__).parent.parent / "constraints.txt").read_text()


@pytest.fixture(scope="module")
def full():
    return data.drawn_garments()


def test_the_classes_are_those_of_fashion_mnist(full):
    assert list(full.train.classes) == list(draw_garments.CLASSES) == FashionMNIST.classes


def test_the_program_still_draws_the_file():
    pinned = re.search(r"^pillow==(.*)$", PINS, re.M)[1]
    if PIL.__version__ != pinned:
        pytest.skip(f"the file was drawn with Pillow {pinned}, and this is {PIL.__version__}")
    drawn = draw_garments.drawn_images(6000, 1000)
    with np.load(GARMENTS) as stored:
        assert all(np.array_equal(stored[name], new) for name, new in zip(stored, drawn, strict=True))


def test_the_classes_are_balanced_and_the_images_neither_empty_nor_full(full):
    for images, count in ((full.train, 6000), (full.test, 1000)):
        assert images.pixels.shape == (count, 1, 28, 28) and set(images.labels.bincount().tolist()) == {count // 10}
        background, drawn = images.pixels == 0, images.pixels > 40
        assert 0.4 < background.float().mean() < 0.9 and drawn.flatten(1).sum(1).min() > 30


def test_a_smaller_set_is_the_beginning_and_still_balanced(full):
    few = data.drawn_garments(105, 30)
    assert torch.equal(few.train.pixels, full.train.pixels[:105])
    assert torch.equal(few.test.labels, full.test.labels[:30])
    assert few.train.labels.bincount().min() == 10


def test_no_image_comes_twice(full):
    images = {image.numpy().tobytes() for part in (full.train, full.test) for image in part.pixels}
    assert len(images) == 7000


def test_a_linear_classifier_gets_most_but_not_all(full):
    x, y = (part.pixels.flatten(1) / 255 for part in (full.train, full.test))
    weight, bias = torch.zeros(784, 10, requires_grad=True), torch.zeros(10, requires_grad=True)
    optimizer = torch.optim.Adam([weight, bias], lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(x @ weight + bias, full.train.labels).backward()
        optimizer.step()
    right = (y @ weight + bias).argmax(1) == full.test.labels
    assert 0.72 < right.float().mean() < 0.88
    assert all(right[full.test.labels == label].float().mean() > 0.4 for label in range(10))
