"""The machine that a network is trained on: its device, its arithmetic, its memory, and what to record of it."""

import ctypes
import os
import platform
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import nn

from vgglab._checks import checked

Precision = Literal["auto", "float32", "bfloat16"]
PRECISIONS = get_args(Precision)


def find_device(device: str | torch.device = "auto") -> torch.device:
    """Return the torch.device that a name stands for; "auto" is the GPU where there is one. Raises ValueError."""
    if isinstance(device, str) and device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    with suppress(RuntimeError, AssertionError, ImportError):
        found = torch.device(device) if isinstance(device, (str, torch.device)) else torch.device("meta")
        if found.type == "cuda" and (found.index or 0) < torch.cuda.device_count():
            return found
        if found.type not in ("cuda", "meta"):
            torch.empty(0, device=found)  # raises where this machine has no such device
            return found
    raise ValueError(f'device must be "auto", "cpu", "cuda" or another that this machine has, not {device!r}')


@checked
def device_of(model: nn.Module) -> torch.device:
    """Return the device of a network's parameters; raises TypeError for what is no network, ValueError without any."""
    for parameter in model.parameters():
        return parameter.device
    raise ValueError("model must have parameters, and has none")


@checked
def find_precision(precision: Precision, device: str | torch.device) -> str:
    """Return "float32" or "bfloat16"; "auto" is bfloat16 where PyTorch has hardware for it. Raises ValueError."""
    if precision != "auto":
        return precision
    if find_device(device).type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    in_hardware = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    # ATEN_CPU_CAPABILITY and ONEDNN_MAX_CPU_ISA may hold PyTorch to less than the CPU has.
    used = torch.backends.cpu.get_cpu_capability() == "AVX512" and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return "bfloat16" if in_hardware and used else "float32"


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Compute convolutions and matrix products inside the block in precision."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


def keep_freed_memory() -> None:
    """Let glibc keep the memory that a training step frees, so that the next step need not ask for it again."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(-3, 2**31 - 1)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, -1)  # M_TRIM_THRESHOLD: never


def environment(device: torch.device, precision: str) -> dict[str, Any]:
    """Return what to record of the machine beside a result, as a dict of plain values."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    cpu = f"{next(names, platform.processor() or platform.machine())}, {cores()} cores"
    return {
        "precision": precision,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
