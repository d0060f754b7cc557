"""Argument checks: an argument's bounds stand in its annotation, `checked` applies them, one wording for all errors.

Count = Annotated[int, partial(integer, at_least=1)] is a type for readers and type checkers, and its second part the
check: called with the argument's name and value, it returns the value to go on with or raises an error that names both.
"""

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial, wraps
from numbers import Integral, Real
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
import torch
from torch import nn

Check = Callable[[str, Any], Any]
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
LARGEST = 2**63 - 1  # what PyTorch counts with has 64 bits


def checked(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Make function check its arguments by their annotations: Annotated[type, check], bool, Literal, nn.Module."""
    signature = inspect.signature(function)

    @wraps(function)
    def with_checks(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        given = signature.bind(*args, **kwargs)
        for name, check in _checks_of(function).items():
            if name in given.arguments:
                given.arguments[name] = check(name, given.arguments[name])
        return function(*given.args, **given.kwargs)

    return with_checks


def check_fields(instance: object) -> None:
    """Check the fields of a dataclass by their annotations and keep what the checks return: for __post_init__."""
    for name, check in _checks_of(type(instance)).items():  # type: ignore[arg-type]  # a class can be hashed
        object.__setattr__(instance, name, check(name, getattr(instance, name)))


@cache
def _checks_of(annotated: Any) -> dict[str, Check]:
    hints = get_type_hints(annotated, include_extras=True)
    return {name: check for name, hint in hints.items() if name != "return" and (check := _check_of(hint))}


def _check_of(hint: Any) -> Check | None:
    """The check that an annotation asks for; with "| None" it lets None pass."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return parts[1]
    if origin is Literal:
        return partial(choice, accepted=parts)
    if origin in (Union, UnionType):
        checks = [check for part in parts if (check := _check_of(part))]
        if checks and type(None) in parts:
            return lambda name, value: None if value is None else checks[0](name, value)
        return None
    return {bool: flag, nn.Module: module}.get(hint)


def _is(kind: type, value: Any) -> bool:
    """Whether value is a number of this kind, and none of True and False, which count as numbers to Python."""
    return isinstance(value, kind) and not isinstance(value, bool)


def _bounded(name: str, value: Any, at_least: Any, at_most: Any, above: Any = None) -> Any:
    if at_least is not None and value < at_least:
        raise ValueError(f"{name} must be at least {at_least}, not {shown(value)}")
    if above is not None and value <= above:
        raise ValueError(f"{name} must be above {above}, not {shown(value)}")
    if at_most is not None and value > at_most:
        limit = "2**63 - 1, as PyTorch counts with 64 bits" if at_most == LARGEST else at_most
        raise ValueError(f"{name} must be at most {limit}, not {shown(value)}")
    return value


def integer(name: str, value: Any, at_least: int | None = None, at_most: int | None = LARGEST) -> int:
    """Return value as an int; raise TypeError if it is not whole, ValueError if it is out of the stated bounds."""
    if not _is(Integral, value):
        raise TypeError(f"{name} must be an integer, not {shown(value)}")
    return int(_bounded(name, value, at_least, at_most))


def seed(name: str, value: Any) -> int:
    """Return any integer modulo 2**63, which torch's generators accept."""
    return integer(name, value, at_most=None) % 2**63


def flag(name: str, value: Any) -> bool:
    """Return value as a bool; raise TypeError if it is none."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, not {shown(value)}")
    return bool(value)


def number(
    name: str, value: Any, at_least: float | None = None, above: float | None = None, at_most: float | None = None
) -> float:
    """Return value as a finite float inside the stated bounds; raise TypeError or ValueError otherwise."""
    if not _is(Real, value):
        raise TypeError(f"{name} must be a number, not {shown(value)}")
    if not abs(value) <= sys.float_info.max:
        raise ValueError(f"{name} must be finite, not {shown(value)}")
    return float(_bounded(name, value, at_least, at_most, above))


def pair(name: str, value: Any, at_least: int | None = None, rising: bool = False) -> tuple[int, int]:
    """Return a pair from one integer or two, the second at least the first if rising; raise TypeError or ValueError."""
    values = value if isinstance(value, (tuple, list)) else (value, value)
    if len(values) != 2:
        raise ValueError(f"{name} must be an integer or a pair of them, not {shown(value)}")
    first = integer(name, values[0], at_least)
    return first, integer(f"the second of {name}", values[1], first if rising else at_least)


def choice(name: str, value: Any, accepted: Iterable[Any]) -> Any:
    """Return value if it is one of accepted; raise ValueError listing them otherwise."""
    accepted = list(accepted)
    if isinstance(value, bool) or not isinstance(value, (str, Real)) or value not in accepted:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, accepted))}, not {shown(value)}")
    return value


def sequence(name: str, value: Any) -> list[Any]:
    """Return the entries of a list, tuple, range or array as a list; raise TypeError for anything else."""
    if isinstance(value, (str, bytes, dict, set)) or not (np.iterable(value) and hasattr(value, "__len__")):
        raise TypeError(f"{name} must be a list, not {shown(value)}")
    return list(value)


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Say of a module that cannot be imported within which extra brings it."""
    try:
        yield
    except ModuleNotFoundError as error:
        message = f'{error.name} is not installed: pip install "vgglab[{name}]"'
        raise ModuleNotFoundError(message, name=error.name) from None


def path(name: str, value: Any) -> Path:
    """Return value, a str or a Path, as a Path with "~" replaced; raise TypeError or ValueError otherwise."""
    if not isinstance(value, (str, Path)):
        raise TypeError(f"{name} must be the path of a file or folder, not {shown(value)}")
    try:
        if "\0" not in str(value):
            return Path(value).expanduser()
    except RuntimeError:  # no such user
        pass
    raise ValueError(f"{name} must be the path of a file or folder, not {shown(str(value))}")


def module(name: str, value: Any) -> nn.Module:
    """Return value if it is a network; raise TypeError otherwise."""
    if not isinstance(value, nn.Module):
        raise TypeError(f"{name} must be a torch.nn.Module, not {shown(value)}")
    return value


def tensor(
    name: str, value: Any, dims: str | None = "N, C, H, W", floating: bool = True, empty: bool = False
) -> torch.Tensor:
    """Return value if it is a tensor of these dimensions (any if None), and empty only where that is allowed.

    Raises TypeError for other types and dtypes, ValueError for other shapes.
    """
    wanted = f"{name} must be a {'float ' * floating}tensor{f' ({dims})' if dims else ''}"
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{wanted}, not {shown(value)}")
    if value.is_complex() or floating and not value.is_floating_point():
        raise TypeError(f"{wanted}, not {value.dtype}")
    if dims and (value.ndim != dims.count(",") + 1 or not (value.numel() or empty)):
        raise ValueError(f"{wanted}{'' if empty else ', not empty'}, not the shape {tuple(value.shape)}")
    return value


def shape(name: str, value: Any) -> tuple[int, int, int]:
    """Return (channels, height, width) as positive integers; raise TypeError or ValueError otherwise."""
    if not isinstance(value, (tuple, list)) or len(value) != 3:
        raise ValueError(f"{name} must be (channels, height, width), not {shown(value)}")
    channels, height, width = (integer(name, n, 1) for n in value)
    return channels, height, width


def shown(value: Any) -> str:
    """A value as one short line; a number of thousands of digits, which Python refuses to print, by its length."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:
        return f"an integer of about {int(value).bit_length() * 3 // 10:,} digits"
    return text if len(text) <= 200 else f"{text[:197]}..."


@contextmanager
def running(name: str, shape: Sequence[int]) -> Iterator[None]:
    """Raise ValueError that names the argument where a network inside the block cannot run on it."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a network of somebody else's can raise any
        if str(error).startswith((f"{name} must", "model must")):
            raise
        words = f"{type(error).__name__}: {error}"
        raise ValueError(f"the model does not run on {name} of shape {tuple(shape)}: {words}") from error


Count = Annotated[int, partial(integer, at_least=1)]
Index = Annotated[int, partial(integer, at_least=0)]
Whole = Annotated[int, integer]
Seed = Annotated[int, seed]
Share = Annotated[float, partial(number, at_least=0, at_most=1)]
Positive = Annotated[float, partial(number, above=0)]
NonNegative = Annotated[float, partial(number, at_least=0)]
FilePath = Annotated[str | Path, path]
Shape = Annotated[tuple[int, int, int], shape]
Maps = Annotated[torch.Tensor, tensor]
