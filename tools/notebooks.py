"""Execute the course: `refresh` stores the outputs in the notebooks, `run` writes pages and a summary to build/."""

import argparse
import hashlib
import os
import shutil
import sys
import time
from pathlib import Path

os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from sphinx.cmd.build import build_main

from vgglab._files import write_text

ROOT = Path(__file__).parent.parent
NOTEBOOKS = ROOT / "notebooks"
DOCS = ROOT / "docs"
BUILD = ROOT / "build"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
VARIES = "nbval-ignore-output"
RESULT = "result"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=("refresh", "run"))
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all of notebooks/")
    arguments = parser.parse_args()
    paths = arguments.notebooks or sorted(NOTEBOOKS.glob("*.ipynb"))
    sys.exit(refresh(paths) if arguments.command == "refresh" else run(paths))


def refresh(paths):
    """Execute each notebook and store its outputs; a second call changes no byte."""
    for path in paths:
        before = nbformat.read(path, as_version=4)
        notebook = execute(nbformat.from_dict(before), path.stem)
        tidy(notebook, before)
        write_text(path, nbformat.writes(notebook, indent=1) + "\n")
    return 0


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
            execute(notebook, path.stem)
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


def execute(notebook, name):
    """Run every cell in place in a fresh kernel, in notebooks/, showing progress; return the notebook."""
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
        coalesce_streams=True,
        resources={"metadata": {"path": str(NOTEBOOKS)}},
        on_cell_executed=show,
    )
    client.execute()
    return notebook


def tidy(notebook, before):
    """Drop what differs between two runs: foreign metadata, and new outputs of cells that vary.

    Such a cell keeps its stored output as long as its source is the one that gave it.
    """
    notebook.metadata = nbformat.from_dict(METADATA)
    stored = {cell.id: cell.get("outputs") for cell in before.cells}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if VARIES in cell.metadata.get("tags", []):
            source = hashlib.sha256(cell.source.encode()).hexdigest()[:12]
            if cell.metadata.get("output_of") == source and stored[cell.id]:
                cell.outputs = stored[cell.id]
            cell.metadata["output_of"] = source


def result_lines(notebook):
    """The printed lines of the cells tagged as results."""
    for cell in notebook.cells:
        if RESULT in cell.metadata.get("tags", []):
            for output in cell.outputs:
                yield from output.get("text", "").splitlines()


if __name__ == "__main__":
    main()
