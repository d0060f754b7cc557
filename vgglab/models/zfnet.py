"""ZFNet (Zeiler and Fergus, arXiv:1311.2901): AlexNet with a smaller, denser first kernel and without groups."""

from torch import nn

from vgglab._checks import Count, checked
from vgglab.lrn import from_paper
from vgglab.models.parts import ConvNet, conv_relu, fc_layers, initialize


@checked
def zfnet(wide: bool = False, in_channels: Count = 3, num_classes: Count = 1000, image_size: Count = 224) -> ConvNet:
    """Return the network of figure 3, or with wide the one whose layers 3 to 5 have 512, 1024 and 512 channels.

    (N, in_channels, image_size, image_size) -> class scores (N, num_classes). The paper gives sizes (224, 110, 55,
    26, 13, 13, 13, 6) but no padding, and no constants of its normalization: the paddings here give these sizes, the
    constants are AlexNet's. Source: figure 3; the wide one Table 2 (b), whose errors the VGG paper quotes.
    """
    layer3, layer4, layer5 = (512, 1024, 512) if wide else (384, 384, 256)
    features = nn.Sequential(
        *conv_relu(in_channels, 96, 7, stride=2, padding=1),
        nn.MaxPool2d(3, stride=2, padding=1),
        from_paper(),
        *conv_relu(96, 256, 5, stride=2),
        nn.MaxPool2d(3, stride=2, padding=1),
        from_paper(),
        *conv_relu(256, layer3, 3, padding=1),
        *conv_relu(layer3, layer4, 3, padding=1),
        *conv_relu(layer4, layer5, 3, padding=1),
        nn.MaxPool2d(3, stride=2),
    )
    return initialize(ConvNet(features, fc_layers(features, image_size, 4096, num_classes), image_size))
