"""The module on a GPU, played where there is none: every tensor lies where it must, with the numbers of the CPU."""

import os
import sys
from dataclasses import replace
from functools import partial

import pytest
import torch
from gpu import CPU, GPU, machine_with_gpu
from PIL import Image
from torch.utils._pytree import tree_leaves

from vgglab import cost, data, inference, lrn, models, receptive_field, seeing, training
from vgglab.course.experiments import networks
from vgglab.data import imagefolder
from vgglab.training import Recipe
from vgglab.training.run import Run

TINY = Recipe(width=1 / 32, size=32, batch_norm=True, epochs=2, batch_size=20, lr=0.05)
RECIPES = {
    "few options": TINY,
    "many options": replace(
        TINY, config="A-LRN", size=40, augment="shift+flip", flip_test=True, label_smoothing=0.1, schedule="one-cycle"
    ),
}
FAMILIES = {
    "VGG": lambda: models.vgg("C", width=1 / 64, image_size=32),
    "LeNet": lambda: models.lenet(3, image_size=32),
    "AlexNet": lambda: models.alexnet(image_size=67, num_classes=10),
    "ZFNet": lambda: models.zfnet(image_size=53, num_classes=10),
    "GoogLeNet": lambda: models.googlenet(image_size=64, num_classes=10),
    "ResNet": lambda: models.resnet(18, num_classes=10),
}


@pytest.fixture
def noise(random_images):
    return data.Splits("noise", random_images[:40], random_images[40:46])


@pytest.fixture
def gpu(monkeypatch):
    with machine_with_gpu(monkeypatch):
        yield GPU


def on_both(function):
    """Hold what function(device) gives on the GPU against what it gives on the CPU."""
    results = []
    for device in (CPU, GPU):
        torch.manual_seed(0)
        results.append(tree_leaves(function(device)))
    for one, other in zip(*results, strict=True):
        if isinstance(one, torch.Tensor):
            assert (one.device, other.device) == (CPU, GPU)
            torch.testing.assert_close(one, other.cpu())
        else:
            assert one == other


def network(device, **options):
    with torch.device(device):
        return models.vgg("A", 1, 10, 32, **{"width": 1 / 32, **options})


def devices(model):
    return {parameter.device for parameter in model.parameters()}


def rows(history):
    """What an epoch reports, but for the time."""
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history.epochs]


def test_what_a_gpu_refuses_is_refused(gpu):
    x = torch.ones(2, device=gpu)
    with pytest.raises(RuntimeError, match="two devices"):
        x + torch.ones(2)
    with pytest.raises(RuntimeError, match="cannot draw numbers on cuda"):
        torch.rand(2, device=gpu, generator=torch.Generator())
    with pytest.raises(RuntimeError):
        x.numpy()
    assert (x + 1).device == x.detach().to("cpu").to("cuda").device == gpu and x.cpu().device == CPU


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_training_on_a_gpu_is_training_on_a_cpu(gpu, noise, recipe, precision):
    def trained(device):
        model = recipe.model()
        history = training.fit(model, noise, recipe=recipe, device=device, precision=precision, progress=False)
        assert devices(model) == {CPU}  # where it was
        return rows(history)

    on_both(trained)


def test_a_training_that_was_stopped_goes_on(gpu, noise, tmp_path, monkeypatch):
    options = {"recipe": TINY, "precision": "float32", "progress": False}
    whole = training.fit(TINY.model(), noise, **options)
    options["checkpoint"] = tmp_path / "run.pt"

    def stop_in_the_second_epoch(run, loss, scores, labels, note=Run.note):
        if run.epoch == 1:
            raise KeyboardInterrupt
        note(run, loss, scores, labels)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Run, "note", stop_in_the_second_epoch)
        training.fit(TINY.model(), noise, **options)
    model = TINY.model(seed=1).to(gpu)
    assert rows(training.fit(model, noise, **options)) == rows(whole)
    assert devices(model) == {gpu}


def test_photographs(gpu, tmp_path):
    for place in ("train/a", "train/b", "val/a", "val/b"):
        (tmp_path / place).mkdir(parents=True)
        for number in range(2):
            picture = Image.frombytes("RGB", (40, 44), os.urandom(40 * 44 * 3))
            picture.save(tmp_path / place / f"{number}.png")
    dataset = imagefolder.load(tmp_path, scale=(36, 40), workers=0)
    recipe = replace(TINY, batch_size=2, epochs=1, augment="crop+flip+rgb")

    def trained_and_tested(device):
        model = recipe.model(3, 2).to(device)
        history = training.fit(model, dataset, recipe=recipe, device=device, precision="float32", progress=False)
        whole = dataset.test.to(device).normalized(imagefolder.whole(dataset.test.path(0)))
        return rows(history), whole, vars(inference.errors(model, dataset.test, [36], "both"))

    on_both(trained_and_tested)


IMAGES = data.Images((255 * torch.rand(3, 1, 28, 28)).byte(), torch.arange(3))
WORK = {
    "batches": lambda model, x: list(data.batches(IMAGES, 2, 40, shuffle=True, device=x.device, seed=0)),
    "evaluate": lambda model, x: vars(training.evaluate(model, IMAGES, precision="float32", flip=True)),
    "resize": lambda model, x: data.resize(x, 80),
    "canvas": lambda model, x: data.canvas(IMAGES.to(x.device), 48, (20, 60)).pixels,
    "hold_out": lambda model, x: data.Splits("", IMAGES, IMAGES).hold_out(1).train.to(x.device).pixels,
    "lrn": lambda model, x: lrn.local_response_norm(x),
    "score_map": lambda model, x: inference.score_map(model, x),
    "dense": lambda model, x: inference.dense_scores(model, x),
    "multi-crop": lambda model, x: inference.multi_crop_scores(model, x, grid=2),
    "multi-scale": lambda model, x: inference.multi_scale_scores(model, x, [32, 40], "both"),
    "of_model": lambda model, x: receptive_field.of_model(model, (1, 32, 32)),
    "ledger": lambda model, x: cost.ledger(model, (1, 32, 32)),
    "reach": lambda model, x: receptive_field.reach(model, (1, 32, 32), "features.3", (3, 3)),
    "effective": lambda model, x: receptive_field.effective(model, small(x), "features.3", (3, 3)),
    "activations": lambda model, x: seeing.activations(model, small(x), "features.3"),
    "strongest": lambda model, x: seeing.strongest(model, small(x), "features.3", 1, 2),
    "cut": lambda model, x: seeing.cut(x, (-3, 4, 20, 60)).nan_to_num(7),
    "gradient": lambda model, x: seeing.gradient_times_input(model, small(x), [1, 2]),
    "occlusion": lambda model, x: seeing.occlusion(model, small(x), [1, 2], 16, 16),
    "shifted": lambda model, x: seeing.shifted(x, 3, -4),
}


def small(x):
    return x[..., :32, :32]


@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
def test_results_lie_where_the_images_are(gpu, work):
    x = torch.rand(2, 1, 64, 48)
    on_both(lambda device: work(network(device), x.to(device)))
    with torch.device(gpu):  # a new tensor may lie there by default, too
        work(network(gpu), x.to(gpu))


@pytest.mark.parametrize("build", FAMILIES.values(), ids=FAMILIES)
def test_networks_of_all_papers(gpu, build):
    def outputs_and_gradients(device):
        with torch.device(device):
            model = build().train()
        side = getattr(model, "image_size", None) or 32
        outputs = tree_leaves(model(torch.linspace(-1, 1, 6 * side**2).view(2, 3, side, side).to(device)))
        sum(output.square().mean() for output in outputs).backward()
        return outputs, next(model.parameters()).grad

    on_both(outputs_and_gradients)


def test_weights_are_drawn_and_copied_to_where_the_network_is(gpu, monkeypatch):
    narrow = partial(models.vgg, width=1 / 32)
    monkeypatch.setattr(sys.modules[models.vgg.__module__], "vgg", narrow)

    def weights(device):
        with torch.device(device):
            trained, deeper = TINY.model(seed=3), replace(TINY, config="D").model(seed=4)
        models.init_from(deeper, trained)
        theirs = models.from_torchvision("A", {name: x.to(device) for name, x in narrow("A").state_dict().items()})
        return [*deeper.parameters(), *theirs.parameters()]

    on_both(weights)


def test_what_experiments_measure(gpu, noise):
    scene = networks.Photographs(side=48, objects=(24, 48), scales=(36, 64), test_scales=(36, 48, 64), cuts=1)
    once = replace(TINY, epochs=1)

    def measured(device):
        network = networks.Network(replace(once, config="B"), warm_start=True, photographs=scene)
        model, seen = network.warm_model(noise, 0, device), network.seen(noise, 0)
        history = training.fit(model, seen, recipe=once, device=device, precision="float32", progress=False)
        assert devices(model) == {device}
        return [networks.measure(kind, network, model, history, noise.test) for kind in networks.MEASURES]

    on_both(measured)
