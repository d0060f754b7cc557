"""The exercises of lessons 00 to 04: what is said about single layers and whole architectures."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from vgglab import cost
from vgglab.course.exercises.judge import equals, function, random, value
from vgglab.models import VGG_CONFIGS, vgg, vgg_block
from vgglab.receptive_field import of_model, output_size, stack


def field(layers, **options):
    return stack([3] * layers, **options).size[0]


START = {
    "S-1": value(
        lambda: math.log(100),
        "each class has the probability 1/100, and the loss is minus its logarithm",
        [(0.01, "0.01 is the probability; what is the loss of it?"), (2.0, "that is the logarithm to base 10")],
    )
}


def layers_until(pixels):
    """The number of 3x3 convolutions after a 7x7 and a pooling of stride 2 each, until a unit sees pixels."""
    return next(m for m in range(100) if stack([7, 3] + [3] * m, [2, 2] + [1] * m).size[0] >= pixels)


def first_to_see(pixels):
    """The first layer of D of which a unit sees pixels, as the paper numbers it, and the pixels between its units."""
    names = []
    for block, convolutions in enumerate(VGG_CONFIGS["D"], 1):
        names += [f"conv{block}_{i}" for i in range(1, len(convolutions) + 1)] + [f"pool{block}"]
    with torch.device("meta"):
        model = vgg("D").features
    fields = of_model(model, (3, 224, 224))
    paths = [path for path, layer in model.named_children() if isinstance(layer, (nn.Conv2d, nn.MaxPool2d))]
    name, path = next((n, p) for n, p in zip(names, paths, strict=True) if fields[p].size[0] >= pixels)
    return name, fields[path].stride[0]


def kernels_to_split():
    """The 25 kernels with a single 1, then a random one; each is to come apart into two 3x3 with nine channels."""
    for row in range(5):
        for col in range(5):
            kernel = torch.zeros(5, 5, dtype=torch.float64)
            kernel[row, col] = 1
            yield f"the kernel with a single 1 at ({row}, {col})", (kernel,), splits(kernel)
    yield "a random kernel", (random(5, 5),), splits(random(5, 5))


def splits(kernel):
    image = random(1, 1, 9, 9, seed=1)

    def judge(result):
        if not isinstance(result, tuple) or len(result) != 2 or not all(map(torch.is_tensor, result)):
            return "it does not return the pair first, second of tensors"
        first, second = result
        for name, weight, shape in (("first", first, (9, 1, 3, 3)), ("second", second, (1, 9, 3, 3))):
            if weight.shape != shape:
                return f"{name} has the shape {tuple(weight.shape)} instead of {shape}"
        found = F.conv2d(F.conv2d(image, first.double()), second.double())
        complaint = equals(F.conv2d(image, kernel[None, None]))(found)
        return complaint and complaint.replace("it gives", "the two give")

    return judge


RECEPTIVE_FIELDS = {
    "RF-1": value(
        lambda: field(5),
        "every layer adds one pixel on each side",
        [
            (15, "15 would be five windows side by side, but they overlap"),
            (243, "243 would be five layers with stride 3"),
            (10, "10 is what the five layers add; to what?"),
        ],
    ),
    "RF-2": value(
        lambda: stack(
            [size for n in (2, 2, 4, 4, 4) for size in [3] * n + [2]],
            [step for n in (2, 2, 4, 4, 4) for step in [1] * n + [2]],
        ).size[0],
        "from the top a pooling doubles r, and then each convolution of its block adds 2",
        [
            (212, "212 is VGG-16's; E has four convolutions in its last three blocks"),
            (124, "that is what comes from the top with the blocks in the wrong order: the last block comes first"),
        ],
    ),
    "RF-3": value(
        lambda: (width := field(4, dilations=[1, 2, 4, 8]), (width - 1) // 2),
        "a layer with dilation d adds 2d, one without adds 2",
        [((31, 4), "four layers without dilation see 9 only"), ((30, 15), "start from a field of 1")],
    ),
    "RF-4": value(
        lambda: first_to_see(56),
        "go through fields in order; the jump is the stride of the field, not of the layer",
        [(("conv4_1", 1), "1 is the layer's own stride; three poolings lie before it")],
    ),
    "RF-5": value(
        lambda: layers_until(100),
        "7, then 11 after the pooling; then each 3x3 adds 8",
        [
            (45, "each adds more than 2 here: the two strides before it make the jump 4"),
            (11, "11 layers see 99 pixels, one too few"),
        ],
    ),
    "RF-6": function(kernels_to_split, "compare the places that a channel of first copies with those second can reach"),
}


def pairs_to_collapse():
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


def convolution(c_in, c_out, kernel, bias):
    layer = nn.Conv2d(c_in, c_out, kernel).double()
    with torch.no_grad():
        layer.weight.copy_(random(*layer.weight.shape, seed=c_in))
        layer.bias.copy_(bias * random(c_out, seed=c_out))
    return layer


def collapses(first, second):
    x = random(2, first.in_channels, 12, 12)

    def judge(result):
        if not isinstance(result, nn.Conv2d):
            return f"it returns {type(result).__name__} instead of one nn.Conv2d"
        return equals(second(first(x)).detach())(result.double()(x))

    return judge


def bound_of_weights(layers, kernel, weights=10_000_000):
    return math.isqrt(weights // (layers * kernel**2))


SMALL_KERNELS = {
    "SK-1": value(
        lambda: (5, 100 * (1 - 5 * 9 / 11**2)),
        "each 3x3 adds 2 to a field of 1; compare 9 weights a layer with 121",
        [((5, 37), "37 % is what is left"), ((5, 0.63), "per cent, please")],
    ),
    "SK-2": value(
        lambda: tuple(cost.conv(11, 3, 96, output_size(227, 11, stride=4))),
        "the output side is (227 - 11) / 4 + 1",
        [
            ((34_848, 105_415_200), "the parameters lack the 96 biases"),
            ((34_944, 105_705_600), "biases are not multiplied: the multiply-adds count the weights alone"),
        ],
    ),
    "SK-3": value(
        lambda: 9 / 16,
        "9a + 9 = 25a",
        [(9 / 25, "the pair's first layer has weights too: 9a of them"), (16 / 9, "that is 1/a")],
    ),
    "SK-4": value(
        lambda: (1 - 6 / 9, stack([(3, 1), (1, 3)]).size),
        "3C² + 3C² against 9C²; a field is (height, width)",
        [((2 / 3, (3, 3)), "2/3 is the share that is left")],
    ),
    "SK-5": function(pairs_to_collapse, "what does the pair answer to zeros, and what to a single 1?"),
    "SK-6": value(
        lambda: (bound_of_weights(7, 3), bound_of_weights(1, 15)),
        "seven layers of 9C² weights, or one of 225C²; round down",
        [((398, 211), "one C more for the single layer costs over ten million weights")],
    ),
}


def maps_to_normalize():
    """Maps from one position to several channels, with windows of 1, 3 and 5."""
    for shape, n in (((1, 1, 1, 1), 1), ((1, 1, 1, 1), 3), ((1, 1, 2, 2), 3), ((1, 2, 3, 3), 3), ((2, 3, 5, 6), 5)):
        x, alpha, beta = random(*shape), 0.5, 0.75
        yield f"x of shape {shape} and n = {n}", (x, n, alpha, beta), equals(normalized(x, n, alpha, beta))


def normalized(x, n, alpha, beta):
    """The formula, position by position."""
    result = torch.empty_like(x)
    for row in range(x.shape[2]):
        for col in range(x.shape[3]):
            window = x[:, :, max(0, row - n // 2) : row + n // 2 + 1, max(0, col - n // 2) : col + n // 2 + 1]
            result[..., row, col] = x[..., row, col] / (1 + alpha / n**2 * (window**2).sum((2, 3))) ** beta
    return result


def activations_of_convolutions():
    with torch.device("meta"):
        rows = cost.ledger(vgg("A"), (3, 224, 224)).rows
    return sum(row.activations for row in rows if row.kind == "Conv2d")


RESPONSE_NORM = {
    "LRN-1": value(
        lambda: 30 / (29**2 + 30**2 + 31**2 + 32**2),
        "its own square and those of the channels within two of it, at its position",
        [
            (30 / (28**2 + 29**2 + 30**2 + 31**2 + 32**2), "28 stands at another position"),
            (30 / (29**2 + 31**2 + 32**2), "the number itself is in its window too"),
        ],
    ),
    "LRN-2": value(
        lambda: (1e-4 / 5, 1.0),
        "Caffe multiplies the sum by alpha / local_size, and has its own default for k",
        [
            ((1e-4, 1.0), "the paper's α is not divided by the window, Caffe's is"),
            ((2e-5, 2.0), "k = 2 is the paper's"),
        ],
    ),
    "LRN-3": value(
        lambda: round(math.sqrt(2 / (1e-4 * (2 * 0.75 - 1)))),
        "try all responses from 1 to 1000, or set the derivative to zero",
        [(1000, "the output falls again before that"), (141, "the derivative has 2β - 1 in it, not 2β")],
    ),
    "LRN-4": value(
        activations_of_convolutions,
        "one number for each that a convolution gives, and A has eight convolutions",
        [
            (3_211_264, "that is one LRN after the first convolution; here one follows each"),
            (7_426_048 - 3_211_264, "the LRN after the first convolution counts too"),
        ],
    ),
    "LRN-5": function(maps_to_normalize, "the sum runs over the channel's own n x n window and is divided by n²"),
}


def weights_to_turn():
    """Weights in TensorFlow's layout: of convolutions, from one number to unequal sides, then of an FC layer."""
    for shape in ((1, 1, 1, 1), (1, 1, 1, 2), (1, 1, 2, 3), (2, 2, 1, 1), (3, 3, 2, 4), (1, 3, 2, 2)):
        weight = random(*shape)
        yield f"a convolution's weights of shape {shape}", (weight,), equals(torch.einsum("hwio->oihw", weight))
    for shape in ((1, 2), (3, 5)):
        yield f"an FC matrix of shape {shape}", (random(*shape),), equals(torch.einsum("io->oi", random(*shape)))


def parameters(build):
    with torch.device("meta"):
        return sum(p.numel() for p in build().parameters())


def kept_by_d(images):
    """The gigabytes of the activations that CS231n's table counts: input, convolutions, pooling and FC layers."""
    with torch.device("meta"):
        rows = cost.ledger(vgg("D"), (3, 224, 224)).rows
    activations = 3 * 224**2 + sum(row.activations for row in rows if row.kind in ("Conv2d", "MaxPool2d", "Linear"))
    return images * activations * 4 / 1e9


def widest(limit):
    """The largest n so that A at n / 64 of its width, for ten classes of 32 x 32 grey pixels, has limit parameters."""
    sizes = (parameters(lambda n=n: vgg("A", 1, 10, image_size=32, width=n / 64)) for n in range(1, 65))
    return next(n for n, size in enumerate(sizes) if size > limit)


VGG_BLOCKS = {
    "VB-1": value(
        lambda: parameters(lambda: vgg_block(3, 128, 256)),
        "from 128 to 256 channels, then twice from 256 to 256, and one bias for each output channel",
        [
            (1_474_560, "the biases are missing: one for each of the 256 output channels"),
            (3 * (9 * 256 * 256 + 256), "the first of the three has 128 input channels"),
        ],
    ),
    "VB-2": value(
        lambda: parameters(lambda: vgg("E")) - parameters(lambda: vgg("D")),
        "one layer of 256 channels and two of 512, each with as many in as out",
        [
            (3 * (9 * 512**2 + 512), "one of the three stands in block 3, which has 256 channels"),
            (9 * 256**2 + 2 * 9 * 512**2, "the biases are missing"),
        ],
    ),
    "VB-3": value(
        lambda: parameters(lambda: vgg("D").features) + 512 * 1000 + 1000,
        "the convolutions stay as they are; one FC layer from 512 to 1000 follows",
        [
            (14_714_688, "that is the convolutions alone"),
            (39_803_688, "averaged, 512 numbers arrive, not 25,088"),
        ],
    ),
    "VB-4": value(
        lambda: (kept_by_d(64), 7),
        "64 images, 4 bytes a number; the parameters are counted once",
        [((0.061, 7), "that is one image"), ((7.8, 7), "4 bytes a number, forward pass alone")],
    ),
    "VB-5": function(weights_to_turn, "the output channels come first, then the input channels, then height and width"),
    "VB-6": value(
        lambda: widest(1_000_000),
        "count the parameters for n / 64, n = 1, 2, ..., and keep the last that fits",
        [(12 / 64, "the number of 64ths, please"), (13, "n = 13 has more than a million")],
    ),
}
