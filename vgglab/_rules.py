"""What each operation does to a field: where the units of a tensor go, and which windows slide over them."""

from dataclasses import dataclass, replace
from math import prod

import torch

from vgglab._trace import refuse, tensors

POINTWISE = {"cat", "hardswish", "prelu_kernel", "masked_fill", "rsub", "clone", "to_copy"}


# One value, from another place.
RESHAPING = {"view", "unsafe_view", "reshape_alias", "unsqueeze", "squeeze"}


MOVING = {"permute", "transpose", "t", "expand", "select", "unbind", "split", "split_with_sizes", "detach", "alias"}


# All values along some dimensions.
REDUCING = {"mean", "sum", "amax", "amin", "max", "min", "var", "std", "prod", "logsumexp", "linalg_vector_norm"}


MIXED_DIMS = {
    **dict.fromkeys(REDUCING, lambda operation: operation.arguments.get("dim")),
    **dict.fromkeys(["softmax", "log_softmax", "safe_softmax"], lambda operation: operation["dim"]),
    "linear": lambda operation: -1,
    "native_layer_norm": lambda operation: list(range(-len(operation["normalized_shape"]), 0)),
    "native_group_norm": lambda operation: None,
    "batch_norm": lambda operation: None if operation["training"] else [],
}


def _of_convolution(operation, dim):
    kernel, padding, dilation = operation["weight"].shape[2:], operation["padding"], operation["dilation"]
    if operation.arguments.get("transposed"):
        refuse(operation, "the units of a transposed convolution see windows of different sizes")
    if dim == -1 - len(kernel):
        refuse(operation, "its channels hold rows or columns")
    if isinstance(padding, str):  # "same" puts the smaller half first
        spare = [d * (k - 1) for k, d in zip(kernel, list(dilation) * len(kernel), strict=False)]
        padding = [n // 2 if padding == "same" else 0 for n in spare]
    return _along(dim, kernel, operation["stride"], padding, dilation)


def _of_pooling(operation, dim):
    kernel, dilation = operation["kernel_size"], operation.arguments.get("dilation", [1])
    return _along(dim, kernel, operation["stride"] or kernel, operation["padding"], dilation)


def _of_adaptive_pooling(operation, dim):
    units, wanted = operation.inputs[0].shape[dim], operation.outputs[0].shape[dim]
    if units == wanted or wanted > 1 and units % wanted == 0:
        return units // wanted, units // wanted, 0, 1
    if 1 not in (units, wanted):
        refuse(operation, f"from {units} to {wanted} units, its windows differ in size")
    return None


def _of_padding(operation, dim):
    return _along(dim, [1], [1], operation["pad"][-2::-2], [1])


def _of_slicing(operation, dim):
    if operation["dim"] % operation.inputs[0].dim() != dim % operation.inputs[0].dim():
        return 1, 1, 0, 1
    if operation["start"]:
        refuse(operation, "it cuts rows or columns off")
    return 1, operation["step"], 0, 1


def _along(dim, *values):
    if dim < -max(map(len, values)):
        return 1, 1, 0, 1
    return tuple(value[dim] if len(value) > 1 else value[0] for value in values)


# A window that slides along a dimension: its kernel, stride, padding before the first value, and dilation, or None
# for a single window over all values.
WINDOWS = {
    **dict.fromkeys(["conv1d", "conv2d", "conv3d", "convolution"], _of_convolution),
    **dict.fromkeys(["max_pool2d", "max_pool2d_with_indices", "avg_pool2d", "avg_pool3d"], _of_pooling),
    **dict.fromkeys(["adaptive_avg_pool2d", "adaptive_max_pool2d"], _of_adaptive_pooling),
    "constant_pad_nd": _of_padding,
    "slice": _of_slicing,
}


@dataclass(frozen=True)
class Place:
    """Where the units of an axis lie in a tensor: at (index along dim) // inner % units; dim is negative."""

    dim: int
    units: int
    inner: int = 1

    def is_alone(self, shape):
        """Whether the units have the dimension for themselves, rather than folded together with others."""
        return self.inner == 1 and shape[self.dim] == self.units


def place_after(operation, place):
    """Return the units' Place in the output of an operation of MIXED_DIMS, RESHAPING or MOVING.

    None where every value of the output sees all units, if only because there is but one. Raises
    UnsupportedOperation where rows or columns are cut off or taken apart.
    """
    before, after = operation.inputs[0].shape, operation.outputs[0].shape
    if operation.kind in MIXED_DIMS:
        return _mixed(operation, place, before, after)
    if operation.kind in MOVING:
        return _moved(operation, place, before)
    if before[place.dim :] == after[place.dim :]:
        return place
    return None if place.units == 1 else _reshaped(operation, place, before, after)


def _mixed(operation, place, before, after):
    dims = MIXED_DIMS[operation.kind](operation)
    if dims is None or (dims == [] and operation.kind in REDUCING):
        dims = range(len(before))
    dims = [dim % len(before) - len(before) for dim in ([dims] if isinstance(dims, int) else dims)]
    if place.dim in dims:
        return None
    lost = dims if len(after) < len(before) else []
    return replace(place, dim=place.dim + sum(dim > place.dim for dim in lost))


def _reshaped(operation, place, before, after):
    """Find the dimension in which the units are as far apart as before: reshaping keeps the values in order."""
    apart = place.inner * prod(before[len(before) + place.dim + 1 :])
    for dim in range(-1, -len(after) - 1, -1):
        inner, rest = divmod(apart, prod(after[len(after) + dim + 1 :]))
        if inner and rest == 0 and after[dim] % (inner * place.units) == 0:
            return Place(dim, place.units, inner)
    return refuse(operation, f"{tuple(before)} to {tuple(after)} takes rows or columns apart")


def _moved(operation, place, before):
    """See where the units go by a probe that has a stride in their dimension only."""
    strides = [int(dim == place.dim) for dim in range(-len(before), 0)]
    probe = torch.empty_strided(before, strides, device="meta")
    views = tensors(operation.op(probe, *operation.args[1:], **operation.kwargs))
    dims = [dim for dim in range(-views[0].dim(), 0) if views[0].stride(dim)]
    if not dims and place.units == 1:
        return None
    if len(dims) != 1 or any(view.storage_offset() for view in views):
        refuse(operation, "it cuts out rows or columns")
    if views[0].stride(dims[0]) != 1 or views[0].shape[dims[0]] != before[place.dim]:
        refuse(operation, "it cuts rows or columns apart")
    return replace(place, dim=dims[0])
