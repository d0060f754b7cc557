"""Files that are whole or absent: written to a temporary name, synced, then renamed; and patience with a network."""

import errno
import glob
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vgglab._checks import FilePath, checked

NETWORK_TIMEOUT = 5.0  # seconds


@contextmanager
@checked
def replacing(path: FilePath) -> Iterator[Path]:
    """Yield a temporary path beside path that takes its place when the block ends well, and vanishes otherwise."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("r+b") as file:  # Windows syncs only what may be written to
            os.fsync(file.fileno())
        os.umask(mask := os.umask(0))
        temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


@checked
def prepare(path: FilePath) -> None:
    """Raise OSError if path could not be written, and clear away what a killed process had half written."""
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "must be a file, not a folder", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=path.parent).close()
    for rest in path.parent.glob(f"{glob.escape(path.name)}{'?' * 8}.part"):  # the names that mkstemp gives above
        rest.unlink()


def write_text(path: FilePath, text: str) -> None:
    """Write text to path as UTF-8, its line ends as they are."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


@contextmanager
def network_timeout() -> Iterator[None]:
    """Give up on a server that does not answer, inside the block."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NETWORK_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
