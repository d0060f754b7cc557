"""Fashion-MNIST and the drawn garments: found, downloaded once, checked."""

import gzip
import hashlib
import os
import struct
import tempfile
import zlib
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor

from vgglab import _checks as checks
from vgglab._checks import FilePath, checked
from vgglab._files import network_timeout
from vgglab.data.images import Images, Splits

# MD5 of the unpacked files; the MD5 of the gz files stand in torchvision.datasets.FashionMNIST.resources.
FILES = {
    "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}
GARMENTS = Path(__file__).with_name("garments.npz")  # drawn by tools/draw_garments.py
LAYOUTS = (".", "fashion-mnist", "FashionMNIST/raw")
DOWNLOAD_ERRORS = (OSError, HTTPException, RuntimeError)  # torchvision raises the last for a wrong checksum


@checked
def load(
    name: Literal["auto", "fashion-mnist", "drawn-garments"] = "auto",
    root: FilePath | None = None,
    download: bool = True,
) -> Splits:
    """Return "fashion-mnist", "drawn-garments", or with "auto" the first where it can be had, else the second.

    Fashion-MNIST is looked for in root, then $VGGLAB_DATA, then the user's cache, as the four gz files, unpacked,
    or in torchvision's folders; if download, it is fetched into the cache once. "auto" prints which set it is.
    Raises ValueError for an unknown name or a damaged file, PermissionError for one that may not be read,
    FileNotFoundError where the set cannot be had.
    """
    if name == "drawn-garments":
        return drawn_garments()
    if name == "fashion-mnist":
        return _fashion_mnist(root, download)
    try:
        dataset = _fashion_mnist(root, download)
        print(f"Data: Fashion-MNIST, {len(dataset.train):,} training and {len(dataset.test):,} test images.")
    except FileNotFoundError as missing:
        dataset = drawn_garments()
        print(f"Data: {len(dataset.train):,} + {len(dataset.test):,} drawn garments, because {missing}")
    return dataset


def _fashion_mnist(root: FilePath | None, download: bool) -> Splits:
    """The 60,000 + 10,000 images of Fashion-MNIST (Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747)."""
    folder = _find(root) or (_download() if download else None)
    if folder is None:
        raise FileNotFoundError(_missing("downloading was not allowed"))
    train_pixels, train_labels, test_pixels, test_labels = (_read(folder, name) for name in FILES)
    return Splits("fashion-mnist", Images(train_pixels, train_labels), Images(test_pixels, test_labels))


@checked
def drawn_garments(
    train: Annotated[int, partial(checks.integer, at_least=1, at_most=6000)] = 6000,
    test: Annotated[int, partial(checks.integer, at_least=1, at_most=1000)] = 1000,
) -> Splits:
    """Return the first so many of 6,000 + 1,000 garments in ten classes that a program drew: no network is needed.

    Raises ValueError or TypeError for numbers that are out of range.
    """
    with np.load(GARMENTS) as drawn:
        parts = [
            Images(
                torch.from_numpy(drawn[f"{part}_pixels"][:count]),
                torch.from_numpy(drawn[f"{part}_labels"][:count].astype(np.int64)),
            )
            for part, count in (("train", train), ("test", test))
        ]
    return Splits("drawn-garments", *parts)


def _cache() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("vgglab") / "fashion-mnist"


def _find(root: FilePath | None) -> Path | None:
    """The first folder that has all four files, or None."""
    named = (root, os.environ.get("VGGLAB_DATA") or None)
    places = [checks.path("root", place) for place in named if place is not None]
    for folder in [place / layout for place in places for layout in LAYOUTS]:
        if _complete(folder):
            return folder
    try:
        return _cache() if _complete(_cache()) else None
    except PermissionError:  # a home of somebody else: as good as an empty one
        return None


def _complete(folder: Path) -> bool:
    return all(_path(folder, name) for name in FILES)


def _path(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _read(folder: Path, name: str) -> Tensor:
    """The tensor in one file (the IDX format: two zero bytes, type, dimensions, big-endian sizes, then the bytes)."""
    path = _path(folder, name) or folder / name
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except PermissionError:
        raise
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read ({error}): delete it and load again") from None
    checksum = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if checksum != FILES[name]:
        truth = next((other for other in FILES if FILES[other] == checksum), None)
        detail = f"it holds {truth}" if truth else f"its MD5 is {checksum} instead of {FILES[name]}"
        raise ValueError(f"{path} is not Fashion-MNIST's {name}: {detail}; delete it and load again")
    dimensions = content[3]
    shape = struct.unpack(f">{dimensions}I", content[4 : 4 + 4 * dimensions])
    values = torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=4 + 4 * dimensions).reshape(shape)
    return values[:, None] if dimensions == 3 else values.long()


def _download() -> Path:
    """Fetch the four files into the user's cache, once for all processes that ask, and return the folder."""
    from filelock import FileLock

    folder = _cache()
    failure = folder / ".failed"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        before = _changed(failure)
        with FileLock(folder / ".lock"):
            if _complete(folder):
                return folder
            if _changed(failure) != before:  # another process tried in vain while this one waited
                raise OSError(failure.read_text(encoding="utf-8"))
            try:
                _download_files(folder)
            except DOWNLOAD_ERRORS as error:
                failure.write_text(str(error), encoding="utf-8")
                raise
    except DOWNLOAD_ERRORS as error:
        reason = " ".join(str(error).split())
        raise FileNotFoundError(_missing(f"downloading failed ({reason})")) from None
    return folder


def _changed(path: Path) -> int | None:
    return path.stat().st_mtime_ns if path.exists() else None


def _download_files(folder: Path) -> None:
    """Fetch the four files, and move them to folder when all are there."""
    from torchvision.datasets import FashionMNIST

    with tempfile.TemporaryDirectory(dir=folder) as part, network_timeout():
        for name, checksum in FashionMNIST.resources:
            _download_file(name, checksum, part)
        for name, _ in FashionMNIST.resources:
            (Path(part) / name).replace(folder / name)


def _download_file(name: str, checksum: str, folder: str) -> None:
    """Fetch one file from the first of torchvision's mirrors that has it."""
    from torchvision.datasets import FashionMNIST
    from torchvision.datasets.utils import download_url

    *others, last = FashionMNIST.mirrors
    for mirror in others:
        try:
            return download_url(mirror + name, folder, md5=checksum)
        except DOWNLOAD_ERRORS:
            continue
    return download_url(last + name, folder, md5=checksum)


def _missing(reason: str) -> str:
    return (
        f"Fashion-MNIST is not on this computer and {reason}. Three ways on: connect to the internet and load again; "
        "put the four gz files of Fashion-MNIST into a folder and name it as root or in VGGLAB_DATA; "
        'or load("drawn-garments"), which needs no network.'
    )
