"""What the heads find changes the thread: an opt-out stops sends, an unsure one asks a person, own intents are claimed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.commands.demo import answers
from api.main import create_app
from assistant.db.messages import Message, Thread
from assistant.services import contacts, corrections, intents, knowledge, rules
from assistant.settings import ROOT, Settings
from assistant.states import ThreadState, TriageState
from pipelines.container import Container, build
from tests.api.conftest import serve
from tests.assistant.rows import a_thread, an_inbound


@pytest.fixture
def wired(make_settings: Callable[..., Settings], sqlite_url: str) -> Iterator[Container]:
    settings = make_settings(
        database_url=sqlite_url, encoder=f"onnx:{ROOT / 'deploy/weights/encoder'}", generator="off"
    )
    built = build(settings)
    yield built
    built.close()


def triaged(wired: Container, text: str, *, address: str = "ana@mail.example") -> tuple[Thread, Message, str | None]:
    """A mail through triage: its thread, its row, and why its sender may not be written to."""
    with wired.database.transaction() as session:
        thread = a_thread(session, address=address)
        message = an_inbound(session, thread, text, from_address=address, subject="Hello")
        thread_id, message_id = thread.id, message.id
    wired.triage.triage(message_id)
    with wired.database.reading() as session:
        found, read = session.get_one(Thread, thread_id), session.get_one(Message, message_id)
        reason = contacts.may_write(session, channel="email", address=address)
    return found, read, reason


@pytest.mark.parametrize(
    "text",
    [
        "Ich möchte Ihren Newsletter nicht mehr erhalten. Bitte nehmen Sie mich aus dem Verteiler.",
        "Por favor, no me manden más mensajes.",
        "Je ne souhaite plus recevoir votre newsletter, merci.",
        "もうメッセージを送らないでください",
        "Stop",
    ],
)
def test_an_opt_out_in_any_language_stops_what_we_send(wired: Container, text: str) -> None:
    thread, message, reason = triaged(wired, text)
    assert reason == "the contact asked not to be written to"
    assert thread.needs_review
    assert any("recorded" in step["reason"] for step in message.trace)


def test_a_recorded_opt_out_names_its_words_in_the_trace_and_what_is_not_claimed_names_none(wired: Container) -> None:
    text = "The lamp works, thank you. Please take my address off your mailing list, I want no more mails."
    _, message, reason = triaged(wired, text)
    detail = step_of(message)["detail"]
    words = dict(detail["weighed"]["optout"])
    assert reason and detail["opt_out"] == "recorded"
    assert "no more" in words and all(weight > 0 for weight in words.values()) and not {"lamp", "works"} & set(words)
    assert set(detail["weighed"]) <= {*detail["claims"], "optout"}
    _, asked, _ = triaged(wired, "Where is my order? It has been two weeks.", address="bo@mail.example")
    detail = step_of(asked)["detail"]
    assert detail["opt_out"] == "" and "optout" not in detail["weighed"]
    assert set(detail["weighed"]) <= set(detail["claims"])


def test_a_near_miss_stops_nothing(wired: Container) -> None:
    for number, text in enumerate(
        (
            "I will stop by tomorrow to pick up the parcel.",
            "I can't stop smiling, thank you so much for the cake!",
            "Please don't stop the order, I still want it.",
            "Bitte stornieren Sie meine Bestellung 5512.",
        )
    ):
        _, _, reason = triaged(wired, text, address=f"person{number}@mail.example")
        assert reason is None, text


def test_an_unsure_opt_out_is_shown_to_a_person_and_not_recorded(wired: Container) -> None:
    with wired.database.transaction() as session:
        rules.set_threshold(session, head="optout", label="yes", value=0.999)
    thread, message, reason = triaged(wired, "By the way, please do not send me your newsletter any more, thank you.")
    assert reason is None and thread.needs_review
    assert message.trace[1]["detail"]["opt_out"] == "unsure"
    assert "please look" in message.trace[1]["reason"]


def test_kind_urgency_sentiment_and_language_reach_the_thread(wired: Container) -> None:
    thread, message, _ = triaged(
        wired, "I am very disappointed, the table arrived broken again. Fix this immediately, it is urgent!"
    )
    assert (thread.reply_intent, thread.urgency, thread.sentiment, thread.language) == (
        "complaint",
        "high",
        "negative",
        "en",
    )
    heads = {str(one["name"]).partition(":")[0] for one in message.labels}
    assert heads >= {"spam", "intent", "reply_intent", "urgency", "sentiment", "language", "optout", "scope"}


def test_a_correction_teaches_the_next_mail_of_its_kind(wired: Container) -> None:
    asks = [
        f"Do you engrave {thing} with a name?" for thing in ("watches", "pens", "rings", "spoons", "knives", "cups")
    ]
    with wired.database.transaction() as session:
        intents.define(session, name="engraving", examples=asks)
        taught = 0
        for number in range(40):
            message = an_inbound(
                session, a_thread(session), f"monogram on shirt {chr(97 + number % 26) * 2} please", subject=""
            )
            if taught < corrections.CAP and not corrections.is_held_out(f"\n{message.new_text}"):
                corrections.record(session, message.id, head="intent", label="engraving")
                taught += 1
    _, message, _ = triaged(wired, "could I have a monogram on a shirt please")
    assert message.trace[1]["detail"]["claims"]["intent"] == "engraving"
    assert message.trace[1]["detail"]["because"][0].startswith("like ")


def test_an_intent_that_is_switched_off_is_claimed_by_no_correction_either(wired: Container) -> None:
    text = "could I have a monogram on a shirt please"
    with wired.database.transaction() as session:
        made = intents.define(
            session, name="engraving", examples=[f"engrave my {one}" for one in ("pen", "cup", "ring", "key")]
        )
        asked = (f"monogram on my {one} please" for one in ("shirt", "towel", "bag", "scarf", "hat", "robe", "glove"))
        for one in asked:
            message = an_inbound(session, a_thread(session), one, subject="")
            corrections.record(session, message.id, head="intent", label="engraving")
        assert corrections.lessons(session, "intent")
        intents.enable(session, made.id, enabled=False)
    _, message, _ = triaged(wired, text)
    assert not [one for one in message.labels if one["name"] == "intent:engraving"]


def test_a_label_is_never_claimed_for_an_excepted_sender(wired: Container) -> None:
    with wired.database.transaction() as session:
        rules.except_sender(session, sender="@mail.example", head="intent", label="refund")
    thread, message, _ = triaged(wired, "I want my money back, please refund my order.")
    assert thread.intent == "" and "intent" in message.trace[1]["detail"]["abstained"]
    other, _, _ = triaged(wired, "I want my money back, please refund my order.", address="bo@other.example")
    assert other.intent == "refund"


SPAM = "Make money fast! Earn $5000 a week from home, click here to order now, 100% risk free, no obligation. " * 4


def test_spam_of_a_sender_that_is_excepted_is_not_held_and_that_of_another_one_is(wired: Container) -> None:
    with wired.database.transaction() as session:
        rules.except_sender(session, sender="@partner.example", head="spam", label="spam")
    let_through, excepted, _ = triaged(wired, SPAM, address="ana@partner.example")
    held, other, _ = triaged(wired, SPAM, address="x1@cash.example")
    assert (let_through.state, held.state) == (ThreadState.OPEN, ThreadState.SPAM)
    assert step_of(excepted)["outcome"] != "stop" and step_of(other)["outcome"] == "stop"
    scores = [next(one["score"] for one in row.labels if one["name"] == "spam:spam") for row in (excepted, other)]
    assert scores[0] == pytest.approx(scores[1], abs=0.02) and min(scores) > 0.9, "the model said the same of both"


@pytest.mark.parametrize("harm", ["missing", "truncated"])
def test_without_the_judge_of_spam_the_other_heads_go_on_and_a_person_is_told_how_to_mend_it(
    make_settings: Callable[..., Settings], sqlite_url: str, tmp_path: Path, harm: str
) -> None:
    folder = Path(shutil.copytree(ROOT / "deploy/weights/encoder", tmp_path / "encoder"))
    if harm == "missing":
        shutil.rmtree(folder / "spam")
    else:
        cut = folder / "spam" / "spam.npz"
        cut.write_bytes(cut.read_bytes()[:1000])
    wired = build(make_settings(database_url=sqlite_url, encoder=f"onnx:{folder}", generator="off"))
    thread, message, _ = triaged(wired, "I want my money back, please refund my order. Please answer today.")
    step = next(step for step in message.trace if step["stage"] == "classify")
    heads = {str(one["name"]).partition(":")[0] for one in message.labels}
    _, _, reason = triaged(
        wired, "Please take me off your mailing list, I want no more mails.", address="bo@mail.example"
    )
    wired.close()
    assert thread.intent == "refund" and "spam" not in heads
    assert step["outcome"] == "failed" and "spam was not judged" in step["reason"] and "notifyr train" in step["reason"]
    assert message.triage == TriageState.PARTIAL and thread.needs_review
    assert reason == "the contact asked not to be written to"


def test_a_missing_judge_of_spam_makes_the_installation_degraded_with_the_way_to_mend_it(
    make_settings: Callable[..., Settings], sqlite_url: str, valkey_url: str, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(ROOT / "deploy/weights/encoder", tmp_path / "encoder"))
    shutil.rmtree(folder / "spam")
    settings = make_settings(database_url=sqlite_url, redis_url=valkey_url, encoder=f"onnx:{folder}", generator="off")
    wired = build(settings)
    wired.triage.warm(("inbound",))
    with serve(create_app(wired)) as url:
        said = httpx.get(f"{url}/readyz", trust_env=False)
    wired.close()
    assert said.status_code == 200 and said.json()["status"] == "degraded"
    encoder = said.json()["models"]["encoder"]
    assert encoder["state"] == "partial" and "notifyr train" in encoder["reason"]


def step_of(message: Message) -> dict[str, Any]:
    return next(step for step in message.trace if step["stage"] == "classify")


@pytest.mark.parametrize("harm", ["missing", "truncated"])
def test_without_the_network_spam_is_told_by_words_and_a_person_is_told_how_to_mend_the_rest(
    make_settings: Callable[..., Settings], sqlite_url: str, tmp_path: Path, harm: str
) -> None:
    folder = Path(shutil.copytree(ROOT / "deploy/weights/encoder", tmp_path / "encoder"))
    network = folder / "model.onnx"
    content = network.read_bytes()
    network.unlink() if harm == "missing" else network.write_bytes(content[:5000])
    wired = build(make_settings(database_url=sqlite_url, encoder=f"onnx:{folder}", generator="off"))
    thread, asked, _ = triaged(wired, "I want my money back, please refund my order. Please answer today.")
    spam, held, _ = triaged(
        wired,
        SPAM,
        address="x1@cash.example",
    )
    network.write_bytes(content)
    wired.triage.triage(asked.id)
    with wired.database.reading() as session:
        mended = session.get_one(Message, asked.id)
    wired.close()
    step = step_of(asked)
    assert {str(one["name"]).partition(":")[0] for one in asked.labels} == {"spam", "language"}
    assert step["outcome"] == "failed" and "nobody looked for an opt-out" in step["reason"]
    assert "model.onnx" in step["reason"] and "notifyr train" in step["reason"]
    assert set(step["detail"]["faults"]) == {"spam", "intent", "reply_intent", "urgency", "sentiment", "optout"}
    assert asked.triage == TriageState.PARTIAL and thread.needs_review and thread.intent == ""
    assert spam.state == "spam" and step_of(held)["detail"]["spam_because"]["stage"].startswith("words")
    assert mended.triage == TriageState.DONE and step_of(mended)["detail"]["claims"]["intent"] == "refund"


def test_one_damaged_head_costs_its_own_label_and_is_said_in_the_trace_and_by_readyz(
    make_settings: Callable[..., Settings], sqlite_url: str, valkey_url: str, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(ROOT / "deploy/weights/encoder", tmp_path / "encoder"))
    manifest = json.loads((folder / "labels" / "manifest.json").read_text(encoding="utf-8"))
    manifest["sums"]["urgency"] = "0" * 64
    (folder / "labels" / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    settings = make_settings(database_url=sqlite_url, redis_url=valkey_url, encoder=f"onnx:{folder}", generator="off")
    wired = build(settings)
    wired.triage.warm(("inbound",))
    thread, message, _ = triaged(wired, "I want my money back, please refund my order. Please answer today.")
    with serve(create_app(wired)) as url:
        said = httpx.get(f"{url}/readyz", trust_env=False).json()
    wired.close()
    step = step_of(message)
    assert (thread.intent, thread.urgency) == ("refund", "")
    assert list(step["detail"]["faults"]) == ["urgency"]
    assert "urgency: the head urgency in labels/ cannot be used" in step["reason"] and "notifyr train" in step["reason"]
    assert message.triage == TriageState.PARTIAL
    assert said["status"] == "degraded" and said["models"]["encoder"]["state"] == "partial"
    assert "the head urgency" in said["models"]["encoder"]["reason"]


def test_a_damaged_network_is_said_by_readyz_and_its_labels_by_words_go_on(
    make_settings: Callable[..., Settings], sqlite_url: str, valkey_url: str, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(ROOT / "deploy/weights/encoder", tmp_path / "encoder"))
    (folder / "model.onnx").unlink()
    settings = make_settings(database_url=sqlite_url, redis_url=valkey_url, encoder=f"onnx:{folder}", generator="off")
    wired = build(settings)
    with wired.database.transaction() as session:
        knowledge.seed(session, answers())
    wired.triage.warm(("inbound",))
    encoder = wired.bus.models()["encoder"]
    wired.close()
    assert encoder["state"] == "partial"
    assert "by its words alone" in encoder["reason"] and "approved answers are not searched" in encoder["reason"]
