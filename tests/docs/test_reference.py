"""The API reference names everything that is public, and everything public says what it is."""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path

import pytest

import crossfade

ROOT = Path(__file__).parents[2]
SOURCE = Path(crossfade.__file__).parent


@pytest.fixture(scope="module")
def reference():
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        return importlib.import_module("api_pages")
    finally:
        sys.path.pop(0)


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__")


def test_every_package_and_every_integration_has_its_page(reference):
    listed = {*reference.PAGES, *(module for modules in reference.PAGES.values() for module in modules)}
    stubs = {dotted(path) for path in SOURCE.rglob("*.pyi")}
    integrations = {dotted(path) for path in (SOURCE / "integrations").glob("*.py") if not path.stem.startswith("_")}
    assert not (stubs | integrations) - listed


def test_every_public_name_is_on_a_page_and_says_what_it_is(reference):
    for package in reference.PAGES:
        if package == "crossfade.integrations":  # needs the frameworks; the site's build imports them
            continue
        page = reference.page(package)
        for names in reference.public_names(package).values():
            for name in names:
                assert f"   ~{name}\n" in page
                module, _, own = name.rpartition(".")
                thing = getattr(importlib.import_module(module), own)
                if inspect.isroutine(thing) or inspect.isclass(thing):  # a type alias can't have one
                    assert "." in (thing.__doc__ or ""), name
