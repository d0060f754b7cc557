"""How answers are judged: a judge takes an answer and returns None if it is right, else what is wrong with it."""

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor

Answer = Any  # a learner may give anything
Judge = Callable[..., str | None]  # of an answer, and of what the exercise needs of the lesson
Case = tuple[str, tuple[Any, ...], Judge]
SHARE_OF_ROUNDING = 0.01  # how far an answer may be rounded, relative to the right one


class Unanswered(Exception):
    """The answer is still missing."""


def value(right: Answer, look: str, slips: Sequence[tuple[Answer, str]] = ()) -> Judge:
    """Judge a number, a word or a tuple of them against the right one; the solution in the lesson finds it.

    look says where to look when it is wrong; slips are pairs (wrong answer, what went wrong), said instead.
    """

    def judge(answer: Answer) -> str | None:
        answer = answered(answer)
        for wrong, reason in slips:
            if same(answer, wrong):
                return reason
        if not isinstance(right, tuple):
            return None if same(answer, right) else f"{shown(answer)} is not it; {look}"
        complaint = not_so_many(answer, len(right))
        if complaint:
            return complaint
        for place, (one, other) in enumerate(zip(answer, right, strict=True), 1):
            if not same(one, other):
                return f"value {place} of {len(right)}, {shown(one)}, is not right; {look}"
        return None

    return judge


def function(cases: Callable[[], Iterable[Case]], look: str) -> Judge:
    """Judge a function by what it returns for each of cases(), from small to large.

    A case is (what the input is, the arguments, a judge of what comes back).
    """

    def judge(answer: Answer) -> str | None:
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


def equals(expected: Tensor | float) -> Judge:
    """Judge a tensor or number against expected, up to rounding."""

    def judge(result: Answer) -> str | None:
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


def steadier(count: int, than: str) -> Judge:
    """Judge shares of answers that change: count numbers, in their sum below the shares called than."""

    def judge(answer: Answer, *before: float | Sequence[float]) -> str | None:
        answer = answered(answer)
        complaint = not_so_many(answer, count)
        if complaint:
            return complaint
        shares = as_tensor(plain(answer))
        if shares is None or not ((shares >= 0) & (shares <= 1)).all():
            return f"shares lie between 0 and 1: {shown(answer)}"
        limit = torch.tensor(before, dtype=torch.float64).sum().item()
        if shares.sum() >= limit:
            return (
                f"they add up to {shares.sum():.2f}, no less than the {limit:.2f} of {than}; is augment in the recipe?"
            )
        return None

    return judge


def answered(answer: Answer) -> Answer:
    """Return answer; raise Unanswered where it is None, empty, or nothing but None."""
    if answer is None or (isinstance(answer, (tuple, list)) and (not answer or all(part is None for part in answer))):
        raise Unanswered
    return answer


def not_so_many(answer: Answer, count: int) -> str | None:
    """What is wrong with an answer that should have count values; None if nothing is."""
    found = len(answer) if hasattr(answer, "__len__") and not isinstance(answer, (str, Mapping)) else 1
    return None if found == count else f"it takes {count} values, not {found}: {shown(answer)}"


def same(one: Answer, other: Answer) -> bool:
    """Whether an answer is what is expected: integers and words exactly, other numbers up to 1 % of rounding."""
    one, other = plain(one), plain(other)
    if isinstance(other, tuple):
        return isinstance(one, tuple) and len(one) == len(other) and all(map(same, one, other))
    if isinstance(other, str):
        return isinstance(one, str) and one.strip().casefold() == other.casefold()
    if isinstance(one, bool) or not isinstance(one, Real):
        return False
    return one == other if isinstance(other, int) else math.isclose(one, other, rel_tol=SHARE_OF_ROUNDING)


def plain(answer: Answer) -> Answer:
    """The same with tensors and arrays as numbers, and lists as tuples."""
    if hasattr(answer, "tolist"):
        answer = answer.tolist()
    return tuple(map(plain, answer)) if isinstance(answer, (list, tuple)) else answer


def as_tensor(result: Answer) -> Tensor | None:
    """Return result as a float64 tensor, None where it is none and cannot become one."""
    try:
        return torch.as_tensor(result).detach().to("cpu", torch.float64)
    except (TypeError, ValueError, RuntimeError):
        return None


def shown(answer: Answer) -> str:
    """An answer as one short line."""
    text = " ".join(repr(plain(answer)).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def random(*shape: int, seed: int = 0) -> Tensor:
    """Return a float64 tensor of normal random numbers that depend on shape and seed alone."""
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
