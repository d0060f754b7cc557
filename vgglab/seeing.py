"""What a network sees: its responses, what excites a unit most, which pixels decided."""

import math
from functools import partial
from typing import Annotated, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgglab import _checks as checks
from vgglab import data
from vgglab._checks import Count, Index, Maps, Whole, checked
from vgglab._trace import output_of, structural_copy
from vgglab.receptive_field import Region

BLACK = data.normalize(torch.zeros(1)).item()  # what a black pixel becomes, to the bit
BATCH = 250


def _class_numbers(name: str, value: Any) -> Tensor:
    entries = checks.sequence(name, value.tolist() if isinstance(value, Tensor) else value)
    return torch.tensor([checks.integer(name, entry, at_least=0) for entry in entries], dtype=torch.int64)


FLOAT32 = torch.finfo(torch.float32)
Labels = Annotated[Tensor, _class_numbers]
Pixel = Annotated[float, partial(checks.number, at_least=FLOAT32.min, at_most=FLOAT32.max)]


class Unit(NamedTuple):
    """One unit of a channel: the number of the image that it looks at, its row and column in the map, its value."""

    image: int
    row: int
    col: int
    value: float


@checked
def activations(model: nn.Module, x: Maps, layer: str) -> Tensor:
    """Return what the module with the path layer gives for x (N, C, H, W), in eval mode; gradients reach x."""
    return output_of(structural_copy(model), x, layer)


@checked
@torch.no_grad()
def strongest(model: nn.Module, x: Maps, layer: str, channel: Index, count: Count) -> list[Unit]:
    """Return the Units of channel with the largest values, strongest first: one in each of count images of x.

    x is (N, C, H, W); layer gives maps (N, channels, rows, columns). Source: Zeiler and Fergus, arXiv:1311.2901,
    section 4.
    """
    if count > len(x):
        raise ValueError(f"count must be at most the {len(x)} images of x, not {count}")
    parts = []
    for part in x.split(BATCH):
        found = activations(model, part, layer)
        if found.dim() != 4 or channel >= found.shape[1]:
            raise ValueError(f"layer must give maps with a channel {channel}; {layer!r} gives {tuple(found.shape)}")
        parts.append(found[:, channel])
    maps = torch.cat(parts)
    values, places = maps.flatten(1).max(1)
    images = values.argsort(descending=True, stable=True)[:count].tolist()
    return [Unit(i, *divmod(int(places[i]), maps.shape[2]), values[i].item()) for i in images]


def _pictures(name: str, value: Any) -> Tensor:
    pictures = checks.tensor(name, value, dims=None, floating=False)
    if pictures.ndim < 2 or not pictures.numel():
        raise ValueError(f"{name} must be (..., H, W), not empty, not {tuple(pictures.shape)}")
    return pictures


def _region(name: str, value: Any) -> Region:
    ends = [checks.integer(name, end) for end in checks.sequence(name, value)]
    if len(ends) != 4 or ends[0] > ends[2] or ends[1] > ends[3]:
        raise ValueError(f"{name} must be (top, left, bottom, right), not {value!r}")
    return Region(*ends)


@checked
def cut(pictures: Annotated[Tensor, _pictures], region: Annotated[Region, _region]) -> Tensor:
    """Return the Region of pictures (..., H, W) as float (..., height, width), with NaN where it lies outside."""
    height, width = pictures.shape[-2:]
    rows = torch.arange(region.top, region.bottom + 1, device=pictures.device)[:, None]
    columns = torch.arange(region.left, region.right + 1, device=pictures.device)
    outside = (rows < 0) | (rows >= height) | (columns < 0) | (columns >= width)
    part = pictures[..., rows.clamp(0, height - 1), columns.clamp(0, width - 1)]
    return part.float().masked_fill(outside, math.nan)


@checked
def gradient_times_input(model: nn.Module, x: Maps, labels: Labels, background: Pixel = BLACK) -> Tensor:
    """Return the gradient of each image's score for its label times (x - background), summed over C: (N, H, W).

    To first order this is how far the score would fall if the pixel became background, a value of x; in a linear
    model it is exactly that. x is (N, C, H, W), labels int64 (N,); the model runs in eval mode. Source: Shrikumar et
    al., arXiv:1605.01713, after Simonyan, Vedaldi and Zisserman, arXiv:1312.6034, section 3.
    """
    difference, x = x.detach() - background, x.detach().requires_grad_()
    with torch.enable_grad():
        scores = _scores(structural_copy(model), x, labels)
        (gradient,) = torch.autograd.grad(scores.sum(), x)
    return (gradient * difference).sum(1)


@checked
@torch.no_grad()
def occlusion(
    model: nn.Module, x: Maps, labels: Labels, patch: Count, stride: Count, background: Pixel = BLACK
) -> Tensor:
    """Return how far each image's score for its label falls when a square is covered: (N, rows, columns).

    The square of patch pixels moves in steps of stride and is filled with background, a value of x (N, C, H, W);
    labels are int64 (N,), the model runs in eval mode. Source: Zeiler and Fergus, arXiv:1311.2901, section 4.2.
    """
    height, width = x.shape[2:]
    if patch > min(height, width):
        raise ValueError(f"patch must be at most {min(height, width)}, the side of the image, not {patch}")
    model = structural_copy(model)
    rows, columns = range(0, height - patch + 1, stride), range(0, width - patch + 1, stride)
    before, falls = _scores(model, x, labels), x.new_empty(len(x), len(rows), len(columns))
    for i, top in enumerate(rows):
        for j, left in enumerate(columns):
            covered = x.clone()
            covered[:, :, top : top + patch, left : left + patch] = background
            falls[:, i, j] = before - _scores(model, covered, labels)
    return falls


def _scores(model: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    """The score of each image for its label."""
    with checks.running("x", x.shape):
        scores = checks.tensor("what model gives", model(x.clone()), "N, classes")
    if len(labels) != len(x) or labels.max() >= scores.shape[1]:
        raise ValueError(f"labels must be below {scores.shape[1]}, one for each image, not {labels.tolist()}")
    return scores.gather(1, labels.to(scores.device)[:, None])[:, 0]


@checked
def shifted(x: Maps, down: Whole, right: Whole, background: Pixel = BLACK) -> Tensor:
    """Return x (N, C, H, W) moved by so many pixels, background moving in; negative numbers move up and left."""
    height, width = x.shape[2:]
    down, right = max(-height, min(height, down)), max(-width, min(width, right))
    return F.pad(x, (right, -right, down, -down), value=background)
