"""Checkpoints: a run can be stopped at any time and goes on from where it was last saved."""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vgglab._files import prepare, replacing

State = dict[str, Any]


def save(path: Path, state: State) -> None:
    """Write state to path, keeping the one before it under the name path + ".before"."""
    with replacing(path) as temporary:
        write(state, temporary)
        if path.exists():
            path.replace(f"{path}.before")


def write(content: State, path: Path) -> None:
    """Write content as torch.save does; raises the system's OSError, such as a full disk, which torch.save hides."""
    with path.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None


def load(path: Path, own: State) -> State | None:
    """Return the newest readable state of the run that has the state own at its beginning, or None without any.

    A damaged file gives way to the one before it, with a warning. Nothing in a file is executed. Raises ValueError
    for a checkpoint of another run, naming what differs, and OSError where none could be written.
    """
    prepare(path)
    for candidate in (path, Path(f"{path}.before")):
        state = _read(candidate, own) if candidate.exists() else None
        if state is not None:
            there, here = ({**run["recipe"], **run, "recipe": None} for run in (state["identity"], own["identity"]))
            differing = [
                f"{name} is {there.get(name)!r} there and {value!r} here"
                for name, value in here.items()
                if type(there.get(name)) is not type(value) or there.get(name) != value
            ]
            if differing:
                raise ValueError(f"{candidate} belongs to another run: {'; '.join(differing)}. Name another file")
            return state
    return None


def _read(path: Path, own: State) -> State | None:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        complete = all(
            isinstance(state[name], Tensor if isinstance(value, Tensor) else type(value)) for name, value in own.items()
        )
        if complete and isinstance(state["identity"]["recipe"], dict):
            return state
        reason = "it is not a checkpoint of vgglab"
    except Exception as error:  # a damaged file can fail in any way
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
    warnings.warn(f"{path} cannot be used ({reason}); going back to the checkpoint before it", stacklevel=9)
    return None
