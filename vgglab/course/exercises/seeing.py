"""The exercises of lesson 09: filters, fields, and which pixels decided."""

import torch
from torch import Tensor, nn

from vgglab import seeing
from vgglab.course.exercises.judge import Complaint, Judge, Measured, Value, Values
from vgglab.course.exercises.neighbours import moved
from vgglab.course.exercises.reading import Answer, number, parts, shares, shown


def recall_and_precision(answer: Answer, matrix: Tensor) -> Complaint:
    """Judge (recall, precision), each a share for every class, of a confusion matrix with the truth in its rows."""
    hits, classes = matrix.diagonal(), [str(number) for number in range(len(matrix))]
    right = {"recall": hits / matrix.sum(1).clip(1), "precision": hits / matrix.sum(0).clip(1)}
    for (name, expected), given in zip(right.items(), parts(answer, list(right), ""), strict=True):
        for place, (one, truth) in enumerate(zip(shares(given, classes), expected.tolist(), strict=True)):
            if abs(one.value - truth) > 0.0051:
                other = "columns" if name == "recall" else "rows"
                return f"{name} of class {place} is not {one.value:.3g}; is the sum over {other} by mistake?"
    return None


def falls(answer: Answer, model: nn.Module, x: Tensor, labels: Tensor) -> Complaint:
    """Judge the mean falls of the score: with the 40 pixels blackened that rank highest, and with 40 at random."""
    ranked, at_random = (number(part).value for part in parts(answer, ["ranked", "at_random"], ""))
    places = seeing.gradient_times_input(model, x, labels).flatten(1).topk(40).indices
    covered = x.flatten(1).scatter(1, places, seeing.BLACK).view_as(x)
    with torch.no_grad():
        before, after = (model(view).gather(1, labels[:, None]).mean().item() for view in (x, covered))
    if abs(ranked - (before - after)) > 0.01 * abs(before - after):
        return f"the 40 highest pixels lower the mean score by another number than {shown(ranked)}: before minus after"
    if at_random >= ranked:
        return f"40 random pixels of the garment should matter less than those, not {shown(at_random)}"
    return None


def steadier(answer: Answer, two: float, four: float) -> Complaint:
    """Judge the shares that change at two and at four pixels; those of the network that saw no moves are given."""
    pixels = ["2", "4"]
    before, found = shares([two, four], pixels), shares(answer, pixels)
    return moved([one.value for one in found], [one.value for one in before], pixels)


EXERCISES: dict[str, Judge] = {
    "SEE-1": Values(
        "where is it bright above and black below?",
        which_edge=Value(
            "bottom or lower",
            {
                "top": "at the top the black is above: the answer is negative, and ReLU takes it away",
                "left": "the columns of this filter are all alike",
                "right": "the columns of this filter are all alike",
            },
        ),
    ),
    "SEE-2": Values(
        "the image begins at row and column 0",
        pixels=Value(25, {64: "that is the whole crop; a part of it lies outside", 5: "that is one side of it"}),
    ),
    "SEE-3": Measured(
        'recall and precision: check("SEE-3", (recall, precision), matrix)', recall_and_precision, Tensor
    ),
    "SEE-4": Measured("two numbers, and the lesson's model, images and labels", falls, nn.Module, Tensor, Tensor),
    "SEE-5": Measured("two shares, and those of the network that saw no moves", steadier, object, object),
}
