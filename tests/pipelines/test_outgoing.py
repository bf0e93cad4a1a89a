"""The look at outgoing mail: each rule, the corpus that gates it, its failures, and what becomes of a mail on its way out."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from assistant.db.messages import Message, MessageEvent
from assistant.db.session import Database
from assistant.errors import ConfigurationError, ModelUnavailable
from assistant.failpoints import arm
from assistant.services import outbox
from assistant.services.screening import Limits, Outgoing, decide
from assistant.settings import ROOT, Settings
from assistant.states import Delivery, Screening
from assistant.telemetry import METRICS
from assistant.values import MessageClass
from channels.support.mime import parse
from models.catalog import load_embedder
from models.spam import SpamJudge
from pipelines.container import build
from pipelines.outbound import Deliverer, Portal, limits_of, open_channels
from pipelines.outgoing import CONDITIONS, Screener, load_rules, sight_of
from tests.assistant.rows import an_agent
from tests.support.figures import Tell
from tests.support.outboxes import add_thread, queue, status_of
from tests.support.servers import SmtpSink

WEIGHTS = ROOT / "deploy/weights/encoder"
CORPUS = ROOT / "tests/data/outgoing"
GOOD = Outgoing("Re: Where is my parcel?", "Dear Ann,\n\nit is on its way and arrives on Monday.\n\nBo")
BAD = "Dear winner, you have won the lottery!!! Click here to claim your prize: a cash bonus of 500, today only!!!"


@pytest.fixture(scope="module")
def judge() -> SpamJudge:
    encoder = load_embedder(f"onnx:{WEIGHTS}", threads=1)
    assert encoder is not None
    return encoder.judge


@pytest.fixture(scope="module")
def screener(judge: SpamJudge) -> Screener:
    return Screener(judge)


# -- the rules

APPLIES: dict[str, Outgoing] = {
    "subject-shouts": Outgoing("READ THIS IT IS IMPORTANT", "x"),
    "text-shouts": Outgoing("x", "EVERYTHING IN THE SHOP IS CHEAPER THAN IT HAS EVER BEEN, SO COME AND LOOK AT IT ALL"),
    "exclaims": Outgoing("Hello!!", "Come in!!! and look"),
    "link-mismatch": Outgoing("x", "x", '<a href="http://evil.example.net/">www.bank.example</a>'),
    "link-address": Outgoing("x", "Look at http://203.0.113.7/login please"),
    "link-disguised": Outgoing("x", "Look at http://xn--pypal-4ve.example/ please"),
    "shortener": Outgoing("x", "Look: bit.ly/3xYz12"),
    "many-hosts": Outgoing("x", " ".join(f"https://{name}.example/x" for name in "abcdef")),
    "hidden-text": Outgoing("x", "x", '<p>seen</p><div style="display:none">not seen</div>'),
    "split-words": Outgoing("x", "your p\u0430yp\u0430l bill"),
    "form": Outgoing("x", "x", '<form action="https://a.example"><input name="a"></form>'),
    "html-only": Outgoing("x", " ", "<p>only this</p>"),
    "strangers": Outgoing("x", "x", strangers=10),
    "crowd": Outgoing("x", "x", strangers=25),
    "call-and-money": Outgoing("x", "Click here and win"),
    "prize": Outgoing("x", "You have been selected as the winner of the lottery"),
    "account-alarm": Outgoing("x", "Verify your account within 24 hours"),
    "asks-secrets": Outgoing("x", "Please send us your password"),
    "miracle": Outgoing("x", "guaranteed income with bitcoin trading"),
    "pressure": Outgoing("x", "Last chance, offer ends soon"),
    "bargain": Outgoing("x", "Now 70% off"),
    "bulk-greeting": Outgoing("x", "Dear valued customer,"),
    "gift-cards": Outgoing("x", "please buy me 5 steam gift cards"),
    "money-transfer": Outgoing("x", "Pay to our new bank account today"),
    "pitch": Outgoing("x", "We offer SEO services"),
    "opt-out-trick": Outgoing("x", "This is not spam. Reply STOP to be removed."),
}
"""A mail for each rule of the file."""


def test_every_rule_of_the_file_applies_to_its_own_mail_and_says_why() -> None:
    rules = load_rules()
    assert [rule.name for rule in rules] == list(APPLIES)
    for rule in rules:
        found = {part.name: part for part in Screener().look(APPLIES[rule.name]).parts}
        assert rule.name in found, rule.name
        assert (found[rule.name].reason, found[rule.name].score) == (rule.reason, rule.weight)
        assert len(rule.reason) > 15
        assert rule.weight < 0.7, f"{rule.name} alone would hold a mail"


def test_no_rule_applies_to_a_plain_answer() -> None:
    assert Screener().look(GOOD).parts == ()
    assert Screener().look(GOOD).score == 0.0


def test_the_words_that_are_quoted_are_not_ours() -> None:
    quoted = "\n".join(f"> {BAD}" for _ in range(3))
    assert Screener().look(Outgoing("Re: hello", f"No, that is not from us.\n\n{quoted}")).score == 0.0


def test_what_only_the_html_says_counts_and_what_both_say_counts_once() -> None:
    text, html = "Hello!! Come in!\n> or not!!", "<p>Hello!! Come\n in!</p><p>You have won <b>the lottery</b></p>"
    assert sight_of(Outgoing("x", text, html)).text == "Hello!! Come in! You have won the lottery"
    assert {part.name for part in Screener().look(Outgoing("x", text, html)).parts} == {"prize"}


def test_a_wrong_file_of_rules_is_refused_with_every_problem(tmp_path: Path) -> None:
    path = tmp_path / "rules.json"
    path.write_text(
        '{"rules": [{"name": "a", "weight": 0.5, "reason": "r", "colour": 1},'
        ' {"name": "a", "weight": 1.5, "reason": "r", "strangers": 3}]}'
    )
    with pytest.raises(ConfigurationError) as refused:
        load_rules(path)
    said = str(refused.value)
    assert "no condition colour" in said and "weight between 0 and 1" in said and "two rules a" in said
    path.write_text('{"rules": [{"name": "a", "weight": 0.5, "reason": "r", "says": ["("]}]}')
    with pytest.raises(ConfigurationError):
        load_rules(path)


def test_every_condition_is_used_and_explained() -> None:
    entries = json.loads((ROOT / "pipelines/outgoing_rules.json").read_text())
    used = {name for rule in entries["rules"] for name in rule} - {"name", "reason", "weight"}
    assert used == set(CONDITIONS)
    assert [name for name in CONDITIONS if f"{name} (" not in entries["about"]] == []


@pytest.mark.parametrize(
    "unit", ["a", " ", "!", "<", "&", "0", "a ", "dear ", "click ", "https://", "<a href=x>", "> ", "\u0430a"]
)
def test_a_hostile_text_costs_no_more_than_its_bound(unit: str) -> None:
    def spend(size: int) -> float:
        text = unit * (size // len(unit))
        started = time.thread_time()
        Screener().look(Outgoing(text, text, text))
        return time.thread_time() - started

    spend(1_000)
    # What is looked at is bounded: ten times the text beyond the bound costs next to nothing more.
    assert spend(200_000) < 0.5 + 10 * spend(20_000)


# -- the score


def test_the_same_mail_is_scored_the_same_by_everyone_at_any_time(screener: Screener) -> None:
    mail = Outgoing("CONGRATULATIONS WINNER", BAD, f"<p>{BAD}</p>", strangers=12)
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(screener.look(mail))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert found[0] == screener.look(mail)
    assert 0.9 < found[0].score < 1
    rest = 1.0
    for part in found[0].parts:
        rest *= 1 - part.score
    assert found[0].score == pytest.approx(min(1 - rest, 0.99), abs=1e-3), "the parts explain all of it"


class Broken:
    """The judge of words when its files are missing, or when it fails in another way."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def by_words(self, text: str) -> float:
        raise self._error


@pytest.mark.parametrize("error", [ModelUnavailable("spam.npz is missing"), ValueError("a fault of ours")])
def test_a_scorer_that_fails_is_named_and_the_other_still_counts(error: Exception) -> None:
    seen = Screener(Broken(error)).look(Outgoing("x", BAD))
    assert seen.missing == ("words",)
    assert seen.score == Screener().look(Outgoing("x", BAD)).score
    assert "not scored by its words" in seen.reasons


class Certain:
    """A judge of words that takes everything for spam."""

    def by_words(self, text: str) -> float:
        return 1.0


def test_the_words_alone_never_mark_a_mail_whatever_they_say() -> None:
    seen = Screener(Certain()).look(GOOD)
    assert [part.name for part in seen.parts] == ["words"]
    assert decide(seen, Limits(), machine=True) is Screening.ALLOW


def test_a_fault_in_the_rules_leaves_the_words_and_without_either_there_is_no_score(
    monkeypatch: pytest.MonkeyPatch, screener: Screener
) -> None:
    def fail(mail: Outgoing) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr("pipelines.outgoing._by_rules", fail)
    assert screener.look(GOOD).missing == ("rules",)
    monkeypatch.setattr("pipelines.outgoing.sight_of", fail)
    seen = screener.look(GOOD)
    assert (seen.score, seen.label, seen.missing) == (None, "", ("rules", "words"))


def test_a_damaged_judge_is_a_missing_scorer(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{")
    assert Screener(SpamJudge(tmp_path)).look(GOOD).missing == ("words",)


# -- the corpus


def corpus() -> list[tuple[bool, dict[str, Any]]]:
    """(spam or not, mail), in the order of the files."""
    return [
        (name == "spam", json.loads(line))
        for name in ("good", "spam")
        for line in (CORPUS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def outgoing(mail: dict[str, Any]) -> Outgoing:
    return Outgoing(
        mail["subject"],
        mail["text"],
        mail.get("html", ""),
        sender="support@example.org",
        machine=True,
        strangers=mail.get("strangers", 0),
    )


def rates(screener: Screener, *, least: float) -> tuple[float, float, list[str]]:
    """Precision and recall of everything scored `least` or more, and the subjects that are wrong."""
    found = [(spam, (screener.look(outgoing(mail)).score or 0.0) >= least, mail["subject"]) for spam, mail in corpus()]
    hits = sum(spam and called for spam, called, _ in found)
    called, spam = sum(one for _, one, _ in found), sum(one for one, _, _ in found)
    return hits / called, hits / spam, [subject for spam, called, subject in found if spam != called]


@pytest.mark.parametrize(
    ("least", "precision", "recall"),
    [pytest.param(0.5, 0.97, 0.9, id="warned"), pytest.param(0.7, 1.0, 0.8, id="held")],
)
@pytest.mark.parametrize("words", [True, False], ids=["with words", "rules alone"])
def test_the_corpus_gates_precision_and_recall(
    screener: Screener, tell: Tell, least: float, precision: float, recall: float, words: bool
) -> None:
    assert len(corpus()) >= 100
    right, found, wrong = rates(screener if words else Screener(), least=least)
    tell(
        f"outgoing, from {least}, {'with words' if words else 'rules alone'}: precision {right:.3f}, recall {found:.3f}"
    )
    least_found = recall if words else recall - 0.1
    assert right >= precision, f"precision is {right:.3f}, the bound is {precision}; wrong: {wrong}"
    assert found >= least_found, f"recall is {found:.3f}, the bound is {least_found}; wrong: {wrong}"


def test_the_corpus_has_every_tone_and_nothing_twice() -> None:
    tones = {mail["tone"] for spam, mail in corpus() if not spam}
    assert {"urgent", "refund", "invoice", "links", "sales", "apology", "html", "german"} <= tones
    texts = [mail["subject"] + mail["text"] + mail.get("html", "") for _, mail in corpus()]
    assert len(set(texts)) == len(texts)


def test_one_look_costs_little_beside_parsing_the_same_mail(screener: Screener, tell: Tell) -> None:
    screener.look(GOOD)
    looks, parses = [], []
    for _ in range(3):
        for _, mail in corpus():
            written = EmailMessage()
            written["From"], written["To"], written["Subject"] = "a@example.org", "b@example.net", mail["subject"]
            written.set_content(mail["text"] or "x")
            if mail.get("html"):
                written.add_alternative(mail["html"], subtype="html")
            raw, asked = written.as_bytes(), outgoing(mail)
            started = time.thread_time()
            parse(raw)
            parses.append(time.thread_time() - started)
            started = time.thread_time()
            screener.look(asked)
            looks.append(time.thread_time() - started)
    p95 = sorted(looks)[int(0.95 * len(looks))]
    median = sorted(parses)[len(parses) // 2]
    tell(f"look at an outgoing mail: p95 {1000 * p95:.2f} ms, {p95 / median:.2f} parses of a mail")
    assert p95 < 10 * median, f"p95 of a look is {p95 / median:.1f} parses of a mail, the bound is 10"


# -- on the way out

Make = Callable[..., Deliverer]


class NoFiles:
    def get(self, key: str) -> bytes:
        return b""


@pytest.fixture
def deliverer(database: Database, make_settings: Callable[..., Settings], smtp_sink: SmtpSink) -> Iterator[Make]:
    portal = Portal()
    made: list[Deliverer] = []

    def make(screener: Screener | None = None, **values: Any) -> Deliverer:
        settings = make_settings(relay_timeout=5, relay_url=smtp_sink.url, **values)
        channels = open_channels(settings)
        made.append(Deliverer(database, channels, portal, NoFiles(), settings=settings, screener=screener))
        return made[-1]

    yield make
    for one in made:
        one.close()
    portal.close()


def row(database: Database, message_id: str) -> Message:
    with database.reading() as session:
        return session.get_one(Message, message_id)


def trail(database: Database, message_id: str) -> list[tuple[str, str]]:
    with database.reading() as session:
        found = session.scalars(
            select(MessageEvent).where(MessageEvent.message_id == message_id).order_by(MessageEvent.occurred_at)
        ).all()
    return [(one.kind, one.detail) for one in found]


def by_a_machine(database: Database, text: str = BAD) -> str:
    return queue(database, add_thread(database), text=text, message_class=MessageClass.AUTO_GENERATED)


def counted(outcome: str, scored: str = "full") -> float:
    return METRICS.outgoing_screened.labels(outcome=outcome, scored=scored)._value.get()


def test_a_good_mail_leaves_with_its_score_and_is_looked_at_once(
    database: Database, deliverer: Make, smtp_sink: SmtpSink, screener: Screener
) -> None:
    before = counted("allow")
    smtp_sink.answers.append("451 4.3.0 later")
    message_id = by_a_machine(database, GOOD.text)
    working = deliverer(screener)
    working.deliver(message_id)
    assert status_of(database, message_id) is Delivery.QUEUED
    with database.transaction() as session:
        session.get_one(Message, message_id).release_at = None
    working.deliver(message_id)
    working.deliver(message_id)
    assert len(smtp_sink.wait(1)) == 1
    message = row(database, message_id)
    assert (message.status, message.screening, message.spam_label) == (Delivery.SENT, Screening.ALLOW, "ham")
    assert [kind for kind, _ in trail(database, message_id) if kind.startswith("screened")] == ["screened:allow"]
    assert counted("allow") == before + 1


def test_a_persons_own_words_are_sent_and_marked(database: Database, deliverer: Make, smtp_sink: SmtpSink) -> None:
    message_id = queue(database, add_thread(database), text=BAD)
    deliverer().deliver(message_id)
    smtp_sink.wait(1)
    message = row(database, message_id)
    assert (message.status, message.screening, message.spam_label) == (Delivery.SENT, Screening.WARN, "spam")
    assert message.error_code == ""
    assert "prize" in dict(trail(database, message_id))["screened:warn"]


def test_a_machines_mail_is_held_through_tries_and_crashes_and_sent_once_when_released(
    database: Database, deliverer: Make, smtp_sink: SmtpSink
) -> None:
    before = counted("hold")
    message_id = by_a_machine(database)
    working = deliverer()
    arm("send.before_claim_commit=raise:1")
    with pytest.raises(OSError):
        working.deliver(message_id)
    assert row(database, message_id).screening is Screening.NONE, "nothing is kept of a look whose transaction broke"
    threads = [threading.Thread(target=working.deliver, args=(message_id,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert status_of(database, message_id) is Delivery.HELD
    assert row(database, message_id).attempts == 0
    assert [kind for kind, _ in trail(database, message_id)] == ["queued", "screened:hold"]
    assert counted("hold") == before + 1
    assert smtp_sink.mails == []
    with database.transaction() as session:
        outbox.release(session, message_id, agent_id=an_agent(session).id)
    for _ in range(3):
        working.deliver(message_id)
    assert len(smtp_sink.wait(1)) == 1
    assert row(database, message_id).screening is Screening.RELEASED


def test_a_mail_beyond_the_last_limit_is_refused(database: Database, deliverer: Make, smtp_sink: SmtpSink) -> None:
    message_id = by_a_machine(database)
    working = deliverer(outgoing_reject=0.8)
    for _ in range(2):
        working.deliver(message_id)
    message = row(database, message_id)
    assert (message.status, message.error_code) == (Delivery.REJECTED, "looks-like-spam")
    assert smtp_sink.mails == []


@pytest.mark.parametrize(
    ("default", "status"), [("allow", Delivery.SENT), ("warn", Delivery.SENT), ("hold", Delivery.HELD)]
)
def test_a_mail_without_a_full_score_follows_the_declared_default(
    database: Database, deliverer: Make, default: str, status: Delivery
) -> None:
    broken = Screener(Broken(ModelUnavailable("spam.npz is missing")))
    message_id = queue(database, add_thread(database))
    deliverer(broken, **({} if default == "allow" else {"outgoing_unscored": default})).deliver(message_id)
    message = row(database, message_id)
    assert (message.status, message.screening) == (status, Screening(default))
    assert "not scored by its words" in dict(trail(database, message_id))[f"screened:{default}"]


def test_what_was_tried_before_it_could_be_looked_at_goes_on(database: Database, deliverer: Make) -> None:
    """An attempt of the release before may have reached some recipients: it is never called held."""
    message_id = by_a_machine(database)
    with database.transaction() as session:
        session.get_one(Message, message_id).attempts = 1
    deliverer().deliver(message_id)
    assert status_of(database, message_id) is Delivery.SENT


def test_the_settings_are_the_limits(make_settings: Callable[..., Settings]) -> None:
    assert limits_of(make_settings()) == Limits()
    settings = make_settings(outgoing_hold_agents=0.8, outgoing_unscored="hold")
    assert limits_of(settings) == Limits(hold_agents=0.8, unscored=Screening.HOLD)
    assert decide(Screener().look(Outgoing("x", BAD)), limits_of(settings), machine=False) is Screening.HOLD


def test_the_container_takes_the_words_from_the_encoder_without_loading_it(
    make_settings: Callable[..., Settings],
) -> None:
    with_model = build(make_settings(encoder=f"onnx:{WEIGHTS}"))
    assert with_model.screener.look(GOOD).missing == ()
    embedder = load_embedder(
        f"onnx:{WEIGHTS}", threads=with_model.settings.model_threads, tokens=with_model.settings.encoder_tokens
    )
    assert embedder is not None
    assert with_model.screener.words is embedder.judge
    assert build(make_settings(encoder="off")).screener.words is None


def test_what_is_looked_at_is_bounded() -> None:
    sight = sight_of(Outgoing("s" * 5_000, "t" * 500_000, "<p>" + "h" * 500_000))
    assert (len(sight.subject), len(sight.text), len(sight.html)) == (500, 20_001, 60_000)
    assert re.fullmatch("t+ h+", sight.text)
