"""The top five classes of a photograph, by networks with torchvision's weights."""

from functools import partial
from pathlib import Path
from typing import Annotated

import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights, list_models

from vgglab import _checks as checks
from vgglab._checks import Count, FilePath, checked
from vgglab._files import network_timeout

MODELS = list_models(include=["alexnet", "resnet*", "vgg*"])


@checked
def predict(
    image: str | Path | Image.Image,
    model: Annotated[str, partial(checks.choice, accepted=MODELS)] = "vgg16",
    top: Count = 5,
    weights: FilePath | None = None,
    download: bool = True,
) -> list[tuple[str, float]]:
    """Return the top classes of a photograph, best first, as a list of (ImageNet's name, probability).

    image is a path or a PIL image, model one of torchvision's AlexNet, VGG and ResNets. Its weights come from the file
    named in weights, else from torch's cache, else they are downloaded into it once if download. The picture is resized
    to 256 and its central 224 pixels are taken, as torchvision does. Nothing in a file of weights is executed. Raises
    FileNotFoundError where there are no weights, saying how to provide them, ValueError for a file of other ones.
    """
    known = get_model_weights(model)["IMAGENET1K_V1"]
    categories = known.meta["categories"]
    if top > len(categories):
        raise ValueError(f"top must be at most {len(categories)}, the number of classes, not {top}")
    picture = known.transforms()(_open(image))
    network = _network(model, Path(weights or _cached(model, known.url, download)))
    with torch.inference_mode():
        best = network(picture[None]).softmax(1)[0].topk(top)
    return [(categories[i], p) for i, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)]


def _open(image: str | Path | Image.Image) -> Image.Image:
    if not isinstance(image, (str, Path, Image.Image)):
        raise TypeError(f"image must be a path or a PIL image, not {type(image).__name__}")
    try:
        picture = image if isinstance(image, Image.Image) else Image.open(checks.path("image", image))
        if min(picture.size):
            return ImageOps.exif_transpose(picture).convert("RGB")
    except (FileNotFoundError, PermissionError):
        raise
    except Exception:  # a damaged file can fail in any way
        pass
    raise ValueError(f"image must be a picture, and {image} is none")


def _cached(name: str, url: str, download: bool) -> Path:
    """The path of torchvision's weights in torch's cache, fetched if they are not there yet."""
    path = Path(torch.hub.get_dir(), "checkpoints", url.rsplit("/", 1)[1])
    reason = "downloading was not allowed"
    if not path.exists() and download:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with network_timeout():
                torch.hub.download_url_to_file(url, str(path), hash_prefix=path.stem.rsplit("-", 1)[1])
        except (OSError, RuntimeError) as error:
            reason = f"downloading failed ({error})"
    if not path.exists():
        raise FileNotFoundError(
            f"The weights of {name} are not on this computer and {reason}: connect to the internet and try again, "
            f"or get {url} on another computer and give the path of the file as weights."
        )
    return path


def _network(name: str, path: Path) -> nn.Module:
    """The network called name with the weights in the file, ready to be tested."""
    if not path.is_file():
        raise FileNotFoundError(f"weights: there is no file {path}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # a damaged file can fail in any way
        state = None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"weights: {path} was refused: it is damaged, or holds something else than named tensors")
    broken = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    if broken:
        raise ValueError(f"weights: {path} was refused: it holds NaN or infinity in {', '.join(broken)}")
    with torch.device("meta"):
        network = get_model(name)
    try:
        network.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise ValueError(f"weights: {path} is not a file of {name}'s weights: {error}") from None
    return network.float().eval()
