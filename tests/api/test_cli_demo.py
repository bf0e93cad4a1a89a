"""`notifyr demo` on a running installation: what it fills each screen with, and that a second run adds nothing."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import select

from api.commands.demo import mails
from assistant.db.messages import Message, Suggestion, Thread
from assistant.db.session import Database
from assistant.states import Delivery, Direction, SuggestionState, ThreadState
from tests.support.installation import installation
from tests.support.servers import wait_until


@pytest.mark.timeout(300)
def test_the_demo_fills_every_screen_once(tmp_path: Path) -> None:
    with (
        installation(tmp_path / "var", generator="off") as running,
        closing(Database(running.settings.sql_url, pool_size=1)) as database,
    ):
        first = json.loads(running.command("demo", "--json", seconds=240))
        assert (first["mails_sent"], first["mails_known"], first["still_working_on"]) == (len(mails("x")), 0, 0)
        assert (first["replies_written"], first["answers_added"] > 5) == (1, True)

        def sent() -> bool:
            with database.reading() as session:
                asked = select(Message.status).where(Message.direction == Direction.OUTBOUND)
                return session.scalars(asked).all() == [Delivery.SENT]

        wait_until(sent, seconds=30, what="one reply under Sent")
        filled = counted(database)
        assert {name: filled[name] for name in EXPECTED} == EXPECTED
        assert 3 <= filled["spam"] <= 4, "the plain ones are in quarantine; one may be left to a person"
        assert filled["review"] >= 12
        second = json.loads(running.command("demo", "--json", seconds=240))
        assert {name: second[name] for name in ("mails_sent", "answers_added", "replies_written")} == {
            "mails_sent": 0,
            "answers_added": 0,
            "replies_written": 0,
        }
        assert second["mails_known"] == first["mails_sent"]
        assert counted(database) == filled


EXPECTED = {"messages": len(mails("x")) + 1, "bounces": 1, "auto-replies": 1}


def counted(database: Database) -> dict[str, int]:
    with database.reading() as session:
        kinds = Counter(session.scalars(select(Message.auto_submitted)))
        states = Counter(session.scalars(select(Thread.state)))
        proposed = select(Suggestion.id).where(Suggestion.state == SuggestionState.PROPOSED)
        return {
            "messages": kinds.total(),
            "spam": states[ThreadState.SPAM],
            "review": len(session.scalars(proposed).all()),
            "bounces": kinds["bounce"],
            "auto-replies": kinds["auto-replied"],
        }
