"""The experiments of the paper: what is compared, and how runs are recorded."""

import json
import shutil
from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
from torch import nn

from vgglab import receptive_field
from vgglab.__main__ import main
from vgglab.course.experiments import networks as builders
from vgglab.course.experiments import records, runner
from vgglab.course.experiments.networks import Network, Photographs
from vgglab.course.experiments.registry import EXPERIMENTS, GPU_EXPERIMENTS, Experiment
from vgglab.training import fit
from vgglab.training.recipe import Recipe

TINY = Recipe(width=1 / 16, size=32, batch_norm=True, epochs=2, batch_size=50, lr=0.05, dropout=0.1)
SCENE = Photographs(side=48, objects=(24, 48), scales=(36, 64), test_scales=(36, 48, 64))
CPU = torch.device("cpu")


def tiny(**options):
    """An experiment that takes seconds."""
    networks = {config: Network(replace(TINY, config=config)) for config in "AB"}
    numbers = {"train_images": 100, "test_images": 50, "seeds": 2}
    return Experiment("?", "-", **{"networks": networks, "pairs": (("A", "B"),), **numbers, **options})


def test_every_network_of_the_registry_takes_its_images_and_gives_ten_classes():
    experiments = (*EXPERIMENTS.values(), *GPU_EXPERIMENTS.values())
    networks = [network for experiment in experiments for network in experiment.networks.values()]
    for network in {
        (one.recipe.config, one.recipe.width, one.recipe.size, one.build): one for one in networks
    }.values():
        with torch.device("meta"):
            x = torch.empty(2, 1, network.recipe.size, network.recipe.size)
            assert network.model()(x).shape == (2, 10)


@pytest.mark.parametrize(("name", "config", "kernels"), [("B 5x5", "B", {5}), ("D 7x7", "D", {3, 7})])
def test_larger_kernels_see_what_the_stacks_see(name, config, kernels):
    network = EXPERIMENTS["kernels"].networks[name]
    with torch.device("meta"):
        models = [network.model(), Network(replace(network.recipe, config=config)).model()]
    fields, pools = ([receptive_field.of_model(model, (1, 32, 32)) for model in models]), []
    for field, model in zip(fields, models, strict=True):
        places = [i for i, layer in enumerate(model.features) if isinstance(layer, nn.MaxPool2d)]
        pools.append([field[f"features.{i}"] for i in places])
    assert pools[0] == pools[1]
    assert kernels == {layer.kernel_size[0] for layer in models[0].modules() if isinstance(layer, nn.Conv2d)}


def test_networks_of_equal_cost_cost_the_same():
    budget = EXPERIMENTS["budget"].networks
    for cost, spend in builders.COSTS.items():
        target = spend(budget["A"].ledger())
        for network in (budget[f"B, equal {cost}"], budget[f"E, equal {cost}"]):
            recipe = replace(network.recipe, **builders.equal_cost(network, CPU))
            assert recipe.width < network.recipe.width
            assert spend(replace(network, recipe=recipe).ledger()) == pytest.approx(target, rel=0.03)


def test_a_training_step_keeps_more_for_the_backward_pass_with_lrn():
    networks = {config: Network(replace(TINY, config=config)) for config in ("A", "A-LRN")}
    with patch.object(builders, "training_seconds", side_effect=[0.5, 0.6, 0.4, 0.7, 0.5, 0.6]):
        costs = builders.step_costs(networks, CPU)
    assert [cost["milliseconds"] for cost in costs.values()] == [400, 600]
    first_map = 32 * 32 * 4 * 4
    assert costs["A-LRN"]["bytes_kept_per_image"] >= costs["A"]["bytes_kept_per_image"] + 2 * first_map
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


def test_photographs_are_cut_at_their_scales(garments):
    photographs = SCENE.take(garments.train[:20], 0)
    assert photographs.pixels.shape == (20, 1, 48, 48)
    cut = SCENE.cut(photographs, 32, 0)
    assert cut.pixels.shape == (40, 1, 32, 32)
    assert torch.equal(cut.labels, garments.train.labels[:20].repeat(2))
    assert not torch.equal(cut.pixels[:20], cut.pixels[20:])
    whole = replace(SCENE, scales=(48, 48), cuts=1).cut(photographs, 48, 0)
    assert torch.equal(whole.pixels, photographs.pixels)


def test_runs_are_recorded_paired_and_not_repeated(garments, tmp_path, capsys):
    path = tmp_path / "one.json"
    content = runner.run(tiny(), garments, path)
    assert "one: 4 of 4 runs to do, about" in capsys.readouterr().out
    assert [(run["seed"], run["network"]) for run in content["runs"]] == [(0, "A"), (0, "B"), (1, "A"), (1, "B")]
    first = content["runs"][0]
    assert len(first["epochs"]) == 2 and first["results"]["accuracy"] == first["epochs"][-1]["test_accuracy"]
    assert first["machine"]["torch"] == torch.__version__ and first["images_per_second"] > 0
    assert garments.train.checksum() in content["data"]
    before = path.read_bytes()
    runner.run(tiny(), garments, path)
    assert path.read_bytes() == before and "0 of 4 runs to do" in capsys.readouterr().out
    more = runner.run(tiny(), garments, path, seeds=3)
    assert more["runs"][:4] == content["runs"] and len(more["runs"]) == 6


@pytest.mark.parametrize("lender", ["own", "shipped"])
def test_another_record_lends_its_runs(lender, garments, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VGGLAB_RECORDS", str(tmp_path / "shipped"))
    one = runner.run(tiny(), garments, tmp_path / lender / "one.json")
    (tmp_path / lender / "another.json").write_text('{"rounds": 3}')  # passed over
    networks = {"again": tiny().networks["B"], "C": Network(replace(TINY, config="C"))}
    two = runner.run(tiny(networks=networks, seeds=1), garments, tmp_path / "own" / "two.json")
    assert two["runs"][0] == {**one["runs"][1], "network": "again"}
    assert "two: 1 of 2 runs to do" in capsys.readouterr().out


def test_what_was_recorded_stays_when_a_network_changes_or_a_recipe_gains_a_field(garments, tmp_path, capsys):
    path = tmp_path / "one.json"
    content = runner.run(tiny(seeds=1), garments, path)
    older = json.loads(path.read_text())
    for configuration in older["networks"].values():
        del configuration["recipe"]["label_smoothing"]  # as if the recipe of that day had not had it
    path.write_text(json.dumps(older))
    assert runner.run(tiny(seeds=1), garments, path) == content
    assert "0 of 2 runs to do" in capsys.readouterr().out
    other = tiny(networks={"B": Network(replace(TINY, lr=0.01))}, seeds=1)
    changed = runner.run(other, garments, path)
    assert [run["network"] for run in changed["runs"]] == ["B"] and changed["runs"] != content["runs"][1:]
    assert [(run["network"], run["seed"]) for run in changed["unused runs"]] == [("A", 0), ("B", 0)]
    assert runner.run(tiny(seeds=1), garments, path)["runs"] == content["runs"]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_shipped_record_is_that_of_its_experiment_with_nothing_to_run(name, fashion_mnist, tmp_path, capsys):
    shutil.copy(records.SHIPPED / f"{name}.json", tmp_path)
    before = (tmp_path / f"{name}.json").read_bytes()
    runner.run(EXPERIMENTS[name], fashion_mnist, tmp_path / f"{name}.json")
    assert f"{name}: 0 of" in capsys.readouterr().out and (tmp_path / f"{name}.json").read_bytes() == before
    assert len(before) < 200_000


def test_each_seed_draws_its_own_training_images_for_all_networks(garments):
    experiment = tiny()
    draws = [experiment.drawn(garments, seed) for seed in (0, 0, 1)]
    assert [len(draw.train) for draw in draws] == [100] * 3 and len(draws[0].test) == 50
    assert draws[0].train.checksum() == draws[1].train.checksum() != draws[2].train.checksum()
    assert draws[0].test.checksum() == draws[2].test.checksum()


def test_runs_that_diverge_or_stay_at_chance_are_recorded_so_without_a_warning(garments, tmp_path, recwarn):
    changes = {"wild": {"lr": 1e6}, "still": {"initialization": "std-0.01"}}
    networks = {name: Network(replace(TINY, batch_norm=False, **change)) for name, change in changes.items()}
    wild, still = runner.run(tiny(networks=networks, seeds=1), garments, tmp_path / "one.json")["runs"]
    assert wild["results"] == {"accuracy": 0.1} and "the loss is" in wild["diverged"] and "diverged" not in still
    assert not wild["learned"] and not still["learned"] and not [w for w in recwarn if "2.303" in str(w.message)]


def test_equal_seconds_shorten_the_training_and_are_measured_once(garments, tmp_path):
    seconds = {"A": 1.0, "B": 1.4, "E": 9.0}
    networks = {config: Network(replace(TINY, config=config, epochs=4), equal="seconds") for config in "BE"}
    experiment = tiny(networks=networks, facts="equal costs", seeds=1)
    with patch.object(builders, "training_seconds", wraps=lambda network, _: seconds[network.recipe.config]) as asked:
        content = runner.run(experiment, garments, tmp_path / "budget.json")
        again = runner.run(experiment, garments, tmp_path / "budget.json", seeds=2)
    assert content["facts"]["chosen"] == {"B": {"epochs": 3}, "E": {"epochs": 1}}
    assert [len(run["epochs"]) for run in again["runs"]] == [3, 1, 3, 1]
    assert asked.call_count == 4 and again["facts"] == content["facts"]


def test_a_run_that_was_stopped_goes_on_where_it_was_and_leaves_nothing_but_the_record(garments, tmp_path):
    path = tmp_path / "one.json"
    with patch.object(runner, "measure", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        runner.run(tiny(seeds=1), garments, path)
    (scratch,) = tmp_path.glob("one.*.scratch")
    trained = torch.load(scratch, weights_only=True)["epochs"]
    (tmp_path / "one.jsonabcdefgh.part").touch()  # half written by a killed one
    run, _ = runner.run(tiny(seeds=1), garments, path)["runs"]
    assert [row["seconds"] for row in run["epochs"]] == [round(row["seconds"], 5) for row in trained]
    assert [file.name for file in tmp_path.iterdir()] == ["one.json"]


def test_the_command_refuses_no_seeds():
    with pytest.raises(SystemExit, match="python -m vgglab: seeds must be at least 1, not 0"):
        main(["experiment", "depth", "--seeds", "0"])
