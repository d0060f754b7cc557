"""The networks beside VGG: what all have in common, and LeNet-5, AlexNet and ZFNet against their papers."""

import functools
import math
from itertools import combinations

import pytest
import torch
import torch.nn.functional as F
from counting import GREY, count, field, layers, macs, on_meta, shapes, sides
from torch import nn

from vgglab.course import figures
from vgglab.models import alexnet, googlenet, lenet, resnet, zfnet

pytestmark = pytest.mark.usefixtures("one_thread")
SMALLEST = {
    "lenet": (functools.partial(lenet, image_size=16), 16),
    "alexnet": (functools.partial(alexnet, image_size=67), 67),
    "zfnet": (functools.partial(zfnet, image_size=53), 53),
    "googlenet": (functools.partial(googlenet, image_size=32), 32),
    "resnet": (functools.partial(resnet, 18), 32),
}
BUILDERS = {"lenet": lenet, "alexnet": alexnet, "zfnet": zfnet, "googlenet": googlenet, "resnet": resnet}

LAST_FEATURES = {
    "lenet": "features.C5",
    "alexnet": "features",
    "zfnet": "features",
    "googlenet": "features.5b",
    "resnet": "features.conv5_x",
}

# What is built, the image, parameters, MACs, and the receptive field (size, stride, padding) there.
NETWORKS = [
    ("lenet", {}, (1, 32, 32), 60_000, 327_256, (32, 4, 0)),
    ("alexnet", {}, (3, 227, 227), 60_965_224, 724_406_816, (195, 32, 64)),
    ("alexnet", {"groups": 1}, (3, 227, 227), 62_378_344, 1_135_256_096, (195, 32, 64)),
    ("zfnet", {}, (3, 224, 224), 62_357_608, 1_168_032_896, (171, 32, 59)),
    ("zfnet", {"wide": True}, (3, 224, 224), 107_627_624, 2_476_704_896, (171, 32, 59)),
    ("googlenet", {}, (3, 224, 224), 13_378_280, 1_582_671_872, (715, 32, 327)),
    ("googlenet", {"auxiliary": False}, (3, 224, 224), 6_998_552, 1_582_671_872, (715, 32, 327)),
    ("resnet", {"depth": 18}, (3, 224, 224), 11_689_512, 1_814_073_344, (435, 32, 217)),
    ("resnet", {"depth": 34}, (3, 224, 224), 21_797_672, 3_663_761_408, (899, 32, 449)),
    ("resnet", {"depth": 50}, (3, 224, 224), 25_557_032, 3_857_973_248, (483, 32, 241)),
    ("resnet", {"depth": 50, "version": 1.5}, (3, 224, 224), 25_557_032, 4_089_184_256, (427, 32, 213)),
    ("resnet", {"depth": 101}, (3, 224, 224), 44_549_160, 7_570_194_432, (1027, 32, 513)),
    ("resnet", {"depth": 101, "version": 1.5}, (3, 224, 224), 44_549_160, 7_801_405_440, (971, 32, 485)),
    ("resnet", {"depth": 152}, (3, 224, 224), 60_192_808, 11_282_415_616, (1507, 32, 753)),
    ("resnet", {"depth": 152, "version": 1.5}, (3, 224, 224), 60_192_808, 11_513_626_624, (1451, 32, 725)),
]
IDS = [" ".join(map(str, (name, *arguments.values()))) for name, arguments, *_ in NETWORKS]


@pytest.mark.parametrize("name, arguments, image, parameters, expected_macs, expected_field", NETWORKS, ids=IDS)
def test_parameters_macs_and_receptive_field(name, arguments, image, parameters, expected_macs, expected_field):
    model = on_meta(BUILDERS[name], **arguments)  # NB2, NB4, NB5
    assert count(model) == parameters
    assert macs(model, image) == expected_macs
    assert field(model, image, LAST_FEATURES[name]) == expected_field


# LeNet-5


def test_lenet_has_the_parameters_and_connections_that_the_paper_counts():  # NB9
    model = on_meta(lenet)
    named = {**dict(model.features.named_children()), **dict(model.classifier.named_children())}
    found = {name: count(module) for name, module in named.items() if count(module)}
    assert found == {"C1": 156, "S2": 12, "C3": 1_516, "S4": 32, "C5": 48_120, "F6": 10_164}
    maps = {"C1": 28 * 28, "C3": 10 * 10, "C5": 1, "F6": 1}
    connections = {layer: found[layer] * positions for layer, positions in maps.items()}
    connections |= {"S2": 5 * 6 * 14 * 14, "S4": 5 * 16 * 5 * 5, "output": model.classifier.output.codes.numel()}
    assert sum(connections.values()) == 340_908
    found = shapes(model, (1, 32, 32))
    assert [tuple(found[f"features.{layer}"]) for layer in ("C1", "S2", "C3", "S4", "C5")] == [
        (6, 28, 28),
        (6, 14, 14),
        (16, 10, 10),
        (16, 5, 5),
        (120, 1, 1),
    ]


def test_lenet_equals_an_independent_assembly_of_its_paper():
    table_1 = """
        X . . . X X X . . X X X X . X X
        X X . . . X X X . . X X X X . X
        X X X . . . X X X . . X . X X X
        . X X X . . X X X X . . X . X X
        . . X X X . . X X X X . X X . X
        . . . X X X . . X X X X . X X X
    """
    table = [line.split() for line in table_1.split("\n") if line.strip()]
    model = lenet()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    features, classifier = model.features, model.classifier
    weight, bias = torch.zeros(16, 6, 5, 5), torch.cat([conv.bias for conv in features.C3.maps])
    for column, conv in enumerate(features.C3.maps):
        weight[column, [row for row in range(6) if table[row][column] == "X"]] = conv.weight[0]

    def squash(x):
        return 1.7159 * torch.tanh(x * 2 / 3)

    def subsample(x, layer):
        total = x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]
        return squash(total * layer[1].weight.view(-1, 1, 1) + layer[1].bias.view(-1, 1, 1))

    x = torch.randn(4, 1, 32, 32)
    out = subsample(squash(F.conv2d(x, features.C1.weight, features.C1.bias)), features.S2)
    out = subsample(squash(F.conv2d(out, weight, bias)), features.S4)
    out = squash(F.conv2d(out, features.C5.weight, features.C5.bias)).flatten(1)
    out = squash(F.linear(out, classifier.F6.weight, classifier.F6.bias))
    distances = torch.cdist(out, classifier.output.codes) ** 2
    torch.testing.assert_close(model(x), -distances, rtol=1e-4, atol=1e-3)


def test_lenets_codes_are_fixed_signs_and_the_same_for_everyone():
    first, second = lenet(), lenet()
    assert first.classifier.output.codes.abs().eq(1).all()
    assert first.classifier.output.codes.shape == (10, 84)
    assert first.classifier.output.codes.equal(second.classifier.output.codes)
    assert "classifier.output.codes" not in dict(first.named_parameters())


# AlexNet


def test_alexnet_shrinks_the_image_as_the_paper_says():  # NB1, NB3
    model = on_meta(alexnet)
    assert sides(model, (3, 227, 227), (nn.Conv2d, nn.MaxPool2d)) == [55, 27, 27, 13, 13, 13, 13, 6]
    assert all(pool.kernel_size > pool.stride for pool in layers(model, nn.MaxPool2d))
    at_224 = on_meta(alexnet, image_size=224)
    assert sides(at_224, (3, 224, 224), nn.Conv2d)[0] == 54  # not the paper's 55, so its images are 227


def test_two_groups_halve_the_weights_of_alexnets_layers_2_4_and_5():  # NB2
    two, one = (layers(on_meta(alexnet, groups=groups), nn.Conv2d) for groups in (2, 1))
    ratios = [whole.weight.numel() / halved.weight.numel() for halved, whole in zip(two, one, strict=True)]
    assert ratios == [1, 2, 1, 2, 2]


@pytest.mark.parametrize("lrn", [True, False])
def test_alexnet_equals_an_independent_assembly_with_split_convolutions(lrn):  # NB12
    model = alexnet(lrn=lrn, image_size=67, num_classes=7).eval()
    weights = iter(model.parameters())

    def halves(x):
        weight, bias = next(weights), next(weights)
        parts = zip(x.chunk(2, 1), weight.chunk(2), bias.chunk(2), strict=True)
        return torch.cat([F.conv2d(part, w, b, padding=w.shape[-1] // 2) for part, w, b in parts], dim=1)

    def normalize(x):
        squares = F.pad(x**2, (0, 0, 0, 0, 2, 2))
        return x / (2 + 1e-4 * sum(squares[:, i : i + x.shape[1]] for i in range(5))) ** 0.75 if lrn else x

    x = 100 * torch.randn(2, 3, 67, 67)  # large enough for alpha to matter
    out = F.max_pool2d(normalize(F.conv2d(x, next(weights), next(weights), stride=4).relu()), 3, 2)
    out = F.max_pool2d(normalize(halves(out).relu()), 3, 2)
    out = F.conv2d(out, next(weights), next(weights), padding=1).relu()
    out = halves(halves(out).relu()).relu()
    out = F.max_pool2d(out, 3, 2).flatten(1)
    out = F.linear(out, next(weights), next(weights)).relu()
    out = F.linear(out, next(weights), next(weights)).relu()
    out = F.linear(out, next(weights), next(weights))
    torch.testing.assert_close(model(x), out, rtol=1e-4, atol=1e-4)
    assert next(weights, None) is None


def test_alexnet_drops_half_of_the_first_two_fc_layers():
    model = on_meta(alexnet)
    assert [type(module).__name__ for module in model.classifier] == [
        *("Linear", "ReLU", "Dropout"),
        *("Linear", "ReLU", "Dropout"),
        "Linear",
    ]
    assert {dropout.p for dropout in layers(model, nn.Dropout)} == {0.5}


def test_torchvisions_alexnet_is_another_network():
    from torchvision.models import alexnet as one_weird_trick

    theirs, ours = on_meta(one_weird_trick), on_meta(alexnet)
    assert [conv.out_channels for conv in layers(ours, nn.Conv2d)] == [96, 256, 384, 384, 256]
    assert [conv.out_channels for conv in layers(theirs, nn.Conv2d)] == [64, 192, 384, 256, 256]
    assert len(layers(ours, nn.LocalResponseNorm)) == 2 and not layers(theirs, nn.LocalResponseNorm)
    assert {conv.groups for conv in layers(theirs, nn.Conv2d)} == {1}
    assert count(theirs) == 61_100_840
    assert macs(theirs, (3, 224, 224)) == 714_188_480
    assert field(theirs, (3, 224, 224), "features") == (195, 32, 66)


# ZFNet


@pytest.mark.parametrize("wide, channels", [(False, [96, 256, 384, 384, 256]), (True, [96, 256, 512, 1024, 512])])
def test_zfnet_has_the_sizes_of_figure_3(wide, channels):  # NB4
    model = on_meta(zfnet, wide=wide)
    assert sides(model, (3, 224, 224), (nn.Conv2d, nn.MaxPool2d)) == [110, 55, 26, 13, 13, 13, 13, 6]
    convs = layers(model, nn.Conv2d)
    assert [conv.out_channels for conv in convs] == channels
    assert [(conv.kernel_size[0], conv.stride[0], conv.groups) for conv in convs[:2]] == [(7, 2, 1), (5, 2, 1)]


def test_zfnet_normalizes_after_pooling_and_alexnet_before():
    def order(model):
        kinds = (nn.Conv2d, nn.MaxPool2d, nn.LocalResponseNorm)
        return "".join(type(layer).__name__[0] for layer in model.features if isinstance(layer, kinds))

    assert order(on_meta(zfnet)) == "CMLCMLCCCM"
    assert order(on_meta(alexnet)) == "CLMCLMCCCM"


@pytest.mark.parametrize("build", [alexnet, zfnet, googlenet])
def test_normalization_has_the_papers_constants_in_pytorchs_convention(build):
    norms = layers(on_meta(build), nn.LocalResponseNorm)
    assert [(norm.size, norm.k, norm.alpha, norm.beta) for norm in norms] == [(5, 2.0, 5 * 1e-4, 0.75)] * 2


def test_resnets_operations_are_table_1s_in_version_1_only():
    table_1 = {18: 1.8, 34: 3.6, 50: 3.8, 101: 7.6, 152: 11.3}
    counted = {(name, *arguments.values()): expected for name, arguments, _, _, expected, _ in NETWORKS}
    for depth, billions in table_1.items():
        assert abs(counted["resnet", depth] / 1e9 - billions) < 0.07
        if depth >= 50:
            assert counted["resnet", depth, 1.5] / 1e9 - billions > 0.2


# All of them


@pytest.mark.parametrize("name", SMALLEST)
def test_each_runs_on_its_smallest_grey_image_and_refuses_a_smaller_one(name):
    build, size = SMALLEST[name]
    model = build(**GREY).eval()
    with torch.no_grad():
        assert model(torch.randn(2, 1, size, size)).shape == (2, 10)
        with pytest.raises(ValueError, match=r"x must be \(N, 1, .* for this network, not \(2, 1, \d+, \d+\)"):
            model(torch.randn(2, 1, size - 1, size - 1))
    if name != "resnet":
        with pytest.raises(ValueError, match=f"image_size must be at least {size}, not {size - 1}"):
            build(**GREY, image_size=size - 1)
    if name in ("lenet", "alexnet", "zfnet"):  # nothing is left of a smaller image
        with pytest.raises(RuntimeError, match="[Oo]utput size|Kernel size"):
            model.features(torch.randn(2, 1, size - 1, size - 1))


@pytest.mark.parametrize("size", [67, 68, 70, 71, 74, 75, 82, 83, 90, 99, 128, 225, 231])
def test_fc_layers_fit_what_the_features_leave(size):
    for build in (lenet, alexnet, zfnet):
        model = on_meta(build, image_size=size, **GREY)
        assert model(torch.empty(1, 1, size, size, device="meta")).shape == (1, 10)


@pytest.mark.parametrize("name", SMALLEST)
def test_bad_arguments_are_named(name):
    build = SMALLEST[name][0]
    with pytest.raises(ValueError, match="in_channels must be at least 1, not 0"):
        build(in_channels=0)
    with pytest.raises(TypeError, match="num_classes must be an integer, not 2.5"):
        build(num_classes=2.5)
    model = on_meta(build, **GREY)
    for shape in ((1, 3, 67, 67), (1, 67, 67), (67,)):
        with pytest.raises(ValueError, match="x must be .* not"):
            model(torch.empty(shape, device="meta"))


@pytest.mark.parametrize(
    "name, lr, steps",
    [("lenet", 3e-3, 15), ("alexnet", 1e-4, 13), ("zfnet", 5e-5, 13), ("googlenet", 3e-4, 20), ("resnet", 1e-4, 8)],
)
def test_each_learns_twenty_images_by_heart(name, lr, steps):
    torch.manual_seed(0)
    build, size = SMALLEST[name]
    model = build(**GREY)
    for dropout in layers(model, nn.Dropout):
        dropout.p = 0.0  # twenty steps are few
    x, labels = torch.randn(20, 1, size, size), torch.arange(20) % 10
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, fused=True)
    for _ in range(steps):
        scores = model(x)
        heads = scores if isinstance(scores, tuple) else (scores,)
        losses = [F.cross_entropy(head, labels) for head in heads]
        optimizer.zero_grad()
        sum(losses).backward()
        optimizer.step()
    assert losses[0].item() < 1 < math.log(10)


def test_a_drawing_of_a_module_names_every_layer_and_no_two_boxes_overlap():
    drawn = figures.schematic({"stays": ("x", [["3×3, 64", "ReLU"], []], ["+"]), "changes": ("x", [["1×1, 8"]], ["+"])})
    for axis, texts in zip(drawn.axes, (["x", "3×3, 64", "ReLU", "+"], ["x", "1×1, 8", "+"]), strict=True):
        assert sorted(text.get_text() for text in axis.texts if text.get_text()) == sorted(texts)
    drawn.draw_without_rendering()
    boxes = [text.get_bbox_patch().get_window_extent() for axis in drawn.axes for text in axis.texts if text.get_text()]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
