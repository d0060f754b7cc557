"""Photographs in class folders: what is cut out of them, what is drawn at random, and training and testing on them."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.transforms.functional import resize

from vgglab import inference
from vgglab.__main__ import main
from vgglab.data import batches
from vgglab.data.imagefolder import AUGMENTATIONS, load, measure_colours, random_tint
from vgglab.inference import errors as count_errors
from vgglab.training import History, Recipe, evaluate, fit

COLOURS = {"blue": (40, 60, 200), "green": (50, 180, 60), "red": (210, 50, 40)}
RECIPE = Recipe(
    width=1 / 16, size=32, batch_norm=True, dropout=0.0, initialization="kaiming", epochs=4, batch_size=8, lr=0.02,
    augment="crop+flip+rgb",
)  # fmt: skip


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
    return list(batches(photographs, 7, size, **{"shuffle": True, "seed": 3, **options}))


def pictures(photographs, **options):
    return torch.cat([x for x, _ in stream(photographs, **options)])


def grey_levels(photographs, x):
    """Normalized pixels (N, 3, H, W) as values from 0 to 255 again."""
    mean, std = photographs.colours.mean[:, None, None], photographs.colours.std[:, None, None]
    return (x * std + mean) * 255


def opened(photographs, index, scale):
    """A picture read without vgglab, as uint8 (3, H, W)."""
    picture = ImageOps.exif_transpose(Image.open(photographs.path(index))).convert("RGB")
    return torch.from_numpy(np.array(picture if scale is None else resize(picture, scale))).permute(2, 0, 1)


def same_batches(ours, theirs):
    return len(ours) == len(theirs) and all(map(torch.equal, sum(ours, ()), sum(theirs, ())))


# ---- listing


def test_folders_are_classes_and_test_pictures_share_the_colours_of_training(folder, dataset):
    assert dataset.name == "imagefolder:colours" and dataset.train.classes == dataset.test.classes == tuple(COLOURS)
    assert dataset.train.labels.tolist() == [0] * 8 + [1] * 8 + [2] * 8 and len(dataset.test) == 12
    assert dataset.test.colours is dataset.train.colours
    assert not torch.allclose(measure_colours(dataset.test).mean, dataset.train.colours.mean, atol=1e-4)


def test_a_folder_called_test_stands_in_for_val(folder, tmp_path):
    shutil.copytree(folder / "train", tmp_path / "train")
    shutil.copytree(folder / "val", tmp_path / "test")
    assert len(load(tmp_path, 36, workers=0).test) == 12


def test_a_tenth_of_plain_class_folders_is_held_out_by_seed(folder):
    first, again, other = (load(folder / "train", 36, seed, workers=0) for seed in (0, 0, 1))
    everything = {f"{name}/{number}.png" for name in COLOURS for number in range(8)}
    for dataset in (first, other):
        assert len(dataset.test) == 2 and set(dataset.train.paths) | set(dataset.test.paths) == everything
        assert not set(dataset.train.paths) & set(dataset.test.paths)
        for part in (dataset.train, dataset.test):
            assert [part.classes[label] for label in part.labels] == [path.split("/")[0] for path in part.paths]
    assert first.test.paths == again.test.paths != other.test.paths


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"path": "nowhere"}, FileNotFoundError, "there is no folder .*nowhere"),
        ({"path": 3}, TypeError, "path must be the path of a file or folder, not 3"),
        ({"path": "train/red"}, FileNotFoundError, "train/ and val/.*train/red holds no folders"),
        ({"path": "one"}, ValueError, "at least two.*one holds the one folder red"),
        ({"path": "hollow"}, FileNotFoundError, "hollow.*classes blue"),
        ({"path": "differing"}, ValueError, "same classes.*blue is in .*train and not in .*val"),
        ({"scale": 0}, ValueError, "scale must be at least 1, not 0"),
        ({"scale": (40, 36)}, ValueError, "the largest of scale must be at least 40, not 36"),
        ({"scale": (36, 40, 44)}, ValueError, r"scale must be one integer or a pair \(smallest, largest\)"),
        ({"scale": 36.5}, TypeError, "scale must be an integer, not 36.5"),
        ({"seed": "a"}, TypeError, "seed must be an integer"),
        ({"workers": -1}, ValueError, "workers must be at least 0"),
    ],
)
def test_bad_arguments_are_named(folder, tmp_path, arguments, error, words):
    shutil.copytree(folder / "val", tmp_path / "differing" / "train")
    shutil.copytree(folder / "val", tmp_path / "differing" / "val")
    shutil.rmtree(tmp_path / "differing" / "val" / "blue")
    shutil.copytree(folder / "val" / "red", tmp_path / "one" / "red")
    shutil.copytree(folder / "val" / "red", tmp_path / "hollow" / "red")
    (tmp_path / "hollow" / "blue").mkdir()
    if "path" in arguments and isinstance(arguments["path"], str):
        inside = folder if arguments["path"].startswith("train") else tmp_path
        arguments = {"path": inside / arguments["path"]}
    with pytest.raises(error, match=words):
        load(**{"path": folder, "workers": 0, **arguments})


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"size": 37}, ValueError, "size must be at most 36, the smallest scale, not 37"),
        ({"size": None}, TypeError, "size must be an integer, not None"),
        ({"augment": "flip"}, ValueError, "augment must be one of 'crop', 'crop.flip', 'crop.flip.rgb', not 'flip'"),
    ],
)
def test_bad_batches_are_named(dataset, options, error, words):
    with pytest.raises(error, match=words):
        stream(dataset.train, **options)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("content", [b"no picture", None])
def test_a_damaged_picture_is_named_in_one_line(folder, dataset, tmp_path, workers, content):
    shutil.copytree(folder / "val", tmp_path / "val")
    damaged = tmp_path / "val" / "green" / "2.png"
    damaged.write_bytes(damaged.read_bytes()[:2000] if content is None else content)
    photographs = replace(dataset.test, folder=tmp_path / "val", workers=workers)
    with pytest.raises(
        ValueError, match=r"green/2.png cannot be read as a picture \(.*\): replace or delete it"
    ) as caught:
        stream(photographs)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="green/2.png"):
        load(tmp_path / "val", 36, workers=workers)


# ---- pictures


def test_without_augmentation_the_middle_of_every_rescaled_picture_is_taken(dataset):
    jittered = replace(dataset.train, scale=(33, 39))
    x = grey_levels(jittered, pictures(jittered, shuffle=False))
    for index, ours in enumerate(x):
        picture = opened(jittered, index, 36)
        assert min(picture.shape[1:]) == 36
        top, left = ((side - 32) // 2 for side in picture.shape[1:])
        torch.testing.assert_close(ours, picture[:, top : top + 32, left : left + 32].float(), rtol=0, atol=1e-2)
    portrait = opened(jittered, jittered.paths.index("red/0.png"), 36)
    assert portrait.shape == (3, 54, 36)  # 60 x 40 on its side


@pytest.mark.parametrize("scale", [(36, 36), (33, 40)])
def test_a_random_crop_is_a_window_of_the_picture_at_one_of_the_scales(dataset, scale):
    photographs = replace(dataset.test, scale=scale)
    found = {}
    for epoch in range(4):
        x = grey_levels(photographs, pictures(photographs, shuffle=False, augment="crop", seed=epoch)).round()
        assert x.shape == (12, 3, 32, 32)
        for index, ours in enumerate(x):
            found[epoch, index] = next(place for place in places(photographs, index, ours, scale))
    assert len(set(found.values())) > 20
    assert {place[0] for place in found.values()} >= ({36} if scale == (36, 36) else {33, 40})


def places(photographs, index, crop, scale):
    """(scale, top, left) wherever crop stands in the picture."""
    for side in range(scale[0], scale[1] + 1):
        windows = opened(photographs, index, side).float().unfold(1, 32, 1).unfold(2, 32, 1)
        equal = (windows.permute(1, 2, 0, 3, 4) == crop).flatten(2).all(2)
        yield from ((side, *place) for place in equal.nonzero().tolist())


def test_half_of_the_crops_are_mirrored(dataset):
    plain, flipped = (pictures(dataset.train, augment=name, seed=5) for name in ("crop", "crop+flip"))
    mirrored = [torch.equal(ours, theirs.flip(-1)) for ours, theirs in zip(flipped, plain, strict=True)]
    kept = [torch.equal(ours, theirs) for ours, theirs in zip(flipped, plain, strict=True)]
    assert [a != b for a, b in zip(mirrored, kept, strict=True)] == [True] * 24
    assert 6 <= sum(mirrored) <= 18


def test_the_rgb_shift_is_one_colour_for_a_whole_picture(dataset):
    plain, shifted = (pictures(dataset.train, augment=name) for name in ("crop+flip", "crop+flip+rgb"))
    shifts = (shifted - plain) * dataset.train.colours.std[:, None, None]
    assert (shifts - shifts.mean((2, 3), keepdim=True)).abs().max() < 1e-5
    assert len(shifts[:, 0, 0, 0].unique()) == 24 and 1e-3 < shifts.std() < 0.1


def test_the_rgb_shift_varies_along_the_eigenvectors_by_a_tenth_of_the_eigenvalues(dataset):
    x = torch.cat([opened(dataset.train, i, 36).flatten(1) for i in range(24)], 1).double() / 255
    covariance = torch.cov(x, correction=0)
    eigenvalues, eigenvectors = torch.linalg.eigh(covariance)
    generator = random.Random(0)
    draws = torch.stack([random_tint(dataset.train.colours.tint, generator) for _ in range(10_000)]).double()
    torch.testing.assert_close((draws @ eigenvectors).std(0), 0.1 * eigenvalues, rtol=0.03, atol=0)
    assert torch.corrcoef((draws @ eigenvectors).T).fill_diagonal_(0).abs().max() < 0.05
    assert (draws.mean(0).abs() < 0.005 * eigenvalues.max()).all()


def test_training_pictures_have_mean_0_and_standard_deviation_1(dataset):
    whole = torch.cat([dataset.train.normalized(opened(dataset.train, i, 36)[None]).flatten(2) for i in range(24)], 2)[
        0
    ]
    torch.testing.assert_close(whole.mean(1), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(whole.std(1), torch.ones(3), rtol=1e-3, atol=0)
    crops = pictures(dataset.train).transpose(0, 1).flatten(1)
    assert (crops.mean(1).abs() < 0.05).all() and ((crops.std(1) - 1).abs() < 0.05).all()


# ---- random numbers


@pytest.mark.parametrize("augment", [None, *AUGMENTATIONS])
def test_neither_workers_nor_processes_nor_the_start_change_a_pixel(dataset, augment):
    here = replace(dataset.train, scale=(33, 40))
    there = replace(here, workers=2)
    expected = stream(here, augment=augment)
    assert [len(x) for x, _ in expected] == [7, 7, 7, 3]
    assert same_batches(stream(there, augment=augment), expected)
    assert same_batches(stream(here, augment=augment, start=2), expected[2:])
    shares = [
        stream(photographs, augment=augment, share=(rank, 4)) for rank, photographs in enumerate((here, there) * 2)
    ]
    assert shares[3][-1][0].shape == (0, 3, 32, 32) and shares[3][-1][1].shape == (0,)
    for parts, (x, labels) in zip(zip(*shares, strict=True), expected, strict=True):
        for rank, (part, part_labels) in enumerate(parts):
            assert torch.equal(part, x[rank::4]) and torch.equal(part_labels, labels[rank::4])


@pytest.fixture(params=["macOS", "Windows"])
def elsewhere(request, monkeypatch):
    """What workers meet on other systems: processes that begin empty; no groups and no masks for signals."""
    if request.param == "macOS":
        context = multiprocessing.context._default_context
        monkeypatch.setattr(context, "_actual_context", multiprocessing.get_context("spawn"))
    else:
        monkeypatch.delattr(signal, "pthread_sigmask")
        monkeypatch.delattr(os, "setpgrp")


def test_workers_decode_on_other_systems_too(dataset, elsewhere):
    assert same_batches(stream(replace(dataset.train, workers=1)), stream(dataset.train))


def test_skipped_steps_are_not_read(dataset, tmp_path):
    with pytest.raises(ValueError, match="cannot be read"):
        stream(replace(dataset.train, folder=tmp_path))
    assert stream(replace(dataset.train, folder=tmp_path), start=4) == []


def test_seeds_decide_and_the_callers_random_state_is_left_alone(dataset):
    torch.manual_seed(0)
    state = torch.get_rng_state()
    photographs = replace(dataset.train, workers=1)
    first, again, other = (pictures(photographs, augment="crop+flip", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    pictures(photographs, shuffle=False, seed=None)
    assert torch.equal(torch.get_rng_state(), state)
    drawn, anew = (pictures(photographs, seed=None) for _ in range(2))
    torch.manual_seed(0)
    assert torch.equal(pictures(photographs, seed=None), drawn) and not torch.equal(drawn, anew)


def test_labels_stay_with_their_pictures(dataset):
    brightest = torch.cat([x.mean((2, 3)).argmax(1) for x, _ in stream(dataset.train, shuffle=True)])
    labels = torch.cat([labels for _, labels in stream(dataset.train, shuffle=True)])
    assert (brightest == 2 - labels).sum() >= 22  # red, green, blue are channels 0, 1, 2; the grey one may differ


# ---- training and testing


def test_a_narrow_vgg_learns_the_colours_and_refuses_the_checkpoint_of_another_scale(folder, dataset, tmp_path):
    recipe = replace(RECIPE, epochs=24, lr=0.01, schedule="one-cycle")
    model = recipe.model(3, 3)
    checkpoint = tmp_path / "run.pt"
    history = fit(model, dataset, recipe=recipe, checkpoint=checkpoint, device="cpu", progress=False)
    tested = evaluate(model, dataset.test, batch_size=recipe.batch_size, precision="auto")
    assert history.accuracy == tested.accuracy > 0.6
    assert history.epochs[-1]["train_loss"] < history.epochs[0]["train_loss"]
    assert fit(model, dataset, recipe=recipe, checkpoint=checkpoint, device="cpu", progress=False) == history
    with pytest.raises(ValueError, match="another run: data is 'imagefolder:colours, 24"):
        fit(model, load(folder, 37, workers=0), recipe=recipe, checkpoint=checkpoint, device="cpu", progress=False)


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
    shares = [count_errors(model, photographs, [32, 48], method, (rank, 3)) for rank in range(3)]
    assert sum(part.correct for part in shares) == top1 and [part.total for part in shares] == [3, 3, 2]


# ---- the command line


def command(folder, out, *more):
    return [
        "train", "--recipe", "paper", "--config", "A", "--width", "0.0625", "--size", "32", "--batch-norm",
        "--batch-size", "8", "--epochs", "2", "--lr", "0.02", "--dropout", "0", "--initialization", "kaiming",
        "--schedule", "constant", "--momentum", "0.8", "--weight-decay", "0.001", "--device", "cpu", "--precision",
        "float32", "--data", f"imagefolder:{folder}", "--out", str(out), *more,
    ]  # fmt: skip


def test_the_command_line_trains_tests_and_writes_the_results(folder, tmp_path, capsys):
    for method, scales in (("dense", ["--test-scales", "32", "40"]), ("multi-crop", [])):
        main(command(folder, tmp_path, "--scale", "34", "38", "--test-method", method, *scales))
        results = json.loads((tmp_path / "results.json").read_text())
        tested, scales = results["test"], [int(scale) for scale in scales[1:]] or [36]
        assert (tested["method"], tested["scales"], tested["total"]) == (method, scales, 12)
        recipe = Recipe(**results["recipe"])
        assert recipe == replace(
            RECIPE,
            epochs=2,
            schedule="constant",
            momentum=0.8,
            weight_decay=0.001,
            augment="crop+flip+rgb",
            flip_test=True,
        )
        model = recipe.model(3, 3)
        model.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
        expected = count_errors(model, load(folder, (34, 38), workers=0).test, scales, method)
        assert (tested["correct"], tested["top1_error"]) == (expected.correct, expected.top1_error)
        assert tested["top5_error"] == 0  # of three classes
        printed = capsys.readouterr().out
        assert f"{method} at {', '.join(map(str, scales))} pixels: top-1 error {expected.top1_error:.2%}" in printed
        history = History.load(tmp_path / "history.json")
        assert results["accuracy"] == history.accuracy and f"{history.accuracy:.2%} of 12 test images" in printed


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--data", "cifar"], "--data must be one of auto, .* or imagefolder:PATH, not cifar"),
        (["--data", "imagefolder:nowhere"], "there is no folder .*nowhere"),
        (["--data", "drawn-garments", "--test-method", "dense"], "--test-method dense needs --data imagefolder:PATH"),
        (["--data", "drawn-garments", "--scale", "40"], "--scale needs --data imagefolder:PATH"),
        (["--test-scales", "40"], "--test-scales needs --test-method"),
        (["--test-method", "both", "--test-scales", "40", "31"], "--test-scales must be at least 32, not 31"),
        (["--scale", "30"], "size must be at most 30, the smallest scale, not 32"),
        (["--augment", "shift"], "augment must be one of 'crop'"),
    ],
)
def test_the_command_line_answers_bad_input_in_one_line(folder, tmp_path, more, words):
    with pytest.raises(SystemExit, match=f"^python -m vgglab: .*{words}") as caught:
        main(command(folder, tmp_path, *more))
    assert "\n" not in str(caught.value)


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
    assert two["test"] == one["test"] and two["environment"]["processes"] == 2
    (row,), (other,) = (History.load(tmp_path / name / "history.json").epochs for name in ("one", "two"))
    for loss in ("train_loss", "test_loss"):
        assert other[loss] == pytest.approx(row[loss], rel=1e-3)
