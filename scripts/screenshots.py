"""Take the pictures in docs/images: a throwaway installation, the demo's mail, Debian's Chromium.

Usage: python scripts/screenshots.py (needs the dev requirements and the chromium package)
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.support.installation import Installation, installation  # noqa: E402
from tests.support.servers import find_binary  # noqa: E402

TARGET = ROOT / "docs" / "images"
SHOTS = (
    ("inbox", 1440, 900, "light", "/inbox?view=review"),
    ("inbox-dark", 1440, 900, "dark", "/inbox?view=review"),
    ("inbox-phone", 375, 812, "light", "/inbox?view=review"),
    ("inbox-phone-dark", 375, 812, "dark", "/inbox?view=review"),
)
SHOWN = "Please cancel my order"
"""Subject of the demo's thread that is open in the pictures."""
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync", "--hide-scrollbars")


def main() -> None:
    TARGET.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        installation(Path(folder) / "var") as running,
        sync_playwright() as playwright,
    ):
        running.command("demo", seconds=300)
        binary = find_binary("chromium", "chromium")
        browser = playwright.chromium.launch(executable_path=binary, args=list(FLAGS))
        state = str(Path(folder) / "state.json")
        _sign_in(browser, running, state)
        for name, width, height, scheme, url in SHOTS:
            context = browser.new_context(
                viewport={"width": width, "height": height},
                color_scheme="dark" if scheme == "dark" else "light",
                storage_state=state,
                base_url=running.url,
            )
            page = context.new_page()
            page.goto(url)
            ready = page.locator(".row", has=page.locator(".mark-ready"))
            ready.filter(has_text=SHOWN).first.locator(".row-link").click()
            page.locator("#suggestion").wait_for()
            page.mouse.move(0, 0)
            page.wait_for_timeout(600)
            page.screenshot(path=str(TARGET / f"{name}.png"))
            context.close()
        browser.close()


def _sign_in(browser: Browser, running: Installation, state: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(running.link)
    page.click("button.primary")
    page.wait_for_url("**/inbox**")
    context.storage_state(path=state)
    context.close()


if __name__ == "__main__":
    main()
