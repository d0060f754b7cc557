"""Execute the lessons as a newcomer has them: newcomer.py [START OF A NAME ...], such as 02 04; all by default.

vgglab is installed from its wheel, d2l is not; each lesson is alone in an empty folder, with an empty home and so an
empty cache, without data, without a network, on a processor cut to AVX2. Two run side by side, with one thread each.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from sysconfig import get_path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

ROOT = Path(__file__).parent.parent
CPU = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_NUM_THREADS": "1"}
NO_NETWORK = ["unshare", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
NO_PROXY = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")


def main(starts):
    """Execute the lessons side by side, print how each went, and return how many failed."""
    start = time.perf_counter()
    lessons = [path for path in sorted((ROOT / "notebooks").glob("*.ipynb")) if path.name.startswith(tuple(starts))]
    if not lessons:
        sys.exit(f"no lesson begins with {' or '.join(starts)}")
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        python = install(build(Path(folder, "wheel")), Path(folder, "venv"))
        network = without_network()
        passed = sum(pool.map(lambda lesson: attempt(lesson, Path(folder, lesson.stem), python, *network), lessons))
    print(f"{passed} passed, {len(lessons) - passed} failed in {time.perf_counter() - start:.0f} s")
    return len(lessons) - passed


def build(folder):
    """Build the wheel, from a copy that holds nothing of an earlier build."""
    copy = folder / "source"
    shutil.copytree(ROOT / "vgglab", copy / "vgglab", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    pip("wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", str(folder), str(copy))
    return next(folder.glob("*.whl"))


def install(wheel, folder):
    """Install the wheel into a new virtual environment that finds all else in this one, and return its Python."""
    venv.create(folder, symlinks=True)
    scripts, packages = (Path(get_path(kind, "venv", {"base": str(folder)})) for kind in ("scripts", "purelib"))
    pip("--python", str(scripts / "python"), "install", "--no-deps", "--no-index", str(wheel))
    (packages / "others.pth").write_text(get_path("purelib"))  # its own .pth files, as of vgglab here, are not read
    (packages / "d2l.py").write_text("raise ImportError('a newcomer has no d2l')\n")
    return scripts / "python"


def pip(*arguments):
    subprocess.run([sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments], check=True)


def without_network():
    """How a command begins that has no network, and its variables: those of a dead proxy where that is refused."""
    allowed = shutil.which("unshare") and not subprocess.run([*NO_NETWORK, "true"], capture_output=True).returncode
    return (NO_NETWORK, {}) if allowed else ([], NO_PROXY)


def attempt(lesson, folder, python, network, variables):
    """Execute a lesson in a process of its own, print how it went, and return whether it passed."""
    alone, home = folder / "alone", folder / "home"
    for new in (alone, home):
        new.mkdir(parents=True)
    shutil.copy(lesson, alone)
    variables = {"PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}", "HOME": str(home), **CPU, **variables}
    command = [*network, str(python), __file__, "--alone", lesson.name]
    done = subprocess.run(command, cwd=alone, env=variables, capture_output=True, text=True)
    how = f"FAILED {done.stdout}{done.stderr}" if done.returncode else f"passed {done.stdout}"
    print(f"{lesson.stem:28} {how.rstrip()}", flush=True)
    return not done.returncode


def execute(name):
    """Execute a notebook in the current folder and print its seconds and its slowest cell; exit where a cell fails."""
    notebook, seconds = nbformat.read(name, as_version=4), {}
    installed = f"assert __import__('vgglab').__file__.startswith({sys.prefix!r})"
    notebook.cells.insert(0, nbformat.v4.new_code_cell(installed, id="installed"))

    def begin(cell, cell_index):
        seconds[cell.id] = -time.perf_counter()

    def end(cell, cell_index, execute_reply):
        seconds[cell.id] += time.perf_counter()

    try:
        NotebookClient(notebook, timeout=600, on_cell_execute=begin, on_cell_executed=end).execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        print(f"in the cell {list(seconds)[-1]}:", re.sub("\x1b[^m]*m", "", str(error)))  # without colours
        sys.exit(1)
    slowest = max(seconds, key=seconds.get)
    print(f"{sum(seconds.values()):4.0f} s, the slowest cell {seconds[slowest]:3.0f} s: {slowest}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--alone"]:
        execute(sys.argv[2])
    else:
        sys.exit(main(sys.argv[1:] or [""]) > 0)
