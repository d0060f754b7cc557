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
from vgglab._checks import Count, Index, Seed, Whole, check_fields, checked

CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
LARGEST_PADDED = 32
# Pixels / 255 over the 60,000 training images of Fashion-MNIST; the drawn garments are normalized alike.
MEAN, STD = 0.2860, 0.3530

Pixels = Annotated[Tensor, partial(checks.tensor, floating=False, empty=True)]
Batch = tuple[Tensor, Tensor]  # x and its labels


def smallest_and_largest(name: str, value: Any) -> tuple[int, int]:
    """Return (smallest, largest) side in pixels from one integer or two; raise TypeError or ValueError otherwise."""
    values = value if isinstance(value, (tuple, list)) else (value, value)
    if len(values) != 2:
        raise ValueError(f"{name} must be one integer or a pair (smallest, largest), not {value!r}")
    smallest = checks.integer(name, values[0], 1)
    return smallest, checks.integer(f"the largest of {name}", values[1], smallest)


Scales = Annotated[Any, smallest_and_largest]


@dataclass(frozen=True, eq=False)
class Images:
    """Images with their labels: pixels uint8 (N, C, H, W), labels int64 (N,), the names of the classes."""

    pixels: Tensor
    labels: Tensor
    classes: tuple[str, ...] = CLASSES

    def __post_init__(self) -> None:
        for name in ("pixels", "labels"):
            checks.tensor(name, getattr(self, name), dims=None, floating=False)
        if self.pixels.dtype != torch.uint8 or self.pixels.ndim != 4:
            raise ValueError(f"pixels must be uint8 (N, C, H, W), not {self.pixels.dtype} {tuple(self.pixels.shape)}")
        if self.labels.dtype != torch.int64 or self.labels.shape != self.pixels.shape[:1]:
            raise ValueError(
                f"labels must be int64 ({len(self.pixels)},), not {self.labels.dtype} {tuple(self.labels.shape)}"
            )
        count = len(checks.sequence("classes", self.classes))
        if not ((self.labels >= 0) & (self.labels < count)).all():
            raise ValueError(f"labels must be from 0 to {count - 1}, one number for each of the classes")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Any) -> "Images":
        """The images at a slice, a list or a tensor of positions, as Images again."""
        return replace(self, pixels=self.pixels[index], labels=self.labels[index])

    def to(self, device: torch.device | None) -> "Images":
        """The same images on a device; None keeps theirs."""
        return replace(self, pixels=self.pixels.to(device), labels=self.labels.to(device))

    def checksum(self) -> str:
        """The MD5 of the pixels."""
        return hashlib.md5(self.pixels.cpu().numpy().data, usedforsecurity=False).hexdigest()

    def refuse(self, size: int | None, augment: str | None) -> None:
        """Raise ValueError for a size or an augmentation that these images cannot be given at."""
        if size is not None:
            checks.integer("size", size, max(self.pixels.shape[-2:]))
        if augment is not None:
            checks.choice("augment", augment, AUGMENTATIONS)

    def stream(
        self, batch_size: int, size: int | None, shuffle: bool, seed: int | None, augment: str | None, start: int,
        share: tuple[int, int],
    ) -> Iterator[Batch]:  # fmt: skip
        """What batches() yields."""
        rank, world_size = share
        device = self.pixels.device
        generator = None if seed is None else torch.Generator(device).manual_seed(seed)
        order = torch.arange(len(self), device=device)
        if shuffle:
            order = torch.randperm(len(self), generator=generator, device=device)
        for step, index in enumerate(order.split(min(batch_size, max(1, len(self))))):
            if step < start:
                continue
            pixels = self.pixels[index]
            if augment is not None:
                if generator is not None and seed is not None:  # each step's own, so that a run can start at it
                    generator.manual_seed(derived_seed(seed, step))
                pixels = AUGMENTATIONS[augment](pixels, generator)
            yield _prepared(pixels[rank::world_size], size), self.labels[index[rank::world_size]]


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

    def hold_out(self, count: Count, seed: Seed = 0) -> "Splits":
        """Return Splits whose test images are count of the training images, drawn at random, for validation.

        The real test images are not in it, so nothing tuned on it has seen them.
        """
        if count >= len(self.train):
            raise ValueError(f"count must be below the {len(self.train)} training images, not {count}")
        order = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(seed), device="cpu")
        return Splits(self.name, self.train[order[count:]], self.train[order[:count]])

    hold_out = checked(hold_out)


@checked
def batches(
    images: ImageSet,
    batch_size: Count,
    size: Count | None = None,
    shuffle: bool = False,
    device: str | torch.device | None = None,
    seed: Seed | None = None,
    augment: str | None = None,
    *,
    start: Index = 0,
    share: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Yield (x, labels): x float (B, C, size, size), normalized, labels int64 (B,); the last batch may be smaller.

    A size up to 32 pads with black, a larger one resizes bilinearly, None keeps the images as they are. augment is
    a name of AUGMENTATIONS. All of it happens on device, a whole batch at a time; seed None draws from torch's
    global generator. start is the number of batches to leave out at the beginning; share = (rank, world_size) yields
    every world_size-th image of each batch, from the rank-th on. Raises ValueError or TypeError for what is out of
    range.
    """
    rank, world_size = checks.pair("share", share, at_least=0)
    if rank >= world_size:
        raise ValueError(f"share must be (rank, world_size) with rank below world_size, not {share!r}")
    images = images.to(None if device is None else machine.find_device(device))
    images.refuse(size, augment)
    return images.stream(batch_size, size, shuffle, seed, augment, start, (rank, world_size))


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


@checked
def random_flip(pixels: Pixels, generator: torch.Generator | None = None) -> Tensor:
    """Mirror each image left to right with probability 1/2."""
    chosen = torch.rand(len(pixels), 1, 1, 1, generator=generator, device=pixels.device) < 0.5
    return torch.where(chosen, pixels.flip(-1), pixels)


@checked
def random_shift(pixels: Pixels, generator: torch.Generator | None = None, reach: Index = 2) -> Tensor:
    """Move each image by up to reach pixels in both directions, black moving in."""
    count, _, height, width = pixels.shape
    offsets = torch.randint(2 * reach + 1, (2, count, 1), generator=generator, device=pixels.device)
    rows = offsets[0] + torch.arange(height, device=pixels.device)
    columns = offsets[1] + torch.arange(width, device=pixels.device)
    padded = F.pad(pixels, (reach, reach, reach, reach))
    image = torch.arange(count, device=pixels.device)[:, None, None]
    return padded[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


AUGMENTATIONS: dict[str, Callable[..., Tensor]] = {
    "flip": random_flip,
    "shift": random_shift,
    "shift+flip": lambda pixels, generator=None: random_flip(random_shift(pixels, generator), generator),
}


@checked
def derived_seed(seed: Whole, number: Whole) -> int:
    """Return the seed of the number-th part of what seed decides, below the 2**63 that generators accept."""
    return (seed * 1_000_003 + number) % 2**63
