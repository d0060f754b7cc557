"""The comparisons on which the VGG paper rests (arXiv:1409.1556), repeated on Fashion-MNIST and recorded."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from vgglab import _checks as checks
from vgglab._checks import checked
from vgglab.course.experiments.networks import Network, Photographs
from vgglab.course.experiments.records import Size
from vgglab.data import Splits
from vgglab.training import Recipe


@dataclass(frozen=True)
class Experiment:
    """A question, the claim of the paper behind it, what is compared, and what to bear in mind beside the answer.

    networks: what is trained, by name. pairs: the rows of the record that are compared. train_images: how many of the
    data set's training images each seed draws. test_images: how many of its test images count. seeds: the number of
    runs of each network. measure: a name of networks.MEASURES; facts: a name of networks.FACTS, what is measured
    beside the runs.
    """

    question: str
    claim: str
    networks: dict[str, Network]
    pairs: tuple[tuple[str, str], ...]
    train_images: int
    test_images: int
    seeds: int
    measure: str = "accuracy"
    facts: str | None = None
    caveat: str = ""

    def drawn(self, splits: Splits, seed: int) -> Splits:
        """Return the Splits of one seed: training images drawn at random, and the first of the test images."""
        order = torch.randperm(len(splits.train), generator=torch.Generator().manual_seed(seed))
        train = splits.train[order[: self.train_images]]
        return Splits(splits.name, train, splits.test[: self.test_images])


@dataclass(frozen=True)
class Scale:
    """How large the experiments are: the recipe, the images and the seeds of each, and those of the special ones."""

    recipe: Recipe
    train_images: int
    test_images: int
    seeds: int
    plain: Recipe  # for initialization: as in the paper, without batch normalization
    plain_images: tuple[int, int]  # for training, for testing
    photo: Recipe  # for scale and evaluation
    photo_images: int
    photo_tests: tuple[int, int]  # for scale, for evaluation


CPU = Scale(
    recipe=Recipe(
        width=1 / 8, size=32, batch_norm=True, dropout=0.2, initialization="kaiming", epochs=6, lr=0.2,
        schedule="one-cycle", augment="flip",
    ),
    train_images=10_000,
    test_images=10_000,
    seeds=5,
    plain=Recipe(
        width=1 / 8, size=32, dropout=0.0, epochs=4, batch_size=32, lr=0.02, schedule="one-cycle", augment="flip"
    ),
    plain_images=(5_000, 2_000),
    photo=Recipe(
        width=1 / 8, size=64, batch_norm=True, dropout=0.2, initialization="kaiming", epochs=2, lr=0.2,
        schedule="one-cycle", augment="flip",
    ),
    photo_images=10_000,
    photo_tests=(2_000, 1_000),
)  # fmt: skip
GPU = Scale(
    recipe=Recipe(
        width=1.0, size=64, batch_norm=True, initialization="kaiming", epochs=10, batch_size=256, lr=0.1,
        schedule="one-cycle", augment="flip",
    ),
    train_images=60_000,
    test_images=10_000,
    seeds=3,
    plain=Recipe(
        width=1.0, size=64, dropout=0.0, epochs=4, batch_size=64, lr=0.01, schedule="one-cycle", augment="flip"
    ),
    plain_images=(20_000, 10_000),
    photo=Recipe(
        width=0.5, size=64, batch_norm=True, initialization="kaiming", epochs=5, batch_size=256, lr=0.1,
        schedule="one-cycle", augment="flip",
    ),
    photo_images=60_000,
    photo_tests=(10_000, 10_000),
)  # fmt: skip

NORMALIZED = "With batch normalization, which the paper does not have, so that every depth trains in a few epochs."


def registry(scale: Scale) -> dict[str, Experiment]:
    """Return the eight experiments at one Scale, by name."""

    def network(
        recipe: Recipe = scale.recipe,
        build: str = "plain",
        warm_start: bool = False,
        photographs: Photographs | None = None,
        equal: str | None = None,
        **changes: Any,
    ) -> Network:
        return Network(replace(recipe, **changes), build, warm_start, photographs, equal)

    def experiment(
        question: str,
        claim: str,
        networks: dict[str, Network],
        pairs: Iterable[tuple[str, str]],
        caveat: str = NORMALIZED,
        **options: Any,
    ) -> Experiment:
        numbers = {"train_images": scale.train_images, "test_images": scale.test_images, "seeds": scale.seeds}
        return Experiment(question, claim, networks, tuple(pairs), caveat=caveat, **numbers | options)

    depths = {config: network(config=config) for config in "ABCDE"}
    photographs = {name: network(scale.photo, photographs=scene) for name, scene in _scenes(scale.photo.size).items()}
    budgets = {
        f"{config}, equal {cost}": network(config=config, equal=cost)
        for cost in ("parameters", "MACs", "seconds")
        for config in "BDE"
    }
    return {
        "depth": experiment(
            "Does a deeper network make fewer errors?",
            "Table 3 at S = 256: top-1 errors of 29.6 (A), 28.7 (B), 28.1 (C), 27.0 (D) and 27.3 % (E)",
            depths,
            [("B", "A"), ("C", "B"), ("D", "C"), ("E", "D"), ("E", "A")],
        ),
        "lrn": experiment(
            "Does local response normalization help, and what does it cost?",
            "Table 3: A 29.6, A-LRN 29.7 % top-1 error, at more memory and time",
            {"A": depths["A"], "A-LRN": network(config="A-LRN")},
            [("A-LRN", "A")],
            facts="step costs",
        ),
        "one-by-one": experiment(
            "Are 1x1 convolutions as good as 3x3 ones in their place?",
            "Table 3 at S = 256: C 28.1, D 27.0 % top-1 error",
            {"C": depths["C"], "D": depths["D"]},
            [("D", "C")],
        ),
        "kernels": experiment(
            "Is a stack of 3x3 convolutions better than one larger kernel with the same receptive field?",
            "Section 4.1: B with one 5x5 for each pair of 3x3 had a top-1 error 7 % higher; section 2.3: 7x7 for three",
            {
                "B": depths["B"],
                "B 5x5": network(config="B", build="5x5 for pairs"),
                "D": depths["D"],
                "D 7x7": network(config="D", build="7x7 for triples"),
            },
            [("B", "B 5x5"), ("D", "D 7x7")],
            caveat=f"{NORMALIZED} Where the maps are smaller than a kernel, its outer weights meet only zeros.",
        ),
        "scale": experiment(
            "Is it better to train on garments at one size or at many, and to test at one size or at several?",
            "Tables 3 and 4, network D: 27.0, 26.8 and 25.6 % top-1 error for S = 256, 384 and [256; 512] at one test "
            "scale, 26.6, 26.5 and 24.8 % at several",
            photographs,
            [
                ("S jittered, one scale", "S small, one scale"),
                ("S jittered, one scale", "S large, one scale"),
                ("S jittered, several scales", "S small, several scales"),
                ("S jittered, several scales", "S large, several scales"),
                *((f"{name}, several scales", f"{name}, one scale") for name in photographs),
            ],
            caveat=f"{NORMALIZED} Network A, on drawn scenes; scales in the paper's proportion to the network's size.",
            measure="scales",
            test_images=scale.photo_tests[0],
            train_images=scale.photo_images,
        ),
        "evaluation": experiment(
            "Are many crops better than one pass over the whole picture, and both together better still?",
            "Table 5, network D: 24.8 (dense), 24.6 (multi-crop) and 24.4 % (both) top-1 error",
            {"S jittered": photographs["S jittered"]},
            [
                ("S jittered, multi-crop", "S jittered, dense"),
                ("S jittered, both", "S jittered, dense"),
                ("S jittered, both", "S jittered, multi-crop"),
            ],
            caveat=f"{NORMALIZED} Network A, on drawn scenes; three test scales, each 50 crops.",
            measure="methods",
            test_images=scale.photo_tests[1],
            train_images=scale.photo_images,
        ),
        "initialization": experiment(
            "From which weights does a network learn, and from which does its loss stay at ln 10 = 2.303?",
            "Section 3.1: deep networks need A's trained layers to start from, or Glorot and Bengio's initialization",
            {
                **{
                    f"{config}, {scheme}": network(scale.plain, config=config, initialization=scheme)
                    for scheme in ("std-0.01", "paper", "xavier", "kaiming")
                    for config in "ABCDE"
                },
                **{
                    f"{config}, warm start": network(
                        scale.plain, config=config, initialization="paper", warm_start=True
                    )
                    for config in "BCDE"
                },
            },
            [
                (f"{config}, {one}", f"{config}, {other}")
                for one, other in (("warm start", "paper"), ("xavier", "std-0.01"), ("kaiming", "xavier"))
                for config in "BCDE"
            ],
            caveat='"paper" is N(0, variance 0.01), from which the warm start draws its other layers too. One standard '
            "deviation is weaker in a narrower network: what learns at width 1/8 need not at width 1, and the reverse.",
            train_images=scale.plain_images[0],
            test_images=scale.plain_images[1],
        ),
        "budget": experiment(
            "Which depth is best when all networks have as many parameters, multiply-adds, or seconds as A?",
            "Table 2: 133 to 144 million parameters, while the multiply-adds grow 2.6-fold from A to E",
            {"A": depths["A"], **budgets},
            [(name, "A") for name in budgets],
            facts="equal costs",
            caveat=f"{NORMALIZED} The width was chosen for parameters and MACs, the number of epochs for seconds, "
            "which are those of a training step on the machine named.",
        ),
    }


def _scenes(size: int) -> dict[str, Photographs]:
    """The three ways to train of Tables 3 and 4, in the paper's proportion to a network of size pixels."""
    small, large, largest, step = (round(side * size / 224) for side in (256, 384, 512, 32))
    scene = partial(Photographs, 2 * size, (size, 2 * size))
    fixed = {
        f"S {name}": scene((side, side), (side - step, side, side + step))
        for name, side in (("small", small), ("large", large))
    }
    return {**fixed, "S jittered": scene((small, largest), (small, large, largest))}


EXPERIMENTS = registry(CPU)
GPU_EXPERIMENTS = registry(GPU)


@checked
def find_experiment(name: str, size: Size = "cpu") -> Experiment:
    """Return the Experiment of a name, size "cpu" or "gpu"; raises ValueError for others."""
    experiments = EXPERIMENTS if size == "cpu" else GPU_EXPERIMENTS
    return experiments[checks.choice("name", name, experiments)]
