"""The exercises of lesson 06: score maps, crops, and the size to test at."""

from collections.abc import Iterator, Mapping

import torch
from torch import nn

from vgglab.course.exercises.judge import Answer, Case, Judge, answered, equals, function, plain, random, shown, value


def score_maps() -> Iterator[Case]:
    """Maps of class scores: of one position, then of several."""
    for shape in ((1, 2, 1, 1), (1, 2, 1, 2), (1, 3, 2, 2), (4, 10, 3, 5)):
        scores = 3 * random(*shape)
        yield f"scores of shape {shape}", (scores,), equals(scores.softmax(1).mean((2, 3)))


def pictures_to_crop() -> Iterator[Case]:
    """Pictures and a network for the crops; the pictures are larger than these by even numbers of pixels."""
    from torchvision.transforms.functional import ten_crop

    for shape, crop in (((1, 1, 3, 3), 3), ((1, 1, 3, 5), 3), ((1, 1, 5, 5), 3), ((2, 3, 8, 10), 6)):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(shape[1] * crop**2, 4)).double().eval().requires_grad_(False)
        x = random(*shape)
        mean = torch.stack([model(part).softmax(1) for part in ten_crop(x, [crop, crop])]).mean(0)
        yield f"a picture of shape {shape} and crops of {crop}", (model, x, crop), equals(mean)


def near_the_best(answer: Answer, found: Mapping[int, float]) -> str | None:
    """Judge the sizes whose accuracy, of 400 pictures, lies within one standard error of the best."""
    answer = answered(answer)
    if set(found) != set(range(64, 161, 16)):
        return "the accuracies must be those of the seven sizes 64, 80, ..., 160"
    best = max(found.values())
    right = [side for side in sorted(found) if found[side] >= best - (best * (1 - best) / 400) ** 0.5]
    if not isinstance(plain(answer), tuple):
        return f"it takes a list of sizes, not {shown(answer)}"
    missing, surplus = sorted(set(right) - set(answer)), sorted(set(answer) - set(right))
    if missing:
        return f"{missing[0]} is within one standard error of the best too: sqrt(p (1 - p) / 400) for the best p"
    return f"{surplus[0]} is more than one standard error below the best" if surplus else None


EXERCISES: dict[str, Judge] = {
    "TE-1": value(
        (9, 14),
        "five halvings, then a window of 7 that moves one position at a time",
        [
            ((14, 9), "rows come first"),
            ((15, 20), "those are the positions before the window of 7"),
            ((2, 2), "the window of 7 moves by one position"),
        ],
    ),
    "TE-2": value(
        11.24,
        "36 times one crop, and dense evaluation without its mirror image",
        [
            (5.6, "that dense count has the mirror image in it, the windows have not"),
            (36, "dense evaluation at 384 costs more than one crop"),
        ],
    ),
    "TE-3": function(
        pictures_to_crop, "four corners and the middle, each also mirrored, and the mean of ten softmaxes"
    ),
    "TE-4": function(
        score_maps, "softmax over the classes (dimension 1) at each position, then the mean over positions"
    ),
    "TE-5": near_the_best,
}
