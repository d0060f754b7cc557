"""What a reader of Dive into Deep Learning (d2l 1.0.3, section 8.2) runs instead: its data, its network, its loop."""

import os
import struct
import time
from pathlib import Path

import common
import torch
from d2l import torch as d2l
from torch import nn

from vgglab.data.fashion_mnist import FILES

QUARTER = ((1, 16), (1, 32), (2, 64), (2, 128), (2, 128))
FULL = ((1, 64), (1, 128), (2, 256), (2, 512), (2, 512))


class Classifier(d2l.Classifier):
    """Any network in the book's training step; its plot, which is redrawn while it trains, is switched off."""

    def __init__(self, net, lr=0.05):
        super().__init__()
        self.save_hyperparameters(ignore=["net"])
        self.net = net
        self.board.display = False


def vgg(architecture, size, units=4096, num_classes=10):
    """The network of section 8.2: blocks of 3x3 convolutions and FC layers, its weights drawn as there."""
    blocks = []
    for convolutions, channels in architecture:
        for _ in range(convolutions):
            blocks += [nn.LazyConv2d(channels, kernel_size=3, padding=1), nn.ReLU()]
        blocks.append(nn.MaxPool2d(kernel_size=2, stride=2))
    net = nn.Sequential(
        *blocks,
        nn.Flatten(),
        *(nn.LazyLinear(units), nn.ReLU(), nn.Dropout(0.5)),
        *(nn.LazyLinear(units), nn.ReLU(), nn.Dropout(0.5)),
        nn.LazyLinear(num_classes),
    )
    net(torch.zeros(1, 1, size, size))
    return net.apply(d2l.init_cnn)


class Timed(d2l.Trainer):
    """The book's trainer, which also notes when each batch arrives, so that a warm-up can be left out."""

    def prepare_batch(self, batch):
        common.synchronize()
        self.arrivals.append(time.perf_counter())
        return super().prepare_batch(batch)

    def images_per_second(self, net, data, warm_up):
        """Train for one epoch and return the rate from the warm_up-th batch to the end."""
        self.arrivals = []
        self.fit(Classifier(net), data)
        common.synchronize()
        timed = len(data.train) - warm_up * data.batch_size
        return timed / (time.perf_counter() - self.arrivals[warm_up])


def fashion_mnist(dataset, folder, count, batch_size, size):
    """The book's data module on the first count images of dataset, written where it looks for them."""
    raw = Path(folder) / "data" / "FashionMNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    tensors = (dataset.train.pixels[:, 0], dataset.train.labels, dataset.test.pixels[:, 0], dataset.test.labels)
    for name, tensor in zip(FILES, tensors, strict=True):
        header = struct.pack(f">2xBB{tensor.ndim}I", 8, tensor.ndim, *tensor.shape)
        (raw / name).write_bytes(header + tensor.to(torch.uint8).numpy().tobytes())
    here = Path(folder) / "run"  # the book reads ../data
    here.mkdir(exist_ok=True)
    os.chdir(here)
    data = d2l.FashionMNIST(batch_size=batch_size, resize=(size, size))
    data.train = torch.utils.data.Subset(data.train, range(count))
    data.val_dataloader = lambda: None
    return data
