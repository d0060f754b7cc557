"""Make a reveal.js deck of each notebook from its stored outputs and slide types: make slides."""

import importlib.resources
import shutil
import sys
from pathlib import Path

import nbformat
from nbconvert import SlidesExporter

from vgglab._files import write_text

ROOT = Path(__file__).parent.parent
STYLE = Path(__file__).parent / "slides"


def main(folder):
    shutil.rmtree(folder, ignore_errors=True)
    for name, package, files in (
        ("reveal", "sphinx_revealjs", "_static/revealjs"),
        ("mathjax", "sphinx-mathjax-offline", "static/mathjax"),
    ):
        shutil.copytree(importlib.resources.files(package) / files, folder / name)
    shutil.copy(STYLE / "slides.css", folder)
    exporter = SlidesExporter(
        template_name=STYLE.name,
        extra_template_basedirs=[str(STYLE.parent)],
        reveal_url_prefix="reveal",
        reveal_theme="white",
    )
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    for path in notebooks:
        deck, _ = exporter.from_notebook_node(nbformat.read(path, 4), {"metadata": {"name": path.stem}})
        write_text(folder / f"{path.stem}.html", deck)
    links = "\n".join(f'<li><a href="{path.stem}.html">{path.stem.replace("_", " ")}</a></li>' for path in notebooks)
    page = f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>vgglab</title>\n<ul>\n{links}\n</ul>\n'
    write_text(folder / "index.html", page)
    print(f"{len(notebooks)} decks: open {folder}/index.html")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
