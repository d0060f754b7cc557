"""Progress that suits where it is read: one living line in a notebook or a terminal, one line a step in a log."""

import signal
import sys
import threading
import time

REDRAWS_PER_SECOND = 5


class Progress:
    """Lines that stay, and below them one status line that is rewritten; a log gets only the lines that stay."""

    def __init__(self, enabled=True):
        self._lines, self._status, self._drawn = [], "", 0.0
        self._show = _display() if enabled else lambda lines, status: None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._status = ""
        self._show(self._lines, self._status)

    def status(self, text):
        """Rewrite the status line, at most five times a second."""
        now = time.monotonic()
        if now - self._drawn > 1 / REDRAWS_PER_SECOND:
            self._drawn, self._status = now, text
            self._show(self._lines, text)

    def line(self, text):
        """Add a line that stays."""
        self._lines.append(text)
        self._show(self._lines, self._status)


def _display():
    if type(getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()).__name__ == "ZMQInteractiveShell":
        return _notebook()
    return _terminal(sys.stdout)


def _notebook():
    from IPython.display import Pretty, display

    class Text(Pretty):
        def __repr__(self):
            return self.data

    handle = display(Text(""), display_id=True)
    return lambda lines, status: handle.update(Text("\n".join([*lines, status] if status else lines)))


def _terminal(stream):
    shown, width = 0, 0

    def show(lines, status):
        nonlocal shown, width
        if stream.isatty():
            stream.write("\r" + " " * width + "\r")
        for line in lines[shown:]:
            stream.write(line + "\n")
        if stream.isatty():
            stream.write(status)
        shown, width = len(lines), len(status)
        stream.flush()

    return show


class Stopping:
    """Inside the block Ctrl-C and SIGTERM only set asked; a second Ctrl-C works as always."""

    def __init__(self, enabled=True):
        self.asked = None
        self._enabled = enabled and threading.current_thread() is threading.main_thread()
        self._before = {}

    def __enter__(self):
        if self._enabled:
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def stop(self):
        """Do what the signal asked for."""
        if self.asked == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + self.asked)

    def _note(self, number, _):
        self.asked = number
        signal.signal(signal.SIGINT, self._before[signal.SIGINT])
