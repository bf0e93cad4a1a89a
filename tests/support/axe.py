"""What axe-core finds on a page (WCAG 2.2 A and AA), light and dark."""

from __future__ import annotations

from typing import Literal

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

__all__ = ["violations"]

_COLOURS = ["color-contrast", "link-in-text-block"]
_TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
_SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


def violations(page: Page) -> list[str]:
    """What is found. A dark page is the same page: there only what depends on colours is asked again."""
    found = []
    for scheme in _SCHEMES:
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") == (scheme == "dark")
        only = {"type": "tag", "values": _TAGS} if scheme == "light" else {"type": "rule", "values": _COLOURS}
        seen = Axe().run(page, options={"runOnly": only}).response["violations"]
        found += [f"{scheme}: {one['id']}: {one['help']}: {one['nodes'][0]['html'][:160]}" for one in seen]
    return found
