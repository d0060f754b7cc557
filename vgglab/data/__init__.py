"""Fashion-MNIST, the drawn garments, folders of photographs, and batches of any of them."""

from vgglab.data.fashion_mnist import drawn_garments, load
from vgglab.data.images import AUGMENTATIONS, MEAN, Images, Splits, batches, canvas, normalize, resize

__all__ = [
    "AUGMENTATIONS", "MEAN", "Images", "Splits", "batches", "canvas", "drawn_garments", "load", "normalize", "resize",
]  # fmt: skip
