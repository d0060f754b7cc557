"""What a network sees, against brute force and against networks whose answer is known."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vgglab import seeing
from vgglab.models import vgg
from vgglab.receptive_field import Region, of_model, reach
from vgglab.seeing import activations, cut, gradient_times_input, occlusion, shifted

SEEDS = st.integers(0, 2**32 - 1)
BACKGROUNDS = st.sampled_from([0.0, 1.5, seeing.BLACK])
often = settings(deadline=None, max_examples=40)


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def filled(model, seed):
    for number, parameter in enumerate(model.parameters()):
        parameter.data = random(*parameter.shape, seed=seed + number)
    return model.double()


def linear(channels, side, classes, seed):
    return filled(nn.Sequential(nn.Flatten(), nn.Linear(channels * side**2, classes)), seed)


def bent(side, seed):
    """A small network that is not linear; its first layer works in place."""
    layers = [nn.ReLU(inplace=True), nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
    return filled(nn.Sequential(*layers, nn.Flatten(), nn.Linear(3 * (side // 2) ** 2, 4)), seed)


@st.composite
def chains(draw):
    """A few padded convolutions and poolings without pixels left over, the name of one of them, an image's side."""
    layers, channels = [], 1
    for _ in range(draw(st.integers(1, 4))):
        if draw(st.booleans()):
            layers += [nn.Conv2d(channels, 2, draw(st.sampled_from([1, 3, 5])), padding="same")]
            channels = 2
        else:
            layers += [nn.MaxPool2d(2)]
    return filled(nn.Sequential(*layers), draw(SEEDS) % 2**31), str(draw(st.integers(0, len(layers) - 1))), 32


# ---- responses


def test_activations_are_what_the_module_gives_before_the_next_one_works_in_place():
    model = filled(vgg("A", 1, 5, image_size=32, width=1 / 32, batch_norm=True), 0).train()
    x = random(3, 1, 32, 32)
    before = x.clone()
    found = {layer: activations(model, x, layer) for layer in ("features.0", "features.1", "features.2", "features")}
    assert model.training and torch.equal(x, before)
    model.eval()
    expected = model.features[0](x)
    torch.testing.assert_close(found["features.0"], expected, rtol=0, atol=0)
    torch.testing.assert_close(found["features.1"], model.features[1](expected), rtol=0, atol=0)
    torch.testing.assert_close(found["features.2"], model.features[1](expected).relu(), rtol=0, atol=0)
    torch.testing.assert_close(found["features"], model.features(x), rtol=0, atol=0)
    assert not found["features"].requires_grad


def test_activations_pass_gradients_to_the_image_and_to_nothing_else():
    model, x = bent(8, 0), random(1, 1, 8, 8).requires_grad_()
    activations(model, x, "1")[0, 2, 4, 4].backward()
    expected = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    expected[..., 3:6, 3:6] = model[1].weight[2]
    torch.testing.assert_close(x.grad, expected * (x > 0))
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


@often
@given(chains(), st.integers(1, 6), SEEDS)
def test_strongest_finds_the_largest_values_of_all(chain, count, seed):
    model, layer, side = chain
    x = random(6, 1, side, side, seed=seed)
    maps = activations(model, x, layer)
    channel = seed % maps.shape[1]
    found = seeing.strongest(model, x, layer, channel, count)
    best = [max(maps[i, channel].flatten().tolist()) for i in range(6)]
    assert [unit.value for unit in found] == sorted(best, reverse=True)[:count]
    assert len({unit.image for unit in found}) == count
    for unit in found:
        assert maps[unit.image, channel, unit.row, unit.col].item() == unit.value == best[unit.image]


def test_strongest_does_not_depend_on_how_the_images_are_split(monkeypatch):
    model, x = bent(8, 0), random(9, 1, 8, 8)
    whole = seeing.strongest(model, x, "3", 1, 9)
    monkeypatch.setattr(seeing, "BATCH", 2)
    for one, other in zip(whole, seeing.strongest(model, x, "3", 1, 9), strict=True):
        assert one[:3] == other[:3] and math.isclose(one.value, other.value, rel_tol=1e-12)


@often
@given(st.integers(-9, 9), st.integers(-9, 9), st.integers(1, 12), st.integers(1, 12), SEEDS)
def test_cut_holds_the_pixels_of_the_region_and_nan_outside(top, left, height, width, seed):
    picture = random(2, 7, 5, seed=seed)
    part = cut(picture, Region(top, left, top + height - 1, left + width - 1))
    assert part.shape == (2, height, width)
    for i in range(height):
        for j in range(width):
            if 0 <= top + i < 7 and 0 <= left + j < 5:
                assert torch.equal(part[:, i, j], picture[:, top + i, left + j].float())
            else:
                assert part[:, i, j].isnan().all()


@often
@given(chains(), st.data())
def test_the_crop_holds_exactly_the_pixels_that_can_change_the_unit(chain, choose):
    model, layer, side = chain
    maps = activations(model, random(1, 1, side, side), layer)
    unit = [choose.draw(st.integers(0, size - 1)) for size in maps.shape[2:]]
    region = of_model(model, (1, side, side))[layer].region(*unit)
    numbered = torch.arange(side**2).view(side, side)
    inside = cut(numbered, region)
    inside = set(inside[~inside.isnan()].int().tolist())
    seen = reach(model, (1, side, side), layer, tuple(unit))
    rows, columns = slice(seen.top, seen.bottom + 1), slice(seen.left, seen.right + 1)
    assert inside == set(numbered[rows, columns].flatten().tolist())
    image, noise = random(2, 1, 1, side, side)
    noise[..., rows, columns] = image[..., rows, columns]
    values = [activations(model, picture, layer)[..., unit[0], unit[1]] for picture in (image, noise)]
    torch.testing.assert_close(values[1], values[0], rtol=1e-12, atol=1e-12)


# ---- which pixels decided


@often
@given(st.integers(1, 3), st.integers(2, 5), BACKGROUNDS, SEEDS)
def test_gradient_times_input_of_a_linear_model_is_weight_times_input(channels, side, background, seed):
    model, x = linear(channels, side, 4, seed % 2**31), random(3, channels, side, side, seed=seed)
    labels = torch.tensor([3, 0, 1])
    expected = (model[1].weight[labels].view_as(x) * (x - background)).sum(1)
    found = gradient_times_input(model, x, labels, background)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert not found.requires_grad and not x.requires_grad


@often
@given(st.integers(1, 5), st.integers(1, 3), BACKGROUNDS, SEEDS)
def test_occlusion_of_a_linear_model_is_what_gradient_times_input_says(patch, stride, background, seed):
    model, x, labels = linear(2, 6, 4, seed % 2**31), random(3, 2, 6, 6, seed=seed), torch.tensor([3, 0, 1])
    promised = gradient_times_input(model, x, labels, background)[:, None]
    expected = F.avg_pool2d(promised, patch, stride)[:, 0] * patch**2
    torch.testing.assert_close(occlusion(model, x, labels, patch, stride, background), expected, rtol=1e-9, atol=1e-9)


@often
@given(st.integers(1, 8), st.integers(1, 3), BACKGROUNDS, SEEDS)
def test_occlusion_covers_one_square_after_another(patch, stride, background, seed):
    model, x, labels = bent(8, seed % 2**31), random(2, 1, 8, 8, seed=seed), torch.tensor([2, 3])
    before = x.clone()
    falls = occlusion(model, x, labels, patch, stride, background)
    assert torch.equal(x, before)
    assert falls.shape == (2, (8 - patch) // stride + 1, (8 - patch) // stride + 1)
    for number, label in enumerate(labels):
        for i, j in torch.cartesian_prod(torch.arange(falls.shape[1]), torch.arange(falls.shape[2])):
            covered = x[number : number + 1].clone()
            for row in range(i * stride, i * stride + patch):
                for column in range(j * stride, j * stride + patch):
                    covered[0, 0, row, column] = background
            fall = model(x[number : number + 1].clone())[0, label] - model(covered)[0, label]
            torch.testing.assert_close(falls[number, i, j], fall.detach(), rtol=1e-9, atol=1e-9)


def test_occlusion_outside_the_field_changes_nothing():
    class Corner(nn.Module):
        """The score is one unit of two convolutions, which sees rows 2 to 6 and columns 3 to 7."""

        def __init__(self):
            super().__init__()
            self.layers = filled(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 1, 3)), 3)

        def forward(self, x):
            return self.layers(x)[:, :, 2, 3]

    x, labels = random(4, 1, 12, 12), torch.zeros(4, dtype=torch.int64)
    changed = (occlusion(Corner(), x, labels, patch=1, stride=1) != 0).any(0)
    rows, columns = changed.any(1).nonzero().flatten(), changed.any(0).nonzero().flatten()
    assert rows.tolist() == [2, 3, 4, 5, 6] and columns.tolist() == [3, 4, 5, 6, 7]


def test_neither_depends_on_the_models_mode():
    model = filled(vgg("A", 1, 5, image_size=32, width=1 / 32, batch_norm=True), 1)
    x, labels = random(2, 1, 32, 32), torch.tensor([0, 4])
    maps = []
    for mode in (True, False):
        model.train(mode)
        maps.append((gradient_times_input(model, x, labels), occlusion(model, x, labels, patch=16, stride=16)))
        assert model.training is mode
    for one, other in zip(*maps, strict=True):
        assert torch.equal(one, other)


# ---- moves


@often
@given(st.integers(-4, 4), st.integers(-4, 4), BACKGROUNDS, SEEDS)
def test_shifted_moves_each_pixel_and_fills_up(down, right, background, seed):
    x = random(2, 1, 6, 5, seed=seed)
    moved = shifted(x, down, right, background)
    for row in range(6):
        for column in range(5):
            inside = 0 <= row - down < 6 and 0 <= column - right < 5
            expected = x[..., row - down, column - right] if inside else torch.full((2, 1), background).double()
            assert torch.equal(moved[..., row, column], expected)


# ---- what is refused


def test_bad_arguments_are_named():
    model, x, labels = bent(8, 0), random(2, 1, 8, 8), torch.tensor([0, 1])
    refusals = {
        "layer must be the path of a module": lambda: activations(model, x, "conv9"),
        "channel 3; '1' gives": lambda: seeing.strongest(model, x, "1", 3, 1),
        "with a channel 0; '5' gives": lambda: seeing.strongest(model, x, "5", 0, 1),
        "count must be at most the 2 images": lambda: seeing.strongest(model, x, "1", 0, 3),
        "patch must be at most 8": lambda: occlusion(model, x, labels, patch=9, stride=1),
        "labels must be below 4, one for each image": lambda: gradient_times_input(model, x, [0, 4]),
        r"one for each image, not \[0\]": lambda: gradient_times_input(model, x, [0]),
        "background must be at most 3.4": lambda: shifted(x.float(), 0, 0, background=1e300),
    }
    for message, call in refusals.items():
        with pytest.raises(ValueError, match=message):
            call()
