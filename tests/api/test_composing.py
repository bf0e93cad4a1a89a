"""Writing in the inbox: who a message goes to, what is asked before it is sent, files, notes, labels, and what is kept."""

from __future__ import annotations

import re
from datetime import timedelta
from html import unescape
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
from sqlalchemy import select

from assistant.backends.blobs import Blobs
from assistant.clock import utcnow
from assistant.db.inbox import Note, Upload
from assistant.db.messages import Message, Thread
from assistant.errors import InvalidInput
from assistant.events import DeliveryEvent, EventKind
from assistant.services import access, attempts, composing, drafts, labels, notes, saved_replies, threads
from assistant.states import Delivery, Direction, ThreadState
from tests.api.conftest import BOTH, World

ENGINES = BOTH

PNG = bytes.fromhex("89504e470d0a1a0a0000000d4948445200000001000000010806000000") + b"\x00" * 40


def post(client: httpx.Client, path: str, files: Any = None, **fields: Any) -> httpx.Response:
    return client.post(path, data=fields, files=files, headers={"accept": "text/html"}, follow_redirects=False)


def many(world: World, **values: Any) -> str:
    """A thread whose mail also went to others."""
    thread_id = world.thread()
    with world.container.database.transaction() as session:
        message = session.scalars(select(Message).where(Message.thread_id == thread_id)).one()
        message.to_addresses = [
            {"address": "Support@example.org", "name": "Support"},
            {"address": "cleo@partner.example", "name": "Cleo, Sales"},
        ]
        message.cc_addresses = [
            {"address": "dora@partner.example", "name": ""},
            {"address": "ana@example.net", "name": ""},
        ]
        for name, value in values.items():
            setattr(message, name, value)
    return thread_id


def sent(world: World, thread_id: str) -> Message:
    with world.container.database.reading() as session:
        found = [one for one in threads.messages_of(session, thread_id) if one.direction == Direction.OUTBOUND]
    assert len(found) == 1
    return found[0]


def listed(message: Message, which: str) -> list[str]:
    return [one["address"] for one in getattr(message, f"{which}_addresses")]


# -- who it goes to


def test_reply_to_all_goes_to_everybody_but_ourselves_and_nobody_twice(world: World) -> None:
    thread_id = many(world)
    with world.container.database.reading() as session:
        begun = composing.outline(session, thread_id, "reply-all")
        alone = composing.outline(session, thread_id, "reply")
    assert composing.parse_addresses(begun.to) == composing.parse_addresses(
        'Ana <ana@example.net>, "Cleo, Sales" <cleo@partner.example>'
    )
    assert (begun.cc, alone.to, alone.cc) == ("dora@partner.example", "Ana <ana@example.net>", "")
    client = world.browser()
    page = client.get(f"/inbox/{thread_id}?compose=reply-all").text
    assert "dora@partner.example" in page and 'aria-current="true">Reply to all' in page
    answer = post(
        client,
        f"/inbox/{thread_id}/reply",
        kind="reply-all",
        to=begun.to,
        cc=begun.cc,
        bcc="",
        text="Hello all",
        form_id="1",
    )
    assert answer.status_code == 303
    message = sent(world, thread_id)
    assert listed(message, "to") == ["ana@example.net", "cleo@partner.example"]
    assert listed(message, "cc") == ["dora@partner.example"] and message.in_reply_to


def test_reply_to_is_honoured_in_a_reply_to_all(world: World) -> None:
    thread_id = many(world, reply_to_address="tickets@example.net")
    with world.container.database.reading() as session:
        assert composing.outline(session, thread_id, "reply-all").to.startswith("tickets@example.net")


def test_a_forward_answers_nothing_and_takes_the_ticked_files_along(world: World) -> None:
    thread_id, client = world.ids["thread"], world.browser()
    with world.container.database.reading() as session:
        begun = composing.outline(session, thread_id, "forward")
    assert begun.subject == "Fwd: Where is my refund?" and "Forwarded message" in begun.text and len(begun.files) == 1
    page = client.get(f"/inbox/{thread_id}?compose=forward").text
    assert "note.html" in page and 'value="att/1" checked' in page
    common = {"kind": "forward", "to": "dora@partner.example", "cc": "", "bcc": "", "subject": "Fwd: look"}
    assert (
        post(
            client, f"/inbox/{thread_id}/reply", **common, text=f"See below {begun.text}", along="att/1", form_id="2"
        ).status_code
        == 303
    )
    message = sent(world, thread_id)
    assert (message.in_reply_to, message.references, message.subject) == ("", [], "Fwd: look")
    assert listed(message, "to") == ["dora@partner.example"]
    assert [one.blob_key for one in message.attachments] == ["att/1"]


def test_a_new_message_finds_or_makes_the_contact_and_a_thread(world: World) -> None:
    client = world.browser()
    fields = {"to": "Ana <ana@example.net>", "cc": "", "bcc": "", "subject": "Hello", "text": "How are you?"}
    first = post(client, "/compose", **fields, form_id="n1")
    again = post(client, "/compose", **(fields | {"to": "Newcomer <new@fresh.example>"}), form_id="n2")
    assert first.status_code == again.status_code == 303
    ids = [answer.headers["location"].partition("?")[0].rpartition("/")[2] for answer in (first, again)]
    with world.container.database.reading() as session:
        known, fresh = (threads.get_thread(session, one) for one in ids)
        assert known.contact_id == world.ids["contact"] and fresh.contact.display_name == "Newcomer"
        assert known.subject == "Hello" and sent(world, ids[0]).in_reply_to == ""
    assert drafts_of(world) == {}


def test_a_new_message_sent_twice_is_one_message_in_one_thread(world: World) -> None:
    client = world.browser()
    fields = {"to": "new@fresh.example", "cc": "", "bcc": "", "subject": "Re: Hello", "text": "Hi", "form_id": "twice"}
    places = {post(client, "/compose", **fields).headers["location"].partition("?")[0] for _ in range(2)}
    assert len(places) == 1
    with world.container.database.reading() as session:
        found = session.scalars(select(Thread).where(Thread.id != world.ids["thread"])).all()
        assert [(one.message_count, one.base_subject) for one in found] == [(1, "hello")]


def test_a_new_message_can_leave_later(world: World) -> None:
    client = world.browser()
    fields = {"to": "new@fresh.example", "cc": "", "bcc": "", "subject": "Hello", "text": "Hi", "form_id": "l"}
    assert post(client, "/compose", **fields, then="later", later="long ago").status_code == 422
    done = post(client, "/compose", **fields, then="later", later="in 3 days")
    page = unescape(client.get(done.headers["location"]).text)
    assert "Will be sent later" in page and "will be sent " in page and "Do not send" in page


def drafts_of(world: World) -> dict[str, str]:
    with world.container.database.reading() as session:
        return drafts.load_new(session, world.ids["admin"])


@pytest.mark.parametrize(
    "to", ["nobody", "a@b.co\r\nBcc: x@evil.example", "<script>@x.y", "a@b.co <c@d.ef> x", "Ana <a@b.co", "a b@c.de"]
)
def test_what_is_no_address_is_named_and_nothing_is_lost(world: World, to: str) -> None:
    client, thread_id = world.browser(), world.thread()
    for path, fields in ((f"/inbox/{thread_id}/reply", {"kind": "reply"}), ("/compose", {"subject": "S"})):
        answer = post(client, path, to=to, cc="", bcc="", text="Words that stay", form_id="x", **fields)
        assert answer.status_code == 422 and "is not an email address" in unescape(answer.text)
        assert "Words that stay" in answer.text
    with world.container.database.reading() as session:
        assert [one.direction for one in threads.messages_of(session, thread_id)] == [Direction.INBOUND]
    with pytest.raises(InvalidInput):
        composing.parse_addresses(to)


@pytest.mark.checklist(38)
def test_a_blind_copy_is_in_the_envelope_and_in_no_header(world: World) -> None:
    from assistant.values import Address, OutboundMessage
    from channels.email import compose

    thread_id, client = world.thread(), world.browser()
    post(
        client,
        f"/inbox/{thread_id}/reply",
        kind="reply",
        to="ana@example.net",
        cc="",
        bcc="boss@example.org",
        text="Hi",
        form_id="3",
    )
    message = sent(world, thread_id)
    with world.container.database.transaction() as session:
        session.get_one(Message, message.id).status = Delivery.QUEUED
        session.get_one(Message, message.id).release_at = None
    with world.container.database.transaction() as session:
        claim = attempts.claim(session, message.id, lease_seconds=60)
    assert claim is not None and [one.value for one in claim.bcc] == ["boss@example.org"]
    raw = compose(
        OutboundMessage(
            id="m",
            sender=claim.sender,
            to=claim.to,
            bcc=(Address("email", "boss@example.org"),),
            subject="S",
            text="Hi",
        )
    )
    assert b"boss" not in raw


@pytest.mark.parametrize(
    "address",
    ["unreadable@invalid", "user..x@carrier.example", "x@[127.0.0.1]", "o'neil@example.com"],
)
def test_a_thread_with_an_address_that_no_rule_allows_opens_and_is_answered_as_it_is(
    world: World, address: str
) -> None:
    thread_id, client = many(world, from_address=address), world.browser()
    with world.container.database.reading() as session:
        begun = {kind: composing.outline(session, thread_id, kind) for kind in ("reply", "reply-all")}
    for kind, outline in begun.items():
        page = client.get(f"/inbox/{thread_id}?compose={kind}", headers={"accept": "text/html"})
        assert page.status_code == 200 and address in unescape(page.text)
        found = composing.parse_addresses(f"{outline.to}, {outline.cc}", known=outline.people)
        assert tuple(found) == outline.people and found[0].value == address
    fields = {"to": f"{begun['reply'].to}, boss@example.org", "cc": "", "bcc": ""}
    assert (
        post(client, f"/inbox/{thread_id}/reply", kind="reply", text="Hi", form_id="odd", **fields).status_code == 303
    )
    assert listed(sent(world, thread_id), "to") == [address, "boss@example.org"]


def test_a_thread_whose_sender_cannot_be_written_to_opens_and_asks_who(world: World) -> None:
    thread_id, client = world.thread(), world.browser()
    with world.container.database.transaction() as session:
        session.scalars(select(Message).where(Message.thread_id == thread_id)).one().from_address = '"a b"@example.com'
    assert client.get(f"/inbox/{thread_id}").status_code == 200
    answer = post(client, f"/inbox/{thread_id}/reply", kind="reply", to="", cc="", bcc="", text="Hi", form_id="none")
    assert answer.status_code == 422 and "Hi</textarea>" in answer.text


# -- what is asked


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"text": "Please see the attached invoice."}, "no file is attached"),
        ({"text": "Anbei die Rechnung."}, "no file is attached"),
        ({"text": "Hello", "cc": "stranger@elsewhere.example"}, "is new in this conversation"),
        ({"text": "He said: this customer is close to leaving us, be kind"}, "stand in an internal note"),
    ],
)
def test_what_looks_odd_is_asked_once_and_sent_with_a_second_press(
    world: World, fields: dict[str, str], words: str
) -> None:
    thread_id, client = world.thread(), world.browser()
    with world.container.database.transaction() as session:
        notes.add(
            session, thread_id, agent_id=world.ids["agent"], text="This customer is close to leaving us", form_id="n"
        )
    common = {"kind": "reply", "to": "ana@example.net", "cc": "", "bcc": "", "form_id": "4"} | fields
    asked = post(client, f"/inbox/{thread_id}/reply", **common)
    page = unescape(asked.text)
    assert asked.status_code == 409 and words in page and "Send all the same" in page and fields["text"] in page
    with world.container.database.reading() as session:
        assert len(threads.messages_of(session, thread_id)) == 1
    assert post(client, f"/inbox/{thread_id}/reply", **common, confirmed="yes").status_code == 303
    assert sent(world, thread_id).text == fields["text"]


def test_colleagues_and_people_of_the_thread_are_no_strangers(world: World) -> None:
    thread_id, client = many(world), world.browser()
    answer = post(
        client,
        f"/inbox/{thread_id}/reply",
        kind="reply",
        to="ana@example.net, cleo@partner.example",
        cc="boss@example.org",
        bcc="",
        text="Hi",
        form_id="5",
    )
    assert answer.status_code == 303


def test_who_said_stop_cannot_be_written_to_by_any_press(world: World) -> None:
    from assistant.services import contacts
    from assistant.values import Address

    thread_id, client = world.thread(), world.browser()
    with world.container.database.transaction() as session:
        contacts.suppress(session, Address("email", "ana@example.net"), cause="stop")
    answer = post(client, f"/inbox/{thread_id}/reply", kind="reply", text="Hello", form_id="6", confirmed="yes")
    assert answer.status_code == 403 and "Nothing can be sent to this contact" in answer.text


# -- when


def test_a_later_moment_holds_the_message_until_then(world: World) -> None:
    thread_id, client = world.thread(), world.browser()
    answer = post(
        client,
        f"/inbox/{thread_id}/reply",
        kind="reply",
        text="Soon",
        form_id="7",
        then="later",
        later="in 3 hours",
    )
    assert answer.status_code == 303 and "did=later" in answer.headers["location"]
    message = sent(world, thread_id)
    assert message.status == Delivery.HELD and message.release_at is not None
    assert abs(message.release_at - utcnow() - timedelta(hours=3)) < timedelta(minutes=1)
    wrong = post(
        client, f"/inbox/{thread_id}/reply", kind="reply", text="Soon", form_id="8", then="later", later="never"
    )
    assert wrong.status_code == 422 and "no moment that is understood" in wrong.text


def test_a_typed_moment_is_read_in_the_agents_own_time_zone(world: World) -> None:
    thread_id, client = world.thread(), world.browser()
    with world.container.database.transaction() as session:
        agent = access.get_agent(session, world.ids["admin"])
        agent.preferences = agent.preferences | {"zone": "Asia/Tokyo"}
    client.cookies.set("zone", "America/New_York")
    post(
        client,
        f"/inbox/{thread_id}/reply",
        kind="reply",
        text="Soon",
        form_id="zone",
        then="later",
        later="tomorrow 9:00",
    )
    at = sent(world, thread_id).release_at
    assert at is not None and at.astimezone(ZoneInfo("Asia/Tokyo")).strftime("%H:%M") == "09:00"


def test_send_and_done_closes_the_thread_and_goes_on(world: World) -> None:
    following = world.thread(last_message_at=utcnow() - timedelta(hours=1))
    thread_id, client = world.thread(), world.browser()
    answer = post(client, f"/inbox/{thread_id}/reply", kind="reply", text="Bye", form_id="9", then="done", view="inbox")
    assert answer.status_code == 303 and f"/inbox/{thread_id}" not in answer.headers["location"]
    with world.container.database.reading() as session:
        assert threads.get_thread(session, thread_id).state == ThreadState.CLOSED
        assert threads.get_thread(session, following).state == ThreadState.OPEN


# -- files


def test_files_wait_with_the_words_and_leave_with_the_message(world: World) -> None:
    thread_id, client = world.thread(), world.browser()
    kept = post(
        client,
        f"/inbox/{thread_id}/files",
        files=[("files", ("../../etc/ca\u202et.png", PNG, "text/html"))],
        kind="reply",
    )
    assert kept.status_code == 200 and "image/png" in kept.text and "etc/" not in kept.text
    page = client.get(f"/inbox/{thread_id}").text
    assert "image/png" in page and page.count('id="uploads"') == 1
    assert "image/png" not in world.browser("agent@example.org").get(f"/inbox/{thread_id}").text
    assert (
        post(client, f"/inbox/{thread_id}/reply", kind="reply", text="See the attached file", form_id="10").status_code
        == 303
    )
    (file,) = sent(world, thread_id).attachments
    assert (file.content_type, file.size) == ("image/png", len(PNG)) and world.container.blobs.get(file.blob_key) == PNG
    with world.container.database.reading() as session:
        assert session.scalars(select(Upload)).all() == []


def test_a_file_in_the_form_itself_needs_no_script(world: World) -> None:
    thread_id, client = world.thread(), world.browser()
    answer = post(
        client,
        f"/inbox/{thread_id}/reply",
        files=[("files", ("a.txt", b"hello", "text/plain"))],
        kind="reply",
        text="Attached.",
        form_id="11",
    )
    assert answer.status_code == 303 and sent(world, thread_id).attachments[0].filename == "a.txt"


def test_too_much_is_refused_with_words_and_what_was_there_stays(world: World) -> None:
    thread_id, client = world.thread(), world.browser()
    post(client, f"/inbox/{thread_id}/files", files=[("files", ("a.txt", b"hello", "text/plain"))], kind="reply")
    big = post(
        client, f"/inbox/{thread_id}/files", files=[("files", ("b.bin", b"x" * 20_000_001, "x/y"))], kind="reply"
    )
    assert big.status_code == 413 and "at most 20 MB" in big.text and "a.txt" in big.text
    for _ in range(19):
        post(client, f"/inbox/{thread_id}/files", files=[("files", ("c", b"1", "text/plain"))], kind="reply")
    assert (
        "at most 20 files"
        in post(client, f"/inbox/{thread_id}/files", files=[("files", ("d", b"1", ""))], kind="reply").text
    )


def test_nobody_waits_for_the_database_while_a_file_is_written(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: 20 MB were written and synced under SQLite's one write lock."""
    client, thread_id, held = world.browser("agent@example.org"), world.thread(), list[int]()
    real = Blobs.keep

    def keep(self: Blobs, key: str, content: bytes) -> None:
        held.append(world.container.database.engine.pool.checkedout())  # type: ignore[attr-defined]  # of a queue pool
        real(self, key, content)

    monkeypatch.setattr(Blobs, "keep", keep)
    post(client, f"/inbox/{thread_id}/files", files=[("files", ("a.txt", b"hello", "text/plain"))], kind="reply")
    assert held == [0]
    large = [("files", ("b.bin", b"x" * 20_000_001, "x/y"))]
    assert post(client, f"/inbox/{thread_id}/files", files=large, kind="reply").status_code == 413
    assert held == [0], "and what is too large is not written at all"


def test_nobody_takes_away_a_colleagues_file(world: World) -> None:
    thread_id, client = world.thread(), world.browser()
    post(client, f"/inbox/{thread_id}/files", files=[("files", ("a.txt", b"hello", "text/plain"))], kind="reply")
    with world.container.database.reading() as session:
        upload_id = session.scalars(select(Upload.id)).one()
    assert post(world.browser("agent@example.org"), f"/files/{upload_id}/remove").status_code == 404
    assert post(client, f"/files/{upload_id}/remove").status_code == 303
    assert "a.txt" not in client.get(f"/inbox/{thread_id}").text


# -- notes


def test_a_note_is_shown_to_agents_and_never_leaves(world: World) -> None:
    thread_id, client = world.thread(), world.browser()
    for _ in range(2):
        assert post(client, f"/inbox/{thread_id}/note", text="Call her <b>first</b>", form_id="n1").status_code == 303
    page = world.browser("agent@example.org").get(f"/inbox/{thread_id}").text
    assert (
        page.count("Call her &lt;b&gt;first&lt;/b&gt;") == 1 and "internal note" in page and "Remove note" not in page
    )
    api = client.get(f"/api/v1/threads/{thread_id}/messages").text
    with world.container.database.reading() as session:
        assert len(threads.messages_of(session, thread_id)) == 1
        assert "Call her" not in composing.outline(session, thread_id, "forward").text
        assert not threads.list_threads(session, "outbox").items
        note_id = session.scalars(select(Note.id)).one()
    assert "Call her" not in api
    assert post(world.browser("agent@example.org"), f"/notes/{note_id}/remove", thread_id=thread_id).status_code == 404
    assert post(client, f"/notes/{note_id}/remove", thread_id=thread_id).status_code == 303
    assert "Call her" not in client.get(f"/inbox/{thread_id}").text
    assert post(client, f"/inbox/{thread_id}/note", text="  ", form_id="n2").status_code == 422


def test_each_kind_keeps_its_own_draft(world: World) -> None:
    thread_id, client = world.thread(), world.browser()
    kinds = {"reply": "R words", "forward": "F words", "note": "N words"}
    for kind, text in kinds.items():
        fields = {"to": "x@y.example", "cc": "", "bcc": "", "subject": "Changed"} if kind == "forward" else {}
        assert post(client, f"/inbox/{thread_id}/draft", kind=kind, text=text, **fields).status_code == 204
    for kind, text in kinds.items():
        page = client.get(f"/inbox/{thread_id}?compose={kind}").text
        assert text in page and not any(other in page for other in kinds.values() if other != text)
    page = client.get(f"/inbox/{thread_id}?compose=forward").text
    assert 'value="x@y.example"' in page and 'value="Changed"' in page
    assert post(client, f"/inbox/{thread_id}/draft", kind="poem", text="x").status_code == 422
    assert post(client, "/compose/draft", to="a", cc="", bcc="", subject="b", text="c").status_code == 204
    assert 'value="a"' in client.get("/compose").text


# -- labels and saved replies


def test_labels_are_words_on_threads_that_come_and_go_and_can_be_undone(world: World) -> None:
    thread_id, client = world.thread(), world.browser()
    assert post(client, f"/inbox/{thread_id}/labels", add=" Billing  Question! ").status_code == 303
    page = client.get(f"/inbox/{thread_id}?did=label-on&thread={thread_id}&state=billing-question").text
    assert page.count("billing-question") >= 3 and "Label added" in page
    with world.container.database.transaction() as session:
        assert not labels.add(session, thread_id, name="billing-question", agent_id=None)
        assert [(label.name, count) for label, count in labels.every(session)] == [("billing-question", 1)]
    assert post(client, f"/inbox/{thread_id}/labels", remove="billing-question").status_code == 303
    with world.container.database.reading() as session:
        assert labels.every(session) == [] and labels.of_threads(session, [thread_id]) == {thread_id: []}
    assert post(client, f"/inbox/{thread_id}/labels", add="!!!").status_code == 422


def test_saved_replies_are_filled_in_and_only_with_what_is_known(world: World) -> None:
    with world.container.database.transaction() as session:
        saved_replies.save(
            session, name="Thanks", text="Dear {first_name}, thanks. {agent}", agent_id=world.ids["admin"]
        )
        with pytest.raises(InvalidInput, match="first_name"):
            saved_replies.save(session, name="x", text="{secret}", agent_id=world.ids["admin"])
    client, path = world.browser(), f"/inbox/{world.ids['thread']}"
    assert 'data-insert="Dear Ana, thanks. Admin"' in unescape(client.get(f"{path}/saved-replies").text)
    page = client.get(path).text
    assert "Dear Ana, thanks" not in page, "their words are read when the list is opened"
    assert (
        saved_replies.fill("{first_name} {name.__class__} {{x}}", {"first_name": ""})
        == "{first_name} {name.__class__} {{x}}"
    )
    assert re.search(r"Saved replies", page)


def test_saved_replies_are_written_changed_and_deleted_on_a_page(world: World) -> None:
    client = world.browser("agent@example.org")
    assert "Write the first one" in client.get("/settings/replies").text
    assert post(client, "/settings/replies", name="Thanks", text="Dear {first_name}").status_code == 303
    again = post(client, "/settings/replies", name="Thanks", text="Other words")
    assert again.status_code == 409 and "Other words" in again.text
    unknown = post(client, "/settings/replies", name="Odd", text="{password}")
    assert unknown.status_code == 422 and "{password} is not known" in unescape(unknown.text)
    with world.container.database.reading() as session:
        reply_id = saved_replies.every(session)[0].id
    assert post(client, f"/settings/replies/{reply_id}", name="Thank you", text="Hi {agent}").status_code == 303
    page = unescape(client.get(f"/inbox/{world.ids['thread']}/saved-replies").text)
    assert 'data-insert="Hi Agent"' in page and "Thank you" in page
    assert post(client, f"/settings/replies/{reply_id}/remove").status_code == 303
    assert post(client, f"/settings/replies/{reply_id}/remove").status_code == 404
    trail = world.browser().get("/settings/audit?area=reply").text
    assert all(f"reply.{act}" in trail for act in ("written", "changed", "removed"))


def test_a_name_that_nothing_was_filled_in_for_is_asked_about(world: World) -> None:
    thread_id, client = world.thread(), world.browser()
    fields = {"kind": "reply", "text": "Dear {first_name}, {else}", "form_id": "h1"}
    asked = post(client, f"/inbox/{thread_id}/reply", **fields)
    assert asked.status_code == 409 and "{first_name} of a saved reply is not filled in" in asked.text
    assert post(client, f"/inbox/{thread_id}/reply", **fields, confirmed="yes").status_code == 303


def test_threads_are_found_by_their_labels_and_the_rail_leads_to_them(world: World) -> None:
    client = world.browser()
    ids = [world.thread(subject=f"Matter {number}") for number in range(3)]
    world.thread(subject="Matter of another kind")
    with world.container.database.transaction() as session:
        labels.add_all(session, ids, name="Money", agent_id=world.ids["admin"])
        labels.add(session, ids[0], name="urgent", agent_id=None)
    for search, found in (("label:money", ids), ("Label:MONEY label:urgent", ids[:1]), ("label:money 2", ids[2:])):
        page = client.get("/inbox", params={"view": "all", "q": search}).text
        assert set(re.findall(r'id="row-([^"]+)"', page)) == set(found), search
    assert not re.findall(r'id="row-', client.get("/inbox?q=label:nothing").text)
    assert 'href="/inbox?view=all&amp;q=label:money"' in client.get("/inbox").text
    assert len(client.get("/api/v1/threads", params={"q": "label:money"}).json()["items"]) == 3


def test_a_label_on_several_threads_is_taken_back_from_those_only(world: World) -> None:
    client, ids = world.browser(), [world.thread() for _ in range(3)]
    with world.container.database.transaction() as session:
        labels.add(session, ids[0], name="money", agent_id=world.ids["admin"])
    done = client.post(
        "/inbox-bulk", data={"act": "label", "label": "Money", "id": ids}, headers={"accept": "text/html"}
    )
    assert done.status_code == 303
    page = client.get(done.headers["location"]).text
    assert "Label money on 3 threads" in page
    at = unescape(re.findall(r'name="at" value="([^"]+)"', page)[0])
    assert post(client, "/inbox-bulk", act="unlabel", label="money", at="x").status_code == 422
    assert post(client, "/inbox-bulk", act="unlabel", label="money", at=at).status_code == 303
    with world.container.database.reading() as session:
        found = labels.of_threads(session, ids)
    assert [len(found[one]) for one in ids] == [1, 0, 0]


def test_an_outgoing_message_says_what_became_of_it_and_opens_its_trail(world: World) -> None:
    thread_id, client = many(world), world.browser()
    fields = {"kind": "reply", "to": "ana@example.net", "cc": "dora@partner.example", "bcc": "", "text": "Hello"}
    post(client, f"/inbox/{thread_id}/reply", **fields, form_id="s1")
    page = unescape(client.get(f"/inbox/{thread_id}").text)
    assert "held for undo, leaves at" in page and "Undo send" in page and "to ana@example.net; cc dora@partner" in page
    message_id = sent(world, thread_id).id
    assert f'<details class="trail" id="trail-{message_id}"><summary class="status status-held">' in page
    states: list[tuple[dict[str, Any], str]] = [
        ({"status": Delivery.SENT, "sent_at": utcnow()}, f"sent {utcnow():%H}:"),
        (
            {"error_code": "partly-delivered", "error_detail": "dora@partner.example: mailbox full"},
            "; not to dora@partner.example: mailbox full",
        ),
        (
            {"receipt": "250 kept in the outbox folder as 1.eml", "error_code": "", "error_detail": ""},
            "not sent on: no relay is set",
        ),
        (
            {
                "receipt": "250 OK",
                "error_code": "partly-delivered",
                "error_detail": "dora@partner.example: mailbox full",
            },
            f"sent {utcnow():%H}:",
        ),
        ({"status": Delivery.QUEUED, "release_at": utcnow()}, f"mailbox full, retry at {utcnow():%H}:"),
        ({"status": Delivery.HELD, "release_at": utcnow() + timedelta(days=3)}, "will be sent "),
    ]
    for values, said in states:
        with world.container.database.transaction() as session:
            message = session.get_one(Message, message_id)
            for name, value in values.items():
                setattr(message, name, value)
        assert said in unescape(client.get(f"/inbox/{thread_id}").text), said
    assert "Do not send" in client.get(f"/inbox/{thread_id}?view=outbox").text


def test_a_delivered_message_says_when_and_where_and_nothing_that_went_wrong(world: World) -> None:
    thread_id, client = many(world), world.browser()
    post(
        client,
        f"/inbox/{thread_id}/reply",
        kind="reply",
        to="ana@example.net",
        cc="",
        bcc="",
        text="Hello",
        form_id="d",
    )
    ours = sent(world, thread_id)
    yesterday = utcnow() - timedelta(days=1)
    with world.container.database.transaction() as session:
        row = session.get_one(Message, ours.id)
        row.status, row.sent_at, row.release_at = Delivery.DEFERRED, yesterday, None
        row.error_code, row.error_detail = "mailbox-full", "4.2.2 mailbox full"
    page = unescape(client.get(f"/inbox/{thread_id}").text)
    assert "delayed by the other side: 4.2.2 mailbox full" in page
    at = utcnow() - timedelta(days=1, hours=-2)
    with world.container.database.transaction() as session:
        report = DeliveryEvent(
            event_id="dsn:1",
            kind=EventKind.DELIVERED,
            external_id=ours.external_id,
            occurred_at=at,
            detail="2.0.0 250 OK",
        )
        assert attempts.apply_event(session, report)
    page = unescape(client.get(f"/inbox/{thread_id}").text)
    day = "" if at.date() == utcnow().date() else f"{at:%d %b} "
    assert f"delivered {day}{at:%H:%M} to example.net</summary>" in page
    assert "2.0.0 250 OK" in page and "not to 2.0.0" not in page and "mailbox full" not in page
