"""Several processes that train one network together: torchrun starts them, DistributedDataParallel joins them."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from vgglab.machine import find_device

PATIENCE = timedelta(minutes=10)  # how long the processes wait for the slowest of them


class Processes:
    """The processes of one run: world_size of them, this one's rank and device; one where torchrun started none.

    share, (rank, world_size), is which part of each batch is this one's; is_main whether it writes and shows progress.
    """

    def __init__(self, device: str | torch.device = "auto") -> None:
        self.rank, self.world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        self.share, self.is_main = (self.rank, self.world_size), self.rank == 0
        self.device = find_device(device)
        if self.device.type == "cuda" and self.device.index is None:
            self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
            torch.cuda.set_device(self.device)
        if self.world_size > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo", timeout=PATIENCE)

    @contextmanager
    def wrap(self, network: nn.Module) -> Iterator[nn.Module]:
        """Yield network so that inside the block every backward pass averages its gradients over the processes.

        On GPUs batch normalization takes its statistics over all processes' images, on CPUs over each one's own.
        """
        if self.world_size == 1:
            yield network
            return
        on_gpu = self.device.type == "cuda"
        layers = [(name, layer) for name, layer in network.named_modules() if on_gpu and isinstance(layer, _BatchNorm)]
        try:
            if on_gpu:
                network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # which shares the weights
            yield DistributedDataParallel(network, device_ids=[self.device] if on_gpu else None)
        finally:
            for name, layer in layers:
                network.set_submodule(name, layer)

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum of tensor over all processes."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def broadcast(self, value: Any) -> Any:
        """Return value as the main process has it."""
        values = [value]
        if self.world_size > 1:
            dist.broadcast_object_list(values, src=0, device=self.device)
        return values[0]


def leave() -> None:
    """End the group of processes, if there is one, when all of them are done."""
    if dist.is_initialized():
        gc.collect()  # what DistributedDataParallel leaves behind must not outlive the group
        dist.barrier()
        dist.destroy_process_group()
