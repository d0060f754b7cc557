"""The experiments of the paper: what is compared, how runs are recorded, and what they say."""

import itertools
import json
import math
import os
import random
import shutil
import subprocess
import sys
import time
from argparse import ArgumentParser
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

from vgglab import data, machine, receptive_field, training
from vgglab.course.experiments import networks as builders
from vgglab.course.experiments import records, registry, runner
from vgglab.course.experiments.networks import Network, Photographs
from vgglab.course.experiments.registry import EXPERIMENTS, GPU_EXPERIMENTS, Experiment, find_experiment
from vgglab.models import vgg
from vgglab.training import fit
from vgglab.training.recipe import Recipe

TINY = Recipe(width=1 / 16, size=32, batch_norm=True, epochs=2, batch_size=50, lr=0.05, dropout=0.1)
SCENE = Photographs(side=48, objects=(24, 48), scales=(36, 64), test_scales=(36, 48, 64))
CPU = torch.device("cpu")


def tiny(networks=("A", "B"), **options):
    chosen = {config: Network(replace(TINY, config=config)) for config in networks}
    numbers = {"train_images": 100, "test_images": 50, "seeds": 2}
    return Experiment("?", "-", chosen, (("A", "B"),), **{**numbers, **options})


def result(content):
    """What two records have in common: all but times, dates and machines."""
    varying = {"machine", "seconds", "testing_seconds", "images_per_second"}
    runs = [{name: value for name, value in run.items() if name not in varying} for run in content["runs"]]
    for run in runs:
        run["epochs"] = [{name: value for name, value in row.items() if name != "seconds"} for row in run["epochs"]]
    return {**content, "facts": {}, "runs": runs}


def record_of(accuracies, measure="accuracy"):
    """A Record of runs with these accuracies, by network and seed."""
    runs = [
        {
            "network": network, "seed": seed, "results": {measure: accuracy}, "learned": accuracy > 0.2,
            "parameters": 10, "macs": 20, "seconds": 2.0 + seed,
            "machine": {"device": "abacus", "torch": "2.0", "date": f"2026-01-0{seed + 1}"},
        }
        for network, values in accuracies.items()
        for seed, accuracy in enumerate(values)
    ]  # fmt: skip
    return records.Record("test", "garments", {}, {}, runs)


# What is compared


@pytest.mark.parametrize("registry", [EXPERIMENTS, GPU_EXPERIMENTS], ids=["cpu", "gpu"])
def test_every_network_of_the_registry_takes_its_images_and_gives_ten_classes(registry):
    models = {
        json.dumps([network.recipe.config, network.recipe.width, network.recipe.size, network.build]): network
        for experiment in registry.values()
        for network in experiment.networks.values()
    }
    for network in models.values():
        with torch.device("meta"):
            x = torch.empty(2, 1, network.recipe.size, network.recipe.size)
            assert network.model()(x).shape == (2, 10)


@pytest.mark.parametrize("registry", [EXPERIMENTS, GPU_EXPERIMENTS], ids=["cpu", "gpu"])
def test_every_pair_of_the_registry_names_rows_that_the_record_will_have(registry):
    for experiment in registry.values():
        measures = builders.MEASURES[experiment.measure]
        rows = [f"{name}, {measure}" for name in experiment.networks for measure in measures]
        rows = list(experiment.networks) if experiment.measure == "accuracy" else rows
        assert {row for pair in experiment.pairs for row in pair} <= set(rows)
        assert experiment.facts in (None, *builders.FACTS)
        assert experiment.question.endswith("?") and experiment.claim


def test_the_registry_holds_the_eight_experiments_at_two_sizes():
    names = ["depth", "lrn", "one-by-one", "kernels", "scale", "evaluation", "initialization", "budget"]
    assert list(EXPERIMENTS) == list(GPU_EXPERIMENTS) == names
    assert all(experiment.seeds >= 5 for experiment in EXPERIMENTS.values())
    assert all(experiment.seeds >= 3 for experiment in GPU_EXPERIMENTS.values())
    assert find_experiment("depth", "gpu") is GPU_EXPERIMENTS["depth"]


def test_experiments_share_the_runs_that_they_have_in_common():
    shared = [("depth", "lrn", "A"), ("depth", "one-by-one", "C"), ("depth", "kernels", "B"), ("depth", "budget", "A")]
    for one, other, name in shared:
        assert EXPERIMENTS[one].networks[name] == EXPERIMENTS[other].networks[name]


@pytest.mark.parametrize(("name", "config", "kernel"), [("B 5x5", "B", 5), ("D 7x7", "D", 7)])
@pytest.mark.parametrize("size", [32, 224])
def test_larger_kernels_see_what_the_stacks_see(name, config, kernel, size):
    network = EXPERIMENTS["kernels"].networks[name]
    twin = builders.Network(replace(network.recipe, size=size), network.build)
    original = builders.Network(replace(network.recipe, config=config, size=size))
    with torch.device("meta"):
        models = [twin.model(), original.model()]
    fields = [receptive_field.of_model(model, (1, size, size)) for model in models]
    pools = [
        [field[f"features.{i}"] for i, layer in enumerate(model.features) if isinstance(layer, nn.MaxPool2d)]
        for field, model in zip(fields, models, strict=True)
    ]
    assert pools[0] == pools[1]
    assert kernel in {layer.kernel_size[0] for layer in models[0].modules() if isinstance(layer, nn.Conv2d)}


def test_merging_convolutions_replaces_whole_blocks_and_nothing_else():
    model = builders.merge_convolutions(vgg("D", 1, 10, 32, width=1 / 8, batch_norm=True), 3)
    convolutions = [layer for layer in model.features if isinstance(layer, nn.Conv2d)]
    assert [conv.kernel_size[0] for conv in convolutions] == [3, 3, 3, 3, 7, 7, 7]
    assert [conv.out_channels for conv in convolutions] == [8, 8, 16, 16, 32, 64, 64]
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in model.features) == 7


def test_networks_of_equal_cost_cost_the_same():
    for cost in ("parameters", "MACs"):
        networks = {
            f"{config}, equal {cost}": EXPERIMENTS["budget"].networks[f"{config}, equal {cost}"] for config in "BE"
        }
        chosen = builders.equal_costs(networks, CPU)
        target = builders.COSTS[cost](EXPERIMENTS["budget"].networks["A"].ledger())
        for network in runner._resolved(networks, chosen).values():
            assert builders.COSTS[cost](network.ledger()) == pytest.approx(target, rel=0.03)
            assert network.recipe.width < 1 / 8


def test_equal_seconds_shorten_the_training(monkeypatch):
    seconds = {"A": 1.0, "B": 1.4, "E": 9.0}
    monkeypatch.setattr(builders, "training_seconds", lambda network, device: seconds[network.recipe.config])
    for config, epochs in (("A", 6), ("B", 4), ("E", 1)):
        network = Network(replace(TINY, config=config, epochs=6), equal="seconds")
        assert builders.equal_cost(network, CPU) == {"epochs": epochs}
    monkeypatch.undo()
    assert 0 < builders.training_seconds(Network(TINY), CPU) < 5


def test_a_training_step_keeps_more_for_the_backward_pass_with_lrn():
    kept = {config: builders.bytes_kept(vgg(config, 1, 10, 32, 1 / 8), 32) for config in ("A", "A-LRN")}
    first_map = 32 * 32 * 8 * 4
    assert kept["A-LRN"] >= kept["A"] + 2 * first_map
    linear = nn.Sequential(nn.Flatten(), nn.Linear(100, 7), nn.ReLU())
    assert builders.bytes_kept(linear, 10) == 4 * (100 + 7)  # the input of the layer, and the output of ReLU


@pytest.mark.filterwarnings("ignore:the loss stands")
def test_a_warm_start_takes_the_layers_of_a_trained_a(garments):
    recipe = replace(TINY, config="B", batch_norm=False, initialization="std-0.01", epochs=1)
    model = Network(recipe, warm_start=True).warm_model(garments, 3, CPU)
    a = replace(recipe, config="A", initialization="xavier").model(seed=3)
    fit(a, garments, recipe=replace(recipe, config="A", initialization="xavier"), seed=3, device="cpu", progress=False)
    assert torch.equal(model.features[0].weight, a.features[0].weight)
    assert all(torch.equal(model.classifier[i].weight, a.classifier[i].weight) for i in (0, 3, 6))
    assert model.features[2].weight.std().item() == pytest.approx(0.01, rel=0.3)


# Photographs


def test_photographs_are_cut_at_their_scales(garments):
    photographs = SCENE.take(garments.train[:20], 0)
    assert photographs.pixels.shape == (20, 1, 48, 48)
    cut = SCENE.cut(photographs, 32, 0)
    assert cut.pixels.shape == (40, 1, 32, 32)
    assert torch.equal(cut.labels, garments.train.labels[:20].repeat(2))
    assert not torch.equal(cut.pixels[:20], cut.pixels[20:])
    whole = replace(SCENE, scales=(48, 48), cuts=1).cut(photographs, 48, 0)
    assert torch.equal(whole.pixels, photographs.pixels)


def test_scenes_keep_the_papers_proportions():
    scenes = registry._scenes(224)
    assert scenes["S small"].scales == (256, 256) and scenes["S small"].test_scales == (224, 256, 288)
    assert scenes["S large"].scales == (384, 384) and scenes["S large"].test_scales == (352, 384, 416)
    assert scenes["S jittered"].scales == (256, 512) and scenes["S jittered"].test_scales == (256, 384, 512)


@pytest.mark.parametrize("kind", ["scales", "methods"])
def test_photographs_are_tested_in_every_way(garments, kind):
    network = Network(TINY, photographs=SCENE)
    model = network.model()
    seen = network.seen(garments, 0)
    history = fit(model, data.Splits("cut", seen.train[:300], seen.test[:50]), recipe=TINY, progress=False)
    results = builders.measure(kind, network, model, history, garments.test[:120])
    assert tuple(results) == builders.MEASURES[kind]
    assert all(0 <= value <= 1 and value * 120 == pytest.approx(round(value * 120)) for value in results.values())


# The runner


def test_runs_are_recorded_paired_and_not_repeated(garments, tmp_path, capsys):
    path = tmp_path / "one.json"
    content = runner.run(tiny(), garments, path)
    assert "one: 4 of 4 runs to do, about" in capsys.readouterr().out
    assert [(run["seed"], run["network"]) for run in content["runs"]] == [(0, "A"), (0, "B"), (1, "A"), (1, "B")]
    first = content["runs"][0]
    assert len(first["epochs"]) == 2 and first["results"]["accuracy"] == first["epochs"][-1]["test_accuracy"]
    assert first["machine"]["torch"] == torch.__version__ and first["images_per_second"] > 0
    assert content["networks"]["A"]["train_images"] == 100
    assert garments.train.checksum() in content["data"]
    assert [file.name for file in tmp_path.iterdir()] == ["one.json"]

    before = path.read_bytes()
    runner.run(tiny(), garments, path)
    assert path.read_bytes() == before and "0 of 4 runs to do" in capsys.readouterr().out
    more = runner.run(tiny(), garments, path, seeds=3)
    assert more["runs"][:4] == content["runs"] and len(more["runs"]) == 6


def test_another_record_lends_its_runs_and_a_changed_network_is_trained_anew(garments, tmp_path, capsys):
    one = runner.run(tiny(), garments, tmp_path / "one.json")
    other = tiny()
    other = replace(other, networks={"again": other.networks["B"], "C": Network(replace(TINY, config="C"))}, seeds=1)
    two = runner.run(other, garments, tmp_path / "two.json")
    assert two["runs"][0] == {**one["runs"][1], "network": "again"}
    assert "two: 1 of 2 runs to do" in capsys.readouterr().out
    changed = replace(other, networks={"again": Network(replace(TINY, lr=0.01))})
    three = runner.run(changed, garments, tmp_path / "two.json")
    assert [run["network"] for run in three["runs"]] == ["again"]
    assert three["runs"][0]["epochs"] != two["runs"][0]["epochs"]


def test_what_was_recorded_stays_when_a_network_changes_or_a_recipe_gains_a_field(garments, tmp_path, capsys):
    path = tmp_path / "one.json"
    content = runner.run(replace(tiny(), seeds=1), garments, path)
    older = json.loads(path.read_text())
    for configuration in older["networks"].values():
        del configuration["recipe"]["label_smoothing"]  # as if the recipe of that day had not had it
    path.write_text(json.dumps(older))
    assert runner.run(replace(tiny(), seeds=1), garments, path) == content
    assert "0 of 2 runs to do" in capsys.readouterr().out
    other = replace(tiny(), networks={"B": Network(replace(TINY, lr=0.01))}, seeds=1)
    changed = runner.run(other, garments, path)
    assert [run["network"] for run in changed["runs"]] == ["B"] and changed["runs"] != content["runs"][1:]
    assert [(run["network"], run["seed"]) for run in changed["unused runs"]] == [("A", 0), ("B", 0)]
    assert runner.run(replace(tiny(), seeds=1), garments, path)["runs"] == content["runs"]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_shipped_record_is_that_of_its_experiment_with_nothing_to_run(name, fashion_mnist, tmp_path, capsys):
    shutil.copy(records.SHIPPED / f"{name}.json", tmp_path)
    before = (tmp_path / f"{name}.json").read_bytes()
    runner.run(EXPERIMENTS[name], fashion_mnist, tmp_path / f"{name}.json")
    assert f"{name}: 0 of" in capsys.readouterr().out and (tmp_path / f"{name}.json").read_bytes() == before


def test_each_seed_draws_its_own_training_images_for_all_networks(garments):
    experiment = tiny()
    draws = [experiment.drawn(garments, seed) for seed in (0, 0, 1)]
    assert [len(draw.train) for draw in draws] == [100] * 3 and len(draws[0].test) == 50
    assert draws[0].train.checksum() == draws[1].train.checksum() != draws[2].train.checksum()
    assert draws[0].test.checksum() == draws[2].test.checksum()


def test_a_run_that_diverges_is_recorded_as_guessing(garments, tmp_path):
    wild = replace(tiny(), networks={"A": Network(replace(TINY, lr=1e6, batch_norm=False))}, seeds=1)
    (run,) = runner.run(wild, garments, tmp_path / "wild.json")["runs"]
    assert run["results"] == {"accuracy": 0.1} and not run["learned"] and "the loss is" in run["diverged"]


def test_a_loss_at_chance_is_recorded_without_a_warning(garments, tmp_path, recwarn):
    still = Network(replace(TINY, batch_norm=False, initialization="std-0.01"))
    (run,) = runner.run(replace(tiny(), networks={"A": still}, seeds=1), garments, tmp_path / "still.json")["runs"]
    assert not run["learned"] and not [w for w in recwarn if "2.303" in str(w.message)]


def test_equal_costs_are_measured_once_and_kept(garments, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(builders, "training_seconds", lambda network, device: asked.append(1) or len(asked))
    networks = {"A": Network(TINY), "E": Network(replace(TINY, config="E", epochs=4), equal="seconds")}
    experiment = replace(tiny(), networks=networks, facts="equal costs", seeds=1)
    content = runner.run(experiment, garments, tmp_path / "budget.json")
    assert content["facts"]["chosen"] == {"E": {"epochs": 2}} and len(asked) == 2
    assert content["networks"]["E"]["recipe"]["epochs"] == len(content["runs"][1]["epochs"]) == 2
    again = runner.run(experiment, garments, tmp_path / "budget.json", seeds=2)
    assert len(asked) == 2 and again["facts"] == content["facts"]


def test_step_costs_name_time_and_memory():
    networks = {"A": Network(TINY), "A-LRN": Network(replace(TINY, config="A-LRN"))}
    costs = builders.step_costs(networks, CPU)
    assert costs["A-LRN"]["bytes_kept_per_image"] > costs["A"]["bytes_kept_per_image"]
    assert all(cost["milliseconds"] > 0 for cost in costs.values())


SURVIVOR = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_experiments import tiny
from vgglab import data
from vgglab.course.experiments import runner
runner.run(tiny(), data.drawn_garments(300, 100), Path(sys.argv[2]))
"""


def start(path):
    command = [sys.executable, "-c", SURVIVOR, str(Path(__file__).parent), str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(process):
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors


def test_a_runner_killed_at_random_points_ends_in_the_record_of_an_undisturbed_one(tmp_path):
    undisturbed = tmp_path / "undisturbed" / "one.json"
    finish(start(undisturbed))
    path, moments = tmp_path / "killed" / "one.json", random.Random(0)
    path.parent.mkdir()
    kills = 0
    for files in (1, 2, 3):  # nothing but the record, the first checkpoint, the one after it
        process = start(path)
        while process.poll() is None and len(list(path.parent.iterdir())) < files:
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.1))
        kills += process.poll() is None
        process.kill()
        process.communicate()
        if path.exists():
            records.read(path)
    assert kills >= 2
    finish(start(path))
    assert result(records.read(path)) == result(records.read(undisturbed))
    assert [file.name for file in path.parent.iterdir()] == ["one.json"]


def test_a_finished_training_is_not_repeated_when_its_testing_was_stopped(garments, tmp_path, monkeypatch):
    experiment, path = replace(tiny("A"), seeds=1), tmp_path / "one.json"
    undisturbed = runner.run(experiment, garments, tmp_path / "other" / "one.json")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(runner, "measure", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        runner.run(experiment, garments, path)
    assert list(tmp_path.glob("one.*.scratch"))
    with monkeypatch.context() as patch:
        patch.setattr(training.loop, "train_one_epoch", lambda *_: pytest.fail("trained again"))
        content = runner.run(experiment, garments, path)
    assert result(content) == result(undisturbed) and not list(tmp_path.glob("*.scratch*"))


def test_the_command_runs_reports_and_refuses(garments, tmp_path, monkeypatch, capsys):
    parser = ArgumentParser()
    runner.add_experiment(parser.add_subparsers())
    monkeypatch.setattr(data, "load", lambda name: garments)
    monkeypatch.setitem(EXPERIMENTS, "depth", tiny())
    options = parser.parse_args(["experiment", "depth", "--seeds", "1", "--records", str(tmp_path)])
    options.run(options)
    assert "A against B: no difference that these runs can show (one pair" in capsys.readouterr().out
    record = records.load_record("depth", folder=tmp_path)
    assert len(record.runs) == 2 and record.runs[0]["configuration"]["recipe"]["config"] == "A"
    with pytest.raises(SystemExit):
        parser.parse_args(["experiment", "death"])
    options = parser.parse_args(["experiment", "depth", "--seeds", "0"])
    with pytest.raises(ValueError, match="seeds must be at least 1, not 0"):
        options.run(options)


def test_the_time_is_estimated_from_multiply_adds():
    depth = EXPERIMENTS["depth"]
    runs = [(0, "A"), (1, "A")]
    once, twice = (runner.estimate(depth, depth.networks, part, CPU) for part in (runs[:1], runs))
    assert twice == pytest.approx(2 * once) and 5 < once < 40
    assert runner.estimate(depth, depth.networks, [], CPU) == 0


# What runs say


def test_t_quantiles_are_those_of_printed_tables():
    for degrees, t in {1: 12.706, 2: 4.303, 4: 2.776, 9: 2.262, 30: 2.042, 200: 1.972}.items():
        assert round(records.t_quantile(degrees), 3) == t


def test_the_t_interval_is_scipys():
    values = [0.3, -0.2, 0.5, 0.9, 0.1]
    expected = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert records.t_interval(values) == pytest.approx((expected.low, expected.high), rel=1e-5)
    assert records.t_interval([1.0]) == (-math.inf, math.inf)


def test_the_bootstrap_is_scipys_and_that_of_all_resamples():
    values = [0.3, -0.2, 0.5, 0.9, 0.1, 0.65]
    low, high = records.bootstrap_interval(values)
    theirs = scipy.stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=1)
    assert (low, high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.02)
    every = [np.mean(sample) for sample in itertools.product(values, repeat=len(values))]
    assert (low, high) == pytest.approx(tuple(np.quantile(every, (0.025, 0.975))), abs=0.02)
    assert records.bootstrap_interval(values) == (low, high)


def test_the_t_interval_holds_the_truth_as_often_as_it_says_and_the_bootstrap_of_five_does_not():
    samples = np.random.default_rng(0).normal(size=(300, 5))
    held = [[low < 0 < high for low, high in (records.t_interval(list(x)), records.bootstrap_interval(x, 500))]
            for x in samples]  # fmt: skip
    by_t, by_bootstrap = np.mean(held, axis=0)
    assert 0.91 < by_t < 0.98 and by_bootstrap < 0.89


def test_verdicts_say_which_is_better_and_by_how_much_or_that_they_cannot_tell():
    record = record_of({"A": [0.90, 0.91, 0.92], "B": [0.92, 0.931, 0.939], "C": [0.91, 0.90, 0.93]})
    better, worse = record.compare("B", "A"), record.compare("A", "B")
    assert better.difference == pytest.approx(2.0) and worse.difference == pytest.approx(-2.0)
    assert better.verdict == worse.verdict == "B is better by 2.00 points (95 % interval 1.75 to 2.25)"
    assert better.seeds == (0, 1, 2)
    assert record.compare("C", "A").verdict.startswith("no difference that these runs can show (95 % interval -2.54 to")


def test_pairing_by_seed_finds_what_unpaired_runs_would_not():
    record = record_of({"A": [0.80, 0.85, 0.90], "B": [0.81, 0.861, 0.909]})
    assert record.compare("B", "A").low > 0
    assert scipy.stats.ttest_ind([0.80, 0.85, 0.90], [0.81, 0.861, 0.909]).pvalue > 0.5


def test_a_table_has_a_row_for_each_network_and_way_of_testing():
    (row, other) = record_of({"A": [0.9, 0.8], "B": [0.1, 0.1]}).table()
    assert (row["row"], row["runs"], row["learned"], row["parameters"], row["macs"]) == ("A", 2, 2, 10, 20)
    assert row["accuracy"] == pytest.approx(0.85) and row["seconds"] == 2.5 and row["low"] < 0.85 < row["high"]
    assert other["learned"] == 0
    (row,) = record_of({"A, warm start": [0.5, 0.6]}, "dense").table()
    assert row["row"] == "A, warm start, dense" and row["runs"] == 2


def test_provenance_names_machine_days_and_data():
    assert record_of({"A": [0.9, 0.8]}).provenance == (
        "record test: 2 runs, 2026-01-01 to 2026-01-02, abacus, torch 2.0, garments"
    )


def test_bad_input_is_named(tmp_path, garments):
    record = record_of({"A": [0.9], "B": [0.8]})
    with pytest.raises(ValueError, match="b must be one of 'A', 'B', not 'Z'"):
        record.compare("A", "Z")
    with pytest.raises(ValueError, match="name must be one of 'depth', 'lrn'"):
        find_experiment("death")
    with pytest.raises(ValueError, match="size must be one of 'cpu', 'gpu', not 'large'"):
        records.load_record("depth", "large", tmp_path)
    with pytest.raises(FileNotFoundError, match="python -m vgglab experiment depth --size gpu makes them"):
        records.load_record("depth", "gpu", tmp_path)
    for text in ("{", '{"a": 1}', "[]"):
        (tmp_path / "depth.json").write_text(text)
        with pytest.raises(ValueError, match="depth.json is not the record of an experiment"):
            records.load_record("depth", folder=tmp_path)
        with pytest.raises(ValueError, match="depth.json is not the record of an experiment"):
            runner.run(tiny(), garments, tmp_path / "depth.json")


def test_seeds_without_a_partner_do_not_count():
    record = record_of({"A": [0.9, 0.8, 0.7], "B": [0.8, 0.7]})
    assert record.compare("A", "B").seeds == (0, 1)
    record.runs[:] = [run for run in record.runs if (run["network"], run["seed"]) not in {("B", 0), ("B", 1)}]
    record.runs.append({**record.runs[0], "network": "B", "seed": 7})
    with pytest.raises(ValueError, match="must have runs with the same seed"):
        record.compare("A", "B")


def test_the_largest_record_stays_small(tmp_path):
    """Every run of the experiment with most networks, with epochs as long as they get."""
    experiment = EXPERIMENTS["initialization"]
    epochs = [{f"{name}_{what}": 12.34567 for name in ("train", "test") for what in ("loss", "accuracy")}] * 6
    environment = machine.environment(CPU, "bfloat16")
    run = {"seed": 1, "parameters": 10**6, "macs": 10**7, "activations": 10**6, "machine": environment,
           "epochs": epochs, "results": {"accuracy": 0.12345}, "learned": True, "seconds": 12.34567,
           "testing_seconds": 0.0, "images_per_second": 1234}  # fmt: skip
    runs = [{"network": name, **run} for name in experiment.networks for _ in range(experiment.seeds)]
    networks = {name: network.configuration() for name, network in experiment.networks.items()}
    runner._write({"data": "", "facts": {}, "networks": networks, "runs": runs}, tmp_path / "large.json")
    assert (tmp_path / "large.json").stat().st_size < 200_000
    assert records.read(tmp_path / "large.json")["runs"] == runs


def test_a_file_of_another_kind_in_the_folder_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setenv("VGGLAB_RECORDS", str(tmp_path))
    (tmp_path / "benchmark-cpu.json").write_text('{"rounds": 3}')
    assert runner._known(tmp_path / "depth.json") == {}


# Where records are


def test_your_own_records_are_found_before_the_shipped_ones(tmp_path, monkeypatch):
    def write(folder, name, seconds):
        (tmp_path / folder).mkdir(exist_ok=True)
        runner._write({"data": "", "facts": {}, "networks": {"A": {}}, "runs": [
            {"network": "A", "seed": 0, "results": {}, "learned": True, "parameters": 1, "macs": 1, "seconds": seconds,
             "machine": {"device": "abacus", "torch": "2.0", "date": "2026-01-01"}}
        ]}, tmp_path / folder / name)  # fmt: skip

    monkeypatch.delenv("VGGLAB_RECORDS")
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert len(records.load_record("depth").runs) > 1 and len(records.find_records("benchmark-*.json")) == 1
    for seconds, folder in enumerate(("records", "notebooks/records")):
        write(folder, "depth.json", seconds)
        assert records.load_record("depth").runs[0]["seconds"] == seconds
    write("records", "depth-gpu.json", 2)
    assert records.load_record("depth", "gpu").runs[0]["seconds"] == 2
    found = [path.resolve() for path in records.find_records("depth*.json")]
    assert found == [tmp_path / "records" / "depth-gpu.json", tmp_path / "notebooks" / "records" / "depth.json"]
    monkeypatch.setenv("VGGLAB_RECORDS", str(records.SHIPPED))
    assert len(records.load_record("depth").runs) > 1


def test_runs_that_are_shipped_are_copied_to_your_own_records(garments, tmp_path, monkeypatch, capsys):
    shipped = runner.run(tiny(), garments, tmp_path / "shipped" / "one.json")
    monkeypatch.setenv("VGGLAB_RECORDS", str(tmp_path / "shipped"))
    own = runner.run(tiny(), garments, tmp_path / "records" / "one.json")
    assert own == shipped and "one: 0 of 4 runs to do" in capsys.readouterr().out
