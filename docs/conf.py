"""Settings of the site: Sphinx reads this file. ``python docs/build.py`` builds the site."""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.ext import autosummary
from sphinx.pycode import ModuleAnalyzer

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the gallery's networks are small: threads would wait for each other
os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler of the gallery tells of no GPU
sys.path.insert(0, str(Path(__file__).parent))
import api_pages

import crossfade

project = "crossfade"
author = "The crossfade developers"
project_copyright = "2026, the crossfade developers"
version = release = crossfade.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
sphinx_gallery_conf = {
    "examples_dirs": "../examples/gallery",
    "gallery_dirs": "gallery",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_signature": False,
    "write_computation_times": False,
}
exclude_patterns = ["_build"]
templates_path = ["_templates"]
default_role = "py:obj"
napoleon_use_param = False
napoleon_custom_sections = [("Attributes", "params_style")]
autosummary.WELL_KNOWN_ABBREVIATIONS += ("eq.", "Fig.")  # no end of a sentence
autodoc_typehints = "signature"
# What scikit-learn and PyTorch add to every class.
_INHERITED = "set_fit_request, set_partial_fit_request, set_score_request, extra_repr"
autodoc_default_options = {"exclude-members": _INHERITED}
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 90
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

html_theme = "pydata_sphinx_theme"
html_title = f"crossfade {version}"
html_static_path = ["_static"]
html_extra_path = ["first"]
html_css_files = ["narrow.css"]
html_context = {"default_mode": "auto"}
html_show_sourcelink = False
html_theme_options = {"show_toc_level": 2, "secondary_sidebar_items": ["page-toc"], "footer_start": ["copyright"]}
copybutton_prompt_text = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp = True


# Links to other projects' pages are made where a network is there; a build without one has plain names instead.
_PROJECTS = {
    "python": "https://docs.python.org/3",
    "torch": "https://docs.pytorch.org/docs/stable",
    "numpy": "https://numpy.org/doc/stable",
    "sklearn": "https://scikit-learn.org/stable",
    "lightning": "https://lightning.ai/docs/pytorch/stable",
    "transformers": "https://huggingface.co/docs/transformers/main/en",
}


def _inventories(folder: Path) -> dict[str, tuple[str, str]]:
    """Return each project's address and the file with its names, which is fetched here: Sphinx would warn, and fail."""
    found = {}
    folder.mkdir(parents=True, exist_ok=True)
    for name, address in _PROJECTS.items():
        file = folder / f"{name}.inv"
        try:
            with urllib.request.urlopen(f"{address}/objects.inv", timeout=5) as answer:
                file.write_bytes(answer.read())
        except urllib.error.HTTPError:
            continue
        except OSError:  # no network
            break
        found[name] = address, str(file)
    return found


intersphinx_mapping = _inventories(Path(__file__).parent / "_build" / "inventories")

# What stands below these pages in the menus, by captions. It isn't in the pages, which are read on GitHub as well.
_GUIDES = """
choose tables texts images verdict trainers vocabularies own-loss noise calibrate data rerun cluster weights statistics
"""
_TRAINERS = "plain-loop lightning huggingface trl scikit-learn timm torchvision accelerate migrating"
_IN_DEPTH = "/compare /statistics /integrations/index /large-vocabularies /cpu"
_WHY = "/why/gradient-curves /why/taylor /why/dynamics /why/escaping"
_CHILDREN = {
    "guides/index": {"One task each": _GUIDES, "In depth": _IN_DEPTH},
    "integrations/index": {"": _TRAINERS},
    "cards/index": {"": "*"},
    "results/index": {"Ours beside the paper's": "table4 images text *", "Its arguments": _WHY},
}


def _add_children(app: Sphinx, page: str, source: list[str]) -> None:
    for caption, children in _CHILDREN.get(page, {}).items():
        options = [":hidden:", ":glob:", *([f":caption: {caption}"] if caption else [])]
        source[0] += "\n".join(["", "```{toctree}", *options, "", *children.split(), "```", ""])


def _link_description(app: Sphinx, kind: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    words = "the module's description"
    lines[:] = [line.replace(words, f":mod:`{words} <{getattr(thing, '__module__', '')}>`") for line in lines]


def _skips(app: Sphinx, kind: str, name: str, thing: object, skipped: bool, options: object) -> bool | None:
    """Skip a named tuple's fields: their descriptions stand in the class's own."""
    return True if (thing.__doc__ or "").startswith("Alias for field number") else None


def _without_overloads(self: ModuleAnalyzer) -> None:
    """Find no overloads: the function itself has every argument by name, with its default."""
    _analyze(self)
    self.overloads = {}


_analyze = ModuleAnalyzer.analyze
ModuleAnalyzer.analyze = _without_overloads  # type: ignore[method-assign]


def setup(app: Sphinx) -> None:
    api_pages.write(Path(app.srcdir, "api"))
    app.connect("source-read", _add_children)
    app.connect("autodoc-process-docstring", _link_description)
    app.connect("autodoc-skip-member", _skips)
