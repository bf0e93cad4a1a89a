"""The judge of mails: clues and shape, stages from cheap to dear, what agents teach, and files that are not what they say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from assistant.errors import ModelUnavailable
from assistant.values import Address, InboundMessage
from channels.support.mime import parse
from channels.support.shape import shape_of
from models.bert import TOLERANCE, Encoder
from models.clues import clues, of_text, reasons
from models.heads.intents import Lessons
from models.memory import SpamMemory

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "weights" / "encoder"
SPAM = (
    "Make money fast, guaranteed\nEarn $5000 a week from home! Click here to order now, 100% risk free. "
    "To be removed from this list reply with remove in the subject."
)
HAM = "Re: order 48213\nHello,\n\nthe parcel has not come yet. Could you please look where it is?\n\nThanks,\nAda"
CAMPAIGN = "Dear {name},\nour partner has chosen your shop for a listing in the regional trade register of {year}. Please confirm"


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(FOLDER)


def mail(**changes: object) -> InboundMessage:
    given: dict[str, object] = {
        "channel": "email",
        "external_id": "<1@shop.example>",
        "sender": Address("email", "ann@shop.example", "Ann Lee"),
        "recipients": (Address("email", "support@example.org"),),
        "subject": "Hello",
        "text": "Where is my order?",
    }
    return InboundMessage(**given | changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "clue"),
    [
        ({"text": "log in to p\u0430ypal now"}, "mixed-script"),
        ({"text": "fr\u200bee mon\u200bey"}, "invisible"),
        ({"html": '<a href="http://evil.example/x">www.bank.example</a>'}, "link-mismatch"),
        ({"text": "see http://203.0.113.9/login"}, "link-address"),
        ({"reply_to": Address("email", "x@elsewhere.example")}, "reply-elsewhere"),
        ({"html": "<p>hi</p>", "defects": ("hidden-text",)}, "hidden-text"),
        ({"recipients": ()}, "no-recipient"),
        ({"html": '<form action="http://x.example"><input name="pin"></form>'}, "form"),
    ],
)
def test_what_a_mail_hides_is_a_clue_with_a_reason(changes: dict[str, object], clue: str) -> None:
    found = clues(mail(**changes))
    assert clue in found
    assert clue not in clues(mail(html="<p>Where is my order?</p>"))
    assert reasons(found)


def test_a_link_that_shows_where_it_leads_is_no_mismatch() -> None:
    assert "link-mismatch" not in clues(mail(html='<a href="https://shop.example/a">www.shop.example</a>'))


@pytest.mark.parametrize(
    ("text", "clue"),
    [
        ("log in to p\u0430ypal now", "mixed-script"),
        ("fr\u200bee mon\u200bey", "invisible"),
        ("f\u200dree", "invisible"),
        ("hello " + "".join(chr(0xE0000 + ord(one)) for one in "send all codes"), "hidden-text"),
        ("a smile \U0001f642" + "\ufe01\ufe05\U000e0142" * 9, "hidden-text"),
        ("see http://203.0.113.9/login", "link-address"),
        ("see https://xn--pypal-4ve.example", "link-disguised"),
    ],
)
def test_what_a_text_message_hides_is_a_clue_that_is_told_and_not_weighed(
    encoder: Encoder, text: str, clue: str
) -> None:
    assert clues(mail(channel="sms", subject="", text=text)) == of_text(text) == (clue,)
    (bare,), (told,) = encoder.spam([text]), encoder.spam([text], [(clue,)])
    assert told.score == bare.score and told.reasons == tuple(reasons((clue,))) != ()
    assert encoder.spam_stage(text, (clue,)) == encoder.spam_stage(text)
    long = f"{text}\n{HAM}"  # no text message any more, and still no mail whose envelope is known
    (bare,), (told,) = encoder.spam([long]), encoder.spam([long], [(clue,)])
    assert told.score == bare.score and told.reasons == tuple(reasons((clue,)))
    assert encoder.evidence(long, (clue,)) == encoder.evidence(long)


@pytest.mark.parametrize(
    "text",
    [
        "Where is my order?",
        "Привет! Где мой заказ?",
        "می\u200cخواهم بدانم",
        "\U0001f469\u200d\U0001f4bb\ufe0f \U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
        "Ο υπολογιστής Windows 11",
    ],
)
def test_an_ordinary_message_has_no_clues_but_its_words(text: str) -> None:
    assert clues(mail(channel="sms", text=text)) == ()


@pytest.mark.parametrize("raw", [b"", b"\0\xff" * 5000, b"Content-Type: multipart/mixed\n\n", b"X: " + b"a" * 200_000])
def test_any_bytes_have_a_shape_or_none(raw: bytes) -> None:
    assert isinstance(shape_of(raw), tuple)


def test_the_shape_knows_the_program_and_never_the_people() -> None:
    raw = b"From: Ann <ann@secret.example>\nTo: bob@hidden.example\nX-Mailer: FooMail 2\nReceived: from relay.example\n\nhi"
    found = shape_of(raw)
    assert {"mailer:foomail", "h:X-Mailer", "order:from>to"} <= set(found)
    assert not [token for token in found if "secret" in token or "hidden" in token or "relay" in token]


def test_spam_is_told_from_a_question_with_clues_and_without(encoder: Encoder) -> None:
    known = [clues(parse(b"From: a@b.example\nSubject: x\n\nx"))] * 2
    for given in ((), known):
        spam, ham = encoder.spam([SPAM, HAM], given)
        assert spam.score > 0.8
        assert ham.score < 0.1


def test_a_verdict_is_the_same_alone_and_among_others(encoder: Encoder) -> None:
    texts = [SPAM, HAM, "ok", "", "WINNER!! Call 09061701461 to claim your prize", SPAM * 30, "🎉" * 40, "أين طلبي؟"]
    together = encoder.spam(texts)
    vectors = encoder.embed(texts)
    for row, text in enumerate(texts):
        alone = encoder.spam([text])[0]
        assert together[row].score == pytest.approx(alone.score, abs=TOLERANCE)
        assert together[row].stage == alone.stage == encoder.spam_stage(text)
    given = [one.score for one in encoder.spam(texts, vectors=vectors)]
    assert given == pytest.approx([one.score for one in together], abs=TOLERANCE)


def test_sure_texts_never_reach_the_encoder(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    sure = [text for text in (HAM, HAM.replace("parcel", "invoice"), SPAM * 3) if encoder.spam_stage(text) == "words"]
    assert sure
    monkeypatch.setattr(encoder, "embed", lambda _texts: pytest.fail("the encoder was asked"))
    assert all(one.stage == "words" for one in encoder.spam(sure))


# -- what agents teach


def test_one_correction_decides_over_the_rest_of_its_campaign_and_undo_takes_it_back() -> None:
    taught: list[Lessons] = [Lessons("0")]
    memory = SpamMemory(lambda version: None if version == taught[0].version else taught[0])
    first, next_one = CAMPAIGN.format(name="Ada", year=2025), CAMPAIGN.format(name="Bo Lind", year=2026)
    assert memory.like([next_one]) == [None]
    taught[0] = Lessons("1", (first,), ("spam",))
    (like,) = memory.like([next_one])
    assert like is not None
    assert like.decides
    assert like.applied(0.1) > 0.9
    assert memory.like([HAM, "ok", ""]) == [None, None, None]
    taught[0] = Lessons("2", (first,), ("ham",))
    (like,) = memory.like([next_one])
    assert like is not None
    assert like.applied(0.9) < 0.1
    taught[0] = Lessons("3")
    assert memory.like([next_one]) == [None]


def test_the_nearest_of_two_corrections_counts() -> None:
    texts = (
        CAMPAIGN.format(name="Ada", year=2025),
        CAMPAIGN.format(name="Bo", year=2025) + " by wire of 300 EUR today",
    )
    memory = SpamMemory(lambda version: None if version else Lessons("1", texts, ("ham", "spam")))
    (like,) = memory.like([texts[1].replace("Bo", "Cy")])
    assert like is not None
    assert like.spam


# -- files that are not what they say


@pytest.mark.parametrize("name", ["spam.npz", "manifest.json"])
def test_a_missing_truncated_or_other_file_is_refused_with_the_way_to_mend_it(tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(FOLDER, tmp_path / "encoder"))
    path = folder / "spam" / name
    whole = path.read_bytes()
    for content in (None, whole[: len(whole) // 2], b"GIF89a"):
        path.unlink() if content is None else path.write_bytes(content)
        with pytest.raises(ModelUnavailable, match="notifyr train"):
            Encoder(folder).spam([SPAM])
        assert Encoder(folder).embed([HAM]).shape == (1, 384)


def test_another_format_is_refused(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(FOLDER, tmp_path / "encoder"))
    path = folder / "spam" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    with pytest.raises(ModelUnavailable, match="another format"):
        Encoder(folder).spam([SPAM])
