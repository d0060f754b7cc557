"""What each operation does to a field: where the units of a tensor go, which windows slide over them, what merges.

An operation that none of the tables below holds is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from vgglab._trace import Operation, refuse, tensors


class MisalignedError(ValueError):
    """Branches meet whose units differ in stride or centre; `branches` holds the names of the two."""

    def __init__(self, operation: Operation, one: "Axis", other: "Axis") -> None:
        super().__init__(f"{operation.kind} (in {operation.name}) merges {one} with {other}: they do not line up")
        self.branches = one.name, other.name


@dataclass(frozen=True)
class Axis:
    """The field of a tensor along one axis: unit u sees the pixels from u * stride - padding on, size of them.

    The units lie at (index along dim) // inner % units, with a negative dim; dim is 0 where all values of the tensor
    see the same pixels. limit is the last pixel that any really sees, name that of the layer that made the tensor.
    """

    size: int = 1
    stride: int = 1
    padding: int = 0
    dim: int = 0
    units: int = 1
    inner: int = 1
    limit: int = 0
    name: str = ""

    def __str__(self) -> str:
        return f"{self.name} (size {self.size}, stride {self.stride}, first centre {self.center:g})"

    def through(self, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> "Axis":
        """Return the field one layer further up."""
        size, padding = self.size + dilation * (kernel - 1) * self.stride, self.padding + padding * self.stride
        return replace(self, size=size, stride=self.stride * stride, padding=padding)

    def whole(self) -> "Axis":
        """Return the axis of units that all see all of these."""
        return replace(self.through(self.units, stride=0), dim=0, units=1, inner=1) if self.dim else self

    def is_alone(self, shape: torch.Size) -> bool:
        """Whether the units have their dimension for themselves, rather than folded together with others."""
        return self.inner == 1 and shape[self.dim] == self.units

    def first(self, unit: int = 0) -> int:
        return unit * self.stride - self.padding

    def last(self, unit: int = 0) -> int:
        return self.first(unit) + self.size - 1

    @property
    def center(self) -> float:
        return (self.first() + self.last()) / 2

    def covers(self, first: int, last: int) -> bool:
        """Whether every unit sees the pixels from first to last."""
        return self.first(self.units - 1) <= first and min(self.last(), self.limit) >= last


Axes = tuple[Axis, ...]  # of rows and of columns
# One value of each input, at the same place: the operations that torch tags as pointwise, and these.
POINTWISE = {"cat", "hardswish", "prelu_kernel", "masked_fill", "rsub", "clone", "to_copy"}


def after(operation: Operation, sources: list[tuple[Tensor, Axes]]) -> Axes:
    """Return the axes of the operation's outputs; sources are those of its inputs that depend on the image."""
    kind = operation.kind
    all_whole = not any(axis.dim for _, axes in sources for axis in axes)
    if all_whole or kind in POINTWISE or torch.Tag.pointwise in operation.op.tags:
        sides = ([_broadcast(operation, tensor, axes[side]) for tensor, axes in sources] for side in (0, 1))
        return tuple(_merge(operation, branches) for branches in sides)
    if kind not in RULES:
        refuse(operation, "how its outputs depend on its inputs is not known here")
    tensor, axes = sources[0]
    if len(sources) > 1 or tensor is not operation.inputs[0]:
        refuse(operation, "the image decides more than its first input")
    return tuple(RULES[kind](operation, axis) if axis.dim else axis for axis in axes)


def _broadcast(operation: Operation, tensor: Tensor, axis: Axis) -> Axis:
    if axis.dim and tensor.shape[axis.dim] != operation.outputs[0].shape[axis.dim]:
        if operation.kind == "cat":
            refuse(operation, "it joins rows or columns")
        return axis.whole()  # one unit
    return axis


def _merge(operation: Operation, branches: list[Axis]) -> Axis:
    """Return the axis of units that see what the units of all branches see."""
    mapped = [axis for axis in branches if axis.dim]
    if mapped:
        limit = max(axis.limit for axis in mapped)
        largest = max(mapped, key=lambda axis: axis.size)
        for axis in mapped:
            if (axis.dim, axis.units, axis.inner) != (largest.dim, largest.units, largest.inner):
                refuse(operation, "its inputs hold rows or columns in different dimensions")
            if (axis.stride, axis.center) != (largest.stride, largest.center):
                raise MisalignedError(operation, axis, largest)
        if len(mapped) == len(branches):
            return replace(largest, limit=limit)
        whole = max((axis for axis in branches if not axis.dim), key=lambda axis: axis.size)
        seen = largest.whole()
        if not whole.covers(max(seen.first(), 0), min(seen.last(), limit)):
            raise MisalignedError(operation, whole, largest)
    axes = [axis.whole() for axis in branches]
    first, last = min(axis.first() for axis in axes), max(axis.last() for axis in axes)
    return replace(axes[0], size=last - first + 1, padding=-first, limit=max(axis.limit for axis in axes))


def _slide(operation: Operation, axis: Axis, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> Axis:
    """Return the axis of units whose windows slide over these; padding is that before the first value."""
    before, units = operation.inputs[0].shape, operation.outputs[0].shape[axis.dim]
    if (kernel, stride, padding) == (1, 1, 0) and before[axis.dim] == units:
        return axis
    if padding < 0 or not axis.is_alone(before):
        refuse(operation, "it cuts rows or columns off, or they are folded into one dimension")
    axis = axis.through(kernel, stride, padding, dilation)
    return replace(axis, units=units, limit=min(axis.limit, axis.last(units - 1)))


def _along(dim: int, *values: Sequence[int]) -> list[int]:
    """Return the kernel, stride, padding and dilation in this dimension."""
    if dim < -max(map(len, values)):
        return [1, 1, 0, 1]
    return [value[dim] if len(value) > 1 else value[0] for value in values]


def _convolved(operation: Operation, axis: Axis) -> Axis:
    kernel, padding, dilation = operation["weight"].shape[2:], operation["padding"], operation["dilation"]
    if operation["transposed"]:
        refuse(operation, "the units of a transposed convolution see windows of different sizes")
    if axis.dim == -1 - len(kernel):
        refuse(operation, "its channels hold rows or columns")
    if isinstance(padding, str):  # "same" puts the smaller half first
        spare = [d * (k - 1) for k, d in zip(kernel, list(dilation) * len(kernel), strict=False)]
        padding = [n // 2 if padding == "same" else 0 for n in spare]
    return _slide(operation, axis, *_along(axis.dim, kernel, operation["stride"], padding, dilation))


def _pooled(operation: Operation, axis: Axis) -> Axis:
    kernel, dilation = operation["kernel_size"], operation["dilation"] or [1]
    window = _along(axis.dim, kernel, operation["stride"] or kernel, operation["padding"], dilation)
    return _slide(operation, axis, *window)


def _pooled_adaptively(operation: Operation, axis: Axis) -> Axis:
    units, wanted = operation.inputs[0].shape[axis.dim], operation.outputs[0].shape[axis.dim]
    if units == wanted or wanted > 1 and units % wanted == 0:
        return _slide(operation, axis, units // wanted, units // wanted)
    if 1 not in (units, wanted):
        refuse(operation, f"from {units} to {wanted} units, its windows differ in size")
    return axis.whole()


def _padded(operation: Operation, axis: Axis) -> Axis:
    return _slide(operation, axis, *_along(axis.dim, [1], [1], operation["pad"][-2::-2], [1]))


def _sliced(operation: Operation, axis: Axis) -> Axis:
    if (operation["dim"] - axis.dim) % operation.inputs[0].dim():
        return axis
    if operation["start"]:
        refuse(operation, "it cuts rows or columns off")
    return _slide(operation, axis, 1, operation["step"])


# All values along some dimensions.
REDUCING = {"mean", "sum", "amax", "amin", "max", "min", "var", "std", "prod", "logsumexp", "linalg_vector_norm"}
MIXED_DIMS = {
    **dict.fromkeys([*REDUCING, "softmax", "log_softmax", "safe_softmax"], lambda operation: operation["dim"]),
    "linear": lambda operation: -1,
    "native_layer_norm": lambda operation: list(range(-len(operation["normalized_shape"]), 0)),
    "native_group_norm": lambda operation: None,
    "batch_norm": lambda operation: None if operation["training"] else [],
}


def _mixed(operation: Operation, axis: Axis) -> Axis:
    before, after = operation.inputs[0].dim(), operation.outputs[0].dim()
    dims = MIXED_DIMS[operation.kind](operation)
    if dims is None or (dims == [] and operation.kind in REDUCING):
        dims = range(before)
    dims = [dim % before - before for dim in ([dims] if isinstance(dims, int) else dims)]
    if axis.dim in dims:
        return axis.whole()
    lost = dims if after < before else []
    return replace(axis, dim=axis.dim + sum(dim > axis.dim for dim in lost))


def _reshaped(operation: Operation, axis: Axis) -> Axis:
    """Find the dimension in which the units are as far apart as before: reshaping keeps the values in order."""
    before, after = operation.inputs[0].shape, operation.outputs[0].shape
    if before[axis.dim :] == after[axis.dim :]:
        return axis
    if axis.units == 1:
        return axis.whole()
    apart = axis.inner * prod(before[len(before) + axis.dim + 1 :])
    for dim in range(-1, -len(after) - 1, -1):
        inner, rest = divmod(apart, prod(after[len(after) + dim + 1 :]))
        if inner and rest == 0 and after[dim] % (inner * axis.units) == 0:
            return replace(axis, dim=dim, inner=inner)
    return refuse(operation, f"{tuple(before)} to {tuple(after)} takes rows or columns apart")


def _moved(operation: Operation, axis: Axis) -> Axis:
    """See where the units go by a probe that has a stride in their dimension only."""
    before = operation.inputs[0].shape
    strides = [int(dim == axis.dim) for dim in range(-len(before), 0)]
    probe = torch.empty_strided(before, strides, device="meta")
    view, *others = tensors(operation.op(probe, *operation.args[1:], **operation.kwargs))
    dims = [dim for dim in range(-view.dim(), 0) if view.stride(dim)]
    if not dims and axis.units == 1:
        return axis.whole()
    if len(dims) != 1 or any(part.storage_offset() for part in (view, *others)):
        refuse(operation, "it cuts out rows or columns")
    if view.stride(dims[0]) != 1 or view.shape[dims[0]] != before[axis.dim]:
        refuse(operation, "it cuts rows or columns apart")
    return replace(axis, dim=dims[0])


RULES = {
    **dict.fromkeys(["conv1d", "conv2d", "conv3d", "convolution"], _convolved),
    **dict.fromkeys(["max_pool2d", "max_pool2d_with_indices", "avg_pool2d", "avg_pool3d"], _pooled),
    **dict.fromkeys(["adaptive_avg_pool2d", "adaptive_max_pool2d"], _pooled_adaptively),
    **{"constant_pad_nd": _padded, "slice": _sliced},
    **dict.fromkeys(MIXED_DIMS, _mixed),
    **dict.fromkeys(["view", "unsafe_view", "reshape_alias", "unsqueeze", "squeeze"], _reshaped),
    **dict.fromkeys(["permute", "transpose", "t", "expand", "select", "unbind", "split", "split_with_sizes", "detach",
                     "alias"], _moved),
}  # fmt: skip
