"""The command line: python -m vgglab train ..."""

import argparse
import sys
from pathlib import Path

from vgglab import commands, data, inference, training
from vgglab.course import classroom
from vgglab.course.experiments import registry
from vgglab.data import imagefolder
from vgglab.models import INITIALIZATIONS, VGG_CONFIGS

EXAMPLES = """\
examples:
  python -m vgglab train --config A --data fashion-mnist
      a small VGG A on this machine, by the recipe that suits it
  python -m vgglab train --recipe paper --config D --data imagefolder:/data/imagenet --scale 256 512 \\
      --test-method both --test-scales 256 384 512 --out runs/vgg-d
      the paper's configuration D with scale jitter, tested as in its Table 5
  torchrun --nproc-per-node 4 -m vgglab train --recipe paper --config D --data imagefolder:/data/imagenet
      the same arguments on four GPUs, --batch-size being that of all together
"""


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m vgglab", description="The course on VGG, from the command line.")
    subparsers = parser.add_subparsers(title="commands", required=True)
    add_train(subparsers)
    registry.add_experiment(subparsers)
    classroom.add_progress(subparsers)
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except (ValueError, TypeError, OSError, FloatingPointError, MemoryError) as error:
        sys.exit(f"{parser.prog}: {error}")


def add_train(subparsers):
    parser = subparsers.add_parser(
        "train",
        help="train a VGG and test it",
        description="Train a VGG, test it after every epoch, and write weights.pt, history.json, results.json and "
        "checkpoint.pt to a folder. Called again with the same arguments, it goes on where it stopped.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=commands.train)
    for add in (add_run, add_network, add_recipe, add_data, add_machine, add_testing):
        add(parser)


def add_run(parser):
    group = parser.add_argument_group("the run")
    group.add_argument(
        "--recipe", choices=training.RECIPES, help="what decides everything else; default: gpu on a GPU, cpu elsewhere"
    )
    group.add_argument(
        "--out", type=Path, default=Path("runs/vgg"), help="the folder to write to; default: %(default)s"
    )
    group.add_argument(
        "--seed", type=int, default=0, help="of the weights, the order and the augmentation; default: %(default)s"
    )


def add_network(parser):
    group = parser.add_argument_group("the network", "Each of these replaces what the recipe says.")
    group.add_argument("--config", choices=VGG_CONFIGS, help="the column of the paper's Table 1")
    group.add_argument("--width", type=float, help="factor on all channels and FC units")
    group.add_argument("--size", type=int, help="side of the images in pixels, at least 32")
    group.add_argument("--batch-norm", action=argparse.BooleanOptionalAction, help="batch normalization")
    group.add_argument("--dropout", type=float, help="probability that a unit of the FC layers is left out")
    group.add_argument("--initialization", choices=INITIALIZATIONS, help="of the weights")


def add_recipe(parser):
    group = parser.add_argument_group("the recipe", "Each of these replaces what the recipe says.")
    group.add_argument("--epochs", type=int)
    group.add_argument("--batch-size", type=int)
    group.add_argument("--lr", type=float, help="learning rate")
    group.add_argument("--momentum", type=float)
    group.add_argument("--weight-decay", type=float, help="L2 penalty multiplier")
    group.add_argument("--schedule", choices=training.SCHEDULES, help="of the learning rate")
    group.add_argument(
        "--augment",
        choices=("none", *data.AUGMENTATIONS, *imagefolder.AUGMENTATIONS),
        help="those with crop are for photographs, for which recipes that augment do crop+flip+rgb, as the paper does",
    )


def add_data(parser):
    group = parser.add_argument_group("the data")
    group.add_argument(
        "--data",
        default="auto",
        metavar="NAME",
        help="fashion-mnist, drawn-garments, auto (the first of them that is there), or imagefolder:PATH, a folder of "
        f"photographs that holds {imagefolder.LAYOUT}; default: %(default)s",
    )
    group.add_argument(
        "--scale",
        type=int,
        nargs="+",
        metavar="S",
        help="shorter side in pixels to which photographs are rescaled before they are cropped, or the smallest and "
        "the largest one, drawn anew for each (scale jitter); default: 8/7 of the size, 256 at 224",
    )


def add_machine(parser):
    group = parser.add_argument_group("the machine")
    group.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, or auto; default: %(default)s")
    group.add_argument(
        "--precision", default="auto", choices=("auto", "float32", "bfloat16"), help="arithmetic; default: %(default)s"
    )
    group.add_argument("--compile", action="store_true", help="use torch.compile")


def add_testing(parser):
    group = parser.add_argument_group(
        "testing", "What is done once more with whole photographs after training, for top-1 and top-5 errors."
    )
    group.add_argument(
        "--test-method",
        default="none",
        choices=("none", *inference.METHODS),
        help="section 3.2 and Table 5 of the paper; default: %(default)s",
    )
    group.add_argument(
        "--test-scales",
        type=int,
        nargs="+",
        metavar="Q",
        help="shorter sides in pixels, averaged over; default: S, or the middle of its two",
    )


if __name__ == "__main__":
    main()
