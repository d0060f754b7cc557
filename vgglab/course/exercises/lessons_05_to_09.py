"""The exercises of lessons 05 to 09: what is found by training networks and looking into them."""

import torch
import torch.nn.functional as F
from torch import nn

from vgglab import cost, inference, seeing
from vgglab.course.exercises.judge import (
    answered,
    as_tensor,
    equals,
    function,
    not_so_many,
    plain,
    random,
    same,
    shown,
    value,
)  # fmt: skip
from vgglab.course.experiments import records
from vgglab.data import Images, batches
from vgglab.models import googlenet, vgg
from vgglab.receptive_field import of_model, output_size


def images_to_count():
    """Images and batch sizes, whose last batch is the smaller one; the first images are named rightly, the rest not."""
    for count, batch_size, right in ((1, 1, 1), (2, 2, 1), (3, 2, 2), (5, 3, 4), (7, 4, 5)):
        pixels = torch.randint(256, (count, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(32 * 32, 10))
        (x, _), *_ = batches(Images(pixels, torch.zeros(count, dtype=torch.int64)), count, size=32)
        names = model.eval()(x).argmax(1)
        labels = torch.where(torch.arange(count) < right, names, (names + 1) % 10)
        text = (
            f"{count} images in batches of {batch_size}, {right} of them named rightly by a network in training mode,"
        )
        yield text, (model.train(), Images(pixels, labels), batch_size), equals(right / count)


TRAINING = {
    "TR-1": value(
        lambda: 10 * -(-60_000 // 128),
        "how many batches has one epoch? Then ten of them",
        [(4680, "the last, smaller batch of each epoch counts too"), (469, "that is one epoch")],
    ),
    "TR-2": function(images_to_count, "two sums over all batches, one division at the end, and the model in eval mode"),
    "TR-3": value(
        lambda: 0.1 * (1 + 2 + 3),
        "the gradients that step 2 finds are 1 from step 1 and 1 from its own",
        [
            (0.3, "that is with zero_grad: each step sees its own gradient alone"),
            (0.7, "the sum grows, it does not double"),
        ],
    ),
    "TR-4": value(
        lambda: "A",
        "one epoch for each configuration, the shallowest first, and the mean of the last losses",
        [("B", "does A learn? Look at the last losses"), ("E", "that is the deepest; which is the first?")],
    ),
}


def score_maps():
    """Maps of class scores: of one position, then of several."""
    for shape in ((1, 2, 1, 1), (1, 2, 1, 2), (1, 3, 2, 2), (4, 10, 3, 5)):
        scores = 3 * random(*shape)
        yield f"scores of shape {shape}", (scores,), equals(scores.softmax(1).mean((2, 3)))


def pictures_to_crop():
    """Pictures and a network for the crops; the pictures are larger than these by even numbers of pixels."""
    for shape, crop in (((1, 1, 3, 3), 3), ((1, 1, 3, 5), 3), ((1, 1, 5, 5), 3), ((2, 3, 8, 10), 6)):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(shape[1] * crop**2, 4)).double().eval()
        x = random(*shape)
        yield f"a picture of shape {shape} and crops of {crop}", (model, x, crop), equals(ten_crops(model, x, crop))


@torch.no_grad()
def ten_crops(model, x, crop):
    bottom, right = x.shape[2] - crop, x.shape[3] - crop
    places = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
    crops = [x[:, :, top : top + crop, left : left + crop] for top, left in places]
    return torch.stack([model(view).softmax(1) for part in crops for view in (part, part.flip(3))]).mean(0)


def dense_against_windows():
    with torch.device("meta"):
        one, dense = vgg("D"), inference.to_dense(vgg("D"))
    return 36 * cost.ledger(one, (3, 224, 224)).macs / cost.ledger(dense, (3, 384, 384)).macs


def near_the_best(answer, found):
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


TESTING = {
    "TE-1": value(
        lambda: (480 // 32 - 6, 640 // 32 - 6),
        "five halvings, then a window of 7 that moves one position at a time",
        [
            ((14, 9), "rows come first"),
            ((15, 20), "those are the positions before the window of 7"),
            ((2, 2), "the window of 7 moves by one position"),
        ],
    ),
    "TE-2": value(
        dense_against_windows,
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


def convolutions_to_group():
    """Inputs and weights of grouped convolutions, from one group to as many as channels."""
    for c_in, c_out, kernel, groups in (
        (1, 1, 1, 1),
        (2, 2, 1, 2),
        (2, 4, 1, 2),
        (4, 2, 3, 2),
        (3, 3, 3, 3),
        (12, 8, 3, 4),
    ):
        x, weight = random(1, c_in, 5, 5), random(c_out, c_in // groups, kernel, kernel)
        text = f"{c_in} to {c_out} channels in {groups} groups"
        yield text, (x, weight, groups), equals(F.conv2d(x, weight, groups=groups))


def sides_of_alexnet(side):
    found = [output_size(side, 11, stride=4)]
    while len(found) < 4:
        found.append(output_size(found[-1], 3, stride=2))
    return tuple(found)


def module_5a():
    with torch.device("meta"):
        model = googlenet(auxiliary=False)
    return sum(p.numel() for p in model.features.get_submodule("5a").parameters())


def steadier(count, than):
    """Judge shares of answers that change: count numbers, in their sum below the shares called than."""

    def judge(answer, *before):
        answer = answered(answer)
        complaint = not_so_many(answer, count)
        if complaint:
            return complaint
        shares = as_tensor(plain(answer))
        if shares is None or not ((shares >= 0) & (shares <= 1)).all():
            return f"shares lie between 0 and 1: {shown(answer)}"
        limit = float(as_tensor(before).sum())
        if shares.sum() >= limit:
            return (
                f"they add up to {shares.sum():.2f}, no less than the {limit:.2f} of {than}; is augment in the recipe?"
            )
        return None

    return judge


NEIGHBOURS = {
    "NB-1": value(
        lambda: sides_of_alexnet(224),
        "(n - 11) / 4 + 1, then three times (n - 3) / 2 + 1, rounded down each time",
        [
            ((55, 27, 13, 6), "those are the sides for 227"),
            ((56, 28, 13, 6), "that needs padding; this layer has none"),
        ],
    ),
    "NB-2": function(convolutions_to_group, "each group has its share of the input channels and of the rows of weight"),
    "NB-3": value(
        module_5a,
        "six convolutions; the 3x3 and the 5x5 see what their 1x1 gives them",
        [
            (1_042_432, "the biases are missing"),
            (
                832 * (256 + 128) + 9 * 832 * 320 + 25 * 832 * 128 + 256 + 320 + 128 + 128,
                "the 1x1 reductions come before the 3x3 and 5x5",
            ),
        ],
    ),
    "NB-4": value(
        lambda: 2 * 9 * 256 * 256 / (256 * 64 + 9 * 64 * 64 + 64 * 256),
        "weights are kernel · kernel · in · out; a bottleneck has three layers",
        [
            (8.5, "two 3x3, not one"),
            (1 / 16.9, "that is the bottleneck over the two 3x3; how many times more have they?"),
        ],
    ),
    "NB-5": steadier(4, "the flattening network that saw no moves"),
}


def significant(answer, findings):
    """Judge the labels of the findings that stay beside zero by Bonferroni's rule."""
    answer = answered(answer) if answer != [] else answer
    if not isinstance(answer, (list, tuple, set)) or not set(answer) <= set(findings):
        return f"it takes a list of labels of findings, not {shown(answer)}"
    right = [label for label, (record, a, b) in findings.items() if clear(record.compare(a, b), len(findings))]
    missing, surplus = [x for x in right if x not in answer], [x for x in answer if x not in right]
    if missing:
        return f"{missing[0]} stays beside zero too; widen its interval by the ratio of the quantiles"
    return f"{surplus[0]}: its widened interval holds zero" if surplus else None


def clear(found, comparisons):
    degrees = len(found.seeds) - 1
    widen = records.t_quantile(degrees, 1 - 0.05 / comparisons) / records.t_quantile(degrees)
    return abs(found.difference) > widen * (found.high - found.low) / 2


def compared(answer):
    """Judge a Comparison of three seeds."""
    answer = answered(answer)
    if not isinstance(answer, records.Comparison):
        return f"it takes the Comparison that compare returns, not {shown(answer)}"
    if len(answer.seeds) < 3:
        return f"three seeds, please, not {len(answer.seeds)}: seeds=3 in the experiment"
    return None


EXPERIMENTS = {
    "EX-1": value(
        lambda: tuple(round(end, 2) for end in records.t_interval([0.4, 0.1, 0.5, 0.3, 0.2])),
        "mean ± t · spread / √5, with t = 2.776",
        [
            ((0.16, 0.44), "1.96 is for many seeds; five need t = 2.776"),
            ((-0.14, 0.74), "divide the spread by √5"),
        ],
    ),
    "EX-2": value(
        lambda: next(n for n in range(2, 100) if records.t_quantile(n - 1) / n**0.5 * 0.4 < 0.3),
        "the smallest n with t / √n · 0.4 below 0.3, and t itself depends on n",
        [
            (7, "1.96 in place of t gives that; with few seeds t is larger"),
            (9, "with nine the interval still reaches 0.31"),
        ],
    ),
    "EX-3": significant,
    "EX-4": compared,
}


def recall_and_precision(answer, matrix):
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


def falls(answer, model, x, labels):
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


def pixels_in_the_image():
    """How many pixels of the image unit (0, 0) of block 2 of A sees."""
    with torch.device("meta"):
        model = vgg("A", 1, 10, image_size=32, width=1 / 8, batch_norm=True)
    region = of_model(model, (1, 32, 32))["features.6"].region(0, 0)
    return (region.bottom + 1) * (region.right + 1)


SEEING = {
    "SEE-1": value(
        lambda: "bottom",
        "where is it bright above and black below?",
        [
            ("top", "at the top the black is above: the answer is negative, and ReLU takes it away"),
            ("left", "the columns of this filter are all alike"),
        ],
    ),
    "SEE-2": value(
        pixels_in_the_image,
        "the image begins at row and column 0",
        [(64, "64 is the whole crop; a part of it lies outside"), (5, "5 is one side of what it sees")],
    ),
    "SEE-3": recall_and_precision,
    "SEE-4": falls,
    "SEE-5": steadier(2, "the network that saw no moves"),
}
