"""Receptive fields against published values, and output sizes against torch's own."""

import math

import pytest
import timm
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import build, square
from torch import nn
from torch.nn import functional as F

from vgglab.receptive_field import ReceptiveField, Region, of_model, output_size, stack

torch.set_num_threads(1)

VGG_BLOCKS = {"A": [1, 1, 2, 2, 2], "B": [2, 2, 2, 2, 2], "D": [2, 2, 3, 3, 3], "E": [2, 2, 4, 4, 4]}


# Chains given as numbers


def test_small_chains():
    assert stack([3]).size == (3, 3)
    assert [stack([3] * n).size[0] for n in (2, 3, 4)] == [5, 7, 9]
    assert stack([2, 3]) == square(4, 1, 0)
    assert stack([]) == square(1, 1, 0)
    assert stack([(1, 7), (7, 1)], strides=[(1, 2), 1], paddings=[(0, 3), (3, 0)]) == ReceptiveField(
        (7, 7), (1, 2), (3, 3)
    )
    assert stack([3], dilations=[4]).size == (9, 9)


@pytest.mark.parametrize(
    "config, after_pool5, first_fc",
    [("A", (150, 59), 342), ("B", (156, 62), 348), ("D", (212, 90), 404), ("E", (268, 118), 460)],
)
def test_stack_of_vgg(config, after_pool5, first_fc):
    kernels, strides, paddings = [], [], []
    for convs in VGG_BLOCKS[config]:
        kernels += [3] * convs + [2]
        strides += [1] * convs + [2]
        paddings += [1] * convs + [0]
    assert stack(kernels, strides, paddings) == square(after_pool5[0], 32, after_pool5[1])
    assert stack(kernels + [7], strides + [1], paddings + [0]).size[0] == first_fc


def test_stack_of_alexnet_is_the_published_one():
    """Araujo et al. 2019, table: alexnet_v2 195, 32, 64."""
    found = stack([11, 3, 5, 3, 3, 3, 3, 3], [4, 2, 1, 2, 1, 1, 1, 2], [0, 0, 2, 0, 1, 1, 1, 0])
    assert found == square(195, 32, 64)


@given(st.lists(st.tuples(st.integers(1, 7), st.integers(1, 4), st.integers(0, 3)), min_size=1, max_size=8))
def test_stack_equals_the_recursion_from_the_top(layers):
    size = 1
    for kernel, stride, _ in reversed(layers):
        size = (size - 1) * stride + kernel
    kernels, strides, paddings = zip(*layers, strict=True)
    assert stack(kernels, strides, paddings).size == stack(kernels, strides).size == (size, size)


def test_stack_names_what_is_wrong():
    with pytest.raises(ValueError, match="strides must have one entry for each of the 2 kernels"):
        stack([3, 3], strides=[1])
    with pytest.raises(ValueError, match="kernels must be at least 1"):
        stack([0])
    with pytest.raises(TypeError, match="paddings must be an integer"):
        stack([3], paddings=[0.5])


def test_region_and_center():
    field = ReceptiveField(size=(3, 6), stride=(2, 4), padding=(1, 0))
    assert field.region(0, 0) == Region(top=-1, left=0, bottom=1, right=5)
    assert field.region(2, 1) == (3, 4, 5, 9)
    assert field.center(2, 1) == (4, 6.5)


# Output sizes


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 7), st.integers(1, 5), st.integers(0, 4), st.integers(1, 3), st.booleans())
def test_output_size_is_torchs(n, kernel, stride, padding, dilation, ceil_mode):
    x = torch.empty(1, 1, n, 64, device="meta")
    if ceil_mode:
        padding = min(padding, kernel // 2)  # as max_pool2d requires
    try:
        if ceil_mode:
            expected = F.max_pool2d(x, (kernel, 1), (stride, 1), (padding, 0), (dilation, 1), ceil_mode=True)
        else:
            weight = torch.empty(1, 1, kernel, 1, device="meta")
            expected = F.conv2d(x, weight, None, (stride, 1), (padding, 0), (dilation, 1))
    except RuntimeError:
        with pytest.raises(ValueError, match="kernel must fit"):
            output_size(n, kernel, stride, padding, dilation, ceil_mode)
    else:
        assert output_size(n, kernel, stride, padding, dilation, ceil_mode) == expected.shape[2]


@given(st.integers(7, 300), st.integers(1, 7), st.integers(1, 5))
def test_output_size_by_tensorflows_rules(n, kernel, stride):
    assert output_size(n, kernel, stride, "valid") == math.ceil((n - kernel + 1) / stride)
    assert output_size(n, kernel, stride, "same") == math.ceil(n / stride)


def test_output_sizes_of_alexnet():
    assert [output_size(227, 11, 4), output_size(55, 3, 2), output_size(27, 3, 2), output_size(13, 3, 2)] == [
        55,
        27,
        13,
        6,
    ]
    assert [output_size(n, k, s, "same") for n, k, s in [(227, 11, 4), (57, 3, 2)]] == [57, 29]


def test_output_size_names_what_is_wrong():
    with pytest.raises(ValueError, match="kernel must fit into the padded input of 4, not span 5"):
        output_size(4, 3, dilation=2)
    with pytest.raises(ValueError, match="padding must be one of 'same', 'valid'"):
        output_size(4, 3, padding="full")
    with pytest.raises(TypeError, match="stride must be an integer"):
        output_size(4, 3, stride=1.5)


# Published networks


PUBLISHED = {
    "vgg11": ("features", square(150, 32, 59)),
    "vgg13": ("features", square(156, 32, 62)),
    "vgg16": ("features", square(212, 32, 90)),
    "vgg16_bn": ("features", square(212, 32, 90)),
    "vgg19": ("features", square(268, 32, 118)),
    "alexnet": ("features", square(195, 32, 66)),
    "resnet18": ("layer4", square(435, 32, 217)),
    "resnet50": ("layer4", square(427, 32, 213)),
    "resnext50_32x4d": ("layer4", square(427, 32, 213)),
    "resnet101": ("layer4", square(971, 32, 485, covers_image=True)),
    "resnet152": ("layer4", square(1451, 32, 725, covers_image=True)),
    "googlenet": ("inception5b", square(379, 32, 167)),
    "inception_v3": ("Mixed_7c", square(1311, 32, 618, covers_image=True)),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks(name):
    layer, field = PUBLISHED[name]
    side = 299 if name == "inception_v3" else 224
    with torch.device("meta"):
        fields = of_model(build(name), (3, side, side))
    assert fields[layer] == field
    assert list(fields)[-1] == "output"
    assert fields["output"].covers_image
    assert fields["output"].stride == (0, 0)


@pytest.mark.parametrize(
    "name, layer, size",
    [
        ("inception_v4", "features", 2071),
        ("inception_resnet_v2", "conv2d_7b", 3039),
        ("mobilenetv1_100", "blocks", 315),
    ],
)
def test_published_networks_of_timm(name, layer, size):
    """Sizes and strides of the table in Araujo et al. 2019."""
    with torch.device("meta"):
        model = timm.create_model(name)
    found = of_model(model, (3, 224, 224))[layer]
    assert (found.size, found.stride) == ((size, size), (32, 32))


@pytest.mark.parametrize("name, size", [("resnet50", 483), ("resnet101", 1027), ("resnet152", 1507)])
def test_first_version_of_resnet(name, size):
    """Stride on the first 1x1, as in the paper; Araujo et al. 2019 list these sizes."""
    with torch.device("meta"):
        model = build(name)
    for block in model.modules():
        if isinstance(block, torchvision.models.resnet.Bottleneck):
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
    found = of_model(model, (3, 224, 224))["layer4"]
    assert (found.size, found.stride) == ((size, size), (32, 32))


def test_vgg16_layer_by_layer():
    with torch.device("meta"):
        model = build("vgg16")
    fields = of_model(model, (3, 224, 224))
    kept = (nn.Conv2d, nn.MaxPool2d)
    sizes = [fields[name].size[0] for name, module in model.named_modules() if isinstance(module, kept)]
    assert sizes == [3, 5, 6, 10, 14, 16, 24, 32, 40, 44, 60, 76, 92, 100, 132, 164, 196, 212]
    assert fields["classifier.0"] == ReceptiveField((404, 404), (0, 0), (90, 90), covers_image=True)
    features = [f"features.{i}" for i in range(31)]
    classifier = [f"classifier.{i}" for i in range(7)]
    assert list(fields) == [*features, "features", "avgpool", *classifier, "classifier", "output"]
