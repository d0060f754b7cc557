"""What a unit sees: receptive fields by formula, by experiment and by gradient.

The formulas are those of Araujo, Norris and Sim, "Computing Receptive Fields of Convolutional Neural
Networks" (Distill, 2019). They treat the image and every map as unbounded: a region may lie partly outside
the image, and zero padding, or pixels that a stride leaves over at the far edge, cut what a unit near the
border really sees. `reach` finds what is left by experiment.
"""

import math
from bisect import bisect_left
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from vgglab import _checks as checks
from vgglab import _rules, _trace
from vgglab._rules import Place
from vgglab._trace import Operation, UnsupportedOperation, output_of, refuse, structural_copy, trace

__all__ = [
    "MisalignedError",
    "ReceptiveField",
    "Region",
    "UnsupportedOperation",
    "effective",
    "of_model",
    "output_size",
    "reach",
    "stack",
]


class MisalignedError(ValueError):
    """Branches meet whose units differ in stride or centre; `branches` holds the names of the two."""

    def __init__(self, message, branches):
        super().__init__(message)
        self.branches = branches


class Region(NamedTuple):
    """A rectangle of pixels, all four ends included."""

    top: int
    left: int
    bottom: int
    right: int


@dataclass(frozen=True)
class ReceptiveField:
    """What the units of a layer see; each value is a pair (height, width) in pixels of the image.

    size: the window of one unit. stride: from the window of a unit to its neighbour's. padding: how far the
    window of unit (0, 0) starts before the image. covers_image: the window of every unit holds the whole image,
    as it does after global pooling or a fully connected layer. All units of such a layer see the same, so that
    its stride is 0; its size is that of a convolution over the whole map (404 for VGG-16's first FC layer at 224).
    """

    size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    covers_image: bool = False

    def __post_init__(self):
        for name in ("size", "stride", "padding"):
            checks.pair(name, getattr(self, name))

    def region(self, row, col):
        """Return the Region that unit (row, col) sees; it may lie outside the image."""
        row, col = checks.pair("row, col", (row, col))
        top = row * self.stride[0] - self.padding[0]
        left = col * self.stride[1] - self.padding[1]
        return Region(top, left, top + self.size[0] - 1, left + self.size[1] - 1)

    def center(self, row, col):
        """Return the centre (y, x) of the region of unit (row, col); a half lies between two pixels."""
        region = self.region(row, col)
        return (region.top + region.bottom) / 2, (region.left + region.right) / 2


@dataclass(frozen=True)
class Axis:
    """A field along one axis: unit u sees the pixels from u * stride - padding on, size of them."""

    size: int = 1
    stride: int = 1
    padding: int = 0

    def through(self, kernel, stride=1, padding=0, dilation=1):
        """Return the field one layer further up."""
        return replace(
            self,
            size=self.size + dilation * (kernel - 1) * self.stride,
            stride=self.stride * stride,
            padding=self.padding + padding * self.stride,
        )

    def first(self, unit=0):
        return unit * self.stride - self.padding

    def last(self, unit=0):
        return self.first(unit) + self.size - 1

    @property
    def center(self):
        return (self.first() + self.last()) / 2


def stack(kernels, strides=None, paddings=None, dilations=None):
    """Return the ReceptiveField of a chain of layers; each entry is a number or a pair (height, width).

    strides and dilations default to 1, paddings to 0. Raises ValueError where the lists differ in length.
    """
    kernels = _pairs("kernels", kernels, None, at_least=1)
    strides = _pairs("strides", strides, [1] * len(kernels), at_least=1)
    paddings = _pairs("paddings", paddings, [0] * len(kernels), at_least=0)
    dilations = _pairs("dilations", dilations, [1] * len(kernels), at_least=1)
    rows = cols = Axis()
    for kernel, stride, padding, dilation in zip(kernels, strides, paddings, dilations, strict=True):
        rows = rows.through(kernel[0], stride[0], padding[0], dilation[0])
        cols = cols.through(kernel[1], stride[1], padding[1], dilation[1])
    return _field(rows, cols)


def _pairs(name, values, default, at_least):
    values = checks.sequence(name, default if values is None else values)
    if default is not None and len(values) != len(default):
        raise ValueError(f"{name} must have one entry for each of the {len(default)} kernels, not {values!r}")
    return [checks.pair(name, value, at_least) for value in values]


def _field(rows, cols, covers_image=False):
    return ReceptiveField(
        (rows.size, cols.size), (rows.stride, cols.stride), (rows.padding, cols.padding), covers_image
    )


def output_size(n, kernel, stride=1, padding=0, dilation=1, ceil_mode=False):
    """Return how many units a convolution or pooling over n inputs gives, along one axis.

    padding: zeros at each end, or one of TensorFlow's rules: "valid" gives ceil((n - kernel + 1) / stride),
    "same" ceil(n / stride). ceil_mode rounds up as PyTorch's pooling does: only where the last window starts
    inside the input or the padding before it. Raises ValueError where the kernel does not fit.
    """
    n = checks.integer("n", n, at_least=1)
    kernel, stride = checks.integer("kernel", kernel, at_least=1), checks.integer("stride", stride, at_least=1)
    span = checks.integer("dilation", dilation, at_least=1) * (kernel - 1) + 1
    if isinstance(padding, str):
        if checks.choice("padding", padding, ["same", "valid"]) == "same":
            return -(-n // stride)
        padding = 0
    room = n + 2 * checks.integer("padding", padding, at_least=0) - span
    units = 1 + (room + (stride - 1 if checks.flag("ceil_mode", ceil_mode) else 0)) // stride
    if ceil_mode and (units - 1) * stride >= n + padding:
        units -= 1
    if units < 1:
        raise ValueError(f"kernel must fit into the padded input of {room + span}, not span {span}: see n, dilation")
    return units


def of_model(model, input_shape):
    """Return a dict of the ReceptiveField of every layer of model, for images of input_shape (C, H, W).

    The keys are module paths in order of execution ("layer1.0.conv1", then "layer1.0", then "layer1"), and for an
    operation that a module runs itself the module's path and the operation ("layer1.0.add"); "output" is last.
    A module that is called again moves to its last call. One that returns several tensors has no key, except
    that "output" is the first that the model returns, "output.1" the second. A layer without rows and columns
    (flattened, fully connected) counts as one unit, (0, 0).

    Branches merge by the largest; the channels of a layer count together, also where they are split again. Where
    a map is multiplied by a gate made from all of it (squeeze and excitation), every unit from there on sees all
    that the gate sees: strictly true, and what `reach` finds.
    Raises MisalignedError where branches meet whose strides or centres differ, and UnsupportedOperation, naming
    the operation, where the walk cannot follow. The model is left as it was.
    """
    traced = trace(model, input_shape)
    walk = _Walk(traced.input)
    for step in traced.steps:
        if isinstance(step, Operation):
            walk.follow(step)
        elif step.call.path:
            walk.name(step.call.path, step.outputs)
    for i, tensor in reversed(list(enumerate(traced.outputs))):
        walk.name(f"output.{i}" if i else "output", [tensor])
    if "output" not in walk.fields:
        raise ValueError("the model's output does not depend on the image")
    return walk.fields


def reach(model, input_shape, layer, unit):
    """Return the Region of all pixels that can change unit (row, col) of layer, found by experiment.

    An image of input_shape (C, H, W) with NaN in some rows or columns runs through a float64 copy of the model
    in eval mode: the unit is NaN exactly if it depends on one of them. Nothing is asked of the architecture, and
    the Region ends at the edge of the image. layer is a module path or "output"; its last two dimensions of four
    are rows and columns, and with fewer dimensions it is one unit, (0, 0). A module's last call counts.
    Raises ValueError where layer or unit does not exist, or the unit depends on no pixel.
    """
    shape = checks.shape("input_shape", input_shape)
    model = structural_copy(
        model, lambda tensor: tensor.to("cpu", torch.float64 if tensor.is_floating_point() else tensor.dtype, copy=True)
    )
    image = torch.rand(1, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    @torch.inference_mode()
    def depends_on(rows=slice(None), cols=slice(None)):
        damaged = image.clone()
        damaged[..., rows, cols] = math.nan
        return bool(_values("input_shape", model, damaged, layer, unit).isnan().any())

    if depends_on(rows=slice(0)):
        raise ValueError(f"unit {unit} of {layer!r} is NaN without NaN in the image")
    if not depends_on():
        raise ValueError(f"unit {unit} of {layer!r} depends on no pixel")
    # The gradient shows pixels that do matter; NaN then tells whether any row or column outside them can.
    used = effective(model, image, layer, unit).nonzero()
    height, width = shape[1:]
    top, left = used.amin(0).tolist() if len(used) else (height, width)
    bottom, right = used.amax(0).tolist() if len(used) else (-1, -1)
    below, beside = height - 1 - bottom, width - 1 - right
    return Region(
        bisect_left(range(top), True, key=lambda i: depends_on(rows=slice(i + 1))),
        bisect_left(range(left), True, key=lambda i: depends_on(cols=slice(i + 1))),
        height - 1 - bisect_left(range(below), True, key=lambda i: depends_on(rows=slice(height - 1 - i, None))),
        width - 1 - bisect_left(range(beside), True, key=lambda i: depends_on(cols=slice(width - 1 - i, None))),
    )


def effective(model, images, layer, unit):
    """Return the effective field of unit (row, col) of layer, (H, W): the mean absolute gradient at each pixel.

    The gradient is that of the sum of the unit's channels, in eval mode; the mean runs over the images
    (N, C, H, W) and their channels. layer and unit are as in `reach`. Source: Luo et al., "Understanding the
    Effective Receptive Field in Deep Convolutional Neural Networks" (2016).
    """
    images = checks.tensor("images", images).detach().requires_grad_()
    with torch.enable_grad():
        values = _values("images", structural_copy(model), images, layer, unit)
        if not values.requires_grad:
            return torch.zeros_like(images[0, 0])
        (gradient,) = torch.autograd.grad(values.sum(), images)
    return gradient.abs().mean((0, 1))


def _values(argument, model, images, layer, unit):
    """Run model on images, which come from argument, and return the values (N, channels) of one unit of layer."""
    values = output_of(model, images, layer, argument)
    if values.dim() != 4:
        values = values.reshape(len(images), -1, 1, 1)
    (row, col), (rows, cols) = checks.pair("unit", unit, at_least=0), values.shape[2:]
    if row >= rows or col >= cols:
        raise ValueError(f"unit must lie in the {rows} rows and {cols} columns of {layer!r}, not {unit!r}")
    return values[..., row, col]


@dataclass(frozen=True)
class _Line(Axis):
    """The field of a tensor's units along one axis, and the place of these units in the tensor.

    place is None where all values of the tensor see the same pixels. limit is the last pixel that any unit
    really sees.
    """

    place: Place | None = None
    limit: int = 0

    def slide(self, units, kernel, stride=1, padding=0, dilation=1):
        """Return the line of so many units whose windows slide over these."""
        line = self.through(kernel, stride, padding, dilation)
        return replace(line, place=replace(self.place, units=units), limit=min(self.limit, line.last(units - 1)))

    def whole(self):
        """Return the line of units that all see all of these."""
        return replace(self.through(self.place.units, stride=0), place=None) if self.place else self

    def covers(self, first, last):
        """Whether every unit sees the pixels from first to last."""
        units = self.place.units if self.place else 1
        return self.first(units - 1) <= first and min(self.last(), self.limit) >= last


class _Walk:
    """Follows the lines (rows, cols) of every tensor that depends on the image through the operations."""

    def __init__(self, image):
        self.height, self.width = height, width = image.shape[-2:]
        rows, cols = _Line(place=Place(-2, height), limit=height - 1), _Line(place=Place(-1, width), limit=width - 1)
        self.lines = {id(image): (rows, cols)}
        self.names = {id(image): "input"}
        self.fields = {}

    def follow(self, operation):
        """Give the outputs their lines and names, and record the field of an operation that is its own step."""
        if operation.reads_overwritten or "out" in operation.kwargs:
            refuse(operation, "it works on a tensor that was overwritten through another one")
        sources = [tensor for tensor in operation.inputs if self.lines.get(id(tensor))]
        lines = self._after(operation, sources) if sources and operation.kind not in _trace.CONSTANT else None
        self.lines |= {id(tensor): lines for tensor in operation.outputs}
        name = operation.name if operation.computes or not sources else self.names[id(sources[0])]
        self.names |= {id(tensor): name for tensor in operation.outputs}
        if operation.computes and not operation.call.is_layer:
            self.name(operation.name, operation.outputs[:1])

    def name(self, name, outputs):
        """Name these tensors; a single one that depends on the image gives the field of that name."""
        self.names |= {id(tensor): name for tensor in outputs}
        if len(outputs) == 1 and self.lines.get(id(outputs[0])):
            rows, cols = (
                line if line.place and line.place.is_alone(outputs[0].shape) else line.whole()
                for line in self.lines[id(outputs[0])]
            )
            self.fields.pop(name, None)
            covers_image = rows.covers(0, self.height - 1) and cols.covers(0, self.width - 1)
            self.fields[name] = _field(rows, cols, covers_image)

    def _after(self, operation, sources):
        """Return the lines of the operation's outputs."""
        kind = operation.kind
        all_whole = not any(line.place for tensor in sources for line in self.lines[id(tensor)])
        if all_whole or kind in _rules.POINTWISE or torch.Tag.pointwise in operation.op.tags:
            sides = ([self._branch(operation, tensor, side) for tensor in sources] for side in (0, 1))
            return tuple(_merge(operation, branches) for branches in sides)
        if kind not in RULES:
            refuse(operation, "how its outputs depend on its inputs is not known here")
        if len(sources) > 1 or sources[0] is not operation.inputs[0]:
            refuse(operation, "the image decides more than its first input")
        lines = self.lines[id(sources[0])]
        return tuple(RULES[kind](operation, line) if line.place else line for line in lines)

    def _branch(self, operation, tensor, side):
        """Return one input of a merge, along one axis."""
        line = self.lines[id(tensor)][side]
        if line.place and tensor.shape[line.place.dim] != operation.outputs[0].shape[line.place.dim]:
            if operation.kind == "cat":
                refuse(operation, "it joins rows or columns")
            line = line.whole()  # one unit, broadcast
        return _Branch(self.names[id(tensor)], line)


class _Branch(NamedTuple):
    name: str
    line: _Line

    def __str__(self):
        return f"{self.name} (size {self.line.size}, stride {self.line.stride}, first centre {self.line.center:g})"


def _merge(operation, branches):
    """Return the line of units that see what the units of all branches see."""
    mapped = [branch for branch in branches if branch.line.place]
    if mapped:
        limit = max(branch.line.limit for branch in mapped)
        largest = max(mapped, key=lambda branch: branch.line.size)
        for branch in mapped:
            if branch.line.place != largest.line.place:
                refuse(operation, "its inputs hold rows or columns in different dimensions")
            if (branch.line.stride, branch.line.center) != (largest.line.stride, largest.line.center):
                raise _misaligned(operation, branch, largest)
        if len(mapped) == len(branches):
            return replace(largest.line, limit=limit)
        whole = max((branch for branch in branches if branch not in mapped), key=lambda branch: branch.line.size)
        seen = largest.line.whole()
        if not whole.line.covers(max(seen.first(), 0), min(seen.last(), limit)):
            raise _misaligned(operation, whole, largest)
    lines = [branch.line.whole() for branch in branches]
    first, last = min(line.first() for line in lines), max(line.last() for line in lines)
    return replace(lines[0], size=last - first + 1, padding=-first, limit=max(line.limit for line in lines))


def _misaligned(operation, one, other):
    message = f"{operation.kind} (in {operation.name}) merges {one} with {other}: they do not line up"
    return MisalignedError(message, (one.name, other.name))


def _slide(operation, line):
    window = _rules.WINDOWS[operation.kind](operation, line.place.dim)
    if window is None:
        return line.whole()
    kernel, stride, padding, dilation = window
    before, after = operation.inputs[0].shape, operation.outputs[0].shape
    if (kernel, stride, padding) == (1, 1, 0) and before[line.place.dim] == after[line.place.dim]:
        return line
    if padding < 0 or not line.place.is_alone(before):
        refuse(operation, "it cuts rows or columns off, or they are folded into one dimension")
    return line.slide(after[line.place.dim], kernel, stride, padding, dilation)


def _move(operation, line):
    place = _rules.place_after(operation, line.place)
    return replace(line, place=place) if place else line.whole()


RULES = {
    **dict.fromkeys(_rules.WINDOWS, _slide),
    **dict.fromkeys(_rules.MIXED_DIMS.keys() | _rules.RESHAPING | _rules.MOVING, _move),
}
