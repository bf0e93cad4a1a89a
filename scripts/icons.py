"""Make the PNG icons of the web manifest from api/inbox/static/icon.svg, in Debian's Chromium.

Usage: python scripts/icons.py (`--check`: write nothing, fail when a picture is not what the SVG gives)
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.support.servers import find_binary  # noqa: E402

STATIC = ROOT / "api" / "inbox" / "static"
ICONS = {
    # name -> pixels, and whether it fills its square: what a system cuts into a shape of its own has no corners
    "icon-192.png": (192, False),
    "icon-512.png": (512, False),
    "icon-maskable.png": (512, True),
    "icon-apple.png": (180, True),
}
_SAFE = 0.8
"""Share of a maskable icon that no system cuts off (W3C, Web App Manifest, section 4.3: a circle of 80 %)."""


def drawing(svg: str, *, full: bool) -> str:
    """The SVG as a page; with `full` its background runs to the edges and the rest stays in the safe part."""
    if full:
        start, _, rest = svg.partition("<rect")
        rect, _, shapes = rest.partition("/>")
        shapes = shapes.removesuffix("</svg>")
        square = rect.replace('rx="112"', "")
        inset = 512 * (1 - _SAFE) / 2
        svg = f'{start}<rect{square}/><g transform="translate({inset} {inset}) scale({_SAFE})">{shapes}</g></svg>'
    style = "html,body{margin:0;background:transparent}svg{display:block;width:100vw;height:100vh}"
    return f"<!doctype html><style>{style}</style>{svg}"


def pictures() -> dict[str, bytes]:
    from playwright.sync_api import sync_playwright

    svg = (STATIC / "icon.svg").read_text().strip()
    made = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_binary("chromium", "chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        for name, (pixels, full) in ICONS.items():
            page = browser.new_page(viewport={"width": pixels, "height": pixels})
            page.set_content(drawing(svg, full=full))
            made[name] = page.screenshot(omit_background=True)
            page.close()
        browser.close()
    return made


def main() -> int:
    made = pictures()
    if "--check" in sys.argv[1:]:
        old = [name for name, content in made.items() if (STATIC / name).read_bytes() != content]
        if old:
            sys.stderr.write(f"{', '.join(old)}: out of date, run python scripts/icons.py\n")
        return 1 if old else 0
    for name, content in made.items():
        (STATIC / name).write_bytes(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
