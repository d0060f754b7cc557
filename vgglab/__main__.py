"""The command line: python -m vgglab train ..."""

import argparse
import sys
from dataclasses import fields
from pathlib import Path
from typing import get_args, get_type_hints

from vgglab import commands, inference, training
from vgglab.course import classroom
from vgglab.course.experiments import runner
from vgglab.data import imagefolder

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
    parser = command_line()
    options = parser.parse_args(arguments)
    sys.stdout.reconfigure(errors="replace")  # a log may be in an encoding that has no ×
    try:
        options.run(options)
    except (ValueError, TypeError, OSError, FloatingPointError, MemoryError, ImportError) as error:
        sys.exit(f"{parser.prog}: {error}")


def command_line():
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(prog="python -m vgglab", description="The course on VGG, from the command line.")
    subparsers = parser.add_subparsers(title="commands", required=True)
    add_train(subparsers)
    runner.add_experiment(subparsers)
    classroom.add_progress(subparsers)
    return parser


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
    for add in (add_run, add_recipe, add_data, add_machine, add_testing):
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


def add_recipe(parser):
    """Add a flag for each field of Recipe, which appears in the options only where it is given."""
    group = parser.add_argument_group("the recipe", "Each of these replaces what the recipe says.")
    hints = get_type_hints(training.Recipe)
    for setting in fields(training.Recipe):
        kind, *or_none = get_args(hints[setting.name]) or (hints[setting.name],)
        takes = {"type": kind}
        if kind is bool:
            takes = {"action": argparse.BooleanOptionalAction}
        elif setting.metadata["choices"]:
            takes = {"choices": [*(["none"] if or_none else []), *setting.metadata["choices"]]}
        flag = "--" + setting.name.replace("_", "-")
        group.add_argument(flag, default=argparse.SUPPRESS, help=setting.metadata["help"], **takes)


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
