"""What the experiments compare: networks that no configuration has, photographs with large and small objects."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from vgglab import cost, inference, machine
from vgglab.data import Images, Splits, canvas, normalize
from vgglab.models import init_from, initialize
from vgglab.models.parts import ConvNet
from vgglab.models.vgg import VGG
from vgglab.training import History, Recipe, fit

# The results of a run by what is measured: the accuracy that fit reports, or others in its place.
MEASURES = {
    "accuracy": ("accuracy",),
    "scales": ("one scale", "several scales"),
    "methods": ("dense", "multi-crop", "both"),
}
AT_ONCE = 100  # photographs


@dataclass(frozen=True)
class Photographs:
    """Square photographs with one garment each, and the scales at which they are trained on and tested; all in pixels.

    A photograph measures side, the garment in it a side drawn from objects, (smallest, largest). Training rescales
    the photograph to a side drawn from scales and cuts the network's size out of it at a random place, cuts times;
    testing rescales it to the middle one of test_scales, or to each of them. Source: sections 3.1 and 3.2.
    """

    side: int
    objects: tuple[int, int]
    scales: tuple[int, int]
    test_scales: tuple[int, int, int]
    cuts: int = 2

    def take(self, images: Images, seed: int) -> Images:
        """Return Images of photographs, pixels (N, 1, side, side)."""
        return canvas(images, self.side, self.objects, seed)

    def cut(self, photographs: Images, size: int, seed: int) -> Images:
        """Return Images of what training sees of photographs, pixels (cuts * N, 1, size, size)."""
        parts = [canvas(photographs, size, self.scales, seed * self.cuts + i) for i in range(self.cuts)]
        return Images(torch.cat([part.pixels for part in parts]), torch.cat([part.labels for part in parts]))


@dataclass(frozen=True)
class Network:
    """One of the things compared: how a network is built and trained.

    build is a name of BUILDERS. warm_start takes A's first and last layers from an A that was trained before, with
    Xavier's initialization; the time that took is not counted. photographs are what the network sees instead of the
    plain images. equal is a name of COSTS or "seconds": the recipe is then changed so that this cost is
    that of A.
    """

    recipe: Recipe
    build: str = "plain"
    warm_start: bool = False
    photographs: Photographs | None = None
    equal: str | None = None

    def configuration(self) -> dict[str, Any]:
        """Return all that decides what is trained, as a dict of plain values."""
        return {name: value for name, value in asdict(self).items() if name != "equal"}

    def model(self, seed: int = 0) -> nn.Module:
        """Return the network with weights drawn with seed."""
        return initialize(BUILDERS[self.build](self.recipe, seed), self.recipe.initialization, seed)

    def ledger(self) -> cost.Ledger:
        """Return the cost.Ledger of the network for one image of its size."""
        with torch.device("meta"):
            model = self.model()
        return cost.ledger(model, (1, self.recipe.size, self.recipe.size))

    def warm_model(self, splits: Splits, seed: int, device: torch.device) -> nn.Module:
        """Return the network on device as its training starts: warm from an A trained on splits, if said to be."""
        model = self.model(seed).to(device)
        if self.warm_start:
            trained = _trained_a(replace(self.recipe, config="A", initialization="xavier"), splits, seed, device)
            init_from(model, trained)  # type: ignore[arg-type]  # it checks what it is given
        return model

    def seen(self, splits: Splits, seed: int) -> Splits:
        """Return the Splits that training sees: splits, or what is cut out of photographs of it."""
        scene = self.photographs
        if scene is None:
            return splits
        train, test = (
            scene.cut(scene.take(images, number), self.recipe.size, number)
            for images, number in ((splits.train, seed), (splits.test, 0))
        )
        return Splits(splits.name, train, test)


@lru_cache(maxsize=1)
def _trained_a(recipe: Recipe, splits: Splits, seed: int, device: torch.device) -> VGG:
    model = recipe.model(seed=seed)
    fit(model, splits, recipe=recipe, seed=seed, device=device, progress=False)
    return model


def merge_convolutions(model: ConvNet, count: int) -> ConvNet:
    """Return model, made by vgg(), with every block of count 3x3 convolutions replaced by one larger one.

    Its kernel sees what the count did: 5x5 for two, 7x7 for three. Other blocks stay as they are. Source: section 4.1.
    """
    layers, block = [], []
    for layer in model.features:
        block.append(layer)
        if isinstance(layer, nn.MaxPool2d):
            layers += _merged(block, count)
            block = []
    model.features = nn.Sequential(*layers)
    return model


def _merged(block: list[nn.Module], count: int) -> list[nn.Module]:
    places = [place for place, layer in enumerate(block) if isinstance(layer, nn.Conv2d)]
    if len(places) != count:
        return block
    first, last = block[places[0]], block[places[-1]]
    assert isinstance(first, nn.Conv2d) and isinstance(last, nn.Conv2d)
    return [nn.Conv2d(first.in_channels, last.out_channels, 2 * count + 1, padding=count), *block[places[-1] + 1 :]]


BUILDERS: dict[str, Callable[[Recipe, int], nn.Module]] = {
    "plain": lambda recipe, seed: recipe.model(seed=seed),
    "5x5 for pairs": lambda recipe, seed: merge_convolutions(recipe.model(seed=seed), 2),
    "7x7 for triples": lambda recipe, seed: merge_convolutions(recipe.model(seed=seed), 3),
}


def training_seconds(network: Network, device: torch.device) -> float:
    """Return the seconds that one training step takes, the least of four times ten, on noise."""
    recipe = replace(network.recipe, epochs=5, lr=1e-4)
    pixels = torch.randint(256, (10 * recipe.batch_size, 1, 28, 28), dtype=torch.uint8)
    images = Images(pixels, torch.arange(len(pixels)) % 10)
    history = fit(network.model(), Splits("noise", images, images[:1]), recipe=recipe, device=device, progress=False)
    times = [row["seconds"] for row in history.epochs]
    return min(after - before for before, after in zip(times, times[1:], strict=False)) / 10


COSTS: dict[str, Callable[[cost.Ledger], int]] = {
    "parameters": lambda ledger: ledger.parameters,
    "MACs": lambda ledger: ledger.macs,
}


def equal_cost(network: Network, device: torch.device) -> dict[str, float]:
    """Return as {"width": ...} or {"epochs": ...} of its recipe how network costs what A costs under the same recipe.

    Parameters and multiply-adds follow the width; seconds do not, as a narrower network is not always faster, so that
    its training is shortened instead, to whole epochs.
    """
    a = replace(network, recipe=replace(network.recipe, config="A"))
    if network.equal == "seconds":
        share = training_seconds(a, device) / training_seconds(network, device)
        return {"epochs": max(1, round(share * network.recipe.epochs))}
    return {"width": _equal_width(network, COSTS[network.equal or ""], COSTS[network.equal or ""](a.ledger()))}


def _equal_width(network: Network, spend: Callable[[cost.Ledger], int], target: int) -> float:
    """The largest width, found by bisection, at which network does not cost more than target."""
    low, high = network.recipe.width / 4, network.recipe.width
    for _ in range(10):
        middle = (low + high) / 2
        if spend(replace(network, recipe=replace(network.recipe, width=middle)).ledger()) < target:
            low = middle
        else:
            high = middle
    return round(low, 4)


def equal_costs(networks: dict[str, Network], device: torch.device) -> dict[str, Any]:
    """Return {"chosen": ...}: what is changed in the recipe of every network that is to cost the same as A."""
    return {"chosen": {name: equal_cost(network, device) for name, network in networks.items() if network.equal}}


def step_costs(networks: dict[str, Network], device: torch.device) -> dict[str, Any]:
    """Return for each network the milliseconds of a training step and the bytes kept for the backward pass.

    The networks take turns three times and the shortest time counts; bytes are for one image, in float32.
    """
    rounds = [{name: training_seconds(network, device) for name, network in networks.items()} for _ in range(3)]
    return {
        name: {
            "milliseconds": round(1000 * min(times[name] for times in rounds), 3),
            "batch_size": network.recipe.batch_size,
            "bytes_kept_per_image": bytes_kept(network.model(), network.recipe.size),
        }
        for name, network in networks.items()
    }


def bytes_kept(model: nn.Module, size: int, batch_size: int = 8) -> int:
    """Return the bytes per image that PyTorch keeps for the backward pass, weights left out, in float32."""
    weights = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    kept = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage  # held, so that no other takes its address
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), torch.random.fork_rng([]):
        model.train()(torch.rand(batch_size, 1, size, size)).sum()
    return sum(storage.nbytes() for storage in kept.values()) // batch_size


FACTS: dict[str, Callable[[dict[str, Network], torch.device], dict[str, Any]]] = {
    "equal costs": equal_costs,
    "step costs": step_costs,
}


@torch.inference_mode()
def measure(kind: str, network: Network, model: nn.Module, history: History, test: Images) -> dict[str, float]:
    """Return {name: accuracy} for the names of MEASURES[kind], on test images that training did not see.

    "scales" and "methods" test whole photographs, rescaled to the network's test scales, densely or in other ways.
    """
    scene, device = network.photographs, next(model.parameters()).device
    if scene is None or kind == "accuracy":
        return {"accuracy": history.accuracy}
    photographs = scene.take(test, 0).to(device)
    correct = dict.fromkeys(MEASURES[kind], 0)
    with machine.autocast(device, history.environment["precision"]):
        for start in range(0, len(test), AT_ONCE):
            part = photographs[start : start + AT_ONCE]
            for name, scores in _scores(kind, model, normalize(part.pixels), scene.test_scales).items():
                correct[name] += int((scores.argmax(1) == part.labels).sum())
    return {name: count / len(test) for name, count in correct.items()}


def _scores(kind: str, model: nn.Module, x: Tensor, scales: tuple[int, int, int]) -> dict[str, Tensor]:
    """Class probabilities (N, classes) by each way of testing."""
    several = inference.multi_scale_scores(model, x, scales)
    if kind == "scales":
        return {"one scale": inference.multi_scale_scores(model, x, scales[1:2]), "several scales": several}
    crops = inference.multi_scale_scores(model, x, scales, "multi-crop")
    return {"dense": several, "multi-crop": crops, "both": (several + crops) / 2}


def images_tested(kind: str, network: Network) -> float:
    """Return how many images of the network's own size testing one image is worth, for an estimate of the time."""
    if network.photographs is None or kind == "accuracy":
        return 0
    dense = [2 * (scale / network.recipe.size) ** 2 for scale in network.photographs.test_scales]
    return dense[1] + sum(dense) if kind == "scales" else sum(dense) + 50 * len(dense)
