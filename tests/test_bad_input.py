"""Every public function, given odd values for one argument after the other, answers rightly or names the argument."""

import contextlib
import copy
import gzip
import inspect
import io
import json
import math
import os
import re
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from functools import wraps
from numbers import Integral, Real
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats
from torch import nn
from torch.nn.functional import max_pool1d

from vgglab import cost, data, inference, lrn, machine, models, seeing, training
from vgglab import receptive_field as rf
from vgglab.course import photo
from vgglab.course.experiments import records, registry
from vgglab.course.experiments import records as v
from vgglab.data import imagefolder
from vgglab.data.fashion_mnist import FILES
from vgglab.seeing import BLACK
from vgglab.training.recipe import Recipe, find_recipe

pytestmark = pytest.mark.filterwarnings("ignore")
often = settings(
    max_examples=70, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
TENSORS = [
    torch.tensor(1), torch.tensor(0.5), torch.empty(0), torch.zeros(3), torch.arange(3), torch.tensor([-1, 10**18]),
    torch.zeros(2, 3), torch.zeros(1, 8, 8), torch.zeros(0, 1, 32, 32), torch.zeros(2, 0, 32, 32),
    torch.zeros(1, 1, 0, 9), torch.zeros(1, 3, 32, 32), torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 33, 31),
    torch.full((1, 1, 32, 32), math.nan), torch.zeros(1, 1, 32, 32, dtype=torch.float64), torch.zeros(1, 1, 1, 9, 9),
    torch.zeros(1, 1, 32, 32, dtype=torch.uint8), torch.ones(1, 1, 32, 32, dtype=torch.bool),
    torch.ones(1, 1, 32, 32, dtype=torch.complex64),
]  # fmt: skip
ODD = st.one_of(
    st.sampled_from([None, True, np.True_, "", "x", "a\0b", "~nobody/x", "absent/x", b"", b"x", [], {}, object()]),
    st.sampled_from([int, Path("nowhere"), 1j, Decimal(3), Fraction(7, 2), nn.Identity(), nn.Linear(2, 2)]),
    st.sampled_from([math.nan, math.inf, -math.inf, 1e308, -1e308, -0.5, 2.5, 10**30, -(10**30), 2**63, 10**400, 0]),
    st.sampled_from([np.float32("nan"), np.int64(-1), np.array(3), np.array([]), np.array([1, 2]), np.ones((2, 2))]),
    st.sampled_from([["a", "b"], [None], [[1]], {"a": 1}, (), (0, 0), (-1, -1), (1, 2, 3), (2, 1), (10**30, 10**30)]),
    st.sampled_from(TENSORS),
    st.builds(iter, st.just([1])),  # a new one each time, as it is used up by a look
    st.integers(max_value=10) | st.integers(min_value=2**63) | st.floats(),
    st.text("xyzä .~", max_size=5) | st.lists(st.integers(max_value=3) | st.floats(), max_size=4),
)  # fmt: skip

NET = models.vgg("A", 1, 10, 32, width=1 / 64).eval()
LAYERS = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3)).eval()
X = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
SMALL = X[..., :8, :8]
IMAGES = data.Images((X * 255)[..., :28, :28].byte(), torch.tensor([3, 7]))
SET = data.Splits("noise", IMAGES, IMAGES)
RECIPE = Recipe(width=1 / 64, size=32, epochs=1, batch_size=2, lr=1e-3)
RUN = {
    "network": "A", "seed": 0, "results": {"accuracy": 0.5}, "learned": True, "parameters": 9, "macs": 9,
    "seconds": 1.5, "machine": {"device": "d", "torch": "t", "date": "2026-01-01"},
}  # fmt: skip
RECORD = {"data": "noise", "facts": {}, "networks": {"A": {}, "B": {}}, "runs": [RUN, {**RUN, "network": "B"}]}
PHOTOGRAPH = Image.new("RGB", (40, 30))


def on_meta(build):
    """The builder, without memory for its weights."""

    @wraps(build)
    def call(**arguments):
        with torch.device("meta"):
            return build(**arguments)

    return call


@wraps(data.batches)
def batches(**arguments):
    return list(data.batches(**arguments))


@wraps(training.fit)
def fit(**arguments):
    return training.fit(**{**arguments, "model": copy.deepcopy(arguments["model"])})


CLASSES = {"in_channels": 1, "num_classes": 10}
# Each function with good arguments; a pair may also be one number, a list also an array.
CASES = [
    (rf.output_size, dict(n=28, kernel=3, stride=2, padding=1, dilation=1, ceil_mode=True)),
    (rf.stack, dict(kernels=[3, 2], strides=[1, 2], paddings=[1, 0], dilations=[1, 1])),
    (rf.ReceptiveField, dict(size=(3, 3), stride=(1, 1), padding=(1, 1))),
    (rf.stack([3]).region, dict(row=1, col=2)),
    (rf.stack([3]).center, dict(row=1, col=2)),
    (rf.of_model, dict(model=LAYERS, input_shape=(1, 8, 8))),
    (rf.reach, dict(model=LAYERS, input_shape=(1, 8, 8), layer="0", unit=(1, 2))),
    (rf.effective, dict(model=LAYERS, images=SMALL, layer="0", unit=(1, 2))),
    (cost.ledger, dict(model=LAYERS, input_shape=(1, 8, 8))),
    (cost.conv, dict(kernel=(3, 3), in_channels=3, out_channels=4, output_side=(5, 5), bias=True)),
    (cost.ledger(LAYERS, (1, 8, 8)).to_csv, dict(path="ledger.csv")),
    (lrn.local_response_norm, dict(x=SMALL, n=5, k=2.0, alpha=1e-4, beta=0.75)),
    (lrn.from_paper, dict(n=5, k=2.0, alpha=1e-4, beta=0.75)),
    (lrn.from_caffe, dict(local_size=5, alpha=1.0, beta=0.75, k=1.0)),
    (lrn.from_tensorflow, dict(depth_radius=2, bias=1.0, alpha=1.0, beta=0.5)),
    (models.vgg_block, dict(num_convs=1, in_channels=2, out_channels=3)),
    (on_meta(models.vgg), dict(config="A", image_size=32, width=0.1, dropout=0.5, batch_norm=True, **CLASSES)),
    (on_meta(models.lenet), dict(image_size=32, **CLASSES)),
    (on_meta(models.alexnet), dict(groups=2, lrn=True, image_size=67, **CLASSES)),
    (on_meta(models.zfnet), dict(wide=False, image_size=53, **CLASSES)),
    (on_meta(models.googlenet), dict(auxiliary=True, image_size=32, **CLASSES)),
    (on_meta(models.resnet), dict(depth=18, version=1.5, shortcuts=True, **CLASSES)),
    (models.initialize, dict(model=LAYERS, scheme="xavier", seed=0)),
    (models.init_from, dict(model=NET, trained=NET)),
    (models.from_torchvision, dict(config="A", state_dict={})),
    (NET.forward, dict(x=X)),
    (data.load, dict(name="fashion-mnist", root="fashion", download=False)),
    (data.drawn_garments, dict(train=10, test=10)),
    (data.Images, dict(pixels=IMAGES.pixels, labels=IMAGES.labels, classes=IMAGES.classes)),
    (data.Splits("more", IMAGES, IMAGES).hold_out, dict(count=1, seed=0)),
    (data.canvas, dict(images=IMAGES, size=30, scales=(20, 40), seed=0)),
    (batches, dict(images=IMAGES, batch_size=2, size=32, shuffle=True, device="cpu", seed=0, augment="flip", start=0,
                   share=(0, 1))),
    (data.resize, dict(pixels=IMAGES.pixels, size=32)),
    (data.normalize, dict(pixels=IMAGES.pixels)),
    (data.random_flip, dict(pixels=IMAGES.pixels)),
    (data.random_shift, dict(pixels=IMAGES.pixels, reach=2)),
    (data.derived_seed, dict(seed=1, number=2)),
    (Recipe, dict(config="A", width=0.1, size=32, batch_norm=True, dropout=0.1, initialization="xavier", epochs=1,
                  batch_size=2, lr=0.1, momentum=0.9, weight_decay=0.1, label_smoothing=0.1, schedule="constant",
                  augment=None, flip_test=True)),
    (on_meta(RECIPE.model), dict(in_channels=1, num_classes=10, seed=0)),
    (find_recipe, dict(recipe="cpu")),
    (fit, dict(model=NET, splits=SET, recipe=RECIPE, epochs=1, device="cpu", precision="float32", compile=False,
               seed=0, checkpoint=None, progress=False)),
    (training.evaluate, dict(model=NET, images=IMAGES, recipe=RECIPE, size=32, precision="float32", flip=True)),
    (training.History.load, dict(path="history.json")),
    (training.History({}, {}, []).save, dict(path="saved.json")),
    (inference.to_dense, dict(model=NET)),
    (inference.score_map, dict(model=NET, x=X)),
    (inference.dense_scores, dict(model=NET, x=X, flip=True)),
    (inference.crop_offsets, dict(length=40, crop=32, grid=5)),
    (inference.multi_crop_scores, dict(model=NET, x=X, crop=32, grid=2, flip=True)),
    (inference.multi_scale_scores, dict(model=NET, x=X, scales=[32], method="both")),
    (inference.rescale, dict(images=X, shorter_side=8)),
    (photo.predict, dict(image=PHOTOGRAPH, model="resnet18", top=1, weights="weights.pt", download=False)),
    (seeing.activations, dict(model=LAYERS, x=SMALL, layer="0")),
    (seeing.strongest, dict(model=LAYERS, x=SMALL, layer="0", channel=1, count=1)),
    (seeing.cut, dict(pictures=SMALL, region=rf.Region(0, -1, 3, 9))),
    (seeing.gradient_times_input, dict(model=LAYERS, x=SMALL, labels=[0, 1], background=BLACK)),
    (seeing.occlusion, dict(model=LAYERS, x=SMALL, labels=[0, 1], patch=3, stride=3, background=BLACK)),
    (seeing.shifted, dict(x=SMALL, down=1, right=2, background=BLACK)),
    (records.load_record, dict(name="depth", size="cpu", folder=".")),
    (registry.find_experiment, dict(name="depth", size="cpu")),
    (v.Record("r", **RECORD).compare, dict(a="A", b="B")),
    (v.t_interval, dict(values=[0.5, 1.5])),
    (v.t_quantile, dict(degrees=3.0, level=0.95)),
    (v.bootstrap_interval, dict(values=[0.5, 1.5], draws=10)),
    (imagefolder.load, dict(path="pictures", scale=(8, 9), seed=0, workers=0)),
    (machine.find_device, dict(device="cpu")),
    (machine.find_precision, dict(precision="auto", device=torch.device("cpu"))),
]  # fmt: skip
KINDS = {
    bool: (bool, np.bool_),
    int: Integral,
    float: Real,
    tuple: (tuple, list, Integral),
    list: (tuple, list, range, np.ndarray, torch.Tensor),
    rf.Region: (tuple, list),
    nn.Sequential: nn.Module,
    type(NET): nn.Module,
}
# What an argument of this name may be as well.
ALSO = {
    **dict.fromkeys(["path", "root", "folder", "weights", "checkpoint", "image"], (str, Path)),
    **{"padding": str, "device": (str, torch.device), "recipe": Recipe, "augment": str, "layer": str},
    **{"seed": type(None), "size": type(None)},
}


def title(value):
    return (
        getattr(value, "__qualname__", getattr(value, "__name__", type(value).__name__)) if callable(value) else value
    )


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    """A folder of its own to work in, with the files that the good arguments name, and no network."""
    place = tmp_path_factory.mktemp("odd")
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(place):
        patch.delenv("VGGLAB_DATA", raising=False)
        patch.setattr("vgglab.data.fashion_mnist._cache", lambda: place / "cache")
        patch.setattr("vgglab.data.fashion_mnist._download", lambda: None)
        patch.setattr(torch.hub, "download_url_to_file", lambda *args, **options: None)
        patch.setenv("HOME", str(place))
        patch.setattr(torch, "compile", lambda network, **options: network)
        training.History({}, {}, [{"test_accuracy": 0.5}]).save("history.json")
        Path("tensors.pt").write_bytes(saved({"weight": torch.zeros(3)}))
        PHOTOGRAPH.save("photo.png")
        Path("garments").mkdir()
        for name in FILES:
            Path(f"garments/{name}.gz").write_bytes(gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 1, 0])))
        Path("depth.json").write_text(json.dumps(RECORD))
        for number in range(8):
            Path(f"pictures/{number % 2}").mkdir(parents=True, exist_ok=True)
            PHOTOGRAPH.resize((9, 9)).save(f"pictures/{number % 2}/{number}.png")
        from torchvision.models import resnet18

        torch.save(resnet18(num_classes=1000).state_dict(), "weights.pt")
        resume()
        Path("run.pt.before").replace("run.pt")
        yield place


@pytest.fixture(scope="module")
def good():
    """What is in the files before they are damaged."""
    return {name: Path(name).read_bytes() for name in READERS}


def holds_nan(value):
    """Whether there is a NaN in a number, a tensor, or a nest of them."""
    if isinstance(value, dict):
        return any(map(holds_nan, value.values()))
    if isinstance(value, (list, tuple, np.ndarray)):
        return any(map(holds_nan, value))
    if isinstance(value, torch.Tensor):
        return not value.is_meta and bool(value.isnan().any())
    return isinstance(value, Real) and value != value


ORACLES = {
    rf.output_size: lambda units, n, kernel, stride, padding, dilation, ceil_mode: (
        max(n, kernel, stride, dilation) > 10**6 or isinstance(padding, str) or padding > kernel // 2
        or units == max_pool1d(torch.zeros(1, 1, n), kernel, stride, padding, dilation, bool(ceil_mode)).shape[2]
    ),
    v.t_quantile: lambda t, degrees, level: math.isclose(
        t, stats.t.ppf((1 + float(level)) / 2, float(degrees)), rel_tol=1e-3, abs_tol=1e-9
    ),
    v.t_interval: lambda ends, values: ends[0] <= np.mean(values) <= ends[1],
    data.Images: lambda images, pixels, labels, classes: len(images) == len(labels) and labels.max() < len(classes),
}  # fmt: skip


def meets(call, arguments, name, value):
    """Call with an odd value for one argument; fail unless it is named, or of the right kind and answered rightly.

    A value of the right kind may be refused by the name of another argument that it does not suit.
    """
    default = inspect.signature(call).parameters[name].default
    kinds = KINDS.get(type(arguments[name]), type(arguments[name]))
    suits = isinstance(value, kinds) and not (isinstance(value, bool) and kinds in (Integral, Real))
    suits = suits or isinstance(value, ALSO.get(name, ())) or value is None and default is None
    huge = suits and isinstance(value, Real) and value > 10**9  # PyTorch says that no memory holds it
    try:
        result = call(**{**arguments, name: value})
    except (ValueError, TypeError) as error:
        named = any(re.search(rf"\b{word}\b", str(error)) for word in (arguments if suits else [name]))
        assert named or huge or isinstance(value, (str, Path)) and str(value) in str(error)
    except (OSError, FloatingPointError) as error:
        assert suits, "neither a ValueError nor a TypeError"
        known = [name, str(value), os.path.expanduser(str(value))]
        assert any(word in str(error) for word in known)
    except (RuntimeError, OverflowError):
        assert huge
    else:
        assert suits, "it was taken"
        assert call is seeing.cut or holds_nan(value) or not holds_nan(result)
        assert ORACLES.get(call, lambda *_, **__: True)(result, **{**arguments, name: value})


@pytest.mark.parametrize(
    ("call", "arguments", "name"),
    [
        pytest.param(call, arguments, name, id=f"{title(call)}-{name}")
        for call, arguments in CASES
        for name in arguments
    ],
)
@often
@given(value=ODD)
def test_an_odd_argument_is_named_or_right(call, arguments, name, value):
    meets(call, arguments, name, value)


NUMBERS = (bool, int, float)


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        pytest.param(call, arguments, id=title(call))
        for call, arguments in CASES
        if any(type(value) in NUMBERS for value in arguments.values())
    ],
)
def test_numpys_numbers_count_as_pythons(call, arguments):
    twins = {name: np.array(value)[()] if type(value) in NUMBERS else value for name, value in arguments.items()}
    answers = []
    for given_here in (arguments, twins):
        torch.manual_seed(0)
        with contextlib.suppress(FileNotFoundError):  # Fashion-MNIST
            answers.append(re.sub("'seconds': [^,}]+", "", repr(call(**given_here))))
    assert answers[:1] == answers[1:]


JSON = st.recursive(
    st.sampled_from([None, True, -1, 10**400, math.nan, math.inf, "", "x", [], {}]),
    lambda part: st.lists(part, max_size=2) | st.dictionaries(st.sampled_from(["seed", "loss"]), part, max_size=2),
    max_leaves=3,
)


@st.composite
def altered(draw, content):
    """The content of a file, a nest of dicts and lists, with one part replaced by something odd or left out."""
    content = copy.deepcopy(content)
    part = content
    while True:
        key = draw(st.sampled_from(sorted(part) if isinstance(part, dict) else range(len(part))))
        if not (isinstance(part[key], (dict, list)) and part[key]) or draw(st.booleans()):
            break
        part = part[key]
    part[key] = draw(JSON)
    if draw(st.booleans()):
        del part[key]
    return content


def damaged(content):
    """Bytes that were a good file's before they were cut off, changed in one place, or replaced."""
    cut = st.integers(0, len(content)).map(lambda end: content[:end])
    hit = st.tuples(st.integers(0, len(content) - 1), st.binary(min_size=1, max_size=8)).map(
        lambda place: content[: place[0]] + place[1] + content[place[0] + len(place[1]) :]
    )
    return (
        cut
        | hit
        | st.sampled_from([b"", b"\0" * 99, b"[" * 99_999, b"PK\3\4", b"\x80\2.", b"\xff\xfe{}"])
        | st.binary()
    )


def read_record():
    record = records.load_record("depth", folder=".")
    with contextlib.suppress(ValueError):  # a row that is not there, a number that is none
        record.table(), record.compare("A", "B")
    return record.provenance


def resume():
    recipe = replace(RECIPE, epochs=2)
    return fit(model=NET, splits=SET, recipe=recipe, checkpoint="run.pt", device="cpu", progress=False)


READERS = {
    "history.json": lambda: training.History.load("history.json"),
    "depth.json": read_record,
    "run.pt": resume,
    "tensors.pt": lambda: photo.predict(PHOTOGRAPH, "vgg11", weights="tensors.pt"),
    "photo.png": lambda: photo.predict("photo.png", "vgg11", weights="tensors.pt"),
    "pictures/0/0.png": lambda: imagefolder.load("pictures", 8, workers=0),
    "garments/train-images-idx3-ubyte.gz": lambda: data.load("fashion-mnist", "garments", download=False),
}


@pytest.mark.parametrize("name", READERS)
@often
@given(draws=st.data())
def test_a_damaged_or_hostile_file_is_named(good, name, draws):
    contents = damaged(good[name])
    if name.endswith("json"):
        contents |= altered(json.loads(good[name])).map(lambda content: json.dumps(content).encode())
    if name == "run.pt":
        contents |= altered(torch.load(io.BytesIO(good[name]))).map(saved)
    Path("run.pt.before").unlink(missing_ok=True)
    Path(name).write_bytes(draws.draw(contents))
    try:
        READERS[name]()
    except (ValueError, FileNotFoundError) as error:
        assert name in str(error) or name == "photo.png" and "tensors.pt" in str(error)
    except FloatingPointError:
        assert name == "run.pt"  # the damage hit a weight
    finally:
        Path(name).write_bytes(good[name])


def saved(content):
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()
