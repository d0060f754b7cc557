"""The networks of the course, each built as its paper describes it."""

from vgglab.models.alexnet import alexnet as alexnet
from vgglab.models.googlenet import googlenet as googlenet
from vgglab.models.lenet import lenet as lenet
from vgglab.models.parts import initialize as initialize
from vgglab.models.resnet import resnet as resnet
from vgglab.models.vgg import VGG_CONFIGS as VGG_CONFIGS
from vgglab.models.vgg import from_torchvision as from_torchvision
from vgglab.models.vgg import init_from as init_from
from vgglab.models.vgg import vgg as vgg
from vgglab.models.vgg import vgg_block as vgg_block
from vgglab.models.zfnet import zfnet as zfnet
