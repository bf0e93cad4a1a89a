"""One correction by an agent, through the database, decides over the rest of its campaign at once; undone it leaves no trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from assistant.db.messages import Message
from assistant.services import corrections
from assistant.settings import ROOT, Settings
from pipelines.container import Container, build
from tests.assistant.rows import a_thread, an_inbound

PITCH = (
    "Dear {name},\nour partner in {town} has reserved your shop a place in the regional trade register of {year}. "
    "Please confirm the entry, so that the number {number} stays yours.\nWith best regards, the office"
)


@pytest.fixture
def wired(make_settings: Callable[..., Settings], sqlite_url: str) -> Iterator[Container]:
    settings = make_settings(
        database_url=sqlite_url, encoder=f"onnx:{ROOT / 'deploy/weights/encoder'}", generator="off"
    )
    built = build(settings)
    yield built
    built.close()


def pitch(number: int) -> str:
    """The same mail to somebody else, as a campaign sends it."""
    names, towns = ("Ada", "Bo", "Cy", "Dee", "Eve"), ("Basel", "Turin", "Lyon")
    return PITCH.format(name=names[number % 5], town=towns[number % 3], year=2025 + number % 2, number=1000 + number)


def arrived(wired: Container, text: str, sender: str, *, held_out: bool = False) -> str:
    """A mail in a thread of its own; of those that corrections learn from, or of those only measured with."""
    with wired.database.transaction() as session:
        while True:
            message = an_inbound(session, a_thread(session, address=sender), text, from_address=sender, subject="Entry")
            if corrections.is_held_out(message.id) == held_out:
                return message.id
            session.delete(message)


def spam(wired: Container, text: str, *, sender: str) -> tuple[float, str]:
    """What triage says of a new mail: probability of spam, and the stage that decided."""
    message_id = arrived(wired, text, sender)
    wired.triage.triage(message_id)
    with wired.database.reading() as session:
        message = session.get_one(Message, message_id)
        step = next(step for step in message.trace if step["stage"] == "classify")
        score = next(float(one["score"]) for one in message.labels if one["name"] == "spam:spam")
    return score, str(step["detail"]["spam_because"]["stage"])


def corrected(wired: Container, message_id: str, label: str) -> str:
    with wired.database.transaction() as session:
        return corrections.record(session, message_id, head="spam", label=label).id


def test_one_correction_turns_the_next_mail_of_its_campaign_and_undo_turns_it_back(wired: Container) -> None:
    before, stage = spam(wired, pitch(0), sender="a@one.example")
    assert stage != "memory"
    first = arrived(wired, pitch(1), "b@two.example")
    made = corrected(wired, first, "spam")
    after, stage = spam(wired, pitch(2), sender="c@three.example")
    assert stage == "memory"
    assert after > 0.95 > before + 0.2
    other, stage = spam(
        wired, "Hello, where is my parcel 4411? It should have come on Monday.", sender="d@four.example"
    )
    assert stage != "memory" and other < 0.5
    with wired.database.transaction() as session:
        corrections.undo(session, made)
    again, stage = spam(wired, pitch(3), sender="e@five.example")
    assert stage != "memory"
    assert again < after - 0.2


def test_a_campaign_taken_for_spam_is_let_through_by_one_correction(wired: Container) -> None:
    offer = "Dear {name}, MAKE MONEY FAST! Earn $5000 a week from home, 100% risk free, order now at http://win.example"
    before, _ = spam(wired, offer.format(name="Ada"), sender="a@one.example")
    corrected(wired, arrived(wired, offer.format(name="Bo"), "b@two.example"), "ham")
    after, stage = spam(wired, offer.format(name="Cy"), sender="c@three.example")
    assert stage == "memory"
    assert after < 0.05 < before


def test_a_flood_from_one_sender_teaches_only_so_much_and_a_held_out_mail_nothing(wired: Container) -> None:
    flood = [f"{word} " * 3 + f"about {word} number {n}" for n, word in enumerate(_WORDS)]
    for text in flood:
        corrected(wired, arrived(wired, text, "flood@one.example"), "spam")
    stages = [spam(wired, text, sender="x@else.example")[1] for text in flood]
    assert stages == ["memory"] * corrections.CAP + [stages[-1]] * (len(flood) - corrections.CAP)
    assert stages[-1] != "memory"
    corrected(wired, arrived(wired, pitch(0), "b@two.example", held_out=True), "spam")
    assert spam(wired, pitch(1), sender="c@three.example")[1] != "memory"


_WORDS = (
    "gardens and hedges",
    "boats with sails",
    "violins of maple",
    "winter tyres fitted",
    "roof tiles in slate",
    "goats",
)
