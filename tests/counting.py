"""What tests count in a network, and where."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from vgglab.receptive_field import of_model

GREY = {"in_channels": 1, "num_classes": 10}


def on_meta(build, **arguments):
    with torch.device("meta"):
        return build(**arguments).eval()


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def layers(module, kind):
    return [layer for layer in module.modules() if isinstance(layer, kind)]


def macs(model, image):
    with FlopCounterMode(display=False) as operations:
        model(torch.empty(1, *image, device="meta"))
    return operations.get_total_flops() // 2


def shapes(model, image):
    """The output shape of every module, by name."""
    found = {}
    for name, module in model.named_modules():
        module.register_forward_hook(lambda module, inputs, output, name=name: found.update({name: output.shape[1:]}))
    model(torch.empty(1, *image, device="meta"))
    return found


def sides(model, image, kinds):
    found = shapes(model, image)
    return [found[name][1] for name, module in model.named_modules() if isinstance(module, kinds)]


def field(model, image, layer):
    reached = of_model(model, image)[layer]
    return reached.size[0], reached.stride[0], reached.padding[0]
