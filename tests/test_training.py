"""The loop, what it reports, and how it stops and goes on."""

import json
import math
import os
import subprocess
import sys
import warnings
from dataclasses import asdict, replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vgglab import commands, data, training
from vgglab.__main__ import main
from vgglab.data.images import MEAN, STD
from vgglab.models import vgg
from vgglab.training import RECIPES, Recipe, evaluate, fit, processes

TINY = Recipe(
    width=1 / 16, size=32, batch_norm=True, epochs=3, batch_size=50, lr=0.05, dropout=0.1, schedule="one-cycle"
)


def weights(model):
    return torch.cat([tensor.flatten().double() for tensor in model.state_dict().values()])


class Scores(nn.Module):
    """Gives image i the scores of row i of a table, which the first pixels of the image name."""

    def __init__(self, table):
        super().__init__()
        self.table = nn.Parameter(table)

    def forward(self, x):
        rows = ((x[:, 0, 0, 0] * STD + MEAN) * 255).round().long()
        return self.table[rows]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(1, 70), st.integers(0, 5))
def test_accuracy_is_correct_over_total_on_ragged_batches(count, batch_size, seed):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 28, 28)
    labels = torch.randint(10, (count,), generator=generator)
    table = torch.randn(count, 10, generator=generator)
    recipe = Recipe(size=28, batch_size=batch_size)
    result = evaluate(Scores(table), data.Images(pixels, labels), recipe=recipe, precision="float32")
    assert (result.correct, result.total) == ((table.argmax(1) == labels).sum(), count)
    assert result.accuracy == result.correct / count
    assert result.loss == pytest.approx(F.cross_entropy(table, labels).item(), rel=1e-5)


def test_evaluate_leaves_modes_and_weights_alone_and_switches_dropout_off(random_images):
    model = vgg("A", 1, 10, 32, width=1 / 16, batch_norm=True)
    model.features.eval()
    before = weights(model)
    assert evaluate(model, random_images) == evaluate(model, random_images)
    assert model.training and model.classifier[1].training and not model.features[1].training
    assert torch.equal(weights(model), before)


def in_double_precision(model):
    """Return model in float64, where two loops that add up in another order stay together on every CPU."""
    model.register_forward_pre_hook(lambda _, inputs: inputs[0].double())
    return model.double()


def test_fit_is_the_loop_that_a_reader_would_write(random_images):
    """Plain SGD, written out with torch alone."""
    recipe = replace(TINY, schedule="constant", dropout=0.0, batch_norm=False, epochs=1)
    ours, theirs = in_double_precision(recipe.model()), in_double_precision(recipe.model())
    dataset = data.Splits("noise", random_images, random_images)
    fit(ours, dataset, recipe=recipe, seed=5, precision="float32", device="cpu", progress=False)

    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    for x, labels in data.batches(random_images, 50, 32, shuffle=True, seed=5 * 1_000_003):
        optimizer.zero_grad()
        F.cross_entropy(theirs(x), labels).backward()
        optimizer.step()
    torch.testing.assert_close(weights(ours), weights(theirs), rtol=1e-6, atol=1e-8)


def test_a_small_vgg_learns_the_garments(garments):
    model = TINY.model()
    history = fit(model, garments, recipe=TINY, epochs=10, progress=False)
    assert history.accuracy > 0.6
    assert [row["epoch"] for row in history.epochs] == list(range(1, 11))
    assert history.epochs[-1]["train_loss"] < history.epochs[0]["train_loss"]
    assert history.recipe["epochs"] == 10 and history.environment["torch"] == torch.__version__


def test_the_same_seed_gives_the_same_weights_and_leaves_the_callers_random_state(garments):
    runs = []
    for seed in (2**62, 2**62, -1):
        torch.manual_seed(0)
        model = TINY.model()
        state = torch.get_rng_state()
        fit(model, garments, recipe=replace(TINY, augment="shift+flip"), epochs=1, seed=seed, progress=False)
        assert torch.equal(torch.get_rng_state(), state)
        runs.append(weights(model))
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])


def test_flip_averages_the_probabilities_of_an_image_and_its_mirror_image(random_images):
    model = vgg("A", 1, 10, 32, width=1 / 16, batch_norm=True).eval()
    x, labels = next(data.batches(random_images, 100, 32))
    with torch.no_grad():
        probabilities = (model(x).softmax(1) + model(x.flip(-1)).softmax(1)) / 2
    recipe = replace(TINY, batch_size=7)
    result = evaluate(model, random_images, recipe=recipe, precision="float32", flip=True)
    assert result.correct == (probabilities.argmax(1) == labels).sum()
    assert result.loss == pytest.approx(F.nll_loss(probabilities.log(), labels).item(), rel=1e-5)
    assert result == evaluate(model, random_images, recipe=replace(recipe, flip_test=True), precision="float32")
    assert result != evaluate(model, random_images, recipe=recipe, precision="float32")


def test_a_compiled_network_trains_to_the_same_weights(garments, monkeypatch):
    calls = []

    def compiled(network, **options):
        calls.append(options)
        return torch._dynamo.optimize("eager", nopython=True)(network)

    monkeypatch.setattr(torch, "compile", compiled)
    plain, fast = TINY.model(), TINY.model()
    for model, options in ((plain, {}), (fast, {"compile": True})):
        fit(model, garments, recipe=TINY, epochs=1, device="cpu", progress=False, **options)
    assert calls == [{"mode": "default", "dynamic": False}]
    assert torch.equal(weights(plain), weights(fast))


def test_layers_that_processes_on_gpus_exchange_are_put_back(monkeypatch):
    monkeypatch.setattr(processes, "DistributedDataParallel", lambda network, device_ids: network)
    together = processes.Processes("cpu")
    together.world_size, together.device = 2, torch.device("cuda")
    model = TINY.model()
    layers = list(model.modules())
    with together.wrap(model) as network:
        assert any(isinstance(layer, nn.SyncBatchNorm) for layer in network.modules())
    assert all(layer is before for layer, before in zip(model.modules(), layers, strict=True))


def test_a_checkpoint_of_another_run_is_refused_by_name(garments, tmp_path):
    fit(TINY.model(), garments, recipe=TINY, epochs=1, checkpoint=tmp_path / "run.pt", progress=False)
    with pytest.raises(ValueError, match=r"another run: lr is 0.05 there and 0.1 here"):
        faster = replace(TINY, lr=0.1)
        fit(TINY.model(), garments, recipe=faster, epochs=1, checkpoint=tmp_path / "run.pt", progress=False)
    smaller = data.Splits(garments.name, garments.train[:500], garments.test)
    with pytest.raises(ValueError, match="another run: data is 'drawn-garments, 600 .* and 'drawn-garments, 500"):
        fit(TINY.model(), smaller, recipe=TINY, epochs=1, checkpoint=tmp_path / "run.pt", progress=False)


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("the file was executed",))


@pytest.mark.parametrize("poison", [Bomb(), {"anything": 1}, None])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(garments, tmp_path, poison):
    path = tmp_path / "run.pt"
    fit(TINY.model(), garments, recipe=TINY, epochs=3, checkpoint=path, progress=False)
    if poison is None:
        path.write_bytes(path.read_bytes()[:1000])
    else:
        torch.save(poison, path)
    with pytest.warns(UserWarning, match="run.pt cannot be used"):
        history = fit(TINY.model(), garments, recipe=TINY, epochs=3, checkpoint=path, progress=False)
    assert len(history.epochs) == 3


def test_a_loss_that_is_not_finite_stops_with_the_step_and_what_to_try(garments):
    recipe = replace(TINY, batch_norm=False, lr=1e6)
    with pytest.raises(FloatingPointError, match=r"loss is (nan|inf) at step \d+ of 12 in epoch 1: try an lr below"):
        fit(recipe.model(), garments, recipe=recipe, progress=False)


def test_a_loss_at_chance_warns_and_a_falling_one_does_not(garments):
    recipe = Recipe(config="E", width=1 / 16, size=32, epochs=1, initialization="std-0.01", batch_size=50)
    with pytest.warns(UserWarning, match=r"ln 10 = 2.303.*initialization"):
        history = fit(recipe.model(), garments, recipe=recipe, progress=False)
    assert history.epochs[0]["train_loss"] == pytest.approx(math.log(10), rel=0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(TINY.model(), garments, recipe=TINY, epochs=2, progress=False)


def test_bfloat16_answers_as_float32_does(garments):
    model = replace(TINY, initialization="kaiming").model()  # untrained: the same network on every CPU
    exact, rounded = (evaluate(model, garments.test, precision=p) for p in ("float32", "bfloat16"))
    assert rounded.loss == pytest.approx(exact.loss, rel=0.01)
    assert abs(rounded.correct - exact.correct) <= 4


@pytest.mark.parametrize("limit", [{"ATEN_CPU_CAPABILITY": "avx2"}, {"ONEDNN_MAX_CPU_ISA": "AVX2"}])
def test_auto_is_not_bfloat16_where_pytorch_is_held_to_less_than_the_cpu_has(limit):
    program = "from vgglab import machine; print(machine.find_precision('auto', 'cpu'))"
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **limit}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "float32\n"


def test_schedules_start_and_end_as_they_say():
    one_cycle, drops = training.SCHEDULES["one-cycle"], training.SCHEDULES["divide-by-10"]
    assert one_cycle(0.2) == 1 and one_cycle(0) == one_cycle(1) == 0
    assert [drops(t) for t in (0, 0.3, 0.6, 0.9)] == pytest.approx([1, 0.1, 0.01, 0.001])


def test_the_command_line_trains_continues_and_reports(tmp_path, monkeypatch, capsys, garments):
    monkeypatch.setattr(data, "load", lambda name: garments)
    command = ["train", "--width", "0.0625", "--epochs", "1", "--batch-size", "50", "--out", str(tmp_path / "run")]
    main(command)
    written = (tmp_path / "run" / "history.json").read_text()
    history = training.History(**json.loads(written))
    assert f"{history.accuracy:.2%} of 200 test images of drawn-garments right" in capsys.readouterr().out
    model = Recipe(**history.recipe).model()
    model.load_state_dict(torch.load(tmp_path / "run" / "weights.pt", weights_only=True))
    tested = evaluate(model, garments.test, recipe=Recipe(**history.recipe))
    assert (tested.loss, tested.accuracy) == (history.epochs[-1]["test_loss"], history.accuracy)
    main(command)
    assert (tmp_path / "run" / "history.json").read_text() == written


@pytest.fixture
def recipe_from(monkeypatch):
    """The recipe that the command line makes of some flags and --recipe paper."""
    asked = []
    monkeypatch.setattr(commands, "train", asked.append)

    def of(*flags):
        main(["train", "--recipe", "paper", "--device", "cpu", *flags])
        return commands.recipe_of(asked.pop())

    return of


@pytest.mark.parametrize("name", asdict(Recipe()))
def test_every_field_of_the_recipe_is_a_flag_that_replaces_it_alone(name, recipe_from):
    names = {"config": "D", "initialization": "kaiming", "schedule": "one-cycle", "augment": "shift"}
    before, flag = getattr(RECIPES["paper"], name), "--" + name.replace("_", "-")
    if isinstance(before, bool):
        value, flags = not before, [flag.replace("--", "--no-") if before else flag]
    else:
        value = names[name] if name in names else type(before)((before + 1) / 4)
        flags = [flag, str(value)]
    assert recipe_from(*flags) == replace(RECIPES["paper"], **{name: value}) != RECIPES["paper"]


def test_augment_none_switches_the_augmentation_off(recipe_from):
    assert recipe_from("--augment", "none") == replace(RECIPES["paper"], augment=None)
