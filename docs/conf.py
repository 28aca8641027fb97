"""Configuration of the documentation. `make docs` builds it into docs/_build/html, without network access."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT)]  # drawings.py and directives.py; the package of this checkout

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import xee_tf  # noqa: E402

project = "xee_tf"
author = "The xee_tf developers"
project_copyright = "The xee_tf developers"
version = release = xee_tf.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_nb",
    "sphinx_design",
    "sphinx_copybutton",
    "cyclopts.ext.sphinx",
    "directives",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]
# .rst is first, because it is the suffix of the pages that autosummary generates.
source_suffix = {".rst": "restructuredtext", ".md": "myst-nb", ".ipynb": "myst-nb"}

# Notebooks are part of the site as they are committed, with their outputs.
nb_execution_mode = "off"
TUTORIALS = HERE / "tutorials"
shutil.rmtree(TUTORIALS, ignore_errors=True)
TUTORIALS.mkdir()
for file in (ROOT / "notebooks").iterdir():
    if file.suffix in (".ipynb", ".png", ".svg"):
        shutil.copy(file, TUTORIALS)
# They are read in this order; others follow by name.
ORDER = (
    "quickstart",
    "points",
    "segmentation",
    "time_series",
    "hosting",
    "earth_engine",
    "larger_than_memory",
)
names = sorted(file.stem for file in TUTORIALS.glob("*.ipynb"))
names.sort(key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))
listed = "".join(f"tutorials/{name}\n" for name in names)
(TUTORIALS / "toctree.txt").write_text(f"```{{toctree}}\n:maxdepth: 1\n\n{listed}```\n")

myst_enable_extensions = ["colon_fence", "deflist", "attrs_inline"]
myst_heading_anchors = 4

autosummary_generate = True
shutil.rmtree(HERE / "reference" / "generated", ignore_errors=True)  # also pages of names that were removed
autodoc_typehints = "none"  # numpydoc documents the types
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
add_module_names = False
default_role = "autolink"
smartquotes = False  # dashes of options
toc_object_entries_show_parents = "hide"

# Names of xee_tf must be documented. Those of other packages would need inventories, which are not fetched.
nitpicky = True
nitpick_ignore_regex = [(".*", r"(?!xee_tf\.).*")]
suppress_warnings = [
    "mystnb.unknown_mime_type",  # widgets in notebooks
]

html_theme = "pydata_sphinx_theme"
html_title = "xee_tf"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_favicon = "_static/mark.svg"
html_show_sourcelink = False
html_copy_source = False
html_sidebars = {page: [] for page in ("index", "install", "tour", "performance")}  # they have no subpages
html_theme_options = {
    "logo": {"text": "xee_tf", "image_light": "_static/mark.svg", "image_dark": "_static/mark.svg"},
    "navbar_align": "left",
    "header_links_before_dropdown": 7,
    "show_nav_level": 1,
    "navigation_with_keys": False,
    "show_prev_next": True,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_context = {"default_mode": "auto"}
copybutton_exclude = ".linenos, .gp, .go"
