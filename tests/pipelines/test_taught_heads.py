"""Corrections of kind, urgency, sentiment, language and opt-out change the next mail like them, through the database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from assistant.clock import utcnow
from assistant.db.messages import Message
from assistant.services import corrections, rules, verdicts
from assistant.settings import ROOT, Settings
from pipelines.container import Container, build
from tests.assistant.rows import a_thread, an_agent, an_inbound

LATE = "Order {n}: the courier came on {day} and left the box with the neighbour in flat {n}, thank you for the note."
LIFT = "The lift in building {n} stopped between two floors on {day}, somebody should look at it."


@pytest.fixture
def wired(make_settings: Callable[..., Settings], sqlite_url: str) -> Iterator[Container]:
    settings = make_settings(
        database_url=sqlite_url, encoder=f"onnx:{ROOT / 'deploy/weights/encoder'}", generator="off"
    )
    built = build(settings)
    yield built
    built.close()


def triaged(wired: Container, text: str, *, sender: str = "ana@mail.example", held_out: bool = False) -> Message:
    """A mail through triage, with a sign-off that puts it on the wanted side of what is held out from learning."""
    names = (
        "",
        *(f"\n{name}" for name in ("Ana", "Bo", "Cy", "Di", "Ed", "Flo", "Gus", "Hal", "Ivy", "Jo", "Kim", "Lou")),
    )
    text = next(one for one in (text + name for name in names) if corrections.is_held_out(f"\n{one}") == held_out)
    with wired.database.transaction() as session:
        thread = a_thread(session, address=sender)
        message_id = an_inbound(session, thread, text, from_address=sender, subject="").id
    wired.triage.triage(message_id)
    with wired.database.reading() as session:
        return session.get_one(Message, message_id)


def best(message: Message, head: str) -> str:
    found = [one for one in message.labels if one["name"].partition(":")[0] == head]
    return str(max(found, key=lambda one: one["score"])["name"]).partition(":")[2] if found else ""


def score(message: Message, name: str) -> float:
    return max((float(one["score"]) for one in message.labels if one["name"] == name), default=0.0)


def teach(wired: Container, message: Message, head: str, label: str, agent_id: str | None = None) -> str:
    with wired.database.transaction() as session:
        return corrections.record(session, message.id, head=head, label=label, agent_id=agent_id).id


@pytest.mark.parametrize(
    ("head", "label"),
    [("reply_intent", "complaint"), ("urgency", "high"), ("sentiment", "negative"), ("language", "de")],
)
def test_a_correction_decides_on_the_next_mail_like_it_until_it_is_undone(
    wired: Container, head: str, label: str
) -> None:
    first = triaged(wired, LATE.format(n=41, day="Monday"))
    before = best(first, head)
    assert before != label
    made = teach(wired, first, head, label)
    second = triaged(wired, LATE.format(n=977, day="Thursday"), sender="bo@other.example")
    assert best(second, head) == label
    detail = second.trace[-1]["detail"] if second.trace[-1]["stage"] == "classify" else second.trace[1]["detail"]
    assert detail["claims"][head] == label
    assert any(f"{head} {label} as an agent said of" in line for line in detail["because"])
    other = triaged(wired, "Do you ship to Norway, and what does it cost?", sender="cy@third.example")
    assert best(other, head) != label
    with wired.database.transaction() as session:
        verdicts.take_back(session, made)
    assert best(triaged(wired, LATE.format(n=12, day="Sunday"), sender="di@fourth.example"), head) == before


def test_what_is_held_out_is_known_again_and_teaches_no_other_text(wired: Container) -> None:
    before = best(triaged(wired, LIFT.format(n=3, day="Friday")), "urgency")
    label = "low" if before != "low" else "high"
    teach(wired, triaged(wired, LIFT.format(n=2, day="Monday"), held_out=True), "urgency", label)
    assert best(triaged(wired, LIFT.format(n=3, day="Friday")), "urgency") == before
    assert best(triaged(wired, LIFT.format(n=9, day="Monday"), held_out=True), "urgency") == label


def test_the_same_text_again_gets_the_opt_out_that_an_agent_saw_in_it(wired: Container) -> None:
    text = "Case {n}: my late husband is not to be contacted by your company in the future."
    first = triaged(wired, text.format(n=7))
    teach(wired, first, "optout", "yes")
    assert score(triaged(wired, text.format(n=8), sender="bo@other.example"), "optout:yes") >= 0.9


def test_an_opt_out_inside_a_text_that_is_only_like_a_harmless_one_is_never_passed_over(wired: Container) -> None:
    harmless = (
        "Thank you for the parcel, the lamp looks good in the kitchen and my sister wants to have one too. "
        "I will stop by on Saturday to pick up the spare bulb that you were so kind to put aside for me."
    )
    first = triaged(wired, harmless)
    teach(wired, first, "optout", "no")
    sly = triaged(wired, f"{harmless} Please stop sending me your newsletter.", sender="bo@other.example")
    assert score(sly, "optout:yes") >= 0.12
    assert sly.trace[1]["detail"]["opt_out"] in {"recorded", "unsure"}


def test_likeness_alone_records_no_opt_out(wired: Container) -> None:
    first = triaged(wired, "Case 7: my late husband is not to be contacted by your company in the future.")
    teach(wired, first, "optout", "yes")
    like = triaged(wired, "Case 8: my late husband is not to be contacted by your company on Sundays, please.")
    assert 0.12 <= score(like, "optout:yes") < 0.9
    assert like.trace[1]["detail"]["opt_out"] == "unsure"


def test_a_poisoned_batch_is_capped_and_taken_back_in_one_act(wired: Container) -> None:
    """Forty wrong labels by one agent on one sender's mail: five are learned, and one act leaves no trace of them."""
    kinds = [
        "The {} of the printer in room {} is stuck",
        "We still wait for the {} that came without {} screws",
        "Is the {} for model {} in stock",
        "Invoice {} names the wrong {}",
    ]
    parts = "tray lid door belt drum fan cable screen".split()
    asks = [kind.format(part, number) for number, part in enumerate(parts) for kind in kinds]
    clean = {text: best(triaged(wired, text, sender="probe@probe.example"), "urgency") for text in asks[:12]}
    with wired.database.transaction() as session:
        mallory = an_agent(session, "Mallory").id
    for number, text in enumerate(asks):
        message = triaged(wired, f"{text}, batch {number}", sender="flood@bad.example")
        teach(wired, message, "urgency", "low" if best(message, "urgency") != "low" else "high", mallory)
    with wired.database.reading() as session:
        assert len(corrections.lessons(session, "urgency")) == corrections.CAP
    with wired.database.transaction() as session:
        since = utcnow() - timedelta(days=1)
        assert corrections.undo_batch(session, agent_id=mallory, since=since) == len(asks)
    after = {text: best(triaged(wired, text, sender="probe@probe.example"), "urgency") for text in clean}
    assert after == clean


def test_never_for_this_sender_outweighs_what_was_taught(wired: Container) -> None:
    first = triaged(wired, LATE.format(n=1, day="Monday"))
    teach(wired, first, "sentiment", "negative")
    with wired.database.transaction() as session:
        rules.except_sender(session, sender="ana@mail.example", head="sentiment", label="negative")
    again = triaged(wired, LATE.format(n=2, day="Tuesday"))
    assert best(again, "sentiment") == "negative" and "sentiment" in again.trace[1]["detail"]["abstained"]
