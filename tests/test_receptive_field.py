"""Receptive fields against published values and torch's own sizes, and the formulas against the experiment."""

import copy
import math

import pytest
import timm
import torch
import torchvision
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from vgglab.receptive_field import (
    MisalignedError,
    ReceptiveField,
    Region,
    UnsupportedOperation,
    effective,
    of_model,
    output_size,
    reach,
    stack,
)

torch.set_num_threads(1)

VGG_BLOCKS = {"A": [1, 1, 2, 2, 2], "B": [2, 2, 2, 2, 2], "D": [2, 2, 3, 3, 3], "E": [2, 2, 4, 4, 4]}


def build(name, **options):
    """A torchvision network with random weights; the first parameter is there to save time."""
    if name in ("googlenet", "inception_v3"):
        options["init_weights"] = False
    return torchvision.models.get_model(name, weights=None, **options)


def square(size, stride, padding, covers_image=False):
    return ReceptiveField((size, size), (stride, stride), (padding, padding), covers_image)


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


# The formulas against the experiment


def map_sizes(model, shape, layers):
    """Rows and columns of the outputs of those layers that are modules and have them."""
    sizes = {}
    for layer, module in [*model.named_modules(), ("output", model)]:

        def note(module, args, output, layer=layer):
            if layer in layers and output.dim() == 4:
                sizes[layer] = tuple(output.shape[2:])

        module.register_forward_hook(note)
    with torch.no_grad():
        model.eval()(torch.zeros(1, *shape))
    return sizes


def assert_agree(fields, sizes, layer, unit, shape, found, holes=False):
    """Hold a formula's region against the experiment's, on all four sides.

    Inside the image they are equal. Beyond its edge the experiment ends at the edge, unless padding takes the
    place of the outermost values of a window with holes, or a stride has left pixels at the far edge over.
    """
    region = fields[layer].region(*unit)
    for axis in (0, 1):
        (first, last), (low, high) = region[axis::2], found[axis::2]
        edge = shape[1 + axis] - 1
        seen = min(fields[name].region(*(n - 1 for n in size))[2 + axis] for name, size in sizes.items())
        if first >= 0:
            assert low == first, (layer, unit, region, found)
        else:
            assert low == 0 or holes, (layer, unit, region, found)
        if last <= min(edge, seen):
            assert high == last, (layer, unit, region, found)
        else:
            assert high <= edge and (high >= min(edge, seen) or holes), (layer, unit, region, found)


FAMILIES = {  # name: (side of the image, the part that is run, layers of it)
    "vgg11": (48, lambda model: model.features[:9], ["5", "8"]),
    "alexnet": (96, lambda model: model.features, ["3", "5"]),
    "resnet18": (64, None, ["layer1.0", "layer2.0"]),
    "googlenet": (64, None, ["conv3", "inception3a"]),
    "inception_v3": (107, None, ["Mixed_5b"]),
    "densenet121": (64, lambda model: model.features[:6], ["denseblock1.denselayer2", "transition1"]),
    "squeezenet1_1": (64, None, ["features.4", "features.6"]),
    "mobilenet_v2": (64, lambda model: model.features[:8], ["3", "4"]),
    "mobilenet_v3_small": (64, None, ["features.1.block.0", "features.1.block.1"]),
    "mnasnet0_5": (64, None, ["layers.8"]),
    "shufflenet_v2_x0_5": (64, None, ["stage2.0", "stage2.1"]),
    "efficientnet_b0": (64, lambda model: model.features[:3], ["1.0.block.0", "1.0.block.1", "2.0"]),
    "regnet_x_400mf": (64, lambda model: model.trunk_output[:2], ["block1", "block2.block2-0"]),
    "regnet_y_400mf": (64, None, ["trunk_output.block1.block1-0.f.b", "trunk_output.block1"]),
    "convnext_tiny": (64, lambda model: model.features[:3], ["1.0", "1.1", "2"]),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_families_against_the_experiment(name):
    side, part, layers = FAMILIES[name]
    model = part(build(name)) if part else build(name)
    shape = (32 if name == "regnet_x_400mf" else 3, side, side)
    fields = of_model(model, shape)
    sizes = map_sizes(model, shape, fields)
    for layer in layers:
        rows, cols = sizes[layer]
        for unit in [(rows // 2, cols // 2), (0, cols - 1)]:
            assert_agree(fields, sizes, layer, unit, shape, reach(model, shape, layer, unit))


# Random branched networks. Each part keeps two channels.


def conv(kernel, stride=(1, 1), dilation=(1, 1), before=(0, 0), after=(0, 0), groups=1):
    """A convolution with its own padding on each of the four sides."""
    padding = nn.ZeroPad2d((before[1], after[1], before[0], after[0]))
    return nn.Sequential(padding, nn.Conv2d(2, 2, kernel, stride, dilation=dilation, groups=groups))


class Every(nn.Module):
    def __init__(self, steps):
        super().__init__()
        self.steps = steps

    def forward(self, x):
        return x[:, :, :: self.steps[0], :: self.steps[1]]


class Shuffle(nn.Module):
    def forward(self, x):
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


class Gate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self):
        super().__init__()
        self.squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(2, 2, 1))

    def forward(self, x):
        return x * self.squeeze(x).sigmoid()


class Merge(nn.Module):
    def __init__(self, how, branches):
        super().__init__()
        self.how = how
        self.branches = nn.ModuleList(branches)
        self.mix = nn.Conv2d(2 * len(branches), 2, 1) if how == "cat" else nn.Identity()

    def forward(self, x):
        first, *others = outputs = [branch(x) for branch in self.branches]
        if self.how == "cat":
            return self.mix(torch.cat(outputs, 1))
        for other in others:
            if self.how == "add in place":
                first = first.clone().add_(other)
            else:
                first = {"add": torch.add, "multiply": torch.mul, "maximum": torch.maximum}[self.how](first, other)
        return first


def pairs(low, high):
    return st.tuples(st.integers(low, high), st.integers(low, high))


@st.composite
def free_convs(draw):
    kernel, stride, dilation = (
        draw(pairs(1, 4)),
        draw(pairs(1, 3)),
        draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (3, 2)])),
    )
    gaps = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    before, after = (tuple(draw(st.integers(0, gap)) for gap in gaps) for _ in range(2))
    return conv(kernel, stride, dilation, before, after, draw(st.sampled_from([1, 2])))


@st.composite
def free_pools(draw):
    kernel, stride, ceil_mode = draw(pairs(1, 3)), draw(pairs(1, 3)), draw(st.booleans())
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    if draw(st.booleans()):
        return nn.AvgPool2d(kernel, stride, padding, ceil_mode)
    return nn.MaxPool2d(kernel, stride, padding, draw(st.sampled_from([1, 1, (2, 3)])), ceil_mode=ceil_mode)


@st.composite
def centred(draw, stride=(1, 1)):
    """Parts that keep the centres; without stride, the size of the map too."""
    if stride == (1, 1) and draw(st.booleans()):
        kernel, dilation = draw(pairs(1, 4)), draw(st.sampled_from([(1, 1), (1, 1), (2, 3)]))
    else:
        kernel, dilation = draw(st.tuples(*[st.sampled_from([1, 3])] * 2)), (1, 1)
    gaps = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    low, high = tuple(gap // 2 for gap in gaps), tuple(gap - gap // 2 for gap in gaps)
    if low != high:  # even windows come in twos, one half a pixel to the left and one to the right
        return nn.Sequential(conv(kernel, stride, dilation, low, high), conv(kernel, stride, dilation, high, low))
    if draw(st.booleans()) and dilation == (1, 1):
        return nn.MaxPool2d(kernel, stride, low)
    return conv(kernel, stride, dilation, low, high)


plain = st.sampled_from([nn.ReLU, nn.Sigmoid, nn.Hardswish, lambda: nn.BatchNorm2d(2), lambda: nn.Dropout(0.5), Shuffle,
                         lambda: nn.LocalResponseNorm(2), nn.Identity]).map(lambda make: make())  # fmt: skip
lopsided = st.builds(lambda: conv((2, 2), after=(1, 1)))  # moves the centres by half a pixel


@st.composite
def merges(draw, nested=False):
    """Branches whose maps have the same size, and mostly the same centres."""
    stride = (1, 1) if nested else draw(st.sampled_from([(1, 1), (1, 1), (2, 2), (1, 2), (3, 2)]))
    inside = st.one_of(centred(), centred(), centred(), plain, plain if nested else merges(nested=True))
    rare = st.sampled_from([False] * 9 + [True] + [False] * 9)
    branches = []
    for _ in range(draw(st.integers(2, 3))):
        parts = draw(st.lists(inside, max_size=2))
        if draw(rare):
            parts.append(draw(lopsided))
        if stride != (1, 1):
            parts.insert(draw(st.integers(0, len(parts))), draw(st.one_of(centred(stride), st.just(Every(stride)))))
        branches.append(nn.Sequential(*parts))
    how = draw(st.sampled_from(["add", "add in place", "multiply", "maximum", "cat"]))
    return Merge(how, branches)


parts = st.one_of(free_convs(), free_pools(), centred(), plain, merges(), merges(), merges())
networks = st.lists(st.one_of(*[parts] * 12, st.builds(Gate)), min_size=1, max_size=4).map(
    lambda parts: nn.Sequential(*parts)
)


def test_random_networks_against_the_experiment():
    agreed = []

    @settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(networks, pairs(20, 40), st.data())
    def compare(model, image, data):
        shape = (2, *image)
        try:
            fields = of_model(model, shape)
        except MisalignedError as error:
            return assert_misaligned(model, shape, error.branches)
        except ValueError as error:
            assume("does not run" not in str(error))  # a window that does not fit
            raise
        holes = any(getattr(module, "dilation", 1) not in (1, (1, 1)) for module in model.modules())
        padding = {name for name, module in model.named_modules() if isinstance(module, nn.ZeroPad2d)}
        sizes = map_sizes(model, shape, fields)
        drawn = data.draw(st.sampled_from(sorted(sizes.keys() - padding)), label="layer")
        for layer in sorted({drawn, "output"}):
            unit = tuple(data.draw(st.integers(0, n - 1), label=f"unit of {layer}") for n in sizes[layer])
            found = seen_by(model, shape, layer, unit, holes)
            assert_agree(fields, sizes, layer, unit, shape, found, holes)
            if fields[layer].covers_image and not holes:
                assert found == (0, 0, image[0] - 1, image[1] - 1)
        agreed.append(model)

    compare()
    assert len(agreed) >= 300


def seen_by(model, shape, layer, unit, holes):
    """What reach finds; in a map so small that a window with holes lies in padding alone, there is nothing to find."""
    try:
        return reach(model, shape, layer, unit)
    except ValueError as error:
        assume(not (holes and "depends on no pixel" in str(error)))
        raise


def assert_misaligned(model, shape, branches):
    """Find by experiment, on an image so large that its edges are far, that two branches differ in stride or centre."""
    shape = (shape[0], 3 * shape[1], 3 * shape[2])
    sizes = map_sizes(model, shape, branches)
    if len(sizes) < 2:
        return  # a branch is itself a sum, which has no module to look at
    rows, cols = sizes[branches[0]]
    units = [(rows // 2, cols // 2), (rows // 2 + 1, cols // 2 + 1)]
    found = [[reach(model, shape, branch, unit) for unit in units] for branch in branches]
    centers = [[(top + bottom, left + right) for top, left, bottom, right in regions] for regions in found]
    assert centers[0] != centers[1]


# What single operations do


class Function(nn.Module):
    """A function as a model."""

    def __init__(self, function, **modules):
        super().__init__()
        self.function = function
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x):
        return self.function(self, x)


def sequence(*modules):
    return of_model(nn.Sequential(*modules), (2, 24, 36))


def test_a_gate_lets_every_unit_see_the_whole_image():
    model = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), Gate(), nn.Conv2d(2, 2, 3))
    fields = of_model(model, (2, 12, 16))
    assert fields["0"] == square(3, 1, 1)
    assert fields["1.mul"] == fields["1"] == fields["2"] == ReceptiveField((14, 18), (0, 0), (1, 1), covers_image=True)
    for layer, unit in [("1", (0, 0)), ("1", (11, 15)), ("2", (5, 5))]:
        assert reach(model, (2, 12, 16), layer, unit) == (0, 0, 11, 15)
    assert reach(model, (2, 12, 16), "0", (4, 5)) == fields["0"].region(4, 5)


def test_a_map_of_one_unit_is_broadcast():
    model = Function(lambda self, x: x * self.pool(x), pool=nn.AvgPool2d((12, 16)))
    fields = of_model(model, (2, 12, 16))
    assert fields["pool"] == ReceptiveField((12, 16), (12, 16), (0, 0), covers_image=True)
    assert fields["output"] == ReceptiveField((12, 16), (0, 0), (0, 0), covers_image=True)
    part = Function(lambda self, x: x * self.pool(x), pool=nn.AvgPool2d((12, 8), (12, 9)))
    with pytest.raises(MisalignedError, match="merges pool .* with input"):
        of_model(part, (2, 12, 16))


def test_pixels_that_a_stride_leaves_over_are_not_covered():
    model = nn.Sequential(nn.Conv2d(2, 2, 2, 2), nn.Conv2d(2, 2, 3, padding=1), nn.AdaptiveAvgPool2d(1))
    assert of_model(model, (2, 8, 8))["2"] == square(12, 0, 2, covers_image=True)
    assert of_model(model, (2, 8, 9))["2"] == square(12, 0, 2)
    assert reach(model, (2, 8, 9), "2", (0, 0)) == (0, 0, 7, 7)


def test_layers_without_rows_and_columns_are_one_unit():
    fields = sequence(nn.Conv2d(2, 3, 5), nn.Flatten(), nn.Linear(3 * 20 * 32, 4), nn.ReLU())
    for layer in "123":
        assert fields[layer] == ReceptiveField((24, 36), (0, 0), (0, 0), covers_image=True)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_same_padding_of_an_even_kernel_starts_with_the_smaller_half():
    fields = sequence(nn.Conv2d(2, 2, 3, stride=2), nn.Conv2d(2, 2, (4, 2), padding="same", dilation=(1, 3)))
    assert fields["1"] == ReceptiveField((9, 9), (2, 2), (2, 2))


def test_rows_and_columns_keep_their_identity_in_any_dimension():
    swap, back = (Function(lambda self, x: x.transpose(2, 3)) for _ in range(2))
    assert sequence(swap, nn.Conv2d(2, 2, (3, 1)), back)["2"] == ReceptiveField((1, 3), (1, 1), (0, 0))
    square_map = of_model(nn.Sequential(swap, nn.Conv2d(2, 2, (3, 1))), (2, 8, 8))
    assert square_map["output"].size == (1, 3)
    channels_last = Function(
        lambda self, x: self.linear(self.norm(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2),
        norm=nn.LayerNorm(2),
        linear=nn.Linear(2, 5),
    )
    fields = sequence(nn.Conv2d(2, 2, 3), channels_last)
    assert fields["1.norm"] == fields["1.linear"] == fields["1"] == square(3, 1, 0)
    mixed = of_model(Function(lambda self, x: self.linear(x), linear=nn.Linear(36, 36)), (2, 24, 36))
    assert mixed["output"] == ReceptiveField((1, 36), (1, 0), (0, 0))


def test_rows_and_columns_come_back_from_being_folded():
    folded = Function(lambda self, x: self.linear(x.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, (22, 34)),
                      linear=nn.Linear(2, 2))  # fmt: skip
    fields = sequence(nn.Conv2d(2, 2, 3), folded, nn.Conv2d(2, 2, 3, padding=1))
    assert fields["1"] == square(3, 1, 0)
    assert fields["2"] == square(5, 1, 1)


@pytest.mark.parametrize("wanted, field", [(4, (6, 9)), ((24, 12), (1, 3)), ((None, 36), (1, 1))])
def test_adaptive_pooling_to_a_divisor(wanted, field):
    for pool in (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d):
        assert sequence(pool(wanted))["0"] == ReceptiveField(field, field, (0, 0))


def test_normalization_over_the_map_sees_all_of_it():
    for norm in (nn.GroupNorm(1, 2), nn.InstanceNorm2d(2), nn.BatchNorm2d(2, track_running_stats=False)):
        assert sequence(norm)["0"].covers_image
    for norm in (nn.BatchNorm2d(2), nn.LocalResponseNorm(3), nn.Softmax(1), nn.Softmax2d(), nn.PReLU(), nn.Dropout2d()):
        assert sequence(norm)["output"] == square(1, 1, 0)


def test_pooling_over_one_axis():
    rows = of_model(Function(lambda self, x: self.conv(x).mean(3, keepdim=True), conv=nn.Conv2d(2, 2, 3)), (2, 24, 36))
    assert rows["mean"] == rows["output"] == ReceptiveField((3, 36), (1, 0), (0, 0))
    assert not rows["output"].covers_image


REFUSED = {
    "transposed convolution": nn.ConvTranspose2d(2, 2, 2, 2),
    "upsample_nearest2d": nn.Upsample(scale_factor=2),
    "upsample_bilinear2d": nn.Upsample(scale_factor=2, mode="bilinear"),
    "adaptive_avg_pool2d (in 0): from 24 to 7 units": nn.AdaptiveAvgPool2d(7),
    "pixel_shuffle": nn.Sequential(nn.Conv2d(2, 4, 1), nn.PixelShuffle(2)),
    "pixel_unshuffle": nn.PixelUnshuffle(2),
    "pad (in 0): how": nn.ReflectionPad2d(1),
    "im2col": nn.Unfold(3),
    "slice": Function(lambda self, x: x[:, :, 1:]),
    "select": Function(lambda self, x: x[:, :, 3]),
    "chunk": Function(lambda self, x: x.chunk(2, dim=3)[0]),
    "pad (in 0): it cuts": nn.ZeroPad2d(-1),
    "cat (in 0): it joins rows or columns": Function(lambda self, x: torch.cat([x, x], 2)),
    "flip": Function(lambda self, x: x.flip(2)),
    "roll": Function(lambda self, x: x.roll(1, 2)),
    "diagonal": Function(lambda self, x: x[..., :24].diagonal(dim1=2, dim2=3)),
    "matmul": Function(lambda self, x: x @ x.transpose(2, 3)),
    "add (in 0): its inputs hold rows or columns in different": Function(
        lambda self, x: x[..., :24] + x[..., :24].transpose(2, 3)
    ),
    "view (in 0): (1, 2, 24, 36) to": Function(lambda self, x: x.view(1, 2, 12, 2, 36)),
    "conv2d (in 0.conv): its channels": Function(
        lambda self, x: self.conv(x.transpose(1, 2)), conv=nn.Conv2d(24, 2, 1)
    ),
    "unsqueeze (in 0): it changes a shape in place": Function(lambda self, x: torch.relu(x).unsqueeze_(-1)),
    "transpose (in 0): it changes a shape in place": Function(lambda self, x: torch.relu(x[..., :24]).transpose_(2, 3)),
    "add (in 0): it works on a tensor": Function(lambda self, x: torch.add(x, x, out=torch.empty_like(x))),
    "conv2d (in 0): the image decides more": Function(lambda self, x: F.conv2d(x, x, padding=12)),
}


@pytest.mark.parametrize("named", REFUSED)
def test_what_cannot_be_followed_is_refused_by_name(named):
    with pytest.raises(UnsupportedOperation) as caught:
        sequence(REFUSED[named])
    assert named in str(caught.value)


@pytest.mark.parametrize("name", ["swin_t", "vit_b_16"])
def test_transformers_are_refused(name):
    with torch.device("cpu"), pytest.raises(UnsupportedOperation, match="splits|takes|joins"):
        of_model(build(name), (3, 224, 224))


def test_changes_through_a_view_are_refused():
    def shifted(self, x):
        y = self.conv(x)
        y[:, :1] += self.wide(x)
        return y

    model = Function(shifted, conv=nn.Conv2d(2, 2, 1), wide=nn.Conv2d(2, 1, 3, padding=1))
    with pytest.raises(UnsupportedOperation, match="overwritten"):
        of_model(model, (2, 8, 8))


def test_a_misaligned_merge_names_its_branches():
    model = Function(
        lambda self, x: self.left(x) + self.right(x),
        left=nn.Conv2d(2, 2, 3, padding=1),
        right=nn.Sequential(nn.ZeroPad2d((0, 0, 0, 1)), nn.Conv2d(2, 2, (2, 1))),
    )
    found = r"add .* merges right \(size 2, stride 1, first centre 0.5\) with left \(size 3, stride 1, first centre 0\)"
    with pytest.raises(MisalignedError, match=found) as caught:
        of_model(model, (2, 9, 9))
    assert caught.value.branches == ("right", "left")
    halved = Function(lambda self, x: self.conv(x)[:, :, :4] + x[:, :, ::2], conv=nn.Conv2d(2, 2, 3, padding=1))
    with pytest.raises(MisalignedError, match="merges input .*stride 2.* with conv .*stride 1"):
        of_model(halved, (2, 8, 8))


# Keys, and what happens to the model


def test_keys_of_calls_and_of_functions():
    def forward(self, x):
        first = self.conv(x)
        again = self.conv(F.relu(first))
        return F.relu(again) + x

    fields = of_model(Function(forward, conv=nn.Conv2d(2, 2, 3, padding=1)), (2, 9, 9))
    assert list(fields) == ["relu", "conv", "relu_1", "add", "output"]
    assert fields["relu"] == square(3, 1, 1)
    assert fields["conv"] == fields["output"] == square(5, 1, 2)


def test_several_outputs():
    def forward(self, x):
        y = self.conv(x)
        return {"last": self.pool(y), "early": y, "fixed": torch.zeros(3)}

    fields = of_model(Function(forward, conv=nn.Conv2d(2, 2, 3), pool=nn.MaxPool2d(2)), (2, 9, 9))
    assert list(fields) == ["conv", "pool", "output.1", "output"]
    assert (fields["output"].size, fields["output.1"].size) == ((4, 4), (3, 3))
    with pytest.raises(ValueError, match="does not depend on the image"):
        of_model(Function(lambda self, x: torch.zeros(3)), (2, 9, 9))


def test_constants_do_not_count():
    model = Function(lambda self, x: self.conv(x) * self.weight + torch.arange(7) + torch.ones_like(x)[..., 2:, 2:],
                     conv=nn.Conv2d(2, 2, 3), weight=nn.Parameter(torch.ones(2, 1, 1)))  # fmt: skip
    assert of_model(model, (2, 9, 9))["output"] == square(3, 1, 0)


def test_the_model_is_left_as_it_was():
    model = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU(inplace=True), nn.Dropout(0.5))
    model.append(nn.Conv2d(2, 2, 3, padding=1))
    model[4].weight = model[0].weight
    model[1].eval()
    before, modes = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    tensors = [id(tensor) for tensor in [*model.parameters(), *model.buffers()]]
    of_model(model, (2, 9, 9))
    reach(model, (2, 9, 9), "2", (3, 3))
    effective(model, torch.rand(2, 2, 9, 9), "2", (3, 3))
    assert modes == [module.training for module in model.modules()]
    assert tensors == [id(tensor) for tensor in [*model.parameters(), *model.buffers()]]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_weights_are_not_copied():
    """Terabytes, were they: one number, expanded."""
    layer = nn.Linear(1, 1)
    layer.weight = nn.Parameter(torch.zeros(()).expand(2**20, 2**20))
    layer.bias = nn.Parameter(torch.zeros(()).expand(2**20))
    fields = of_model(nn.Sequential(nn.Flatten(), layer), (1, 1024, 1024))
    assert fields["1"] == square(1024, 0, 0, covers_image=True)


def test_bad_input_is_named():
    with pytest.raises(TypeError, match="model must be a torch.nn.Module"):
        of_model("vgg16", (3, 224, 224))
    with pytest.raises(ValueError, match=r"input_shape must be \(channels, height, width\), not \(224, 224\)"):
        of_model(nn.ReLU(), (224, 224))
    with pytest.raises(ValueError, match=r"does not run on input_shape \(4, 8, 8\)"):
        of_model(nn.Conv2d(3, 1, 3), (4, 8, 8))
    with pytest.raises(UnsupportedOperation, match="without real numbers"):
        of_model(Function(lambda self, x: x if x.sum() > 0 else -x), (3, 8, 8))


# The experiment and the gradient


def test_reach_finds_windows_by_hand():
    model = nn.Sequential(nn.Conv2d(1, 1, (3, 2), stride=(2, 3), padding=(1, 0)), nn.ReLU(), nn.MaxPool2d(2, 1))
    assert reach(model, (1, 12, 14), "0", (2, 1)) == Region(top=3, left=3, bottom=5, right=4)
    assert reach(model, (1, 12, 14), "0", (0, 0)) == Region(top=0, left=0, bottom=1, right=1)
    assert reach(model, (1, 12, 14), "output", (2, 1)) == Region(top=3, left=3, bottom=7, right=7)


def test_reach_sees_through_dead_units_and_zero_weights():
    model = nn.Sequential(nn.Conv2d(1, 1, 3), nn.ReLU(), nn.Conv2d(1, 1, 3))
    nn.init.zeros_(model[0].weight)
    nn.init.constant_(model[0].bias, -1)
    assert not effective(model, torch.rand(1, 1, 9, 9), "2", (1, 2)).any()
    assert reach(model, (1, 9, 9), "2", (1, 2)) == (1, 2, 5, 6)


def test_reach_without_gradients_and_with_changes_in_place():
    model = nn.Sequential(
        nn.ReLU(inplace=True), Function(lambda self, x: self.conv(x).detach(), conv=nn.Conv2d(1, 1, 3))
    )
    assert reach(model, (1, 9, 9), "output", (1, 2)) == (1, 2, 3, 4)
    images = torch.rand(1, 1, 9, 9) - 0.5
    kept = images.clone()
    assert not effective(model, images, "output", (1, 2)).any()
    assert effective(model, images, "0", (1, 2)).count_nonzero() <= 1
    assert torch.equal(images, kept) and not images.requires_grad


def test_reach_names_what_is_wrong():
    model = nn.Sequential(nn.Conv2d(1, 1, 3), nn.Flatten())
    with pytest.raises(ValueError, match="layer must be the path of a module, or 'output', not 'conv'"):
        reach(model, (1, 9, 9), "conv", (0, 0))
    with pytest.raises(ValueError, match=r"unit must lie in the 7 rows and 7 columns of '0', not \(7, 0\)"):
        reach(model, (1, 9, 9), "0", (7, 0))
    with pytest.raises(ValueError, match="unit must lie in the 1 rows and 1 columns of '1'"):
        reach(model, (1, 9, 9), "1", (0, 1))
    with pytest.raises(ValueError, match="depends on no pixel"):
        reach(nn.ZeroPad2d(1), (1, 9, 9), "output", (0, 0))
    with pytest.raises(ValueError, match="layer must run in eval mode and return one tensor; 'other' does not"):
        reach(Function(lambda self, x: x, other=nn.ReLU()), (1, 9, 9), "other", (0, 0))
    with pytest.raises(TypeError, match="images must be a float tensor"):
        effective(model, torch.zeros(1, 1, 9, 9, dtype=torch.uint8), "0", (0, 0))


@pytest.mark.parametrize("depth", [1, 2, 5, 20])
def test_effective_field_of_uniform_convolutions(depth):
    """Each layer adds one of -1, 0, 1 with equal chance: a binomial-like sum of variance 2n/3 per axis (Luo et al.)."""
    model = nn.Sequential(*[nn.Conv2d(1, 1, 3, bias=False) for _ in range(depth)]).double()
    for parameter in model.parameters():
        nn.init.constant_(parameter, 1 / 9)
    side = 2 * depth + 1
    field = effective(model, torch.rand(2, 1, side + 4, side + 4, dtype=torch.float64), "output", (2, 2))
    ways = [1]
    for _ in range(depth):
        ways = [sum(ways[max(i - 2, 0) : i + 1]) for i in range(len(ways) + 2)]
    expected = torch.tensor(ways, dtype=torch.float64) / 3**depth
    assert len(ways) == side == stack([3] * depth).size[0]
    torch.testing.assert_close(field[2:-2, 2:-2], expected.outer(expected))
    assert field.sum() == pytest.approx(1)
    offsets = torch.arange(side + 4) - depth - 2
    assert (field.sum(1) * offsets**2).sum() == pytest.approx(2 * depth / 3)


def test_effective_is_a_mean_over_images_and_channels():
    model = nn.Conv2d(2, 1, 1, bias=False)
    with torch.no_grad():
        model.weight[:] = torch.tensor([3.0, -1.0]).view(1, 2, 1, 1)
    with torch.no_grad():
        field = effective(model, torch.rand(4, 2, 3, 3), "output", (1, 2))
    assert field.nonzero().tolist() == [[1, 2]]
    assert field[1, 2] == pytest.approx((3 + 1) / 2)
