"""What a network costs: parameters, multiply-adds and activations, layer by layer."""

import csv
import io
import textwrap
from dataclasses import dataclass
from html import escape
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from vgglab import _checks as checks
from vgglab._files import write_text
from vgglab._trace import CONSTANT, Operation, memory, trace

DEFINITION = (
    "One image, at inference. MACs: multiply-adds of convolutions and matrix products (operations = 2 x MACs); "
    "biases, normalization, ReLU and pooling count 0. Activations: numbers that a row computes, as if each row "
    "kept its own. A parameter that several rows use counts in the first; BatchNorm's running statistics are none."
)


class Cost(NamedTuple):
    """Parameters and multiply-adds of one layer."""

    parameters: int
    macs: int


def conv(kernel, in_channels, out_channels, output_side, bias=True):
    """Return the Cost of one convolution by formula; kernel and output_side are numbers or pairs (height, width)."""
    kernel_height, kernel_width = checks.pair("kernel", kernel, at_least=1)
    height, width = checks.pair("output_side", output_side, at_least=1)
    in_channels = checks.integer("in_channels", in_channels, at_least=1)
    out_channels = checks.integer("out_channels", out_channels, at_least=1)
    weights = kernel_height * kernel_width * in_channels * out_channels
    return Cost(weights + out_channels * checks.flag("bias", bias), weights * height * width)


@dataclass(frozen=True)
class Row:
    """One layer, or one operation that a module runs itself; output_shape is (C, H, W), without the batch."""

    name: str
    kind: str
    output_shape: tuple[int, ...]
    weights: int
    biases: int
    macs: int
    activations: int

    @property
    def parameters(self):
        return self.weights + self.biases


COLUMNS = ["name", "kind", "output_shape", "weights", "biases", "parameters", "macs", "activations"]
SUMMED = COLUMNS[3:]


def _total(column):
    return property(lambda ledger: sum(getattr(row, column) for row in ledger.rows))


@dataclass(frozen=True)
class Ledger:
    """The rows of a model in order of execution, "input" first, and their totals under the columns' names.

    unused_parameters: those that no row uses, such as an auxiliary head's that runs in training only.
    """

    rows: tuple[Row, ...]
    unused_parameters: int

    weights = _total("weights")
    biases = _total("biases")
    parameters = _total("parameters")
    macs = _total("macs")
    activations = _total("activations")

    @property
    def definition(self):
        """What the numbers mean, as printed under the table."""
        unused = f" {self.unused_parameters:,} parameters take no part at inference and are not counted."
        return DEFINITION + (unused if self.unused_parameters else "")

    def to_csv(self, path):
        """Write the rows to path, numbers plain, shapes as 64x224x224."""
        lines = io.StringIO()
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(_cells(row, "{}") for row in self.rows)
        write_text(path, lines.getvalue())

    def _table(self):
        """The table's lines of text: header, rows, total."""
        totals = [f"{getattr(self, column):,}" for column in SUMMED]
        return [COLUMNS, *(_cells(row, "{:,}") for row in self.rows), ["total", "", "", *totals]]

    def __str__(self):
        table = self._table()
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = ["  ".join(map(_align, line, range(len(line)), widths)) for line in table]
        rule = "-" * len(lines[0])
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1], *textwrap.wrap(self.definition, len(rule))])

    __repr__ = __str__

    def _repr_html_(self):
        header, *body, total = (_html_line(line) for line in self._table())
        return (
            f"<table><thead>{header}</thead><tbody>{''.join(body)}</tbody><tfoot>{total}</tfoot></table>"
            f"<p>{escape(self.definition)}</p>"
        )


def _cells(row, number):
    shape = "x".join(map(str, row.output_shape))
    return [row.name, row.kind, shape, *(number.format(getattr(row, column)) for column in SUMMED)]


def _align(text, column, width):
    return text.ljust(width) if column < 2 else text.rjust(width)


def _html_line(line):
    sides = ["left"] * 2 + ["right"] * (len(line) - 2)
    cells = (f'<td style="text-align: {side}">{escape(text)}</td>' for side, text in zip(sides, line, strict=True))
    return f"<tr>{''.join(cells)}</tr>"


def ledger(model, input_shape):
    """Return the Ledger of model for one image of input_shape (C, H, W), in eval mode.

    It has a row for each call of a layer and for each operation that a module runs itself, named as in
    `receptive_field.of_model`; rows that compute nothing (dropout, flatten) have no activations. The model is left
    as it was and nothing is computed: it runs on the meta device, and torch's flop counter gives the MACs.
    Raises UnsupportedOperation for a model that needs real numbers to run.
    """
    traced = trace(model, input_shape)
    rows = [Row("input", "input", tuple(traced.input.shape[1:]), 0, 0, 0, traced.input.numel())]
    from_image = {memory(traced.input)}
    behind = {memory(tensor): {name} for name, tensor in traced.parameters.items()}  # memory -> parameters in it
    macs_of = _macs(step for step in traced.steps if isinstance(step, Operation))
    uncounted = {name: tensor.numel() for name, tensor in traced.parameters.items()}

    def add_row(name, kind, operations, outputs):
        used = set().union(*(behind.get(memory(tensor), ()) for step in operations for tensor in step.inputs))
        sizes = {name: uncounted.pop(name) for name in used & uncounted.keys()}
        biases = sum(size for name, size in sizes.items() if name.endswith("bias"))
        weights = sum(sizes.values()) - biases
        macs = sum(macs_of[step] for step in operations)
        activations = sum(tensor.numel() for tensor in outputs) if any(step.computes for step in operations) else 0
        rows.append(Row(name, kind, tuple(outputs[0].shape[1:]), weights, biases, macs, activations))

    for step in traced.steps:
        if isinstance(step, Operation):
            sources, results = ({memory(tensor) for tensor in side} for side in (step.inputs, step.outputs))
            if sources & from_image and step.kind not in CONSTANT:
                from_image |= results
                if step.computes and not step.call.is_layer:
                    add_row(step.name, step.kind, [step], step.outputs[:1])
            else:
                behind |= dict.fromkeys(results, set().union(*(behind.get(source, ()) for source in sources)))
        elif step.call.is_layer and any(memory(tensor) in from_image for tensor in step.outputs):
            add_row(step.call.path, type(step.call.module).__name__, step.call.operations, step.outputs)
    return Ledger(tuple(rows), sum(uncounted.values()))


def _macs(operations):
    """Multiply-adds of each operation by torch's flop counter, which counts two operations for one."""
    macs = {}
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        for operation in operations:
            before = counter.get_total_flops()
            if operation.computes and torch.Tag.pointwise not in operation.op.tags:
                operation.op(*operation.args, **operation.kwargs)
            macs[operation] = (counter.get_total_flops() - before) // 2
    return macs
