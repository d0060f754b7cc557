"""One measurement in a process of its own: python benchmarks/sides.py NAME JSON-ARGUMENTS prints a JSON result."""

import json
import sys
import tempfile
import time
from dataclasses import replace

import common
import d2l_loop
import torch
from torch import nn

from vgglab import data, machine, training

try:
    import resource
except ImportError:  # Windows
    resource = None

BATCH = 128
MATRIX = {"cpu": 4096, "cuda": 8192}  # the side of those that tell a machine's best rate


def network(name, size):
    """The same network for both sides, by name."""
    if name == "cpu recipe":
        return replace(training.RECIPES["cpu"], size=size).model()
    return d2l_loop.vgg({"quarter": d2l_loop.QUARTER, "full": d2l_loop.FULL}[name], size)


def loop_d2l(name, size, batches, keep_memory=False):
    """Images/s of the book's loop, float32, four loading processes."""
    if keep_memory:
        machine.keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        source = d2l_loop.fashion_mnist(data.load(), folder, batches * BATCH, BATCH, size)
        trainer = d2l_loop.Timed(max_epochs=1, num_gpus=1)
        rate = trainer.images_per_second(network(name, size), source, warm_up=batches // 4)
    return {"images_per_second": rate, "peak_mb": peak_mb()}


def loop_ours(name, size, batches, precision, compile=False, batch_size=BATCH):
    """Images/s of fit: the second epoch on the same images."""
    dataset = data.load()
    few = data.Splits(dataset.name, dataset.train[: batches * BATCH], dataset.test[:10])
    start = time.perf_counter()
    first, second = training.fit(
        network(name, size), few, recipe=replace(training.RECIPES["d2l"], size=size, batch_size=batch_size),
        epochs=2, precision=precision, compile=compile, progress=False,
    ).epochs  # fmt: skip
    seconds = second["seconds"] - first["seconds"]
    return {
        "images_per_second": len(few.train) / seconds,
        "peak_mb": peak_mb(),
        "warm_up_seconds": time.perf_counter() - start - 2 * seconds,
    }


def data_d2l(size, batches):
    """Images/s of the book's data loader alone."""
    with tempfile.TemporaryDirectory() as folder:
        source = d2l_loop.fashion_mnist(data.load(), folder, batches * BATCH, BATCH, size)
        return {"images_per_second": rate(iter(source.get_dataloader(True)), batches)}


def data_ours(size, batches):
    """Images/s of batches alone, and how far its pixels are from the book's, in grey levels."""
    images = data.load().train
    machine.keep_freed_memory()
    device = machine.find_device()
    own = data.batches(images, BATCH, None if size == images.pixels.shape[-1] else size, shuffle=True, device=device)
    return {"images_per_second": rate(own, batches), "grey_levels_apart": grey_levels_apart(images[:100], size)}


def grey_levels_apart(images, size):
    """The largest difference between our resized pixels and torchvision's of PIL images, on the scale 0-255."""
    from torchvision.transforms import Resize
    from torchvision.transforms.functional import pil_to_tensor, to_pil_image

    theirs = torch.stack([pil_to_tensor(Resize((size, size))(to_pil_image(picture))) for picture in images.pixels])
    return (data.resize(images.pixels, size) - theirs).abs().max().item()


def rate(batches, count):
    """Images/s from the first quarter of count batches on."""
    warm_up, images = count // 4, 0
    for number, (x, _) in zip(range(count), batches, strict=False):
        if number == warm_up:
            common.synchronize()
            start, images = time.perf_counter(), 0
        images += len(x)
    common.synchronize()
    return images / (time.perf_counter() - start)


def machine_rate(precision):
    """The machine's best rate (operations/s) in matrix products and in 3x3 convolutions of VGG's shapes."""
    device, dtype = machine.find_device(), getattr(torch, precision)
    machine.keep_freed_memory()
    side = MATRIX[device.type]
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    rates = {"matrix product": best(lambda: a @ b, 2 * side**3)}
    for channels, pixels in ((64, 56), (128, 28)):
        conv = nn.Conv2d(channels, channels, 3, padding=1, device=device, dtype=dtype)
        x = torch.randn(BATCH, channels, pixels, pixels, device=device).to(dtype)
        x, conv = x.to(memory_format=torch.channels_last), conv.to(memory_format=torch.channels_last)
        with torch.no_grad():
            rates[f"{channels} channels"] = best(lambda x=x, conv=conv: conv(x), 18 * channels**2 * pixels**2 * BATCH)
    return {"operations_per_second": max(rates.values()), "each": rates}


def best(function, operations):
    function()
    times = []
    for _ in range(8):
        common.synchronize()
        start = time.perf_counter()
        function()
        common.synchronize()
        times.append(time.perf_counter() - start)
    return operations / min(times)


def peak_mb():
    """The largest memory this process has held, in MB: the GPU's where there is one. Windows does not tell."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    if resource is None:
        return float("nan")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


if __name__ == "__main__":
    output, sys.stdout = sys.stdout, sys.stderr
    result = globals()[sys.argv[1]](**json.loads(sys.argv[2]))
    print(json.dumps(result), file=output)
