"""One walk over a model: every operation that it runs, in order, with shapes and module names.

The model runs once on the meta device, where tensors have shapes but no numbers: it costs milliseconds and no
memory, whatever the size of the model. `receptive_field` and `cost` read the recorded steps.
"""

import copy
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vgglab import checks

# Composite operations recorded as they are; all others are recorded as the parts that torch makes them of.
KEPT_WHOLE = {"conv1d", "conv2d", "conv3d", "linear", "batch_norm", "max_pool2d", "adaptive_avg_pool2d", "matmul"}


class UnsupportedOperation(ValueError):
    """The model does something that cannot be followed; the message names it."""


@dataclass(eq=False)
class Call:
    """One call of a module: its path ("" for the whole model), and whether it called other modules."""

    path: str
    module: nn.Module
    has_children: bool = False
    operations: list = field(default_factory=list)

    @property
    def is_layer(self):
        """Whether the call is shown as one step: a torch.nn layer, or a module that does one operation."""
        if not self.path or self.has_children:
            return False
        computing = sum(operation.computes for operation in self.operations)
        return computing <= 1 or type(self.module).__module__.startswith("torch.nn.")


@dataclass(eq=False)
class Operation:
    """One ATen operation with its arguments by name, its tensors, and the call that it is part of."""

    op: torch._ops.OpOverload
    args: tuple
    kwargs: dict
    outputs: list
    call: Call
    part_of: str | None = None  # the composite operation that torch made it for
    reads_overwritten: bool = False  # an input was changed through another view of its memory since it was made
    name: str = ""

    @property
    def kind(self):
        """The operation's name without namespace and in-place mark: "conv2d", "relu", "add"."""
        return self.op._schema.name.split("::")[-1].strip("_")

    @property
    def inputs(self):
        return tensors((self.args, self.kwargs))

    def __getitem__(self, argument):
        return self.arguments[argument]

    @property
    def arguments(self):
        """The arguments by their name in the operation's schema, defaults included."""
        schema = self.op._schema.arguments
        defaults = {entry.name: entry.default_value for entry in schema if entry.has_default_value()}
        return defaults | dict(zip((entry.name for entry in schema), self.args, strict=False)) | self.kwargs

    @property
    def in_place(self):
        """Whether it writes into one of its inputs."""
        return any(entry.alias_info is not None and entry.alias_info.is_write for entry in self.op._schema.arguments)

    @property
    def computes(self):
        """Whether it makes new numbers, rather than a view or a copy of those that it was given."""
        return not (self.op.is_view or self.kind in COPYING or self.kind in CONSTANT)


@dataclass(eq=False)
class Returned:
    """The end of a module's call, with the tensors that it returned."""

    call: Call
    outputs: list


@dataclass(eq=False)
class Trace:
    """The steps (Operation and Returned, in order of execution) between the input and the model's outputs."""

    input: torch.Tensor
    steps: list
    outputs: list
    parameters: dict  # name -> the parameter, as it stands among the operations' inputs


def tensors(values):
    """Return the tensors in a nest of tuples, lists and dicts, in order."""
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]


def structural_copy(model, convert):
    """Return a copy of model in eval mode with convert(tensor) for each parameter and buffer.

    Only the structure is copied, so that a convert that copies nothing costs nothing; shared parameters stay
    shared, and model itself is left as it was.
    """
    replaced = {}
    for module in checks.module("model", model).modules():
        for tensor in [*module.parameters(recurse=False), *module.buffers(recurse=False), *vars(module).values()]:
            if isinstance(tensor, torch.Tensor) and id(tensor) not in replaced:
                new = convert(tensor.detach())
                replaced[id(tensor)] = nn.Parameter(new, False) if isinstance(tensor, nn.Parameter) else new
    return copy.deepcopy(model, replaced).eval()


def memory(tensor):
    """Return a key that tensors have in common if one is a view of the other."""
    return tensor.untyped_storage()._cdata


class _Recorder(TorchDispatchMode):
    """Writes down every operation that runs while it is active, and which module's call it was part of."""

    def __init__(self, model):
        super().__init__()
        self.steps = []
        self.calls = []
        self.composite = None
        self.made = {}  # tensor -> the step that made it
        self.written = {}  # memory -> the step that last merged something into it, and through which tensor
        for path, module in model.named_modules():
            module.register_forward_pre_hook(partial(self._enter, path))
            module.register_forward_hook(self._leave)

    def _enter(self, path, module, args):
        if self.calls:
            self.calls[-1].has_children = True
        self.calls.append(Call(path, module))

    def _leave(self, module, args, output):
        self.steps.append(Returned(self.calls.pop(), tensors(output)))

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = op._schema.name.split("::")[-1]
        if torch.Tag.pointwise not in op.tags and name not in KEPT_WHOLE:
            outer, self.composite = self.composite, self.composite or name
            with self:
                result = op.decompose(*args, **kwargs)
            self.composite = outer
            if result is not NotImplemented:
                return result
        layouts = [(tensor.shape, tensor.stride()) for tensor in tensors((args, kwargs))]
        result = op(*args, **kwargs)
        operation = Operation(op, args, kwargs, tensors(result), self.calls[-1], self.composite)
        if layouts != [(tensor.shape, tensor.stride()) for tensor in operation.inputs]:
            refuse(operation, "it changes a shape in place")
        operation.reads_overwritten = any(map(self._was_overwritten, operation.inputs))
        for tensor in operation.outputs:
            self.made.setdefault(id(tensor), len(self.steps))
            if operation.in_place and len(operation.inputs) > 1:
                self.written[memory(tensor)] = len(self.steps), id(tensor)
        self.calls[-1].operations.append(operation)
        self.steps.append(operation)
        return result

    def _was_overwritten(self, tensor):
        step, through = self.written.get(memory(tensor), (-1, None))
        return through != id(tensor) and step > self.made.get(id(tensor), -1)


def _name_operations(steps, taken):
    """Name each operation by its layer, or by the module that runs it and its kind: "layer1.0.add"."""
    counts = Counter()
    for step in steps:
        if isinstance(step, Operation):
            step.name = step.call.path
            if step.computes and not step.call.is_layer:
                base = f"{step.call.path}.{step.kind}".lstrip(".")
                while step.name in taken:
                    step.name = f"{base}_{counts[base]}" if counts[base] else base
                    counts[base] += 1
                taken.add(step.name)


def trace(model, input_shape):
    """Run model once on the meta device, in eval mode, on one image of input_shape (C, H, W); return its Trace.

    The model is left as it was and its weights are not copied. Raises UnsupportedOperation for a model that needs
    real numbers to run, ValueError where input_shape does not suit the model.
    """
    input_shape = checked_shape(input_shape)
    with torch.inference_mode(), torch.device("meta"):
        skeleton = structural_copy(model, partial(torch.empty_like, device="meta"))
        floats = [p.dtype for p in skeleton.parameters() if p.is_floating_point()]
        recorder = _Recorder(skeleton)
        try:
            image = torch.empty(1, *input_shape, dtype=floats[0] if floats else None)
            with recorder:
                outputs = skeleton(image)
        except UnsupportedOperation:
            raise
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            if isinstance(error, NotImplementedError) or "meta" in str(error):
                raise UnsupportedOperation(f"the model cannot run without real numbers: {error}") from error
            raise ValueError(f"the model does not run on input_shape {input_shape}: {error}") from error
    _name_operations(recorder.steps, {path for path, _ in skeleton.named_modules()})
    return Trace(image, recorder.steps, tensors(outputs), dict(skeleton.named_parameters()))


def checked_shape(input_shape):
    """Return input_shape as three positive integers (C, H, W); raise TypeError or ValueError otherwise."""
    if not isinstance(input_shape, (tuple, list, torch.Size)) or len(input_shape) != 3:
        raise ValueError(f"input_shape must be (channels, height, width), not {input_shape!r}")
    return tuple(checks.integer("input_shape", n, 1, checks.LARGEST) for n in input_shape)


def refuse(operation, reason):
    """Raise UnsupportedOperation, naming the operation and the module that runs it."""
    where = operation.call.path or "the model"
    raise UnsupportedOperation(f"{operation.part_of or operation.kind} (in {where}): {reason}")


# How the values of an operation's output depend on those of its input: what the receptive field must know.
# An operation that is in none of these tables is refused.

# One value of each input, at the same place: the operations that torch tags as pointwise, and these.
COPYING = {"clone", "to_copy", "unsafe_view"}
POINTWISE = {"cat", "hardswish", "prelu_kernel", "masked_fill", "rsub", "clone", "to_copy"}
# None: only the shape matters.
CONSTANT = {"empty_like", "zeros_like", "ones_like", "full_like", "rand_like", "randn_like", "new_empty", "new_zeros",
            "new_ones", "new_full", "fill", "zero"}  # fmt: skip
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
