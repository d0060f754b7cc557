"""The top five classes of a photograph, by networks with torchvision's weights."""

from pathlib import Path

import torch

from vgglab import _checks as checks
from vgglab._files import network_timeout
from vgglab.models import from_torchvision

# torchvision's names of the paper's configurations, and the other networks that predict takes
TORCHVISION_CONFIGS = {
    name + norm: config
    for name, config in (("vgg11", "A"), ("vgg13", "B"), ("vgg16", "D"), ("vgg19", "E"))
    for norm in ("", "_bn")
}


PHOTO_MODELS = (*TORCHVISION_CONFIGS, "alexnet", "resnet18", "resnet50")


def predict(image, model="vgg16", top=5, weights=None, download=True):
    """Return the top classes of a photograph, best first, as a list of (ImageNet's name, probability).

    image is a path or a PIL image, model one of PHOTO_MODELS with torchvision's weights: from the file named in
    weights, else from torch's cache, else downloaded into it once if download. The picture is resized to 256 and
    its central 224 pixels are taken, as torchvision does. Nothing in a file of weights is executed. Raises
    FileNotFoundError where there are no weights, saying how to provide them, ValueError for a file of other ones.
    """
    from torchvision.models import get_model_weights

    checks.choice("model", model, PHOTO_MODELS)
    download = checks.flag("download", download)
    known = get_model_weights(model).IMAGENET1K_V1
    categories = known.meta["categories"]
    if checks.integer("top", top, at_least=1) > len(categories):
        raise ValueError(f"top must be at most {len(categories)}, the number of classes, not {top}")
    picture = _open(image)
    path = _cached(model, known.url, download) if weights is None else checks.path("weights", weights)
    with torch.inference_mode():
        probabilities = _network(model, path)(known.transforms()(picture)[None]).softmax(1)[0]
    best = probabilities.topk(top)
    return [(categories[i], p) for i, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)]


def _open(image):
    from PIL import Image, ImageOps

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


def _cached(name, url, download):
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


def _network(name, path):
    """The network called name with the weights in the file, ready to be tested."""
    from torchvision.models import get_model

    state = _read_weights(path)
    try:
        if name not in TORCHVISION_CONFIGS:
            with torch.device("meta"):
                network = get_model(name)
            network.load_state_dict(state, assign=True)
        elif name.endswith("_bn") != ("features.1.running_mean" in state):
            raise ValueError("one of the two has batch normalization, the other has not")
        elif len(state.get("classifier.6.bias", ())) != 1000:
            raise ValueError("it does not end in the 1000 classes of ImageNet")
        else:
            network = from_torchvision(TORCHVISION_CONFIGS[name], state)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"weights: {path} is not a file of {name}'s weights: {error}") from None
    return network.float().eval()


def _read_weights(path):
    """The tensors of a file by name; nothing in it is executed, and a file that holds anything else is refused."""
    if not path.is_file():
        raise FileNotFoundError(f"weights: there is no file {path}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # a damaged file can fail in any way
        state = None
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(f"weights: {path} was refused: it is damaged, or holds something else than named tensors")
    broken = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    if broken:
        raise ValueError(f"weights: {path} was refused: it holds NaN or infinity in {', '.join(broken)}")
    return state
