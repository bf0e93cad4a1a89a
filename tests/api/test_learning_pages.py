"""Teaching the models on pages: labels set right on a thread, the queue, thresholds, and the models' own page."""

from __future__ import annotations

import json
import re
import shutil
from datetime import timedelta
from html import unescape
from pathlib import Path
from typing import Any

import httpx

from assistant.clock import new_id
from assistant.db.messages import Message, Thread
from assistant.services import contacts, corrections, intents, rules
from assistant.settings import ROOT
from assistant.states import Author, Delivery, Direction, ThreadState, TriageState
from models.asked import FILE, Gain, keep
from models.bert import Encoder
from models.heads.labeller import Labeller
from pipelines.triage import Triage
from tests.api.conftest import BOTH, World

ENGINES = BOTH

LABELS = [
    {"name": "spam:ham", "score": 0.9},
    {"name": "spam:spam", "score": 0.1},
    {"name": "intent:refund", "score": 0.48},
    {"name": "intent:billing", "score": 0.4},
    {"name": "language:en", "score": 0.99},
    {"name": "optout:no", "score": 0.7},
    {"name": "optout:yes", "score": 0.3},
]
TRACE: list[dict[str, Any]] = [
    {"stage": "screen", "outcome": "ok", "milliseconds": 1.0, "reason": "", "detail": {"rule": "asks-for-human"}},
    {
        "stage": "classify",
        "outcome": "ok",
        "milliseconds": 7.0,
        "reason": "no clear intent",
        "detail": {
            "claims": {"language": "en"},
            "abstained": ["intent"],
            "opt_out": "unsure",
            "because": ["like “I want my money back” (0.61)"],
            "weighed": {"optout": [["sorted out", 1.234], ["nicht mehr", 0.5]]},
            "spam_because": {
                "stage": "words",
                "words": [
                    ["invoice", -1.25],
                    ["#link", 0.75],
                    ["#5", 0.5],
                    ["tag:font", 0.25],
                    ["hidden-text", 0.11],
                    ["x", 0.0],
                ],
                "reasons": ["has text that a reader cannot see"],
                "like": "",
                "band": [0.5, 0.9],
            },
        },
    },
]


def post(client: httpx.Client, path: str, **fields: str) -> httpx.Response:
    return client.post(path, data=fields, headers={"origin": str(client.base_url)}, follow_redirects=False)


def labelled(world: World, text: str = "I want it sorted out", number: int = 1) -> tuple[str, str]:
    """A thread with one inbound message that has labels: (thread, message)."""
    with world.container.database.transaction() as session:
        thread = Thread(
            id=new_id(),
            profile_id=world.ids["profile"],
            contact_id=world.ids["contact"],
            channel="email",
            subject=f"Matter {number}",
            message_count=1,
        )
        session.add(thread)
        session.flush()
        message = Message(
            id=new_id(),
            thread_id=thread.id,
            profile_id=world.ids["profile"],
            direction=Direction.INBOUND,
            author=Author.CONTACT,
            status=Delivery.RECEIVED,
            external_id=f"<{new_id()}@example.net>",
            subject=thread.subject,
            text=text,
            new_text=text,
            from_address="ana@example.net",
            from_name="Ana",
            triage=TriageState.DONE,
            labels=LABELS,
            trace=TRACE,
        )
        session.add(message)
    return thread.id, message.id


def test_a_label_is_set_right_on_the_thread_and_taken_back(world: World) -> None:
    agent = world.browser("agent@example.org")
    thread_id, message_id = labelled(world)
    page = unescape(agent.get(f"/inbox/{thread_id}").text)
    assert "unsure" in page and "best is refund" in page and "I want my money back" in page
    done = post(agent, f"/messages/{message_id}/verdict", head="language", label="de")
    assert done.status_code == 303
    after = agent.get(done.headers["location"]).text
    assert "Label corrected" in after and "said by a person" in after
    with world.container.database.reading() as session:
        made = corrections.newest(session, message_id, "language")
        assert made is not None and (made.old_label, made.new_label) == ("en", "de")
        assert session.get_one(Thread, thread_id).language == "de"
    assert post(agent, f"/corrections/{made.id}/undo").status_code == 303
    assert post(agent, f"/corrections/{made.id}/undo").status_code == 409
    with world.container.database.reading() as session:
        assert session.get_one(Thread, thread_id).language == "en"
    assert post(agent, f"/messages/{message_id}/verdict", head="language", label="klingon").status_code == 422


def why(page: str, head: str) -> str:
    """What folds open under a head, as plain text."""
    found = re.search(rf"<details class=\"why\"><summary>Why {head}</summary>(.*?)</details>", page, re.S)
    assert found, f"there is nothing to fold open for {head}"
    return " ".join(re.sub(r"<[^>]+>", " ", found[1]).split())


def test_why_a_message_is_spam_or_not_folds_open_with_rules_words_and_the_band(world: World) -> None:
    agent = world.browser("agent@example.org")
    thread_id, _ = labelled(world)
    page = unescape(agent.get(f"/inbox/{thread_id}").text)
    spam = why(page, "spam")
    assert "of a hundred messages with this number about 10 are spam" in spam
    assert "From 90 % on a message is held, from 50 % on a person is asked" in spam and "below both" in spam
    assert "Decided by its words and how it is built" in spam
    assert "rule “asks-for-human” of the first screening" in spam and "has text that a reader cannot see" in spam
    assert "“invoice” against 1.25" in spam and "a link for 0.75" in spam and "a number of 5 digits for 0.50" in spam
    assert "HTML tag font for 0.25" in spam and "it has text that a reader cannot see for 0.11" in spam
    assert "“x”" not in spam, "what weighs nothing is no reason"
    intent = why(page, "intent")
    assert "about 48 are rightly called refund" in intent and "the model decides nothing" in intent
    assert "Next: billing 40 %" in intent
    optout = why(page, "optout")
    assert "from 12 % on a person is asked" in optout
    assert "Words that weighed most for “asks to stop”" in optout
    assert "“sorted out” for 1.23" in optout and "“nicht mehr” for 0.50" in optout
    assert "weighed most" not in why(page, "language"), "a head that names no words shows no empty table"


SPAM = "Make money fast! Earn $5000 a week from home, click here to order now, 100% risk free, no obligation. " * 4


def triaged(world: World, text: str, number: int, *, sender: str, answered: bool = False) -> str:
    """A thread whose message went through real triage on the weights that ship."""
    thread_id, message_id = labelled(world, text, number)
    with world.container.database.transaction() as session:
        message = session.get_one(Message, message_id)
        message.from_address, message.labels, message.trace = sender, [], []
        message.triage = TriageState.WAITING
        if answered:
            sent = Message(
                id=new_id(),
                thread_id=thread_id,
                profile_id=world.ids["profile"],
                direction=Direction.OUTBOUND,
                author=Author.AGENT,
                status=Delivery.SENT,
                external_id=f"<{new_id()}@example.org>",
                text="Gladly",
                from_address="us@example.org",
                occurred_at=message.occurred_at - timedelta(hours=1),
            )
            session.add(sent)
    Triage(world.container).triage(message_id)
    return thread_id


def chip(agent: httpx.Client, thread_id: str, view: str = "all") -> str:
    """What the list says of spam beside a thread."""
    found = re.search(rf'<li class="row [^>]*id="row-{thread_id}".*?</li>', agent.get(f"/inbox?view={view}").text, re.S)
    assert found, "the thread is not in the list"
    said = re.search(r'<span class="chip chip-(?:bad|warn)">((?:maybe )?spam) \d+ %</span>', found[0])
    return said[1] if said else ""


def verdict(agent: httpx.Client, thread_id: str) -> str:
    """What the thread itself says."""
    found = re.search(r"<dt>spam</dt>\s*<dd><strong>([^<]*)<", agent.get(f"/inbox/{thread_id}?view=all").text, re.I)
    assert found
    return found[1].casefold()


def test_list_and_thread_say_of_spam_what_triage_decided(world: World, tmp_path: Path) -> None:
    agent = world.browser("agent@example.org")
    with_encoder(world, tmp_path / "encoder")
    world.container.__dict__["settings"] = world.container.settings.model_copy(update={"encoder": "onnx:here"})
    with world.container.database.transaction() as session:
        rules.except_sender(session, sender="@partner.example", head="spam", label="spam")
    held = triaged(world, SPAM, 1, sender="x1@cash.example")
    assert (chip(agent, held), verdict(agent, held)) == ("spam", "spam")
    excepted = triaged(world, SPAM, 2, sender="bo@partner.example")
    assert (chip(agent, excepted), verdict(agent, excepted)) == ("", "let through")
    page = unescape(agent.get(f"/inbox/{excepted}").text)
    assert "never held for this sender" in page and "This sender is never held as spam" in why(page, "spam")
    known = triaged(world, SPAM, 3, sender="ana@example.net", answered=True)
    assert (chip(agent, known), verdict(agent, known)) == ("maybe spam", "maybe spam")

    # An admin who is stricter than the settings: the same words, below the band of the settings, and now in doubt.
    words = "Free shipping for all orders, order now"
    before = triaged(world, words, 4, sender="ana@example.net", answered=True)
    with world.container.database.transaction() as session:
        score = session.get_one(Thread, before).spam_score
        assert score is not None and rules.FLOOR < score < world.container.settings.uncertain_band
        rules.set_threshold(session, head="spam", label="spam", value=max(rules.FLOOR, score * 0.9))
    after = triaged(world, words, 5, sender="ana@example.net", answered=True)
    assert (chip(agent, after), verdict(agent, after)) == ("maybe spam", "maybe spam")
    assert (chip(agent, before), verdict(agent, before)) == ("", "not spam"), "what was decided before stands"


def test_what_a_person_says_of_spam_is_what_the_list_says_until_it_is_taken_back(world: World) -> None:
    agent = world.browser("agent@example.org")
    thread_id, message_id = labelled(world)
    with world.container.database.transaction() as session:
        session.get_one(Message, message_id).trace = [TRACE[-1] | {"detail": {"spam": "uncertain"}}]
        thread = session.get_one(Thread, thread_id)
        thread.spam_score, thread.spam_verdict = 0.7, "uncertain"
    assert chip(agent, thread_id) == "maybe spam"
    assert post(agent, f"/messages/{message_id}/verdict", head="spam", label="ham").status_code == 303
    assert chip(agent, thread_id) == ""
    with world.container.database.reading() as session:
        made = corrections.newest(session, message_id, "spam")
    assert made is not None and post(agent, f"/corrections/{made.id}/undo").status_code == 303
    assert chip(agent, thread_id) == "maybe spam"
    assert post(agent, f"/inbox/{thread_id}/act", act="spam").status_code == 303
    assert chip(agent, thread_id) == "spam"
    assert post(agent, f"/inbox/{thread_id}/act", act="not-spam").status_code == 303
    assert chip(agent, thread_id) == "", "a person has said that it is none"


def test_a_program_that_moves_a_thread_out_of_quarantine_says_it_as_an_agent_does(world: World) -> None:
    agent = world.browser("agent@example.org")
    thread_id, message_id = labelled(world)

    def said() -> str:
        with world.container.database.reading() as session:
            made = corrections.newest(session, message_id, "spam")
        return made.new_label if made is not None else ""

    def move(state: str) -> None:
        assert agent.patch(f"/api/v1/threads/{thread_id}", json={"state": state}).status_code == 200

    with world.container.database.transaction() as session:
        session.get_one(Thread, thread_id).state = ThreadState.SPAM
    move("spam")
    assert said() == "", "it was there already"
    move("open")
    assert said() == "ham"
    move("spam")
    assert said() == "", "moved back"
    move("trash")
    move("spam")
    assert said() == "spam", "out of the trash into quarantine"
    move("closed")
    assert said() == "spam", "put away is no word on spam"


def test_a_thread_that_the_release_before_triaged_goes_by_its_probability(world: World) -> None:
    agent = world.browser("agent@example.org")
    for number, (score, said) in enumerate(((0.7, "maybe spam"), (0.4, ""))):
        thread_id, _ = labelled(world, f"text {number}", number)
        with world.container.database.transaction() as session:
            session.get_one(Thread, thread_id).spam_score = score
        assert chip(agent, thread_id) == said


def test_words_of_a_stranger_among_the_reasons_are_no_markup(world: World) -> None:
    agent = world.browser("agent@example.org")
    thread_id, message_id = labelled(world)
    evil = "<script>alert(1)</script>"
    detail = TRACE[-1]["detail"] | {
        "spam_because": {"stage": evil, "words": [[evil, 1.0]], "reasons": [evil], "like": evil, "band": [0.5, 0.9]},
        "weighed": {"optout": [[evil, 1.0]]},
        "faults": {"urgency": f"the head is damaged {evil}: notifyr train"},
    }
    with world.container.database.transaction() as session:
        session.get_one(Message, message_id).trace = [TRACE[-1] | {"detail": detail}]
    page = agent.get(f"/inbox/{thread_id}").text
    assert evil not in page and page.count("&lt;script&gt;alert(1)") >= 5
    assert "A part of the model was missing for this message: the head is damaged" in page


def test_a_message_without_evidence_has_its_probabilities_all_the_same(world: World) -> None:
    """As those are that an earlier release labelled."""
    agent = world.browser("agent@example.org")
    thread_id, message_id = labelled(world)
    with world.container.database.transaction() as session:
        session.get_one(Message, message_id).trace = []
    spam = why(unescape(agent.get(f"/inbox/{thread_id}").text), "spam")
    assert "about 10 are spam" in spam and "From 90 % on a message is held." in spam and "Decided" not in spam


def test_what_a_correction_is_used_for_is_said_as_it_is(world: World) -> None:
    agent = world.browser("agent@example.org")
    texts = ("I want it " + letter * 3 for letter in "abcdefghijklmnopqrstuvwxyz")
    thread_id, message_id = labelled(world, next(one for one in texts if corrections.is_held_out(f"Matter 1\n{one}")))
    with world.container.database.transaction() as session:
        for head, label in (("spam", "spam"), ("language", "de"), ("intent", "billing")):
            assert corrections.record(session, message_id, head=head, label=label).held_out
    page = unescape(agent.get(f"/inbox/{thread_id}?view=all").text)
    said = {
        head: re.search(rf"<dt>{head}</dt>.*?said by a person([^<]*)<", page, re.S)[1]  # type: ignore[index]
        for head in ("spam", "language", "intent")
    }
    assert said == {
        "spam": "; mails like it are judged the same",
        "language": "; it counts for the same text again and is otherwise only measured with",
        "intent": ", only measured with",
    }


def test_an_unsure_opt_out_is_settled_by_one_click(world: World) -> None:
    agent = world.browser("agent@example.org")
    _, message_id = labelled(world, "enough for now")
    facts = {"channel": "email", "address": "ana@example.net"}
    assert post(agent, f"/messages/{message_id}/verdict", head="optout", label="yes").status_code == 303
    with world.container.database.reading() as session:
        assert contacts.may_write(session, **facts) is not None
    assert post(agent, f"/messages/{message_id}/verdict", head="optout", label="no").status_code == 303
    with world.container.database.reading() as session:
        assert contacts.may_write(session, **facts) is None


def test_never_for_this_sender_is_set_on_the_thread_and_listed_in_the_settings(world: World) -> None:
    admin = world.browser()
    _, message_id = labelled(world)
    assert post(admin, f"/messages/{message_id}/verdict", head="spam", never="spam").status_code == 303
    with world.container.database.reading() as session:
        assert rules.read(session).excepted("ana@example.net", "spam", "spam")
    page = admin.get("/settings/labels").text
    assert "ana@example.net" in page
    found = re.search(r"/settings/labels/([0-9a-f-]{36})/forget", page)
    assert found
    assert post(admin, f"/settings/labels/{found[1]}/forget").status_code == 303
    assert "ana@example.net" not in admin.get("/settings/labels").text
    assert post(admin, "/settings/labels/never", sender="@partner.example", label="spam:spam").status_code == 303
    assert post(admin, "/settings/labels/never", sender="nobody", label="spam:spam").status_code == 422


def test_a_poisoned_batch_is_taken_back_on_the_page(world: World) -> None:
    admin, agent = world.browser(), world.browser("agent@example.org")
    for number in range(3):
        _, message_id = labelled(world, f"text {number}", number)
        assert post(agent, f"/messages/{message_id}/verdict", head="language", label="de").status_code == 303
    path = "/settings/labels/take-back"
    assert post(admin, path, days="1").status_code == 422
    assert post(admin, path, agent="nobody@example.org", days="1").status_code == 422
    assert post(admin, path, sender="ana@example.net", days="many").status_code == 422
    assert post(agent, path, agent="agent@example.org", days="1").status_code == 403
    assert post(admin, path, agent="agent@example.org", days="1").status_code == 303
    with world.container.database.reading() as session:
        assert corrections.lessons(session, "language") == corrections.lessons(session, "language", held_out=True) == []
    assert "3 of agent@example.org" in admin.get("/settings/audit").text


def test_thresholds_are_set_in_per_cent_by_admins_only(world: World) -> None:
    admin = world.browser()
    for typed, value in (("80", 0.8), ("0.65", 0.65), ("70 %", 0.7)):
        assert post(admin, "/settings/labels", head="spam", label="spam", threshold=typed).status_code == 303
        with world.container.database.reading() as session:
            assert rules.threshold(session, "spam", "spam", default=0.9) == value
    for wrong in ("many", "0", "100"):
        assert post(admin, "/settings/labels", head="spam", threshold=wrong).status_code == 422, wrong
    assert post(admin, "/settings/labels", head="spam", label="spam", threshold="").status_code == 303
    assert post(admin, "/settings/labels", head="weather", threshold="50").status_code == 422
    agent = world.browser("agent@example.org")
    assert agent.get("/settings/labels").status_code == post(agent, "/settings/labels", head="spam").status_code == 403


def test_the_queue_asks_what_teaches_most_and_takes_answers(world: World) -> None:
    agent = world.browser("agent@example.org")
    for number in range(25):
        labelled(world, f"Something about matter {number}", number)
    page = agent.get("/learning").text
    asked = re.findall(r'action="/learning/([0-9a-f-]{36})" class="answers"', page)
    assert len(asked) == 20 and 'data-answer="1"' in page
    held = asked[0]
    # Without an encoder the only intents are an operator's own; here there are none, and none can be named.
    refused = post(agent, f"/learning/{held}", label="refund")
    assert refused.status_code == 422 and "choose an intent" in refused.text


def test_an_answer_in_the_queue_is_stored_and_a_held_out_one_is_a_point_of_the_curve(world: World) -> None:
    agent = world.browser("agent@example.org")
    with world.container.database.transaction() as session:
        for name in ("refund", "billing"):
            intents.define(session, name=name, examples=[f"{name} {one}" for one in ("please", "now", "soon", "again")])
    texts = [f"It is about {letter * 3}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    held = [text for text in texts if corrections.is_held_out(f"Matter\n{text}")][:3]
    taught = next(text for text in texts if not corrections.is_held_out(f"Matter\n{text}"))
    assert len(held) == 3
    asked = [(text, labelled(world, text, number)[1]) for number, text in enumerate((*held, taught))]
    page = agent.get("/learning").text
    assert "<polyline" not in page and "once one of the held-out fifth is answered" in page

    said = dict(zip([text for text, _ in asked], ("refund", "billing", "refund", "billing"), strict=True))
    for text, message_id in asked:
        assert f'action="/learning/{message_id}"' in page
        done = post(agent, f"/learning/{message_id}", label=said[text])
        assert done.status_code == 303
        after = agent.get(done.headers["location"]).text
        assert "Noted." in after and f'action="/learning/{message_id}"' not in after, "an answered one is asked no more"
        with world.container.database.reading() as session:
            made = corrections.newest(session, message_id, "intent")
            assert made is not None
            assert f'action="/corrections/{made.id}/undo"' in after
            assert (made.old_label, made.new_label, made.held_out) == ("refund", said[text], text != taught)

    drawn = re.findall(r'<polyline points="([^"]*)"', after)
    assert len(drawn) == 1
    points = [tuple(map(float, point.split(","))) for point in drawn[0].split()]
    assert len(points) == 3, "one a held-out answer, and none of what is learned from"
    newest = re.findall(r'<circle cx="([^"]*)" cy="([^"]*)"', after)
    assert [tuple(map(float, one)) for one in newest] == points[-1:], (
        "a first answer is seen, too, where there is no line"
    )
    across, down = zip(*points, strict=True)
    assert list(across) == sorted(set(across))
    assert down[0] < down[2] < down[1], "all right, half, two of three: the better, the higher on the page"
    assert [cells(after, str(number)) for number in (1, 2, 3)] == [["100 %"], ["50 %"], ["67 %"]]
    assert "4 answers: 3 of them only measured with" in after and "now 67 % of 3" in after
    assert post(agent, f"/corrections/{made.id}/undo", **{"from": "learning"}).status_code == 303
    assert f'action="/learning/{asked[-1][1]}"' in agent.get("/learning").text, "what is taken back is asked again"


def test_the_models_page_shows_calibration_drift_and_stages(world: World) -> None:
    agent = world.browser("agent@example.org")
    empty = agent.get("/models").text
    assert "No answers for this head yet" in empty and "the encoder is off" in empty
    for number in range(6):
        _, message_id = labelled(world, f"text {number}", number)
        label = "en" if number % 3 else "de"
        assert post(agent, f"/messages/{message_id}/verdict", head="language", label=label).status_code == 303
    page = agent.get("/models?head=language").text
    assert "<circle" in page and "<td>67 %</td>" in page
    assert "7.0 ms" in page and "intent 100 %" in page and "Spam was decided by: words 100 %" in page
    assert re.search(r"refund \d+ %", agent.get("/models").text)
    assert "Calibration error here: <strong>0.323</strong>" in page, "0.99 was stated, four of six were right"


def test_the_models_page_says_whether_the_generator_is_asked_and_why(world: World) -> None:
    agent, path = world.browser("agent@example.org"), world.container.settings.path(FILE)
    spec = world.container.settings.generator
    assert "There is no generator to ask" in agent.get("/models").text
    world.container.__dict__["settings"] = world.container.settings.model_copy(update={"generator": "llama:x"})
    assert "it was not measured (notifyr train --only generator)" in agent.get("/models").text
    for after, said in ((30, "The generator is asked"), (20, "because it does not help")):
        keep(path, Gain("k", 1.0, 40, 39, 30, 20, after), spec="llama:x")
        page = agent.get("/models").text
        assert said in page and f"of 40 examples left open, 20 were right before its word and {after} after it" in page
    assert spec == "off"


def with_encoder(world: World, folder: Path) -> Path:
    """The pages ask the weights of a copied folder, which may be spoilt; the network is never read by them."""
    shutil.copytree(ROOT / "deploy/weights/encoder", folder, ignore=shutil.ignore_patterns("model.onnx"))
    (folder / "model.onnx").symlink_to(ROOT / "deploy/weights/encoder/model.onnx")
    world.container.__dict__["classifier"] = Labeller(Encoder(folder))
    return folder


def cells(page: str, title: str) -> list[str]:
    """The row of a table that begins with a title."""
    found = re.search(rf"<tr><td>{re.escape(title)}</td>(.*?)</tr>", page, re.S)
    assert found, f"there is no row {title!r}"
    return [re.sub(r"<[^>]+>", "", one).strip() for one in re.findall(r"<td[^>]*>(.*?)</td>", found[1], re.S)]


def test_the_models_page_shows_the_figures_that_were_measured(world: World, tmp_path: Path) -> None:
    folder = with_encoder(world, tmp_path / "encoder")
    figures = json.loads((folder / "figures.json").read_text())
    page = unescape(world.browser("agent@example.org").get("/models?head=spam").text)
    mail = figures["mail"]["figures"]
    assert cells(page, "spam, cleaned text and envelope") == [
        f"{mail['texts']:,} texts, {mail['spam']} spam",
        f"{mail['pr_auc']:.3f}",
        f"{mail['recall_at_0.1_percent']:.3f}",
        f"{mail['hard_ham_false_positives']:.1%}".replace("%", " %"),
        f"{mail['calibration_error']:.3f}",
    ]
    assert cells(page, "spam, text messages")[3] == "–"
    assert f"AUROC {figures['clinc150']['figures']['out_of_scope_auroc']:.3f}" in cells(page, "out of scope")[1]
    for title in ("shipped intents", "opt-out", "kind of reply", "urgency", "sentiment", "language"):
        assert cells(page, title)[0], title
    assert "What is confused most" in page and "**" not in page and "other weights" not in page
    assert not world.container.classifier.ready, "a page loads no model"  # type: ignore[union-attr]


def test_figures_of_other_weights_and_lost_ones_are_shown_as_such(world: World, tmp_path: Path) -> None:
    folder = with_encoder(world, tmp_path / "encoder")
    agent = world.browser("agent@example.org")
    figures = json.loads((folder / "figures.json").read_text())
    figures["mail"]["of"]["spam/spam.npz"] = "0" * 16
    (folder / "figures.json").write_text(json.dumps(figures))
    page = unescape(agent.get("/models").text)
    assert "spam, cleaned text and envelope (other weights)" in page and "measure again with" in page
    (folder / "figures.json").write_text("[")
    page = unescape(agent.get("/models").text)
    assert "figures.json cannot be read" in page and "What they were trained on" in page


def test_a_damaged_head_is_said_on_the_models_page_and_the_others_stay(world: World, tmp_path: Path) -> None:
    folder = with_encoder(world, tmp_path / "encoder")
    manifest = json.loads((folder / "labels" / "manifest.json").read_text(encoding="utf-8"))
    manifest["sums"]["urgency"] = "0" * 64
    (folder / "labels" / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    said = "urgency: the head urgency in labels/ cannot be used: notifyr train --only labels"
    world.container.bus.set_model("encoder", state="partial", name="e", reason=said, at="")
    page = unescape(world.browser("agent@example.org").get("/models").text)
    assert f"partial: {said}" in page and "it is not what its manifest names" in page
    assert cells(page, "sentiment") and "left out" in page
    (folder / "labels" / "labels.npz").unlink()
    world.container.__dict__["classifier"] = Labeller(Encoder(folder))
    page = unescape(world.browser("agent@example.org").get("/models").text)
    assert "labels.npz" in page and "notifyr train --only labels" in page and "notifyr-encoder-" in page
