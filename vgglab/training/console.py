"""Progress that suits where it is read: one living line in a notebook or a terminal, one line a step in a log."""

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any


class Progress(AbstractContextManager["Progress"]):
    """Lines that stay, and below them one status line that is rewritten; a log gets only the lines that stay."""

    def __init__(self, enabled: bool) -> None:
        self._lines: list[str] = []
        self._drawn = 0.0
        self._show = _display() if enabled else lambda lines, status: None

    def __exit__(self, *_: object) -> None:
        self._show(self._lines, "")

    def line(self, text: str) -> None:
        """Add a line that stays."""
        self._lines.append(text)
        self._show(self._lines, "")

    def status(self, text: str) -> None:
        """Rewrite the status line, at most five times a second."""
        now = time.monotonic()
        if now - self._drawn > 0.2:
            self._drawn = now
            self._show(self._lines, text)


def _display() -> Callable[[list[str], str], None]:
    """What draws the lines and the status where this process prints."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if type(shell).__name__ == "ZMQInteractiveShell":
        from IPython.display import display

        handle = display({"text/plain": ""}, raw=True, display_id=True)
        return lambda lines, status: handle.update({"text/plain": "\n".join([*lines, status]).rstrip()}, raw=True)
    stream, shown, width = sys.stdout, 0, 0

    def show(lines: list[str], status: str) -> None:
        nonlocal shown, width
        text = "".join(line + "\n" for line in lines[shown:])
        if stream.isatty():
            text = "\r" + " " * width + "\r" + text + status
        print(text, end="", file=stream, flush=True)
        shown, width = len(lines), len(status)

    return show


@contextmanager
def signals_noted(enabled: bool) -> Iterator[list[int]]:
    """Yield a list in which, inside the block, Ctrl-C and SIGTERM are only noted; a second Ctrl-C works as always."""
    noted: list[int] = []
    before: dict[int, Any] = {}

    def note(number: int, _: object) -> None:
        noted.append(number)
        signal.signal(signal.SIGINT, before[signal.SIGINT])

    if enabled and threading.current_thread() is threading.main_thread():
        before |= {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
