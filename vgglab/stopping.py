"""Stopping a long loop at a good moment: Ctrl-C and SIGTERM are noted first, and obeyed when the loop says so."""

import signal
import sys
import threading


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
