"""What python -m vgglab train does: train a network, test it, and write the results."""

import json
from argparse import Namespace
from contextlib import nullcontext, redirect_stdout
from dataclasses import asdict, fields, replace
from typing import Any

import torch

from vgglab import _checks as checks
from vgglab import data, inference, machine, training
from vgglab._files import replacing, write_text
from vgglab.data import imagefolder
from vgglab.training import checkpoint
from vgglab.training.processes import Processes, leave


def train(options: Namespace) -> None:
    """Train as the options say; the last line printed is the result. Under torchrun one process prints and writes."""
    recipe = recipe_of(options)
    check_options(options, recipe)
    processes = Processes(options.device)
    with nullcontext() if processes.is_main else redirect_stdout(None):
        splits = load_splits(options, recipe)
        model = recipe.model(3 if is_photographs(options) else 1, len(splits.train.classes), options.seed)
        model.to(processes.device)
        history = training.fit(
            model, splits, recipe=recipe, device=options.device, precision=options.precision, compile=options.compile,
            seed=options.seed, checkpoint=options.out / "checkpoint.pt",
        )  # fmt: skip
        if processes.is_main:
            write_text(options.out / "history.json", json.dumps(asdict(history), indent=1) + "\n")
            with replacing(options.out / "weights.pt") as temporary:
                checkpoint.write(model.state_dict(), temporary)
        results = {
            "data": splits.name,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "seconds": history.epochs[-1]["seconds"],
            "accuracy": history.accuracy,
            "recipe": history.recipe,
            "environment": history.environment,
        }
        if options.test_method != "none":
            results["test"] = errors(model, splits.test, options, processes)
        if processes.is_main:
            write_text(options.out / "results.json", json.dumps(results, indent=1) + "\n")
        print(report(results, len(splits.test), options))
    leave()


def recipe_of(options: Namespace) -> training.Recipe:
    """Return the recipe of the options, its augmentation that of photographs where the data are photographs."""
    recipe = training.find_recipe(options.recipe, machine.find_device(options.device))
    if is_photographs(options) and recipe.augment is not None:
        recipe = replace(recipe, augment=imagefolder.AUGMENTATIONS[-1])
    given = {setting.name: getattr(options, setting.name) for setting in fields(recipe) if setting.name in options}
    if given.get("augment") == "none":
        given["augment"] = None
    return replace(recipe, **given)


def check_options(options: Namespace, recipe: training.Recipe) -> None:
    """Raise ValueError for options that do not go together, before hours of training."""
    if not is_photographs(options):
        for flag, given in (("--scale", options.scale), ("--test-method", options.test_method != "none")):
            if given:
                raise ValueError(f"{flag} needs --data imagefolder:PATH, not {options.data}")
    if options.test_method == "none" and options.test_scales is not None:
        raise ValueError("--test-scales needs --test-method dense, multi-crop or both")
    smallest = 32 if options.test_method == "dense" else recipe.size  # of which five poolings leave one position
    for scale in options.test_scales or ():
        checks.integer("--test-scales", scale, at_least=smallest)


def is_photographs(options: Namespace) -> bool:
    return options.data.startswith("imagefolder:")


def load_splits(options: Namespace, recipe: training.Recipe) -> data.Splits:
    """Return the Splits that --data names; raises ValueError for another name."""
    if is_photographs(options):
        scale = options.scale or [round(recipe.size * 256 / 224)]
        path = options.data.removeprefix("imagefolder:")
        return imagefolder.load(path, scale[0] if len(scale) == 1 else scale, options.seed)
    known = ("auto", "fashion-mnist", "drawn-garments")
    if options.data in known:
        return data.load(options.data)
    raise ValueError(f"--data must be one of {', '.join(known)} or imagefolder:PATH, not {options.data}")


def errors(model: torch.nn.Module, photographs: Any, options: Namespace, processes: Processes) -> dict[str, Any]:
    """Return the errors of model at the options' method and scales; each process tests its share."""
    scales = options.test_scales or [photographs.test_scale]
    part = inference.errors(model, photographs, scales, options.test_method, processes.share)
    counts = torch.tensor([part.correct, part.correct_top5, part.total], device=processes.device)
    tested = inference.Tested(*processes.sum(counts).tolist())
    rates = {"top1_error": tested.top1_error, "top5_error": tested.top5_error}
    return {"method": options.test_method, "scales": scales, **asdict(tested), **rates}


def report(results: dict[str, Any], test_images: int, options: Namespace) -> str:
    """Return what the run came to, in a line, and in a second one the errors of its testing."""
    text = (
        f"VGG {results['recipe']['config']}, {results['parameters']:,} parameters, trained in "
        f"{results['seconds']:.0f} s: {results['accuracy']:.2%} of {test_images:,} test images of "
        f"{results['data']} right. In {options.out}: weights.pt, history.json, results.json, checkpoint.pt"
    )
    if "test" in results:
        tested = results["test"]
        text += (
            f"\nTested by {tested['method']} at {', '.join(map(str, tested['scales']))} pixels: top-1 error "
            f"{tested['top1_error']:.2%}, top-5 error {tested['top5_error']:.2%} of {tested['total']:,} photographs"
        )
    return text
