"""The exercises of lesson 02: what kernels cost, and two layers as one."""

from collections.abc import Iterator

from torch import nn

from vgglab.course.exercises.judge import Answer, Case, Judge, equals, function, random, value


def pairs_to_collapse() -> Iterator[Case]:
    """Pairs of convolutions, from one channel and one weight to several."""
    for c_in, c_mid, c_out, k1, k2, bias in (
        (1, 1, 1, 1, 1, False), (1, 1, 1, 1, 1, True), (1, 1, 1, 3, 3, False), (1, 2, 1, 3, 3, True),
        (2, 1, 3, 3, 1, True), (2, 5, 3, 3, 5, True),
    ):  # fmt: skip
        first, second = convolution(c_in, c_mid, k1, bias), convolution(c_mid, c_out, k2, bias)
        text = (
            f"{k1}x{k1} from {c_in} to {c_mid} channels, then {k2}x{k2} to {c_out}, {'with' if bias else 'no'} biases"
        )
        yield text, (first, second), collapses(first, second)


def convolution(c_in: int, c_out: int, kernel: int, bias: bool) -> nn.Conv2d:
    """Return a convolution in double precision with random weights, its biases zero where bias is False."""
    layer = nn.Conv2d(c_in, c_out, kernel)
    layer.weight = nn.Parameter(random(c_out, c_in, kernel, kernel, seed=c_in))
    layer.bias = nn.Parameter(bias * random(c_out, seed=c_out))
    return layer


def collapses(first: nn.Conv2d, second: nn.Conv2d) -> Judge:
    """Judge a convolution by whether it answers as first and second one after the other."""
    x = random(2, first.in_channels, 12, 12)

    def judge(result: Answer) -> str | None:
        if not isinstance(result, nn.Conv2d):
            return f"it returns {type(result).__name__} instead of one nn.Conv2d"
        return equals(second(first(x)).detach())(result.double()(x))

    return judge


EXERCISES = {
    "SK-1": value(
        (5, 100 * (1 - 5 * 9 / 11**2)),
        "each 3x3 adds 2 to a field of 1; compare 9 weights a layer with 121",
        [((5, 37), "37 % is what is left"), ((5, 0.63), "per cent, please")],
    ),
    "SK-2": value(
        (34_944, 105_415_200),
        "the output side is (227 - 11) / 4 + 1",
        [
            ((34_848, 105_415_200), "the parameters lack the 96 biases"),
            ((34_944, 105_705_600), "biases are not multiplied: the multiply-adds count the weights alone"),
        ],
    ),
    "SK-3": value(
        9 / 16,
        "9a + 9 = 25a",
        [(9 / 25, "the pair's first layer has weights too: 9a of them"), (16 / 9, "that is 1/a")],
    ),
    "SK-4": value(
        (1 - 6 / 9, (3, 3)),
        "3C² + 3C² against 9C²; a field is (height, width)",
        [((2 / 3, (3, 3)), "2/3 is the share that is left")],
    ),
    "SK-5": function(pairs_to_collapse, "what does the pair answer to zeros, and what to a single 1?"),
    "SK-6": value(
        (398, 210),
        "seven layers of 9C² weights, or one of 225C²; round down",
        [((398, 211), "one C more for the single layer costs over ten million weights")],
    ),
}
