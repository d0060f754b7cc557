"""A photograph's top five, by torchvision's networks from files of weights; test_bad_input damages such files."""

import os
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

    def write(name):
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
        torch.save(state, path)
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


def test_a_poisoned_file_is_refused_and_runs_nothing(photo, tmp_path):
    path, trace = tmp_path / "weights.pth", tmp_path / "trace"
    torch.save({"features.0.weight": Poison(trace)}, path)
    with pytest.raises(ValueError, match="weights: .*weights.pth was refused: it is damaged, or holds something else"):
        predict(photo, "vgg11", weights=path)
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists(), "the poison works"


@pytest.mark.parametrize(
    "state, reason",
    [
        ([torch.ones(2)], "was refused: it is damaged, or holds something else than named tensors"),
        ({"a": {"b": torch.ones(1)}}, "was refused: it is damaged, or holds something else than named tensors"),
        ({"classifier.3.bias": torch.tensor(float("nan"))}, "was refused: it holds NaN or infinity in classifier.3.bi"),
        ({"features.0.weight": torch.ones(64, 3, 3, 3)}, "is not a file of vgg11's weights: .*Missing key"),
    ],
)
def test_a_file_of_anything_but_the_weights_of_the_network_is_refused(state, reason, photo, tmp_path):
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=f"(?s)weights: .*weights.pth {reason}"):
        predict(photo, "vgg11", weights=tmp_path / "weights.pth")


def test_more_classes_than_there_are_and_a_missing_file_are_refused(photo):
    with pytest.raises(ValueError, match="top must be at most 1000, .*not 1001"):
        predict(photo, top=1001)
    with pytest.raises(FileNotFoundError, match="weights: there is no file nowhere.pth"):
        predict(photo, weights="nowhere.pth")


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
