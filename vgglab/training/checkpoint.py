"""Checkpoints: a run can be stopped at any time and goes on from where it was last saved."""

import warnings
from pathlib import Path

import torch

from vgglab._files import replacing

CONTENT = {
    "identity": dict,
    "epochs": list,
    "step": int,
    "seconds": float,
    "losses": torch.Tensor,
    "correct": torch.Tensor,
    "model": dict,
    "optimizer": dict,
}


def save(path, state):
    """Write state, a dict of CONTENT, to path, keeping the one before it under the name path + ".before"."""
    path = Path(path)
    with replacing(path) as temporary:
        write(state, temporary)
        if path.exists():
            path.replace(_before(path))


def write(content, path):
    """Write content as torch.save does; raises the system's OSError, such as a full disk, which torch.save hides."""
    with path.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None


def load(path, identity):
    """Return the newest readable state, or None where there is none.

    A damaged file gives way to the one before it, with a warning. Nothing in a file is executed. Raises ValueError
    for a checkpoint of another run, naming what differs.
    """
    path = Path(path)
    for candidate in (path, _before(path)):
        if candidate.exists():
            state = _read(candidate)
            if state is not None:
                _refuse_another_run(candidate, state["identity"], identity)
                return state
    return None


def _read(path):
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if all(isinstance(state[name], kind) for name, kind in CONTENT.items()):
            return state
        reason = "it is not a checkpoint of vgglab"
    except Exception as error:  # a damaged file can fail in any way
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
    warnings.warn(f"{path} cannot be used ({reason}); going back to the checkpoint before it", stacklevel=5)
    return None


def _refuse_another_run(path, found, expected):
    there, here = _flat(found), _flat(expected)
    differing = [
        f"{name} is {there.get(name)!r} there and {value!r} here"
        for name, value in here.items()
        if type(there.get(name)) is not type(value) or there.get(name) != value
    ]
    if differing:
        raise ValueError(f"{path} belongs to another run: {'; '.join(differing)}. Name another file, or resume=False")


def _flat(identity):
    recipe = identity.get("recipe")
    return {**{k: v for k, v in identity.items() if k != "recipe"}, **(recipe if isinstance(recipe, dict) else {})}


def _before(path):
    return path.with_name(path.name + ".before")
