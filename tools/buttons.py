"""Put Colab and Binder buttons for a GitHub repository into the README and the lessons: buttons.py OWNER/NAME."""

import re
import sys
from pathlib import Path

import nbformat

from vgglab._files import write_text

ROOT = Path(__file__).parent.parent
HIDDEN = {"slideshow": {"slide_type": "skip"}, "tags": ["remove-cell"]}  # on slides and pages, which stay offline
INSTALL = """\
import importlib.util

if importlib.util.find_spec("vgglab") is None:  # a rented notebook, such as Colab's
    %pip install --quiet 'vgglab[course] @ git+https://github.com/{repository}'"""


def main(repository, root=ROOT):
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        sys.exit(f"the repository must be OWNER/NAME, as on GitHub, not {repository!r}")
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        new = nbformat.v4
        cells = [
            new.new_markdown_cell(buttons(repository, f"notebooks/{path.name}"), id="buttons", metadata=HIDDEN),
            new.new_code_cell(INSTALL.format(repository=repository), id="install", metadata=HIDDEN),
        ]
        kept = [cell for cell in notebook.cells if cell.id not in ("buttons", "install")]
        notebook.cells = [kept[0], *cells, *kept[1:]]
        write_text(path, nbformat.writes(notebook, indent=1) + "\n")
    readme = root / "README.md"
    title, text = readme.read_text(encoding="utf-8").split("\n\n", 1)
    text = text.split("\n\n", 1)[1] if text.startswith("[![") else text
    write_text(readme, f"{title}\n\n{buttons(repository, 'notebooks/00_start_here.ipynb')}\n\n{text}")
    print("Now run make refresh: the lessons have one cell more.")


def buttons(repository, path):
    colab = f"https://colab.research.google.com/github/{repository}/blob/main/{path}"
    binder = f"https://mybinder.org/v2/gh/{repository}/main?urlpath=lab/tree/{path}"
    return (
        f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab}) "
        f"[![Open in Binder](https://mybinder.org/badge_logo.svg)]({binder})"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
