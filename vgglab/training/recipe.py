"""Recipes: everything that decides how a network is trained, under one name."""

from dataclasses import dataclass, field

from vgglab import _checks as checks
from vgglab import data
from vgglab.data import imagefolder
from vgglab.models import INITIALIZATIONS, VGG_CONFIGS, initialize, vgg
from vgglab.models.parts import LARGEST_IMAGE
from vgglab.models.vgg import LARGEST_WIDTH

SCHEDULES = {
    "constant": lambda t: 1.0,
    "divide-by-10": lambda t: 0.1 ** int(4 * t),
    "one-cycle": lambda t: min(t / 0.2, (1 - t) / 0.8),
}


def _setting(default, help, choices=None):
    """A field of Recipe; the flag of the command line that sets it has the same help and choices."""
    return field(default=default, metadata={"help": help, "choices": choices})


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run: the network, the size of its images (pixels), and how it is trained.

    `python -m vgglab train --help` says what each field is.
    """

    config: str = _setting("A", "column of the paper's Table 1", VGG_CONFIGS)
    width: float = _setting(1.0, "factor on all channels and FC units")
    size: int = _setting(224, "side of the images in pixels, at least 32")
    batch_norm: bool = _setting(False, "batch normalization after every convolution")
    dropout: float = _setting(0.5, "probability that a unit of the FC layers is left out")
    initialization: str = _setting("xavier", "how the first weights are drawn", INITIALIZATIONS)
    epochs: int = _setting(10, "times that all training images are shown")
    batch_size: int = _setting(128, "images in one step, those of all processes together")
    lr: float = _setting(0.01, "learning rate")
    momentum: float = _setting(0.9, "share of the last step that is kept in the next one")
    weight_decay: float = _setting(5e-4, "L2 penalty multiplier")
    label_smoothing: float = _setting(0.0, "share of the target that is spread over all classes")
    schedule: str = _setting("constant", "factor on the learning rate as training goes on", SCHEDULES)
    augment: str | None = _setting(
        None,
        "how training images are changed; those with crop are for photographs, for which the command line makes "
        "crop+flip+rgb, as in the paper, of what a recipe names",
        (*data.AUGMENTATIONS, *imagefolder.AUGMENTATIONS),
    )
    flip_test: bool = _setting(False, "average the answers to each test image and its mirror image")

    def __post_init__(self):
        checked = {
            "config": checks.choice("config", self.config, VGG_CONFIGS),
            "width": checks.number("width", self.width, above=0, at_most=LARGEST_WIDTH),
            "size": checks.integer("size", self.size, 1, LARGEST_IMAGE),
            "batch_norm": checks.flag("batch_norm", self.batch_norm),
            "dropout": checks.number("dropout", self.dropout, at_least=0, at_most=1),
            "initialization": checks.choice("initialization", self.initialization, INITIALIZATIONS),
            "epochs": checks.integer("epochs", self.epochs, 1),
            "batch_size": checks.integer("batch_size", self.batch_size, 1),
            "lr": checks.number("lr", self.lr, above=0),
            "momentum": checks.number("momentum", self.momentum, at_least=0),
            "weight_decay": checks.number("weight_decay", self.weight_decay, at_least=0),
            "label_smoothing": checks.number("label_smoothing", self.label_smoothing, at_least=0, at_most=1),
            "schedule": checks.choice("schedule", self.schedule, SCHEDULES),
            "flip_test": checks.flag("flip_test", self.flip_test),
        }
        if not isinstance(self.augment, (str, type(None))):
            raise TypeError(f"augment must be the name of an augmentation, or None, not {self.augment!r}")
        for name, value in checked.items():
            object.__setattr__(self, name, value)  # Python's own numbers where NumPy's were given: for JSON

    def model(self, in_channels=1, num_classes=10, seed=0):
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


def find_recipe(recipe=None, device="cpu"):
    """Return a Recipe given as such or by its name in RECIPES; None is "gpu" on a GPU and "cpu" elsewhere."""
    if recipe is None:
        recipe = "gpu" if str(device).startswith("cuda") else "cpu"
    if isinstance(recipe, Recipe):
        return recipe
    return RECIPES[checks.choice("recipe", recipe, RECIPES)]
