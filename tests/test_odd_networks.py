"""Networks of other people: fit trains the very one that it is given, or says what of it does not suit."""

import pytest
import torch
from networks import Function
from torch import nn
from torch.nn.utils import parametrizations, prune, weight_norm

from vgglab import data
from vgglab.training import Recipe, evaluate, fit
from vgglab.training.processes import Processes

RECIPE = Recipe(size=28, epochs=2, batch_size=50, lr=0.05, augment="flip", flip_test=True)
OPTIONS = {"recipe": RECIPE, "precision": "float32", "device": "cpu", "progress": False}


def plain(*, first=lambda layer: layer, last=lambda layer: layer):
    """A chain whose first and last layer may be wrapped."""
    conv = first(nn.Conv2d(1, 8, 3, padding=1))
    return nn.Sequential(conv, nn.ReLU(), nn.MaxPool2d(4), nn.Flatten(), last(nn.Linear(392, 10)))


def other(change):
    """The plain chain, changed in place."""
    model = plain()
    change(model)
    return model


def noisy(self, x):
    return self.body(x + torch.randn_like(x)) if self.training else self.body(x) * 2


def keeps_maps(self, x):
    kept = []
    for layer in self.body:
        x = layer(x)
        kept.append(x.mean((2, 3)))
    return self.head(torch.cat(kept, 1))


def reassigns_a_buffer(self, x):
    if self.training:
        self.norm.running_mean = 0.9 * self.norm.running_mean + 0.1 * x.mean((0, 2, 3)).detach()
    return self.body(x - self.norm.running_mean[:, None, None])


def makes_an_attribute(self, x):
    if not hasattr(self, "ramp"):
        self.ramp = torch.linspace(-1, 1, 28)
        self.head = nn.Linear(10, 10)
    return self.head(self.body(x * self.ramp))


def views(self, x):
    x = self.body[:3](x)
    return self.body[4](x.view(len(x), -1))


def tied(self, x):
    return self.body(x) @ self.head.weight + self.head(self.body(x))


class HalfFrozen(nn.Sequential):
    """Keeps its first convolution and its batch normalization as they are."""

    def __init__(self):
        super().__init__(nn.Conv2d(1, 8, 3, padding=1).requires_grad_(False), nn.BatchNorm2d(8), *plain()[1:])

    def train(self, mode=True):
        super().train(mode)
        self[1].eval()
        return self


ODD = {
    "scripted": lambda: torch.jit.script(plain()),
    "traced": lambda: torch.jit.trace(plain(), torch.zeros(2, 1, 28, 28)),
    "weight norm": lambda: plain(first=parametrizations.weight_norm),
    "weight norm by hooks": lambda: plain(first=weight_norm),
    "spectral norm": lambda: plain(last=parametrizations.spectral_norm),
    "spectral norm by hooks": lambda: plain(last=nn.utils.spectral_norm),
    "pruned": lambda: plain(first=lambda layer: prune.l1_unstructured(layer, "weight", 0.5)),
    "a forward of its own": lambda: other(
        lambda net: setattr(net, "forward", lambda x: 3 * nn.Sequential.forward(net, x))
    ),
    "a hook": lambda: other(lambda net: net[2].register_forward_hook(lambda layer, inputs, output: output**2)),
    "a hook before": lambda: other(lambda net: net.register_forward_pre_hook(lambda net, inputs: inputs[0].flip(2))),
    "tied weights": lambda: Function(tied, body=plain(), head=nn.Linear(10, 10)),
    "a buffer reassigned": lambda: Function(reassigns_a_buffer, body=plain(), norm=nn.BatchNorm2d(1, affine=False)),
    "half frozen": HalfFrozen,
    "keeps maps": lambda: Function(keeps_maps, body=plain()[:3], head=nn.Linear(24, 10)),
    "makes an attribute": lambda: Function(makes_an_attribute, body=plain()),
    "lazy layers": lambda: nn.Sequential(nn.LazyConv2d(8, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(10)),
    "views": lambda: Function(views, body=plain()),
    "another in training": lambda: Function(
        noisy, body=plain(first=lambda layer: nn.Sequential(layer, nn.Dropout(0.5)))
    ),
}


def twins(build):
    """The same network twice."""
    for _ in range(2):
        torch.manual_seed(0)
        yield build()


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("build", ODD.values(), ids=ODD)
def test_an_odd_network_is_trained_and_tested_as_it_is(garments, build):
    model, untrained = twins(build)
    evaluate(untrained, garments.test[:2], recipe=RECIPE)  # in which it makes what it makes when it runs first
    row = fit(model, data.Splits("few", garments.train[:151], garments.test), **OPTIONS).epochs[-1]
    tested = evaluate(model, garments.test, recipe=RECIPE, precision="float32")
    assert (tested.loss, tested.accuracy) == (row["test_loss"], row["test_accuracy"])
    for parameter, before in zip(model.parameters(), untrained.parameters(), strict=True):
        assert torch.equal(parameter, before) != parameter.requires_grad


def test_weights_that_are_a_part_of_others_are_trained_like_any(garments):
    model, whole = twins(plain)
    model[4].weight = nn.Parameter(torch.cat([whole[4].weight.detach()] * 2, 1)[:, :392])
    for network in (model, whole):
        fit(network, data.Splits("few", garments.train[:50], garments.test[:50]), **OPTIONS, epochs=1)
    torch.testing.assert_close(model[4].weight, whole[4].weight)
    with pytest.raises(ValueError, match="model must have a parameter that can be trained"):
        fit(plain().requires_grad_(False), data.Splits("few", garments.train[:50], garments.test[:50]), **OPTIONS)


class Words(nn.Linear):
    """Raises an error while it trains, or while it is tested."""

    def __init__(self, error, training):
        super().__init__(784, 10)
        self.error, self.when = error, training

    def forward(self, x):
        if self.training == self.when:
            raise self.error
        return super().forward(x.flatten(1))


@pytest.mark.parametrize(
    "error", [AssertionError("what the model says"), KeyError("what the model says"), ZeroDivisionError()]
)
def test_an_error_of_a_network_comes_with_its_words_and_the_name_of_the_argument(garments, error):
    words = (
        rf"model does not run on images of shape \(\d+, 1, 28, 28\): {type(error).__name__}: .*{'|'.join(error.args)}"
    )
    for training in (True, False):
        with pytest.raises(ValueError, match=words):
            fit(Words(error, training), garments, **OPTIONS)
    with pytest.raises(ValueError, match=words):
        evaluate(Words(error, False), garments.test)


def narrow(*norms):
    """Maps of one pixel, with or without a normalization of them."""
    return nn.Sequential(nn.Conv2d(1, 8, 28), *norms, nn.Flatten(), nn.Linear(8, 10))


def normalizes(self, x):
    return nn.functional.batch_norm(self.body(x), torch.zeros(10), torch.ones(10), training=self.training)


class Frozen(nn.BatchNorm2d):
    def train(self, mode=True):
        return super().train(False)


NEED_TWO = [
    narrow(nn.BatchNorm2d(8)), torch.jit.script(narrow(nn.BatchNorm2d(8))), Function(normalizes, body=plain()),
    narrow(nn.Flatten(), nn.BatchNorm1d(8)),
]  # fmt: skip
TAKE_ONE = [plain(), narrow(Frozen(8)), nn.Sequential(nn.BatchNorm2d(1), *plain())]


class Started(BaseException):
    pass


@pytest.mark.parametrize(
    ("images", "together", "alone"),
    [
        (101, 1, True),
        (102, 1, False),
        (100, 1, False),
        (102, 2, True),
        (103, 2, True),
        (104, 2, False),
        (100, 50, True),
    ],
)
def test_a_step_of_one_image_is_refused_before_training_where_the_network_needs_two(
    garments, monkeypatch, images, together, alone
):
    def in_processes(self, device):
        self.rank, self.world_size, self.share = 0, together, (0, together)
        self.device, self.is_main = torch.device(device), True

    monkeypatch.setattr(Processes, "__init__", in_processes)
    monkeypatch.setattr(Processes, "wrap", lambda self, network: (_ for _ in ()).throw(Started))
    splits = data.Splits("few", garments.train[:images], garments.test)
    for model in [*NEED_TWO, *TAKE_ONE]:
        before = {name: value.clone() for name, value in model.state_dict().items()}
        refusal = pytest.raises(
            ValueError, match=f"splits.train .*single image: {images} .*batches of 50.*another batch_size"
        )
        with refusal if alone and model in NEED_TWO else pytest.raises(Started):
            fit(model, splits, **OPTIONS)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
