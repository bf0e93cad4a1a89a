"""What to ask next, and what the answers say: uncertainty times count, each of another kind; calibration; drift."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.orm import Session

from assistant.clock import utcnow
from assistant.db.messages import Message
from assistant.db.session import Database
from assistant.services import corrections, learning
from assistant.states import TriageState
from tests.assistant.rows import a_thread, an_inbound


def labelled(session: Session, text: str, scores: dict[str, float], **values: Any) -> Message:
    labels = [{"name": f"intent:{name}", "score": score} for name, score in scores.items()]
    trace = [
        {
            "stage": "classify",
            "outcome": "ok",
            "milliseconds": 4.0,
            "detail": {
                "claims": {"intent": max(scores, key=lambda name: scores[name])} if max(scores.values()) >= 0.5 else {},
                "abstained": [] if max(scores.values()) >= 0.5 else ["intent"],
            },
        }
    ]
    return an_inbound(session, a_thread(session), text, labels=labels, trace=trace, triage=TriageState.DONE, **values)


def test_unsure_messages_of_many_alike_come_first_and_kinds_take_turns(database: Database) -> None:
    with database.transaction() as session:
        for number in range(8):
            labelled(session, f"about a refund or a bill {number}", {"refund": 0.5, "billing": 0.5})
        labelled(session, "about a demo or a price", {"sales": 0.5, "pricing": 0.5})
        labelled(session, "surely a refund", {"refund": 0.99, "billing": 0.01})
        labelled(session, "about a refund or a bill 0", {"refund": 0.5, "billing": 0.5})
        asked = learning.queue(session)
        kinds = [{label for label, _ in one.best} for one in asked]
        texts = [one.message.new_text for one in asked]
    assert kinds[0] == {"refund", "billing"} and asked[0].alike >= 8
    assert {"sales", "pricing"} in kinds[:4], "another kind is asked before all of the first are"
    assert texts.index("surely a refund") > texts.index("about a demo or a price")
    assert len(texts) == len(set(texts)), "the same text is asked once"


def test_what_is_answered_is_not_asked_again_and_the_queue_is_short(database: Database) -> None:
    with database.transaction() as session:
        made = [labelled(session, f"text {number}", {"refund": 0.4, "billing": 0.35}) for number in range(30)]
        assert len(learning.queue(session)) == learning.QUEUE
        corrections.record(session, made[0].id, head="intent", label="refund")
        assert made[0].id not in {one.message.id for one in learning.queue(session, limit=50)}


def test_accuracy_is_counted_on_what_is_held_out(database: Database) -> None:
    with database.transaction() as session:
        made = [
            labelled(session, f"text {chr(97 + number % 26) * (number // 26 + 1)}", {"refund": 0.7})
            for number in range(60)
        ]
        held = [one for one in made if corrections.is_held_out(f"{one.subject}\n{one.new_text}")][:4]
        for number, message in enumerate(held):
            corrections.record(session, message.id, head="intent", label="billing" if number == 0 else "refund")
        learned = next(one for one in made if not corrections.is_held_out(f"{one.subject}\n{one.new_text}"))
        corrections.record(session, learned.id, head="intent", label="billing")
        points = learning.curve(session)
        (only,) = learning.calibration(session)
        reached = learning.reached(session)
    assert [round(one.accuracy, 2) for one in points] == [0.0, 0.5, 0.67, 0.75][: len(held)]
    assert only.claimed == pytest.approx(0.7) and only.count == len(held) + 1
    assert reached == {"given": len(held) + 1, "held_out": len(held), "over_cap": 0, "undone": 0}


def test_a_week_with_other_mail_is_seen(database: Database) -> None:
    now = utcnow()
    with database.transaction() as session:
        for week in (3, 2, 1):
            for number in range(20):
                labelled(session, f"{week} {number}", {"refund": 0.9}, created_at=now - timedelta(weeks=week))
        for number in range(20):
            labelled(session, f"now {number}", {"pricing": 0.3, "sales": 0.2}, created_at=now)
        weeks = learning.drift(session, now=now)
        silent = dict(learning.abstentions(session))
        (stage,) = learning.stages(session)
    assert len(weeks) == 4
    assert weeks[0].scores is None and weeks[1].labels == pytest.approx(0, abs=1e-6)
    assert (weeks[3].labels or 0) > 0.25 and (weeks[3].scores or 0) > 0.25 and weeks[3].abstained == 1.0
    assert silent == {"intent": 0.25} and stage.median == 4.0


def test_stability_is_nothing_for_the_same_shares_and_grows_with_the_difference() -> None:
    same = learning.stability(Counter(a=50, b=50), Counter(a=5, b=5))
    some = learning.stability(Counter(a=50, b=50), Counter(a=6, b=4))
    other = learning.stability(Counter(a=50, b=50), Counter(c=10))
    assert same == pytest.approx(0) and 0 < some < 0.1 < other
