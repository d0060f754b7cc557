"""The drawn garments: ten balanced classes, the same for a seed, no image twice, neither trivial nor noise."""

import hashlib

import numpy as np
import pytest
import torch
from torchvision.datasets import FashionMNIST

from vgglab import garments
from vgglab.garments import CLASSES, drawn_images


@pytest.fixture(scope="module")
def full():
    return drawn_images()


def checksum(tensors):
    return hashlib.sha256(b"".join(t.numpy().tobytes() for t in tensors)).hexdigest()


def test_the_classes_are_those_of_fashion_mnist():
    assert list(CLASSES) == FashionMNIST.classes


def test_shapes_types_and_range(full):
    for count, pixels, labels in ((6000, *full[:2]), (1000, *full[2:])):
        assert pixels.shape == (count, 1, 28, 28) and pixels.dtype == torch.uint8
        assert labels.shape == (count,) and labels.dtype == torch.int64
        background, drawn = pixels == 0, pixels > 40
        assert 0.4 < background.float().mean() < 0.9 and pixels.max() > 240
        assert drawn.flatten(1).sum(1).min() > 30, "an image is nearly empty"


def test_a_seed_fixes_every_pixel_and_another_changes_them():
    first = checksum(drawn_images(200, 50, seed=3))
    np.random.seed(0)
    torch.manual_seed(0)
    assert checksum(drawn_images(200, 50, seed=3)) == first
    assert checksum(drawn_images(200, 50, seed=4)) != first


@pytest.mark.parametrize("train, test", [(10, 10), (13, 27), (1004, 101)])
def test_classes_are_balanced_and_mixed(train, test):
    for labels, count in zip(drawn_images(train, test, seed=1)[1::2], (train, test), strict=True):
        counts = labels.bincount(minlength=10)
        assert counts.sum() == count and counts.max() - counts.min() <= 1
        assert not torch.equal(labels, labels.sort().values)


def test_no_image_comes_twice(full):
    images = [image.numpy().tobytes() for image in torch.cat([full[0], full[2]])]
    assert len(set(images)) == len(images) == 7000


def test_an_image_drawn_before_is_drawn_again(monkeypatch):
    monkeypatch.setattr(garments, "draw", lambda label, rng: np.full((28, 28), rng.integers(25), np.uint8))
    train, _, test, _ = drawn_images(10, 15)
    assert torch.cat([train, test])[:, 0, 0, 0].unique().numel() == 25


def test_a_linear_classifier_gets_most_but_not_all(full):
    train, labels, test, answers = full
    x, y = train.flatten(1) / 255, test.flatten(1) / 255
    weight, bias = torch.zeros(784, 10, requires_grad=True), torch.zeros(10, requires_grad=True)
    optimizer = torch.optim.Adam([weight, bias], lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(x @ weight + bias, labels).backward()
        optimizer.step()
    predicted = (y @ weight + bias).argmax(1)
    assert 0.72 < (predicted == answers).float().mean() < 0.88
    assert all((predicted == answers)[answers == label].float().mean() > 0.4 for label in range(10))


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        ({"train": 9}, ValueError, "train must be at least 10, not 9"),
        ({"test": -1}, ValueError, "test must be at least 10, not -1"),
        ({"train": 60.0}, TypeError, "train must be an integer, not 60.0"),
        ({"test": True}, TypeError, "test must be an integer, not True"),
        ({"seed": -1}, ValueError, "seed must be at least 0, not -1"),
        ({"seed": None}, TypeError, "seed must be an integer, not None"),
    ],
)
def test_bad_arguments_are_named(arguments, error, words):
    with pytest.raises(error, match=words):
        drawn_images(**arguments)
