"""The exercises of lesson 09: filters, fields, and which pixels decided."""

import torch
from torch import Tensor, nn

from vgglab import seeing
from vgglab.course.exercises.judge import (
    Answer,
    Judge,
    answered,
    equals,
    not_so_many,
    plain,
    same,
    shown,
    steadier,
    value,
)


def recall_and_precision(answer: Answer, matrix: Tensor) -> str | None:
    """Judge (recall, precision), each of ten numbers, of a confusion matrix with the truth in its rows."""
    complaint = not_so_many(answered(answer), 2)
    if complaint:
        return complaint
    hits = matrix.diagonal()
    right = {"recall": hits / matrix.sum(1).clip(1), "precision": hits / matrix.sum(0).clip(1)}
    for (name, expected), found in zip(right.items(), answer, strict=True):
        complaint = equals(expected)(answered(found))
        if complaint:
            other = "columns" if name == "recall" else "rows"
            return f"{name}: {complaint.replace('it ', 'your tensor ', 1)}; is the sum over {other} by mistake?"
    return None


def falls(answer: Answer, model: nn.Module, x: Tensor, labels: Tensor) -> str | None:
    """Judge the mean falls of the score: with the 40 pixels blackened that rank highest, and with 40 at random."""
    complaint = not_so_many(answered(answer), 2)
    if complaint:
        return complaint
    ranked, at_random = plain(answer)
    places = seeing.gradient_times_input(model, x, labels).flatten(1).topk(40).indices
    covered = x.flatten(1).scatter(1, places, seeing.BLACK).view_as(x)
    with torch.no_grad():
        before, after = (model(view).gather(1, labels[:, None]).mean().item() for view in (x, covered))
    if not same(ranked, before - after):
        return f"the 40 highest pixels lower the mean score by another number than {shown(ranked)}: before minus after"
    if not isinstance(at_random, float) or at_random >= ranked:
        return f"40 random pixels of the garment should matter less than those, not {shown(at_random)}"
    return None


EXERCISES: dict[str, Judge] = {
    "SEE-1": value(
        "bottom",
        "where is it bright above and black below?",
        [
            ("top", "at the top the black is above: the answer is negative, and ReLU takes it away"),
            ("left", "the columns of this filter are all alike"),
        ],
    ),
    "SEE-2": value(
        25,
        "the image begins at row and column 0",
        [(64, "64 is the whole crop; a part of it lies outside"), (5, "5 is one side of what it sees")],
    ),
    "SEE-3": recall_and_precision,
    "SEE-4": falls,
    "SEE-5": steadier(2, "the network that saw no moves"),
}
