"""Execute the course: `refresh` stores the outputs in the notebooks, `run` writes pages and a summary to build/."""

import argparse
import os
import platform
import shutil
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"

import nbformat
from fingerprint import fingerprint
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from sphinx.cmd.build import build_main

import vgglab
from vgglab import data
from vgglab._files import write_text

PACKAGE = Path(vgglab.__file__).parent
ROOT = Path(__file__).parent.parent
NOTEBOOKS = ROOT / "notebooks"
DOCS = ROOT / "docs"
BUILD = ROOT / "build"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
CELL_METADATA = ("slideshow", "tags")
RESULT = "result"
WIDGET = "application/vnd.jupyter.widget-view+json"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=("refresh", "run"))
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all of notebooks/")
    arguments = parser.parse_args()
    paths = arguments.notebooks or sorted(NOTEBOOKS.glob("*.ipynb"))
    sys.exit(refresh(paths) if arguments.command == "refresh" else run(paths))


def refresh(paths):
    """Execute each notebook whose fingerprint is not the stored one, and replace all its outputs.

    It runs in an empty folder, with the shipped records alone. The fingerprint is that from before: of code that
    changes meanwhile it says that the notebook is stale.
    """
    find_data()
    os.environ.pop("VGGLAB_RECORDS", None)
    for path in paths:
        notebook = nbformat.read(path, as_version=4)
        now = fingerprint(notebook, PACKAGE)
        if notebook.metadata.get("vgglab", {}).get("fingerprint") == now:
            print(f"{path.stem:28} unchanged")
            continue
        with tempfile.TemporaryDirectory() as folder:
            alone = Path(folder) / "notebooks"
            alone.mkdir()
            execute(notebook, path.stem, alone)
        tidy(notebook, now)
        write_text(path, nbformat.writes(notebook, indent=1) + "\n")
    return 0


def find_data():
    """Exit where the real data is missing, from which stored outputs are; else let kernels find it from any folder."""
    try:
        data.load("fashion-mnist", download=False)
    except FileNotFoundError:
        sys.exit(
            "The stored outputs are those of the real Fashion-MNIST, which is not here: "
            "put its four gz files into a folder and name it in VGGLAB_DATA"
        )
    if named := os.environ.get("VGGLAB_DATA"):
        os.environ["VGGLAB_DATA"] = str(Path(named).expanduser().absolute())


def run(paths):
    """Execute each notebook, build a site as `make pages` does, and end with a summary; 1 if any of them failed."""
    executed, pages = BUILD / "executed", BUILD / "pages"
    for folder in (executed, pages):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(DOCS, executed / "docs")
    (executed / "notebooks").mkdir()
    rows, results, failed = [], [], False
    for path in paths:
        notebook, start = nbformat.read(path, as_version=4), time.perf_counter()
        try:
            execute(notebook, path.stem, NOTEBOOKS)
            outcome = "ran"
        except (CellExecutionError, DeadKernelError) as error:
            print(error, file=sys.stderr)
            outcome, failed = f"failed: {getattr(error, 'ename', type(error).__name__)}", True
        write_text(executed / "notebooks" / path.name, nbformat.writes(notebook))
        rows.append(
            f"| [{path.stem}](pages/notebooks/{path.stem}.html) | {outcome} | {time.perf_counter() - start:.0f} s |"
        )
        results += [f"- {path.stem}: {line}" for line in result_lines(notebook)]
    failed |= bool(build_main(["-q", "-b", "html", "-c", str(DOCS), str(executed), str(pages)]))
    summary = "\n".join(
        ["# The course, executed", "", "| notebook | outcome | time |", "|---|---|---|", *rows, "", *results]
    )
    write_text(BUILD / "summary.md", summary + "\n")
    print(f"\n{summary}\n\nPages: {pages.relative_to(ROOT)}/ · this summary: build/summary.md")
    return int(failed)


def execute(notebook, name, folder):
    """Run every cell in place in a fresh kernel, in a folder, showing progress; a widget, dead later, is not kept."""
    total = sum(cell.cell_type == "code" for cell in notebook.cells)
    done, start = 0, time.perf_counter()

    def show(cell, cell_index, **_):
        nonlocal done
        done += notebook.cells[cell_index].cell_type == "code"
        ending = "\n" if done == total else "\r"
        if sys.stdout.isatty() or done == total:
            elapsed = time.perf_counter() - start
            print(f"{name:28} {done:3} of {total} cells {elapsed:6.0f} s", end=ending, flush=True)

    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=600,
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
        on_cell_executed=show,
    )
    client.execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]


def tidy(notebook, now):
    """Leave only the metadata that belong to a lesson: what it was executed with, and tags and slides of cells."""
    packages = {name: version(name) for name in ("torch", "torchvision", "numpy", "matplotlib")}
    versions = {"python": platform.python_version(), **packages, "vgglab": vgglab.__version__}
    notebook.metadata = nbformat.from_dict({**METADATA, "vgglab": {"fingerprint": now, "versions": versions}})
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict(
            {name: cell.metadata[name] for name in CELL_METADATA if name in cell.metadata}
        )


def result_lines(notebook):
    """The printed lines of the cells tagged as results."""
    for cell in notebook.cells:
        if RESULT in cell.metadata.get("tags", []):
            for output in cell.outputs:
                yield from output.get("text", "").splitlines()


if __name__ == "__main__":
    main()
