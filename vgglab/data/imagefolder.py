"""Photographs in class folders, ImageNet's layout: rescaled, cropped, mirrored and tinted as the paper does."""

import hashlib
import os
import random
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vgglab import _checks as checks
from vgglab import machine
from vgglab._checks import FilePath, Index, Seed, checked
from vgglab.data.images import Batch, Scales, Splits

AUGMENTATIONS = ("crop", "crop+flip", "crop+flip+rgb")
LAYOUT = "train/ and val/ (or test/) with one folder for each class, or the class folders themselves"
PICTURES_FOR_COLOURS = 1000
STOPPING = {signal.SIGINT, signal.SIGTERM}
Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Colours:
    """What the colours of a set are like, pixel values being 0 to 1: mean and std (3,) of red, green and blue.

    tint (3, 3) has the eigenvectors of their covariance, times the eigenvalues, as its columns.
    """

    mean: Tensor
    std: Tensor
    tint: Tensor


UNKNOWN = Colours(torch.zeros(3), torch.ones(3), torch.zeros(3, 3))


@dataclass(frozen=True, eq=False)
class Photographs:
    """Pictures in class folders, read when they are used, with labels int64 (N,) and the names of the classes.

    paths are relative to folder; scale is (smallest, largest) shorter side in pixels, workers the number of processes
    that decode, 0 for this one.
    """

    folder: Path
    paths: list[str]
    labels: Tensor
    classes: tuple[str, ...]
    scale: tuple[int, int]
    colours: Colours
    workers: int
    device: torch.device = torch.device("cpu")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Any) -> "Photographs":
        """The photographs at a slice, a list or a tensor of positions, as Photographs again."""
        chosen = torch.arange(len(self))[index]
        return replace(self, paths=[self.paths[place] for place in chosen.tolist()], labels=self.labels[chosen])

    def to(self, device: torch.device) -> "Photographs":
        """The same photographs, their batches made on device."""
        return replace(self, device=torch.device(device))

    @property
    def test_scale(self) -> int:
        """The shorter side in pixels of pictures that are not augmented: the middle of scale. Source: section 4.1."""
        return sum(self.scale) // 2

    def checksum(self) -> str:
        """The MD5 of the scale and of every picture's relative path and size in bytes."""
        digest = hashlib.md5(repr(self.scale).encode(), usedforsecurity=False)
        for path in self.paths:
            digest.update(f"{path}\0{(self.folder / path).stat().st_size}\0".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def stream(
        self, batch_size: int, size: int | None = None, shuffle: bool = False, seed: int | None = None,
        augment: str | None = None, start: int = 0, share: tuple[int, int] = (0, 1),
    ) -> Iterator[Batch]:  # fmt: skip
        """What data.batches() yields: (x float (B, 3, size, size) normalized, labels (B,)), both on the device.

        augment None takes the central crop at test_scale, a name of AUGMENTATIONS a crop at a random place and scale.
        The random numbers of a picture depend on seed and its place in the order alone. start and share are those of
        Images. Raises ValueError for a damaged picture. Source: section 3.1.
        """
        size = checks.integer("size", size, 1)
        if size > self.scale[0]:
            raise ValueError(f"size must be at most {self.scale[0]}, the smallest scale, not {size}")
        if augment is not None:
            checks.choice("augment", augment, AUGMENTATIONS)
        if seed is None:
            seed = int(torch.randint(2**62, ())) if shuffle or augment else 0
        order = torch.arange(len(self))
        if shuffle:
            order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        steps = torch.arange(len(self)).split(min(batch_size, len(self)))[start:]
        own = [places[share[0] :: share[1]] for places in steps]
        cut = partial(_cut, size, self.scale, augment or "", seed, self.colours.tint)
        jobs = ([(self.path(int(order[place])), int(place)) for place in places] for places in own)
        results = in_workers(cut, jobs, min(self.workers, len(own)), self.device.type == "cuda")
        return (
            (self.normalized(pixels, tints), self.labels[order[places]].to(self.device, non_blocking=True))
            for places, (pixels, tints) in zip(own, results, strict=True)
        )

    def path(self, index: int) -> str:
        """Where the picture at a position is."""
        return str(self.folder / self.paths[index])

    def normalized(self, pixels: Tensor, tints: Tensor | None = None) -> Tensor:
        """Return uint8 pixels (B, 3, H, W) as float on the device: 0 to 1, tinted, (x - mean) / std by colour."""
        x = pixels.to(self.device, non_blocking=True).float() / 255
        if tints is not None:
            x += tints.to(self.device, non_blocking=True)[:, :, None, None]
        mean, std = (values.to(self.device)[:, None, None] for values in (self.colours.mean, self.colours.std))
        return (x - mean) / std


@checked
def load(path: FilePath, scale: Scales = 256, seed: Seed = 0, workers: Index | None = None) -> Splits:
    """Return the Splits of a folder with train/ and val/ (or test/) in it, or with class folders.

    Of class folders alone a tenth of the pictures, drawn with seed, is held out for testing. scale is S, the shorter
    side in pixels that pictures are rescaled to, or (smallest, largest), drawn anew for each. workers is the number
    of processes that decode, None for one on each core. Raises FileNotFoundError where nothing is found, ValueError
    for fewer than two classes, for other classes in the test part, and for a damaged picture, ValueError or TypeError
    for other arguments.
    """
    folder = Path(path).resolve()
    if not folder.is_dir():
        raise FileNotFoundError(f"path must be a folder that holds {LAYOUT}; there is no folder {folder}")
    name = f"imagefolder:{folder.name}"
    if workers is None:
        workers = max(1, machine.cores() // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
    test_folder = next((folder / part for part in ("val", "test") if (folder / part).is_dir()), None)
    if test_folder and (folder / "train").is_dir():
        train, test = (_photographs(part, scale, workers) for part in (folder / "train", test_folder))
        if alone := sorted({*train.classes} ^ {*test.classes}):
            raise ValueError(f"path must hold the same classes in train/ and {test_folder.name}/, not {alone} in one")
    else:
        photographs = _photographs(folder, scale, workers)
        held_out = Splits(name, photographs, photographs).hold_out(max(1, len(photographs) // 10), seed)
        train, test = held_out.train, held_out.test
    colours = measure_colours(train)
    return Splits(name, *(replace(part, colours=colours) for part in (train, test)))


def measure_colours(photographs: Photographs) -> Colours:
    """Return the Colours of up to 1,000 photographs, evenly spaced in their order, at their test_scale."""
    count = min(len(photographs), PICTURES_FOR_COLOURS)
    jobs = [(photographs.path(i * len(photographs) // count), photographs.test_scale) for i in range(count)]
    moments = torch.stack(list(in_workers(_moments, jobs, min(photographs.workers, count)))).sum(0)
    moments = moments / moments[0, 0]
    mean = moments[0, 1:]
    covariance = (moments[1:, 1:] - mean.outer(mean)) / 255**2
    eigenvalues, eigenvectors = torch.linalg.eigh(covariance)
    std = covariance.diagonal().sqrt().clamp(min=1 / 255)  # a channel may be constant
    return Colours((mean / 255).float(), std.float(), (eigenvectors * eigenvalues).float())


def _cut(
    size: int, scale: tuple[int, int], augment: str, seed: int, tint: Tensor, jobs: list[tuple[str, int]]
) -> tuple[Tensor, Tensor]:
    """One square of size pixels from each of some pictures, (path, place in the order): their pixels and tints.

    pixels are uint8 (B, 3, size, size), tints (B, 3) what is to be added to values from 0 to 1: the columns of tint,
    each times a draw from N(0, 0.1). Source: section 4.1 of the AlexNet paper (Krizhevsky, Sutskever and Hinton 2012).
    """
    pixels = torch.empty(len(jobs), size, size, 3, dtype=torch.uint8)
    tints = torch.zeros(len(jobs), 3)
    for row, (path, place) in enumerate(jobs):
        generator = random.Random(f"{seed} {place}")
        at_random = "crop" in augment
        picture = _read(path, generator.randint(*scale) if at_random else sum(scale) // 2)
        rooms = [side - size for side in picture.size]
        left, top = (generator.randint(0, room) if at_random else room // 2 for room in rooms)
        crop = picture.crop((left, top, left + size, top + size))
        if "flip" in augment and generator.random() < 0.5:
            crop = ImageOps.mirror(crop)
        pixels[row] = _pixels(crop)
        if "rgb" in augment:
            tints[row] = tint @ torch.tensor([generator.gauss(0, 0.1) for _ in range(3)])
    return pixels.permute(0, 3, 1, 2), tints


def whole(path: str) -> Tensor:
    """Return a whole picture as uint8 (1, 3, H, W)."""
    return _pixels(_read(path, None)).permute(2, 0, 1)[None]


def _moments(job: tuple[str, int]) -> Tensor:
    """The sum of v v^T over a picture's pixels, v = (1, red, green, blue): whole numbers, exact in float64."""
    pixels = _pixels(_read(*job)).reshape(-1, 3).double()
    v = torch.cat([torch.ones(len(pixels), 1, dtype=torch.float64), pixels], 1)
    return v.T @ v


def _pixels(picture: Image.Image) -> Tensor:
    """uint8 (H, W, 3) of a PIL picture."""
    return torch.from_numpy(np.array(picture))


def _read(path: str, shorter_side: int | None) -> Image.Image:
    """The upright RGB picture in a file, its shorter side rescaled to shorter_side, or as it is where that is None."""
    try:
        with Image.open(path) as file:
            picture = ImageOps.exif_transpose(file).convert("RGB")
    except Exception as error:  # a damaged file can fail in any way
        raise ValueError(f"{path} cannot be read as a picture ({error}): replace or delete it") from None
    if shorter_side is None:
        return picture
    width, height = (side * shorter_side // min(picture.size) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.BILINEAR)


@dataclass(frozen=True)
class _Results(Dataset[Any]):
    """The results of a function by its argument, an error among them as a value, so that it travels whole."""

    function: Callable[[Any], Any]

    def __getitem__(self, job: Any) -> Any:
        try:
            return self.function(job)
        except ValueError as error:
            return error


def in_workers(
    function: Callable[[Job], Result], jobs: Iterable[Job], workers: int, pin_memory: bool = False
) -> Iterator[Result]:
    """Yield function(job) for each of jobs in order, computed ahead by workers processes (0: by this one)."""
    results = DataLoader(
        _Results(function), batch_size=None, sampler=jobs, num_workers=workers, worker_init_fn=_leave_group,
        pin_memory=pin_memory, generator=torch.Generator(),
    )  # fmt: skip
    with _signals_wait():  # until the workers have left the group
        computed = iter(results)
    for result in computed:
        if isinstance(result, ValueError):
            raise result
        yield result


@contextmanager
def _signals_wait() -> Iterator[None]:
    """Hold back Ctrl-C and SIGTERM inside the block, where the system can."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _leave_group(_: int) -> None:
    """Let Ctrl-C and signals to a whole group of processes reach the parent alone, which then ends its workers."""
    if not hasattr(os, "setpgrp"):  # Windows
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return
    os.setpgrp()
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)  # forgets one that came already
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)


def _photographs(folder: Path, scale: tuple[int, int], workers: int) -> Photographs:
    """The photographs of one folder of class folders, their colours not yet known."""
    from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset

    wanted = f"path must be a folder that holds {LAYOUT}"
    try:
        classes, numbers = find_classes(str(folder))
        if len(classes) < 2:
            raise ValueError(f"{wanted}, at least two; {folder} holds {classes[0]} alone")
        samples = make_dataset(str(folder), numbers, IMG_EXTENSIONS)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{wanted}; {folder}: {error}") from None
    paths = [os.path.relpath(path, folder) for path, _ in samples]
    labels = torch.tensor([label for _, label in samples])
    return Photographs(folder, paths, labels, tuple(classes), scale, UNKNOWN, workers)
