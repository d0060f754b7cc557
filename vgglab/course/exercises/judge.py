"""How answers are judged: a judge takes an answer and returns None if it is right, else what is wrong with it."""

import copy
import math
from collections.abc import Mapping
from numbers import Real

import torch

SHARE_OF_ROUNDING = 0.01  # how far an answer may be rounded, relative to the right one


class Unanswered(Exception):
    """The answer is still missing."""


def value(right, look, slips=()):
    """Judge a number, a word or a tuple of them against right, a function without arguments that computes it.

    look says where to look when it is wrong; slips are pairs (wrong answer, what went wrong), said instead.
    """

    def judge(answer):
        answer, expected = answered(answer), right()
        for wrong, reason in slips:
            if same(answer, wrong):
                return reason
        if not isinstance(expected, tuple):
            return None if same(answer, expected) else f"{shown(answer)} is not it; {look}"
        complaint = not_so_many(answer, len(expected))
        if complaint:
            return complaint
        for place, (one, other) in enumerate(zip(answer, expected, strict=True), 1):
            if not same(one, other):
                return f"value {place} of {len(expected)}, {shown(one)}, is not right; {look}"
        return None

    return judge


def function(cases, look):
    """Judge a function by what it returns for each of cases(), from small to large.

    A case is (what the input is, the arguments, a judge of what comes back).
    """

    def judge(answer):
        if not callable(answered(answer)):
            return f"it takes a function, not {shown(answer)}"
        for text, arguments, judge_result in cases():
            try:
                result = answer(*copy.deepcopy(arguments))
            except Exception as error:
                return f"for {text} it raises {type(error).__name__}: {error}; {look}"
            complaint = judge_result(answered(result))
            if complaint:
                return f"for {text} {complaint}; {look}"
        return None

    return judge


def equals(expected):
    """Judge a tensor or number against expected, up to rounding."""

    def judge(result):
        found = as_tensor(result)
        if found is None:
            return f"it returns {shown(result)}, which is no tensor of numbers"
        right = torch.as_tensor(expected, dtype=torch.float64)
        if found.shape != right.shape:
            return f"it returns the shape {tuple(found.shape)} instead of {tuple(right.shape)}"
        wrong = ~torch.isclose(found, right, rtol=1e-4, atol=1e-6)
        if not wrong.any():
            return None
        place = tuple(wrong.nonzero()[0].tolist())
        at = f" at {place}" if place else ""
        return f"it gives {found[place].item():.4g}{at} instead of {right[place].item():.4g}"

    return judge


def answered(answer):
    """Return answer; raise Unanswered where it is None, empty, or nothing but None."""
    if answer is None or (isinstance(answer, (tuple, list)) and (not answer or all(part is None for part in answer))):
        raise Unanswered
    return answer


def not_so_many(answer, count):
    """What is wrong with an answer that should have count values; None if nothing is."""
    found = len(answer) if hasattr(answer, "__len__") and not isinstance(answer, (str, Mapping)) else 1
    return None if found == count else f"it takes {count} values, not {found}: {shown(answer)}"


def same(one, other):
    """Whether an answer is what is expected: integers and words exactly, other numbers up to 1 % of rounding."""
    one, other = plain(one), plain(other)
    if isinstance(other, tuple):
        return isinstance(one, tuple) and len(one) == len(other) and all(map(same, one, other))
    if isinstance(other, str):
        return isinstance(one, str) and one.strip().casefold() == other.casefold()
    if isinstance(one, bool) or not isinstance(one, Real):
        return False
    return one == other if isinstance(other, int) else math.isclose(one, other, rel_tol=SHARE_OF_ROUNDING)


def plain(answer):
    """The same with tensors and arrays as numbers, and lists as tuples."""
    if hasattr(answer, "tolist"):
        answer = answer.tolist()
    return tuple(map(plain, answer)) if isinstance(answer, (list, tuple)) else answer


def as_tensor(result):
    """Return result as a float64 tensor, None where it is none and cannot become one."""
    try:
        return torch.as_tensor(result).detach().to("cpu", torch.float64)
    except (TypeError, ValueError, RuntimeError):
        return None


def shown(answer):
    """An answer as one short line."""
    text = " ".join(repr(plain(answer)).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def random(*shape, seed=0):
    """Return a float64 tensor of normal random numbers that depend on shape and seed alone."""
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
