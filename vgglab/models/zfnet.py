"""ZFNet (Zeiler and Fergus, arXiv:1311.2901): AlexNet with a smaller, denser first kernel and without groups."""

from torch import nn

from vgglab import _checks as checks
from vgglab.lrn import from_paper
from vgglab.models.parts import LARGEST_IMAGE, ConvNet, conv_relu, fc_layers, initialize

SMALLEST_IMAGE = 53


def zfnet(wide=False, in_channels=3, num_classes=1000, image_size=224):
    """Return the network of figure 3, or with wide the one whose layers 3 to 5 have 512, 1024 and 512 channels.

    (N, in_channels, image_size, image_size), at least 53 pixels -> class scores (N, num_classes). The paper
    gives sizes (224, 110, 55, 26, 13, 13, 13, 6) but no padding, and no constants of its normalization: the
    paddings here are ones that give these sizes, the constants AlexNet's. Raises ValueError or TypeError for
    numbers out of range. Source: figure 3; the wide one Table 2 (b), whose errors the VGG paper quotes.
    """
    in_channels = checks.integer("in_channels", in_channels, 1)
    num_classes = checks.integer("num_classes", num_classes, 1)
    image_size = checks.integer("image_size", image_size, SMALLEST_IMAGE, LARGEST_IMAGE)
    wide = checks.flag("wide", wide)

    layer3, layer4, layer5 = (512, 1024, 512) if wide else (384, 384, 256)
    features = nn.Sequential(
        *conv_relu(in_channels, 96, 7, stride=2, padding=1),
        nn.MaxPool2d(3, stride=2, padding=1),
        from_paper(n=5, k=2.0, alpha=1e-4, beta=0.75),
        *conv_relu(96, 256, 5, stride=2),
        nn.MaxPool2d(3, stride=2, padding=1),
        from_paper(n=5, k=2.0, alpha=1e-4, beta=0.75),
        *conv_relu(256, layer3, 3, padding=1),
        *conv_relu(layer3, layer4, 3, padding=1),
        *conv_relu(layer4, layer5, 3, padding=1),
        nn.MaxPool2d(3, stride=2),
    )
    side = image_size
    for kernel, padding in ((7, 1), (3, 1), (5, 0), (3, 1), (3, 0)):
        side = (side + 2 * padding - kernel) // 2 + 1
    return initialize(ConvNet(features, fc_layers(layer5 * side * side, 4096, num_classes), image_size))
