"""The machine that a network is trained on: its device, its arithmetic, its memory, and what to record of it."""

import ctypes
import os
import platform
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path

import torch

from vgglab import _checks as checks

PRECISIONS = ("auto", "float32", "bfloat16")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # the names in glibc's malloc.h


def find_device(device="auto"):
    """Return the torch.device that a name stands for; "auto" is the GPU where there is one. Raises ValueError."""
    if isinstance(device, str) and device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        if isinstance(device, (str, torch.device)) and _is_here(torch.device(device)):
            return torch.device(device)
        reason = "this machine has none"
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = error
    raise ValueError(f'device must be "auto", "cpu", "cuda" or the like, not {device!r}: {reason}')


def _is_here(device):
    if device.type == "cuda":
        return (device.index or 0) < torch.cuda.device_count()
    return device.type != "meta" and torch.empty(0, device=device) is not None


def device_of(model):
    """Return the device of a network's parameters; raises TypeError for what is no network, ValueError without any."""
    parameter = next(checks.module("model", model).parameters(), None)
    if parameter is None:
        raise ValueError("model must have parameters, and has none")
    return parameter.device


def find_precision(precision, device):
    """Return "float32" or "bfloat16"; "auto" is bfloat16 where PyTorch has hardware for it. Raises ValueError."""
    checks.choice("precision", precision, PRECISIONS)
    if precision != "auto":
        return precision
    if find_device(device).type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    in_hardware = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    # ATEN_CPU_CAPABILITY and ONEDNN_MAX_CPU_ISA may hold PyTorch to less than the CPU has.
    used = torch.backends.cpu.get_cpu_capability() == "AVX512" and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return "bfloat16" if in_hardware and used else "float32"


def autocast(device, precision):
    """Compute convolutions and matrix products inside the block in precision."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


@contextmanager
def own_random_state(device):
    """Leave the caller's random numbers as they were, whatever is drawn inside the block."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield


def keep_freed_memory():
    """Let glibc keep the memory that a training step frees, so that the next step need not ask for it again."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 2**31 - 1)
        libc.mallopt(M_TRIM_THRESHOLD, -1)  # never


def environment(device, precision):
    """Return what to record of the machine beside a result, as a dict of plain values."""
    return {
        "precision": precision,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def processor():
    """Return the CPU's model name where the system tells it, and the number of cores that may be used."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return f"{next(names, platform.processor() or platform.machine())}, {cores()} cores"


def cores():
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
