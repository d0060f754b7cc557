"""From a trace to what each layer sees: every tensor that depends on the image, followed through the operations."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from vgglab._rules import Axes, Axis, MisalignedError, after
from vgglab._trace import CONSTANT, Operation, Trace, UnsupportedOperation, memory, refuse

Seen = Axes | tuple[()] | ValueError  # what a tensor sees; () where it sees nothing, or why that is not known


def walk(traced: Trace, gates: bool) -> dict[str, Axes | ValueError]:
    """Return what the units of each layer see, or why that is not known, by the layers' names in order of execution."""
    steps = _Walk(traced.image, gates)
    for step in traced.steps:
        if isinstance(step, Operation):
            steps.follow(step)
            continue
        if step.gives_overwritten and steps.hold_image(step.outputs):
            problem = UnsupportedOperation(f"{step.name or 'the model'} gives a tensor that was overwritten in part")
            steps.seen |= dict.fromkeys(map(id, step.outputs), problem)
        if step.name:
            steps.name(step.name, step.outputs)
        else:
            for i, tensor in reversed(list(enumerate(step.outputs))):
                steps.name(f"output.{i}" if i else "output", [tensor])
    return steps.layers


class _Walk:
    def __init__(self, image: Tensor, gates: bool) -> None:
        self.gates = gates
        self.seen: dict[int, Seen] = {id(image): _named("input", _pixels(*image.shape[-2:]))}
        self.touched = {memory(image)}  # memories that numbers which depend on the image were written into
        self.layers: dict[str, Axes | ValueError] = {}

    def follow(self, operation: Operation) -> None:
        """Say of the outputs what they see; an operation may be a layer of its own."""
        try:
            found = self._through(operation)
        except (MisalignedError, UnsupportedOperation) as problem:
            found = [problem] * len(operation.outputs)
        except RuntimeError as error:  # numbers of another type than those that it is run on here
            found = [UnsupportedOperation(f"{operation.kind} (in {operation.name}): {error}")] * len(operation.outputs)
        for tensor, seen in zip(operation.outputs, found, strict=True):
            seen = seen if tensor.numel() else ()
            self.seen[id(tensor)] = _named(operation.name, seen) if operation.computes else seen
            if seen:
                self.touched.add(memory(tensor))
        if operation.is_layer:
            self.name(operation.name, operation.outputs[:1])

    def _through(self, operation: Operation) -> Sequence[Seen]:
        if "out" in operation.kwargs or operation.reads_overwritten and self.hold_image(operation.inputs):
            refuse(operation, "it works on a tensor that was overwritten through another one")
        sources = []
        for tensor in operation.inputs:
            if id(tensor) not in self.seen and memory(tensor) in self.touched:
                refuse(operation, "it works on a tensor that no operation made")
            if isinstance(seen := self.seen.get(id(tensor), ()), ValueError):
                raise seen
            if seen:
                sources.append((tensor, seen))
        if operation.kind in CONSTANT or not sources:
            return [()] * len(operation.outputs)
        return after(operation, sources, self.gates)

    def hold_image(self, tensors: list[Tensor]) -> bool:
        """Whether numbers that depend on the image were written into the memory of any of these tensors."""
        return any(memory(tensor) in self.touched for tensor in tensors)

    def name(self, name: str, outputs: list[Tensor]) -> None:
        """Name these tensors; a single one that depends on the image is what the layer of that name sees."""
        self.seen |= {id(tensor): _named(name, self.seen.get(id(tensor), ())) for tensor in outputs}
        if len(outputs) == 1 and (seen := self.seen[id(outputs[0])]):
            self.layers.pop(name, None)
            self.layers[name] = seen if isinstance(seen, ValueError) else _units(*seen)


def _pixels(height: int, width: int) -> Axes:
    """Return the axes of an image, whose every pixel sees itself."""
    rows, cols = (torch.arange(length, dtype=torch.float64, device="cpu") for length in (height, width))
    rows, cols = rows.reshape(1, 1, -1, 1), cols.reshape(1, 1, 1, -1)
    return Axis(rows, rows, -2, low=0, high=height - 1), Axis(cols, cols, -1, low=0, high=width - 1)


def _units(rows: Axis, cols: Axis) -> Axes:
    """Return the axes of a map's units, channels together, or those of one unit if it is no map."""
    dims = [{dim for dim in range(-axis.first.dim(), 0) if axis.varies(dim)} for axis in (rows, cols)]
    if dims in ([{-3, -2}, {-3, -1}], [{-3, -2}, {-1}], [{-2}, {-3, -1}]):
        return rows.map(lambda first: first.amin(-3, True)), cols.map(lambda first: first.amin(-3, True))
    return (rows, cols) if max(map(len, dims)) <= 1 and not dims[0] & dims[1] else (rows.whole(), cols.whole())


def _named(name: str, seen: Seen) -> Seen:
    if isinstance(seen, ValueError) or not seen:
        return seen
    rows, cols = seen
    return replace(rows, name=name), replace(cols, name=name)
