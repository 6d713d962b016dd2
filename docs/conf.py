"""Settings of the documentation site; `make docs` builds it into docs/_build/html."""

import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS / "_ext"), str(DOCS.parent)]

project = "Ergo"
author = "The Ergo authors"
copyright = "The Ergo authors, Apache License 2.0"
extensions = [
    "myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode",
    "sphinx_copybutton", "ergo_site", "ergo_results",
]  # fmt: skip
exclude_patterns = ["_build", "_ext", "_figures", "results"]
root_doc = "index"

# Pages and notebooks. Notebooks are rendered copies, which have their outputs already.
nb_execution_mode = "off"
# Widgets would load their script from another server.
nb_ipywidgets_js = {}
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 4
# Outputs of notebooks are of many kinds, of which a page shows the best that it can.
# A type such as `bytes` may also be the name of attributes of several classes.
suppress_warnings = ["mystnb.unknown_mime_type", "ref.python"]

# API from docstrings, which write code in single backticks.
default_role = "code"
autodoc_default_options = {"member-order": "bysource", "show-inheritance": False}
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
viewcode_line_numbers = True

html_theme = "sphinx_book_theme"
html_title = "Ergo"
html_static_path = ["_static"]
html_css_files = ["ergo.css"]
html_js_files = ["ergo.js"]
html_favicon = "_static/favicon.svg"
html_context = {"default_mode": "auto"}
html_math_renderer = "mathml"
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "use_download_button": False, "use_fullscreen_button": False, "show_toc_level": 2,
    "home_page_in_toc": True, "navbar_persistent": [], "navbar_end": [],
}  # fmt: skip
copybutton_exclude = ".linenos, .gp, .go"
