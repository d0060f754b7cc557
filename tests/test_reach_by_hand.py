"""What the experiment and the gradient find, against fields found by hand."""

import pytest
import torch
from networks import Function, build
from torch import nn
from torch.nn import functional as F

from vgglab.cost import ledger
from vgglab.receptive_field import Region, effective, of_model, reach, stack
from vgglab.seeing import activations


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


def hidden(seed, compare):
    """A network whose unit sees 3x3 pixels, and 7x7 through a comparison."""
    torch.manual_seed(seed)
    return Function(lambda self, x: self.conv(x) * compare(self.score(x)).to(x.dtype),
                    conv=nn.Conv2d(1, 4, 3, padding=1), score=nn.Conv2d(1, 4, 7, padding=3))  # fmt: skip


COMPARISONS = [lambda x: x > 0, torch.sign, torch.round, lambda x: torch.where(x > 0.3, 1.0, 2.0), torch.nan_to_num,
               lambda x: x.argmax(1, keepdim=True), lambda x: (10 * x).long(), lambda x: x.detach() < -5]  # fmt: skip


@pytest.mark.parametrize("compare", COMPARISONS)
def test_reach_finds_what_a_comparison_hides(compare):
    for seed in range(3):
        assert reach(hidden(seed, compare), (1, 15, 15), "output", (7, 7)) == (4, 4, 10, 10)


def test_reach_of_models_that_refuse_odd_pixels_or_draw_numbers():
    def within(self, x):
        assert x.min() >= 0 and x.max() <= 1, "no pixels"
        return self.conv(x).sigmoid()

    conv = nn.Conv2d(2, 4, 5, padding=2)
    for forward in (within, lambda self, x: F.dropout(self.conv(x), training=True)):
        assert reach(Function(forward, conv=conv), (2, 16, 14), "output", (7, 6)) == (5, 4, 9, 8)


@pytest.mark.parametrize("forward, region", [
    (lambda self, x: self.conv(x).permute(0, 2, 3, 1), (7, 3, 9, 5)),
    (lambda self, x: self.conv(x).permute(0, 3, 1, 2), None),  # columns, channels, rows
    (lambda self, x: torch.roll(self.conv(x).permute(0, 2, 3, 1), 1, 1), (6, 3, 8, 5)),
    (lambda self, x: self.conv(x).flatten(2).transpose(1, 2), None),  # tokens are one unit
    (lambda self, x: self.conv(x).permute(0, 2, 3, 1) * float(x.numel()), (7, 3, 9, 5)),
])  # fmt: skip
def test_reach_and_effective_never_read_channels_as_columns(forward, region):
    model, images = Function(forward, conv=nn.Conv2d(3, 16, 3, padding=1)), torch.rand(1, 3, 12, 10)
    if region:
        assert reach(model, (3, 12, 10), "output", (8, 4)) == region
        seen = effective(model, images, "output", (8, 4)).nonzero()
        assert (*seen.amin(0).tolist(), *seen.amax(0).tolist()) == region
    for look in (
        lambda: reach(model, (3, 12, 10), "output", (8, 15)),
        lambda: effective(model, images, "output", (8, 15)),
    ):
        with pytest.raises(ValueError, match="unit must lie in the"):
            look()


def test_reach_in_a_swin_transformer():
    swin = build("swin_t")
    assert reach(swin, (3, 64, 64), "features.0", (8, 8)) == (32, 32, 35, 35)
    with pytest.raises(ValueError, match="unit must lie in the 16 rows and 16 columns of 'features.0', not"):
        reach(swin, (3, 64, 64), "features.0", (8, 90))


@pytest.mark.parametrize("error", [AssertionError("Wrong size"), KeyError("Wrong size"), AssertionError()])
def test_what_a_model_raises_names_the_argument_and_leaves_no_hook(error):
    def forward(self, x):
        raise error

    model, words = Function(forward, conv=nn.Conv2d(1, 1, 3)), str(error) or "AssertionError"
    calls = {"input_shape": [of_model, ledger, lambda *args: reach(*args, "output", (0, 0))],
             "images": [lambda model, shape: effective(model, torch.rand(1, *shape), "output", (0, 0))],
             "x": [lambda model, shape: activations(model, torch.rand(1, *shape), "conv")]}  # fmt: skip
    for name, looks in calls.items():
        for look in looks:
            with pytest.raises(ValueError, match=rf"{name}.*{words}"):
                look(model, (1, 9, 9))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


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
