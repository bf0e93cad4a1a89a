"""What a thread says about a file before it is downloaded."""

from __future__ import annotations

import re
from html import unescape

from assistant.db.messages import Attachment
from tests.api.conftest import BOTH, World

ENGINES = BOTH

WHY = "disguised program: its name says .pdf, and it is a Windows program"


def shown(world: World, risk: str | None) -> str:
    """The one attachment of a thread, as its page has it."""
    with world.container.database.transaction() as session:
        session.get_one(Attachment, world.ids["attachment"]).risk = risk
    page = world.browser().get(f"/inbox/{world.ids['thread']}").text
    return unescape(re.findall(r'<ul class="attachments"><li>(.*?)</li>', page, re.S)[0])


def test_a_risky_file_is_named_with_its_reason_before_its_link(world: World) -> None:
    part = shown(world, WHY)
    closed, _, inside = part.partition("</summary>")
    assert "<strong>Risky</strong> note.html" in closed and "text/html, 31 B" in closed and WHY in closed
    assert "<a " not in closed
    assert f'href="/api/v1/attachments/{world.ids["attachment"]}" download' in inside
    assert "Download all the same" in inside


def test_other_files_say_whether_they_were_looked_at(world: World) -> None:
    assert "text/html, 31 B, no risky kind" in shown(world, "")
    assert "text/html, 31 B, not checked" in shown(world, None)
    assert "Risky" not in shown(world, None)


def test_the_api_tells_the_risk_too(world: World) -> None:
    shown(world, WHY)
    messages = world.program().get(f"/api/v1/threads/{world.ids['thread']}/messages").json()["items"]
    assert messages[0]["attachments"][0]["risk"] == WHY
