"""The words of an HTML mail that a person would see: hidden, tiny and white-on-white text is left out and counted."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["html_to_text"]

_BLOCKS = frozenset(
    "address article blockquote br center dd div dl dt fieldset figure footer form h1 h2 h3 h4 h5 h6 header hr li main nav ol p "
    "pre section table td th tr ul".split()
)
_UNSEEN = frozenset(
    "script style head title template noscript object embed iframe svg math textarea select option".split()
)
_HIDING = re.compile(
    r"display\s*:\s*none|visibility\s*:\s*hidden|opacity\s*:\s*0(?:\.0*)?\s*(?:;|$)|font-size\s*:\s*0|mso-hide\s*:\s*all|"
    r"(?:max-)?(?:height|width)\s*:\s*0(?:px)?\s*(?:;|$)|(?:text-indent|left|top)\s*:\s*-\d{3,}|font-size\s*:\s*[01](?:\.\d+)?px",
    re.I,
)
_WHITE = re.compile(r"(?<![-\w])color\s*:\s*(?:#fff(?:fff)?\b|white\b|rgba?\(\s*255\s*,\s*255\s*,\s*255)", re.I)
_BACK = re.compile(r"background", re.I)
_DEPTH = 300
_DEEPEST = 1_000
"""Open elements inside each other from which no parser is asked: the time it takes grows with their square."""
_TAG = re.compile(r"<(/?)([a-z][a-z0-9]*)", re.I)
_LEFT_OPEN = frozenset("area base br col dd dt hr img input li link meta option p source td th tr wbr".split())


def html_to_text(html: str) -> tuple[str, bool]:
    """Visible text with line breaks at blocks, and whether some text was hidden. Never raises for any string."""
    from selectolax.lexbor import LexborHTMLParser

    if _depth(html) > _DEEPEST:
        return " ".join(re.sub(r"<[^<>]{0,2000}>", " ", html).split()), True
    root = LexborHTMLParser(html).body
    if root is None:
        return "", False
    out: list[str] = []
    hidden = _walk(root, out)
    lines = [" ".join(line.split()) for line in "".join(out).split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip(), hidden


def _depth(html: str) -> int:
    depth = deepest = 0
    for match in _TAG.finditer(html):
        if match[2].lower() not in _LEFT_OPEN:
            depth = max(0, depth - 1) if match[1] else depth + 1
            deepest = max(deepest, depth)
    return deepest


def _walk(root: Any, out: list[str]) -> bool:
    hidden = False
    stack: list[tuple[Any, bool, int]] = [(root, False, 0)]
    while stack:
        node, leaving, depth = stack.pop()
        tag = node.tag or "-instruction"  # `<?xml ...?>`, which Outlook writes, has no name
        if leaving:
            out.append("\n")
            continue
        if tag == "-text":
            out.append(re.sub(r"\s+", " ", node.text_content or ""))
            continue
        if tag in _UNSEEN or tag.startswith("-") or tag == "_comment":
            continue
        if _is_hidden(node):
            hidden = hidden or bool((node.text() or "").strip())
            continue
        if tag in _BLOCKS:
            out.append("\n")
            stack.append((node, True, depth))
        elif tag == "img" and (alt := (node.attributes.get("alt") or "").strip()):
            out.append(f" [{alt[:200]}] ")
        if depth < _DEPTH:
            child = node.last_child
            while child is not None:
                stack.append((child, False, depth + 1))
                child = child.prev
    return hidden


def _is_hidden(node: Any) -> bool:
    attributes = node.attributes
    style = attributes.get("style") or ""
    if "hidden" in attributes or _HIDING.search(style):
        return True
    white = _WHITE.search(style) or (attributes.get("color") or "").lower() in {"#ffffff", "#fff", "white"}
    return bool(white) and not _on_colour(node)


def _on_colour(node: Any) -> bool:
    """Whether the element or something round it has a background of its own: white text is readable there."""
    for _ in range(30):
        if node is None or node.tag == "-undef":
            return False
        attributes = node.attributes or {}
        if "bgcolor" in attributes or "background" in attributes or _BACK.search(attributes.get("style") or ""):
            return True
        node = node.parent
    return True
