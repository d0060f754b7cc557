"""A classroom that nothing breaks: thirty at once, no network, full disks, killed kernels, small machines."""

import ast
import errno
import importlib.metadata
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
import weakref
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler
from itertools import groupby
from pathlib import Path

import nbformat
import pytest
import test_data
import torch
from jupyter_client import KernelManager
from nbclient import NotebookClient
from packaging.specifiers import SpecifierSet
from torch import nn
from torchvision.datasets import FashionMNIST

from vgglab import data
from vgglab.__main__ import main
from vgglab.data.fashion_mnist import FILES, _cache
from vgglab.training import Recipe, checkpoint, evaluate, fit

ROOT = Path(__file__).parent.parent
STUDENTS = 30
SUPPORTED = ("3.11", "3.12", "3.13")
TINY = Recipe(width=1 / 16, size=32, batch_norm=True, epochs=3, batch_size=50, lr=0.05)

small_set, mirror, empty_cache = test_data.small_set, test_data.mirror, test_data.empty_cache


def python(program, *arguments, **variables):
    """What a Python process prints as JSON when it runs program."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# One process imports, then forks the students, who wait for one another before they load.
CLASS = """
import json, multiprocessing, sys, time
import filelock, platformdirs
from torchvision.datasets import FashionMNIST
from vgglab import _files, data
from vgglab.data.fashion_mnist import FILES

students, files, mirrors, resources, _files.NETWORK_TIMEOUT = json.loads(sys.argv[1])
FILES.update(files)
FashionMNIST.mirrors, FashionMNIST.resources = mirrors, resources
context = multiprocessing.get_context("fork")
everyone = context.Barrier(students)


def student(_):
    everyone.wait()
    start = time.monotonic()
    try:
        dataset = data.load("fashion-mnist")
        outcome = [[images.checksum(), images.labels.tolist()] for images in (dataset.train, dataset.test)]
    except FileNotFoundError as error:
        outcome = str(error)
    return outcome, time.monotonic() - start


with context.Pool(students) as pool:
    print(json.dumps(pool.map(student, range(students), chunksize=1)))
"""


def whole_class(mirrors, resources, timeout):
    """Each student's outcome and seconds."""
    return zip(*python(CLASS, json.dumps([STUDENTS, FILES, mirrors, resources, timeout])), strict=True)


def test_thirty_at_once_download_once_and_all_have_the_whole_data(mirror, small_set, tmp_path, monkeypatch):
    at_once, serve = [], SimpleHTTPRequestHandler.do_GET

    def serve_slowly(handler):
        at_once.append(handler.path)
        time.sleep(0.05)
        serve(handler)

    monkeypatch.setattr(SimpleHTTPRequestHandler, "do_GET", serve_slowly)
    outcomes, _ = whole_class([mirror["address"]], mirror["resources"], 20)
    dataset = data.load("fashion-mnist", root=small_set)
    whole = [[images.checksum(), images.labels.tolist()] for images in (dataset.train, dataset.test)]
    assert list(outcomes) == [whole] * STUDENTS
    names = [name for name, _ in mirror["resources"]]
    assert [path for path, _ in groupby(at_once)] == [f"/{name}" for name in names]
    folder = tmp_path / "cache" / "vgglab" / "fashion-mnist"
    assert {path.name for path in folder.iterdir()} == {".lock", *names}


def test_thirty_without_an_answer_wait_for_one_timeout_and_not_for_thirty(mirror):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        outcomes, seconds = whole_class([f"http://127.0.0.1:{silent.getsockname()[1]}/"], mirror["resources"], 1.0)
    assert all("downloading failed (timed out)" in outcome for outcome in outcomes)
    assert max(seconds) < STUDENTS / 3


@contextmanager
def server(answer):
    """The address of a server that gives every caller the same bytes."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve():
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(2**16)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


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


def test_without_a_way_out_the_garments_are_drawn(drawn, capsys, monkeypatch):
    def unreachable(*_):
        raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))

    monkeypatch.setattr(socket.socket, "connect", unreachable)
    monkeypatch.setattr(FashionMNIST, "mirrors", ["http://192.0.2.1/"])
    falls_back(drawn, capsys, "Network is unreachable")


def test_without_names_the_garments_are_drawn(drawn, capsys, monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    falls_back(drawn, capsys, "Temporary failure in name resolution")


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
    ids=["login page", "half a file", "half a chunk", "no HTTP", "proxy", "nothing"],
)
def test_a_network_that_answers_something_else_is_no_network(drawn, capsys, monkeypatch, answer, reason):
    with server(answer) as address:
        monkeypatch.setattr(FashionMNIST, "mirrors", [address])
        falls_back(drawn, capsys, reason)
    assert not list(_cache().glob("*ubyte*"))


# Permissions do not bind root, who therefore becomes nobody, inside the folder, after everything is imported.
STUDENT = """
import json, os, sys
import filelock, platformdirs
from torchvision.datasets import FashionMNIST
from vgglab import data
from vgglab.data.fashion_mnist import FILES

os.chdir(sys.argv[1])
FILES.update(json.loads(sys.argv[2]))
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
try:
    open("probe", "w")
    sys.exit("the folder is not read-only")
except PermissionError:
    pass
writing = []


def watch(event, arguments):
    if event in ("os.mkdir", "os.rename", "os.remove", "os.link", "os.symlink", "os.chmod", "os.utime"):
        writing.append(event)
    if event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        writing.append(str(arguments[0]))


sys.addaudithook(watch)
try:
    dataset = data.load(sys.argv[3], root=".", download=len(sys.argv) > 4)
    outcome = [dataset.name, len(dataset.train), len(dataset.test)]
except OSError as error:
    outcome = [type(error).__name__, str(error)]
print(json.dumps({"outcome": outcome, "writing": writing}))
"""


@pytest.fixture
def read_only(small_set):
    """The folder of the small set, which nobody may write to."""
    for file in small_set.iterdir():
        file.chmod(0o444)
    small_set.chmod(0o555)
    yield small_set
    small_set.chmod(0o755)


def test_a_read_only_folder_is_read_and_nothing_is_written_anywhere(read_only):
    before = {path: path.stat() for path in (read_only, *read_only.iterdir())}
    said = python(STUDENT, read_only, json.dumps(FILES), "fashion-mnist", "download")
    assert said == {"outcome": ["fashion-mnist", 50, 20], "writing": []}
    for path, stat in before.items():
        assert (path.stat().st_mtime_ns, path.stat().st_size) == (stat.st_mtime_ns, stat.st_size)
    assert {read_only, *read_only.iterdir()} == before.keys()


def test_a_file_that_may_not_be_read_is_named_and_not_called_damaged(read_only):
    (read_only / "train-labels-idx1-ubyte.gz").chmod(0)
    said = python(STUDENT, read_only, json.dumps(FILES), "auto")
    kind, words = said["outcome"]
    assert kind == "PermissionError" and "train-labels-idx1-ubyte.gz" in words and "delete" not in words


def test_a_home_that_may_not_be_written_is_as_no_network(read_only, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir(mode=0o555)
    said = python(STUDENT, empty, json.dumps(FILES), "fashion-mnist", "download", XDG_CACHE_HOME=str(empty / "cache"))
    kind, words = said["outcome"]
    assert kind == "FileNotFoundError" and re.search("Permission denied.*Three ways on", words)
    assert not list(empty.iterdir())


@contextmanager
def full_disk(room):
    """No file grows beyond room bytes inside the block: the system's answer is as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def failing_sync(_):
    """A disk that notices only when it is asked to write everything out that it is full."""

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", full)
        yield


@pytest.fixture(scope="module")
def undisturbed(garments):
    """The weights after an undisturbed run of TINY."""
    model = TINY.model()
    fit(model, garments, recipe=TINY, precision="float32", device="cpu", progress=False)
    return model.state_dict()


@pytest.mark.parametrize(("fault", "words"), [(full_disk, "File too large"), (failing_sync, "No space left")])
@pytest.mark.parametrize("epochs_saved", [1, 2])
def test_a_disk_that_fills_up_costs_one_epoch(garments, undisturbed, tmp_path, monkeypatch, fault, words, epochs_saved):
    path, saved, save = tmp_path / "run.pt", [], checkpoint.save
    run = {"recipe": TINY, "precision": "float32", "device": "cpu", "checkpoint": path, "progress": False}

    def save_or_fill(*arguments):
        if len(saved) < epochs_saved:
            save(*arguments)
            saved.append(path.read_bytes())
        else:
            with fault(len(saved[-1]) // 2):
                save(*arguments)

    with monkeypatch.context() as patch, pytest.raises(OSError, match=f"{words}.*run.pt"):
        patch.setattr(checkpoint, "save", save_or_fill)
        fit(TINY.model(), garments, **run)
    left = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert left.keys() <= {"run.pt", "run.pt.before"} and saved[-1] in left.values()

    resumed, trained = TINY.model(), []
    resumed.register_forward_hook(lambda network, *_: trained.append(network.training))
    fit(resumed, garments, **run)
    assert sum(trained) == (TINY.epochs - epochs_saved) * len(garments.train) / TINY.batch_size
    assert all(torch.equal(value, undisturbed[name]) for name, value in resumed.state_dict().items())


def test_the_command_line_says_in_one_line_that_the_disk_is_full(garments, tmp_path, monkeypatch):
    monkeypatch.setattr(data, "load", lambda name: garments)
    command = ["train", "--width", "0.0625", "--epochs", "1", "--device", "cpu", "--out", str(tmp_path / "run")]
    with full_disk(20_000), pytest.raises(SystemExit, match="python -m vgglab: .*File too large: '.*checkpoint.pt'$"):
        main(command)
    assert not list((tmp_path / "run").iterdir())


CELL = """\
import torch
from vgglab import data, training

recipe = training.Recipe(width=1 / 16, size=32, batch_norm=True, epochs=9, batch_size=50, lr=0.05, augment="shift+flip")
model = recipe.model()
dataset = data.drawn_garments(600, 200)
history = training.fit(model, dataset, recipe=recipe, precision="float32", device="cpu", checkpoint={name!r})
torch.save(model.state_dict(), {name!r} + ".weights")
[row["epoch"] for row in history.epochs]
"""


@contextmanager
def kernel(folder):
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(folder), env={**os.environ, "OMP_NUM_THREADS": "1"})
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        yield manager, client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def epochs_on_disk(path):
    try:
        return len(torch.load(path, weights_only=True)["epochs"])
    except FileNotFoundError:
        return 0


def test_a_kernel_killed_in_fit_goes_on_when_its_cell_is_run_again(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    path = tmp_path / "run.pt"
    with kernel(tmp_path) as (manager, client):
        client.execute(CELL.format(name="run.pt"))
        deadline = time.monotonic() + 60
        while not epochs_on_disk(path) and time.monotonic() < deadline:
            time.sleep(0.005)
        os.kill(manager.provisioner.pid, signal.SIGKILL)
        while manager.is_alive():
            time.sleep(0.01)
    done = max(epochs_on_disk(file) for file in tmp_path.glob("run.pt*"))
    assert 1 <= done < 9 and not (tmp_path / "run.pt.weights").exists()

    said = []
    with kernel(tmp_path) as (_, client):
        for name in ("run.pt", "undisturbed.pt"):
            reply = client.execute_interactive(
                CELL.format(name=name), timeout=60, allow_stdin=False, output_hook=said.append
            )
            assert reply["content"]["status"] == "ok", reply["content"]
    results = [message["content"]["data"]["text/plain"] for message in said if message["msg_type"] == "execute_result"]
    assert results == ["[1, 2, 3, 4, 5, 6, 7, 8, 9]"] * 2
    resumed, undisturbed = (
        torch.load(tmp_path / f"{name}.pt.weights", weights_only=True) for name in ("run", "undisturbed")
    )
    assert all(torch.equal(resumed[name], value) for name, value in undisturbed.items())


def test_a_notebook_runs_in_another_folder_and_leaves_nothing_there(tmp_path, monkeypatch):
    """Its code cells up to the first figure."""
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    notebook = nbformat.read(ROOT / "notebooks" / "03_local_response_norm.ipynb", as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    last = next(
        i for i, cell in enumerate(cells) if any("image/png" in output.get("data", {}) for output in cell.outputs)
    )
    notebook.cells = cells[: last + 1]
    for cell in notebook.cells:
        cell.outputs = []
    NotebookClient(
        notebook, kernel_name="python3", timeout=60, resources={"metadata": {"path": str(elsewhere)}}
    ).execute()
    assert any("image/png" in output.get("data", {}) for output in cells[last].outputs)
    assert not list(elsewhere.iterdir())


class Hungry(nn.Module):
    """A network too large for a GPU with two images, in training or in testing; held refers to what it held then."""

    held = []

    def __init__(self, when_training):
        super().__init__()
        self.inner, self.when_training = TINY.model(), when_training
        self.held.clear()

    def forward(self, x):
        activations = self.inner(x)
        if self.training == self.when_training and len(x) > 1:
            self.held.append(weakref.ref(activations))
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return activations


@pytest.mark.parametrize("when_training", [True, False])
def test_fit_out_of_gpu_memory_names_the_batch_size(garments, when_training):
    model = Hungry(when_training)
    with pytest.raises(MemoryError, match="batch_size=50 .*try a smaller batch_size") as raised:
        fit(model, garments, recipe=TINY, device="cpu", progress=False)
    assert isinstance(raised.value.__cause__, torch.cuda.OutOfMemoryError)
    assert [reference() for reference in model.held] == [None]


def test_evaluate_out_of_gpu_memory_names_the_batch_size_and_leaves_the_mode(garments):
    model = Hungry(when_training=False).train()
    with pytest.raises(MemoryError, match="batch_size=500 .*try a smaller batch_size") as raised:
        evaluate(model, garments.test, size=32)
    assert isinstance(raised.value.__cause__, torch.cuda.OutOfMemoryError)
    assert model.training and [reference() for reference in model.held] == [None]


def test_the_command_line_out_of_gpu_memory_says_so_in_one_line(garments, tmp_path, monkeypatch):
    def out_of_memory(*_, **__):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(data, "load", lambda name: garments)
    monkeypatch.setattr(torch.nn.functional, "cross_entropy", out_of_memory)
    with pytest.raises(SystemExit, match="python -m vgglab: the GPU's memory .* batch_size=70"):
        main(["train", "--width", "0.0625", "--batch-size", "70", "--device", "cpu", "--out", str(tmp_path)])


REQUIRED = SpecifierSet(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"])
CHECK = re.search(r"\$\(PYTHON\) -c '(.*)'$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
SOURCES = sorted((ROOT / "vgglab").rglob("*.py"))


@pytest.mark.parametrize("minor", range(8, 17))
def test_make_takes_the_pythons_that_pip_takes_and_names_them(monkeypatch, minor):
    monkeypatch.setattr(sys, "version_info", (3, minor, 0))
    with pytest.raises(SystemExit) as stopped:
        exec(CHECK, {})
    supported = f"3.{minor}" in SUPPORTED
    assert REQUIRED.contains(f"3.{minor}.0") == (not stopped.value.code) == supported
    assert supported or stopped.value.code.startswith(f"Python 3.11, 3.12 or 3.13 is needed, not 3.{minor}: ")


def test_the_readme_names_the_same_pythons():
    assert "Python {}, {} or {}".format(*SUPPORTED) in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("version", SUPPORTED)
def test_each_python_passes_makes_check_and_reads_every_file(version):
    program = f"python{version}"
    if not shutil.which(program) or subprocess.run([program, "-V"], capture_output=True).returncode:
        pytest.skip(f"no {program} runs on this machine")
    subprocess.run([program, "-c", CHECK], check=True)
    read = (
        "import sys; from pathlib import Path\nfor name in sys.argv[1:]: compile(Path(name).read_text(), name, 'exec')"
    )
    subprocess.run([program, "-X", "utf8", "-W", "error", "-c", read, *SOURCES], check=True)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_keeps_to_the_oldest_grammar(path):
    ast.parse(path.read_text(encoding="utf-8"), str(path), feature_version=(3, 11))


def test_every_pinned_package_that_is_here_takes_every_python():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    refused, found = [], 0
    for name, version in (line.split("==") for line in lines):
        try:
            package = importlib.metadata.metadata(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if package["Version"].split("+")[0] == version:
            found += 1
            wanted = SpecifierSet(package["Requires-Python"] or "")
            refused += [f"{name} on {python}" for python in SUPPORTED if not wanted.contains(f"{python}.0")]
    assert found > len(lines) / 2 and not refused


MEMORY = 4 * 2**30  # half of it for the system, JupyterLab and the browser
LESSON = """
import json
from pathlib import Path
from vgglab import data
from vgglab.training import RECIPES, fit

fit(RECIPES["cpu"].model(), data.drawn_garments(2000, 200), recipe="cpu", epochs=1, device="cpu", progress=False)
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(json.dumps(int(peak.split()[1]) * 1024))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not tell a process's peak memory")
def test_training_by_the_cpu_recipe_fits_into_a_small_machine():
    assert python(LESSON) < MEMORY / 2
