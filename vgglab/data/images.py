"""Fashion-MNIST, the drawn garments, and batches of either, with the pixels kept as uint8 until they are used."""

import hashlib
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from vgglab import _checks as checks
from vgglab import machine

CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
SIDE = 28
LARGEST_PADDED = 32
LARGEST_SIDE = 4096

# Pixels / 255 over the 60,000 training images of Fashion-MNIST; the drawn garments are normalized alike.
MEAN, STD = 0.2860, 0.3530


@dataclass(frozen=True, eq=False)
class Images:
    """Grey images with their labels: pixels uint8 (N, 1, 28, 28), labels int64 (N,), the names of the classes."""

    pixels: torch.Tensor
    labels: torch.Tensor
    classes: tuple = CLASSES

    def __post_init__(self):
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

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        """The images at a slice, a list or a tensor of positions, as Images again."""
        return replace(self, pixels=self.pixels[index], labels=self.labels[index])

    def to(self, device):
        return replace(self, pixels=self.pixels.to(device), labels=self.labels.to(device))

    def checksum(self):
        """The MD5 of the pixels."""
        return hashlib.md5(self.pixels.cpu().numpy(), usedforsecurity=False).hexdigest()

    def stream(self, batch_size, size, shuffle, seed, augment, start, share):
        """What batches() yields; raises ValueError or TypeError for a size or augmentation that is out of range."""
        if size is not None:
            size = checks.integer("size", size, max(self.pixels.shape[-2:]), LARGEST_SIDE)
        if augment is not None:
            checks.choice("augment", augment, AUGMENTATIONS)
        return self._stream(batch_size, size, shuffle, seed, augment, start, share)

    def _stream(self, batch_size, size, shuffle, seed, augment, start, share):
        rank, count = share
        generator = _generator(seed, self.pixels.device)
        for step, index in enumerate(_order(self, shuffle, generator).split(min(batch_size, max(1, len(self))))):
            if step < start:
                continue
            pixels = self.pixels[index]
            if augment is not None:
                if generator is not None:  # each step has random numbers of its own, so that a run can start at it
                    generator.manual_seed(derived_seed(seed, step))
                pixels = AUGMENTATIONS[augment](pixels, generator)
            yield _prepared(pixels[rank::count], size), self.labels[index[rank::count]]


@dataclass(frozen=True, eq=False)
class Splits:
    """Training and test images under one name."""

    name: str
    train: Images
    test: Images

    def hold_out(self, count, seed=0):
        """Return a Splits whose test images are count of the training images, drawn at random, for validation.

        The real test images are not in it, so nothing tuned on it has seen them.
        """
        count = checks.integer("count", count, at_least=1)
        if count >= len(self.train):
            raise ValueError(f"count must be below the {len(self.train)} training images, not {count}")
        order = torch.randperm(len(self.train), generator=_generator(seed, "cpu"))
        return Splits(self.name, self.train[order[count:]], self.train[order[:count]])


def canvas(images, size, scales, seed=0):
    """Return the images rescaled at random and placed at random on black pictures of size x size (pixels).

    The side of each is drawn from scales, (smallest, largest) in pixels. One larger than the picture is cut to it at
    a random place, as the paper cuts its crops from rescaled images (section 3.1). Deterministic for a seed.
    """
    _images(images)
    size = checks.integer("size", size, 1, LARGEST_SIDE)
    smallest, largest = checks.pair("scales", scales, 1)
    checks.integer("the largest of scales", largest, at_least=smallest)
    generator = _generator(seed, "cpu")
    pixels = torch.empty(*images.pixels.shape[:2], size, size, dtype=torch.uint8)
    for picture, image in zip(pixels, images.pixels, strict=True):
        side = torch.randint(smallest, largest + 1, (), generator=generator).item()
        scaled = F.interpolate(image[None].float(), (side, side), mode="bilinear", antialias=True)[0].round().byte()
        room = size - side  # negative where the picture is smaller: padding by it cuts
        offsets = torch.randint(min(0, room), max(0, room) + 1, (2,), generator=generator)
        top, left = offsets.tolist()
        picture.copy_(F.pad(scaled, (left, room - left, top, room - top)))
    return replace(images, pixels=pixels)


def batches(
    images, batch_size, size=None, shuffle=False, device=None, seed=None, augment=None, *, start=0, share=(0, 1)
):
    """Yield (x, labels): x float (B, C, size, size), normalized, labels int64 (B,); the last batch may be smaller.

    A size up to 32 pads with black, a larger one resizes bilinearly, None keeps the images as they are. augment is
    a name of AUGMENTATIONS. All of it happens on device, a whole batch at a time; seed None draws from torch's
    global generator. start is the number of batches to leave out at the beginning; share = (rank, count) yields
    every count-th image of each batch, from the rank-th on. Raises ValueError or TypeError for what is out of range.
    """
    batch_size = checks.integer("batch_size", batch_size, at_least=1)
    seed = None if seed is None else checks.seed("seed", seed)
    start = checks.integer("start", start, at_least=0)
    rank, count = checks.pair("share", share, at_least=0)
    if rank >= count:
        raise ValueError(f"share must be (rank, count) with rank below count, not {share!r}")
    images = _images(images).to(None if device is None else machine.find_device(device))
    return images.stream(batch_size, size, checks.flag("shuffle", shuffle), seed, augment, start, (rank, count))


def _images(images):
    if not hasattr(images, "stream"):
        raise TypeError(f"images must be vgglab.data.Images, such as dataset.train, not {type(images).__name__}")
    return images


def _order(images, shuffle, generator):
    device = images.pixels.device
    if shuffle:
        return torch.randperm(len(images), generator=generator, device=device)
    return torch.arange(len(images), device=device)


def _prepared(pixels, size):
    """Pixels resized and normalized; where they grow, normalized first, which is the same for fewer numbers."""
    if size is None or size <= LARGEST_PADDED:
        return normalize(resize(pixels, size))
    return resize(normalize(pixels), size)


def resize(pixels, size):
    """Return float (N, C, size, size) in 0-255: padded with black up to 32, bilinear above; None keeps the size."""
    height, width = checks.tensor("pixels", pixels, floating=False, empty=True).shape[-2:]
    size = size if size is None else checks.integer("size", size, max(height, width), LARGEST_SIDE)
    if size is None or (height, width) == (size, size):
        return pixels.float()
    if size <= LARGEST_PADDED:
        top, left = (size - height) // 2, (size - width) // 2
        return F.pad(pixels, (left, size - width - left, top, size - height - top)).float()
    rows, columns = (_linear(side, size, pixels.device) for side in (height, width))
    return rows.T @ (pixels.float() @ columns)


def _linear(side, size, device):
    """The matrix (side, size) that interpolates linearly from side to size pixels: what each single pixel becomes."""
    return F.interpolate(torch.eye(side, device=device)[None], size, mode="linear", align_corners=False)[0]


def normalize(pixels):
    """Return pixels (0-255) with Fashion-MNIST's mean taken off, divided by its standard deviation."""
    return (checks.tensor("pixels", pixels, dims=None, floating=False).float() / 255 - MEAN) / STD


def random_flip(pixels, generator=None):
    """Mirror each image left to right with probability 1/2."""
    checks.tensor("pixels", pixels, floating=False, empty=True)
    chosen = torch.rand(len(pixels), 1, 1, 1, generator=generator, device=pixels.device) < 0.5
    return torch.where(chosen, pixels.flip(-1), pixels)


def random_shift(pixels, generator=None, reach=2):
    """Move each image by up to reach pixels in both directions, black moving in."""
    count, _, height, width = checks.tensor("pixels", pixels, floating=False, empty=True).shape
    reach = checks.integer("reach", reach, 0, LARGEST_SIDE)
    offsets = torch.randint(2 * reach + 1, (2, count, 1), generator=generator, device=pixels.device)
    rows = offsets[0] + torch.arange(height, device=pixels.device)
    columns = offsets[1] + torch.arange(width, device=pixels.device)
    padded = F.pad(pixels, (reach, reach, reach, reach))
    image = torch.arange(count, device=pixels.device)[:, None, None]
    return padded[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


AUGMENTATIONS = {
    "flip": random_flip,
    "shift": random_shift,
    "shift+flip": lambda pixels, generator=None: random_flip(random_shift(pixels, generator), generator),
}


def derived_seed(seed, number):
    """Return the seed of the number-th part of what seed decides, below the 2**63 that generators accept."""
    return (checks.integer("seed", seed) * 1_000_003 + checks.integer("number", number)) % 2**63


def _generator(seed, device):
    return None if seed is None else torch.Generator(device).manual_seed(checks.seed("seed", seed))
