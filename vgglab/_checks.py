"""Argument checks that raise errors a reader can act on: the argument, its value, what is accepted."""

import sys
from contextlib import contextmanager
from numbers import Integral, Real
from pathlib import Path

import numpy as np
import torch
from torch import nn

LARGEST = 100_000  # side or channels of a tensor


def integer(name, value, at_least=None, at_most=None):
    """Return value as an int; raise TypeError if it is not whole, ValueError if it is out of the stated bounds."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer, not {value!r}")
    if at_least is not None and value < at_least:
        raise ValueError(f"{name} must be at least {at_least}, not {value}")
    if at_most is not None and value > at_most:
        raise ValueError(f"{name} must be at most {at_most}, not {value}")
    return int(value)


def seed(value):
    """Return the seed as an integer that torch's generators accept: any integer, modulo 2**63."""
    return integer("seed", value) % 2**63


def flag(name, value):
    """Return value as a bool; raise TypeError if it is none."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, not {value!r}")
    return bool(value)


def number(name, value, at_least=None, above=None, at_most=None):
    """Return value as a finite float inside the stated bounds; raise TypeError or ValueError otherwise."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, not {value!r}")
    if not abs(value) <= sys.float_info.max:
        raise ValueError(f"{name} must be finite, not {value}")
    if at_least is not None and value < at_least:
        raise ValueError(f"{name} must be at least {at_least}, not {value}")
    if above is not None and value <= above:
        raise ValueError(f"{name} must be above {above}, not {value}")
    if at_most is not None and value > at_most:
        raise ValueError(f"{name} must be at most {at_most}, not {value}")
    return float(value)


def pair(name, value, at_least=None, at_most=None):
    """Return (height, width) from one integer or two; raise TypeError or ValueError otherwise."""
    values = value if isinstance(value, (tuple, list)) else (value, value)
    if len(values) != 2:
        raise ValueError(f"{name} must be an integer or a pair (height, width), not {value!r}")
    return integer(name, values[0], at_least, at_most), integer(name, values[1], at_least, at_most)


def choice(name, value, accepted):
    """Return value if it is one of accepted; raise ValueError listing them otherwise."""
    accepted = list(accepted)
    if isinstance(value, bool) or not isinstance(value, (str, Real)) or value not in accepted:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, accepted))}, not {value!r}")
    return value


def sequence(name, value):
    """Return the entries of a list, tuple, range or array as a list; raise TypeError for anything else."""
    if isinstance(value, (str, bytes, dict, set)) or not (np.iterable(value) and hasattr(value, "__len__")):
        raise TypeError(f"{name} must be a list, not {value!r}")
    return list(value)


def path(name, value):
    """Return value, a str or a Path, as a Path with "~" replaced; raise TypeError or ValueError otherwise."""
    if not isinstance(value, (str, Path)):
        raise TypeError(f"{name} must be the path of a file or folder, not {value!r}")
    try:
        if "\0" not in str(value):
            return Path(value).expanduser()
    except RuntimeError:  # no such user
        pass
    raise ValueError(f"{name} must be the path of a file or folder, not {str(value)!r}")


def module(name, value):
    """Return value if it is a network; raise TypeError otherwise."""
    if not isinstance(value, nn.Module):
        raise TypeError(f"{name} must be a torch.nn.Module, not {value!r}")
    return value


def tensor(name, value, dims="N, C, H, W", floating=True, empty=False):
    """Return value if it is a tensor of these dimensions (any if None), and empty only where that is allowed.

    Raises TypeError for other types and dtypes, ValueError for other shapes.
    """
    wanted = f"{name} must be a {'float ' * floating}tensor{f' ({dims})' if dims else ''}"
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{wanted}, not {value!r}")
    if value.is_complex() or floating and not value.is_floating_point():
        raise TypeError(f"{wanted}, not {value.dtype}")
    if dims and (value.ndim != dims.count(",") + 1 or not (value.numel() or empty)):
        raise ValueError(f"{wanted}{'' if empty else ', not empty'}, not the shape {tuple(value.shape)}")
    return value


@contextmanager
def running(name, shape):
    """Raise ValueError that names the argument where a network inside the block cannot run on it."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
        if str(error).startswith(f"{name} must"):
            raise
        raise ValueError(f"{name} must suit the model, which does not run on images {tuple(shape)}: {error}") from error
