"""Files that are whole or absent: written to a temporary name, synced, then renamed."""

import errno
import glob
import os
import socket
import tempfile
from contextlib import contextmanager
from pathlib import Path

from vgglab import _checks as checks


@contextmanager
def replacing(path):
    """Yield a temporary path beside path that takes its place when the block ends well, and vanishes otherwise."""
    path = checks.path("path", path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("r+b") as file:  # Windows syncs only what may be written to
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        if error.errno and error.filename is None:
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def prepare(path):
    """Raise OSError if path could not be written, and clear away what a killed process had half written."""
    path = checks.path("path", path)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "must be a file, not a folder", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=path.parent).close()
    for rest in path.parent.glob(f"{glob.escape(path.name)}{'?' * 8}.part"):  # the names that mkstemp gives above
        rest.unlink()


def write_text(path, text):
    """Write text to path as UTF-8, its line ends as they are."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


NETWORK_TIMEOUT = 5.0  # seconds


@contextmanager
def network_timeout():
    """Give up on a server that does not answer, inside the block."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NETWORK_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
