"""The networks of the course, each built as its paper describes it."""

from vgglab.models.alexnet import alexnet
from vgglab.models.googlenet import googlenet
from vgglab.models.lenet import lenet
from vgglab.models.parts import INITIALIZATIONS, initialize
from vgglab.models.resnet import resnet
from vgglab.models.vgg import VGG_CONFIGS, from_torchvision, init_from, vgg, vgg_block
from vgglab.models.zfnet import zfnet

__all__ = [
    "INITIALIZATIONS",
    "VGG_CONFIGS",
    "alexnet",
    "from_torchvision",
    "googlenet",
    "init_from",
    "initialize",
    "lenet",
    "resnet",
    "vgg",
    "vgg_block",
    "zfnet",
]
