"""What each operation does to a field: which values of its input every value of its output is made of.

For every value of a tensor stands the first and the last pixel that it sees, along rows and along columns. An operation
that moves values (a view, a crop, a shuffle) moves these numbers along; one that mixes values takes the smallest first
and the largest last of what it mixes. An operation that none of the tables below holds is refused.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import combinations, takewhile
from math import inf
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._pytree import tree_map

from vgglab._trace import Operation, refuse, tensors


class MisalignedError(ValueError):
    """Branches meet of which none has windows that hold those of the others; `branches` holds the names of two."""

    def __init__(self, operation: Operation, one: "Axis", other: "Axis") -> None:
        super().__init__(f"{operation.kind} (in {operation.name}) merges {one} with {other}: they do not line up")
        self.branches = one.name, other.name


@dataclass(frozen=True, eq=False)
class Axis:
    """What the values of a tensor see along one axis of the image: the pixels from first to last, both included.

    first and last have the tensor's dimensions, with size 1 where all values along a dimension see the same; what sees
    nothing has inf and -inf. In dim lie the rows or columns of a map; spacing is the stride of a map of one unit, 0
    where all values see the same. low and high are the outermost pixels that any really sees, name is the layer's.
    """

    first: Tensor
    last: Tensor
    dim: int
    spacing: int = 1
    low: float = -inf
    high: float = inf
    name: str = ""

    def __str__(self) -> str:
        first, last = self.first.flatten()[0].item(), self.last.flatten()[0].item()
        size = (self.last - self.first).amax().item() + 1
        return f"{self.name} (size {size:g}, stride {self.stride}, first centre {(first + last) / 2:g})"

    @property
    def constant(self) -> bool:
        return self.first.numel() == self.last.numel() == 1

    @property
    def stride(self) -> int:
        """The pixels from a unit to its neighbour, on average."""
        line = self.first.flatten()
        seeing = line.isfinite().nonzero().flatten()[[0, -1]]
        first, last = line[seeing].tolist()
        units = (seeing[1] - seeing[0]).item()
        return round((last - first) / units) if units else self.spacing

    def varies(self, dim: int) -> bool:
        return self.first.shape[dim] > 1 or self.last.shape[dim] > 1

    def lies_in(self, dim: int, length: int) -> bool:
        """Whether the units lie in this dimension; a map's only unit does in its own."""
        return self.varies(dim) or length == 1 and dim == self.dim

    def map(self, smallest: Callable[[Tensor], Tensor], **changes: Any) -> "Axis":
        """Return the axis of values each made of some of these; smallest finds the smallest number among those."""
        return replace(self, first=smallest(self.first), last=-smallest(-self.last), **changes)

    def whole(self) -> "Axis":
        """Return the axis of values that all see all that these see."""
        return self.map(lambda first: first.amin().reshape([1] * first.dim()), spacing=0)

    def covers(self, first: int, last: int) -> bool:
        """Whether every value sees the pixels from first to last."""
        return max(self.first.amax().item(), self.low) <= first and min(self.last.amin().item(), self.high) >= last


Axes = tuple[Axis, Axis]  # of rows and of columns
Branches = list[tuple[Tensor, Axis]]


def after(operation: Operation, sources: list[tuple[Tensor, Axes]], gates: bool) -> list[Axes]:
    """Return the axes of each output; sources are those of the inputs that depend on the image."""
    if not gates and operation.kind == "mul":
        mapped = [source for source in sources if not (source[1][0].constant and source[1][1].constant)]
        sources = mapped or sources
    sides = [_along_side(operation, [(tensor, axes[side]) for tensor, axes in sources]) for side in (0, 1)]
    return list(zip(*sides, strict=True))


def _along_side(operation: Operation, branches: Branches) -> list[Axis]:
    kind, (tensor, axis) = operation.kind, branches[0]
    if kind in JOINING or torch.Tag.pointwise in operation.op.tags:
        found = [JOINING.get(kind, _merged)(operation, branches)] * len(operation.outputs)
    elif kind in RULES and tensor is operation.inputs[0]:
        result = RULES[kind](operation, axis)
        found = result if isinstance(result, list) else [result] * len(operation.outputs)
        if others := [other.whole() for _, other in branches[1:]]:
            found = [_largest(operation, [part, *others]) for part in found]
    elif all(axis.constant for _, axis in branches):
        found = [_union([axis for _, axis in branches])] * len(operation.outputs)
    else:
        refuse(operation, "how its outputs depend on its inputs is not known here")
    return [_fitted(axis, output, tensor) if output.numel() else axis
            for axis, output in zip(found, operation.outputs, strict=True)]  # fmt: skip


def _fitted(axis: Axis, output: Tensor, source: Tensor) -> Axis:
    """Return the axis with the output's dimensions, and with the pixels that its values can really see."""
    dims = output.dim()
    if axis.first.dim() != dims:
        axis = axis.map(lambda first: first.reshape([*[1] * dims, *first.shape][first.dim() :]))
    low, high = max(axis.low, axis.first.amin().item()), min(axis.high, axis.last.amax().item())
    repeated = -axis.dim <= dims and output.shape[axis.dim] > 1 and not axis.varies(axis.dim)  # all see the same
    return replace(axis, spacing=0 if repeated or dims != source.dim() else axis.spacing, low=low, high=high)


# Several inputs


def _union(branches: Sequence[Axis]) -> Axis:
    return replace(
        max(branches, key=lambda axis: axis.first.numel()),
        first=reduce(torch.minimum, [axis.first for axis in branches]),
        last=reduce(torch.maximum, [axis.last for axis in branches]),
        spacing=min(axis.spacing for axis in branches),
        low=min(axis.low for axis in branches),
        high=max(axis.high for axis in branches),
    )


def _largest(operation: Operation, branches: Sequence[Axis]) -> Axis:
    """Return the branch whose windows hold those of all others, if not everywhere then within the image."""
    if len(branches) == 1:
        return branches[0]
    union = _union(branches)
    image = union.low, union.high
    for bounds in ((-inf, inf), image):
        for axis in branches:
            if _holds(axis, union, *bounds):
                return replace(union, first=axis.first, last=axis.last)
    pairs = combinations(branches, 2)
    apart = [(one, other) for one, other in pairs if not (_holds(one, other, *image) or _holds(other, one, *image))]
    raise MisalignedError(operation, *apart[0])


def _holds(axis: Axis, other: Axis, low: float, high: float) -> bool:
    before = (axis.first.clamp(min=low) <= other.first.clamp(min=low)).all()
    return bool(before and (axis.last.clamp(max=high) >= other.last.clamp(max=high)).all())


def _merged(operation: Operation, branches: Branches) -> Axis:
    """One value of each input, at the same place."""
    shape = operation.outputs[0].shape
    return _largest(operation, [
        axis if axis.dim < -len(shape) or tensor.dim() >= -axis.dim and tensor.shape[axis.dim] == shape[axis.dim]
        else replace(axis, spacing=0) for tensor, axis in branches
    ])  # fmt: skip


def _joined(operation: Operation, branches: Branches) -> Axis:
    """Channels count together; rows, columns and tokens are put one behind the other."""
    dim = operation["dim"] % operation.outputs[0].dim() - operation.outputs[0].dim()
    axes = [axis for _, axis in branches]
    if not any(axis.varies(dim) for axis in axes):
        return _merged(operation, branches)
    blind = axes[0].map(lambda first: first.new_full([1] * first.dim(), inf))
    known = {id(tensor): axis for tensor, axis in branches}
    parts = [(tensor, known.get(id(tensor), blind)) for tensor in operation.inputs]

    def put(values: list[Tensor]) -> Tensor:
        others = torch.broadcast_shapes(*(value.narrow(dim, 0, 1).shape for value in values))
        sizes = [[*others[:dim], tensor.shape[dim], *others[len(others) + dim + 1 :]] for tensor, _ in parts]
        return torch.cat([value.expand(size) for value, size in zip(values, sizes, strict=True)], dim)

    whole = _union([axis.whole() for axis in axes])
    return replace(whole, first=put([axis.first for _, axis in parts]), last=put([axis.last for _, axis in parts]))


def _stacked(operation: Operation, branches: Branches) -> Axis:
    dim = operation["dim"] % operation.outputs[0].dim()
    return _largest(operation, [axis.map(lambda first: first.unsqueeze(dim)) for _, axis in branches])


def _multiplied(operation: Operation, branches: Branches) -> Axis:
    """Matrices: a value is made of a row of the left one and a column of the right one."""
    if min(tensor.dim() for tensor in operation.inputs[-2:]) < 2:
        refuse(operation, "one of its inputs is no matrix")
    known = {id(tensor): axis for tensor, axis in branches}
    *added, left, right = (known.get(id(tensor)) for tensor in operation.inputs)
    rows = left and left.map(lambda first: first.amin(-1, True))
    columns = right and right.map(lambda first: first.amin(-2, True))
    return _union([axis for axis in (*added, rows, columns) if axis])


# One input: all values along some dimensions


REDUCING = {"mean", "sum", "amax", "amin", "max", "min", "var", "std", "var_mean", "std_mean", "prod", "logsumexp",
            "linalg_vector_norm"}  # fmt: skip
MIXED_DIMS = {
    **dict.fromkeys([*REDUCING, "softmax", "log_softmax", "safe_softmax"], lambda operation: operation["dim"]),
    "linear": lambda operation: -1,
    "native_layer_norm": lambda operation: list(range(-len(operation["normalized_shape"]), 0)),
    "native_group_norm": lambda operation: None,
    "batch_norm": lambda operation: None if operation["training"] else [],
}


def _mixed(operation: Operation, axis: Axis) -> Axis:
    before, dims = operation.inputs[0].shape, MIXED_DIMS[operation.kind](operation)
    if dims is None or (dims == [] and operation.kind in REDUCING):
        dims = range(len(before))
    dims = [dim % len(before) - len(before) for dim in ([dims] if isinstance(dims, int) else dims)]
    kept = len(before) == operation.outputs[0].dim()
    one_unit = axis.dim not in dims or not axis.varies(axis.dim) and before[axis.dim] > 1
    return axis.map(lambda first: first.amin(dims, kept) if dims else first, spacing=axis.spacing * one_unit)


# One input: windows


def _slide(operation: Operation, axis: Axis, dim: int, kernel: int, stride: int, padding: int, dilation: int) -> Axis:
    """Return the axis of units whose windows slide along dim; padding is that before the first value."""
    before, units = operation.inputs[0].shape[dim], operation.outputs[0].shape[dim]
    if (kernel, stride, padding, before) == (1, 1, 0, units) or not axis.lies_in(dim, before):
        return axis
    windows = (torch.arange(units, device="cpu") * stride - padding)[:, None]
    windows = windows + torch.arange(kernel, device="cpu") * dilation
    if before == 1:  # a second unit shows how a map of one would go on
        first, last = (torch.cat([line, line + axis.spacing], dim) for line in (axis.first, axis.last))
        axis = replace(axis, first=first, last=last)
    return axis.map(
        lambda first: _at(first.movedim(dim, -1), windows).amin(-1).movedim(-1, dim), spacing=axis.stride * stride
    )


def _at(line: Tensor, units: Tensor) -> Tensor:
    """Return the numbers of these units of a line; beyond its ends it goes on as it repeats itself inside."""
    length = line.shape[-1]
    if units.min() < 0 or units.max() >= length:
        for period in range(1, length // 2 + 1):
            step = line[..., period:] - line[..., :-period]
            if (step == step[..., :1]).all():
                return line[..., units % period] + step[..., :1, None] * (units // period)
    return line[..., units.clamp(0, length - 1)]


def _along(dim: int, *values: Sequence[int]) -> list[int]:
    """Return the kernel, stride, padding and dilation in this dimension."""
    return [value[dim] if len(value) > 1 else value[0] for value in values]


def _convolved(operation: Operation, axis: Axis) -> Axis:
    kernel, padding, dilation = operation["weight"].shape[2:], operation["padding"], operation["dilation"]
    channels = -1 - len(kernel)
    if axis.varies(channels):
        if operation["groups"] > 1:
            refuse(operation, "its groups of channels hold rows or columns")
        axis = axis.map(lambda first: first.amin(channels, True))
    if operation["transposed"]:
        return _probed(operation, axis)
    if isinstance(padding, str):  # "same" puts the smaller half first
        spare = [d * (k - 1) for k, d in zip(kernel, list(dilation) * len(kernel), strict=False)]
        padding = [n // 2 if padding == "same" else 0 for n in spare]
    for dim in range(-len(kernel), 0):
        axis = _slide(operation, axis, dim, *_along(dim, kernel, operation["stride"], padding, dilation))
    return axis


def _pooled(operation: Operation, axis: Axis) -> Axis:
    kernel, dilation = operation["kernel_size"], operation["dilation"] or [1]
    for dim in range(-3 if operation.kind == "avg_pool3d" else -2, 0):
        stride, padding = operation["stride"] or kernel, operation["padding"]
        axis = _slide(operation, axis, dim, *_along(dim, kernel, stride, padding, dilation))
    return axis


def _padded(operation: Operation, axis: Axis) -> Axis:
    for dim, before in enumerate(operation["pad"][::2]):
        axis = _slide(operation, axis, -1 - dim, 1, 1, before, 1)
    return axis


WINDOW = "stride", "padding", "dilation", "output_padding"
RESIZING = ["adaptive_avg_pool2d", "adaptive_max_pool2d", "upsample_nearest2d", "upsample_nearest_exact2d",
            "upsample_bilinear2d", "upsample_bicubic2d", "upsample_bilinear2d_aa", "upsample_bicubic2d_aa"]  # fmt: skip


def _run_on_lines(operation: Operation, lines: Tensor, dim: int, units: int) -> Tensor:
    """Run an operation that resizes, or a transposed convolution, as it is along dim, on maps of one column."""
    if operation.kind.startswith("adaptive"):
        return F.adaptive_avg_pool2d(lines, (units, 1))
    if operation.kind == "convolution":
        weight = lines.new_ones(1, 1, operation["weight"].shape[dim], 1)
        stride, padding, dilation, more = (operation[name][dim] for name in WINDOW)
        return F.conv_transpose2d(lines, weight, None, (stride, 1), (padding, 0), (more, 0), 1, (dilation, 1))
    # To two columns: where nothing changes across, torch copies, or takes other values with antialias.
    aligned, factors = operation["align_corners"], operation["scale_factors"] or [None, None]
    return operation.op.overloadpacket(lines, [units, 2], *([] if aligned is None else [aligned]), factors[dim], None)


def _probed(operation: Operation, axis: Axis) -> Axis:
    """Ask the operation itself: it runs on lines of numbers with one NaN each, which reaches all units that see it."""
    for dim in range(-len(operation["stride"] or (1, 1)), 0):
        before, units = operation.inputs[0].shape[dim], operation.outputs[0].shape[dim]
        if axis.lies_in(dim, before):
            lines = torch.zeros(before, 1, before, 1, dtype=torch.float64, device="cpu")
            lines.diagonal(dim1=0, dim2=2).fill_(torch.nan)
            seen = _run_on_lines(operation, lines, dim, units)[:, 0, :, 0].isnan().T

            def smallest(first: Tensor, dim: int = dim, seen: Tensor = seen) -> Tensor:
                return first.movedim(dim, -1)[..., None, :].where(seen, inf).amin(-1).movedim(-1, dim)

            axis = axis.map(smallest, spacing=axis.stride * before // units * (min(before, units) > 1))
    return axis


# One input: values that move


def _moved(operation: Operation, axis: Axis) -> Axis | list[Axis]:
    """Run the operation itself on the numbers."""
    source = operation.inputs[0]

    def moved(values: Tensor) -> list[Tensor]:
        values = values.expand(source.shape)
        args, kwargs = tree_map(lambda given: values if given is source else given, (operation.args, operation.kwargs))
        return [_compact(part) for part in tensors(operation.op(*args, **kwargs))]

    if axis.constant:
        return axis
    return [replace(axis, first=first, last=last)
            for first, last in zip(moved(axis.first), moved(axis.last), strict=True)]  # fmt: skip


def _reshaped(operation: Operation, axis: Axis) -> Axis:
    before, after = (list(part.shape) for part in (operation.inputs[0], operation.outputs[0]))
    ends = min(len(before), len(after))
    for dims in (range(ends), range(-1, -1 - ends, -1)):
        for dim in takewhile(lambda dim: before[dim] == after[dim], dims):
            if not axis.varies(dim):  # a dimension that stays and in which nothing varies need not be written out
                before[dim] = after[dim] = 1
    return axis if axis.constant else axis.map(lambda first: _compact(first.expand(before).reshape(after)))


def _compact(values: Tensor) -> Tensor:
    """Leave one of those values that are the same all along a dimension."""
    for dim in range(values.dim() if values.numel() else 0):
        one = values.narrow(dim, 0, 1)
        values = one if values.stride(dim) == 0 or (values == one).all() else values
    return values


def _indexed(operation: Operation, axis: Axis) -> Axis:
    """Take entries along one dimension; nobody knows here which."""
    indices = operation["indices"] or [None] * (operation["dim"] % operation.inputs[0].dim()) + [operation["index"]]
    (dim, index), *others = [(dim, index) for dim, index in enumerate(indices) if index is not None]
    if not axis.constant and (others or axis.varies(dim)):
        refuse(operation, "it picks out rows or columns by their numbers")
    return axis.map(lambda first: first.reshape([*first.shape[:dim], *[1] * index.dim(), *first.shape[dim + 1 :]]))


JOINING: dict[str, Callable[[Operation, Branches], Axis]] = {
    **dict.fromkeys(["hardswish", "prelu_kernel", "masked_fill", "rsub", "clone", "to_copy"], _merged),
    **{"cat": _joined, "stack": _stacked},
    **dict.fromkeys(["matmul", "mm", "bmm", "addmm", "baddbmm"], _multiplied),
}
RULES: dict[str, Callable[[Operation, Axis], Axis | list[Axis]]] = {
    **dict.fromkeys(["conv1d", "conv2d", "conv3d", "convolution"], _convolved),
    **dict.fromkeys(["max_pool2d", "max_pool2d_with_indices", "avg_pool2d", "avg_pool3d"], _pooled),
    **dict.fromkeys(RESIZING, _probed),
    **{"constant_pad_nd": _padded, "index": _indexed, "index_select": _indexed},
    **dict.fromkeys(MIXED_DIMS, _mixed),
    **dict.fromkeys(["view", "unsafe_view", "reshape_alias", "unsqueeze", "squeeze"], _reshaped),
    **dict.fromkeys(["permute", "transpose", "t", "expand", "select", "unbind", "split", "split_with_sizes", "detach",
                     "alias", "slice", "flip", "roll", "unfold", "diagonal", "repeat", "reflection_pad2d",
                     "replication_pad2d", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle"], _moved),
}  # fmt: skip
