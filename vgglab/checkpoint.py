"""Checkpoints: a run can be stopped at any time and goes on from the last epoch that it finished."""

import pickle
import warnings
from pathlib import Path

import torch

from vgglab.files import replacing


def save(path, model, optimizer, epochs, identity):
    """Write the state after an epoch to path, keeping the one before it under the name path + ".before"."""
    path = Path(path)
    state = {
        "identity": identity,
        "epochs": epochs,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    with replacing(path) as temporary:
        torch.save(state, temporary)
        if path.exists():
            path.replace(_before(path))


def restore(path, model, optimizer, identity):
    """Load the newest readable checkpoint into model and optimizer and return its epochs; [] where there is none.

    A damaged file gives way to the one before it, with a warning. Nothing in a file is executed. Raises ValueError
    for a checkpoint of another run, naming what differs.
    """
    path = Path(path)
    for candidate in (path, _before(path)):
        if candidate.exists():
            state = _read(candidate)
            if state is not None:
                _refuse_another_run(candidate, state["identity"], identity)
                model.load_state_dict(state["model"])
                optimizer.load_state_dict(state["optimizer"])
                return state["epochs"]
    return []


def _read(path):
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state.keys() >= {"identity", "epochs", "model", "optimizer"}:
            return state
        reason = "it is not a checkpoint of vgglab"
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, AttributeError, KeyError, ValueError) as error:
        reason = str(error).splitlines()[0]
    warnings.warn(f"{path} cannot be used ({reason}); going back to the checkpoint before it", stacklevel=4)
    return None


def _refuse_another_run(path, found, expected):
    differing = [
        f"{name} is {found.get(name)!r} there and {value!r} here"
        for name, value in _flat(expected).items()
        if (found := _flat(found)).get(name) != value
    ]
    if differing:
        raise ValueError(f"{path} belongs to another run: {'; '.join(differing)}. Name another file, or resume=False")


def _flat(identity):
    return {**{k: v for k, v in identity.items() if k != "recipe"}, **identity.get("recipe", {})}


def _before(path):
    return path.with_name(path.name + ".before")
