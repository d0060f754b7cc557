"""What the benchmarks share: vgglab as it lies beside them, and records that a stopped measurement goes on with."""

import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vgglab._files import write_text

OWN = Path("records")  # of the current folder, where the lessons look first


def read(path):
    """The record at path, empty where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def write(path, record):
    write_text(path, json.dumps(record, indent=1) + "\n")


def on_this_machine(recorded, environment):
    """Whether a recorded environment has the device, the versions and the precision of this one, on whatever day."""
    return all(recorded.get(name) == value for name, value in environment.items() if name != "date")


def synchronize():
    """Wait until the GPU has done what it was given, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
