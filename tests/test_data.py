"""Reading, refusing and downloading Fashion-MNIST, and turning images into batches."""

import gzip
import hashlib
import re
import struct
import threading
import time
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.datasets import FashionMNIST

from vgglab import data
from vgglab.data.fashion_mnist import FILES, LAYOUTS, _find
from vgglab.data.images import AUGMENTATIONS, MEAN, STD


@pytest.fixture
def small_set(tmp_path, monkeypatch):
    """A folder with four small gz files (IDX: http://yann.lecun.com/exdb/mnist), whose checksums are expected."""
    monkeypatch.delenv("VGGLAB_DATA", raising=False)
    generator = np.random.default_rng(0)
    folder = tmp_path / "small"
    folder.mkdir()
    for name in FILES:
        count = 50 if name.startswith("train") else 20
        shape = (count, 28, 28) if "images" in name else (count,)
        header = bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)
        content = header + generator.integers(0, 10, shape, dtype=np.uint8).tobytes()
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        monkeypatch.setitem(FILES, name, hashlib.md5(content).hexdigest())
    return folder


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_training_images_are_normalized_to_mean_0_and_standard_deviation_1(fashion_mnist):
    x = data.normalize(fashion_mnist.train.pixels)
    assert (x.mean().item(), x.std().item()) == pytest.approx((0, 1), abs=2e-4)


def test_the_real_set_agrees_with_torchvision(fashion_mnist, tmp_path):
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for file in Path(_find(None)).glob("*.gz"):
        (raw / file.stem).write_bytes(gzip.decompress(file.read_bytes()))
    for train, ours in ((True, fashion_mnist.train), (False, fashion_mnist.test)):
        theirs = FashionMNIST(tmp_path, train=train)
        assert torch.equal(theirs.data, ours.pixels[:, 0]) and torch.equal(theirs.targets, ours.labels)
        assert tuple(theirs.classes) == ours.classes


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("unpack", [False, True])
def test_every_layout_is_found(small_set, tmp_path, monkeypatch, layout, unpack):
    folder = tmp_path / "place" / layout
    folder.mkdir(parents=True, exist_ok=True)
    for file in small_set.iterdir():
        content = file.read_bytes()
        (folder / (file.stem if unpack else file.name)).write_bytes(gzip.decompress(content) if unpack else content)
    for root in (tmp_path / "place", None):
        dataset = data.load("fashion-mnist", root, download=False)
        assert (len(dataset.train), len(dataset.test)) == (50, 20)
        monkeypatch.setenv("VGGLAB_DATA", str(tmp_path / "place"))


DAMAGE = {
    "truncated": lambda content: content[: len(content) // 2],
    "flipped": lambda content: content[:-20] + bytes([content[-20] ^ 255]) + content[-19:],
    "empty": lambda content: b"",
    "a page": lambda content: b"<html>Not found</html>",
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("unpacked", [False, True])
def test_a_damaged_file_is_refused_by_name(small_set, name, damage, unpacked):
    file = small_set / f"{name}.gz"
    content = file.read_bytes()
    if unpacked:
        file.unlink()
        file, content = small_set / name, gzip.decompress(content)
    file.write_bytes(DAMAGE[damage](content))
    for which in ("fashion-mnist", "auto"):
        with pytest.raises(ValueError, match=re.escape(str(file)) + ".*delete it and load again"):
            data.load(which, root=small_set)


def test_swapped_files_are_told_apart(small_set):
    (small_set / "train-labels-idx1-ubyte.gz").write_bytes((small_set / "t10k-labels-idx1-ubyte.gz").read_bytes())
    with pytest.raises(ValueError, match="train-labels.*holds t10k-labels-idx1-ubyte"):
        data.load("fashion-mnist", root=small_set)


def test_without_files_and_download_three_ways_on_are_named(small_set):
    (small_set / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match="not allowed.*internet.*VGGLAB_DATA.*drawn-garments"):
        data.load("fashion-mnist", root=small_set, download=False)


@contextmanager
def serving(handler):
    """The address of a server on this computer."""
    with ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


@pytest.fixture
def mirror(small_set, monkeypatch):
    """A server on this computer that serves the small set, after a mirror that is gone; the paths asked of it."""
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            time.sleep(0.05)  # so that those who ask at once meet
            super().do_GET()

    resources = [(file.name, hashlib.md5(file.read_bytes()).hexdigest()) for file in sorted(small_set.iterdir())]
    monkeypatch.setattr(FashionMNIST, "resources", resources)
    with serving(partial(Handler, directory=small_set)) as address:
        monkeypatch.setattr(FashionMNIST, "mirrors", ["http://127.0.0.1:9/", address])
        yield asked


def test_a_broken_download_leaves_no_half_cache(mirror, small_set, tmp_path):
    (small_set / "t10k-labels-idx1-ubyte.gz").write_bytes(b"half")
    with pytest.raises(FileNotFoundError, match="downloading failed"):
        data.load("fashion-mnist")
    assert not list((tmp_path / "cache").rglob("*ubyte*"))


def test_batches_hold_every_image_once(random_images):
    stream = list(data.batches(random_images, 32, shuffle=True, seed=3))
    assert [len(labels) for _, labels in stream] == [32, 32, 32, 4]
    pixels = torch.cat([x for x, _ in stream]) * STD + MEAN
    found = {(image * 255).round().byte().numpy().tobytes() for image in pixels}
    assert found == {image.numpy().tobytes() for image in random_images.pixels}


def test_a_size_up_to_32_pads_with_black(random_images):
    x, _ = next(data.batches(random_images, 5, size=32))
    assert torch.equal(x[:, :, 2:30, 2:30], data.normalize(random_images.pixels[:5]))
    x[:, :, 2:30, 2:30] = data.normalize(torch.zeros(1))
    assert torch.equal(x, data.normalize(torch.zeros(5, 1, 32, 32)))


@pytest.mark.parametrize("size", [33, 64, 224])
def test_a_larger_size_is_pillows_bilinear_within_a_grey_level(random_images, size):
    ours = data.resize(random_images.pixels[:3], size)
    for image, resized in zip(random_images.pixels, ours, strict=False):
        pillow = Image.fromarray(image[0].numpy()).resize((size, size), Image.Resampling.BILINEAR)
        assert (resized[0].round() - torch.from_numpy(np.array(pillow))).abs().max() <= 1


def test_flips_are_mirror_images_and_about_half(random_images):
    flipped = AUGMENTATIONS["flip"](random_images.pixels, torch.Generator().manual_seed(0))
    mirrored = (flipped == random_images.pixels.flip(-1)).all(dim=(1, 2, 3))
    assert ((flipped == random_images.pixels).all(dim=(1, 2, 3)) ^ mirrored).all()
    assert 35 <= mirrored.sum() <= 65


def test_shifts_move_each_image_by_at_most_two_pixels_and_all_ways():
    image = torch.zeros(500, 1, 28, 28, dtype=torch.uint8)
    image[:, 0, 10, 15] = 200
    _, _, rows, columns = AUGMENTATIONS["shift"](image, torch.Generator().manual_seed(0)).nonzero(as_tuple=True)
    assert len(rows) == 500
    assert {*zip((rows - 10).tolist(), (columns - 15).tolist(), strict=True)} == {
        (row, column) for row in range(-2, 3) for column in range(-2, 3)
    }


def test_hold_out_parts_the_training_images(garments):
    parts = garments.hold_out(100)
    assert (len(parts.train), len(parts.test)) == (500, 100)
    together = torch.cat([parts.train.pixels, parts.test.pixels])
    assert {p.numpy().tobytes() for p in together} == {p.numpy().tobytes() for p in garments.train.pixels}


@pytest.mark.parametrize(("size", "side"), [(48, 40), (32, 28), (30, 36), (28, 28), (24, 20)])
def test_canvas_is_pils_rescaled_image_somewhere(random_images, size, side):
    """Brute force: the one place where the rescaled image lies on the canvas, or the canvas on the rescaled image."""
    images, room = random_images[:8], abs(size - side)
    made = data.canvas(images, size, (side, side), seed=3)
    places = set()
    for image, picture in zip(images.pixels[:, 0].numpy(), made.pixels[:, 0].numpy(), strict=True):
        scaled = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR))
        inner, outer = (scaled, picture) if side <= size else (picture, scaled)
        windows = np.lib.stride_tricks.sliding_window_view(outer, inner.shape)
        found = np.argwhere(np.abs(windows.astype(int) - inner).max((2, 3)) <= 1)
        assert len(found) == 1 and (side > size or picture.sum() == windows[tuple(found[0])].sum())
        places.add(tuple(found[0]))
    assert torch.equal(made.labels, images.labels) and made.classes == images.classes
    assert len(places) > 3 or room == 0


def test_canvas_draws_every_side_of_the_range_and_depends_on_the_seed_alone(random_images):
    white = data.Images(torch.full_like(random_images.pixels, 255), random_images.labels)
    made = data.canvas(white, 40, (30, 35), seed=1)
    sides = (made.pixels > 0).any(dim=2)[:, 0].sum(dim=1)
    assert set(sides.tolist()) == {30, 31, 32, 33, 34, 35}
    assert torch.equal(made.pixels, data.canvas(white, 40, (30, 35), seed=1).pixels)
    assert not torch.equal(made.pixels, data.canvas(white, 40, (30, 35), seed=2).pixels)


def test_what_batches_cannot_give_is_said_before_the_first_is_asked_for(random_images):
    for options, words in (
        ({"size": 27}, "size must be at least 28, not 27"),
        ({"augment": "rotate"}, "augment must be one of 'flip'.*not 'rotate'"),
    ):
        with pytest.raises(ValueError, match=words):
            data.batches(random_images, 8, **options)
    with pytest.raises(TypeError, match="images must be vgglab.data.Images, at least one, not tensor"):
        data.batches(random_images.pixels, 8)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 40), st.integers(0, 5), st.integers(1, 4), st.sampled_from([None, *AUGMENTATIONS]))
def test_a_stream_may_start_late_and_be_shared(random_images, batch_size, start, count, augment):
    options = {"size": 32, "shuffle": True, "seed": 3, "augment": augment}
    whole = list(data.batches(random_images, batch_size, **options))
    parts = [list(random_images.stream(batch_size, **options, start=start, share=(r, count))) for r in range(count)]
    assert all(len(part) == max(0, len(whole) - start) for part in parts)
    for (x, labels), *shares in zip(whole[start:], *parts, strict=True):
        for rank, (part, names) in enumerate(shares):
            assert torch.equal(part, x[rank::count]) and torch.equal(names, labels[rank::count])
