"""One correction by an agent, through the database, decides over the rest of its campaign at once; undone it leaves no trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest

from api.main import create_app
from assistant.db.messages import Message, Thread
from assistant.services import access, contacts, corrections, rules, verdicts
from assistant.settings import ROOT, Settings
from pipelines.container import Container, build
from tests.api.conftest import PASSWORD, serve
from tests.assistant.rows import a_thread, an_agent, an_inbound

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


def arrived(wired: Container, text: str, sender: str) -> str:
    """A mail in a thread of its own."""
    with wired.database.transaction() as session:
        thread = a_thread(session, address=sender)
        return an_inbound(session, thread, text, from_address=sender, subject="Entry").id


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


def test_a_flood_from_one_sender_teaches_only_so_much(wired: Container) -> None:
    flood = [f"{word} " * 3 + f"about {word} number {n}" for n, word in enumerate(_WORDS)]
    for text in flood:
        corrected(wired, arrived(wired, text, "flood@one.example"), "spam")
    stages = [spam(wired, text, sender="x@else.example")[1] for text in flood]
    assert stages == ["memory"] * corrections.CAP + [stages[-1]] * (len(flood) - corrections.CAP)
    assert stages[-1] != "memory"


def test_a_mail_that_is_held_out_from_training_decides_over_its_campaign_all_the_same(wired: Container) -> None:
    held = next(one for one in map(pitch, range(60)) if corrections.is_held_out(f"Entry\n{one}"))
    assert corrections.is_held_out(f"Entry\n{held}".replace("1", "7")), "twins are held out together"
    first = arrived(wired, held, "b@two.example")
    corrected(wired, first, "spam")
    with wired.database.reading() as session:
        made = corrections.newest(session, first, "spam")
        assert made is not None and made.held_out and corrections.lessons(session, "spam") == []
    assert spam(wired, pitch(1), sender="c@three.example")[1] == "memory"


@pytest.mark.parametrize("act", ["one", "bulk"])
def test_the_acts_of_the_inbox_teach_and_their_undo_unlearns(
    make_settings: Callable[..., Settings], sqlite_url: str, valkey_url: str, act: str
) -> None:
    encoder = f"onnx:{ROOT / 'deploy/weights/encoder'}"
    wired = build(make_settings(database_url=sqlite_url, redis_url=valkey_url, encoder=encoder, generator="off"))
    with wired.database.transaction() as session:
        thread_id = an_inbound(session, a_thread(session), pitch(1), subject="Entry").thread_id
        agent = access.create_agent(session, "bo@example.org", name="Bo")
        access.set_password(session, agent.id, password=PASSWORD, actor="test")
    with serve(create_app(wired)) as url, httpx.Client(base_url=url, trust_env=False, timeout=30) as client:
        said = client.post("/api/v1/auth/sign-in", json={"email": "bo@example.org", "password": PASSWORD})
        client.headers.update({"x-csrf-token": said.json()["csrf_token"], "origin": url})

        def do(name: str) -> httpx.Response:
            if act == "one":
                return client.post(f"/inbox/{thread_id}/act", data={"act": name})
            return client.post("/inbox-bulk", data={"act": name, "id": thread_id})

        def undo(state: str) -> None:
            if act == "one":
                client.post(f"/inbox/{thread_id}/undo", data={"state": state})
            else:
                client.post("/inbox-bulk", data={"act": "restore", "was": f"{state}:{thread_id}"})

        assert do("spam").status_code == 303
        assert state_after(wired, pitch(2), "c@three.example") == "spam"
        undo("open")
        assert state_after(wired, pitch(3), "d@four.example") == "open"
        do("spam")
        do("not-spam")
        assert spam(wired, pitch(4), sender="e@five.example")[0] < 0.05
        undo("spam")
        assert state_after(wired, pitch(5), "f@six.example") == "spam", "the verdict before counts again"
    wired.close()


def state_after(wired: Container, text: str, sender: str) -> str:
    message_id = arrived(wired, text, sender)
    wired.triage.triage(message_id)
    with wired.database.reading() as session:
        return session.get_one(Thread, session.get_one(Message, message_id).thread_id).state.value


def test_a_corrected_label_moves_the_thread_into_quarantine_and_out_of_it(wired: Container) -> None:
    first = arrived(wired, pitch(1), "b@two.example")
    with wired.database.transaction() as session:
        agent_id = an_agent(session).id

    def state() -> str:
        with wired.database.reading() as session:
            return session.get_one(Thread, session.get_one(Message, first).thread_id).state.value

    for label, expected in (("spam", "spam"), ("ham", "open"), ("spam", "spam")):
        with wired.database.transaction() as session:
            made = verdicts.correct(session, first, head="spam", label=label, agent_id=agent_id).id
        assert state() == expected
    with wired.database.transaction() as session:
        verdicts.take_back(session, made)
    assert state() == "open"


SHOUT = "Dear friend, MAKE MONEY FAST! Earn $5000 a week from home, 100% risk free, order now at http://win.example"


@pytest.mark.parametrize(
    ("marks", "text", "held"),
    [
        ({"auto_submitted": "list"}, SHOUT, True),
        ({"auto_submitted": "auto-generated"}, SHOUT, True),
        ({"from_address": "noreply@win.example"}, SHOUT, True),
        ({}, f"{SHOUT} Call me today!", True),
        ({"auto_submitted": "list"}, "The minutes of Tuesday's meeting of the gardeners are on the page.", False),
        ({"auto_submitted": "bounce"}, SHOUT, False),
        ({}, f"{SHOUT} Take me off your list.", False),
    ],
    ids="list machine noreply call-me newsletter report opt-out".split(),
)
def test_no_mark_that_a_sender_chooses_keeps_spam_out_of_quarantine(
    wired: Container, marks: dict[str, str], text: str, held: bool
) -> None:
    with wired.database.transaction() as session:
        rules.set_threshold(session, head="spam", label="spam", value=0.6)
        message = an_inbound(session, a_thread(session), text, subject="Win", **marks)
        message_id, thread_id = message.id, message.thread_id
    wired.triage.triage(message_id)
    with wired.database.reading() as session:
        message, thread = session.get_one(Message, message_id), session.get_one(Thread, thread_id)
        asked = contacts.may_write(session, channel="email", address=message.from_address)
    assert (thread.state.value == "spam") is held
    assert bool(message.labels) is (marks.get("auto_submitted") != "bounce")
    assert not any(step["stage"] in ("retrieve", "decide") for step in message.trace if held or marks)
    assert (asked is None) is ("off your list" not in text), "only a person's own words withdraw consent"


_WORDS = (
    "gardens and hedges",
    "boats with sails",
    "violins of maple",
    "winter tyres fitted",
    "roof tiles in slate",
    "goats",
)
