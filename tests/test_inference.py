"""Testing at any size, against timm, torchvision and brute force."""

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Function
from torch import nn

from vgglab import inference
from vgglab.inference import (
    crop_offsets,
    dense_scores,
    multi_crop_scores,
    multi_scale_scores,
    rescale,
    score_map,
    to_dense,
)
from vgglab.models import VGG_CONFIGS, vgg
from vgglab.receptive_field import UnsupportedOperation, of_model


def images(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def small(config="A", image_size=32, **arguments):
    """A narrow VGG, as it is in the middle of training: dropout is on."""
    torch.manual_seed(0)
    arguments = {"in_channels": 1, "num_classes": 5, "width": 1 / 32} | arguments
    return vgg(config, image_size=image_size, **arguments)


def close(ours, theirs, tolerance=1e-5):
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance * theirs.abs().max().item())


# ---- the FC layers as convolutions


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("config", VGG_CONFIGS)
def test_at_the_training_size_dense_equals_plain(config, batch_norm):  # TE1
    for image_size, width in ((32, 1 / 8), (50, 1 / 3), (64, 1 / 16), (224, 1 / 32)):
        model = small(config, image_size, width=width, batch_norm=batch_norm).eval()
        x = images(2, 1, image_size, image_size)
        with torch.no_grad():
            plain = model(x)
        close(score_map(model, x), plain[:, :, None, None])
        close(dense_scores(model, x, flip=False), plain.softmax(1))


def test_the_weights_are_shared_and_the_model_is_left_alone():
    model = small(batch_norm=True)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    dense = to_dense(model)
    for score in (score_map, dense_scores, multi_crop_scores):
        score(model, images(2, 1, 40, 40))
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module.training for module in dense.modules())
    x = images(1, 1, 64, 96)
    old = score_map(dense, x)
    model.classifier[0].weight.data.mul_(2)
    close(score_map(dense, x), score_map(model, x))
    assert not torch.allclose(score_map(dense, x), old)


def test_dropout_and_batch_norm_do_nothing_random_even_in_training_mode():
    model, x = small("A-LRN", 64, batch_norm=True, dropout=0.9), images(3, 1, 80, 100)
    for network in (model, to_dense(model), to_dense(model).train()):
        for score in (score_map, dense_scores):
            assert torch.equal(score(network, x), score(network, x))
            close(score(network, x)[:1], score(network, x[:1]))


@settings(deadline=None, max_examples=40)
@given(
    st.integers(32, 140), st.integers(32, 140), st.sampled_from((32, 47, 64, 96)), st.sampled_from(list(VGG_CONFIGS))
)
def test_any_height_and_width_equals_the_fc_layers_slid_over_the_feature_map(height, width, image_size, config):  # TE6
    model, x = small(config, image_size, width=1 / 64).eval(), images(1, 1, height, width)
    window = image_size // 32
    with torch.no_grad():
        maps = model.features(x)
        rows, columns = (max(1, side // 32 - window + 1) for side in (height, width))
        above, before = ((max(0, window - side) // 2) for side in maps.shape[2:])
        padded = torch.zeros(1, maps.shape[1], max(window, maps.shape[2]), max(window, maps.shape[3]))
        padded[:, :, above : above + maps.shape[2], before : before + maps.shape[3]] = maps
        expected = torch.zeros(1, 5, rows, columns)
        for i in range(rows):
            for j in range(columns):
                expected[:, :, i, j] = model.classifier(padded[:, :, i : i + window, j : j + window].flatten(1))
    close(score_map(model, x), expected)
    flipped = score_map(model, x.flip(3)).mean((2, 3)).softmax(1)
    close(dense_scores(model, x), (expected.mean((2, 3)).softmax(1) + flipped) / 2)


def test_dense_scores_at_256_are_those_of_timm():
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    ours = vgg("A", num_classes=10).eval()
    names = {"classifier.0": "pre_logits.fc1", "classifier.3": "pre_logits.fc2", "classifier.6": "head.fc"}
    with torch.device("meta"):
        theirs = timm.create_model("vgg11", num_classes=10).eval()
    shapes = {name: tensor.shape for name, tensor in theirs.state_dict().items()}
    shared = {}
    for name, tensor in ours.state_dict().items():
        layer, kind = name.rsplit(".", 1)
        name = f"{names.get(layer, layer)}.{kind}"
        shared[name] = tensor.view(shapes[name])
    theirs.load_state_dict(shared, assign=True)
    x = images(2, 3, 256, 256)
    with torch.no_grad():
        expected = theirs(x)
    assert expected.std() > 0.01
    close(score_map(ours, x).mean((2, 3)), expected)
    close(dense_scores(ours, x, flip=False), expected.softmax(1))


# ---- other people's networks


def chain(*head):
    """Features of a map 3x3 of 8 channels for images of 16 pixels, and a head."""
    features = (nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), nn.AvgPool2d(2))
    return nn.Sequential(*features, *head)


def fc(inputs=72, outputs=72):
    return nn.Linear(inputs, outputs)


Unbiased = type("Unbiased", (nn.Linear,), {"forward": lambda self, x: F.linear(x, self.weight)})


def scaled(layer):
    layer.register_forward_hook(lambda module, args, output: 2 * output)
    return layer


ANYWHERE = [nn.ReLU, nn.GELU, nn.Hardswish, nn.Dropout, nn.Identity, lambda: nn.Softmax(dim=1), fc, nn.Flatten,
            lambda: nn.LogSoftmax(1), lambda: nn.Sequential(fc(), nn.Tanh()), lambda: nn.BatchNorm1d(72),
            lambda: nn.Softmax(-1), lambda: nn.LayerNorm(72), lambda: nn.GLU(), lambda: nn.PReLU(72),
            lambda: nn.Flatten(0), lambda: nn.Unflatten(1, (8, 3, 3)), lambda: nn.Flatten(2), lambda: scaled(fc()),
            lambda: Function(lambda self, x: 2 * x), lambda: Function(lambda self, x: 2 * x.flatten(1)),
            lambda: Function(lambda self, x: x + self.fc(x), fc=fc()), lambda: nn.AdaptiveAvgPool2d(3),
            lambda: Function(lambda self, x: x.transpose(-1, -2)), lambda: nn.AdaptiveMaxPool2d(3),
            lambda: Function(lambda self, x: x.transpose(1, -1).flatten(1)), lambda: nn.AdaptiveAvgPool2d(1),
            lambda: nn.utils.parametrizations.weight_norm(fc()), lambda: nn.BatchNorm1d(72, affine=False),
            lambda: Function(lambda self, x: F.adaptive_avg_pool2d(x, 3)), lambda: nn.Conv2d(8, 8, 1),
            lambda: nn.Linear(3, 3), lambda: nn.Dropout2d(), lambda: nn.BatchNorm2d(8), lambda: Unbiased(72, 72),
            lambda: Function(lambda self, x: x * x.shape[-1] ** -0.5)]  # fmt: skip


@pytest.mark.filterwarnings("ignore:dropout2d")
def test_random_heads_are_converted_or_refused_by_a_layers_name():
    taken, refused = [], []

    @settings(max_examples=150, deadline=None, derandomize=True)
    @given(st.lists(st.sampled_from(ANYWHERE), max_size=2), st.lists(st.sampled_from(ANYWHERE), max_size=3))
    def compare(on_maps, on_numbers):
        torch.manual_seed(0)
        model = chain(*(make() for make in on_maps), nn.Flatten(), fc(), *(make() for make in on_numbers)).eval()
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
        x = images(2, 3, 16, 16)
        try:
            with torch.no_grad():
                plain = model(x)
        except (RuntimeError, ValueError, IndexError):
            return
        try:
            close(score_map(model, x), plain[:, :, None, None])
            assert score_map(model, images(1, 3, 40, 32)).shape[2:] == (7, 5)
            taken.append(model)
        except UnsupportedOperation as error:
            names = {name for name, _ in model.named_modules()}
            assert {*re.findall(r"[\w.]+", str(error))} & (names | {"model"}), error
            refused.append(model)

    compare()
    assert len(taken) > 30 and len(refused) > 30


@pytest.mark.parametrize("head", [
    nn.Linear(25088, 5),
    nn.Sequential(nn.Flatten(), nn.Linear(25088, 8), nn.Linear(8, 5)),
    nn.Sequential(nn.Linear(25088, 8), nn.BatchNorm1d(8), nn.Linear(8, 5)),
    nn.Sequential(nn.Dropout(), nn.Linear(25088, 8), nn.Sequential(nn.ReLU(), nn.Linear(8, 5), nn.LogSoftmax(dim=1))),
])  # fmt: skip
def test_heads_on_torchvisions_vgg(head):
    model = torchvision.models.vgg11()
    model.classifier = head
    for side in (32, 224):  # its pooling makes 7x7 of 1x1 and leaves 7x7 alone
        x = images(1, 3, side, side)
        with torch.no_grad():
            plain = model.eval()(x)
        close(score_map(model, x), plain[:, :, None, None])
        close(dense_scores(model, x, flip=False), plain.softmax(1))
    with torch.device("meta"):
        larger = to_dense(torchvision.models.vgg11())(torch.empty(1, 3, 320, 256))
    assert larger.shape == (1, 1000, 4, 2)  # and squeezes nothing


@pytest.mark.parametrize("forward, name", [
    (lambda self, x: 2 * self.fc(self.features(x).flatten(1)), "mul"),
    (lambda self, x: self.fc(self.features(x).flatten(1).mul_(2)), "mul"),
    (lambda self, x: self.fc(self.features(x).permute(0, 2, 3, 1).flatten(1)), "permute"),
    (lambda self, x: self.fc(F.adaptive_avg_pool2d(self.features(x), 3).flatten(1)), "adaptive_avg_pool2d"),
    (lambda self, x: self.fc(self.features(x).flatten(1)) + self.again(self.features(x).flatten(1)), "features.0"),
    (lambda self, x: F.linear(self.features(x).flatten(1), self.fc.weight), "features.4"),
    (lambda self, x: self.fc(self.features(x).flatten(1))[:, :2], "slice"),
    (lambda self, x: (self.features(x), self.fc(self.features(x).flatten(1))), "features.0"),
])  # fmt: skip
def test_what_a_forward_does_beside_its_layers_is_refused_by_name(forward, name):
    model = Function(forward, features=chain(), fc=nn.Linear(72, 4), again=nn.Linear(72, 4))
    with pytest.raises(UnsupportedOperation, match=rf"(?=.*\b{name}\b).*model cannot become dense"):
        dense_scores(model.eval(), images(1, 3, 16, 16))


# ---- the sliding window


class Unpadded(nn.Module):
    """Three convolutions without padding, two poolings, two FC layers, for images of 28 pixels; stride 4."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(6, 8, 3), nn.ReLU(), nn.MaxPool2d(2)),
        )
        self.classifier = nn.Sequential(nn.Linear(8 * 5 * 5, 12), nn.ReLU(), nn.Dropout(), nn.Linear(12, 3))

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


@settings(deadline=None, max_examples=20)
@given(st.integers(28, 60), st.integers(28, 60), st.integers(0, 99))
def test_without_padding_the_score_map_is_the_network_slid_over_the_image(height, width, seed):  # TE3
    torch.manual_seed(seed)
    model, x = Unpadded().double().eval(), images(2, 1, height, width, seed=seed).double()
    scores = score_map(model, x)
    assert scores.shape == (2, 3, (height - 28) // 4 + 1, (width - 28) // 4 + 1)
    for row in range(scores.shape[2]):
        for column in range(scores.shape[3]):
            window = x[:, :, 4 * row : 4 * row + 28, 4 * column : 4 * column + 28]
            with torch.no_grad():
                close(scores[:, :, row, column], model(window), 1e-12)


def test_with_padding_a_windows_features_are_the_pictures_only_inside():  # TE3
    model = small("A", 32, width=1 / 8).double().eval()
    x = images(1, 1, 640, 640).double()
    field = of_model(model.features, (1, 256, 256))["output"]
    inside = [unit for unit in range(8) if field.region(unit, 0).top >= 0 and field.region(unit, 0).bottom < 256]
    assert inside == [2, 3, 4, 5]
    with torch.no_grad():
        picture = model.features(x)[:, :, 6:14, 6:14]
        window = model.features(x[:, :, 192:448, 192:448])
    difference = (picture - window).abs().amax((0, 1)) / picture.abs().max()
    for row in range(8):
        for column in range(8):
            if row in inside and column in inside:
                assert difference[row, column] < 1e-12
            elif row in (0, 7) or column in (0, 7):
                assert difference[row, column] > 1e-3


# ---- crops, scales, and both


@pytest.mark.parametrize(
    "length, offsets", [(256, [0, 8, 16, 24, 32]), (384, [0, 40, 80, 120, 160]), (512, [0, 72, 144, 216, 288])]
)
def test_the_papers_grid(length, offsets):  # TE4
    assert crop_offsets(length, 224) == offsets


@given(st.integers(1, 300), st.integers(0, 300), st.integers(2, 9))
def test_crops_are_spaced_evenly_from_edge_to_edge(crop, room, grid):
    offsets = crop_offsets(crop + room, crop, grid)
    if room == 0:
        assert offsets == [0]
    else:
        assert len(offsets) == grid and (offsets[0], offsets[-1]) == (0, room)
        steps = np.diff(offsets)
        assert steps.max() - steps.min() <= (room % (grid - 1) != 0)


@settings(deadline=None, max_examples=20)
@given(st.integers(32, 60), st.integers(32, 60), st.integers(1, 5), st.booleans(), st.integers(1, 4), st.integers(1, 7))
def test_multi_crop_is_the_mean_over_a_loop(height, width, grid, flip, count, at_once):  # TE4
    model, x = small(image_size=32).eval(), images(count, 1, height, width)
    answers = []
    for i in range(grid):
        for j in range(grid):
            top = (height - 32) / 2 if grid == 1 else i * (height - 32) / (grid - 1)
            left = (width - 32) / 2 if grid == 1 else j * (width - 32) / (grid - 1)
            top, left = (int(top), int(left)) if grid == 1 else (round(top), round(left))
            crop = x[:, :, top : top + 32, left : left + 32]
            for view in [crop, torch.flip(crop, [3])] if flip else [crop]:
                with torch.no_grad():
                    answers.append(torch.softmax(model(view), 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inference, "PIXELS_AT_ONCE", at_once * 32**2)
        close(multi_crop_scores(model, x, 32, grid, flip), sum(answers) / len(answers))


def test_150_crops_of_224_never_need_the_memory_of_150():  # TE4
    model, batches = small(image_size=224), []
    model.features.register_forward_pre_hook(lambda module, inputs: batches.append(inputs[0].shape))
    multi_scale_scores(model, images(1, 1, 256, 300), (256, 288, 320), "multi-crop")
    assert sum(shape[0] for shape in batches) == 150
    assert max(shape.numel() for shape in batches) <= 2**20
    batches.clear()
    multi_crop_scores(model, images(25, 1, 226, 226), grid=2, flip=False)
    assert sum(shape[0] for shape in batches) == 100 and max(shape[0] for shape in batches) <= 20


def test_a_converted_network_takes_crops_of_any_size():
    model, x = small(image_size=32), images(2, 1, 100, 120)
    crops = [x[:, :, top : top + 70, left : left + 70] for top in (0, 30) for left in (0, 50)]
    expected = torch.stack([dense_scores(model, crop) for crop in crops]).mean(0)
    close(multi_crop_scores(to_dense(model), x, 70, grid=2), expected)


def test_scales_and_methods_are_averaged():
    model, x, scales = small(image_size=32), images(2, 1, 36, 54), (32, 40, 64)
    dense = [dense_scores(model, rescale(x, scale)) for scale in scales]
    crops = [multi_crop_scores(model, rescale(x, scale)) for scale in scales]
    close(multi_scale_scores(model, x, scales), sum(dense) / 3)
    close(multi_scale_scores(model, x, scales, "multi-crop"), sum(crops) / 3)
    close(multi_scale_scores(model, x, scales, "both"), (sum(dense) + sum(crops)) / 6)


@settings(deadline=None, max_examples=30)
@given(st.integers(20, 90), st.integers(20, 90), st.integers(20, 120))
def test_rescale_is_torchvisions_resize(height, width, shorter_side):
    resize = pytest.importorskip("torchvision.transforms.functional").resize
    x = images(2, 3, height, width)
    ours = rescale(x, shorter_side)
    assert min(ours.shape[2:]) == shorter_side
    torch.testing.assert_close(ours, resize(x, shorter_side, antialias=True))


def test_rescale_takes_pixels():
    pixels = torch.full((1, 1, 30, 45), 200, dtype=torch.uint8)
    assert torch.equal(rescale(pixels, 60), torch.full((1, 1, 60, 90), 200.0))


# ---- bad arguments


@pytest.mark.parametrize("shape", [(1, 1, 31, 64), (1, 1, 64, 31), (2, 3, 64, 64)])
def test_a_picture_that_is_too_small_is_refused_with_the_smallest_size(shape):  # TE6
    for image_size in (32, 64, 224):
        with pytest.raises(
            ValueError, match=r"x must be \(N, 1, H, W\) with H and W at least 32 for this network, not"
        ):
            score_map(small(image_size=image_size), torch.zeros(shape))


def test_the_smallest_size_follows_from_the_layers():
    model, seen = Unpadded(), []
    smallest = to_dense(model).smallest_image
    for side in range(1, 40):
        try:
            seen.append((side, score_map(model, torch.zeros(1, 1, side, side)).shape[2:]))
        except ValueError as error:
            assert f"at least {smallest} " in str(error)
    assert [side for side, _ in seen] == list(range(smallest, 40))


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda m, x: to_dense(nn.Linear(2, 2)), ValueError, r"model cannot become dense: model \(Linear\)"),
        (lambda m, x: multi_crop_scores(m, x, 33), ValueError, "crop must be 32, the size .*, not 33"),
        (lambda m, x: multi_crop_scores(m, x[:, :, :, :31]), ValueError, "crop must be at most 31, .*not 32"),
        (lambda m, x: multi_crop_scores(to_dense(m), x), TypeError, "crop must be an integer, not None"),
        (lambda m, x: multi_scale_scores(m, x, []), ValueError, r"scales must be a list of at least one .*not \[\]"),
        (lambda m, x: crop_offsets(20, 21), ValueError, "crop must be at most 20, .*not 21"),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call(small(image_size=32), images(1, 1, 40, 40))
