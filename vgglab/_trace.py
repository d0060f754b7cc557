"""One walk over a model: every operation that it runs, in order, with shapes and module names.

The model runs once on the meta device, where tensors have shapes but no numbers: that takes milliseconds and no memory.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vgglab import _checks as checks

# Operations that give the numbers of one input as they are, and those of whose inputs only the shapes matter.
COPYING = {"clone", "to_copy", "unsafe_view"}
CONSTANT = {"empty_like", "zeros_like", "ones_like", "full_like", "rand_like", "randn_like", "new_empty", "new_zeros",
            "new_ones", "new_full", "fill", "zero"}  # fmt: skip
# Composite operations recorded as they are; all others are recorded as the parts that torch makes them of.
KEPT_WHOLE = {"conv1d", "conv2d", "conv3d", "linear", "batch_norm", "max_pool2d", "adaptive_avg_pool2d", "matmul",
              "reflection_pad2d", "replication_pad2d", "upsample_nearest2d", "_upsample_nearest_exact2d",
              "upsample_bilinear2d", "upsample_bicubic2d", "_upsample_bilinear2d_aa",
              "_upsample_bicubic2d_aa"}  # fmt: skip


class UnsupportedOperation(ValueError):
    """The model does something that cannot be followed; the message names it."""


@dataclass(eq=False)
class Call:
    """One call of a module: its path ("" for the whole model), what it ran itself, and the tensors that it returned."""

    name: str
    module: nn.Module
    inputs: list[Tensor]
    parent: "Call | None"  # the call that it is part of
    has_children: bool = False  # whether it called other modules
    operations: list["Operation"] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    gives_overwritten: bool = False  # an output was changed through another view of its memory since it was made

    @property
    def is_layer(self) -> bool:
        """Whether it is a layer of its own: a torch.nn layer, or a module that does one operation."""
        if not self.name or self.has_children:
            return False
        computing = sum(operation.computes for operation in self.operations)
        return computing <= 1 or type(self.module).__module__.startswith("torch.nn.")


@dataclass(eq=False)
class Operation:
    """One ATen operation with its arguments by name, its tensors, and the call that it is part of."""

    op: torch._ops.OpOverload
    kind: str  # its name without namespace and in-place mark: "conv2d", "relu", "add"
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: list[Tensor]
    outputs: list[Tensor]
    call: Call
    part_of: str | None  # the composite operation that torch made it for
    reads_overwritten: bool  # an input was changed through another view of its memory since it was made
    name: str = ""

    def __getitem__(self, argument: str) -> Any:
        """The argument of that name in the operation's schema, or its default; None where there is neither."""
        schema = self.op._schema.arguments
        given = dict(zip((entry.name for entry in schema), self.args, strict=False)) | self.kwargs
        return ({entry.name: entry.default_value for entry in schema} | given).get(argument)

    @property
    def is_layer(self) -> bool:
        """Whether it is a layer of its own, which a module runs beside others."""
        return self.computes and not self.call.is_layer

    @property
    def computes(self) -> bool:
        """Whether it makes new numbers, rather than a view or a copy of those that it was given."""
        return not (self.op.is_view or self.kind in COPYING or self.kind in CONSTANT)


def tensors(values: Any) -> list[Tensor]:
    """Return the tensors in a nest of tuples, lists and dicts, in order."""
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def structural_copy(model: nn.Module, convert: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> nn.Module:
    """Return a copy of model in eval mode with convert(tensor) for each parameter and buffer.

    The copy has modules of its own and by default the very weights of model, which is left as it was.
    """
    replaced: dict[int, Tensor] = {}
    for module in model.modules():
        for tensor in [*module.parameters(recurse=False), *module.buffers(recurse=False), *vars(module).values()]:
            if isinstance(tensor, Tensor) and id(tensor) not in replaced:
                new = convert(tensor.detach())
                replaced[id(tensor)] = nn.Parameter(new, False) if isinstance(tensor, nn.Parameter) else new
    return copy.deepcopy(model, replaced).eval()


def output_of(model: nn.Module, x: Tensor, layer: str, name: str = "x") -> Tensor:
    """Run model on x, the argument of that name, and return what the last call of layer gave.

    layer is the path of a module, or "output" for the model itself, whose first tensor counts if it returns several.
    Raises ValueError where there is no such layer, or it does not run or returns several tensors.
    """
    modules = dict(model.named_modules()) | {"output": model}
    if not isinstance(layer, str) or layer not in modules:
        raise ValueError(f"layer must be the path of a module, or 'output', not {layer!r}")
    calls: list[list[Tensor]] = []

    def note(module: nn.Module, args: Any, output: Any) -> None:
        calls.append([tensor.clone() for tensor in tensors(output)])

    with modules[layer].register_forward_hook(note), checks.running(name, x.shape):
        model(x.clone())  # a first layer that works in place would change x itself
    if not calls or not calls[-1] or len(calls[-1]) != 1 and layer != "output":
        raise ValueError(f"layer must run in eval mode and return one tensor; {layer!r} does not")
    return calls[-1][0]


def memory(tensor: Tensor) -> int:
    """Return a key that tensors have in common if one is a view of the other."""
    return tensor.untyped_storage()._cdata


class Trace(TorchDispatchMode):
    """Writes down every operation that runs while it is active, and which module's call it was part of.

    steps are the operations and calls in order; a Call stands where it ends, the model's own last.
    """

    def __init__(self, model: nn.Module, image: Tensor) -> None:
        super().__init__()
        self.image = image
        self.parameters = dict(model.named_parameters())
        self.steps: list[Operation | Call] = []
        self.calls: list[Call] = []
        self.composite: str | None = None
        self.made: dict[int, tuple[int, int]] = {}  # tensor -> the step that made it, and its memory
        self.written: dict[int, tuple[int, int]] = {}  # memory -> the step that last merged into it, by which tensor
        for path, module in model.named_modules():
            module.register_forward_pre_hook(partial(self._enter, path), prepend=True)
            module.register_forward_hook(self._leave)

    def _enter(self, path: str, module: nn.Module, args: Any) -> None:
        if self.calls:
            self.calls[-1].has_children = True
        self.calls.append(Call(path, module, tensors(args), self.calls[-1] if self.calls else None))

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        call = self.calls.pop()
        call.outputs = tensors(output)
        call.gives_overwritten = any(map(self._was_overwritten, call.outputs))
        self.steps.append(call)

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = op._schema.name.split("::")[-1]
        if torch.Tag.pointwise not in op.tags and name not in KEPT_WHOLE:
            outer, self.composite = self.composite, self.composite or name
            with self:
                result = op.decompose(*args, **kwargs)
            self.composite = outer
            if result is not NotImplemented:
                return result
        inputs = tensors((args, kwargs))
        layouts = [(tensor.shape, tensor.stride()) for tensor in inputs]
        result = op(*args, **kwargs)
        overwritten = any(map(self._was_overwritten, inputs))
        operation = Operation(op, name.strip("_"), args, kwargs, inputs, tensors(result), self.calls[-1],
                              self.composite, overwritten)  # fmt: skip
        if layouts != [(tensor.shape, tensor.stride()) for tensor in inputs]:
            refuse(operation, "it changes a shape in place")
        for tensor in operation.outputs:
            self.made.setdefault(id(tensor), (len(self.steps), memory(tensor)))
            if op._schema.is_mutable and (len(inputs) > 1 or torch.Tag.pointwise not in op.tags):
                self.written[memory(tensor)] = len(self.steps), id(tensor)
        self.calls[-1].operations.append(operation)
        self.steps.append(operation)
        return result

    def _was_overwritten(self, tensor: Tensor) -> bool:
        step, through = self.written.get(memory(tensor), (-1, -1))
        made, where = self.made.get(id(tensor), (-1, memory(tensor)))
        return where != memory(tensor) or through != id(tensor) and step > made


def _name_operations(steps: list[Operation | Call], taken: set[str]) -> None:
    """Name each operation by its layer, or by the module that runs it and its kind: "layer1.0.add"."""
    for step in steps:
        if isinstance(step, Operation):
            step.name = step.call.name
            if step.is_layer:
                base = f"{step.call.name}.{step.kind}".lstrip(".")
                step.name = next(name for n in count() if (name := f"{base}_{n}" if n else base) not in taken)
                taken.add(step.name)


def trace(model: nn.Module, input_shape: tuple[int, int, int]) -> Trace:
    """Run model once on the meta device, in eval mode, on one image of input_shape (C, H, W); return its Trace.

    The model is left as it was and its weights are not copied. Raises UnsupportedOperation for a model that needs
    real numbers to run, ValueError where input_shape does not suit the model.
    """
    with torch.inference_mode(), torch.device("meta"):
        skeleton = structural_copy(model, partial(torch.empty_like, device="meta"))
        dtype = next((p.dtype for p in skeleton.parameters() if p.is_floating_point()), None)
        try:
            recorder = Trace(skeleton, torch.empty(1, *input_shape, dtype=dtype))
            with recorder:
                skeleton(recorder.image)
        except UnsupportedOperation:
            raise
        except Exception as error:  # whatever the model's own code raises
            if isinstance(error, NotImplementedError) or "meta" in str(error):
                raise UnsupportedOperation(f"the model cannot run without real numbers: {error}") from error
            why = f"{type(error).__name__}: {error}"
            raise ValueError(f"the model does not run on input_shape {input_shape}: {why}") from error
    _name_operations(recorder.steps, {path for path, _ in skeleton.named_modules()})
    return recorder


def refuse(operation: Operation, reason: str) -> NoReturn:
    """Raise UnsupportedOperation, naming the operation and the module that runs it."""
    where = operation.call.name or "the model"
    raise UnsupportedOperation(f"{operation.part_of or operation.kind} (in {where}): {reason}")
