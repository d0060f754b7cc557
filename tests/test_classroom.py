"""A classroom that nothing breaks: thirty at once, no network, read-only folders, full disks, small machines."""

import errno
import importlib.metadata
import json
import os
import re
import socket
import subprocess
import sys
import tomllib
import weakref
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from socketserver import BaseRequestHandler
from unittest.mock import patch

import pytest
import test_data
import torch
import torch.nn.functional as F
from packaging.specifiers import SpecifierSet
from torchvision.datasets import FashionMNIST

from vgglab import data
from vgglab.__main__ import main
from vgglab.data.fashion_mnist import FILES, _cache
from vgglab.training import Recipe, evaluate, fit

resource = pytest.importorskip("resource", reason="these troubles are made with what Windows does not have")
ROOT = Path(__file__).parent.parent
STUDENTS = 30
TINY = Recipe(width=1 / 16, size=32, batch_norm=True, epochs=1, batch_size=50, lr=0.05)

small_set, mirror, empty_cache = test_data.small_set, test_data.mirror, test_data.empty_cache


def python(program, *arguments, **variables):
    """What a Python process prints as JSON when it runs program."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# One process imports, then forks the students, who wait for one another before they load. A folder is read by nobody
# in particular: permissions do not bind root.
CLASS = """
import json, multiprocessing, os, sys, time
import filelock, platformdirs
from torchvision.datasets import FashionMNIST
from vgglab import _files, data
from vgglab.data.fashion_mnist import FILES

students, name, folder, files, _files.NETWORK_TIMEOUT = json.loads(sys.argv[1])
FashionMNIST.mirrors, FashionMNIST.resources = json.loads(sys.argv[2])
FILES.update(files)
context = multiprocessing.get_context("fork")
everyone, written = context.Barrier(students), []


def watch(event, arguments):
    if event in ("os.mkdir", "os.rename", "os.remove", "os.link", "os.symlink", "os.chmod", "os.utime"):
        written.append(event)
    if event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        written.append(str(arguments[0]))


def student(_):
    if folder:
        os.chdir(folder)
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        assert not os.access(".", os.W_OK)
    everyone.wait()
    sys.addaudithook(watch)
    start = time.monotonic()
    try:
        dataset = data.load(name, root=folder and ".")
        outcome = [[images.checksum(), images.labels.tolist()] for images in (dataset.train, dataset.test)]
    except OSError as error:
        outcome = f"{type(error).__name__}: {error}"
    return outcome, time.monotonic() - start, list(written)


with context.Pool(students) as pool:
    print(json.dumps(pool.map(student, range(students), chunksize=1)))
"""


def load_at_once(students, name="fashion-mnist", folder=None, timeout=20, **variables):
    """Each student's outcome, its seconds, and what it wrote."""
    given = [students, name, folder and str(folder), FILES, timeout], [FashionMNIST.mirrors, FashionMNIST.resources]
    return zip(*python(CLASS, *map(json.dumps, given), **variables), strict=True)


def whole(folder):
    """The outcome of who has the data of a folder."""
    dataset = data.load("fashion-mnist", root=folder)
    return [[images.checksum(), images.labels.tolist()] for images in (dataset.train, dataset.test)]


def test_thirty_at_once_download_once_and_all_have_the_whole_data(mirror, small_set, tmp_path):
    outcomes, *_ = load_at_once(STUDENTS)
    assert list(outcomes) == [whole(small_set)] * STUDENTS
    names = [name for name, _ in FashionMNIST.resources]
    assert [path for path, _ in groupby(mirror)] == [f"/{name}" for name in names]
    folder = tmp_path / "cache" / "vgglab" / "fashion-mnist"
    assert {path.name for path in folder.iterdir()} == {".lock", *names}


def test_thirty_without_an_answer_wait_for_one_timeout_and_not_for_thirty(mirror, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(FashionMNIST, "mirrors", [f"http://127.0.0.1:{silent.getsockname()[1]}/"])
        outcomes, seconds, _ = load_at_once(STUDENTS, timeout=1.0)
    assert all("downloading failed (timed out)" in outcome for outcome in outcomes)
    assert max(seconds) < STUDENTS / 3


def falls_back(garments, capsys, reason):
    """Whether "auto" draws garments and says why, and "fashion-mnist" says what can be done."""
    assert data.load("auto") is garments
    assert re.search(rf"^Data: 600 \+ 200 drawn garments, because .*{reason}", capsys.readouterr().out)
    with pytest.raises(FileNotFoundError, match=f"{reason}.*internet.*VGGLAB_DATA.*drawn-garments"):
        data.load("fashion-mnist")


@pytest.fixture
def drawn(garments, monkeypatch, empty_cache):
    """No data anywhere, and the small drawn set as what is fallen back to."""
    monkeypatch.delenv("VGGLAB_DATA", raising=False)
    monkeypatch.setattr("vgglab.data.fashion_mnist.drawn_garments", lambda: garments)
    return garments


NO_WAY = OSError(errno.ENETUNREACH, "Network is unreachable")
NO_NAME = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


@pytest.mark.parametrize(("asked", "error"), [("create_connection", NO_WAY), ("getaddrinfo", NO_NAME)])
def test_without_a_network_the_garments_are_drawn(drawn, capsys, asked, error):
    with patch.object(socket, asked, side_effect=error):
        falls_back(drawn, capsys, error.strerror)


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (OK + b"Content-Length: 28\r\n\r\n<html>Please log in.</html>\r\n", "corrupted"),
        (OK + b"Content-Length: 1000000\r\n\r\nhalf", "corrupted"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nffff\r\nhalf", "IncompleteRead"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "SSH-2.0-OpenSSH_9.6"),
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "407"),
        (b"", "closed connection"),
    ],
)
def test_a_network_that_answers_something_else_is_no_network(drawn, capsys, monkeypatch, answer, reason):
    class Answer(BaseRequestHandler):
        def handle(self):
            self.request.recv(2**16)
            self.request.sendall(answer)

    with test_data.serving(Answer) as address:
        monkeypatch.setattr(FashionMNIST, "mirrors", [address])
        falls_back(drawn, capsys, reason)
    assert not list(_cache().glob("*ubyte*"))


@pytest.fixture
def read_only(small_set):
    """The folder of the small set, which nobody may write to."""
    for file in small_set.iterdir():
        file.chmod(0o444)
    small_set.chmod(0o555)
    yield small_set
    small_set.chmod(0o755)


def test_a_read_only_folder_is_read_and_nothing_is_written_anywhere(read_only):
    (outcome,), _, (written,) = load_at_once(1, folder=read_only)
    assert outcome == whole(read_only) and written == []


def test_a_file_that_may_not_be_read_is_named_and_not_called_damaged(read_only):
    (read_only / "train-labels-idx1-ubyte.gz").chmod(0)
    (outcome,), *_ = load_at_once(1, "auto", read_only)
    assert re.match("PermissionError: .*train-labels-idx1-ubyte.gz", outcome) and "delete" not in outcome


def test_a_home_that_may_not_be_written_is_as_no_network(read_only, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir(mode=0o555)
    (outcome,), *_ = load_at_once(1, folder=empty, XDG_CACHE_HOME=str(empty / "cache"))
    assert re.match("FileNotFoundError: .*Permission denied.*Three ways on", outcome) and not list(empty.iterdir())


@contextmanager
def full_disk(room):
    """No file grows beyond room bytes inside the block: the system's answer is as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


FULL = [  # when it is written to, when all is to be written out, when the loss is computed
    (full_disk(20_000), "File too large: '.*checkpoint.pt'"),
    (patch.object(os, "fsync", side_effect=OSError(errno.ENOSPC, "No space left")), "No space left: '.*checkpoint.pt'"),
    (patch.object(F, "cross_entropy", side_effect=torch.OutOfMemoryError()), "the GPU's memory .* batch_size=70.*"),
]


@pytest.mark.parametrize(("full", "words"), FULL, ids=["disk", "disk's buffer", "GPU"])
def test_the_command_line_says_in_one_line_what_is_full(garments, tmp_path, monkeypatch, full, words):
    monkeypatch.setattr(data, "load", lambda name: garments)
    command = ["train", "--width", "0.0625", "--epochs", "1", "--batch-size", "70", "--device", "cpu", "--out"]
    with full, pytest.raises(SystemExit, match=rf"^python -m vgglab: (\[Errno \d+\] )?{words}$"):
        main([*command, str(tmp_path / "run")])
    assert not list((tmp_path / "run").iterdir())


def train(model, splits):
    fit(model, splits, recipe=TINY, device="cpu", progress=False)


def judge(model, splits):
    evaluate(model, splits.test, size=32)


@pytest.mark.parametrize(("use", "when_training"), [(train, True), (train, False), (judge, False)])
def test_out_of_gpu_memory_the_batch_size_is_named_and_nothing_is_held(garments, use, when_training):
    model, held = TINY.model().train(), []
    forward = model.forward

    def fill_up(x):
        scores = forward(x)
        if torch.is_grad_enabled() == when_training and len(x) > 1:
            held.append(weakref.ref(scores))
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return scores

    model.forward = fill_up
    with pytest.raises(MemoryError, match=r"batch_size=\d+ .*try a smaller batch_size") as raised:
        use(model, garments)
    assert isinstance(raised.value.__cause__, torch.OutOfMemoryError)
    assert model.training and [scores() for scores in held] == [None]


REQUIRED = SpecifierSet(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"])
SUPPORTED = [f"3.{minor}" for minor in range(30) if REQUIRED.contains(f"3.{minor}.0")]
NEEDED = "Python {}, {} or {}".format(*SUPPORTED)


@pytest.mark.parametrize("minor", range(8, 17))
def test_make_and_the_readme_name_the_pythons_that_pip_takes(monkeypatch, minor):
    makefile, readme = ((ROOT / name).read_text(encoding="utf-8") for name in ("Makefile", "README.md"))
    monkeypatch.setattr(sys, "version_info", (3, minor, 0))
    with pytest.raises(SystemExit) as stopped:
        exec(re.search(r"\$\(PYTHON\) -c '(.*)'$", makefile, re.MULTILINE)[1], {})
    refused = f"{NEEDED} is needed, not 3.{minor}: make PYTHON=python3.12"
    assert stopped.value.code == (False if f"3.{minor}" in SUPPORTED else refused) and NEEDED in readme


def test_every_pinned_package_that_is_here_takes_every_python():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pinned = dict(line.split("==") for line in lines)
    here = [one for one in importlib.metadata.distributions() if pinned.get(one.name) == one.version.split("+")[0]]
    assert len(here) > len(pinned) / 2
    for package in here:
        wanted = SpecifierSet(package.metadata["Requires-Python"] or "")
        assert all(wanted.contains(f"{python}.0") for python in SUPPORTED), package.name


LESSON = """
from pathlib import Path
from vgglab import data
from vgglab.training import RECIPES, fit

fit(RECIPES["cpu"].model(), data.drawn_garments(2000, 200), recipe="cpu", epochs=1, device="cpu", progress=False)
print(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not tell a process's peak memory")
def test_training_by_the_cpu_recipe_fits_into_a_machine_of_4_gb_with_its_browser():
    assert python(LESSON) * 1024 < 2 * 2**30
