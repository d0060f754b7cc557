"""The command line: python -m vgglab train ..."""

import argparse
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from vgglab import commands, inference, training
from vgglab.data import imagefolder
from vgglab.machine import PRECISIONS

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
PROGRAM = "python -m vgglab"


def main(arguments: list[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # a log's encoding may have no ×
    try:
        options = command_line(course=arguments[:1] in (["experiment"], ["progress"])).parse_args(arguments)
        options.run(options)
    except (ValueError, TypeError, OSError, FloatingPointError, MemoryError, ImportError) as error:
        sys.exit(f"{PROGRAM}: {error}")


def command_line(course: bool = False) -> argparse.ArgumentParser:
    """Return the parser of all commands, those of the course with their arguments only where course is imported."""
    parser = argparse.ArgumentParser(prog=PROGRAM, description="The course on VGG, from the command line.")
    subparsers = parser.add_subparsers(title="commands", required=True)
    add_train(subparsers.add_parser("train", help="train a VGG and test it"))
    if course:
        from vgglab.course import classroom
        from vgglab.course.experiments import runner

        runner.add_experiment(subparsers)
        classroom.add_progress(subparsers)
    else:
        subparsers.add_parser("experiment", help="repeat an experiment of the paper and record it")
        subparsers.add_parser("progress", help="which exercises are done")
    return parser


def add_train(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of "train": a flag for each field of Recipe too, which is in the options only where given."""
    parser.description = (
        "Train a VGG, test it after every epoch, and write weights.pt, history.json, results.json and checkpoint.pt to "
        "a folder. Called again with the same arguments, it goes on where it stopped."
    )
    parser.epilog, parser.formatter_class = EXAMPLES, argparse.RawDescriptionHelpFormatter
    parser.set_defaults(run=commands.train)

    parser.add_argument("--recipe", choices=training.RECIPES, help="default: gpu on a GPU, cpu elsewhere")
    parser.add_argument("--out", type=Path, default="runs/vgg", help="the folder to write to; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the weights, the order and the augmentation")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, or auto; default: %(default)s")
    parser.add_argument("--precision", default="auto", choices=PRECISIONS, help="arithmetic; default: %(default)s")
    parser.add_argument("--compile", action="store_true", help="use torch.compile")
    names = "fashion-mnist, drawn-garments, auto (the first of them that is there)"
    folder = f"imagefolder:PATH, a folder of photographs that holds {imagefolder.LAYOUT}"
    parser.add_argument("--data", default="auto", metavar="NAME", help=f"{names}, or {folder}; default: %(default)s")
    scale = "shorter side of photographs in pixels before they are cropped, or the smallest and the largest one, drawn "
    scale += "anew for each; default: 8/7 of the size"
    parser.add_argument("--scale", type=int, nargs="+", metavar="S", help=scale)

    testing = parser.add_argument_group("testing", "Once more, with whole photographs, for top-1 and top-5 errors.")
    methods, table = ("none", *inference.METHODS), "section 3.2 and Table 5 of the paper; default: %(default)s"
    testing.add_argument("--test-method", default="none", choices=methods, help=table)
    sides = "shorter sides in pixels, averaged over; default: S, or the middle of its two"
    testing.add_argument("--test-scales", type=int, nargs="+", metavar="Q", help=sides)

    recipe = parser.add_argument_group("the recipe", "Each of these replaces what the recipe says.")
    hints = get_type_hints(training.Recipe, include_extras=True)
    for setting in fields(training.Recipe):
        flag, hint = "--" + setting.name.replace("_", "-"), hints[setting.name]
        none = ["none"] if type(None) in get_args(hint) else []
        kind, check = get_args(get_args(hint)[0] if none else hint) or (bool, None)
        takes: dict[str, Any] = {"type": kind}
        if kind is bool:
            takes = {"action": argparse.BooleanOptionalAction}
        elif kind is str:
            takes = {"choices": none + list(check.keywords["accepted"])}
        recipe.add_argument(flag, default=argparse.SUPPRESS, help=setting.metadata["help"], **takes)


if __name__ == "__main__":
    main()
