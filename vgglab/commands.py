"""What python -m vgglab does: train a network, test it, and write the results."""

import json
from contextlib import nullcontext, redirect_stdout
from dataclasses import asdict, fields, replace

import torch

from vgglab import checkpoint, checks, data, imagefolder, machine, parallel, training
from vgglab.files import replacing, write_text
from vgglab.models.vgg import SMALLEST_IMAGE

PHOTOGRAPHS = "imagefolder:"


def train(options):
    """Train as the options say; the last line printed is the result. Under torchrun one process prints and writes."""
    recipe = recipe_of(options)
    check_options(options, recipe)
    processes = parallel.Processes(options.device)
    with nullcontext() if processes.writes else redirect_stdout(None):
        dataset = load_data(options, recipe)
        model = recipe.model(in_channels(dataset), len(dataset.train.classes), options.seed).to(processes.device)
        history = training.fit(
            model,
            dataset,
            recipe=recipe,
            device=options.device,
            precision=options.precision,
            compile=options.compile,
            seed=options.seed,
            checkpoint=options.out / "checkpoint.pt",
        )
        if processes.writes:
            history.save(options.out / "history.json")
            with replacing(options.out / "weights.pt") as temporary:
                checkpoint.write(model.state_dict(), temporary)
        results = {
            "data": dataset.name,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "seconds": history.epochs[-1]["seconds"],
            "accuracy": history.accuracy,
            "recipe": history.recipe,
            "environment": history.environment,
        }
        if options.test_method != "none":
            results["test"] = errors(model, dataset.test, options, processes)
        if processes.writes:
            write_text(options.out / "results.json", json.dumps(results, indent=1) + "\n")
        print(report(results, len(dataset.test), options.out))
    parallel.leave()


def recipe_of(options):
    """Return the recipe of the options, its augmentation that of photographs where the data are photographs."""
    recipe = training.find_recipe(options.recipe, machine.find_device(options.device))
    if is_photographs(options) and recipe.augment is not None:
        recipe = replace(recipe, augment=imagefolder.AUGMENTATIONS[-1])
    names = {setting.name for setting in fields(recipe)}
    given = {name: None if value == "none" else value for name, value in vars(options).items() if name in names}
    return replace(recipe, **given)


def check_options(options, recipe):
    """Raise ValueError for options that do not go together, before hours of training."""
    if not is_photographs(options):
        if options.test_method != "none":
            raise ValueError(f"--test-method {options.test_method} needs --data imagefolder:PATH, not {options.data}")
        if options.scale is not None:
            raise ValueError(f"--scale needs --data imagefolder:PATH, not {options.data}")
    if options.test_method == "none" and options.test_scales is not None:
        raise ValueError("--test-scales needs --test-method dense, multi-crop or both")
    smallest = SMALLEST_IMAGE if options.test_method == "dense" else recipe.size
    for scale in options.test_scales or ():
        checks.integer("--test-scales", scale, at_least=smallest)


def is_photographs(options):
    return options.data.startswith(PHOTOGRAPHS)


def load_data(options, recipe):
    """Return the Dataset that --data names; raises ValueError for another name."""
    if is_photographs(options):
        scale = options.scale or [round(recipe.size * 256 / 224)]
        path = options.data.removeprefix(PHOTOGRAPHS)
        return imagefolder.load(path, scale[0] if len(scale) == 1 else scale, options.seed)
    known = ("auto", "fashion-mnist", "drawn-garments")
    if options.data not in known:
        raise ValueError(f"--data must be one of {', '.join(known)} or imagefolder:PATH, not {options.data}")
    return data.load(options.data)


def in_channels(dataset):
    return 3 if isinstance(dataset.train, imagefolder.Photographs) else dataset.train.pixels.shape[1]


def errors(model, photographs, options, processes):
    """Return the errors of model at the options' method and scales, as a dict; each process tests its share."""
    scales = options.test_scales or [photographs.test_scale]
    part = imagefolder.test(model, photographs, scales, options.test_method, processes.share)
    counts = torch.tensor([part.correct, part.correct_top5, part.total], device=processes.device)
    tested = imagefolder.Tested(*processes.sum(counts).tolist())
    return {
        "method": options.test_method,
        "scales": scales,
        **asdict(tested),
        "top1_error": tested.top1_error,
        "top5_error": tested.top5_error,
    }


def report(results, test_images, out):
    lines = [
        f"VGG {results['recipe']['config']}, {results['parameters']:,} parameters, trained in "
        f"{results['seconds']:.0f} s: {results['accuracy']:.2%} of {test_images:,} test images of "
        f"{results['data']} right. In {out}: weights.pt, history.json, results.json, checkpoint.pt"
    ]
    if "test" in results:
        tested = results["test"]
        lines.append(
            f"Tested by {tested['method']} at {', '.join(map(str, tested['scales']))} pixels: top-1 error "
            f"{tested['top1_error']:.2%}, top-5 error {tested['top5_error']:.2%} of {tested['total']:,} photographs"
        )
    return "\n".join(lines)
