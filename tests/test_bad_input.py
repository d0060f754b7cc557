"""Every public function, given odd values for one argument after the other, answers rightly or names the argument."""

import contextlib
import copy
import gzip
import importlib
import inspect
import json
import math
import os
import pkgutil
import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from fractions import Fraction
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from test_records import RUN
from torch import nn
from torchvision.models import resnet18

import vgglab
from vgglab import cost, data, inference, machine, models, seeing, training
from vgglab import receptive_field as rf
from vgglab.course import photo
from vgglab.course.experiments import records, registry, runner
from vgglab.data import fashion_mnist, imagefolder

pytestmark = pytest.mark.filterwarnings("ignore")
fixed = partial(settings, deadline=None, derandomize=True, database=None, suppress_health_check=[*HealthCheck])
ODD = [
    None, True, np.True_, "", "x", "a\0b", "ä .~", "~nobody/x", "absent/x", b"", b"x", object(), int, Path("nowhere"),
    0, -1, 3, 10, 2**63, 10**30, -(10**30), 10**400, 0.1, -0.5, 2.5, 1e308, -1e308, math.nan, math.inf, -math.inf,
    1j, Decimal(3), Fraction(7, 2), nn.Identity(), nn.Linear(2, 2), np.float32("nan"), np.int64(-1), np.array(3),
    np.array([]), np.array([1, 2]), np.ones((2, 2)), [], ["a", "b"], [None], [[1]], [1, -1], [3, 0.5], [math.nan],
    {}, {"a": 1}, iter([1]), (), (0, 0), (-1, -1), (1, 2, 3), (2, 1), (10**30, 10**30), torch.tensor(1),
    torch.tensor(0.5), torch.empty(0), torch.zeros(3), torch.arange(3), torch.tensor([-1, 10**18]), torch.zeros(2, 3),
    torch.zeros(1, 8, 8), torch.zeros(0, 1, 32, 32), torch.zeros(2, 0, 32, 32), torch.zeros(1, 1, 0, 9),
    torch.zeros(1, 3, 32, 32), torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 33, 31), torch.zeros(1, 1, 1, 9, 9),
    torch.full((1, 1, 32, 32), math.nan), torch.zeros(1, 1, 32, 32, dtype=torch.float64), torch.zeros(1),
    torch.zeros(1, 1, 32, 32, dtype=torch.uint8), torch.ones(1, 1, 32, 32, dtype=torch.bool),
    torch.ones(1, 1, 32, 32, dtype=torch.complex64),
]  # fmt: skip

NET = models.vgg("A", 1, 10, 32, width=1 / 64).eval()
X = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
IMAGES = data.Images((X * 255)[..., :28, :28].byte(), torch.tensor([3, 7]))
SET = data.Splits("noise", IMAGES, IMAGES)
RECIPE = training.Recipe(width=1 / 64, size=32, epochs=1, batch_size=2, lr=1e-3)
RECORD = {"data": "noise", "facts": {}, "networks": {"A": {}, "B": {}}, "runs": [RUN, {**RUN, "network": "B"}]}
PHOTOGRAPH = Image.new("RGB", (40, 30))

# What is given for an argument without a default, and for some in place of it.
GOOD = {
    "model": NET, "trained": NET, "x": X, "images": IMAGES, "pixels": IMAGES.pixels, "pictures": X, "image": PHOTOGRAPH,
    "input_shape": (1, 32, 32), "layer": "features.0", "unit": (1, 2), "channel": 0, "labels": [0, 1], "splits": SET,
    "region": rf.Region(0, -1, 3, 9), "n": 28, "kernel": 3, "kernels": [3, 2], "row": 1, "col": 2, "output_side": 5,
    "in_channels": 1, "out_channels": 2, "num_convs": 1, "config": "A", "state_dict": {}, "depth": 18, "count": 1,
    "batch_size": 2, "size": 30, "scales": [20, 40], "seed": 1, "number": 2, "length": 40, "crop": 32,
    "shorter_side": 8, "patch": 16, "stride": 16, "down": 1, "right": 2, "device": "cpu", "precision": "auto",
    "recipe": RECIPE, "path": "new.csv", "folder": ".", "name": "depth", "values": [0.5, 1.5], "degrees": 3.0, "a": "A",
    "b": "B",
}  # fmt: skip
SPECIAL = {
    "receptive_field.ReceptiveField": {"size": (3, 3), "stride": (1, 1), "padding": (1, 1)},
    "receptive_field.effective": {"images": X},
    "inference.rescale": {"images": X},
    "inference.multi_scale_scores": {"scales": [32]},
    "images.Images": {"pixels": IMAGES.pixels[:1], "labels": torch.tensor([3])},
    "fashion_mnist.load": {"name": "fashion-mnist", "root": "fashion"},
    "imagefolder.load": {"path": "pictures", "scale": (8, 9), "workers": 0},
    "loop.fit": {"recipe": RECIPE, "device": "cpu", "precision": "float32", "progress": False},
    "photo.predict": {"model": "resnet18", "weights": "weights.pt"},
}
OTHERS = [
    rf.ReceptiveField, rf.stack([3]).region, rf.stack([3]).center, cost.ledger(NET, (1, 32, 32)).to_csv, NET.forward,
    models.init_from, data.Images, SET.hold_out, training.Recipe, RECIPE.model, training.find_recipe,
    records.Record("r", **RECORD).compare, records.t_interval, machine.find_device, machine.device_of,
    machine.find_precision, inference.to_dense, models.from_torchvision, registry.find_experiment,
]  # fmt: skip


def title(door):
    return f"{door.__module__.split('.')[-1]}.{door.__qualname__}"


def good_arguments(door):
    parameters = inspect.signature(door).parameters
    defaults = {name: one.default for name, one in parameters.items() if one.default is not one.empty}
    return {name: {**GOOD, **defaults, **SPECIAL.get(title(door), {})}[name] for name in parameters}


def answer(door, arguments):
    """What a function returns, a builder without memory for its weights; what is trained is a copy."""
    arguments = {name: copy.deepcopy(it) if isinstance(it, nn.Module) else it for name, it in arguments.items()}
    builds = door == RECIPE.model or door.__module__.startswith("vgglab.models")
    with torch.device("meta") if builds else contextlib.nullcontext():
        result = door(**arguments)
        return list(result) if isinstance(result, Iterator) else result


def has_bounds(one):
    """Whether it is a public function that has bounds in its annotations and that takes no hours."""
    public = inspect.isfunction(one) and "._" not in f"{one.__module__}.{one.__name__}"
    return public and "Annotated[" in str(inspect.signature(one)) and one not in (runner.run, inference.errors)


MODULES = [importlib.import_module(found.name) for found in pkgutil.walk_packages(vgglab.__path__, "vgglab.")]
BOUNDED = [one for module in MODULES for one in vars(module).values() if has_bounds(one)]
DOORS = {title(door): door for door in [*BOUNDED, *OTHERS]}
LISTS = (tuple, list, range, np.ndarray, torch.Tensor)
KINDS = {
    bool: (bool, np.bool_), int: Integral, float: Real, tuple: (tuple, list, Integral), Sequence: LISTS,
    torch.Tensor: LISTS, rf.Region: (tuple, list), Any: object,
}  # fmt: skip


def suits(hint, value):
    """Whether a value is of a kind that an annotation names; a check may make it of a similar kind."""
    kind, parts = get_origin(hint) or hint, get_args(hint)
    if kind in (Annotated, Union, UnionType):
        return any(suits(part, value) for part in (parts[:1] if kind is Annotated else parts))
    if kind is Literal:
        return isinstance(value, (str, Real)) and value in parts
    kind = KINDS.get(kind, nn.Module if isinstance(kind, TypeVar) else kind)
    return isinstance(value, kind) and not (isinstance(value, bool) and kind in (Integral, Real))


@pytest.fixture(scope="module", autouse=True)
def files(tmp_path_factory):
    """What is in the files that good arguments name, in a folder of their own to work in, without a network."""
    place = tmp_path_factory.mktemp("odd")
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(place):
        patch.delenv("VGGLAB_DATA", raising=False)
        patch.setattr("vgglab.data.fashion_mnist._cache", lambda: place / "cache")
        patch.setattr(fashion_mnist, "_download", lambda: None)
        patch.setattr(torch.hub, "download_url_to_file", lambda *args, **options: None)
        patch.setenv("HOME", str(place))
        patch.setattr(torch, "compile", lambda network, **options: network)
        torch.save({"weight": torch.zeros(3)}, "tensors.pt")
        PHOTOGRAPH.save("photo.png")
        Path("garments").mkdir()
        for name in fashion_mnist.FILES:
            Path(f"garments/{name}.gz").write_bytes(gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 1, 0])))
        Path("depth.json").write_text(json.dumps(RECORD))
        for number in range(8):
            Path(f"pictures/{number % 2}").mkdir(parents=True, exist_ok=True)
            PHOTOGRAPH.resize((9, 9)).save(f"pictures/{number % 2}/{number}.png")
        torch.save(resnet18(num_classes=1000).state_dict(), "weights.pt")
        resume()
        Path("run.pt.before").replace("run.pt")
        yield {name: Path(name).read_bytes() for name in READERS}


def holds_nan(value):
    return "nan" in re.findall(r"\w+", repr(value))


@pytest.mark.parametrize(("door", "name"), [(door, name) for door in DOORS for name in good_arguments(DOORS[door])])
@fixed(max_examples=len(ODD))  # which tries each once
@given(value=st.sampled_from(ODD))
def test_an_odd_argument_is_named_or_right(door, name, value):
    """A value of the right kind may be refused by the name of another argument that it does not suit."""
    door, good = DOORS[door], good_arguments(DOORS[door])
    suitable = suits(get_type_hints(door, include_extras=True)[name], value)
    huge = suitable and isinstance(value, Real) and value > 10**9  # PyTorch says that no memory holds it
    try:
        result = answer(door, {**good, name: value})
    except (ValueError, TypeError) as error:
        named = any(re.search(rf"\b{word}\b", str(error)) for word in (good if suitable else [name]))
        assert named or huge or isinstance(value, (str, Path)) and str(value) in str(error)
    except OSError as error:
        assert suitable, "neither a ValueError nor a TypeError"
        assert any(word in str(error) for word in [name, str(value), os.path.expanduser(str(value))])
    except FloatingPointError:
        assert suitable, "the loss is not finite"
    except (RuntimeError, OverflowError):
        assert huge
    else:
        assert suitable, "it was taken"
        assert door is seeing.cut or holds_nan(value) or not holds_nan(result)
        if isinstance(result, data.Images):
            assert (result.pixels.dtype, result.labels.dtype) == (torch.uint8, torch.int64)
            assert len(result.pixels) == len(result.labels) and result.labels.max() < len(result.classes)


@pytest.mark.parametrize("door", DOORS)
def test_numpys_numbers_count_as_pythons(door):
    good, numbers = good_arguments(DOORS[door]), (bool, int, float)
    twins = {name: np.array(value)[()] if type(value) in numbers else value for name, value in good.items()}
    answers = []
    for arguments in (good, twins):
        torch.manual_seed(0)
        with contextlib.suppress(FileNotFoundError, ValueError):  # Fashion-MNIST and torchvision's weights are not here
            answers.append(re.sub("'seconds': [^,}]+", "", repr(answer(DOORS[door], arguments))))
    assert answers[:1] == answers[1:]


JSON = st.recursive(
    st.sampled_from([None, True, -1, 10**400, math.nan, math.inf, "", "x", [], {}]),
    lambda part: st.lists(part, max_size=2) | st.dictionaries(st.sampled_from(["seed", "loss"]), part, max_size=2),
    max_leaves=3,
)


@st.composite
def altered(draw, content):
    """The content of a file, a nest of dicts and lists, with one part replaced by something odd or left out."""
    content = part = copy.deepcopy(content)
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
    others = [b"", b"\0" * 99, b"[" * 99_999, b"PK\3\4", b"\x80\2.", b"\xff\xfe{}"]
    return cut | hit | st.sampled_from(others) | st.binary()


def read_record():
    record = records.load_record("depth", folder=".")
    with contextlib.suppress(ValueError):  # a row that is not there, a number that is none
        record.table(), record.compare("A", "B")
    return record.provenance


def resume():
    training.fit(copy.deepcopy(NET), SET, recipe=RECIPE, epochs=2, checkpoint="run.pt", device="cpu", progress=False)


READERS = {
    "depth.json": read_record,
    "run.pt": resume,
    "tensors.pt": lambda: photo.predict(PHOTOGRAPH, "vgg11", weights="tensors.pt"),
    "photo.png": lambda: photo.predict("photo.png", "vgg11", weights="tensors.pt"),
    "pictures/0/0.png": lambda: imagefolder.load("pictures", 8, workers=0),
    "garments/train-images-idx3-ubyte.gz": lambda: data.load("fashion-mnist", "garments", download=False),
}


@pytest.mark.parametrize("name", READERS)
@fixed(max_examples=70)
@given(draws=st.data())
def test_a_damaged_or_hostile_file_is_named(files, name, draws):
    contents = damaged(files[name])
    if name.endswith("json"):
        contents |= altered(json.loads(files[name])).map(lambda content: json.dumps(content).encode())
    if name == "run.pt":
        contents |= altered(torch.load(name))
    Path("run.pt.before").unlink(missing_ok=True)
    content = draws.draw(contents)
    Path(name).write_bytes(content) if isinstance(content, bytes) else torch.save(content, name)
    try:
        READERS[name]()
    except (ValueError, FileNotFoundError) as error:
        assert name in str(error) or name == "photo.png" and "tensors.pt" in str(error)
    except FloatingPointError:
        assert name == "run.pt"  # the damage hit a weight
    finally:
        Path(name).write_bytes(files[name])
