"""The formulas against the experiment, and both against fields found by hand."""

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from networks import Function, Gate, build
from torch import nn
from torch.nn import functional as F

from vgglab.receptive_field import MisalignedError, of_model, reach

torch.set_num_threads(1)


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

    The region holds what is found. Inside the image they are equal, except where padding takes the place of the
    outermost values of a window: beyond the image's edge, beyond the pixels that a layer sees at all, and where
    windows have holes.
    """
    region = fields[layer].region(*unit)
    for axis in (0, 1):
        (first, last), (low, high) = region[axis::2], found[axis::2]
        edge = shape[1 + axis] - 1
        ends = [seen_along(fields[name], axis, size[axis]) for name, size in sizes.items()]
        lowest, highest = max(0, *(end[0] for end in ends)), min(edge, *(end[1] for end in ends))
        assert max(first, 0) <= low and high <= min(last, edge), (layer, unit, region, found)
        assert low == first or (first < lowest and low <= lowest) or holes, (layer, unit, region, found)
        assert high == last or (last > highest and high >= highest) or holes, (layer, unit, region, found)


def seen_along(field, axis, units):
    """The first and the last pixel that any of these units sees."""
    regions = [field.region(*((unit, 0) if axis == 0 else (0, unit))) for unit in range(units)]
    return min(region[axis] for region in regions), max(region[2 + axis] for region in regions)


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


@st.composite
def resized(draw):
    """Parts whose windows differ, or that move rows and columns."""
    size, (top, left), kernel = draw(pairs(3, 24)), draw(pairs(0, 3)), draw(pairs(1, 4))
    stride, aligned, mode = draw(pairs(1, 3)), draw(st.booleans()), draw(st.sampled_from(["bilinear", "bicubic"]))
    factor = draw(st.sampled_from([0.5, 1.5, 2, 2.3, 3]))
    return draw(
        st.sampled_from([
            nn.AdaptiveAvgPool2d(size),
            nn.AdaptiveMaxPool2d(size),
            nn.Upsample(size),
            nn.Upsample(scale_factor=factor),
            nn.Upsample(size, mode=mode, align_corners=aligned),
            nn.Upsample(scale_factor=factor, mode=mode),
            nn.ConvTranspose2d(2, 2, kernel, stride, dilation=draw(st.sampled_from([1, 2]))),
            nn.ConvTranspose2d(2, 2, 4, 2, 1),
            nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.PixelShuffle(2)),
            nn.Sequential(Function(lambda self, x: F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))),
                          nn.PixelUnshuffle(2), nn.Conv2d(8, 2, 1)),
            nn.ReflectionPad2d((top, left, left, top)),
            nn.ReplicationPad2d((top, left, left, top)),
            nn.ZeroPad2d(-1),
            Function(lambda self, x: x[:, :, top:, left:]),
            Function(lambda self, x: x.flip(2)),
            Function(lambda self, x: x.roll((top, left), (2, 3))),
            Function(lambda self, x: torch.cat([x[:, :, top:], x[:, :, :left]], 2)),
            Function(lambda self, x: torch.stack([x, x.flip(1)], 1).sum(1)),
        ])
    )  # fmt: skip


decoders = st.lists(st.one_of(parts, resized(), resized()), min_size=1, max_size=4).map(
    lambda parts: nn.Sequential(*parts)
)


@pytest.mark.parametrize("networks, examples", [(networks, 400), (decoders, 400)], ids=["branches", "decoders"])
def test_random_networks_against_the_experiment(networks, examples):
    agreed = []

    @settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(networks, pairs(20, 40), st.data())
    def compare(model, image, data):
        shape = (2, *image)
        torch.manual_seed(0)
        for module in model.modules():
            getattr(module, "reset_parameters", lambda: None)()
        try:
            fields = of_model(model, shape)
            fields["output"]
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
            top, left, bottom, right = fields[layer].region(*unit)
            found = seen_by(model, shape, layer, unit, holes or bottom < top or right < left)
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
    """Find by experiment that along rows or columns either branch has a unit that sees what the other's does not."""
    sizes = map_sizes(model, shape, branches)
    if len(sizes) < 2:
        return  # a branch is itself a sum, which has no module to look at

    def seen(branch, unit, axis):
        return reach(model, shape, branch, (unit, 0) if axis == 0 else (0, unit))[axis::2]

    def sees_more(one, other, axis):
        for unit in range(sizes[one][axis]):
            (first, last), (low, high) = seen(one, unit, axis), seen(other, unit, axis)
            if first < low or high < last:
                return True
        return False

    one, other = branches
    assert any(sees_more(one, other, axis) and sees_more(other, one, axis) for axis in (0, 1))
