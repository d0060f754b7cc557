"""The command line: python -m vgglab train ..."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch

from vgglab import data, machine, training
from vgglab.files import replacing
from vgglab.models import VGG_CONFIGS


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m vgglab", description="The course on VGG, from the command line.")
    commands = parser.add_subparsers(title="commands", required=True)
    add_train(commands)
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except (ValueError, TypeError, OSError, FloatingPointError) as error:
        sys.exit(f"{parser.prog}: {error}")


def add_train(commands):
    parser = commands.add_parser(
        "train",
        help="train a VGG and test it",
        description="Train a VGG, test it after every epoch, and write weights.pt, history.json and checkpoint.pt to "
        "a folder. Called again with the same arguments, it goes on where it stopped.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--recipe", choices=training.RECIPES, help="default: gpu on a GPU, cpu elsewhere")
    parser.add_argument("--config", choices=VGG_CONFIGS, help="default: the recipe's, as for all of the next six")
    parser.add_argument("--width", type=float, help="factor on all channels and FC units")
    parser.add_argument("--size", type=int, help="side of the images in pixels, at least 32")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--lr", type=float, help="learning rate")
    parser.add_argument("--batch-norm", action=argparse.BooleanOptionalAction, default=None)
    parser.add_argument("--data", default="auto", choices=("auto", "fashion-mnist", "drawn-garments"), help="data set")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, or auto")
    parser.add_argument("--precision", default="auto", choices=("auto", "float32", "bfloat16"), help="arithmetic")
    parser.add_argument("--seed", type=int, default=0, help="of the weights, the order and the augmentation")
    parser.add_argument("--out", type=Path, default=Path("runs/vgg"), help="the folder to write to")
    parser.set_defaults(run=train)


def train(options):
    """Train as the options say; the last line printed is the result."""
    recipe = training.find_recipe(options.recipe, machine.find_device(options.device))
    names = ("config", "width", "size", "epochs", "batch_size", "lr", "batch_norm")
    recipe = replace(recipe, **{name: getattr(options, name) for name in names if getattr(options, name) is not None})
    dataset = data.load(options.data)
    model = recipe.model(dataset.train.pixels.shape[1], len(dataset.train.classes), options.seed)
    history = training.fit(
        model,
        dataset,
        recipe=recipe,
        device=options.device,
        precision=options.precision,
        seed=options.seed,
        checkpoint=options.out / "checkpoint.pt",
    )
    history.save(options.out / "history.json")
    with replacing(options.out / "weights.pt") as temporary:
        torch.save(model.state_dict(), temporary)
    print(
        f"VGG {recipe.config}, {sum(p.numel() for p in model.parameters()):,} parameters, trained in "
        f"{history.epochs[-1]['seconds']:.0f} s: {history.accuracy:.2%} of {len(dataset.test):,} test images of "
        f"{dataset.name} right. In {options.out}: weights.pt, history.json, checkpoint.pt"
    )


if __name__ == "__main__":
    main()
