"""What a network costs: parameters, multiply-adds and activations, layer by layer."""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vgglab import _checks as checks
from vgglab._checks import Count, FilePath, Shape, checked
from vgglab._files import replacing
from vgglab._table import Lines, Table
from vgglab._trace import CONSTANT, Call, Operation, memory, trace

DEFINITION = (
    "One image, at inference. MACs: multiply-adds of convolutions and matrix products (operations = 2 x MACs); "
    "biases, normalization, ReLU and pooling count 0. Activations: numbers that a row computes, as if each row "
    "kept its own. A parameter that several rows use counts in the first; BatchNorm's running statistics are none."
)
Sides = Annotated[int | tuple[int, int], partial(checks.pair, at_least=1)]


class Cost(NamedTuple):
    """Parameters and multiply-adds of one layer."""

    parameters: int
    macs: int


@checked
def conv(kernel: Sides, in_channels: Count, out_channels: Count, output_side: Sides, bias: bool = True) -> Cost:
    """Return the Cost of one convolution by formula; kernel and output_side are numbers or pairs (height, width)."""
    (kernel_height, kernel_width), (height, width) = kernel, output_side  # type: ignore[misc]  # checked gives pairs
    weights = kernel_height * kernel_width * in_channels * out_channels
    return Cost(weights + out_channels * bias, weights * height * width)


class Row(NamedTuple):
    """One layer, or one operation that a module runs itself; output_shape is (C, H, W), without the batch."""

    name: str
    kind: str
    output_shape: tuple[int, ...]
    weights: int
    biases: int
    parameters: int
    macs: int
    activations: int

    def cells(self, number: str) -> list[str]:
        """Return the row as text, its numbers in this format."""
        name, kind, shape, *numbers = self
        return [name, kind, "x".join(map(str, shape)), *map(number.format, numbers)]


@dataclass(frozen=True, repr=False)
class Ledger(Table):
    """The rows of a model in order of execution, "input" first, and their totals under the columns' names.

    unused_parameters: those that no row uses, such as an auxiliary head's that runs in training only.
    """

    rows: tuple[Row, ...]
    unused_parameters: int
    weights: int
    biases: int
    parameters: int
    macs: int
    activations: int

    _aligned = "<<>>>>>>"

    @property
    def definition(self) -> str:
        """What the numbers mean, as printed under the table."""
        unused = f" {self.unused_parameters:,} parameters take no part at inference and are not counted."
        return DEFINITION + (unused if self.unused_parameters else "")

    @checked
    def to_csv(self, path: FilePath) -> None:
        """Write the rows to path, numbers plain, shapes as 64x224x224."""
        with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([Row._fields, *(row.cells("{}") for row in self.rows)])

    def _table(self) -> tuple[Lines, Lines, Lines]:
        total = Row("total", "", (), self.weights, self.biases, self.parameters, self.macs, self.activations)
        return [list(Row._fields)], [row.cells("{:,}") for row in self.rows], [total.cells("{:,}")]


@checked
def ledger(model: nn.Module, input_shape: Shape) -> Ledger:
    """Return the Ledger of model for one image of input_shape (C, H, W), in eval mode.

    It has a row for each call of a layer and for each operation that a module runs itself, named as in
    `receptive_field.of_model`; rows that compute nothing (dropout, flatten) have no activations. What does not depend
    on the image has a row where it is a torch.nn layer or has MACs, such as a network of positions. The model is left
    as it was and nothing is computed: it runs on the meta device, and torch's flop counter gives the MACs.
    Raises UnsupportedOperation for a model that needs real numbers to run.
    """
    traced = trace(model, input_shape)
    rows = [Row("input", "input", tuple(traced.image.shape[1:]), 0, 0, 0, 0, traced.image.numel())]
    uncounted = {name: tensor.numel() for name, tensor in traced.parameters.items()}
    # What is behind the numbers in a memory: parameters, by their names, and "" for the image.
    behind = {memory(tensor): {name} for name, tensor in [("", traced.image), *traced.parameters.items()]}

    def names_behind(tensors: Iterable[Tensor]) -> set[str]:
        return set().union(*(behind.get(memory(tensor), ()) for tensor in tensors))

    for step in traced.steps:
        if isinstance(step, Operation):
            names = names_behind(step.inputs) - ({""} if step.kind in CONSTANT else set())
            behind |= {memory(tensor): names | names_behind([tensor]) for tensor in step.outputs}
            kind, operations, outputs = step.kind, [step], step.outputs[:1]
        else:
            kind, operations, outputs = type(step.module).__name__, step.operations, step.outputs
        macs = _macs(operations) if step.is_layer else 0
        runs = isinstance(step, Call) and type(step.module).__module__.startswith("torch.nn.modules.")
        if step.is_layer and (macs or runs or "" in names_behind(outputs)):
            used = names_behind(tensor for part in operations for tensor in part.inputs) & uncounted.keys()
            sizes = {name: uncounted.pop(name) for name in used}
            parameters = sum(sizes.values())
            biases = sum(size for name, size in sizes.items() if name.endswith("bias"))
            activations = sum(tensor.numel() for tensor in outputs) * any(part.computes for part in operations)
            numbers = parameters - biases, biases, parameters, macs, activations
            rows.append(Row(step.name, kind, tuple(outputs[0].shape[1:]), *numbers))
    totals = (sum(column) for column in list(zip(*rows, strict=True))[3:])
    return Ledger(tuple(rows), sum(uncounted.values()), *totals)


def _macs(operations: list[Operation]) -> int:
    """Return their multiply-adds by torch's flop counter, which counts two operations for one."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        for operation in operations:
            if operation.computes and torch.Tag.pointwise not in operation.op.tags:
                operation.op(*operation.args, **operation.kwargs)
    return counter.get_total_flops() // 2
