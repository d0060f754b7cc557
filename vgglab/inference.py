"""Testing at any size: dense evaluation, many crops, several scales, and the top five classes of a photograph."""

import math
from dataclasses import dataclass
from itertools import product

import torch
import torch.nn.functional as F
from torch import nn

from vgglab import _checks as checks
from vgglab import machine
from vgglab._trace import structural_copy
from vgglab.data.imagefolder import Photographs, in_workers, whole
from vgglab.models.parts import LARGEST_IMAGE, check_images

METHODS = ("dense", "multi-crop", "both")
LARGEST_GRID = 100
PIXELS_AT_ONCE = 2**20  # crops go through the network together up to this many pixels: 20 of 224, 1024 of 32


class FullyConvolutional(nn.Module):
    """A network whose FC layers became convolutions, made by to_dense(): images -> maps of class scores."""

    def __init__(self, features, classifier):
        super().__init__()
        self.features = features
        self.classifier = classifier
        self.smallest_image = _smallest_image(features)
        self.window = _layers(classifier, nn.Conv2d)[0].kernel_size[0]

    def forward(self, x):
        check_images(x, _layers(self.features, nn.Conv2d)[0], smallest=self.smallest_image)
        maps = self.features(x)
        height, width = (max(0, self.window - side) for side in maps.shape[2:])
        if height or width:
            maps = F.pad(maps, (width // 2, width - width // 2, height // 2, height - height // 2))
        return self.classifier(maps)


def to_dense(model):
    """Return model as a network without FC layers: (N, C, H, W) -> a map of class scores (N, classes, rows, columns).

    The first FC layer becomes a convolution over as many positions as it was trained on (7x7 at 224), the others 1x1
    convolutions. H and W must leave one position of the feature map, which takes 32 pixels; a map smaller than the
    first convolution is padded with zeros. The weights are reshaped and shared with model, which stays as it was; the
    result is in eval mode, so dropout does nothing. Raises TypeError for what is no VGG. Source: section 3.2.
    """
    model = _testing_copy(model)
    if isinstance(model, FullyConvolutional):
        return model
    features, classifier = getattr(model, "features", None), getattr(model, "classifier", None)
    convolutions = _layers(features, nn.Conv2d)
    if not (convolutions and isinstance(classifier, nn.Sequential) and _layers(classifier, nn.Linear)):
        raise TypeError(f"model must be a VGG: features, then a chain of FC layers, not {type(model).__name__}")
    channels = convolutions[-1].out_channels
    for place, layer in enumerate(classifier):
        if isinstance(layer, nn.Linear):
            classifier[place] = _as_convolution(layer, channels)
            channels = layer.out_features
    return FullyConvolutional(features, classifier).eval()


def _as_convolution(linear, channels):
    """The convolution that computes linear over every square window of a map with channels."""
    side = math.isqrt(linear.in_features // channels)
    if channels * side * side != linear.in_features:
        raise TypeError(f"model must have FC layers over a square of {channels} channels, not {linear}")
    conv = nn.Conv2d(channels, linear.out_features, side, bias=linear.bias is not None, device="meta")
    conv.weight = nn.Parameter(linear.weight.view(linear.out_features, channels, side, side), False)
    conv.bias = linear.bias
    return conv


@torch.no_grad()
def score_map(model, x):
    """Return the class scores at every position where the network fits: (N, C, H, W) -> (N, classes, rows, columns).

    model is a plain or a converted network and is left as it was. rows is H // 32 - 6 for a VGG trained at 224, and
    at least 1. Raises ValueError for images that are too small, with the smallest size.
    """
    dense = to_dense(model)
    with checks.running("x", _images(x).shape):
        return dense(x)


@torch.no_grad()
def dense_scores(model, x, flip=True):
    """Return class probabilities (N, classes) by dense evaluation of whole images (N, C, H, W).

    Class scores are averaged over the map, softmax follows, and the result is averaged over the image and its
    mirror image if flip. Source: section 3.2.
    """
    dense = to_dense(model)
    views = [_images(x), x.flip(-1)] if checks.flag("flip", flip) else [_images(x)]
    return torch.stack([_probabilities(dense, view) for view in views]).mean(0)


def crop_offsets(length, crop, grid=5):
    """Return where grid crops of crop pixels start along a side of length pixels: evenly spaced, first to last.

    A single one is central; where there is no room to move, all are the same and one stands for all. Raises
    ValueError where the crop does not fit. Source: section 3.2, 5 x 5 positions.
    """
    length = checks.integer("length", length, 1)
    crop, grid = checks.integer("crop", crop, at_least=1), checks.integer("grid", grid, 1, LARGEST_GRID)
    room = length - crop
    if room < 0:
        raise ValueError(f"crop must be at most {length}, the side of the image, not {crop}")
    if grid == 1 or room == 0:
        return [room // 2]
    return [round(i * room / (grid - 1)) for i in range(grid)]


@torch.no_grad()
def multi_crop_scores(model, x, crop=None, grid=5, flip=True):
    """Return class probabilities (N, classes), averaged over a grid x grid of crops of images (N, C, H, W).

    crop (pixels) is the size that model takes, its own where None; with flip each crop counts mirrored too, which
    makes 50 of the paper's 5 x 5. Crops go through the network a few at a time. Raises ValueError for a crop of
    another size or larger than the images. Source: section 3.2.
    """
    own = getattr(model, "image_size", None)
    crop = checks.integer("crop", own if crop is None else crop, at_least=1)
    if own not in (None, crop):
        raise ValueError(f"crop must be {own}, the size of the images of this network, not {crop}")
    flip = checks.flag("flip", flip)
    height, width = _images(x).shape[2:]
    views = list(product(crop_offsets(height, crop, grid), crop_offsets(width, crop, grid), (False, True)[: 1 + flip]))
    model = _testing_copy(model)
    at_once = max(1, PIXELS_AT_ONCE // crop**2)

    results = []
    for images in x.split(at_once):
        total, step = 0, max(1, at_once // len(images))
        for start in range(0, len(views), step):
            crops = [_cut(images, crop, *view) for view in views[start : start + step]]
            probabilities = _probabilities(model, torch.cat(crops))
            total = total + probabilities.unflatten(0, (len(crops), len(images))).sum(0)
        results.append(total / len(views))
    return torch.cat(results)


def multi_scale_scores(model, x, scales, method="dense", crop=None, grid=5, flip=True):
    """Return class probabilities (N, classes), averaged over images (N, C, H, W) rescaled to each of scales.

    scales are shorter sides in pixels. method is "dense", "multi-crop", or "both", the mean of the two; crop, grid
    and flip are those of multi_crop_scores. Source: section 3.2, Tables 4 and 5.
    """
    checks.choice("method", method, METHODS)
    checks.tensor("x", x, floating=False)
    sides = checks.sequence("scales", scales)
    if not sides:
        raise ValueError(f"scales must be a list of at least one shorter side in pixels, not {scales!r}")
    results = []
    for scale in [checks.integer("scales", side, 1, LARGEST_IMAGE) for side in sides]:
        scaled = rescale(x, scale)
        if method != "multi-crop":
            results.append(dense_scores(model, scaled, flip))
        if method != "dense":
            results.append(multi_crop_scores(model, scaled, crop, grid, flip))
    return torch.stack(results).mean(0)


def rescale(images, shorter_side):
    """Return images (N, C, H, W) as float, their shorter side shorter_side pixels, their aspect ratio kept.

    Bilinear, smoothed where the images shrink; the longer side is rounded down, as torchvision's Resize does.
    """
    shorter_side = checks.integer("shorter_side", shorter_side, 1, LARGEST_IMAGE)
    checks.tensor("images", images, floating=False)
    images = images if images.is_floating_point() else images.float()
    height, width = images.shape[2:]
    size = [side * shorter_side // min(height, width) for side in (height, width)]
    return F.interpolate(images, size, mode="bilinear", antialias=True)


def _testing_copy(model):
    """The same weights in other modules and in eval mode, so that the model itself stays as it is."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a network, not {type(model).__name__}")
    return structural_copy(model, lambda tensor: tensor)


def _images(x):
    if not isinstance(x, torch.Tensor) or x.ndim != 4 or not x.is_floating_point() or not x.numel():
        given = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, torch.Tensor) else type(x).__name__
        raise ValueError(f"x must be images (N, C, H, W) of floating-point numbers, not {given}")
    return x


def _cut(images, crop, top, left, mirrored):
    part = images[:, :, top : top + crop, left : left + crop]
    return part.flip(-1) if mirrored else part


def _probabilities(model, x):
    """Softmax of the class scores, which are averaged over space first where they are a map."""
    with checks.running("x", x.shape):
        scores = model(x)
    if not isinstance(scores, torch.Tensor) or scores.ndim not in (2, 4):
        raise ValueError("model must give class scores (N, classes), or a map of them")
    return (scores.mean((2, 3)) if scores.ndim == 4 else scores).softmax(1)


def _layers(model, kind):
    return [module for module in model.modules() if isinstance(module, kind)] if isinstance(model, nn.Module) else []


def _smallest_image(features):
    """The side that leaves one position: a layer with n outputs needs (n - 1) * stride + kernel - 2 * padding."""
    side = 1
    for layer in reversed(_layers(features, (nn.Conv2d, nn.MaxPool2d))):
        kernel, stride, padding = (
            checks.pair(name, getattr(layer, name))[0] for name in ("kernel_size", "stride", "padding")
        )
        side = max(1, (side - 1) * stride + kernel - 2 * padding)
    return side


@dataclass(frozen=True)
class Tested:
    """Of total pictures, how many were named correctly, and of how many the true class was among the best five."""

    correct: int
    correct_top5: int
    total: int

    @property
    def top1_error(self):
        return 1 - self.correct / self.total

    @property
    def top5_error(self):
        return 1 - self.correct_top5 / self.total


@torch.no_grad()
def errors(model, photographs, scales, method="dense", share=(0, 1)):
    """Return how many photographs model names correctly (Tested), each tested at all scales (shorter sides, pixels).

    method is "dense", "multi-crop" or "both", as in vgglab.inference.multi_scale_scores. share = (rank, count) tests
    every count-th photograph from the rank-th on. Raises ValueError for scales that are too small for the method.
    Source: section 3.2.
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
