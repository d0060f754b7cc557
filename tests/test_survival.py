"""Runs that are killed, told to stop, or spread over processes end where an undisturbed run ends."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch

from vgglab.training import checkpoint, fit
from vgglab.training.recipe import Recipe

SETTINGS = """
import dataclasses, json, sys, torch
from vgglab import data
from vgglab.training.processes import Processes, leave
from vgglab.training import Recipe, fit
folder, dropout, batch_norm = sys.argv[1], float(sys.argv[2]), sys.argv[3] == "norm"
recipe = Recipe(width=1 / 8, size=32, batch_norm=batch_norm, epochs=4, batch_size=50, lr=0.05, dropout=dropout,
                initialization="kaiming", schedule="one-cycle", augment="shift+flip")
model = recipe.model().double()  # in which one process and two stay together on every CPU
model.register_forward_pre_hook(lambda _, inputs: inputs[0].double())
torch.save(model.state_dict(), folder + "/initial.pt")
history = fit(model, data.drawn_garments(601, 201), recipe=recipe, precision="float32", device="cpu",
              checkpoint=folder + "/run.pt", progress=False)
if Processes("cpu").is_main:
    with open(folder + "/history.json", "w") as file:
        json.dump(dataclasses.asdict(history), file)
    torch.save(model.state_dict(), folder + "/weights.pt")
leave()
"""
RECIPE = Recipe(width=1 / 16, size=32, batch_norm=True, epochs=2, batch_size=50, lr=0.05, augment="shift+flip")


def start(folder, *arguments, processes=1):
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    program = folder / "train.py"
    program.write_text(SETTINGS)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, *launch, str(program), str(folder), *arguments]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def finish(process):
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors


def results(folder):
    epochs = json.loads((folder / "history.json").read_text())["epochs"]
    rows = [{name: value for name, value in row.items() if name != "seconds"} for row in epochs]
    return torch.load(folder / "weights.pt", weights_only=True), rows


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    finish(start(folder, "0.2", "norm"))
    return results(folder)


def test_a_run_killed_again_and_again_ends_in_the_same_weights(tmp_path, undisturbed):
    moments, kills = random.Random(0), 0
    for epochs_before_the_kill in (0, 1, 2, 3):
        process = start(tmp_path, "0.2", "norm")
        while process.poll() is None and epochs_done(tmp_path / "run.pt") < epochs_before_the_kill:
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.2) if epochs_before_the_kill else 3)
        kills += process.poll() is None
        process.kill()
        process.communicate()
    assert kills >= 3 and not (tmp_path / "weights.pt").exists()
    finish(start(tmp_path, "0.2", "norm"))
    weights, rows = results(tmp_path)
    assert rows == undisturbed[1]
    assert all(torch.equal(weights[name], value) for name, value in undisturbed[0].items())
    assert not list(tmp_path.glob("*.part"))


def epochs_done(path):
    try:
        return len(torch.load(path, weights_only=True)["epochs"])
    except FileNotFoundError:
        return 0


@pytest.mark.parametrize(("number", "outcome"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)])
def test_a_signal_saves_in_the_middle_of_an_epoch_and_the_run_goes_on_there(garments, tmp_path, number, outcome):
    expected, resumed, stopped = (RECIPE.model() for _ in range(3))
    undisturbed = fit(expected, garments, recipe=RECIPE, progress=False)
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)

    forwards = []

    def send_at_the_fifth(network, *_):
        forwards.append(network.training)
        if network.training and sum(forwards) == 5:
            signal.raise_signal(number)

    stopped.register_forward_hook(send_at_the_fifth)
    with pytest.raises(outcome):
        fit(stopped, garments, recipe=RECIPE, checkpoint=tmp_path / "run.pt", progress=False)
    state = torch.load(tmp_path / "run.pt", weights_only=True)
    assert (len(state["epochs"]), state["step"]) == (0, 5)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers

    history = fit(resumed, garments, recipe=RECIPE, checkpoint=tmp_path / "run.pt", progress=False)
    assert all(map(torch.equal, resumed.state_dict().values(), expected.state_dict().values()))
    for row, other in zip(history.epochs, undisturbed.epochs, strict=True):
        assert {**row, "seconds": 0} == {**other, "seconds": 0}


def test_a_full_disk_leaves_the_checkpoint_before_and_says_why(garments, tmp_path, monkeypatch):
    fit(RECIPE.model(), garments, recipe=RECIPE, epochs=1, checkpoint=tmp_path / "run.pt", progress=False)
    before = (tmp_path / "run.pt").read_bytes()

    def full(state, file):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(tmp_path / "run.pt", {})
    assert (tmp_path / "run.pt").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["run.pt"]


def test_a_checkpoint_that_cannot_be_written_is_refused_before_training(garments, tmp_path):
    (tmp_path / "file").touch()
    model = RECIPE.model()
    before = [parameter.clone() for parameter in model.parameters()]
    for place, words in ((tmp_path, "must be a file, not a folder"), (tmp_path / "file" / "run.pt", "file")):
        with pytest.raises(OSError, match=words):
            fit(model, garments, recipe=RECIPE, checkpoint=place, progress=False)
    assert all(map(torch.equal, model.parameters(), before))


def test_two_processes_train_as_one_does_at_the_same_global_batch(tmp_path):
    """601 images in batches of 50 end in a batch of one image, of which the second process has nothing."""
    (tmp_path / "one").mkdir(), (tmp_path / "two").mkdir()
    finish(start(tmp_path / "one", "0", "plain"))
    finish(start(tmp_path / "two", "0", "plain", processes=2))
    (one, rows), (two, others) = results(tmp_path / "one"), results(tmp_path / "two")
    initial = torch.load(tmp_path / "one" / "initial.pt", weights_only=True)
    for name, value in one.items():
        assert (two[name] - value).norm() < 1e-6 * (value - initial[name]).norm(), name
    for row, other in zip(rows, others, strict=True):
        assert other == pytest.approx(row, rel=1e-5)
