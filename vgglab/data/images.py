"""Images with their labels, and batches of them: the pixels stay uint8 until they are used."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vgglab import _checks as checks
from vgglab import machine
from vgglab._checks import Count, Seed, check_fields, checked

CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
LARGEST_PADDED = 32
# Pixels / 255 over the 60,000 training images of Fashion-MNIST; the drawn garments are normalized alike.
MEAN, STD = 0.2860, 0.3530

Pixels = Annotated[Tensor, partial(checks.tensor, floating=False, empty=True)]
Scales = Annotated[Any, partial(checks.pair, at_least=1, rising=True)]  # one side in pixels, or (smallest, largest)
Batch = tuple[Tensor, Tensor]  # x and its labels


@dataclass(frozen=True, eq=False)
class Images:
    """Images with their labels: pixels uint8 (N, C, H, W), labels int64 (N,), the names of the classes."""

    pixels: Tensor
    labels: Tensor
    classes: tuple[str, ...] = CLASSES

    def __post_init__(self) -> None:
        pixels = checks.tensor("pixels", self.pixels, floating=False, empty=True)
        labels = checks.tensor("labels", self.labels, "N", floating=False, empty=True)
        if (pixels.dtype, labels.dtype) != (torch.uint8, torch.int64):
            raise TypeError(f"pixels must be uint8 and labels int64, not {pixels.dtype} and {labels.dtype}")
        count = len(checks.sequence("classes", self.classes))
        if len(labels) != len(pixels) or not ((labels >= 0) & (labels < count)).all():
            raise ValueError(
                f"labels must be {len(pixels)} numbers from 0 to {count - 1}, as there are pixels and classes"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Any) -> "Images":
        """The images at a slice, a list or a tensor of positions, as Images again."""
        return replace(self, pixels=self.pixels[index], labels=self.labels[index])

    def to(self, device: torch.device) -> "Images":
        """The same images on a device."""
        return replace(self, pixels=self.pixels.to(device), labels=self.labels.to(device))

    def checksum(self) -> str:
        """The MD5 of the pixels."""
        return hashlib.md5(self.pixels.cpu().numpy().data, usedforsecurity=False).hexdigest()

    def stream(
        self, batch_size: int, size: int | None = None, shuffle: bool = False, seed: int | None = None,
        augment: str | None = None, start: int = 0, share: tuple[int, int] = (0, 1),
    ) -> Iterator[Batch]:  # fmt: skip
        """What batches() yields, without the first start batches, and of each the images [rank::world_size] (share)."""
        if size is not None:
            checks.integer("size", size, max(self.pixels.shape[-2:]))
        if augment is not None:
            checks.choice("augment", augment, AUGMENTATIONS)
        (rank, world_size), device = share, self.pixels.device
        generator = None if seed is None else torch.Generator(device).manual_seed(seed)
        order = torch.arange(len(self), device=device)
        if shuffle:
            order = torch.randperm(len(self), generator=generator, device=device)
        steps = order.split(min(batch_size, len(self)))

        def batch(step: int) -> Batch:
            pixels, labels = self.pixels[steps[step]], self.labels[steps[step]]
            if augment is not None:
                if generator is not None and seed is not None:  # each step's own, so that a run can start at it
                    generator.manual_seed(derived_seed(seed, step))
                pixels = AUGMENTATIONS[augment](pixels, generator)
            return _prepared(pixels[rank::world_size], size), labels[rank::world_size]

        return map(batch, range(start, len(steps)))


def image_set(name: str, value: Any) -> Any:
    """Return value if it is Images, or the Photographs of a folder, at least one; raise TypeError otherwise."""
    if not hasattr(value, "stream") or not len(value):
        raise TypeError(f"{name} must be vgglab.data.Images, at least one, not {checks.shown(value)}")
    return value


ImageSet = Annotated[Any, image_set]  # Images, or the Photographs of a folder


@dataclass(frozen=True, eq=False)
class Splits:
    """Training and test images under one name."""

    name: str
    train: ImageSet
    test: ImageSet

    def __post_init__(self) -> None:
        check_fields(self)

    @checked
    def hold_out(self, count: Count, seed: Seed = 0) -> "Splits":
        """Return Splits whose test images are count of the training images, drawn at random, for validation.

        The real test images are not in it, so nothing tuned on it has seen them.
        """
        if count >= len(self.train):
            raise ValueError(f"count must be below the {len(self.train)} training images, not {count}")
        order = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(seed), device="cpu")
        return Splits(self.name, self.train[order[count:]], self.train[order[:count]])


@checked
def batches(
    images: ImageSet,
    batch_size: Count,
    size: Count | None = None,
    shuffle: bool = False,
    device: str | torch.device | None = None,
    seed: Seed | None = None,
    augment: str | None = None,
) -> Iterator[Batch]:
    """Yield (x, labels): x float (B, C, size, size), normalized, labels int64 (B,); the last batch may be smaller.

    A size up to 32 pads with black, a larger one resizes bilinearly, None keeps the images as they are. augment is
    a name of AUGMENTATIONS. All of it happens on device, a whole batch at a time; seed None draws from torch's
    global generator. Raises ValueError or TypeError for what is out of range.
    """
    if device is not None:
        images = images.to(machine.find_device(device))
    return images.stream(batch_size, size, shuffle, seed, augment)


def _prepared(pixels: Tensor, size: int | None) -> Tensor:
    """Pixels resized and normalized; where they grow, normalized first, which is the same for fewer numbers."""
    if size is None or size <= LARGEST_PADDED:
        return normalize(resize(pixels, size))
    return resize(normalize(pixels), size)


@checked
def canvas(images: Annotated[Images, image_set], size: Count, scales: Scales, seed: Seed | None = 0) -> Images:
    """Return the images rescaled at random and placed at random on black pictures of size x size (pixels).

    The side of each is drawn from scales, (smallest, largest) in pixels. One larger than the picture is cut to it at
    a random place, as the paper cuts its crops from rescaled images (section 3.1). Deterministic for a seed.
    """
    smallest, largest = scales
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    pixels = images.pixels.new_empty(*images.pixels.shape[:2], size, size)
    for picture, image in zip(pixels, images.pixels, strict=True):
        side = int(torch.randint(smallest, largest + 1, (), generator=generator, device="cpu"))
        scaled = F.interpolate(image[None].float(), (side, side), mode="bilinear", antialias=True)[0].round().byte()
        room = size - side  # negative where the picture is smaller: padding by it cuts
        offsets = torch.randint(min(0, room), max(0, room) + 1, (2,), generator=generator, device="cpu")
        top, left = offsets.tolist()
        picture.copy_(F.pad(scaled, (left, room - left, top, room - top)))
    return replace(images, pixels=pixels)


@checked
def resize(pixels: Pixels, size: Count | None) -> Tensor:
    """Return float (N, C, size, size) in 0-255: padded with black up to 32, bilinear above; None keeps the size."""
    height, width = pixels.shape[-2:]
    if size is None or (height, width) == (size, size):
        return pixels.float()
    checks.integer("size", size, max(height, width))
    if size <= LARGEST_PADDED:
        top, left = (size - height) // 2, (size - width) // 2
        return F.pad(pixels, (left, size - width - left, top, size - height - top)).float()
    # What each single pixel becomes, (side, size): interpolation is a product with it along each axis.
    rows, columns = (
        F.interpolate(torch.eye(side, device=pixels.device)[None], size, mode="linear", align_corners=False)[0]
        for side in (height, width)
    )
    return rows.T @ (pixels.float() @ columns)


@checked
def normalize(pixels: Annotated[Tensor, partial(checks.tensor, dims=None, floating=False)]) -> Tensor:
    """Return pixels (0-255) with Fashion-MNIST's mean taken off, divided by its standard deviation."""
    return (pixels.float() / 255 - MEAN) / STD


def random_flip(pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Mirror each image left to right with probability 1/2."""
    chosen = torch.rand(len(pixels), 1, 1, 1, generator=generator, device=pixels.device) < 0.5
    return torch.where(chosen, pixels.flip(-1), pixels)


def random_shift(pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Move each image by up to two pixels in both directions, black moving in."""
    count, _, height, width = pixels.shape
    offsets = torch.randint(5, (2, count, 1), generator=generator, device=pixels.device)
    rows = offsets[0] + torch.arange(height, device=pixels.device)
    columns = offsets[1] + torch.arange(width, device=pixels.device)
    image = torch.arange(count, device=pixels.device)[:, None, None]
    return F.pad(pixels, (2, 2, 2, 2))[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


AUGMENTATIONS: dict[str, Callable[..., Tensor]] = {
    "flip": random_flip,
    "shift": random_shift,
    "shift+flip": lambda pixels, generator=None: random_flip(random_shift(pixels, generator), generator),
}


def derived_seed(seed: int, number: int) -> int:
    """Return the seed of the number-th part of what seed decides, below the 2**63 that generators accept."""
    return (seed * 1_000_003 + number) % 2**63
