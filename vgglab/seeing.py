"""What a network sees: its responses, what excites a unit most, which pixels decided, what it confuses."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F

from vgglab import _checks as checks
from vgglab import data
from vgglab._trace import structural_copy
from vgglab.models.parts import LARGEST_IMAGE
from vgglab.receptive_field import Region

BLACK = data.normalize(torch.zeros(1)).item()  # what a black pixel becomes, to the bit
BATCH = 250
LARGEST_TABLE = 10_000  # rows
LARGEST_VALUE = 1e6  # of a pixel


class Unit(NamedTuple):
    """One unit of a channel: the number of the image that it looks at, its row and column in the map, its value."""

    image: int
    row: int
    col: int
    value: float


def activations(model, x, layer):
    """Return what the module with the path layer gives for x (N, C, H, W), in eval mode; gradients reach x.

    Raises ValueError where model has no such module or does not run it.
    """
    model, outputs = _copy(model), []
    checks.choice("layer", layer, dict(model.named_modules()))
    model.get_submodule(layer).register_forward_hook(lambda module, inputs, output: outputs.append(output.clone()))
    with checks.running("x", checks.tensor("x", x).shape):
        model(x.clone())  # a first layer that works in place would change x itself
    if not outputs:
        raise ValueError(f"layer must be a module that runs in eval mode; {layer!r} does not")
    return outputs[-1]


@torch.no_grad()
def strongest(model, x, layer, channel, count):
    """Return the Units of channel with the largest values, strongest first: one in each of count images of x.

    x is (N, C, H, W); layer gives maps (N, channels, rows, columns). Raises ValueError for a channel or layer that
    is not there, or a count of more than N. Source: Zeiler and Fergus, arXiv:1311.2901, section 4.
    """
    channel = checks.integer("channel", channel, at_least=0)
    if checks.integer("count", count, at_least=1) > len(checks.tensor("x", x)):
        raise ValueError(f"count must be at most the {len(x)} images of x, not {count}")
    maps = []
    for part in x.split(BATCH):
        found = activations(model, part, layer)
        if found.dim() != 4 or channel >= found.shape[1]:
            raise ValueError(f"layer must give maps with a channel {channel}; {layer!r} gives {tuple(found.shape)}")
        maps.append(found[:, channel])
    maps = torch.cat(maps)
    values, places = maps.flatten(1).max(1)
    images = values.argsort(descending=True, stable=True)[:count]
    return [Unit(i, *divmod(places[i].item(), maps.shape[2]), values[i].item()) for i in images.tolist()]


def cut(pictures, region):
    """Return the Region of pictures (..., H, W) as float (..., height, width), with NaN where it lies outside."""
    checks.tensor("pictures", pictures, dims=None, floating=False)
    if pictures.ndim < 2 or not pictures.numel():
        raise ValueError(f"pictures must be (..., H, W), not empty, not {tuple(pictures.shape)}")
    ends = [checks.integer("region", end, -LARGEST_IMAGE, LARGEST_IMAGE) for end in checks.sequence("region", region)]
    if len(ends) != 4 or ends[0] > ends[2] or ends[1] > ends[3]:
        raise ValueError(f"region must be (top, left, bottom, right), not {region!r}")
    region = Region(*ends)
    height, width = pictures.shape[-2:]
    rows, columns = torch.arange(region.top, region.bottom + 1)[:, None], torch.arange(region.left, region.right + 1)
    outside = (rows < 0) | (rows >= height) | (columns < 0) | (columns >= width)
    part = pictures[..., rows.clamp(0, height - 1), columns.clamp(0, width - 1)]
    return part.float().masked_fill(outside, math.nan)


def gradient_times_input(model, x, labels, background=BLACK):
    """Return the gradient of each image's score for its label times (x - background), summed over C: (N, H, W).

    To first order this is how far the score would fall if the pixel became background, a value of x; in a linear
    model it is exactly that. x is (N, C, H, W), labels int64 (N,); the model runs in eval mode. Source: Shrikumar et
    al., arXiv:1605.01713, after Simonyan, Vedaldi and Zisserman, arXiv:1312.6034, section 3.
    """
    model, x = _copy(model), checks.tensor("x", x).detach().requires_grad_()
    background = _value("background", background)
    with torch.enable_grad():
        scores = _scores(model, x, labels)
        (gradient,) = torch.autograd.grad(scores.sum(), x)
    return (gradient * (x.detach() - background)).sum(1)


@torch.no_grad()
def occlusion(model, x, labels, patch, stride, background=BLACK):
    """Return how far each image's score for its label falls when a square is covered: (N, rows, columns).

    The square of patch pixels moves in steps of stride and is filled with background, a value of x (N, C, H, W);
    labels are int64 (N,), the model runs in eval mode. Raises ValueError for a patch that does not fit into the
    image. Source: Zeiler and Fergus, arXiv:1311.2901, section 4.2.
    """
    patch, stride = checks.integer("patch", patch, at_least=1), checks.integer("stride", stride, at_least=1)
    background = _value("background", background)
    height, width = checks.tensor("x", x).shape[2:]
    if patch > min(height, width):
        raise ValueError(f"patch must be at most {min(height, width)}, the side of the image, not {patch}")
    model = _copy(model)
    rows, columns = range(0, height - patch + 1, stride), range(0, width - patch + 1, stride)
    before, falls = _scores(model, x, labels), x.new_empty(len(x), len(rows), len(columns))
    for i, top in enumerate(rows):
        for j, left in enumerate(columns):
            covered = x.clone()
            covered[:, :, top : top + patch, left : left + patch] = background
            falls[:, i, j] = before - _scores(model, covered, labels)
    return falls


def _copy(model):
    """The same weights in other modules and in eval mode."""
    return structural_copy(model, lambda tensor: tensor)


def _scores(model, x, labels):
    """The score of each image for its label."""
    with checks.running("x", x.shape):
        scores = checks.tensor("what model gives", model(x.clone()), "N, classes")
    labels = _class_numbers("labels", labels, scores.shape[1], len(x))
    return scores.gather(1, labels.to(scores.device)[:, None])[:, 0]


def _class_numbers(name, values, classes, count=None):
    """values, a tensor or a list, as a tensor (count,) of whole numbers from 0 to classes - 1."""
    if not isinstance(values, torch.Tensor):
        values = [checks.integer(name, value, 0, classes - 1) for value in checks.sequence(name, values)]
        values = torch.tensor(values, dtype=torch.int64)
    checks.tensor(name, values, "N", floating=False, empty=True)
    if values.is_floating_point() or not ((values >= 0) & (values < classes)).all() or count not in (None, len(values)):
        raise ValueError(f"{name} must be whole numbers from 0 to {classes - 1}, one for each image, not {values}")
    return values.long()


def _value(name, value):
    return checks.number(name, value, at_least=-LARGEST_VALUE, at_most=LARGEST_VALUE)


def rank_correlation(a, b):
    """Return Spearman's rank correlation of two tensors with as many values, equal values sharing their mean rank."""
    for name, values in (("a", a), ("b", b)):
        checks.tensor(name, values, dims=None, floating=False)
    if a.numel() != b.numel() or a.numel() < 2:
        raise ValueError(f"a and b must have equally many values, at least 2, not {a.numel()} and {b.numel()}")
    for name, values in (("a", a), ("b", b)):
        if values.isnan().any() or (values == values.flatten()[0]).all():
            raise ValueError(f"{name} must have different values and no NaN, for ranks to correlate")
    return torch.corrcoef(torch.stack([_ranks(a.flatten()), _ranks(b.flatten())]))[0, 1].item()


def _ranks(values):
    _, group, sizes = values.unique(return_inverse=True, return_counts=True)
    return (sizes.cumsum(0) - (sizes - 1) / 2).double()[group]


def confusion(labels, answers, classes):
    """Return how many images of each true class (row) got each answer (column): int64 (classes, classes)."""
    classes = checks.integer("classes", classes, 1, LARGEST_TABLE)
    labels = _class_numbers("labels", labels, classes)
    answers = _class_numbers("answers", answers, classes, len(labels))
    return (labels * classes + answers).bincount(minlength=classes**2).view(classes, classes)


def shifted(x, down, right, background=BLACK):
    """Return x (N, C, H, W) moved by so many pixels, background moving in; negative numbers move up and left."""
    height, width = checks.tensor("x", x).shape[2:]
    down = max(-height, min(height, checks.integer("down", down)))
    right = max(-width, min(width, checks.integer("right", right)))
    return F.pad(x, (right, -right, down, -down), value=_value("background", background))
