"""Run a command while no other process in this folder does so, waiting for its turn: alone.py COMMAND ..."""

import fcntl
import os
import sys

lock = os.open("pyproject.toml", os.O_RDONLY)
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("Waiting for another make that sets up .venv ...", flush=True)
    fcntl.flock(lock, fcntl.LOCK_EX)
os.set_inheritable(lock, True)  # it is let go when the command and all that it started have ended, however they end
os.execvp(sys.argv[1], sys.argv[1:])
