"""One walk over a model: every operation that it runs, in order, with shapes and module names.

The model runs once on the meta device, where tensors have shapes but no numbers: it costs milliseconds and no
memory, whatever the size of the model. `receptive_field` and `cost` read the recorded steps.
"""

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vgglab import _checks as checks

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


def structural_copy(
    model: nn.Module, convert: Callable[[torch.Tensor], torch.Tensor] = lambda tensor: tensor
) -> nn.Module:
    """Return a copy of model in eval mode with convert(tensor) for each parameter and buffer.

    The copy has modules of its own and by default the very weights of model, which is left as it was.
    """
    replaced = {}
    for module in checks.module("model", model).modules():
        for tensor in [*module.parameters(recurse=False), *module.buffers(recurse=False), *vars(module).values()]:
            if isinstance(tensor, torch.Tensor) and id(tensor) not in replaced:
                new = convert(tensor.detach())
                replaced[id(tensor)] = nn.Parameter(new, False) if isinstance(tensor, nn.Parameter) else new
    return copy.deepcopy(model, replaced).eval()


def output_of(model: nn.Module, x: torch.Tensor, layer: str, name: str = "x") -> torch.Tensor:
    """Run model on x, the argument of that name, and return what the last call of layer gave.

    layer is the path of a module, or "output" for the model itself, whose first tensor counts if it returns several.
    Raises ValueError where there is no such layer, or it does not run or returns several tensors.
    """
    modules = dict(model.named_modules()) | {"output": model}
    if not isinstance(layer, str) or layer not in modules:
        raise ValueError(f"layer must be the path of a module, or 'output', not {layer!r}")
    calls: list[list[torch.Tensor]] = []
    hook = modules[layer].register_forward_hook(
        lambda module, args, output: calls.append([tensor.clone() for tensor in tensors(output)])
    )
    try:
        with checks.running(name, x.shape):
            model(x.clone())  # a first layer that works in place would change x itself
    finally:
        hook.remove()
    if not calls or not calls[-1] or len(calls[-1]) != 1 and layer != "output":
        raise ValueError(f"layer must run in eval mode and return one tensor; {layer!r} does not")
    return calls[-1][0]


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
    input_shape = checks.shape("input_shape", input_shape)
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


def refuse(operation, reason):
    """Raise UnsupportedOperation, naming the operation and the module that runs it."""
    where = operation.call.path or "the model"
    raise UnsupportedOperation(f"{operation.part_of or operation.kind} (in {where}): {reason}")


# How the values of an operation's output depend on those of its input: what the receptive field must know.
# An operation that is in none of these tables is refused.

# One value of each input, at the same place: the operations that torch tags as pointwise, and these.
COPYING = {"clone", "to_copy", "unsafe_view"}
# None: only the shape matters.
CONSTANT = {"empty_like", "zeros_like", "ones_like", "full_like", "rand_like", "randn_like", "new_empty", "new_zeros",
            "new_ones", "new_full", "fill", "zero"}  # fmt: skip
