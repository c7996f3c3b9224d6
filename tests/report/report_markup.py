"""Reads a page as a browser would and lists what is wrong with it."""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
from html.parser import HTMLParser

VOID = {"meta", "link", "br", "hr", "img", "input"}
FETCHES = {"src", "href", "srcset", "xlink:href", "data", "action", "poster", "background", "formaction"}
PHRASING = {"small", "code", "a", "svg", "path", "text", "title", "bdi", "strong", "em", "span"}


class Page(HTMLParser):
    """A page taken apart: ``problems``, the text of each element by tag, and its attributes."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.problems: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[tuple[str, dict[str, str]]] = []
        self._pieces: list[list[str]] = []
        self.feed(html)
        self.close()
        self.problems += [f"<{tag}> never closed" for tag, _ in self._open]
        self._check_page(html)

    def all(self, tag: str) -> list[dict[str, str]]:
        """Attributes of every element with this tag."""
        return [attributes for name, attributes in self.elements if name == tag]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        if len(attributes) < len(attrs):
            self.problems.append(f"<{tag}> repeats an attribute")
        self._check_element(tag, attributes)
        self.elements.append((tag, attributes))
        if tag not in VOID:
            self._open.append((tag, attributes))
            self._pieces.append([])

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if not any(name == "svg" for name, _ in self._open):
            self.problems.append(f"<{tag}/> outside an svg")
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open[-1][0] != tag:
            self.problems.append(f"</{tag}> closes {self._open[-1][0] if self._open else 'nothing'}")
            return
        self._open.pop()
        self.texts.setdefault(tag, []).append("".join(self._pieces.pop()))

    def handle_data(self, data: str) -> None:
        for pieces in self._pieces:
            pieces.append(data)

    def _check_element(self, tag: str, attributes: dict[str, str]) -> None:
        inside = [name for name, _ in self._open]
        if tag in ("iframe", "object", "embed", "base", "form"):
            self.problems.append(f"<{tag}> on the page")
        if any(name.startswith("on") for name in attributes):
            self.problems.append(f"<{tag}> has an event handler")
        if "p" in inside and tag not in PHRASING:
            self.problems.append(f"<{tag}> inside <p>")
        for name in FETCHES & attributes.keys():
            if not attributes[name].startswith(("#", "data:")):
                self.problems.append(f"<{tag} {name}={attributes[name]!r}> fetches")
        drawing = tag == "svg" and "svg" not in inside and attributes.get("aria-hidden") != "true"
        if drawing and (attributes.get("role") != "img" or not attributes.get("aria-label", "").strip()):
            self.problems.append("a drawing without a name")
        if tag == "th" and attributes.get("scope") not in ("row", "col"):
            self.problems.append("a table heading without a scope")
        if "svg" in inside and "id" in attributes:
            self.problems.append("an id in a drawing")

    def _check_page(self, html: str) -> None:
        ids = [attributes["id"] for _, attributes in self.elements if "id" in attributes]
        self.problems += [f"id {name} twice" for name in ids if ids.count(name) > 1]
        links = [attributes["href"][1:] for attributes in self.all("a") if attributes["href"].startswith("#")]
        self.problems += [f"#{name} leads nowhere" for name in links if name not in ids]
        referred = [a["aria-labelledby"] for _, a in self.elements if "aria-labelledby" in a]
        self.problems += [f"aria-labelledby {name} leads nowhere" for name in referred if name not in ids]
        scripts, allowed = self.texts.get("script", []), self.all("meta")[-1].get("content", "")
        digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
        if [f"script-src 'sha256-{one}'" in allowed for one in digests] != [True]:
            self.problems.append("not one script alone, allowed by its hash")
        style = " ".join(self.texts.get("style", []))
        self.problems += re.findall(r"url\([^)]*\)|@import[^;]*", style)
        levels = [int(tag[1]) for tag, _ in self.elements if re.fullmatch(r"h[1-6]", tag)]
        skips = any(b > a + 1 for a, b in itertools.pairwise(levels))
        if levels[:1] != [1] or levels.count(1) != 1 or skips:
            self.problems.append(f"headings {levels}")
        if not html.startswith("<!DOCTYPE html>") or not self.all("html")[0].get("lang"):
            self.problems.append("no doctype or language")
        if not any(a.get("name") == "viewport" for a in self.all("meta")) or self.all("meta")[0] != {
            "charset": "utf-8"
        }:
            self.problems.append("no viewport, or charset not first")
