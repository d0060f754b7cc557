"""A machine with a GPU, played on one without: each tensor says where it lies, and the CPU computes its numbers.

PyTorch's FakeTensorMode, whose rules for tensors on several devices these are, has no numbers, so that code which reads
one cannot go on; and it makes no backward pass where PyTorch was built for CUDA and finds no driver.
"""

from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
BELOW = torch.device("cpu", 0)  # what torch's C++ takes the GPU for: nobody else gives a CPU a number
ACROSS = {torch.ops.aten.copy_.default, torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default}


class OnGPU(torch.Tensor):
    """A tensor that lies on a GPU for all who ask, and has its numbers on the CPU."""

    device, is_cuda, is_cpu = GPU, True, False
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, numbers):
        layout = numbers.shape, numbers.stride(), numbers.storage_offset()
        with torch.inference_mode(False):
            self = torch.Tensor._make_wrapper_subclass(cls, *layout, dtype=numbers.dtype, device=BELOW)
        self.numbers = numbers
        return self

    @classmethod
    def __torch_dispatch__(cls, *_):
        return NotImplemented  # Machine has answered before

    def __repr__(self):
        return f"{self.numbers} on {GPU}"

    def tolist(self):
        return self.cpu().tolist()

    def __reduce_ex__(self, protocol):
        return self.numbers.__reduce_ex__(protocol)


class Machine(TorchDispatchMode):
    """Inside the block, a machine with one GPU."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        """Compute operation on the CPU; its results lie where PyTorch would have them."""
        given = args, kwargs or {}
        asked = tree_map_only(torch.device, lambda device: GPU if device in (BELOW, GPU) else device, given)
        if not any(isinstance(leaf, OnGPU) or leaf is GPU for leaf in tree_leaves(asked)):
            return operation(*args, **given[1])
        with self:
            results = operation.decompose(*args, **given[1])
        if results is not NotImplemented:
            return results
        place = place_of_results(operation, *asked)
        here = tree_map_only(torch.device, lambda device: CPU if device is GPU else device, asked)
        here_args, here_kwargs = tree_map_only(OnGPU, lambda tensor: tensor.numbers, here)
        results = operation(*here_args, **here_kwargs)
        if place == GPU:
            results = tree_map_only(torch.Tensor, OnGPU, results)
        return return_and_correct_aliasing(operation, *given, results)


def place_of_results(operation, args, kwargs):
    """The device of the results; raises RuntimeError where tensors lie on two devices, but for a single CPU number."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    if kwargs.get("device") is not None:
        return kwargs["device"]
    if operation in ACROSS:
        return tensors[0].device
    places = {tensor.device for tensor in tensors if tensor.ndim or tensor.device != CPU}
    if operation._schema.is_mutable:
        places.add(tensors[0].device)
    if len(places) > 1:
        raise RuntimeError(f"{operation} got tensors on two devices")
    return places.pop()


class Generator(torch.Generator):
    """A generator of the CPU's that remembers for which device it was made."""

    def __new__(cls, device="cpu"):
        return super().__new__(cls)

    def __init__(self, device="cpu"):
        self.place = torch.device(device)


class Requests(TorchFunctionMode):
    """Gives "cuda" its number, and refuses to draw on one device with the generator of another, as PyTorch does."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        given = args, kwargs or {}
        args, kwargs = tree_map_only((torch.device, str), lambda name: GPU if str(name) == "cuda" else name, given)
        result = function(*args, **kwargs)
        generator = kwargs.get("generator")
        if isinstance(generator, Generator) and isinstance(result, torch.Tensor):
            if result.device.type not in (generator.place.type, "meta"):
                raise RuntimeError(f"a generator for {generator.place} cannot draw numbers on {result.device}")
        return result


@contextmanager
def machine_with_gpu(monkeypatch):
    """Inside the block this is a machine with one GPU, cuda:0."""
    played = {
        "_lazy_init": None, "is_available": True, "device_count": 1, "set_device": None, "get_device_name": "played",
        "is_bf16_supported": True, "synchronize": None, "max_memory_allocated": 0,
    }  # fmt: skip
    for name, answer in played.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, answer=answer, **__: answer)
    autocast, enabled, fork = torch.autocast, torch.is_autocast_enabled, torch.random.fork_rng
    monkeypatch.setattr(torch, "autocast", lambda device, *options: autocast("cpu", *options))
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: enabled("cpu"))
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: fork([]))
    monkeypatch.setattr(torch, "Generator", Generator)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor, *_: tensor)
    torch.__future__.set_swap_module_params_on_conversion(True)
    torch._C._set_only_lift_cpu_tensors(True)
    with Requests(), Machine():
        yield GPU
    torch._C._set_only_lift_cpu_tensors(False)
    torch.__future__.set_swap_module_params_on_conversion(False)
