"""Checks of the built site: python docs/check.py

Every link and anchor leads somewhere, nothing is fetched from elsewhere, and every public name has its place. Where
Chromium is installed, every page is also opened as on a phone, light and dark: without an error, and no wider than the
screen.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import api_pages

SITE = Path(__file__).parent / "_build" / "html"
PHONE = {"width": 390, "height": 844}
WIDTH = "document.documentElement.scrollWidth"
BRIGHTNESS = (
    "getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).slice(0, 3).reduce((a, b) => a + +b / 3, 0)"
)


class Page(HTMLParser):
    """The addresses on a page: its anchors, what it links to, and what it needs to be shown."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.needs: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors.update(given[name] for name in ("id", "name") if name in given)
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link" and given.get("rel") in ("stylesheet", "preload", "icon"):
            self.needs.append(given["href"])
        elif "src" in given:
            self.needs.append(given["src"])


def broken(pages: dict[Path, Page]) -> Iterator[str]:
    """Yield each link, or thing that a page needs, that leads nowhere or to another host; and each broken sentence."""
    for page in pages.values():
        for address in (*page.links, *page.needs):
            parts = urlsplit(address)
            if parts.scheme in ("data", "mailto"):
                continue
            if parts.scheme or parts.netloc:
                if address in page.needs:
                    yield f"{page.path}: fetches {address}"
                continue
            target = (page.path.parent / unquote(parts.path)).resolve() if parts.path else page.path
            if not target.exists():
                yield f"{page.path}: {address} isn't there"
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                yield f"{page.path}: {address} has no such anchor"
        if re.search(r"\beq\.\s*</", page.path.read_text()):
            yield f"{page.path}: a summary ends within an equation's number"
    for sheet in SITE.rglob("*.css"):
        for address in re.findall(r"url\(['\"]?(?!data:)([^'\")]+)", sheet.read_text()):
            if "//" in address or not (sheet.parent / urlsplit(address).path).exists():
                yield f"{sheet}: fetches {address}"


def unnamed() -> Iterator[str]:
    """Yield each public name that the reference doesn't describe."""
    from sphinx.util.inventory import InventoryFile

    inventory = InventoryFile.loads((SITE / "objects.inv").read_bytes(), uri="")
    known = {name for kind in inventory.data.values() for name in kind}
    for package in api_pages.PAGES:
        for names in api_pages.public_names(package).values():
            yield from (f"{name} isn't in the API reference" for name in names if name not in known)


def seen_in_chromium(chromium: str, paths: Iterable[Path]) -> Iterator[str]:
    """Yield what is wrong with a page in a browser of a phone's width, light and dark."""
    from playwright.sync_api import TimeoutError, sync_playwright

    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-quic"])
        page = browser.new_page(viewport=PHONE, color_scheme="light")
        found: dict[str, list[str]] = defaultdict(list)
        page.on("console", lambda said: found[said.type].append(said.text))
        page.on("pageerror", lambda error: found["error"].append(str(error)))
        page.on("request", lambda asked: found[urlsplit(asked.url).scheme].append(asked.url))
        for path in paths:
            found.clear()
            page.goto(path.as_uri())
            problems = [f"is {width} pixels wide" for width in [page.evaluate(WIDTH)] if width > PHONE["width"]]
            for scheme, shown in (("light", f"{BRIGHTNESS} > 200"), ("dark", f"{BRIGHTNESS} < 100")):
                page.emulate_media(color_scheme=scheme)
                try:
                    page.wait_for_function(shown, timeout=10_000)
                except TimeoutError:
                    problems.append(f"isn't {scheme} in {scheme} mode")
            elsewhere = [url for kind in ("http", "https", "ws", "wss") for url in found[kind]]
            problems += [*found["error"], *(f"fetches {url}" for url in elsewhere)]
            yield from (f"{path}: {problem}" for problem in problems)
        browser.close()


def main() -> int:
    # The theme's own templates are among its static files.
    paths = [path.resolve() for path in sorted(SITE.rglob("*.html")) if "_static" not in path.parts]
    pages = {path: Page(path) for path in paths}
    problems = [*broken(pages), *unnamed()]
    if chromium := shutil.which("chromium"):
        problems += seen_in_chromium(chromium, paths)
    print(*problems, sep="\n")
    print(f"{len(pages)} pages, {len(problems)} problems" + ("" if chromium else "; Chromium isn't installed"))
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
