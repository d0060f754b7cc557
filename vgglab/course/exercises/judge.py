"""How answers are judged: a judge takes an answer and returns None if it is right, else what is wrong with it.

An exercise is one entry: where to look, and the parts of its answer by their names, each with its right value and what
typical slips give; or a function's call, the reference that it is held against, and what both are tried on.
"""

import copy
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, fields, is_dataclass
from decimal import Decimal
from itertools import permutations
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from vgglab.course.exercises.reading import (
    Answer,
    Number,
    Unanswered,
    Unreadable,
    answered,
    number,
    parts,
    short,
    shown,
    word,
)

Complaint = str | None
SECONDS = 7  # that a check may take
MOST = 10_000_000  # numbers in a tensor that a check is handed
FAR = 0.12  # how far, relative to the right value, an answer may be off by rounding
UNITS = {
    "%": (100, "that is a share: per cent, please"),
    "share": (0.01, "that is per cent: a share between 0 and 1, please"),
    "GB": (2**30 / 1e9, "those are GiB, of 2**30 bytes: GB have 10**9"),
}


class TimeUp(BaseException):
    """The check has taken too long; no Exception, so that a learner's except does not take it."""


@dataclass(frozen=True)
class Value:
    """One number or word ("bottom or lower") of an answer, or what computes it, and {wrong one: what went wrong}.

    step: the place to which a number may be rounded, 0.01 for two decimals; 0 where every digit counts.
    unit: "%", "share" or "GB", of which shares, per cent and GiB are told apart. within: how far off a search may end.
    """

    right: Any
    wrong: Mapping[Any, str] | Callable[[], Mapping[Any, str]] = field(default_factory=dict)
    step: float = 0
    unit: str = ""
    within: float = 0

    @property
    def truth(self) -> Any:
        return self.right() if callable(self.right) else self.right

    @property
    def slips(self) -> Mapping[Any, str]:
        return self.wrong() if callable(self.wrong) else self.wrong

    def judge(self, answer: Answer, form: str) -> Complaint:
        """Return None for a right answer, else what is known about the slip, which may be ""."""
        right = self.truth
        if not isinstance(right, (int, float)):
            found = word(answer, form)
            return None if found in right.casefold().split(" or ") else self.slips.get(found, "")
        given = number(answer, form)
        if given.percent and self.unit not in ("%", "share"):
            raise Unreadable
        if given.percent and self.unit == "share":
            given = given.times(0.01)
        if self.fits(given, right):
            return None
        known = (line for wrong, line in self.slips.items() if self.fits(given, wrong))
        return next(known, None) or self._rounded(given, right) or self._other_unit(given, right)

    def fits(self, given: Number, right: float) -> bool:
        """Whether given is right itself, or right rounded at step or behind it."""
        noise = 0 if isinstance(right, int) else 1e-6 * abs(right)
        return given.off(right) <= max(noise, self.within, min(given.unit, self.step) / 2 * (1 + 1e-6))

    def _rounded(self, given: Number, right: float) -> str:
        off, rounded = given.off(right), given.off(right) <= given.unit / 2
        if off > (FAR if self.step else 0.01) * abs(right):
            return ""
        if rounded and given.unit > self.step and (self.step or given.unit >= 100):
            return f"it is rounded too far: {f'to {Decimal(str(self.step)):f}' if self.step else 'every digit'}, please"
        last = given.unit <= self.step and off < 1.5 * given.unit
        return "it is off by rounding alone: look at its last digit" if last else ""

    def _other_unit(self, given: Number, right: float) -> str:
        factor, line = UNITS.get(self.unit, (0, ""))
        scaled = given.times(factor)
        return "" if given.percent or scaled.off(right) > scaled.unit / 2 * (1 + 1e-6) else line


class Values:
    """Judges an answer of one part or several, in their order or by their names; look says where to look."""

    def __init__(self, look: str, **wanted: Value) -> None:
        self.look, self.parts = look, list(wanted.values())
        self.names = [name.replace("_", " ") for name in wanted]
        words = [isinstance(part.right, str) for part in self.parts]
        kind = "word" if all(words) else "value" if any(words) else "number"
        count = ("one", "two", "three", "four")[len(words) - 1]
        self.form = f"{count} {kind}{'s' * (len(words) > 1)}: {', '.join(self.names)}"

    def __call__(self, answer: Answer, *more: Answer) -> Complaint:
        answer = answered((answer, *more) if more else answer)
        given = [answer] if len(self.parts) == 1 else parts(answer, self.names, self.form)
        judged = [part.judge(one, self.form) for part, one in zip(self.parts, given, strict=True)]
        for name, one, line in zip(self.names, given, judged, strict=True):
            if line is not None and self._fit_in_another_order(given):
                return f"in another order, please: {self.form}"
            if line is not None:
                what = shown(one) if len(given) == 1 else f"{name} {shown(one)}"
                return f"{what}: {line}" if line else f"{what} is not it; {self.look}"
        return None

    def _fit_in_another_order(self, given: list[Answer]) -> bool:
        if len(given) == 1 or any(isinstance(part.truth, str) for part in self.parts):
            return False
        orders = permutations([number(one, self.form) for one in given])
        return any(all(part.fits(one, part.truth) for part, one in zip(self.parts, order)) for order in orders)  # noqa: B905


@dataclass(frozen=True)
class Function:
    """Judges a function by what it returns for each of inputs(), from small to large, against what reference does.

    call: how it is called. then: what to compare of a result, by the result and the arguments; raises ValueError.
    rules: what is in force while the function runs, and raises an error at what is not allowed.
    """

    call: str
    look: str
    reference: Callable[..., Tensor | float]
    inputs: Callable[[], Iterable[tuple[Any, ...]]]
    then: Callable[..., Any] = lambda result, *_: result
    rules: Callable[[], AbstractContextManager[Any]] = nullcontext

    @property
    def form(self) -> str:
        return f"a function: {self.call}"

    def __call__(self, answer: Answer) -> Complaint:
        if not callable(answered(answer)):
            raise Unreadable
        code = getattr(answer, "__code__", None)
        if code and (code.co_code, code.co_consts) == (_empty.__code__.co_code, _empty.__code__.co_consts):
            raise Unanswered
        for arguments in self.inputs():
            complaint = self._tried(answer, arguments)
            if complaint:
                names = self.call.partition("(")[2].rstrip(")").split(", ")
                tried = filter(None, map(_described, names, arguments))
                look = f"; {self.look}" if " instead of " in complaint else ""
                return f"for {', '.join(tried)} {complaint}{look}"
        return None

    def _tried(self, answer: Answer, arguments: tuple[Any, ...]) -> Complaint:
        given = copy.deepcopy(arguments)
        try:
            with self.rules():
                result = answer(*given)
        except (KeyboardInterrupt, TimeUp):
            raise
        except BaseException as error:
            return f"it raises {type(error).__name__}: {_text(error)}"
        if result is None:
            return "it returns nothing: does it end with return?"
        if not all(map(torch.equal, _tensors(given), _tensors(arguments))):
            return "it changes what it was given: work on a copy"
        try:
            return _differ(self.then(result, *arguments), self.reference(*copy.deepcopy(arguments)))
        except ValueError as error:
            return str(error)
        except Exception as error:
            return f"it returns {shown(result)}, which cannot be compared: {_text(error)}"


class Measured:
    """Judges what a learner measured, by a function of the answer and of what the check is handed, of these types."""

    def __init__(self, form: str, judge: Callable[..., Complaint], *given: type) -> None:
        self.form, self.judge, self.given = form, judge, given

    def __call__(self, answer: Answer, *given: Answer) -> Complaint:
        answered(answer)
        if len(given) != len(self.given) or not all(map(isinstance, given, self.given)):
            raise Unreadable
        if any(isinstance(one, Tensor) and one.numel() > MOST for one in given):
            raise Unreadable
        return self.judge(answer, *given)


Judge = Values | Function | Measured


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeUp in the block after so many seconds: by SIGALRM in the main thread; elsewhere there is no limit."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return
    rings, before, block = 0, sys.gettrace(), sys._getframe(2)

    def ring(_: int, frame: FrameType | None) -> None:
        nonlocal rings
        rings += 1
        left = rings  # a bare except takes what is raised inside its try: next time one line later

        def trace(*_: Any) -> Any:
            nonlocal left
            left -= 1
            if left <= 0:
                raise TimeUp
            return trace

        sys.settrace(trace)
        while frame and frame is not block:
            frame.f_trace, frame = trace, frame.f_back

    handler = signal.signal(signal.SIGALRM, ring)
    timer = signal.setitimer(signal.ITIMER_REAL, seconds, 0.02)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, handler or signal.SIG_DFL)
        sys.settrace(before)


def random(*shape: int, seed: int = 0) -> Tensor:
    """Return a float32 tensor of normal random numbers that depend on shape and seed alone."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)


def _differ(result: Answer, expected: Tensor | float) -> Complaint:
    """Where a result differs from what is expected in dtype, shape, or numbers beyond rounding."""
    if not isinstance(expected, Tensor):
        found = number(result).value
        return None if abs(found - expected) <= 1e-6 else f"it gives {found:.4g} instead of {expected:.4g}"
    if not isinstance(result, Tensor):
        return f"it returns {shown(result)}, which is no tensor"
    for what, one, other in (
        ("shape", tuple(result.shape), tuple(expected.shape)),
        ("dtype", result.dtype, expected.dtype),
    ):
        if one != other:
            return f"it returns the {what} {one} instead of {other}"
    wrong = ~torch.isclose(result.detach().cpu(), expected, rtol=1e-4, atol=1e-5)
    if not wrong.any():
        return None
    place = tuple(wrong.nonzero()[0].tolist())
    at = f" at {place}" if place else ""
    return f"it gives {result[place].item():.4g}{at} instead of {expected[place].item():.4g}"


def _described(name: str, argument: Any) -> str:
    """An argument in words; a network of several layers is left out."""
    if isinstance(argument, Tensor):
        if argument.numel() > 1 and argument.count_nonzero() == 1:
            return f"{name} with a single 1 at {tuple(argument.nonzero()[0].tolist())}"
        return f"{name} of shape {tuple(argument.shape)}"
    if isinstance(argument, nn.Module):
        return "" if list(argument.children()) else f"{name} = {argument}"
    return f"{len(argument)} {name}" if hasattr(argument, "__len__") else f"{name} = {argument}"


def _text(error: BaseException) -> str:
    try:
        return short(str(error), 150)
    except (Exception, SystemExit):
        return "an error without a text"


def _tensors(arguments: Iterable[Any]) -> list[Tensor]:
    """The tensors of a function's arguments: themselves, a network's, and those of a dataclass such as Images."""
    found: list[Tensor] = []
    for argument in arguments:
        if isinstance(argument, Tensor):
            found.append(argument)
        elif isinstance(argument, nn.Module):
            found += argument.state_dict().values()
        elif is_dataclass(argument):
            found += _tensors(getattr(argument, one.name) for one in fields(argument))
    return found


def _empty() -> None:
    pass
