"""What single operations do to a receptive field, which are refused, and the keys under which fields are found."""

import copy
from itertools import product

import pytest
import torch
from networks import Function, Gate, build, square
from torch import nn
from torch.nn import functional as F

from vgglab.receptive_field import MisalignedError, ReceptiveField, UnsupportedOperation, effective, of_model, reach

torch.set_num_threads(1)


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
    with pytest.raises(MisalignedError, match="merges input .* with pool"):
        of_model(part, (2, 12, 16))["output"]


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


# Windows that differ


def rows_seen(model, shape=(2, 9, 12)):
    """The first and the last row that each unit of the model sees."""
    field = of_model(model, shape)["output"]
    rows = model(torch.zeros(1, *shape)).shape[2]
    return [tuple(field.region(row, 0)[::2]) for row in range(rows)]


UNEQUAL = {
    "pooling to a size that does not divide": (nn.AdaptiveAvgPool2d(4), [(0, 2), (2, 4), (4, 6), (6, 8)]),
    "nearest": (
        nn.Sequential(nn.MaxPool2d(3), nn.Upsample(scale_factor=2)),
        [(0, 2)] * 2 + [(3, 5)] * 2 + [(6, 8)] * 2,
    ),
    "bilinear": (
        nn.Sequential(nn.MaxPool2d(3), nn.UpsamplingBilinear2d(scale_factor=2)),
        [(0, 5)] * 3 + [(3, 8)] * 2 + [(6, 8)],
    ),
    "transposed": (
        nn.Sequential(nn.MaxPool2d(3), nn.ConvTranspose2d(2, 2, 3, 2)),
        [(0, 2), (0, 2), (0, 5), (3, 5), (3, 8), (6, 8), (6, 8)],
    ),
    "pixel shuffle": (
        nn.Sequential(nn.MaxPool2d(3), nn.Conv2d(2, 8, 1), nn.PixelShuffle(2)),
        [(0, 2)] * 2 + [(3, 5)] * 2 + [(6, 8)] * 2,
    ),
    "reflected": (nn.ReflectionPad2d(2), [(abs(row), abs(row)) for row in range(-2, 9)] + [(7, 7), (6, 6)]),
    "turned over": (Function(lambda self, x: x.flip(2)[:, :, 3:]), [(row, row) for row in range(5, -1, -1)]),
    "joined": (
        Function(lambda self, x: torch.cat([x[:, :, 5:], x[:, :, :2]], 2)),
        [(n, n) for n in (5, 6, 7, 8, 0, 1)],
    ),
}


@pytest.mark.parametrize("name", UNEQUAL)
def test_windows_that_differ_are_known_one_by_one(name):
    model, seen = UNEQUAL[name]
    field = of_model(model, (2, 9, 12))["output"]
    assert rows_seen(model) == seen
    assert field.size[0] == max(last - first + 1 for first, last in seen)
    for row, (first, last) in enumerate(seen):
        assert reach(model, (2, 9, 12), "output", (row, 0))[::2] == (first, last)
    if field.windows[0]:
        with pytest.raises(ValueError, match="row must be at least 0 and below"):
            field.region(len(seen), 0)


def test_evenly_spaced_windows_are_exact_again_after_a_decoder():
    model = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(2, 2, 3, padding=1), nn.MaxPool2d(2))
    fields = of_model(model, (2, 8, 8))
    assert [fields[layer].exact for layer in "012"] == [False, False, True]
    assert fields["output"] == square(3, 1, 1)


def test_crops_stacks_and_shuffled_channels():
    same = nn.Conv2d(2, 2, 3, padding=1)
    assert sequence(Function(lambda self, x: x[:, :, 3:, :-2]))["output"] == ReceptiveField((1, 1), (1, 1), (-3, 0))
    assert sequence(nn.ZeroPad2d(-1))["output"] == square(1, 1, -1)
    assert sequence(nn.PixelUnshuffle(2))["output"].size == (2, 2)
    for function in (
        lambda self, x: torch.stack([self.conv(x), x], 1).sum(1),
        lambda self, x: self.conv(x[:, [1, 0]]),
        lambda self, x: self.conv(x.flip(1)),
        lambda self, x: torch.channel_shuffle(self.conv(x), 2),
        lambda self, x: torch.cat([self.conv(x)[:, :, :0] * 2, self.conv(x)], 2),
    ):
        assert sequence(Function(function, conv=same))["output"] == square(3, 1, 1)


def test_the_larger_window_answers_where_it_holds_the_smaller():
    pooled = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(2, 2, 1))
    model = Function(lambda self, x: self.left(x) + self.right(x), left=nn.Conv2d(2, 2, 3, 2, 1), right=pooled)
    assert of_model(model, (2, 8, 8))["output"] == square(3, 2, 1)


def test_attention_sees_the_tokens_that_it_mixes():
    with torch.device("cpu"):
        swin = of_model(build("swin_t"), (3, 224, 224))
        vit = of_model(build("vit_b_16"), (3, 224, 224))
    assert swin["features.0"] == square(4, 4, 0)
    assert (swin["features.1.0"].size, swin["features.1.0"].exact) == ((28, 28), False)
    assert swin["features.1.0"].region(6, 7) == (0, 28, 27, 55)
    assert swin["features.1.0"].size == (28, 28) and vit["output"] == square(224, 0, 0, covers_image=True)


# What cannot be followed


REFUSED = {
    "im2col": nn.Unfold(3),
    "sort": Function(lambda self, x: x.sort(2)[0]),
    "cumsum": Function(lambda self, x: x.cumsum(2)),
    "index (in 0): it picks out rows": Function(lambda self, x: x[:, :, [0, 2]]),
    "add (in 0) merges input": Function(lambda self, x: x[..., :24] + x[..., :24].transpose(2, 3)),
    "add (in 0): it works on a tensor": Function(lambda self, x: torch.add(x, x, out=torch.empty_like(x))),
    "conv2d (in 0): how": Function(lambda self, x: F.conv2d(torch.ones(1, 2, 99, 99, device=x.device), x)),
    "conv2d (in 0.conv): its groups": Function(
        lambda self, x: self.conv(x.transpose(1, 2)), conv=nn.Conv2d(24, 24, 1, groups=24)
    ),
}


@pytest.mark.parametrize("named", REFUSED)
def test_what_cannot_be_followed_is_refused_by_name(named):
    fields = sequence(REFUSED[named])
    with pytest.raises((UnsupportedOperation, MisalignedError)) as caught:
        fields["output"]
    assert named in str(caught.value) and fields.unknown["output"] == str(caught.value)


@pytest.mark.parametrize("change", [lambda y: y.unsqueeze_(-1), lambda y: y.transpose_(2, 3)])
def test_shapes_changed_in_place_are_refused(change):
    with pytest.raises(UnsupportedOperation, match="it changes a shape in place"):
        sequence(Function(lambda self, x: change(torch.relu(x[..., :24]))))


def test_what_cannot_be_followed_stops_its_own_branch_only():
    model = Function(lambda self, x: (self.one(x), self.two(self.one(x).cumsum(2))),
                     one=nn.Conv2d(2, 2, 3), two=nn.Conv2d(2, 2, 3))  # fmt: skip
    fields = of_model(model, (2, 9, 9))
    assert list(fields) == ["one", "output"] and fields["output"] == square(3, 1, 0)
    assert list(fields.unknown) == ["cumsum", "two", "output.1"]
    assert "two" not in fields and len(fields) == 2
    with pytest.raises(KeyError, match="three"):
        fields["three"]


def test_fields_print_as_a_table():
    fields = of_model(nn.Sequential(nn.Conv2d(2, 2, 3), Function(lambda self, x: x.cumsum(2))), (2, 9, 9))
    header, _, first, *note = str(fields).splitlines()
    assert header.split() == ["layer", "size", "stride", "padding", "covers", "image", "windows", "equal"]
    assert first.split() == ["0", "3x3", "1x1", "0x0", "no", "yes"]
    assert "2 layers unknown, behind cumsum (in 1): how" in " ".join(note) and repr(fields) == str(fields)
    assert '<td style="text-align: right">3x3</td>' in fields._repr_html_()


@pytest.mark.parametrize(
    "name, layer, field",
    [
        ("alexnet", "features", square(195, 32, 66)),
        ("vgg16", "features", square(212, 32, 90)),
        ("alexnet", "avgpool", (227, 227)),
    ],
)
def test_other_sizes_than_the_pooling_is_made_for(name, layer, field):
    with torch.device("meta"):
        found = of_model(build(name), (3, 256, 288))[layer]
    assert field in (found, found.size)


def test_multiplied_gates_can_be_left_out():
    with torch.device("meta"):
        model = build("efficientnet_b0")
    behind, without = (of_model(model, (3, 224, 224), gates=gates)["features"] for gates in (True, False))
    assert without == square(851, 32, 425, covers_image=True)
    assert behind.covers_image and behind.stride == (0, 0)


def test_changes_through_a_view_are_refused():
    def shifted(self, x):
        y = self.conv(x)
        y[:, :1] += self.wide(x)
        return y

    model = Function(shifted, conv=nn.Conv2d(2, 2, 1), wide=nn.Conv2d(2, 1, 3, padding=1))
    with pytest.raises(UnsupportedOperation, match="overwritten"):
        of_model(model, (2, 8, 8))["output"]


def test_a_misaligned_merge_names_its_branches():
    model = Function(
        lambda self, x: self.left(x) + self.right(x),
        left=nn.Conv2d(2, 2, 3, padding=1),
        right=nn.Sequential(nn.ZeroPad2d((0, 0, 0, 2)), nn.Conv2d(2, 2, (3, 1))),
    )
    found = r"add .* merges left \(size 3, stride 1, first centre 0\) with right \(size 3, stride 1, first centre 1\)"
    with pytest.raises(MisalignedError, match=found) as caught:
        of_model(model, (2, 9, 9))["output"]
    assert caught.value.branches == ("left", "right")
    halved = Function(lambda self, x: self.conv(x)[:, :, :4] + x[:, :, ::2], conv=nn.Conv2d(2, 2, 3, padding=1))
    with pytest.raises(MisalignedError, match="merges conv .*stride 1.* with input .*stride 2"):
        of_model(halved, (2, 8, 8))["output"]


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
    with pytest.raises(ValueError, match="input_shape .*AssertionError: Wrong image height! Expected 224 but got 256!"):
        of_model(build("vit_b_32"), (3, 256, 256))
    with pytest.raises(ValueError, match="does not run on input_shape .*KeyError: 'scores'"):
        of_model(Function(lambda self, x: {"score": x}["scores"]), (3, 8, 8))
    with pytest.raises(UnsupportedOperation, match="without real numbers"):
        of_model(Function(lambda self, x: x if x.sum() > 0 else -x), (3, 8, 8))


@pytest.mark.parametrize("size", [(3, 20), (20, 7), (20, 33), (40, 20)])
@pytest.mark.parametrize("mode, antialias", [("nearest", False), *product(("bilinear", "bicubic"), (False, True))])
def test_resizing_one_side_reads_what_the_experiment_finds(mode, antialias, size):
    model = Function(lambda self, x: F.interpolate(x, size, mode=mode, antialias=antialias))
    agrees(model, (0, 0), (1, 3), (2, 6))


def agrees(model, *units):
    field = of_model(model, (2, 20, 20))["output"]
    for unit in units:
        top, left, bottom, right = field.region(*unit)
        assert reach(model, (2, 20, 20), "output", unit) == (max(top, 0), max(left, 0), min(bottom, 19), min(right, 19))


SAME_FOR_ALL = {
    "expand": lambda self, x: F.avg_pool2d(x, 20).expand_as(x),
    "gate": lambda self, x: x * F.avg_pool2d(x, 20).sigmoid().expand_as(x),
    "strips": lambda self, x: x + F.avg_pool2d(x, (20, 1)).expand_as(x) + F.avg_pool2d(x, (1, 20)).expand_as(x),
    "shuffle": lambda self, x: F.pixel_shuffle(F.avg_pool2d(x, 20).repeat(1, 8, 1, 1), 4),
    "pad": lambda self, x: F.pad(F.avg_pool2d(x, 20), (3, 3, 3, 3), mode="replicate"),
    "matmul": lambda self, x: self.fc.weight[:7] @ x,
    "rows": lambda self, x: self.fc(x.transpose(2, 3)).transpose(2, 3),
    "rows as channels": lambda self, x: F.conv2d(x.permute(0, 2, 1, 3), self.fc.weight[:4, :, None, None]),
}


@pytest.mark.parametrize("forward", SAME_FOR_ALL.values(), ids=SAME_FOR_ALL)
def test_units_that_see_the_same_along_a_side_have_no_stride(forward):
    agrees(Function(forward, fc=nn.Linear(20, 20)), (0, 0), (1, 3))
