"""What a unit sees: receptive fields by formula, by experiment and by gradient.

The formulas, of Araujo, Norris and Sim (Distill, 2019), treat the image and every map as unbounded: a region may lie
partly outside the image. `reach` finds by experiment what the border leaves of it.
"""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from vgglab import _checks as checks
from vgglab._checks import Count, Maps, Shape, Whole, check_fields, checked
from vgglab._rules import Axis, MisalignedError
from vgglab._table import Lines, Table
from vgglab._trace import UnsupportedOperation, output_of, structural_copy, trace
from vgglab._walk import walk

__all__ = ["Fields", "MisalignedError", "ReceptiveField", "Region", "UnsupportedOperation",
           "effective", "of_model", "output_size", "reach", "stack"]  # fmt: skip


class Region(NamedTuple):
    """A rectangle of pixels, all four ends included."""

    top: int
    left: int
    bottom: int
    right: int


def _pairs(name: str, values: Any, at_least: int | None = None) -> list[tuple[int, int]]:
    return [checks.pair(name, value, at_least) for value in checks.sequence(name, values)]


def _two_sides(name: str, value: Any) -> tuple["Windows", "Windows"]:
    if len(sides := checks.sequence(name, value)) != 2:
        raise ValueError(f"{name} must be those of the rows and those of the columns, not {checks.shown(value)}")
    return tuple(_pairs(name, sides[0])), tuple(_pairs(name, sides[1]))


Windows = tuple[tuple[int, int], ...]
NOTHING = 0, -1  # the window of a unit that sees no pixel
Pair = Annotated[tuple[int, int], checks.pair]
Unit = Annotated[tuple[int, int], partial(checks.pair, at_least=0)]


@dataclass(frozen=True)
class ReceptiveField:
    """What the units of a layer see; each value is a pair (height, width) in pixels of the image.

    size: the window of one unit. stride: from the window of a unit to its neighbour's. padding: how far the window of
    unit (0, 0) starts before the image. covers_image: the window of every unit holds the whole image, as after global
    pooling or a fully connected layer. All units of such a layer see the same, so that its stride is 0; its size is
    that of a convolution over the whole map (404 for VGG-16's first FC layer at 224).
    windows: where the windows of a layer differ in size or distance, as after upsampling, the first and the last pixel
    of each row and of each column of units; size is then the largest and stride the mean, rounded.
    """

    size: Pair
    stride: Pair
    padding: Pair
    covers_image: bool = False
    windows: Annotated[Sequence[Windows], _two_sides] = field(default=((), ()), repr=False)

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def exact(self) -> bool:
        """Whether all windows have this size and are this stride apart."""
        return not any(self.windows)

    @checked
    def region(self, row: Whole, col: Whole) -> Region:
        """Return the Region that unit (row, col) sees; it may lie outside the image.

        Raises ValueError for a unit that a layer whose windows differ does not have.
        """
        (top, bottom), (left, right) = self._window(0, "row", row), self._window(1, "col", col)
        return Region(top, left, bottom, right)

    def _window(self, side: int, name: str, unit: int) -> tuple[int, int]:
        windows, first = self.windows[side], unit * self.stride[side] - self.padding[side]
        if windows and not 0 <= unit < len(windows):
            raise ValueError(f"{name} must be at least 0 and below {len(windows)}, not {unit}")
        return windows[unit] if windows else (first, first + self.size[side] - 1)

    def center(self, row: Whole, col: Whole) -> tuple[float, float]:
        """Return the centre (y, x) of the region of unit (row, col); a half lies between two pixels."""
        top, left, bottom, right = self.region(row, col)
        return (top + bottom) / 2, (left + right) / 2


def _padding(name: str, value: Any) -> int | str:
    return checks.choice(name, value, ["same", "valid"]) if isinstance(value, str) else checks.integer(name, value, 0)


Counts = Annotated[Sequence[int | tuple[int, int]], partial(_pairs, at_least=1)]
Paddings = Annotated[Sequence[int | tuple[int, int]], partial(_pairs, at_least=0)]
Padding = Annotated[int | Literal["same", "valid"], _padding]


@checked
def stack(
    kernels: Counts, strides: Counts | None = None, paddings: Paddings | None = None, dilations: Counts | None = None
) -> ReceptiveField:
    """Return the ReceptiveField of a chain of layers; each entry is a number or a pair (height, width).

    strides and dilations default to 1, paddings to 0. Raises ValueError where the lists differ in length.
    """
    columns: list[Any] = [kernels]
    for name, values, default in (("strides", strides, 1), ("paddings", paddings, 0), ("dilations", dilations, 1)):
        columns.append([(default, default)] * len(kernels) if values is None else values)
        if len(columns[-1]) != len(kernels):
            raise ValueError(f"{name} must have one entry for each of the {len(kernels)} kernels, not {values!r}")
    chains = [(1, 1, 0), (1, 1, 0)]
    for layer in zip(*columns, strict=True):
        chains = [
            _further_up(*chain, *numbers) for chain, numbers in zip(chains, zip(*layer, strict=True), strict=True)
        ]
    sizes, jumps, paddings = zip(*chains, strict=True)
    return ReceptiveField(sizes, jumps, paddings)


def _further_up(
    size: int, jump: int, before: int, kernel: int, stride: int, padding: int, dilation: int
) -> tuple[int, int, int]:
    """Return size, stride and padding one layer further up, along one axis."""
    return size + dilation * (kernel - 1) * jump, jump * stride, before + padding * jump


@checked
def output_size(
    n: Count, kernel: Count, stride: Count = 1, padding: Padding = 0, dilation: Count = 1, ceil_mode: bool = False
) -> int:
    """Return how many units a convolution or pooling over n inputs gives, along one axis.

    padding: zeros at each end, or one of TensorFlow's rules: "valid" gives ceil((n - kernel + 1) / stride),
    "same" ceil(n / stride). ceil_mode rounds up as PyTorch's pooling does: only where the last window starts
    inside the input or the padding before it. Raises ValueError where the kernel does not fit.
    """
    if padding == "same":
        return -(-n // stride)
    zeros = padding if isinstance(padding, int) else 0
    span = dilation * (kernel - 1) + 1
    room = n + 2 * zeros - span
    units = 1 + (room + (stride - 1 if ceil_mode else 0)) // stride
    if ceil_mode and (units - 1) * stride >= n + zeros:
        units -= 1
    if units < 1:
        raise ValueError(f"kernel must fit into the padded input of {room + span}, not span {span}: see n, dilation")
    return units


class Fields(Table, Mapping[str, ReceptiveField]):
    """The ReceptiveField of each layer that could be followed, by its name, in order of execution.

    unknown: for each layer that could not be followed, the reason, which is raised when the layer is asked for.
    """

    _aligned = "<>>><<"

    def __init__(self, fields: dict[str, ReceptiveField], problems: dict[str, ValueError]) -> None:
        self._fields, self._problems = fields, problems

    def __getitem__(self, layer: str) -> ReceptiveField:
        if layer in self._problems:
            raise self._problems[layer].with_traceback(None)
        return self._fields[layer]

    def __contains__(self, layer: object) -> bool:
        return layer in self._fields

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    @property
    def unknown(self) -> dict[str, str]:
        """For each layer that could not be followed, the reason."""
        return {layer: str(problem) for layer, problem in self._problems.items()}

    @property
    def definition(self) -> str:
        """What the numbers mean, and what could not be followed, as printed under the table."""
        reasons = Counter(self.unknown.values()).items()
        behind = "".join(f" {count} layers unknown, behind {reason}." for reason, count in reasons)
        return (
            "Height x width, in pixels. Padding: how far the window of unit (0, 0) starts before the image. Where the "
            "windows of a layer are not equal, the size is the largest, and the stride the mean." + behind
        )

    def _table(self) -> tuple[Lines, Lines, Lines]:
        yes_or_no = {True: "yes", False: "no"}
        body = [
            [layer, *("x".join(map(str, pair)) for pair in (found.size, found.stride, found.padding)),
             yes_or_no[found.covers_image], yes_or_no[found.exact]]
            for layer, found in self.items()
        ]  # fmt: skip
        return [["layer", "size", "stride", "padding", "covers image", "windows equal"]], body, []


@checked
def of_model(model: nn.Module, input_shape: Shape, gates: bool = True) -> Fields:
    """Return the Fields of model: what the units of every layer see, for images of input_shape (C, H, W).

    The keys are module paths in order of execution ("layer1.0.conv1", then "layer1.0", then "layer1"), and for an
    operation that a module runs itself the module's path and the operation ("layer1.0.add"); "output" is last, after
    "output.1" where the model returns several tensors. A module that is called again moves to its last call; one that
    returns several tensors has no key. A layer without rows and columns (fully connected) counts as one unit, (0, 0).

    Branches merge by the largest, channels count together. Behind a gate made from a whole map (squeeze and excitation)
    every unit sees all that the gate sees; gates=False leaves out those that are multiplied. The layers behind what
    cannot be followed, or behind branches of which none has windows that hold those of the others, are in
    Fields.unknown; asked for one, Fields raises UnsupportedOperation or MisalignedError. The model is left as it was.
    """
    found = walk(trace(model, input_shape), gates)
    if "output" not in found:
        raise ValueError("the model's output does not depend on the image")
    problems = {layer: seen for layer, seen in found.items() if isinstance(seen, ValueError)}
    known = {layer: _field(*seen, input_shape) for layer, seen in found.items() if not isinstance(seen, ValueError)}
    return Fields(known, problems)


def _field(rows: Axis, cols: Axis, image: tuple[int, int, int]) -> ReceptiveField:
    covers = rows.covers(0, image[1] - 1) and cols.covers(0, image[2] - 1)
    (height, down, above, lines), (width, right, before, columns) = _along(rows), _along(cols)
    return ReceptiveField((height, width), (down, right), (above, before), covers, (lines, columns))


def _along(axis: Axis) -> tuple[int, int, int, Windows]:
    """Return size, stride and padding along an axis, and the windows where these do not say all."""
    first, last = (values.flatten().tolist() for values in torch.broadcast_tensors(axis.first, axis.last))
    windows = tuple((int(low), int(high)) if low <= high else NOTHING for low, high in zip(first, last, strict=True))
    size, stride, start = max(high - low + 1 for low, high in windows), axis.stride, windows[0][0]
    firsts = [start + unit * stride for unit in range(len(windows))]
    regular = windows == tuple((first, first + size - 1) for first in firsts)
    return size, stride, -start, () if regular else windows


@checked
def reach(model: nn.Module, input_shape: Shape, layer: str, unit: Unit) -> Region:
    """Return the Region of all pixels that can change unit (row, col) of layer, found by experiment.

    Some rows or columns of an image of input_shape (C, H, W) are replaced, in a float64 copy of the model in eval mode:
    by NaN, which spoils all that is computed from it, and for what hides behind a comparison by other numbers, large
    and small, of both signs, and close to the image. A comparison whose outcome none of these few changes stays unseen;
    the Region is then too small. layer is a module path, of which the last call counts, or "output". Where it has rows
    and columns is found out from the operations before it, or else by experiment; a layer without them (fully
    connected) is one unit, (0, 0). Raises ValueError where layer or unit does not exist, the unit depends on no pixel,
    or it cannot be told rows from columns and channels.
    """
    model = structural_copy(
        model, lambda tensor: tensor.to("cpu", torch.float64 if tensor.is_floating_point() else tensor.dtype, copy=True)
    )
    seed = torch.Generator().manual_seed(0)
    image, other = torch.rand(2, 1, *input_shape, dtype=torch.float64, device="cpu", generator=seed)
    noise = torch.randn(1, *input_shape, dtype=torch.float64, device="cpu", generator=seed)
    replacements = [torch.full_like(image, math.nan), other]
    replacements += [sign * size * noise for size in (1e3, 1e-2) for sign in (1, -1)]
    replacements += [image + noise, image - noise]
    look = _unit(model, image, layer, unit, "input_shape")
    usual = look(image)

    @torch.no_grad()
    def depends_on(lines: slice, dim: int = 2) -> bool:
        """Whether any of these rows (dim 2) or columns (dim 3) can change the unit."""
        for replacement in replacements:
            changed = image.clone()
            changed.transpose(2, dim)[:, :, lines] = replacement.transpose(2, dim)[:, :, lines]
            with suppress(ValueError):  # a model may refuse numbers that no image has
                if not torch.equal(look(changed), usual):
                    return True
        return False

    if usual.isnan().any():
        raise ValueError(f"unit {unit} of {layer!r} is NaN without NaN in the image")
    if not depends_on(slice(None)):
        raise ValueError(f"unit {unit} of {layer!r} depends on no pixel")
    # The gradient shows pixels that do matter; the replacements then tell whether any row or column outside them can.
    used = _gradient(look, image).nonzero()

    def ends(dim: int) -> tuple[int, int]:
        """The first and the last row or column that can change the unit."""
        lines, last = used[:, dim - 2].tolist(), image.shape[dim] - 1
        before, behind = min(lines, default=last + 1), last - max(lines, default=-1)
        if before and depends_on(slice(before), dim):
            before = bisect_left(range(before), True, key=lambda i: depends_on(slice(i + 1), dim))
        if behind and depends_on(slice(last + 1 - behind, None), dim):
            behind = bisect_left(range(behind), True, key=lambda i: depends_on(slice(last - i, None), dim))
        return before, last - behind

    (top, bottom), (left, right) = ends(2), ends(3)
    return Region(top, left, bottom, right)


@checked
def effective(model: nn.Module, images: Maps, layer: str, unit: Unit) -> Tensor:
    """Return the effective field of unit (row, col) of layer, (H, W): the mean absolute gradient at each pixel.

    The gradient is that of the sum of the unit's channels, in eval mode; the mean runs over the images
    (N, C, H, W) and their channels. layer and unit are as in `reach`. Source: Luo et al., "Understanding the
    Effective Receptive Field in Deep Convolutional Neural Networks" (2016).
    """
    return _gradient(_unit(structural_copy(model), images, layer, unit, "images"), images)


def _gradient(look: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """The mean absolute gradient (H, W) of what look sees of the images."""
    images = images.detach().requires_grad_()
    with torch.enable_grad():
        values = look(images)
        if not values.requires_grad:
            return torch.zeros_like(images[0, 0])
        (gradient,) = torch.autograd.grad(values.sum(), images)
    return gradient.abs().mean((0, 1))


def _unit(model: nn.Module, x: Tensor, layer: str, unit: tuple[int, int], name: str) -> Callable[[Tensor], Tensor]:
    """Return a function that gives the values (N, channels) of a unit of layer for images like x, the argument name."""
    with torch.no_grad():
        values = _output(model, x[:1], layer, name)
    dims = _layout(model, x, layer, values.shape) if values.dim() > 2 else (0, 0)
    rows, cols = [values.shape[dim] if dim else 1 for dim in dims]
    if unit[0] >= rows or unit[1] >= cols:
        raise ValueError(f"unit must lie in the {rows} rows and {cols} columns of {layer!r}, not {unit!r}")

    def look(images: Tensor) -> Tensor:
        values = _output(model, images, layer, name)
        for dim, place in zip(dims, unit, strict=True):
            values = values.narrow(dim, place, 1) if dim else values
        return values.flatten(1)

    return look


def _output(model: nn.Module, x: Tensor, layer: str, name: str) -> Tensor:
    """Return what layer gives for x; a model that draws numbers in eval mode, too, draws the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return output_of(model, x, layer, name)


def _layout(model: nn.Module, x: Tensor, layer: str, shape: torch.Size) -> tuple[int, int]:
    """Return the dimensions of rows and of columns in what layer gives, 0 where it has none."""
    seen: Any
    try:
        seen = walk(trace(model, (x.shape[1], x.shape[2], x.shape[3])), gates=True).get(layer, ())
    except UnsupportedOperation as problem:
        seen = problem
    known, is_map = not isinstance(seen, ValueError), len(shape) == 4
    found = [[dim for dim in range(-len(shape), 0) if axis.varies(dim)] for axis in seen] if known else []
    if is_map and not any(found):  # all values see the same, they are folded together, or it is not known
        found = [_dims_along(model, x, layer, side) for side in (-2, -1)]
    rows, cols = found or ([], [])
    clear = len(rows) <= 1 and len(cols) <= 1 and not set(rows) & set(cols)
    if not known and is_map and not (clear and (rows or cols)):
        raise ValueError(f"layer must have rows and columns that can be told; {layer!r} gives {tuple(shape)}")
    if is_map and (not clear or rows in ([], [-2]) and cols in ([], [-1])):
        return -2, -1
    return (*rows, 0)[0], (*cols, 0)[0]


def _dims_along(model: nn.Module, x: Tensor, layer: str, side: int) -> list[int]:
    """Return the dimensions along which what an image's first lines change lies apart from what its last lines do."""
    usual, places, lines = _output(model, x[:1], layer, "image"), [], range(x.shape[side])
    for order in (lines, lines[::-1]):  # the outermost lines that change anything: a stride may leave some over
        changes = (_changed(model, x[:1], layer, usual, side, line) for line in order)
        changed = next((change for change in changes if change.any()), torch.zeros_like(usual, dtype=torch.bool))
        places.append([changed.movedim(dim, 0).flatten(1).any(1) for dim in range(1 - usual.dim(), 0)])
    dims = range(1 - usual.dim(), 0)
    return [dim for dim, first, last in zip(dims, *places, strict=True) if not first.equal(last)]


def _changed(model: nn.Module, x: Tensor, layer: str, usual: Tensor, side: int, line: int) -> Tensor:
    """Return which of the usual values of layer another content of one row or column of x changes."""
    changed = torch.zeros_like(usual, dtype=torch.bool)
    for value in (math.nan, 1e3, -1e3, 0.0, 1.0):
        altered = x.detach().clone()
        altered.select(side, line).fill_(value)
        with suppress(ValueError):
            changed |= _output(model, altered, layer, "image") != usual
    return changed
