"""Checkpoints: a run can be stopped at any time and goes on from where it was last saved."""

import pickle
import warnings
from pathlib import Path

import torch

from vgglab.files import replacing

CONTENT = {"identity", "epochs", "step", "seconds", "losses", "correct", "model", "optimizer"}


def save(path, state):
    """Write state, a dict of CONTENT, to path, keeping the one before it under the name path + ".before"."""
    path = Path(path)
    with replacing(path) as temporary:
        torch.save(state, temporary)
        if path.exists():
            path.replace(_before(path))


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
        if state.keys() >= CONTENT:
            return state
        reason = "it is not a checkpoint of vgglab"
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, AttributeError, KeyError, ValueError) as error:
        reason = str(error).splitlines()[0]
    warnings.warn(f"{path} cannot be used ({reason}); going back to the checkpoint before it", stacklevel=5)
    return None


def _refuse_another_run(path, found, expected):
    there, here = _flat(found), _flat(expected)
    differing = [
        f"{name} is {there.get(name)!r} there and {here[name]!r} here" for name in here if there.get(name) != here[name]
    ]
    if differing:
        raise ValueError(f"{path} belongs to another run: {'; '.join(differing)}. Name another file, or resume=False")


def _flat(identity):
    return {**{k: v for k, v in identity.items() if k != "recipe"}, **identity.get("recipe", {})}


def _before(path):
    return path.with_name(path.name + ".before")
