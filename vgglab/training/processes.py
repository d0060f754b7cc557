"""Several processes that train one network together: torchrun starts them, DistributedDataParallel joins them."""

import gc
import os
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from vgglab.machine import find_device

PATIENCE = timedelta(minutes=10)  # how long the processes wait for the slowest of them


class Processes:
    """The processes of one run: rank of this one, their count, its device; one process where torchrun started none."""

    def __init__(self, device="auto"):
        self.rank, self.count = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        self.device = find_device(device)
        if self.device.type == "cuda" and self.device.index is None:
            self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
            torch.cuda.set_device(self.device)
        if self.count > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo", timeout=PATIENCE)

    @property
    def share(self):
        """(rank, count): which part of each batch is this process's."""
        return self.rank, self.count

    @property
    def writes(self):
        """Whether this is the one process that writes files and shows progress."""
        return self.rank == 0

    def join(self, model):
        """Return model so that every backward pass averages its gradients over the processes.

        On GPUs batch normalization takes its statistics over all processes' images, on CPUs over each one's own.
        """
        if self.count == 1:
            return model
        if self.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return DistributedDataParallel(model, device_ids=[self.device] if self.device.type == "cuda" else None)

    def sum(self, tensor):
        """Return the sum of tensor over all processes."""
        if self.count > 1:
            dist.all_reduce(tensor)
        return tensor

    def from_writer(self, value):
        """Return value as the writing process has it."""
        if self.count == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, device=self.device)
        return values[0]


def leave():
    """End the group of processes, if there is one, when all of them are done."""
    if dist.is_initialized():
        gc.collect()  # what DistributedDataParallel leaves behind must not outlive the group
        dist.barrier()
        dist.destroy_process_group()
