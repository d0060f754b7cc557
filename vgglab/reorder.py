"""The same network in a cheaper order: max-pooling before ReLU, with the same numbers to the bit."""

import copy
from itertools import pairwise

from torch import nn


def pool_first(model):
    """Return a network that shares all weights with model and pools before ReLU wherever model pools right after it.

    A maximum of positive parts is the positive part of the maximum, forward and backward, and ReLU then has a
    quarter of the work. model stays as it was.
    """
    shared = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
    network = copy.deepcopy(model, shared)
    for module in network.modules():
        if isinstance(module, nn.Sequential):
            names = list(module._modules)
            for name, following in pairwise(names):
                relu, pool = module._modules[name], module._modules[following]
                if isinstance(relu, nn.ReLU) and isinstance(pool, nn.MaxPool2d) and not pool.return_indices:
                    module._modules[name], module._modules[following] = pool, relu
    return network
