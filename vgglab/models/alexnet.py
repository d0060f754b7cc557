"""AlexNet (Krizhevsky, Sutskever and Hinton 2012, "ImageNet Classification with Deep CNNs")."""

from torch import nn

from vgglab import _checks as checks
from vgglab.lrn import from_paper
from vgglab.models.parts import LARGEST_IMAGE, ConvNet, conv_relu, fc_layers, initialize

SMALLEST_IMAGE = 67


def alexnet(groups=2, lrn=True, in_channels=3, num_classes=1000, image_size=227):
    """Return the paper's network: two groups for its two GPUs, LRN after layers 1 and 2, overlapping pooling.

    (N, in_channels, image_size, image_size), at least 67 pixels -> class scores (N, num_classes). The paper
    writes 224, but the 55 positions of its unpadded 11x11 kernel with stride 4 need 227. torchvision's alexnet
    is the later "one weird trick" (arXiv:1404.5997): 64-192-384-256-256 channels, no groups, no LRN. Raises
    ValueError or TypeError for arguments out of range. Source: sections 3.3 to 3.5 and 4.2, figure 2.
    """
    groups, lrn = int(checks.choice("groups", groups, (1, 2))), checks.flag("lrn", lrn)
    in_channels = checks.integer("in_channels", in_channels, 1)
    num_classes = checks.integer("num_classes", num_classes, 1)
    image_size = checks.integer("image_size", image_size, SMALLEST_IMAGE, LARGEST_IMAGE)

    def norm():
        return [from_paper(n=5, k=2.0, alpha=1e-4, beta=0.75)] if lrn else []

    features = nn.Sequential(
        *conv_relu(in_channels, 96, 11, stride=4),
        *norm(),
        nn.MaxPool2d(3, stride=2),
        *conv_relu(96, 256, 5, padding=2, groups=groups),
        *norm(),
        nn.MaxPool2d(3, stride=2),
        *conv_relu(256, 384, 3, padding=1),
        *conv_relu(384, 384, 3, padding=1, groups=groups),
        *conv_relu(384, 256, 3, padding=1, groups=groups),
        nn.MaxPool2d(3, stride=2),
    )
    side = (image_size - 11) // 4 + 1
    for _ in range(3):
        side = (side - 3) // 2 + 1
    return initialize(ConvNet(features, fc_layers(256 * side * side, 4096, num_classes), image_size))
