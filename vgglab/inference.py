"""Testing at any size: dense evaluation, many crops, several scales, and the errors on photographs."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Annotated, Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgglab import _checks as checks
from vgglab import machine
from vgglab._checks import Count, Maps, checked
from vgglab._trace import structural_copy
from vgglab.data.imagefolder import Photographs, in_workers, whole
from vgglab.models.parts import ConvNet, smallest_image

Method = Literal["dense", "multi-crop", "both"]
METHODS = get_args(Method)
PIXELS_AT_ONCE = 2**20  # crops go through the network together up to this many pixels: 20 of 224, 1024 of 32


class FullyConvolutional(ConvNet):
    """A network whose FC layers became convolutions, made by to_dense(): images -> maps of class scores."""

    def __init__(self, features: nn.Sequential, classifier: nn.Sequential) -> None:
        super().__init__(features, classifier, smallest_image=smallest_image(features))
        self.positions = _layers(classifier, nn.Conv2d)[0].kernel_size[0]

    def forward(self, x: Tensor) -> Tensor:
        self.check_images(x, None)
        maps = self.features(x)
        height, width = (max(0, self.positions - side) for side in maps.shape[2:])
        if height or width:
            maps = F.pad(maps, (width // 2, width - width // 2, height // 2, height - height // 2))
        return self.classifier(maps)


@checked
def to_dense(model: nn.Module) -> FullyConvolutional:
    """Return model as a network without FC layers: (N, C, H, W) -> a map of class scores (N, classes, rows, columns).

    The first FC layer becomes a convolution over as many positions as it was trained on (7x7 at 224), the others 1x1
    convolutions. H and W must leave one position of the feature map, which takes 32 pixels; a map smaller than the
    first convolution is padded with zeros. The weights are reshaped and shared with model, which stays as it was; the
    result is in eval mode, so dropout does nothing. Raises TypeError for what is no VGG. Source: section 3.2.
    """
    model = structural_copy(model)
    if isinstance(model, FullyConvolutional):
        return model
    features, classifier = (getattr(model, name, nn.Sequential()) for name in ("features", "classifier"))
    convolutions = _layers(features, nn.Conv2d)
    if not (convolutions and isinstance(classifier, nn.Sequential) and _layers(classifier, nn.Linear)):
        raise TypeError(f"model must be a VGG: features, then a chain of FC layers, not {type(model).__name__}")
    channels = convolutions[-1].out_channels
    for place, layer in enumerate(classifier):
        if isinstance(layer, nn.Linear):
            classifier[place] = _as_convolution(layer, channels)
            channels = layer.out_features
    return FullyConvolutional(features, classifier).eval()


def _as_convolution(linear: nn.Linear, channels: int) -> nn.Conv2d:
    """The convolution that computes linear over every square window of a map with channels."""
    side = math.isqrt(linear.in_features // channels)
    if channels * side * side != linear.in_features:
        raise TypeError(f"model must have FC layers over a square of {channels} channels, not {linear}")
    conv = nn.Conv2d(channels, linear.out_features, side, bias=linear.bias is not None, device="meta")
    conv.weight = nn.Parameter(linear.weight.view(linear.out_features, channels, side, side), False)
    conv.bias = linear.bias
    return conv


def _layers(model: nn.Module, kind: type[nn.Module]) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, kind)]


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
    ways: dict[str, list[Callable[[nn.Module, Tensor], Tensor]]] = {
        "dense": [dense_scores],
        "multi-crop": [multi_crop_scores],
        "both": [dense_scores, multi_crop_scores],
    }
    scaled = (rescale(x, scale) for scale in scales)
    return torch.stack([scores(model, images) for images in scaled for scores in ways[method]]).mean(0)


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
