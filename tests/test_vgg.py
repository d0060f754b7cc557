import gc

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vgglab.cost import ledger
from vgglab.course import figures
from vgglab.lrn import local_response_norm
from vgglab.models import VGG_CONFIGS, from_torchvision, init_from, initialize, vgg, vgg_block

DEPTHS = {"A": 11, "A-LRN": 11, "B": 13, "C": 16, "D": 16, "E": 19}
PARAMETERS = {
    "A": 132_863_336,
    "A-LRN": 132_863_336,
    "B": 133_047_848,
    "C": 133_638_952,
    "D": 138_357_544,
    "E": 143_667_240,
}
MACS = {
    "A": 7_609_090_048,
    "A-LRN": 7_609_090_048,
    "B": 11_308_466_176,
    "C": 11_770_888_192,
    "D": 15_470_264_320,
    "E": 19_632_062_464,
}
BATCH_NORM_PARAMETERS = {"A": 132_868_840, "B": 133_053_736, "D": 138_365_992, "E": 143_678_248}
TORCHVISION = {"A": "vgg11", "B": "vgg13", "D": "vgg16", "E": "vgg19"}


def on_meta(config, **arguments):
    with torch.device("meta"):
        return vgg(config, **arguments)


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def layers(model, kind):
    return [module for module in model.modules() if isinstance(module, kind)]


@pytest.mark.parametrize("config", VGG_CONFIGS)
def test_parameters_macs_and_depth_are_the_papers(config):  # VB2, VB9
    model = on_meta(config)
    with FlopCounterMode(display=False) as operations:
        assert model(torch.empty(1, 3, 224, 224, device="meta")).shape == (1, 1000)
    assert count(model) == PARAMETERS[config]
    assert operations.get_total_flops() == 2 * MACS[config]
    assert len(layers(model, (nn.Conv2d, nn.Linear))) == DEPTHS[config]
    assert len(layers(model, nn.MaxPool2d)) == 5
    assert len(layers(model, nn.LocalResponseNorm)) == (config == "A-LRN")
    assert count(model.classifier) == 123_642_856


@pytest.mark.parametrize("config, parameters", BATCH_NORM_PARAMETERS.items())
def test_parameters_with_batch_norm(config, parameters):
    assert count(on_meta(config, batch_norm=True)) == parameters


def test_d_without_biases():  # VB4
    weights = [module.weight.numel() for module in layers(on_meta("D"), (nn.Conv2d, nn.Linear))]
    convolutions = [1_728, 36_864, 73_728, 147_456, 294_912, 589_824, 589_824, 1_179_648] + [2_359_296] * 5
    assert weights == [*convolutions, 102_760_448, 16_777_216, 4_096_000]
    assert sum(weights) == 138_344_128


def test_kernels_and_padding():
    for config in VGG_CONFIGS:
        convolutions = layers(on_meta(config), nn.Conv2d)
        assert all(conv.stride == (1, 1) and conv.padding == (conv.kernel_size[0] // 2,) * 2 for conv in convolutions)
        ones = [place for place, conv in enumerate(convolutions, start=1) if conv.kernel_size == (1, 1)]
        assert ones == ([7, 10, 13] if config == "C" else [])


def test_lrn_follows_the_first_relu_with_the_papers_settings():
    features = vgg("A-LRN", width=0.1, image_size=32).features
    x = torch.randn(2, 64, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 40
    assert isinstance(features[1], nn.ReLU) and isinstance(features[3], nn.MaxPool2d)
    torch.testing.assert_close(features[2](x), local_response_norm(x, n=5, k=2, alpha=1e-4, beta=0.75))


@pytest.mark.parametrize("config, batch_norm", [*((config, False) for config in TORCHVISION), ("A", True)])
def test_from_torchvision_gives_its_outputs_to_the_bit(config, batch_norm):
    torchvision = pytest.importorskip("torchvision")
    build = getattr(torchvision.models, TORCHVISION[config] + "_bn" * batch_norm)
    with torch.device("meta"):
        theirs = build(weights=None, num_classes=7)
    theirs = theirs.to_empty(device="cpu").eval()
    generator = torch.Generator().manual_seed(0)
    for name, tensor in theirs.state_dict().items():
        if tensor.ndim > 1:
            tensor.uniform_(-1, 1, generator=generator).mul_((6 / tensor[0].numel()) ** 0.5)
        elif name.endswith("num_batches_tracked"):
            tensor.fill_(3)
        else:
            tensor.uniform_(0.1, 1.5, generator=generator)
    ours = from_torchvision(config, theirs.state_dict()).eval()
    x = torch.randn(1, 3, 224, 224, generator=generator)
    with torch.inference_mode():
        expected, outputs = theirs(x), ours(x)
    assert outputs.shape == (1, 7) and outputs.std() > 0
    assert torch.equal(outputs, expected)
    assert not any(parameter.is_meta for parameter in ours.parameters())
    del ours, theirs
    gc.collect()


def state_dict_of(config, value=0.0, **arguments):
    """A state dict of the right shapes in almost no memory."""
    shapes = on_meta(config, num_classes=10, **arguments).state_dict()
    return {name: torch.tensor(value).expand(tensor.shape) for name, tensor in shapes.items()}


@pytest.mark.parametrize(
    "given, name",
    [
        (state_dict_of("A"), r"Missing key.*features.10.bias"),
        (state_dict_of("E"), r"Unexpected key.*features.16.bias"),
        (state_dict_of("C"), r"features.14.weight: .*\[256, 256, 1, 1\].*\[256, 256, 3, 3\]"),
        (state_dict_of("D", width=0.25), r"classifier.0.bias: .*\[1024\].*\[4096\]"),
        (state_dict_of("D", image_size=64), r"classifier.0.weight: .*\[4096, 2048\].*\[4096, 25088\]"),
        (state_dict_of("E", batch_norm=True), "features"),
    ],
    ids=["A", "E", "C", "narrow", "64 pixels", "E with batch norm"],
)
def test_from_torchvision_refuses_another_network_by_name(given, name):
    with pytest.raises(ValueError, match="state_dict is not that of configuration D: ") as caught:
        from_torchvision("D", given)
    caught.match(name)


def test_from_torchvision_refuses_nan_by_name():
    state = state_dict_of("D")
    for broken in ("classifier.0.weight", "classifier.3.bias"):
        state[broken] = torch.tensor(float("nan")).expand(state[broken].shape)
    with pytest.raises(ValueError, match="NaN or infinity in classifier.0.weight, classifier.3.bias"):
        from_torchvision("D", state)


@pytest.mark.parametrize("state", [{}, {"classifier.6.weight": torch.ones(10, 4096)}, None, "vgg16"])
def test_from_torchvision_refuses_what_is_no_vgg(state):
    with pytest.raises(ValueError, match="state_dict must be that of a torchvision VGG"):
        from_torchvision("D", state)


COPIED = {
    "A": ["features.0", "features.3", "features.6", "features.8"],
    "A-LRN": ["features.0", "features.4", "features.7", "features.9"],
    "B": ["features.0", "features.5", "features.10", "features.12"],
    "C": ["features.0", "features.5", "features.10", "features.12"],
    "D": ["features.0", "features.5", "features.10", "features.12"],
    "E": ["features.0", "features.5", "features.10", "features.12"],
}
SOURCES = ["features.0", "features.3", "features.6", "features.8"]
FULLY_CONNECTED = ["classifier.0", "classifier.3", "classifier.6"]
SMALL = {"image_size": 32, "width": 1 / 16, "num_classes": 5}


@pytest.mark.parametrize("config", VGG_CONFIGS)
def test_init_from_copies_four_convolutions_and_three_fc_and_nothing_else(config):
    trained, model = initialize(vgg("A", **SMALL), seed=1), vgg(config, **SMALL)
    for parameter in trained.parameters():
        parameter.data += 0.01
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    copied = init_from(model, trained)
    assert copied == COPIED[config] + FULLY_CONNECTED
    source = dict(zip(copied, SOURCES + FULLY_CONNECTED, strict=True))
    for name, tensor in model.state_dict().items():
        layer, kind = name.rsplit(".", 1)
        if layer in source:
            assert torch.equal(tensor, trained.state_dict()[f"{source[layer]}.{kind}"])
        else:
            assert torch.equal(tensor, before[name])
    fresh = [layer for layer in model.features if isinstance(layer, nn.Conv2d)]
    assert len(fresh) + 3 == DEPTHS[config]


def test_init_from_shares_no_memory_with_the_trained_network():
    trained, model = vgg("A", **SMALL), vgg("B", **SMALL)
    init_from(model, trained)
    model.features[0].weight.data.zero_()
    assert trained.features[0].weight.abs().sum() > 0


@pytest.mark.parametrize(
    "other, error, message",
    [
        (
            lambda: vgg("A", **SMALL | {"num_classes": 6}),
            ValueError,
            r"classifier.6 has the shape \(5, 256\).*\(6, 256",
        ),
        (lambda: vgg("A", **SMALL | {"width": 1 / 8}), ValueError, r"features.0 has the shape \(4, 3, 3, 3\)"),
        (lambda: vgg("D", **SMALL), ValueError, "trained must be a configuration A, not one of 13 convolutions"),
        (lambda: nn.Linear(2, 2), TypeError, r"trained must be a network made by vgg\(\), not Linear"),
    ],
)
def test_init_from_refuses_another_network_and_leaves_the_model_alone(other, error, message):
    model = vgg("B", **SMALL)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(error, match=message):
        init_from(model, other())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("config", VGG_CONFIGS)
@pytest.mark.parametrize("batch_norm", [False, True])
def test_narrow_networks_on_small_grey_images_learn_from_every_weight(config, batch_norm):
    model = vgg(config, in_channels=1, num_classes=10, image_size=32, width=1 / 16, dropout=0, batch_norm=batch_norm)
    generator = torch.Generator().manual_seed(0)
    initialize(model, seed=0)
    scores = model(torch.randn(4, 1, 32, 32, generator=generator))
    assert scores.shape == (4, 10)
    scores.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert all(conv.weight.grad.abs().sum() > 0 for conv in layers(model, nn.Conv2d))


@settings(deadline=None, max_examples=25)
@given(st.integers(32, 64), st.sampled_from(list(VGG_CONFIGS)))
def test_image_sizes_from_32_to_64_odd_ones_too(image_size, config):
    model = vgg(config, image_size=image_size, width=1 / 32, num_classes=3)
    side = image_size // 32
    assert model.features(torch.zeros(1, 3, image_size, image_size)).shape == (1, 16, side, side)
    assert model(torch.zeros(2, 3, image_size, image_size)).shape == (2, 3)


def test_width_scales_the_fc_layers_too():  # VB13
    full, narrow = on_meta("A"), on_meta("A", width=0.25)
    for wide, slim in zip(layers(full, nn.Conv2d), layers(narrow, nn.Conv2d), strict=True):
        assert wide.out_channels == 4 * slim.out_channels
    assert [fc.out_features for fc in layers(narrow, nn.Linear)] == [1024, 1024, 1000]


def test_dropout_follows_the_first_two_fc_layers():
    model = on_meta("A", dropout=0.3)
    kinds = [type(module) for module in model.classifier]
    assert kinds == [nn.Linear, nn.ReLU, nn.Dropout, nn.Linear, nn.ReLU, nn.Dropout, nn.Linear]
    assert [module.p for module in layers(model, nn.Dropout)] == [0.3, 0.3]


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"config": "F"}, ValueError, "config must be one of 'A', 'A-LRN', 'B', 'C', 'D', 'E', not 'F'"),
        ({"image_size": 31}, ValueError, "image_size must be at least 32, not 31"),
    ],
)
def test_bad_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        on_meta(**{"config": "A", **arguments})


@pytest.mark.parametrize("shape", [(1, 3, 33, 32), (1, 1, 32, 32), (3, 32, 32), (1, 3, 64, 64)])
def test_an_image_of_another_shape_is_refused_with_the_expected_one(shape):
    with pytest.raises(ValueError, match=r"x must be \(N, 3, 32, 32\) for this network") as caught:
        vgg("A", **SMALL)(torch.zeros(shape))
    assert str(shape) in str(caught.value)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 5), st.integers(2, 9), st.integers(2, 9))
def test_vgg_block_is_conv_relu_repeated_then_pool(num_convs, in_channels, out_channels, height, width):  # VB1
    block = vgg_block(num_convs, in_channels, out_channels)
    x = torch.randn(2, in_channels, height, width)
    expected = x
    for conv in layers(block, nn.Conv2d):
        expected = nn.functional.conv2d(expected, conv.weight, conv.bias, padding=1).clamp(min=0)
    expected = expected.unfold(2, 2, 2).unfold(3, 2, 2).amax((-2, -1))
    assert torch.equal(block(x), expected)
    assert expected.shape == (2, out_channels, height // 2, width // 2)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(2, 9), st.integers(2, 9), st.sampled_from([1, 2, 100]))
def test_relu_and_max_pooling_commute_to_the_bit(seed, height, width, levels):  # VB15
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(-levels, levels + 1, (2, 3, height, width), generator=generator) / levels  # few levels: many ties
    weights = torch.randn(2, 3, height // 2, width // 2, generator=generator)
    results = []
    for order in ([nn.ReLU(), nn.MaxPool2d(2)], [nn.MaxPool2d(2), nn.ReLU()]):
        leaf = x.clone().requires_grad_()
        output = nn.Sequential(*order)(leaf)
        (output * weights).sum().backward()
        results.append((output.detach(), leaf.grad))
    (output, gradient), (other_output, other_gradient) = results
    assert torch.equal(output, other_output) and torch.equal(gradient, other_gradient)


def fans(weight):
    return weight[0].numel(), weight.numel() // weight.shape[1]


@pytest.mark.parametrize(
    "scheme, variance",
    [
        ("paper", lambda inputs, outputs: 0.01),
        ("std-0.01", lambda inputs, outputs: 0.0001),
        ("xavier", lambda inputs, outputs: 2 / (inputs + outputs)),
        ("kaiming", lambda inputs, outputs: 2 / inputs),
    ],
)
def test_initializations_have_the_variance_they_claim(scheme, variance):
    model = initialize(vgg("A", width=0.25, image_size=32), scheme, seed=0)
    for layer in layers(model, (nn.Conv2d, nn.Linear)):
        expected = variance(*fans(layer.weight))
        tolerance = 5 * (2 / layer.weight.numel()) ** 0.5  # five standard errors of a Gaussian's variance
        assert layer.weight.var().item() == pytest.approx(expected, rel=tolerance)
        assert abs(layer.weight.mean().item()) < 5 * (expected / layer.weight.numel()) ** 0.5
        assert layer.bias.abs().sum() == 0


def test_xavier_is_uniform_and_the_others_are_normal():
    for scheme, kurtosis in [("paper", 3), ("std-0.01", 3), ("kaiming", 3), ("xavier", 1.8)]:
        weight = initialize(nn.Linear(500, 400), scheme, seed=0).weight.detach()
        assert (weight**4).mean() / (weight**2).mean() ** 2 == pytest.approx(kurtosis, abs=0.1)


def test_a_seed_decides_the_weights():
    def first_weight(seed):
        return initialize(vgg("A", **SMALL), seed=seed).features[0].weight

    assert torch.equal(first_weight(3), first_weight(3))
    assert not torch.equal(first_weight(3), first_weight(4))
    torch.manual_seed(7)
    expected = vgg("A", **SMALL).features[0].weight
    torch.manual_seed(7)
    assert torch.equal(vgg("A", **SMALL).features[0].weight, expected)


def test_the_shape_walk_is_drawn_to_scale():
    with torch.device("meta"):
        table = ledger(vgg("D"), (3, 224, 224))
    maps = [row.output_shape for row in table.rows if row.kind in ("input", "Conv2d", "MaxPool2d")]
    columns = figures.shape_walk(table).axes[0].patches
    drawn = [(column.get_width(), column.get_height()) for column in columns]
    assert drawn[:-3] == [(channels, side) for channels, side, _ in maps] and len(maps) == 19
    assert all(one.get_x() + one.get_width() <= other.get_x() for one, other in zip(columns, columns[1:], strict=False))
