"""Testing at any size: dense evaluation, many crops, several scales, and the top five classes of a photograph."""

import math
from itertools import product
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from vgglab import checks
from vgglab.data import network_timeout
from vgglab.models import from_torchvision
from vgglab.models.common import LARGEST_IMAGE, check_images
from vgglab.tracing import structural_copy

METHODS = ("dense", "multi-crop", "both")
LARGEST_GRID = 100
PIXELS_AT_ONCE = 2**20  # crops go through the network together up to this many pixels: 20 of 224, 1024 of 32

# torchvision's names of the paper's configurations, and the other networks that predict takes
TORCHVISION_CONFIGS = {
    name + norm: config
    for name, config in (("vgg11", "A"), ("vgg13", "B"), ("vgg16", "D"), ("vgg19", "E"))
    for norm in ("", "_bn")
}
PHOTO_MODELS = (*TORCHVISION_CONFIGS, "alexnet", "resnet18", "resnet50")


class FullyConvolutional(nn.Module):
    """A network whose FC layers became convolutions, made by to_dense(): images -> maps of class scores."""

    def __init__(self, features, classifier):
        super().__init__()
        self.features = features
        self.classifier = classifier
        self.smallest_image = _smallest_image(features)
        self.window = _layers(classifier, nn.Conv2d)[0].kernel_size[0]

    def forward(self, x):
        check_images(x, _layers(self.features, nn.Conv2d)[0], smallest=self.smallest_image)
        maps = self.features(x)
        height, width = (max(0, self.window - side) for side in maps.shape[2:])
        if height or width:
            maps = F.pad(maps, (width // 2, width - width // 2, height // 2, height - height // 2))
        return self.classifier(maps)


def to_dense(model):
    """Return model as a network without FC layers: (N, C, H, W) -> a map of class scores (N, classes, rows, columns).

    The first FC layer becomes a convolution over as many positions as it was trained on (7x7 at 224), the others 1x1
    convolutions. H and W must leave one position of the feature map, which takes 32 pixels; a map smaller than the
    first convolution is padded with zeros. The weights are reshaped and shared with model, which stays as it was; the
    result is in eval mode, so dropout does nothing. Raises TypeError for what is no VGG. Source: section 3.2.
    """
    model = _testing_copy(model)
    if isinstance(model, FullyConvolutional):
        return model
    features, classifier = getattr(model, "features", None), getattr(model, "classifier", None)
    convolutions = _layers(features, nn.Conv2d)
    if not (convolutions and isinstance(classifier, nn.Sequential) and _layers(classifier, nn.Linear)):
        raise TypeError(f"model must be a VGG: features, then a chain of FC layers, not {type(model).__name__}")
    channels = convolutions[-1].out_channels
    for place, layer in enumerate(classifier):
        if isinstance(layer, nn.Linear):
            classifier[place] = _as_convolution(layer, channels)
            channels = layer.out_features
    return FullyConvolutional(features, classifier).eval()


def _as_convolution(linear, channels):
    """The convolution that computes linear over every square window of a map with channels."""
    side = math.isqrt(linear.in_features // channels)
    if channels * side * side != linear.in_features:
        raise TypeError(f"model must have FC layers over a square of {channels} channels, not {linear}")
    conv = nn.Conv2d(channels, linear.out_features, side, bias=linear.bias is not None, device="meta")
    conv.weight = nn.Parameter(linear.weight.view(linear.out_features, channels, side, side), False)
    conv.bias = linear.bias
    return conv


@torch.no_grad()
def score_map(model, x):
    """Return the class scores at every position where the network fits: (N, C, H, W) -> (N, classes, rows, columns).

    model is a plain or a converted network and is left as it was. rows is H // 32 - 6 for a VGG trained at 224, and
    at least 1. Raises ValueError for images that are too small, with the smallest size.
    """
    dense = to_dense(model)
    with checks.running("x", _images(x).shape):
        return dense(x)


@torch.no_grad()
def dense_scores(model, x, flip=True):
    """Return class probabilities (N, classes) by dense evaluation of whole images (N, C, H, W).

    Class scores are averaged over the map, softmax follows, and the result is averaged over the image and its
    mirror image if flip. Source: section 3.2.
    """
    dense = to_dense(model)
    views = [_images(x), x.flip(-1)] if checks.flag("flip", flip) else [_images(x)]
    return torch.stack([_probabilities(dense, view) for view in views]).mean(0)


def crop_offsets(length, crop, grid=5):
    """Return where grid crops of crop pixels start along a side of length pixels: evenly spaced, first to last.

    A single one is central; where there is no room to move, all are the same and one stands for all. Raises
    ValueError where the crop does not fit. Source: section 3.2, 5 x 5 positions.
    """
    length = checks.integer("length", length, 1, checks.LARGEST)
    crop, grid = checks.integer("crop", crop, at_least=1), checks.integer("grid", grid, 1, LARGEST_GRID)
    room = length - crop
    if room < 0:
        raise ValueError(f"crop must be at most {length}, the side of the image, not {crop}")
    if grid == 1 or room == 0:
        return [room // 2]
    return [round(i * room / (grid - 1)) for i in range(grid)]


@torch.no_grad()
def multi_crop_scores(model, x, crop=None, grid=5, flip=True):
    """Return class probabilities (N, classes), averaged over a grid x grid of crops of images (N, C, H, W).

    crop (pixels) is the size that model takes, its own where None; with flip each crop counts mirrored too, which
    makes 50 of the paper's 5 x 5. Crops go through the network a few at a time. Raises ValueError for a crop of
    another size or larger than the images. Source: section 3.2.
    """
    own = getattr(model, "image_size", None)
    crop = checks.integer("crop", own if crop is None else crop, at_least=1)
    if own not in (None, crop):
        raise ValueError(f"crop must be {own}, the size of the images of this network, not {crop}")
    flip = checks.flag("flip", flip)
    height, width = _images(x).shape[2:]
    views = list(product(crop_offsets(height, crop, grid), crop_offsets(width, crop, grid), (False, True)[: 1 + flip]))
    model = _testing_copy(model)
    at_once = max(1, PIXELS_AT_ONCE // crop**2)

    results = []
    for images in x.split(at_once):
        total, step = 0, max(1, at_once // len(images))
        for start in range(0, len(views), step):
            crops = [_cut(images, crop, *view) for view in views[start : start + step]]
            probabilities = _probabilities(model, torch.cat(crops))
            total = total + probabilities.unflatten(0, (len(crops), len(images))).sum(0)
        results.append(total / len(views))
    return torch.cat(results)


def multi_scale_scores(model, x, scales, method="dense", crop=None, grid=5, flip=True):
    """Return class probabilities (N, classes), averaged over images (N, C, H, W) rescaled to each of scales.

    scales are shorter sides in pixels. method is "dense", "multi-crop", or "both", the mean of the two; crop, grid
    and flip are those of multi_crop_scores. Source: section 3.2, Tables 4 and 5.
    """
    checks.choice("method", method, METHODS)
    checks.tensor("x", x, floating=False)
    sides = checks.sequence("scales", scales)
    if not sides:
        raise ValueError(f"scales must be a list of at least one shorter side in pixels, not {scales!r}")
    results = []
    for scale in [checks.integer("scales", side, 1, LARGEST_IMAGE) for side in sides]:
        scaled = rescale(x, scale)
        if method != "multi-crop":
            results.append(dense_scores(model, scaled, flip))
        if method != "dense":
            results.append(multi_crop_scores(model, scaled, crop, grid, flip))
    return torch.stack(results).mean(0)


def rescale(images, shorter_side):
    """Return images (N, C, H, W) as float, their shorter side shorter_side pixels, their aspect ratio kept.

    Bilinear, smoothed where the images shrink; the longer side is rounded down, as torchvision's Resize does.
    """
    shorter_side = checks.integer("shorter_side", shorter_side, 1, LARGEST_IMAGE)
    checks.tensor("images", images, floating=False)
    images = images if images.is_floating_point() else images.float()
    height, width = images.shape[2:]
    size = [side * shorter_side // min(height, width) for side in (height, width)]
    return F.interpolate(images, size, mode="bilinear", antialias=True)


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


def _testing_copy(model):
    """The same weights in other modules and in eval mode, so that the model itself stays as it is."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a network, not {type(model).__name__}")
    return structural_copy(model, lambda tensor: tensor)


def _images(x):
    if not isinstance(x, torch.Tensor) or x.ndim != 4 or not x.is_floating_point() or not x.numel():
        given = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, torch.Tensor) else type(x).__name__
        raise ValueError(f"x must be images (N, C, H, W) of floating-point numbers, not {given}")
    return x


def _cut(images, crop, top, left, mirrored):
    part = images[:, :, top : top + crop, left : left + crop]
    return part.flip(-1) if mirrored else part


def _probabilities(model, x):
    """Softmax of the class scores, which are averaged over space first where they are a map."""
    with checks.running("x", x.shape):
        scores = model(x)
    if not isinstance(scores, torch.Tensor) or scores.ndim not in (2, 4):
        raise ValueError("model must give class scores (N, classes), or a map of them")
    return (scores.mean((2, 3)) if scores.ndim == 4 else scores).softmax(1)


def _layers(model, kind):
    return [module for module in model.modules() if isinstance(module, kind)] if isinstance(model, nn.Module) else []


def _smallest_image(features):
    """The side that leaves one position: a layer with n outputs needs (n - 1) * stride + kernel - 2 * padding."""
    side = 1
    for layer in reversed(_layers(features, (nn.Conv2d, nn.MaxPool2d))):
        kernel, stride, padding = (
            checks.pair(name, getattr(layer, name))[0] for name in ("kernel_size", "stride", "padding")
        )
        side = max(1, (side - 1) * stride + kernel - 2 * padding)
    return side
