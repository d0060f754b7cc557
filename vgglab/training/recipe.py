"""Recipes: everything that decides how a network is trained, under one name."""

from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any

from vgglab import _checks as checks
from vgglab._checks import Count, NonNegative, Positive, Share, check_fields
from vgglab.data import AUGMENTATIONS, imagefolder
from vgglab.models import initialize, vgg
from vgglab.models.parts import Initialization
from vgglab.models.vgg import VGG, Config

SCHEDULES = {
    "constant": lambda t: 1.0,
    "divide-by-10": lambda t: 0.1 ** int(4 * t),
    "one-cycle": lambda t: min(t / 0.2, (1 - t) / 0.8),
}
Schedule = Annotated[str, partial(checks.choice, accepted=SCHEDULES)]
Augmentation = Annotated[str, partial(checks.choice, accepted=(*AUGMENTATIONS, *imagefolder.AUGMENTATIONS))]


def _setting(default: Any, help: str) -> Any:
    """A field of Recipe; the flag of the command line that sets it has the same help and accepts the same."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run: the network, the size of its images (pixels), and how it is trained.

    `python -m vgglab train --help` says what each field is.
    """

    config: Config = _setting("A", "column of the paper's Table 1")
    width: Positive = _setting(1.0, "factor on all channels and FC units")
    size: Count = _setting(224, "side of the images in pixels, at least 32")
    batch_norm: bool = _setting(False, "batch normalization after every convolution")
    dropout: Share = _setting(0.5, "probability that a unit of the FC layers is left out")
    initialization: Initialization = _setting("xavier", "how the first weights are drawn")
    epochs: Count = _setting(10, "times that all training images are shown")
    batch_size: Count = _setting(128, "images in one step, those of all processes together")
    lr: Positive = _setting(0.01, "learning rate")
    momentum: NonNegative = _setting(0.9, "share of the last step that is kept in the next one")
    weight_decay: NonNegative = _setting(5e-4, "L2 penalty multiplier")
    label_smoothing: Share = _setting(0.0, "share of the target that is spread over all classes")
    schedule: Schedule = _setting("constant", "factor on the learning rate as training goes on")
    augment: Augmentation | None = _setting(
        None,
        "how training images are changed; those with crop are for photographs, for which the command line makes "
        "crop+flip+rgb, as in the paper, of what a recipe names",
    )
    flip_test: bool = _setting(False, "average the answers to each test image and its mirror image")

    def __post_init__(self) -> None:
        check_fields(self)

    def model(self, in_channels: int = 1, num_classes: int = 10, seed: int | None = 0) -> VGG:
        """Return the recipe's VGG, its weights drawn with seed."""
        model = vgg(self.config, in_channels, num_classes, self.size, self.width, self.dropout, self.batch_norm)
        return initialize(model, self.initialization, seed)


RECIPES = {
    # Section 3.1: 370,000 iterations of 256 over 1.3 million images are 74 epochs. Mirrored tests: section 3.2.
    "paper": Recipe(
        epochs=74, batch_size=256, schedule="divide-by-10", augment="flip", initialization="std-0.01", flip_test=True
    ),
    # Dive into Deep Learning, section 8.2: a quarter of the channels (there with 4096 FC units), plain SGD.
    "d2l": Recipe(width=0.25, lr=0.05, momentum=0.0, weight_decay=0.0),
    "cpu": Recipe(
        width=0.25, size=32, batch_norm=True, dropout=0.0, initialization="kaiming", epochs=7, lr=0.2,
        label_smoothing=0.1, schedule="one-cycle", augment="flip", flip_test=True,
    ),
    "gpu": Recipe(
        width=1.0, size=32, batch_norm=True, initialization="kaiming", epochs=20, batch_size=512, lr=0.2,
        label_smoothing=0.1, schedule="one-cycle", augment="shift+flip", flip_test=True,
    ),
}  # fmt: skip


def find_recipe(recipe: Recipe | str | None = None, device: object = "cpu") -> Recipe:
    """Return a Recipe given as such or by its name in RECIPES; None is "gpu" on a GPU and "cpu" elsewhere."""
    if recipe is None:
        recipe = "gpu" if str(device).startswith("cuda") else "cpu"
    return recipe if isinstance(recipe, Recipe) else RECIPES[checks.choice("recipe", recipe, RECIPES)]
