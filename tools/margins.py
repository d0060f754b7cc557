"""How far what a lesson asserts is from its bound: `run` notes it on one machine, `show` compares what was noted.

`run` executes the code cells and the exercises' solutions; an assertion that fails is noted and stops nothing.
"""

import argparse
import ast
import json
import operator
import os
import re
from itertools import pairwise
from pathlib import Path

os.environ["MPLBACKEND"] = "Agg"

import matplotlib.pyplot as plt
import nbformat
import torch
from torch.testing._comparison import default_tolerances

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
SOLUTION = re.compile(r"Solution</summary>.*?```python\n(.*?)```", re.DOTALL)
SIGNS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne}
CLOSE = ("isclose", "allclose", "assert_close")


class Noting(ast.NodeTransformer):
    """Send what an assertion compares through `notes`, and let it raise nothing."""

    asserting = False

    def visit_Assert(self, node):
        text, self.asserting = ast.unparse(node), True
        self.generic_visit(node)
        self.asserting = False
        return ast.parse(f"notes.hold({text!r}, ({ast.unparse(node.test)}))").body[0]

    def visit_Compare(self, node):
        texts = [ast.unparse(part) for part in (node.left, *node.comparators)]
        signs = ast.unparse(ast.Compare(ast.Name("a"), node.ops, [ast.Name("a")] * len(node.ops))).split()[1::2]
        self.generic_visit(node)
        if not self.asserting or not set(signs) <= set(SIGNS):
            return node
        values = ", ".join(ast.unparse(part) for part in (node.left, *node.comparators))
        return ast.parse(f"notes.compare({texts}, {signs}, {values})", mode="eval").body

    def visit_Call(self, node):
        text, name = ast.unparse(node), getattr(node.func, "attr", None)
        self.generic_visit(node)
        arguments = ast.unparse(node).removeprefix(ast.unparse(node.func))[1:]
        return ast.parse(f"notes.close({text!r}, {name!r}, {arguments}", mode="eval").body if name in CLOSE else node


class Notes(dict):
    """By cell and comparison, the instance closest to its bound: value, bound, margin (below 0: it fails)."""

    cell = ""

    def note(self, text, value, bound, margin):
        key = f"{self.cell} | {text}"
        if key not in self or not margin >= self[key][2]:
            self[key] = (value, bound, margin)

    def hold(self, text, test):
        if not test:
            self.note(f"FAILS: {text}", 0.0, 1.0, -1.0)

    def compare(self, texts, signs, *values):
        for sign, pair, ends in zip(signs, pairwise(texts), pairwise(values), strict=True):
            if sign[0] in "<>" and all(isinstance(end, (int, float, torch.Tensor)) for end in ends):
                value, bound = map(float, ends)
                self.note(f" {sign} ".join(pair), value, bound, value - bound if sign[0] == ">" else bound - value)
        results = [SIGNS[sign](*ends) for sign, ends in zip(signs, pairwise(values), strict=True)]
        return results[0] if len(results) == 1 else all(results)

    def close(self, text, name, *pair, **options):
        """Note the largest difference as a share of what is allowed."""
        pair = [torch.as_tensor(end, dtype=getattr(end, "dtype", torch.float64)).detach() for end in pair]
        relative, absolute = (1e-9, 0.0) if "math" in text else (1e-5, 1e-8)
        if name == "assert_close":
            relative, absolute = default_tolerances(*pair)
        relative = options.get("rtol", options.get("rel_tol", relative))
        absolute = options.get("atol", options.get("abs_tol", absolute))
        actual, expected = (end.double() for end in pair)
        shares = (actual - expected).abs() / (absolute + relative * expected.abs())
        share = shares.nan_to_num(0.0).max().item()  # 0 / 0 where both are 0 and nothing is allowed
        self.note(text, share, 1.0, 1 - share if name == "assert_close" else abs(1 - share))
        return share <= 1


def run(path, out):
    notes, notebook = Notes(), nbformat.read(path, as_version=4)
    space = {"__name__": "__main__", "notes": notes, "display": print}
    os.chdir(NOTEBOOKS)
    for cell in notebook.cells:
        notes.cell = cell.id
        for source in [cell.source] if cell.cell_type == "code" else SOLUTION.findall(cell.source):
            tree = ast.fix_missing_locations(Noting().visit(ast.parse(source)))
            exec(compile(tree, f"<{cell.id}>", "exec"), space)
            plt.close("all")
    out.write_text(json.dumps({"notebook": path.stem, "notes": notes}, indent=1))


def show(paths):
    """A table of what differs between the runs, smallest margins first, in units of the margins' spread."""
    runs, rows = [json.loads(path.read_text()) for path in paths], []
    for name, key in dict.fromkeys((one["notebook"], key) for one in runs for key in one["notes"]):
        found = [one["notes"][key] for one in runs if one["notebook"] == name and key in one["notes"]]
        values, bounds, margins = zip(*found, strict=True)
        smallest, spread = min(margins), max(margins) - min(margins)
        if spread or smallest < 0:
            cell, text = key.split(" | ", 1)
            row = f"{name[:2]} | {cell} | `{text}` | {span(values)} | {span(bounds)} | {smallest:.3g} | {spread:.2g}"
            rows.append((smallest / spread if spread else smallest, f"| {row} | {len(found)} |"))
    print("| lesson | cell | comparison | value | bound | smallest margin | spread | runs |\n" + "|---" * 8 + "|")
    print(*(row for _, row in sorted(rows)), sep="\n")


def span(values):
    return " to ".join(dict.fromkeys(f"{end:.4g}" for end in (min(values), max(values))))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run", help="execute a lesson and note its margins")
    one.add_argument("notebook", type=lambda start: next(NOTEBOOKS.glob(f"{start}*.ipynb")), help="such as 05")
    one.add_argument("--out", type=Path, required=True)
    commands.add_parser("show", help="compare what runs noted").add_argument("files", type=Path, nargs="+")
    options = parser.parse_args()
    run(options.notebook, options.out.absolute()) if options.command == "run" else show(options.files)
