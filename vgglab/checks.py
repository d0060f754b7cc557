"""Argument checks that raise errors a reader can act on: the argument, its value, what is accepted."""

import math
from numbers import Integral, Real


def integer(name, value, at_least=None):
    """Return value as an int; raise TypeError if it is not whole, ValueError if it is below at_least."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer, not {value!r}")
    if at_least is not None and value < at_least:
        raise ValueError(f"{name} must be at least {at_least}, not {value}")
    return int(value)


def number(name, value, at_least=None, above=None, at_most=None):
    """Return value as a finite float inside the stated bounds; raise TypeError or ValueError otherwise."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, not {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, not {value}")
    if at_least is not None and value < at_least:
        raise ValueError(f"{name} must be at least {at_least}, not {value}")
    if above is not None and value <= above:
        raise ValueError(f"{name} must be above {above}, not {value}")
    if at_most is not None and value > at_most:
        raise ValueError(f"{name} must be at most {at_most}, not {value}")
    return float(value)


def pair(name, value, at_least=None):
    """Return (height, width) from one integer or two; raise TypeError or ValueError otherwise."""
    values = value if isinstance(value, (tuple, list)) else (value, value)
    if len(values) != 2:
        raise ValueError(f"{name} must be an integer or a pair (height, width), not {value!r}")
    return integer(name, values[0], at_least), integer(name, values[1], at_least)


def choice(name, value, accepted):
    """Return value if it is one of accepted; raise ValueError listing them otherwise."""
    accepted = list(accepted)
    if value not in accepted:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, accepted))}, not {value!r}")
    return value
