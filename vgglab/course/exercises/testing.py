"""The exercises of lesson 06: score maps, crops, and the size to test at."""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from vgglab.cost import ledger
from vgglab.course.exercises.judge import Complaint, Function, Judge, Measured, Value, Values, random
from vgglab.course.exercises.reading import Answer, number, shares, unordered
from vgglab.inference import multi_crop_scores, to_dense
from vgglab.models import vgg
from vgglab.receptive_field import output_size

SIDES, PHOTOS = range(64, 161, 16), 400


@cache
def multiply_adds(side: int) -> int:
    """Those of D over one picture, densely."""
    with torch.device("meta"):
        return ledger(to_dense(vgg("D")), (3, side, side)).macs


def ten_crops(model: nn.Module, x: Tensor, crop: int) -> Tensor:
    """The mean probabilities over the corners and the middle, each mirrored too."""
    corners, middle = (multi_crop_scores(model, x, crop, grid=grid) for grid in (2, 1))
    return (4 * corners + middle) / 5


def pictures_to_crop() -> Iterator[tuple[Any, ...]]:
    """Networks, pictures that are larger than a crop by even numbers of pixels, and its side."""
    for shape, crop in (((1, 1, 3, 3), 3), ((1, 1, 3, 5), 3), ((1, 1, 5, 5), 3), ((2, 3, 8, 10), 6)):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(shape[1] * crop**2, 4)).float().eval().requires_grad_(False)
        yield model, random(*shape), crop


def near_the_best(answer: Answer, found: Mapping[Any, Any], by_scale: Mapping[str, Mapping[int, float]]) -> Complaint:
    """Judge the sizes whose accuracy, of 400 photos, lies within one standard error of the best.

    found maps sizes to accuracies; by_scale has those that the lesson measured, of the jittered network last.
    """
    if {number(side).value for side in found} != set(SIDES):
        return "found needs the accuracy of each of the seven sizes 64, 80, ..., 160"
    accuracies = dict(zip(map(int, found), shares(list(found.values()), list(map(str, found))), strict=True))
    rounded = min(0.005, *(one.unit / 2 for one in accuracies.values()))
    for side, (share, *_) in accuracies.items():
        if not share or abs(share - round(share * PHOTOS) / PHOTOS) > rounded + 1e-6:
            return f"found[{side}], {share:g}, is no accuracy on {PHOTOS} photos"
    *others, jittered = by_scale
    strange = {
        name: [side for side in SIDES if side in line and accuracies[side].off(line[side]) > 0.006]
        for name, line in by_scale.items()
    }
    if strange[jittered]:
        fixed = next((f"found is that of {name}" for name in others if not strange[name]), "")
        return fixed or f"found[{strange[jittered][0]}] is not what the lesson measured of {jittered}"
    sizes = {number(one).value for one in unordered(answer)}
    best = max(one.value for one in accuracies.values())
    bound = best - (best * (1 - best) / PHOTOS) ** 0.5
    for side, (share, *_) in sorted(accuracies.items()):
        if share - rounded > bound and side not in sizes:
            return f"{side} is near enough, too: what is the standard error of the best?"
        if share + rounded < bound and side in sizes:
            return f"{side} is more than one standard error below the best"
    return None if sizes <= set(SIDES) else f"{max(sizes - set(SIDES)):g} is none of the seven sizes"


EXERCISES: dict[str, Judge] = {
    "TE-1": Values(
        "how large are the maps that reach the first FC layer, and how large is its window?",
        rows=Value(output_size(480 // 32, 7), {15: "the window of 7 is missing", 2: "the window moves by one"}),
        columns=Value(output_size(640 // 32, 7), {20: "the window of 7 is missing", 2: "the window moves by one"}),
    ),
    "TE-2": Values(
        "what does one crop of 224 cost, and what dense evaluation at 384 without its mirror image?",
        times=Value(
            lambda: 36 * multiply_adds(224) / multiply_adds(384),
            {
                36: "dense evaluation at 384 costs more than one crop",
                5.62: "that dense count has the mirror image in it, the windows have not",
                22.48: "those are the windows with their mirror images, and dense without",
                0.089: "that is the other way round",
                12.25: "those are the pixels: the FC layers cost, too",
            },
            step=0.1,
        ),
    ),
    "TE-3": Function(
        "crops_of_corners(model, x, crop)",
        "which ten crops are there, and what is averaged?",
        ten_crops,
        pictures_to_crop,
    ),
    "TE-4": Function(
        "vote(scores)",
        "over which dimension is softmax, and over which is the mean?",
        lambda scores: scores.softmax(1).mean((2, 3)),
        lambda: [(3 * random(*shape),) for shape in ((1, 2, 1, 1), (1, 2, 1, 2), (1, 3, 2, 2), (4, 10, 3, 5))],
    ),
    "TE-5": Measured('a list of sizes: check("TE-5", answer, found, by_scale)', near_the_best, Mapping, Mapping),
}
