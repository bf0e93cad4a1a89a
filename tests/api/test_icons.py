"""What a system needs to install the inbox: icons of the sizes that the manifest says, made from one drawing."""

from __future__ import annotations

import re
import struct

from scripts.icons import ICONS, STATIC, drawing
from tests.api.conftest import World


def size(content: bytes) -> tuple[int, int]:
    """Width and height of a PNG (its IHDR chunk)."""
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", content[16:24])
    return width, height


def test_every_icon_of_the_manifest_is_served_in_its_size(world: World) -> None:
    client = world.browser()
    link = re.search(r'rel="manifest" href="([^"]+)"', client.get("/inbox").text)
    assert link
    manifest = client.get(link[1])
    assert manifest.headers["content-type"].startswith("application/manifest+json")
    icons = manifest.json()["icons"]
    assert {(one["sizes"], one["purpose"]) for one in icons} >= {
        ("192x192", "any"),
        ("512x512", "any"),
        ("512x512", "maskable"),
    }
    for one in icons:
        answer = client.get(one["src"])
        assert (answer.status_code, answer.headers["content-type"]) == (200, one["type"])
        if one["type"] == "image/png":
            width, height = size(answer.content)
            assert f"{width}x{height}" == one["sizes"]


def test_a_phone_that_reads_no_manifest_finds_its_icon(world: World) -> None:
    client = world.browser()
    link = re.search(r'rel="apple-touch-icon" href="([^"]+)"', client.get("/inbox").text)
    assert link and size(client.get(link[1]).content) == (180, 180)


def test_the_script_makes_every_icon_that_is_there_and_fills_the_maskable_ones() -> None:
    assert {one.name for one in STATIC.glob("*.png")} == set(ICONS)
    svg = (STATIC / "icon.svg").read_text().strip()
    full = drawing(svg, full=True)
    assert 'rx="112"' in svg and 'rx="112"' not in full and "scale(0.8)" in full
