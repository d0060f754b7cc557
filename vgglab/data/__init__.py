"""Fashion-MNIST, the drawn garments, folders of photographs, and batches of any of them."""

from vgglab.data.fashion_mnist import drawn_garments, load
from vgglab.data.images import (
    AUGMENTATIONS,
    CLASSES,
    MEAN,
    Images,
    Splits,
    batches,
    canvas,
    derived_seed,
    normalize,
    random_flip,
    random_shift,
    resize,
)

__all__ = [
    "AUGMENTATIONS",
    "CLASSES",
    "MEAN",
    "Images",
    "Splits",
    "batches",
    "canvas",
    "derived_seed",
    "drawn_garments",
    "load",
    "normalize",
    "random_flip",
    "random_shift",
    "resize",
]
