"""Testing at any size: dense evaluation, many crops, several scales, and the errors on photographs."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Annotated, Any, Literal, NoReturn, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from vgglab import _checks as checks
from vgglab import machine
from vgglab._checks import Count, Maps, checked
from vgglab._trace import Call, Operation, Trace, UnsupportedOperation, refuse, structural_copy, trace
from vgglab.data.imagefolder import Photographs, in_workers, whole
from vgglab.models.parts import ConvNet

Method = Literal["dense", "multi-crop", "both"]
METHODS = get_args(Method)
RESHAPING = {"view", "unsafe_view", "reshape_alias", "alias"}  # what flattening is made of
LARGEST = 2**12  # pixels, of images tried for their size
POINTWISE = {"hardswish", "log_sigmoid_forward"}  # beside what torch marks as such
PIXELS_AT_ONCE = 2**20  # crops go through the network together up to this many pixels: 20 of 224, 1024 of 32


class FullyConvolutional(ConvNet):
    """A network whose FC layers became convolutions, made by to_dense(): images -> maps of class scores.

    A map smaller than the first of these convolutions is padded with zeros, or with enlarge pooled to its size.
    """

    def __init__(self, features: nn.Sequential, classifier: nn.Sequential, smallest_image: int, enlarge: bool) -> None:
        super().__init__(features, classifier, smallest_image=smallest_image)
        self.window = _layers(classifier, nn.Conv2d)[0].kernel_size
        self.enlarge = enlarge

    def forward(self, x: Tensor) -> Tensor:
        self.check_images(x, None)
        maps = self.features(x)
        height, width = (max(sides) for sides in zip(self.window, maps.shape[2:], strict=True))
        rows, columns = height - maps.shape[2], width - maps.shape[3]
        if self.enlarge and (rows or columns):
            maps = F.adaptive_avg_pool2d(maps, (height, width))
        elif rows or columns:
            maps = F.pad(maps, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
        return self.classifier(maps)


@checked
def to_dense(model: nn.Module) -> FullyConvolutional:
    """Return model as a network without FC layers: (N, C, H, W) -> a map of class scores (N, classes, rows, columns).

    The first FC layer becomes a convolution over as many positions as it was trained on (7x7 at 224), the others 1x1
    convolutions. H and W must leave one position of the feature map, which takes 32 pixels; a map smaller than the
    first convolution is padded with zeros, or enlarged by the model's own pooling, which no longer squeezes a larger
    one. The weights are reshaped and shared with model, which stays as it was; the result is in eval mode, so dropout
    does nothing. The images that model was trained on are taken for square, as nothing in it says otherwise. Raises
    UnsupportedOperation, naming the layer or the operation, unless model is a chain: layers that give maps, flatten, FC
    layers, and what treats each of their numbers alike. Source: section 3.2.
    """
    model = structural_copy(model)
    if isinstance(model, FullyConvolutional):
        return model
    if isinstance(model, ConvNet):
        model.image_size = None  # what follows fixes it
    image, pooling = _own_image(model), ""
    features, classifier, window = nn.Sequential(), nn.Sequential(), image.shape[2:]
    larger = image.new_empty(*image.shape[:2], *(side + 1000 for side in window))
    for call in _chain(trace(model, (image.shape[1], image.shape[2], image.shape[3]))):
        layer, before, after = model.get_submodule(call.name), call.inputs[0], call.outputs[0]
        if before.ndim == 2:
            classifier.append(_on_maps(call, layer, window))
            window = torch.Size((1, 1)) if isinstance(classifier[-1], nn.Conv2d) else window
        elif after.ndim == 2 and all(part.kind in RESHAPING for part in call.operations):
            continue
        elif isinstance(layer, nn.AdaptiveAvgPool2d) and before.shape == after.shape and window.numel() > 1:
            pooling = call.name
        elif pooling and any(part.computes for part in call.operations):
            _refuse(pooling, model.get_submodule(pooling), "is not the last layer that gives maps")
        else:
            features.append(layer)
            window, grown = after.shape[2:], after
            with suppress(RuntimeError):
                grown = _skeleton(layer)(larger)
            if after.ndim != 4 or any(side <= old for side, old in zip(grown.shape[2:], window, strict=True)):
                _refuse(call.name, layer, "does not give larger maps for larger images")
            larger = grown
    if not _layers(classifier, nn.Conv2d):
        _refuse(call.name, layer, "is not followed by an FC layer")
    skeleton = _skeleton(features)
    smallest = _smallest_image(image, lambda image: skeleton(image).numel() > 0)
    return FullyConvolutional(features, classifier, smallest.shape[2], bool(pooling)).eval()


def _layers(model: nn.Module, kind: type[nn.Module]) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, kind)]


def _skeleton(module: nn.Module) -> nn.Module:
    return structural_copy(module, partial(torch.empty_like, device="meta"))


def _refuse(name: str, layer: nn.Module, reason: str) -> NoReturn:
    raise UnsupportedOperation(f"model cannot become dense: {name or 'model'} ({type(layer).__name__}) {reason}")


def _own_image(model: nn.Module) -> Tensor:
    """Return the smallest image, without numbers, that fills the first FC layer and what pools to a fixed size."""
    skeleton = _skeleton(model)
    filled: list[bool] = []
    numbers: list[int] = []  # how many more the first FC layer is given than it takes
    entered = {"": model}

    def enter(name: str, layer: nn.Module, args: Any) -> None:
        entered[name] = entered.pop(name, layer)
        if isinstance(layer, nn.Linear):
            numbers.append(args[0].shape[-1] - layer.in_features)
            filled.append(numbers[-1] >= 0)
            raise StopIteration

    def pool(layer: nn.Module, args: Any, maps: Tensor) -> None:
        filled.extend(before >= after for before, after in zip(args[0].shape, maps.shape, strict=True))

    def fills(image: Tensor) -> bool:
        filled.clear()
        try:
            skeleton(image)
        except StopIteration:
            return all(filled)
        return False

    for name, layer in skeleton.named_modules():
        layer.register_forward_pre_hook(partial(enter, name))
        if isinstance(layer, nn.AdaptiveAvgPool2d):
            layer.register_forward_hook(pool)
    for first in _layers(skeleton, nn.Conv2d)[:1]:
        image = _smallest_image(first.weight.new_empty(1, first.in_channels, 1, 1), fills)
        if image.shape[2] < LARGEST and fills(image) and numbers[-1] == 0:
            return image
    _refuse(*list(entered.items())[-1], "is not reached from square images of any size as an FC layer that they fill")


def _smallest_image(like: Tensor, works: Callable[[Tensor], bool]) -> Tensor:
    """Return the smallest square image that works, of the channels of like; one that a network fails on does not."""

    def works_at(side: int) -> bool:
        with suppress(Exception):
            return works(like.new_empty(1, like.shape[1], side, side))
        return False

    side = 1 + bisect_left(range(1, LARGEST), True, key=works_at)
    return like.new_empty(1, like.shape[1], side, side)


def _chain(traced: Trace) -> list[Call]:
    """Return the calls of layers that the image goes through one after another; refuse all that is beside them."""

    def opens(call: Call | None) -> bool:
        """Whether the parts of this call count, rather than the whole."""
        if call is None or not opens(call.parent):
            return call is None
        _, *parts = call.module.modules()
        return type(call.module) is nn.Sequential or any(isinstance(part, nn.Linear) for part in parts)

    calls: list[Call] = []
    current = made = traced.image
    for step in traced.steps:
        if isinstance(step, Operation):
            if opens(step.call):
                if step.kind not in RESHAPING or step.inputs[0] is not current:
                    refuse(step, "model cannot become dense, because it is no chain of layers")
                current = step.outputs[0]
        elif opens(step.parent) and not opens(step):
            as_given = current.shape in (made.shape, made.flatten(1).shape)
            if (
                not as_given
                or [id(current)] != [*map(id, step.inputs)]
                or [one.ndim for one in step.outputs] not in ([2], [4])
            ):
                _refuse(step.name, step.module, "is no link of a chain that leads from maps to numbers")
            calls.append(step)
            current = made = step.outputs[0]
    if [id(made)] != [*map(id, traced.steps[-1].outputs)]:
        _refuse(calls[-1].name, calls[-1].module, "is not what the model returns")
    return calls


def _on_maps(call: Call, layer: Any, window: torch.Size) -> nn.Module:
    """Return layer, which takes (N, numbers), as one that does the same at every position of a map."""
    parts, before = call.operations, call.inputs[0]
    kinds = [part.kind for part in parts]
    if isinstance(layer, nn.Linear) and kinds == ["linear"] and parts[0]["weight"] is call.module.weight:
        if parts[0]["bias"] is not call.module.bias:
            _refuse(call.name, layer, "does not add its own bias")
        conv = nn.Conv2d(layer.in_features // window.numel(), layer.out_features, (window[0], window[1]), device="meta")
        conv.weight = nn.Parameter(layer.weight.view(conv.weight.shape), False)
        conv.bias = layer.bias
        return conv
    if kinds == ["batch_norm"] and not parts[0]["training"] and window.numel() == 1:
        norm = nn.BatchNorm2d(layer.num_features, layer.eps, affine=layer.affine, device="meta")
        norm.load_state_dict(layer.state_dict(), assign=True)
        return norm
    if RESHAPING.issuperset(kinds) and call.outputs[0].shape == before.shape and not call.has_children:
        return nn.Identity()
    if not _treats_alike(call, layer):
        _refuse(call.name, layer, "does not treat the numbers that it is given alike")
    return layer


def _treats_alike(call: Call, layer: nn.Module) -> bool:
    """Whether layer does the same to each number, or to all classes at one position, of (N, numbers) and of maps."""
    numbers = {id(call.inputs[0])}
    for part in call.operations:
        pointwise = torch.Tag.pointwise in part.op.tags or part.kind in POINTWISE
        if not (pointwise or part["dim"] == 1 and part.kind in ("softmax", "log_softmax")):
            return False
        if any(one.numel() > 1 and id(one) not in numbers for one in part.inputs):
            return False
        numbers |= set(map(id, part.outputs))
    with suppress(ValueError):
        on_maps = [step for step in trace(layer, (call.inputs[0].shape[1], 2, 3)).steps if isinstance(step, Operation)]
        return not call.has_children and list(map(_said, on_maps)) == list(map(_said, call.operations))
    return False


def _said(operation: Operation) -> tuple[str, list[Any]]:
    """An operation's name and its arguments but for tensors."""
    given = tree_leaves((operation.args, operation.kwargs))
    return operation.kind, [value for value in given if not isinstance(value, Tensor)]


@checked
@torch.no_grad()
def score_map(model: nn.Module, x: Maps) -> Tensor:
    """Return the class scores at every position where the network fits: (N, C, H, W) -> (N, classes, rows, columns).

    model is a plain or a converted network and is left as it was. rows is H // 32 - 6 for a VGG trained at 224, and
    at least 1. Raises ValueError for images that are too small, with the smallest size.
    """
    return to_dense(model)(x)


@checked
@torch.no_grad()
def dense_scores(model: nn.Module, x: Maps, flip: bool = True) -> Tensor:
    """Return class probabilities (N, classes) by dense evaluation of whole images (N, C, H, W).

    Class scores are averaged over the map, softmax follows, and the result is averaged over the image and its
    mirror image if flip. Source: section 3.2.
    """
    dense, views = to_dense(model), [x, x.flip(-1)] if flip else [x]
    return torch.stack([_probabilities(dense, view) for view in views]).mean(0)


@checked
def crop_offsets(length: Count, crop: Count, grid: Count = 5) -> list[int]:
    """Return where grid crops of crop pixels start along a side of length pixels: evenly spaced, first to last.

    A single one is central; where there is no room to move, one stands for all. Source: section 3.2.
    """
    room = length - crop
    if room < 0:
        raise ValueError(f"crop must be at most {length}, the side of the image, not {crop}")
    if grid == 1 or room == 0:
        return [room // 2]
    return [round(i * room / (grid - 1)) for i in range(grid)]


@checked
@torch.no_grad()
def multi_crop_scores(
    model: nn.Module, x: Maps, crop: Count | None = None, grid: Count = 5, flip: bool = True
) -> Tensor:
    """Return class probabilities (N, classes), averaged over a grid x grid of crops of images (N, C, H, W).

    crop (pixels) is the size that model takes, its own where None; with flip each crop counts mirrored too, which
    makes 50 of the paper's 5 x 5. Crops go through the network a few at a time. Raises ValueError for a crop of
    another size or larger than the images. Source: section 3.2.
    """
    own = getattr(model, "image_size", None)
    size = checks.integer("crop", crop or own)
    if own not in (None, size):
        raise ValueError(f"crop must be {own}, the size of the images of this network, not {size}")
    tops, lefts = (crop_offsets(side, size, grid) for side in x.shape[2:])
    views = list(product(tops, lefts, (False, True)[: 1 + flip]))
    model, at_once = structural_copy(model), max(1, PIXELS_AT_ONCE // size**2)
    results = []
    for images in x.split(at_once):
        sums, step = [], max(1, at_once // len(images))
        for start in range(0, len(views), step):
            crops = [_cut(images, size, *view) for view in views[start : start + step]]
            probabilities = _probabilities(model, torch.cat(crops))
            sums.append(probabilities.unflatten(0, (len(crops), len(images))).sum(0))
        results.append(sum(sums[1:], sums[0]) / len(views))
    return torch.cat(results)


def _cut(images: Tensor, crop: int, top: int, left: int, mirrored: bool) -> Tensor:
    part = images[:, :, top : top + crop, left : left + crop]
    return part.flip(-1) if mirrored else part


def _probabilities(model: nn.Module, x: Tensor) -> Tensor:
    """Softmax of the class scores, which are averaged over space first where they are a map."""
    with checks.running("x", x.shape):
        scores = model(x)
    if not isinstance(scores, Tensor) or scores.ndim not in (2, 4):
        raise ValueError("model must give class scores (N, classes), or a map of them")
    return (scores.mean((2, 3)) if scores.ndim == 4 else scores).softmax(1)


def _sides(name: str, value: Any) -> list[int]:
    sides = [checks.integer(name, side, 1) for side in checks.sequence(name, value)]
    if not sides:
        raise ValueError(f"{name} must be a list of at least one shorter side in pixels, not {value!r}")
    return sides


Pixels = Annotated[Tensor, partial(checks.tensor, floating=False)]
Sides = Annotated[Sequence[int], _sides]


@checked
def multi_scale_scores(model: nn.Module, x: Pixels, scales: Sides, method: Method = "dense") -> Tensor:
    """Return class probabilities (N, classes), averaged over images (N, C, H, W) rescaled to each of scales.

    scales are shorter sides in pixels. method is "dense", "multi-crop", or "both", the mean of the two. Source:
    section 3.2, Tables 4 and 5.
    """
    ways: list[Callable[[Tensor], Tensor]] = []
    if method != "multi-crop":
        ways.append(partial(dense_scores, to_dense(model)))
    if method != "dense":
        ways.append(partial(multi_crop_scores, model))
    scaled = (rescale(x, scale) for scale in scales)
    return torch.stack([scores(images) for images in scaled for scores in ways]).mean(0)


@checked
def rescale(images: Pixels, shorter_side: Count) -> Tensor:
    """Return images (N, C, H, W) as float, their shorter side shorter_side pixels, their aspect ratio kept.

    Bilinear, smoothed where the images shrink; the longer side is rounded down, as torchvision's Resize does.
    """
    height, width = images.shape[2:]
    size = [side * shorter_side // min(height, width) for side in (height, width)]
    pixels = images if images.is_floating_point() else images.float()
    return F.interpolate(pixels, size, mode="bilinear", antialias=True)


@dataclass(frozen=True)
class Tested:
    """Of total pictures, how many were named correctly, and of how many the true class was among the best five."""

    correct: int
    correct_top5: int
    total: int

    @property
    def top1_error(self) -> float:
        return 1 - self.correct / self.total

    @property
    def top5_error(self) -> float:
        return 1 - self.correct_top5 / self.total


@torch.no_grad()
def errors(
    model: nn.Module, photographs: Photographs, scales: Sides, method: Method = "dense", share: tuple[int, int] = (0, 1)
) -> Tested:
    """Return how many photographs model names correctly, each tested at all scales (shorter sides, pixels).

    method is that of multi_scale_scores; share = (rank, count) tests every count-th photograph from the rank-th on.
    Raises ValueError for scales that are too small for the method. Source: section 3.2.
    """
    if not isinstance(photographs, Photographs):
        raise TypeError(f"photographs must be a part of what load returns, not {type(photographs).__name__}")
    photographs = photographs.to(machine.device_of(model))
    model = to_dense(model) if method == "dense" else model  # once for all of them
    chosen = range(len(photographs))[share[0] :: share[1]]
    jobs = (photographs.path(index) for index in chosen)
    correct = correct_top5 = 0
    for index, pixels in zip(chosen, in_workers(whole, jobs, min(photographs.workers, len(chosen))), strict=True):
        scores = multi_scale_scores(model, photographs.normalized(pixels), scales, method)[0]
        best = scores.topk(min(5, len(scores))).indices.tolist()
        label = photographs.labels[index].item()
        correct += best[0] == label
        correct_top5 += label in best
    return Tested(correct, correct_top5, len(chosen))
