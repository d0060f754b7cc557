"""A photograph's top five, by torchvision's networks from files of weights, good and hostile ones."""

import os
import pickle
import shutil
import socket

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import models

from vgglab.course.photo import predict


@pytest.fixture
def photo():
    """A picture of coloured noise, 300 wide and 280 high."""
    generator = np.random.default_rng(0)
    return Image.fromarray(generator.integers(0, 256, (28, 30, 3), dtype=np.uint8)).resize((300, 280))


@pytest.fixture
def weights_of(tmp_path):
    """Writes a file of random weights for one of torchvision's networks, small because most of them are the same."""

    def write(name, **changes):
        generator = torch.Generator().manual_seed(0)
        with torch.device("meta"):
            shapes = models.get_model(name).state_dict()
        state = {}
        for key, tensor in shapes.items():
            varied = tensor.shape if not state else [*tensor.shape[:1], *[1] * (tensor.ndim - 1)]
            values = torch.rand(varied, generator=generator)
            if not key.endswith("running_var"):
                values = (values - 0.4) * (6 / tensor[0].numel() if tensor.ndim > 1 else 0.1)
            state[key] = values.to(tensor.dtype).expand(tensor.shape)
        path = tmp_path / f"{name}.pth"
        torch.save(state | changes, path)
        assert path.stat().st_size < 200_000
        return path

    return write


@pytest.mark.parametrize("name", ["vgg11", "alexnet", "resnet18"])
def test_predict_is_torchvisions_network_on_torchvisions_preparation(name, photo, weights_of, tmp_path):
    path = weights_of(name)
    answers = predict(photo, name, top=7, weights=path)
    photo.save(tmp_path / "photo.png")
    assert predict(tmp_path / "photo.png", name, weights=str(path)) == answers[:5]

    with torch.device("meta"):
        theirs = models.get_model(name)
    theirs.load_state_dict(torch.load(path), assign=True)
    known = models.get_model_weights(name).IMAGENET1K_V1
    with torch.no_grad():
        expected = theirs.eval()(known.transforms()(photo)[None]).softmax(1)[0].topk(7)
    assert [answer for answer, _ in answers] == [known.meta["categories"][i] for i in expected.indices]
    assert [p for _, p in answers] == pytest.approx(expected.values.tolist(), rel=1e-5)
    assert predict(photo.transpose(Image.Transpose.ROTATE_90), name, top=7, weights=path) != answers


def test_pictures_that_are_grey_transparent_or_turned(photo, weights_of, tmp_path):
    path = weights_of("alexnet")
    turned = photo.transpose(Image.Transpose.ROTATE_90)
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    upright = predict(photo, "alexnet", weights=path)
    assert predict(tmp_path / "turned.png", "alexnet", weights=path) == upright
    assert predict(photo.convert("RGBA"), "alexnet", weights=path) == upright
    assert len(predict(photo.convert("L"), "alexnet", weights=path)) == 5


class Poison:
    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("model", ["vgg11", "alexnet"])
@pytest.mark.parametrize("kind", ["in a state dict", "alone", "bare pickle"])
def test_a_poisoned_file_is_refused_and_runs_nothing(model, kind, photo, tmp_path):
    path, trace = tmp_path / "weights.pth", tmp_path / "trace"
    poison = Poison(trace)
    if kind == "bare pickle":
        path.write_bytes(pickle.dumps(poison))
    else:
        torch.save({"features.0.weight": poison} if kind == "in a state dict" else poison, path)
    with pytest.raises(ValueError, match="weights: .*weights.pth was refused: it is damaged, or holds something else"):
        predict(photo, model, weights=path)
    assert not trace.exists()
    torch.load(path, weights_only=False) if kind != "bare pickle" else pickle.loads(path.read_bytes())
    assert trace.exists(), "the poison works"


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04" + bytes(100), b"\x80\x04" + bytes(50), None])
def test_a_file_that_is_no_weights_is_refused(content, photo, weights_of, tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(weights_of("alexnet").read_bytes()[:5000] if content is None else content)
    with pytest.raises(ValueError, match="weights.pth was refused"):
        predict(photo, "vgg11", weights=path)


@pytest.mark.parametrize(
    "state", [[torch.ones(2)], {"features.0.weight": 3}, torch.ones(3), {"a": {"b": torch.ones(1)}}]
)
def test_a_file_of_something_else_is_refused(state, photo, tmp_path):
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="weights.pth was refused"):
        predict(photo, "vgg11", weights=tmp_path / "weights.pth")


@pytest.mark.parametrize(
    "written, asked",
    [("vgg13", "vgg11"), ("alexnet", "vgg11"), ("vgg11_bn", "vgg11"), ("vgg11", "vgg11_bn"), ("resnet18", "resnet50")],
)
def test_the_weights_of_another_network_are_refused(written, asked, photo, weights_of):
    with pytest.raises(ValueError, match=f"weights: .*{written}.pth is not a file of {asked}'s weights: "):
        predict(photo, asked, weights=weights_of(written))


@pytest.mark.parametrize("model", ["vgg11", "alexnet"])
def test_nan_and_other_classes_are_refused_by_name(model, photo, weights_of):
    broken = torch.tensor(float("nan")).expand(4096)
    with pytest.raises(ValueError, match="NaN or infinity in classifier.3.bias" if model == "vgg11" else "NaN"):
        predict(photo, model, weights=weights_of(model, **{"classifier.3.bias": broken, "classifier.4.bias": broken}))
    ten = {"classifier.6.weight": torch.ones(1, 1).expand(10, 4096), "classifier.6.bias": torch.zeros(10)}
    with pytest.raises(ValueError, match=f"is not a file of {model}'s weights: .*"):
        predict(photo, model, weights=weights_of(model, **ten))


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"model": "vgg15"}, ValueError, "model must be one of 'alexnet', .*not 'vgg15'"),
        ({"top": 1001}, ValueError, "top must be at most 1000, .*not 1001"),
        ({"image": torch.ones(1)}, TypeError, "image must be a path or a PIL image, not Tensor"),
    ],
)
def test_bad_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        predict(**{"image": "x.png", **arguments})


def test_missing_and_unreadable_files_are_named(photo, tmp_path):
    with pytest.raises(FileNotFoundError, match="weights: there is no file .*nowhere.pth"):
        predict(photo, weights=tmp_path / "nowhere.pth")
    with pytest.raises(FileNotFoundError, match="nothing.png"):
        predict(tmp_path / "nothing.png")
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(ValueError, match="image must be a picture, and .*text.png is none"):
        predict(tmp_path / "text.png")


@pytest.mark.parametrize("download, reason", [(True, r"downloading failed \(.*no network"), (False, "not allowed")])
def test_offline_one_sentence_says_what_is_missing_and_how_to_provide_it(
    download, reason, photo, monkeypatch, tmp_path
):
    def no_network(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=f"weights of vgg16 are not on this computer and .*{reason}") as caught:
        predict(photo, download=download)
    message = str(caught.value)
    assert "vgg16-397923af.pth" in message and "give the path of the file as weights" in message
    assert "\n" not in message and message.count(". ") == 0
    assert not list(tmp_path.rglob("*.pth*"))


def test_downloaded_weights_are_checked_kept_and_used_again(photo, weights_of, monkeypatch, tmp_path):
    path, calls = weights_of("alexnet"), []

    def fetch(url, destination, hash_prefix):
        calls.append((url.rsplit("/", 1)[1], hash_prefix))
        assert socket.getdefaulttimeout() is not None
        shutil.copy(path, destination)

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    expected = predict(photo, "alexnet", weights=path)
    assert predict(photo, "alexnet") == predict(photo, "alexnet", download=False) == expected
    assert calls == [("alexnet-owt-7be5be79.pth", "7be5be79")] and socket.getdefaulttimeout() is None
