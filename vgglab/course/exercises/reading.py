"""How an answer is read: numbers, words and sequences of them, in every form in which a learner may give them."""

import re
import reprlib
from collections.abc import KeysView, Mapping, Sequence, ValuesView
from contextlib import suppress
from decimal import Decimal
from itertools import islice
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from vgglab.receptive_field import ReceptiveField

Answer = Any  # a learner may give anything
MOST = 1000  # entries of an answer, or characters of its text, that are looked at
FILLERS = {"the", "and", "gb", "about", "is", "are", "to", "of", "them", "nats", "pixels", "layers", "convolutions",
           "points", "times", "α", "alpha", "k"}  # fmt: skip
DIGITS = r"(?:\d{1,3}(?:[,_' \u00a0\u2009\u202f]\d{3})+(?!\d)|\d+)"  # 1,475,328 as the lessons print it
NUMERAL = rf"(?:{DIGITS}(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?"
NUMBER = re.compile(rf"(?<![\w.)])([-+]?{NUMERAL})(?:\s*/\s*({NUMERAL}))?(\s*(?:%|per\s?cent\b|GiB\b))?", re.IGNORECASE)
BETWEEN = re.compile(r"[\s,;:()\[\]{}→>=≈~·×|–.]*")
RAISED = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")


class Unreadable(Exception):
    """The answer has not the form that is wanted."""


class Unanswered(Exception):
    """The answer is still missing."""


class Number(NamedTuple):
    """A number that was read: its value, one unit of its last digit, and whether a per cent sign stood behind it."""

    value: float
    unit: float
    percent: bool = False

    def off(self, right: float) -> float:
        """Return how far it lies from right."""
        return abs(self.value - right)

    def times(self, factor: float) -> "Number":
        """Return it in another unit."""
        return Number(self.value * factor, self.unit * factor)


def number(answer: Answer, wanted: str = "") -> Number:
    """Read one number, or a pair of equal ones; the words of wanted may stand beside it. Raises Unreadable."""
    answer = plain(answer)
    if isinstance(answer, Number):
        return answer
    if isinstance(answer, str):
        with suppress(Unreadable):
            return _numbers(answer, wanted, 1)[0]
        answer = _numbers(answer, wanted, 2)
    if isinstance(answer, (list, tuple)) and len(answer) in (1, 2):
        first, *others = (number(part, wanted) for part in answer)
        if all(other == first for other in others):
            return first
    if isinstance(answer, bool) or not isinstance(answer, (Real, Decimal)):
        raise Unreadable
    return _number(float(answer))


def word(answer: Answer, wanted: str) -> str:
    """Read a word in small letters, without those that stand in wanted. Raises Unreadable."""
    answer = plain(answer)
    if isinstance(answer, (list, tuple)) and len(answer) == 1:
        (answer,) = answer
    if not isinstance(answer, str) or len(answer) > MOST:
        raise Unreadable
    words = re.findall(r"[\w-]+", answer.casefold())
    known = FILLERS | set(_words(wanted))
    return " ".join(part for part in words if part not in known) or " ".join(words)


def parts(answer: Answer, names: Sequence[str], wanted: str) -> list[Answer]:
    """Return the parts of an answer in the order of names, by which a dict may give them. Raises Unreadable."""
    answer = plain(answer)
    if isinstance(answer, str):
        try:
            answer = _numbers(answer, wanted, len(names))
        except Unreadable:
            answer = [part.strip(" ()[]'\"") for part in re.split("[,;→]", answer[:MOST])]
    if isinstance(answer, Mapping):
        keyed = {str(key).strip().casefold(): value for key, value in islice(answer.items(), len(names) + 1)}
        answer = [keyed.pop(name.casefold()) for name in names] if len(keyed) == len(names) else []
    if not isinstance(answer, (list, tuple)) or len(answer) != len(names):
        raise Unreadable
    return list(islice(answer, len(names)))


def unordered(answer: Answer) -> list[Answer]:
    """Return the members of an answer in which the order does not matter; one value stands for itself."""
    answer = plain(answer)
    if isinstance(answer, str) and re.fullmatch(r"[\d\s,;()\[\]{}]+", answer):
        return re.findall(r"\d+", answer)
    return list(islice(answer, MOST)) if isinstance(answer, (list, tuple, set, frozenset)) else [answer]


def shares(answer: Answer, names: Sequence[str]) -> list[Number]:
    """Read shares between 0 and 1, which may all be given in per cent. Raises Unreadable."""
    found = [number(part) for part in parts(answer, names, "")]
    if any(one.percent or one.value > 1 for one in found):
        found = [one.times(0.01) for one in found]
    if not all(0 <= one.value <= 1 for one in found):
        raise Unreadable
    return found


def plain(answer: Answer) -> Answer:
    """The answer with tensors, arrays, ranges and views as lists, and a field as its size. Raises Unreadable."""
    if isinstance(answer, ReceptiveField):
        return answer.size
    if isinstance(answer, Tensor):
        if answer.numel() > MOST:
            raise Unreadable
        answer = answer.detach().cpu()
        answer = (answer.float() if answer.itemsize < 4 and answer.is_floating_point() else answer).numpy()
    if isinstance(answer, np.ndarray):
        if answer.size > MOST:
            raise Unreadable
        return [plain(part) for part in answer] if answer.ndim else plain(answer[()])
    if isinstance(answer, np.generic):  # the text of a float of 32 bits is the shortest that stands for it
        return float(str(answer)) if isinstance(answer, np.floating) else answer.item()
    if isinstance(answer, (range, KeysView, ValuesView)):
        return list(islice(answer, MOST))
    return answer


def answered(answer: Answer) -> Answer:
    """Return answer; raise Unanswered where it is None, blank, or nothing but None."""
    held = answer.values() if isinstance(answer, Mapping) else answer
    if isinstance(held, (list, tuple, ValuesView)) and held and all(part is None for part in islice(held, MOST)):
        raise Unanswered
    if answer is None or isinstance(answer, str) and not answer.strip():
        raise Unanswered
    return answer


def shown(answer: Answer) -> str:
    """An answer as one short line."""
    try:
        if isinstance(answer, Number):
            return f"{answer.value:.10g}"
        if isinstance(answer, (Tensor, np.ndarray)) and np.prod(answer.shape) > 9:
            return f"{type(answer).__name__} of shape {tuple(answer.shape)}"
        text = SHORT.repr(plain(answer))
    except (Exception, SystemExit):
        text = f"a value of type {type(answer).__name__}"
    return short(text)


def short(text: str, most: int = 60) -> str:
    """A text as one line of at most so many characters, of which none acts on a terminal or a page."""
    text = printable(" ".join(text[: 10 * most].split()))
    return text if len(text) <= most else f"{text[: most - 3]}..."


def printable(text: str) -> str:
    """The text with escapes in place of control characters, and of bytes that are no UTF-8."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


SHORT = reprlib.Repr()
SHORT.maxstring = SHORT.maxother = SHORT.maxlong = 60


def _numbers(text: str, wanted: str, count: int) -> list[Number]:
    """Read so many numbers from a text in which, but for signs and the words of wanted, nothing else stands."""
    if len(text) > MOST:
        raise Unreadable
    text = text.replace("->", "→").replace("−", "-").replace("**", "^")
    text = re.sub(r"[⁻⁰¹²³⁴-⁹]+", lambda power: "^" + power[0].translate(RAISED), text)
    text = re.sub(r"\s*[·×*x]\s*10\s*\^\s*([-+]?\d+)", r"e\1", text)
    text = re.sub(r"(?<=\d)\s*x\s*(?=\d)", " × ", text)
    rest = NUMBER.sub(" ", text)
    strange = set(_words(rest)) - FILLERS - set(_words(wanted))
    if strange or not BETWEEN.fullmatch(re.sub(r"[^\W\d_]+", "", rest)):
        raise Unreadable
    for pattern in (NUMBER, re.compile(NUMBER.pattern.replace(DIGITS, r"\d+"), re.IGNORECASE)):
        found = [match.groups() for match in pattern.finditer(text)]
        if len(found) == count:
            return [_measured(_float(top) / _float(below or "1"), unit or "") for top, below, unit in found]
    raise Unreadable


def _measured(value: float, unit: str) -> Number:
    """The number that stands before a unit, GiB as GB."""
    if unit.strip().casefold() == "gib":
        return _number(value).times(2**30 / 1e9)
    return _number(value, bool(unit))


def _number(value: float, percent: bool = False) -> Number:
    text = f"{value:.12g}"  # more digits are noise of the arithmetic
    if "n" in text:  # nan and inf
        raise Unreadable
    return Number(float(text), float(f"1e{Decimal(text).normalize().as_tuple().exponent}"), percent)


def _float(numeral: str) -> float:
    return float(re.sub(r"[^\d.eE+-]", "", numeral))


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", text.casefold())
