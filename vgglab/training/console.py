"""Progress that suits where it is read: one living line in a notebook or a terminal, one line a step in a log."""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any


class Progress(AbstractContextManager["Progress"]):
    """Lines that stay, and below them one status line that is rewritten; a log gets only the lines that stay."""

    def __init__(self, enabled: bool) -> None:
        self._enabled, self._drawn, self._width = enabled, 0.0, 0
        self._lines: list[str] = []
        self._cell: Any = None
        shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
        if enabled and type(shell).__name__ == "ZMQInteractiveShell":
            from IPython.display import display

            self._cell = display({"text/plain": ""}, raw=True, display_id=True)

    def __exit__(self, *_: object) -> None:
        self._draw()

    def line(self, text: str) -> None:
        """Add a line that stays."""
        self._lines.append(text)
        self._draw(text + "\n")

    def status(self, text: str) -> None:
        """Rewrite the status line, at most five times a second."""
        now = time.monotonic()
        if now - self._drawn > 0.2:
            self._drawn = now
            self._draw(status=text)

    def _draw(self, line: str = "", status: str = "") -> None:
        if self._cell:
            self._cell.update({"text/plain": "\n".join([*self._lines, status]).rstrip()}, raw=True)
        elif self._enabled:
            if sys.stdout.isatty():
                line, self._width = "\r" + " " * self._width + "\r" + line + status, len(status)
            print(line, end="", flush=True)


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
