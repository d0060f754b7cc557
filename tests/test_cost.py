"""Costs against the papers, torchvision's published numbers, torchinfo and plain counting."""

import csv
import math
import warnings

import pytest
import torch
import torchinfo
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Function, build
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from vgglab.cost import conv, ledger
from vgglab.receptive_field import UnsupportedOperation

torch.set_num_threads(1)


def on_meta(name):
    """A torchvision network without weights, but for families whose constructors need real numbers."""
    with torch.device("cpu" if name.startswith(("regnet", "swin")) else "meta"):
        return build(name)


@pytest.fixture(scope="module")
def vgg16():
    return ledger(on_meta("vgg16"), (3, 224, 224))


def total(rows, column):
    return sum(getattr(row, column) for row in rows)


# One layer by formula


def test_kernel_sizes_on_an_image():
    """Claim SK4: operations are two per multiply-add."""
    found = [conv(kernel, 3, 96, side) for kernel, side in [(3, 56), (5, 56), (7, 55), (9, 55), (11, 54)]]
    assert [2 * cost.macs for cost in found] == [16_257_024, 45_158_400, 85_377_600, 141_134_400, 203_233_536]
    assert [cost.parameters for cost in found] == [2_688, 7_296, 14_208, 23_424, 34_944]


def test_stacks_of_small_kernels():
    """Claims SK1 and SK2, for 10 channels without bias."""
    assert 3 * conv(3, 10, 10, 1, bias=False).parameters == 2_700
    assert conv(7, 10, 10, 1, bias=False).parameters == 4_900
    assert 2 * conv(3, 10, 10, 1, bias=False).parameters == 1_800
    assert conv(5, 10, 10, 1, bias=False).parameters == 2_500


sizes = st.integers(1, 9)


@settings(max_examples=50, deadline=None)
@given(st.tuples(sizes, sizes), sizes, sizes, st.tuples(sizes, sizes), st.booleans())
def test_formula_equals_the_ledger(kernel, in_channels, out_channels, output_side, bias):
    layer = nn.Conv2d(in_channels, out_channels, kernel, bias=bias)
    image = [side + k - 1 for side, k in zip(output_side, kernel, strict=True)]
    row = ledger(nn.Sequential(layer), (in_channels, *image)).rows[-1]
    assert (row.parameters, row.macs) == conv(kernel, in_channels, out_channels, output_side, bias)
    assert row.output_shape == (out_channels, *output_side)


def test_conv_names_what_is_wrong():
    with pytest.raises(ValueError, match="kernel must be at least 1, not 0"):
        conv(0, 3, 3, 8)
    with pytest.raises(TypeError, match="in_channels must be an integer"):
        conv(3, 3.5, 3, 8)


# Published networks


def test_vgg16_row_by_row(vgg16):
    weights = [row.weights for row in vgg16.rows if row.weights]
    assert weights == [
        *[1_728, 36_864, 73_728, 147_456, 294_912, 589_824, 589_824, 1_179_648, *[2_359_296] * 5],
        *[102_760_448, 16_777_216, 4_096_000],
    ]
    assert (vgg16.weights, vgg16.biases, vgg16.parameters) == (138_344_128, 13_416, 138_357_544)
    assert vgg16.macs == 15_470_264_320
    assert total((row for row in vgg16.rows if row.name.startswith("classifier")), "parameters") == 123_642_856
    assert [row.name for row in vgg16.rows[:3]] == ["input", "features.0", "features.1"]
    second = vgg16.rows[3]
    assert (second.kind, second.output_shape, second.parameters) == ("Conv2d", (64, 224, 224), 36_928)
    assert (second.macs, second.activations) == (1_849_688_064, 3_211_264)


def test_the_three_activation_counts_of_vgg16(vgg16):
    layers = [row for row in vgg16.rows if row.kind in ("Conv2d", "Linear")]
    assert total(layers, "activations") == 13_556_712
    layers += [row for row in vgg16.rows if row.kind in ("input", "MaxPool2d")]
    assert total(layers, "activations") == 15_237_608
    layers += [row for row in vgg16.rows if row.kind == "ReLU"]
    assert total(layers, "activations") == 28_793_320
    assert vgg16.activations - total(layers, "activations") == 7 * 7 * 512  # torchvision's adaptive pooling
    assert [row.activations for row in vgg16.rows if row.kind == "Dropout"] == [0, 0]


PUBLISHED = {  # parameters, MACs at 224
    "vgg11": (132_863_336, 7_609_090_048),
    "vgg13": (133_047_848, 11_308_466_176),
    "vgg19": (143_667_240, 19_632_062_464),
    "alexnet": (61_100_840, 714_188_480),
    "googlenet": (6_624_904, 1_498_376_192),
    "resnet18": (11_689_512, 1_814_073_344),
    "resnet50": (25_557_032, 4_089_184_256),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_macs(name):
    found = ledger(on_meta(name), (3, 224, 224))
    assert (found.parameters, found.macs) == PUBLISHED[name]


@pytest.mark.parametrize(
    "config, parameters", [("11", 132_868_840), ("13", 133_053_736), ("16", 138_365_992), ("19", 143_678_248)]
)
def test_batch_norm_counts_scale_and_shift(config, parameters):
    assert ledger(on_meta(f"vgg{config}_bn"), (3, 224, 224)).parameters == parameters


def test_first_version_of_resnet50():
    model = on_meta("resnet50")
    for block in model.modules():
        if isinstance(block, torchvision.models.resnet.Bottleneck):
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
    assert ledger(model, (3, 224, 224)).macs == 3_857_973_248


@pytest.mark.parametrize(
    "name",
    ["densenet121", "squeezenet1_0", "mobilenet_v2", "mobilenet_v3_small", "shufflenet_v2_x1_0", "efficientnet_b0",
     "regnet_y_400mf", "convnext_tiny", "inception_v3", "mnasnet1_0", "resnet152", "swin_t", "vit_b_16"],
)  # fmt: skip
def test_against_torchvisions_own_numbers(name):
    """Published with the weights: parameters, and MACs in units of 1e9 with three decimals."""
    published = torchvision.models.get_model_weights(name).DEFAULT.meta
    side = 299 if name == "inception_v3" else 224
    found = ledger(on_meta(name), (3, side, side))
    unused = found.unused_parameters if name == "inception_v3" else 0
    assert found.parameters + unused == published["num_params"]
    assert found.macs / 1e9 == pytest.approx(published["_ops"], abs=6e-4)


@pytest.mark.parametrize("name", ["alexnet", "vgg11_bn", "resnet18", "mobilenet_v2"])
def test_against_torchinfo(name):
    """Layer by layer; torchinfo adds one operation for each bias and each number that batch norm makes."""
    model = on_meta(name)
    theirs = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        summary = torchinfo.summary(torchvision.models.get_model(name), (1, 3, 224, 224), verbose=0)
    for layer in summary.summary_list:
        theirs.setdefault(layer.layer_id, layer)
    theirs = [layer for layer in theirs.values() if layer.class_name in ("Conv2d", "Linear")]
    ours = [row for row in ledger(model, (3, 224, 224)).rows if row.kind in ("Conv2d", "Linear")]
    assert len(ours) == len(theirs)
    for row, layer in zip(ours, theirs, strict=True):
        assert row.parameters == layer.num_params
        assert list(row.output_shape) == layer.output_size[1:]
        positions = math.prod(row.output_shape[1:])
        assert row.macs + row.biases * positions == layer.macs


# What counts


def test_auxiliary_heads_are_told_and_not_counted():
    found = ledger(on_meta("googlenet"), (3, 224, 224))
    assert found.parameters + found.unused_parameters == 13_004_888
    assert "6,379,984 parameters take no part at inference" in found.definition


def test_shared_parameters_count_once():
    layer = nn.Conv2d(2, 2, 3, padding=1)
    twin = nn.Conv2d(2, 2, 3, padding=1, bias=False)
    twin.weight = layer.weight
    found = ledger(nn.Sequential(layer, nn.ReLU(), layer, twin), (2, 8, 8))
    assert [(row.name, row.weights, row.biases) for row in found.rows] == [
        ("input", 0, 0), ("0", 36, 2), ("1", 0, 0), ("0", 0, 0), ("3", 0, 0)]  # fmt: skip
    assert found.macs == 3 * 36 * 64


def test_operations_and_parameters_of_a_module_itself():
    def forward(self, x):
        y = F.relu(F.conv2d(x, self.kernel, self.bias, padding=1))
        return F.linear((x + y).flatten(1), self.matrix * 2)

    model = Function(forward, kernel=nn.Parameter(torch.ones(2, 2, 3, 3)), bias=nn.Parameter(torch.ones(2)),
                     matrix=nn.Parameter(torch.ones(5, 128)), unused=nn.Parameter(torch.ones(7)))  # fmt: skip
    found = ledger(model, (2, 8, 8))
    assert [(row.name, row.output_shape, row.weights, row.biases, row.macs, row.activations) for row in found.rows] == [
        ("input", (2, 8, 8), 0, 0, 0, 128),
        ("conv2d", (2, 8, 8), 36, 2, 36 * 64, 128),
        ("relu", (2, 8, 8), 0, 0, 0, 128),
        ("add", (2, 8, 8), 0, 0, 0, 128),
        ("linear", (5,), 640, 0, 640, 5),
    ]
    assert found.unused_parameters == 7


def test_an_image_assembled_in_place():
    def forward(self, x):
        wide = torch.zeros(1, 4, 8, 8, device=x.device)
        wide[:, :3] = x
        return self.conv(wide)

    found = ledger(Function(forward, conv=nn.Conv2d(4, 2, 3)), (3, 8, 8))
    assert (found.parameters, found.macs) == (74, 72 * 36)
    assert [row.name for row in found.rows] == ["input", "copy", "conv"]


def test_grouped_transposed_and_normalized_weights():
    grouped, transposed = nn.Conv2d(4, 6, 3, groups=2), nn.ConvTranspose2d(6, 3, 2, stride=2, bias=False)
    normalized = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 2, 1))
    found = ledger(nn.Sequential(grouped, transposed, normalized), (4, 5, 5))
    assert found.parameters == sum(
        p.numel() for p in [*grouped.parameters(), *transposed.parameters(), *normalized.parameters()]
    )
    assert [row.macs for row in found.rows] == [0, 6 * 2 * 9 * 9, 6 * 3 * 4 * 9, 3 * 2 * 36]


def test_attention_counts_its_matrix_products():
    attention = Function(lambda self, x: self.attend(*[x.flatten(2).transpose(1, 2)] * 3)[0],
                         attend=nn.MultiheadAttention(8, 2, batch_first=True))  # fmt: skip
    assert ledger(attention, (8, 3, 4)).macs == 4 * 12 * 8 * 8 + 2 * 12 * 12 * 8


def test_a_network_of_positions_counts():
    """Swin v2 computes its biases from positions alone: torch's own counter counts that, too."""
    model = on_meta("swin_v2_t")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.to("meta")(torch.empty(1, 3, 256, 256, device="meta"))
    found = ledger(model, (3, 256, 256))
    assert found.macs == counter.get_total_flops() // 2
    row = next(row for row in found.rows if row.name == "features.1.0.attn.cpb_mlp.0")
    assert (row.kind, row.parameters, row.macs) == ("Linear", 2 * 512 + 512, 15 * 15 * 2 * 512)
    assert found.parameters == sum(parameter.numel() for parameter in model.parameters())


def test_neither_memory_nor_computing():
    """Terabytes of weights, were they: one number, expanded."""
    layer = nn.Linear(1, 1)
    layer.weight = nn.Parameter(torch.zeros(()).expand(2**20, 2**20))
    layer.bias = nn.Parameter(torch.zeros(()).expand(2**20))
    found = ledger(nn.Sequential(nn.Flatten(), layer), (1, 1024, 1024))
    assert (found.weights, found.macs) == (2**40, 2**40)


def test_the_model_is_left_as_it_was():
    model = nn.Sequential(nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2), nn.Dropout())
    ledger(model, (2, 9, 9))
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.device.type == "cpu" for parameter in model.parameters())
    assert model[1].num_batches_tracked == 0


def test_what_cannot_run_without_numbers_is_refused():
    with pytest.raises(UnsupportedOperation, match="without real numbers"):
        ledger(Function(lambda self, x: x[x > 0]), (3, 8, 8))


# As a table


def test_tables_name_columns_totals_and_definition(vgg16):
    text = str(vgg16)
    lines = text.splitlines()
    assert lines[0].split() == [
        "name",
        "kind",
        "output_shape",
        "weights",
        "biases",
        "parameters",
        "macs",
        "activations",
    ]
    assert lines[3].split() == ["features.0", "Conv2d", "64x224x224", "1,728", "64", "1,792", "86,704,128", "3,211,264"]
    assert text.replace("\n", " ").endswith(vgg16.definition)
    assert "total" in text and "138,357,544  15,470,264,320" in text
    assert "MACs: multiply-adds" in text and repr(vgg16) == text
    page = vgg16._repr_html_()
    assert page.count("<tr>") == len(vgg16.rows) + 2
    for part in ("15,470,264,320</td>", "features.30", "86,704,128</td>", "MACs: multiply-adds"):
        assert part in page


def test_csv(vgg16, tmp_path):
    vgg16.to_csv(tmp_path / "vgg16.csv")
    with open(tmp_path / "vgg16.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(vgg16.rows)
    assert sum(int(row["macs"]) for row in rows) == vgg16.macs
    assert rows[1] == {
        "name": "features.0", "kind": "Conv2d", "output_shape": "64x224x224", "weights": "1728", "biases": "64",
        "parameters": "1792", "macs": "86704128", "activations": "3211264"}  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["vgg16.csv"]
