"""GoogLeNet and the ResNets against their papers and torchvision's."""

import pytest
import torch
import torch.nn.functional as F
from counting import GREY, count, field, layers, macs, on_meta, shapes
from torch import nn

from vgglab.models import googlenet, resnet, vgg
from vgglab.models.resnet import Residual

pytestmark = pytest.mark.usefixtures("one_thread")

# GoogLeNet


def test_googlenet_has_the_channels_and_sizes_of_table_1():  # NB5, NB6
    table_1 = """
        conv1  112 64
        pool1   56 64
        conv2   56 192
        pool2   28 192
        3a 28  256   64  96 128  16  32  32
        3b 28  480  128 128 192  32  96  64
        pool3   14 480
        4a 14  512  192  96 208  16  48  64
        4b 14  512  160 112 224  24  64  64
        4c 14  512  128 128 256  24  64  64
        4d 14  528  112 144 288  32  64  64
        4e 14  832  256 160 320  32 128 128
        pool4    7 832
        5a  7  832  256 160 320  32 128 128
        5b  7 1024  384 192 384  48 128 128
    """
    rows = [line.split() for line in table_1.split("\n") if line.strip()]
    model = on_meta(googlenet)
    found = shapes(model, (3, 224, 224))
    named = [name for name, _ in model.features.named_children() if not name.startswith("norm")]
    assert named == [row[0] for row in rows]
    for name, side, depth, *branches in rows:
        assert found[f"features.{name}"] == (int(depth), int(side), int(side)), name
        convs = layers(model.features.get_submodule(name), nn.Conv2d)
        if branches:
            assert [conv.out_channels for conv in convs] == list(map(int, branches)), name
            assert [conv.kernel_size[0] for conv in convs] == [1, 1, 3, 1, 5, 1], name
            assert {
                found[f"features.{name}.{branch}"][1]
                for branch, _ in model.features.get_submodule(name).named_children()
            } == {int(side)}
    assert found["classifier.0"] == (1024, 1, 1)
    assert [dropout.p for dropout in layers(model.classifier, nn.Dropout)] == [0.4]
    assert not layers(model, nn.BatchNorm2d)


def test_googlenet_normalizes_before_and_after_its_second_convolutions():  # figure 3
    names = [name for name, _ in on_meta(googlenet).features.named_children()]
    assert names[:6] == ["conv1", "pool1", "norm1", "conv2", "norm2", "pool2"]


def test_googlenets_heads_answer_in_training_mode_only():
    model = googlenet(image_size=64, **GREY)
    x = torch.randn(2, 1, 64, 64)
    assert [scores.shape for scores in model.train()(x)] == [(2, 10)] * 3
    assert model.eval()(x).shape == (2, 10)
    assert googlenet(auxiliary=False, image_size=64, **GREY).train()(x).shape == (2, 10)


def test_googlenets_heads_are_those_of_section_5():
    model = on_meta(googlenet).train()
    found = {}
    for name, head in model.auxiliary.items():
        head[0].register_forward_hook(lambda module, x, out, name=name: found.update({name: (x[0].shape, out.shape)}))
    model(torch.empty(2, 3, 224, 224, device="meta"))
    assert found == {"4a": ((2, 512, 14, 14), (2, 512, 4, 4)), "4d": ((2, 528, 14, 14), (2, 528, 4, 4))}
    for head in model.auxiliary.values():
        fc = [(layer.in_features, layer.out_features) for layer in layers(head, nn.Linear)]
        assert fc == [(2048, 1024), (1024, 1000)]
        assert [dropout.p for dropout in layers(head, nn.Dropout)] == [0.7]
    assert count(model.auxiliary) == 13_378_280 - 6_998_552


@pytest.mark.parametrize("size", [32, 33, 48, 64, 65, 79, 80, 81, 96, 224])
def test_googlenets_heads_fit_every_image_size(size):
    model = on_meta(googlenet, image_size=size).train()
    assert [scores.shape for scores in model(torch.empty(2, 3, size, size, device="meta"))] == [(2, 1000)] * 3


def test_googlenet_sees_other_sizes_where_no_head_fixes_it():
    model = googlenet(image_size=64, **GREY)
    x = torch.randn(2, 1, 45, 70)
    assert model.eval()(x).shape == (2, 10)
    with pytest.raises(ValueError, match=r"x must be \(N, 1, 64, 64\) for this network, not \(2, 1, 45, 70\)"):
        model.train()(x)


def torchvision_googlenet():
    from torchvision.models import googlenet as build

    return build(weights=None, init_weights=False, aux_logits=False, transform_input=False)


def test_googlenet_is_torchvisions_with_5x5_kernels_and_without_normalization():
    theirs = torchvision_googlenet().eval()
    for name, module in theirs.named_modules():
        if type(module).__name__ == "BasicConv2d":
            old = module.conv
            kernel = 5 if name.endswith("branch3.1") else old.kernel_size[0]
            module.conv = nn.Conv2d(old.in_channels, old.out_channels, kernel, old.stride, kernel // 2)
            module.bn = nn.Identity()
    theirs.maxpool4 = nn.MaxPool2d(3, stride=2, ceil_mode=True)  # theirs is 2x2
    ours = googlenet(auxiliary=False).eval()
    ours.features.norm1 = ours.features.norm2 = nn.Identity()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    x = torch.randn(2, 3, 96, 96)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


def test_torchvisions_googlenet_is_another_network():
    from torchvision.models import googlenet as build

    theirs = on_meta(build, weights=None, init_weights=False)
    assert count(theirs) == 13_004_888
    assert count(theirs) - count(theirs.aux1) - count(theirs.aux2) == 6_624_904
    assert macs(theirs, (3, 224, 224)) == 1_498_376_192
    assert field(theirs, (3, 224, 224), "inception5b") == (379, 32, 167)
    assert layers(theirs, nn.BatchNorm2d) and not layers(theirs, nn.LocalResponseNorm)
    assert 5 not in {conv.kernel_size[0] for conv in layers(theirs, nn.Conv2d)}
    assert (theirs.maxpool4.kernel_size, on_meta(googlenet).features.pool4.kernel_size) == (2, 3)
    x = torch.randn(1, 1, 14, 14)
    assert not torch.allclose(F.avg_pool2d(x, 5, stride=3), F.adaptive_avg_pool2d(x, 4))  # theirs, for the heads


# ResNet


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
@pytest.mark.parametrize("version", [1, 1.5])
def test_resnet_equals_torchvision_with_its_weights(depth, version):  # NB7
    import torchvision.models

    theirs = getattr(torchvision.models, f"resnet{depth}")(weights=None).eval()
    for name, buffer in theirs.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(std=0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    if version == 1 and depth >= 50:
        for block in (theirs.layer2[0], theirs.layer3[0], theirs.layer4[0]):
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
    ours = on_meta(resnet, depth=depth, version=version)
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)), assign=True)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-6, atol=1e-6)


def test_torchvisions_resnet50_takes_the_stride_on_the_3x3():
    from torchvision.models import resnet50

    def strides(block):
        return [conv.stride[0] for conv in layers(block, nn.Conv2d)]

    theirs = on_meta(resnet50)
    assert (
        strides(theirs.layer2[0]) == strides(on_meta(resnet, depth=50, version=1.5).features.conv3_x[0]) == [1, 2, 1, 2]
    )
    assert strides(on_meta(resnet, depth=50).features.conv3_x[0]) == [2, 1, 1, 2]
    assert macs(theirs, (3, 224, 224)) == 4_089_184_256


def test_resnet_has_the_sizes_of_table_1():
    found = shapes(on_meta(resnet, depth=50), (3, 224, 224))
    stages = ["conv1", "pool1", "conv2_x", "conv3_x", "conv4_x", "conv5_x"]
    assert [tuple(found[f"features.{stage}"][:2]) for stage in stages] == [
        (64, 112),
        (64, 56),
        (256, 56),
        (512, 28),
        (1024, 14),
        (2048, 7),
    ]


@pytest.mark.parametrize("depth", [34, 50])
def test_a_plain_network_has_the_same_layers_without_shortcuts(depth):
    residual, plain = (on_meta(resnet, depth=depth, shortcuts=shortcuts) for shortcuts in (True, False))
    projections = [block.shortcut for block in layers(residual, Residual) if layers(block.shortcut, nn.Conv2d)]
    assert len(projections) == (3 if depth == 34 else 4)
    assert count(residual) == count(plain) + sum(map(count, projections))
    assert not layers(plain, Residual)
    assert shapes(plain, (3, 64, 64))["features.conv5_x"] == shapes(residual, (3, 64, 64))["features.conv5_x"]


def test_plain_34_needs_18_percent_of_the_operations_of_vgg_19():
    plain = macs(on_meta(resnet, depth=34, shortcuts=False), (3, 224, 224))
    assert plain == 3_644_493_824
    assert 0.18 < plain / macs(on_meta(vgg, config="E"), (3, 224, 224)) < 0.19


@pytest.mark.parametrize("shortcuts", [True, False])
def test_the_identity_carries_the_gradient_where_f_is_zero(shortcuts):  # NB7
    model = resnet(18, shortcuts=shortcuts, **GREY)
    for block in model.features.conv4_x:
        nn.init.zeros_(layers(block, nn.BatchNorm2d)[1].weight)  # F(x) = 0 and so is F's gradient
    model(torch.randn(4, 1, 64, 64)).logsumexp(1).sum().backward()
    arrived = model.features.conv1.weight.grad.abs().sum().item()
    assert (arrived > 0) == shortcuts
