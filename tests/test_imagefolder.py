"""Photographs in class folders: what is cut out of them, what is drawn at random, and training and testing on them."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.transforms.functional import resize

from vgglab import inference
from vgglab.__main__ import main
from vgglab.data.imagefolder import AUGMENTATIONS, load
from vgglab.inference import errors as count_errors
from vgglab.training import Recipe

COLOURS = {"blue": (40, 60, 200), "green": (50, 180, 60), "red": (210, 50, 40)}


def draw(folder, count, seed):
    """Noisy pictures of three colours, upright and broad; one of them is grey, and one lies on its side (EXIF)."""
    generator = np.random.default_rng(seed)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            height, width = generator.integers(40, 71, 2)
            pixels = generator.normal(colour, 40, (height, width, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    Image.open(folder / "blue" / "0.png").convert("L").save(folder / "blue" / "0.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: to be turned by a quarter
    Image.fromarray(generator.integers(0, 256, (40, 60, 3), np.uint8)).save(folder / "red" / "0.png", exif=exif)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("photographs") / "colours"
    draw(root / "train", 8, seed=0)
    draw(root / "val", 4, seed=1)
    return root


@pytest.fixture(scope="module")
def dataset(folder):
    return load(folder, scale=36, workers=0)


def stream(photographs, size=32, **options):
    """All batches of 7 of the photographs, shuffled by seed 3 unless told otherwise."""
    return list(photographs.stream(7, size, **{"shuffle": True, "seed": 3, **options}))


def pictures(photographs, **options):
    return torch.cat([x for x, _ in stream(photographs, **options)])


def grey_levels(photographs, x):
    """Normalized pixels (N, 3, H, W) as whole values from 0 to 255 again."""
    mean, std = photographs.colours.mean[:, None, None], photographs.colours.std[:, None, None]
    return ((x * std + mean) * 255).round()


def opened(photographs, index, scale):
    """A picture read without vgglab, as uint8 (3, H, W)."""
    picture = ImageOps.exif_transpose(Image.open(photographs.path(index))).convert("RGB")
    return torch.from_numpy(np.array(picture if scale is None else resize(picture, scale))).permute(2, 0, 1)


def same_batches(ours, theirs):
    return len(ours) == len(theirs) and all(map(torch.equal, sum(ours, ()), sum(theirs, ())))


def test_folders_are_classes_and_test_pictures_share_the_colours_of_training(folder, dataset):
    assert dataset.name == "imagefolder:colours" and dataset.train.classes == dataset.test.classes == tuple(COLOURS)
    assert dataset.train.labels.tolist() == [0] * 8 + [1] * 8 + [2] * 8 and len(dataset.test) == 12
    assert dataset.test.colours is dataset.train.colours
    assert load(folder, 37, workers=0).train.checksum() != dataset.train.checksum()


def test_a_tenth_of_plain_class_folders_is_held_out_by_seed(folder):
    first, again, other = (load(folder / "train", 36, seed, workers=0) for seed in (0, 0, 1))
    for dataset in (first, other):
        assert len(dataset.test) == 2 and len({*dataset.train.paths, *dataset.test.paths}) == 24
        for part in (dataset.train, dataset.test):
            assert [part.classes[label] for label in part.labels] == [path.split("/")[0] for path in part.paths]
    assert first.test.paths == again.test.paths != other.test.paths


@pytest.mark.parametrize(
    ("path", "error", "words"),
    [
        ("nowhere", FileNotFoundError, "there is no folder .*nowhere"),
        ("one/red", FileNotFoundError, "train/ and val/.*one/red: Couldn't find any class folder"),
        ("one", ValueError, "at least two.*one holds red alone"),
        ("hollow", FileNotFoundError, "hollow.*classes blue"),
        ("differing", ValueError, "same classes in train/ and test/, not .'blue'. in one"),
    ],
)
def test_a_folder_without_classes_or_pictures_is_named(folder, tmp_path, path, error, words):
    (tmp_path / "one" / "red").mkdir(parents=True)
    shutil.copytree(folder / "val" / "red", tmp_path / "hollow" / "red")
    (tmp_path / "hollow" / "blue").mkdir()
    shutil.copytree(folder / "val", tmp_path / "differing" / "train")
    shutil.copytree(folder / "val", tmp_path / "differing" / "test")
    shutil.rmtree(tmp_path / "differing" / "test" / "blue")
    with pytest.raises(error, match=words):
        load(tmp_path / path, 36, workers=0)


def test_what_batches_of_photographs_cannot_give_is_named(dataset):
    with pytest.raises(ValueError, match="size must be at most 36, the smallest scale, not 37"):
        stream(dataset.train, 37)
    with pytest.raises(TypeError, match="size must be an integer, not None"):
        stream(dataset.train, None)
    with pytest.raises(ValueError, match="augment must be one of 'crop', 'crop.flip', 'crop.flip.rgb', not 'flip'"):
        stream(dataset.train, augment="flip")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_picture_is_named_in_one_line(folder, tmp_path, workers):
    shutil.copytree(folder / "val", tmp_path / "val")
    (tmp_path / "val" / "green" / "2.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"^\S*green/2.png cannot be read as a picture \(.*\): replace or delete it$"):
        load(tmp_path / "val", 36, workers=workers)


def place_of(crop, photographs, index):
    """The scale, row and column at which a crop stands in a picture, None where it does not."""
    for scale in range(33, 41):
        windows = opened(photographs, index, scale).float().unfold(1, 32, 1).unfold(2, 32, 1)
        equal = (windows.permute(1, 2, 0, 3, 4) == crop).flatten(2).all(2)
        if equal.any():
            return scale, *equal.nonzero()[0].tolist()


def test_without_augmentation_the_middle_of_every_rescaled_picture_is_taken(dataset):
    photographs = replace(dataset.train, scale=(33, 39))
    for index, crop in enumerate(grey_levels(photographs, pictures(photographs, shuffle=False))):
        _, height, width = opened(photographs, index, 36).shape
        assert place_of(crop, photographs, index) == (36, (height - 32) // 2, (width - 32) // 2)
    assert opened(photographs, photographs.paths.index("red/0.png"), 36).shape == (3, 54, 36)  # 60 x 40 on its side


def test_a_random_crop_is_a_window_of_the_picture_at_one_of_the_scales(dataset):
    photographs, places = replace(dataset.test, scale=(33, 40)), set()
    for seed in range(4):
        crops = grey_levels(photographs, pictures(photographs, shuffle=False, augment="crop", seed=seed))
        places |= {place_of(crop, photographs, index) for index, crop in enumerate(crops)}
    assert len(places) > 20 and None not in places and {scale for scale, *_ in places} >= {33, 40}


def test_half_of_the_crops_are_mirrored(dataset):
    plain, flipped = (pictures(dataset.train, augment=name, seed=5) for name in ("crop", "crop+flip"))
    kept, mirrored = ((flipped == crops).flatten(1).all(1) for crops in (plain, plain.flip(-1)))
    assert (kept ^ mirrored).all() and 6 <= mirrored.sum() <= 18


def test_pictures_are_normalized_and_tinted_by_the_colours_of_all_training_pixels(dataset):
    """The tint is one for a picture, along the eigenvectors of the colours, by about a tenth of the eigenvalues."""
    colours = dataset.train.colours
    pixels = torch.cat([opened(dataset.train, index, 36).flatten(1) for index in range(24)], 1) / 255
    torch.testing.assert_close(colours.mean, pixels.mean(1))
    torch.testing.assert_close(colours.std, pixels.std(1), rtol=1e-4, atol=0)
    tints = []
    for seed in range(50):
        plain, tinted = (pictures(dataset.train, augment=name, seed=seed) for name in ("crop+flip", "crop+flip+rgb"))
        tint = (tinted - plain) * colours.std[:, None, None]
        tints.append(tint.mean((2, 3)))
        assert (tint - tints[-1][:, :, None, None]).abs().max() < 1e-5
    covariance = torch.cov(pixels)
    expected = 0.1**2 * covariance @ covariance  # the squares of a tenth of the eigenvalues
    assert (torch.cov(torch.cat(tints).T) - expected).norm() < 0.15 * expected.norm()


@pytest.mark.parametrize("augment", [None, *AUGMENTATIONS])
def test_neither_workers_nor_processes_nor_the_start_change_a_pixel(dataset, augment):
    here = replace(dataset.train, scale=(33, 40))
    there = replace(here, workers=2)
    expected = stream(here, augment=augment)
    assert [len(x) for x, _ in expected] == [7, 7, 7, 3]
    assert same_batches(stream(there, augment=augment), expected)
    assert same_batches(stream(here, augment=augment, start=2), expected[2:])
    shares = [stream(part, augment=augment, share=(rank, 4)) for rank, part in enumerate((here, there) * 2)]
    assert shares[3][-1][0].shape == (0, 3, 32, 32) and shares[3][-1][1].shape == (0,)
    for parts, (x, labels) in zip(zip(*shares, strict=True), expected, strict=True):
        for rank, (part, part_labels) in enumerate(parts):
            assert torch.equal(part, x[rank::4]) and torch.equal(part_labels, labels[rank::4])


@pytest.mark.parametrize("system", ["macOS", "Windows"])
def test_workers_decode_on_other_systems_too(dataset, monkeypatch, system):
    """On macOS processes begin empty, on Windows there are no groups and no masks for signals."""
    if system == "macOS":
        context = multiprocessing.context._default_context
        monkeypatch.setattr(context, "_actual_context", multiprocessing.get_context("spawn"))
    else:
        monkeypatch.delattr(signal, "pthread_sigmask")
        monkeypatch.delattr(os, "setpgrp")
    assert same_batches(stream(replace(dataset.train, workers=1)), stream(dataset.train))


def test_skipped_steps_are_not_read(dataset, tmp_path):
    with pytest.raises(ValueError, match="cannot be read"):
        stream(replace(dataset.train, folder=tmp_path))
    assert stream(replace(dataset.train, folder=tmp_path), start=4) == []


def test_seeds_decide_and_the_callers_random_state_is_left_alone(dataset):
    photographs = replace(dataset.train, workers=1)
    state = torch.get_rng_state()
    assert not torch.equal(*(pictures(photographs, augment="crop+flip", seed=seed) for seed in (1, 2)))
    assert torch.equal(torch.get_rng_state(), state)
    drawn, anew = (pictures(photographs, seed=None) for _ in range(2))
    torch.set_rng_state(state)
    assert torch.equal(pictures(photographs, seed=None), drawn) and not torch.equal(drawn, anew)


def test_labels_stay_with_their_pictures(dataset):
    x, labels = (torch.cat(parts) for parts in zip(*stream(dataset.train), strict=True))
    red_green_blue = 2 - labels
    assert (x.mean((2, 3)).argmax(1) == red_green_blue).sum() >= 22  # the grey one may differ


@pytest.mark.parametrize("method", inference.METHODS)
def test_errors_are_those_of_a_loop_over_the_pictures(dataset, method):
    torch.manual_seed(0)
    model = Recipe(width=1 / 32, size=32, batch_norm=True).model(3, 7)
    photographs = replace(dataset.train[::3], workers=1)
    top1 = top5 = 0
    for index, label in enumerate(photographs.labels.tolist()):
        x = opened(photographs, index, None)[None] / 255
        mean, std = (getattr(dataset.train.colours, name)[:, None, None] for name in ("mean", "std"))
        ranking = inference.multi_scale_scores(model, (x - mean) / std, [32, 48], method)[0].argsort(descending=True)
        top1 += label == ranking[0]
        top5 += label in ranking[:5]
    tested = count_errors(model, photographs, [32, 48], method)
    assert (tested.correct, tested.correct_top5, tested.total) == (top1, top5, 8)
    assert (tested.top1_error, tested.top5_error) == (1 - top1 / 8, 1 - top5 / 8)


def command(folder, out, *more):
    return [
        "train", "--recipe", "paper", "--config", "A", "--width", "0.0625", "--size", "32", "--batch-norm",
        "--batch-size", "8", "--epochs", "2", "--dropout", "0", "--initialization", "kaiming", "--device", "cpu",
        "--precision", "float32", "--data", f"imagefolder:{folder}", "--out", str(out), *more,
    ]  # fmt: skip


def test_the_command_line_trains_tests_and_writes_the_results(folder, tmp_path, capsys):
    testing = ("--test-method", "both", "--test-scales", "32", "40")
    main(command(folder, tmp_path, "--scale", "34", "38", *testing))
    printed, results = capsys.readouterr().out, json.loads((tmp_path / "results.json").read_text())
    model = Recipe(**results["recipe"]).model(3, 3)
    model.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    expected = count_errors(model, load(folder, (34, 38), workers=0).test, [32, 40], "both")
    assert f"both at 32, 40 pixels: top-1 error {expected.top1_error:.2%}" in printed
    assert f"{results['accuracy']:.2%} of 12 test images" in printed
    assert results["test"] == {
        "method": "both", "scales": [32, 40], **asdict(expected), "top1_error": expected.top1_error, "top5_error": 0
    }  # fmt: skip


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--data", "cifar"], "--data must be one of auto, .* or imagefolder:PATH, not cifar"),
        (["--data", "imagefolder:nowhere"], "there is no folder .*nowhere"),
        (["--data", "drawn-garments", "--test-method", "dense"], "--test-method.* needs --data imagefolder:PATH"),
        (["--data", "drawn-garments", "--scale", "40"], "--scale needs --data imagefolder:PATH"),
        (["--test-scales", "40"], "--test-scales needs --test-method"),
        (["--test-method", "both", "--test-scales", "40", "31"], "--test-scales must be at least 32, not 31"),
    ],
)
def test_the_command_line_answers_bad_input_in_one_line(folder, tmp_path, more, words):
    with pytest.raises(SystemExit, match=rf"^python -m vgglab: .*{words}.*\Z"):
        main(command(folder, tmp_path, *more))


def start(*arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONIOENCODING": "ascii"}
    return subprocess.Popen(
        [sys.executable, *arguments], env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="this system has no groups of processes")
def test_a_signal_to_the_whole_group_of_processes_saves_the_run(folder, tmp_path):
    more = ("--epochs", "1000", "--batch-size", "1", "--no-batch-norm", "--lr", "0.0001")
    process = start("-m", "vgglab", *command(folder, tmp_path, *more))
    while not process.stdout.readline().startswith("epoch"):
        assert process.poll() is None
    time.sleep(0.15)  # into the next epoch, while its pictures are decoded
    os.killpg(process.pid, signal.SIGTERM)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM and "stopped and saved in epoch" in printed
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["epochs"]


def test_two_processes_train_and_test_together_and_one_of_them_reports(folder, tmp_path):
    one_step = ("--epochs", "1", "--batch-size", "24")  # after which float32 agrees on every CPU
    more = (*one_step, "--no-batch-norm", "--augment", "crop", "--test-method", "dense")
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "vgglab")
    printed, _ = start(*launch, *command(folder, tmp_path / "two", *more)).communicate(timeout=120)
    assert printed.count("top-1 error") == 1
    main(command(folder, tmp_path / "one", *more))
    one, two = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("one", "two"))
    assert two["environment"]["processes"] == 2 and two["test"] == one["test"]
    assert one["test"]["scales"] == [37]  # 8/7 of the size
    histories = (json.loads((tmp_path / name / "history.json").read_text()) for name in ("one", "two"))
    (row,), (other,) = (history["epochs"] for history in histories)
    for loss in ("train_loss", "test_loss"):
        assert other[loss] == pytest.approx(row[loss], rel=1e-3)
