"""How Sphinx builds the course's pages from the notebooks' stored outputs: make pages."""

project = "vgglab"
author = "the vgglab authors"
html_title = "vgglab · a course on VGG"

extensions = ["myst_nb", "sphinx-mathjax-offline", "sphinx.ext.autodoc"]
root_doc = "docs/index"
include_patterns = ["docs/*.md", "notebooks/*.ipynb"]
exclude_patterns = ["**/.ipynb_checkpoints"]

nb_execution_mode = "off"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

html_theme = "furo"
html_extra_path = ["redirect"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_static_path = ["static"]
html_css_files = ["pages.css"]

autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_preserve_defaults = True
