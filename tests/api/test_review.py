"""Reading and reviewing through the API: lists, cursors, changes with undo, suggestions, replies, attachments."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from assistant.clock import utcnow
from assistant.db.messages import Message
from assistant.services import threads
from assistant.states import Direction
from tests.api.conftest import BOTH, World

ENGINES = BOTH


def accept(client, suggestion: str, version: int = 1, **body):  # type: ignore[no-untyped-def]
    return client.post(f"/api/v1/suggestions/{suggestion}/accept", json=body, headers={"if-match": f'"{version}"'})


@pytest.mark.checklist(26)
def test_the_list_takes_one_query_however_many_threads_there_are(
    world: World, statements: Callable[[], list[str]]
) -> None:
    client = world.browser()
    client.get("/api/v1/threads")
    seen = []
    for extra in (0, 20):
        for _ in range(extra):
            world.thread(assignee_id=world.ids["agent"])
        statements()
        assert client.get("/api/v1/threads?limit=100").status_code == 200
        seen.append(statements())
    assert [len(found) for found in seen] == [2, 2], seen  # who is calling, and the list
    assert all(statement.startswith("SELECT") for found in seen for statement in found)
    client.get("/api/v1/counts")
    assert len(statements()) == 3  # who is calling, the threads by state, the outbox


@pytest.mark.parametrize("sort", sorted(threads.SORTS))
def test_pages_neither_repeat_nor_miss_a_thread_while_mail_arrives(world: World, sort: str) -> None:
    client = world.browser()
    base = utcnow()
    there = {world.ids["thread"]} | {
        world.thread(
            last_message_at=base - timedelta(minutes=number // 3),
            certainty=None if number % 3 else number / 30,
            urgency=("", "high", "low")[number % 3],
            last_inbound_at=None if number % 5 == 0 else base - timedelta(hours=number),
        )
        for number in range(23)
    }
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = client.get("/api/v1/threads", params={"limit": 5, "sort": sort} | ({"cursor": cursor} if cursor else {}))
        assert page.status_code == 200, page.text
        seen += [item["id"] for item in page.json()["items"]]
        cursor = page.json()["next_cursor"]
        world.thread(certainty=0.0, urgency="urgent", last_inbound_at=base - timedelta(days=9))
    assert len(seen) == len(set(seen)) and there <= set(seen)


@pytest.mark.checklist(23)
def test_a_cursor_of_another_list_or_a_made_up_one_is_refused(world: World) -> None:
    client = world.browser()
    for _ in range(3):
        world.thread()
    cursor = client.get("/api/v1/threads?limit=1").json()["next_cursor"]
    for query in (
        {"sort": "least-certain", "cursor": cursor},
        {"cursor": "e30"},
        {"cursor": "W10"},
        {"cursor": "!!!"},
        {"cursor": "WyJuZXdlc3QiLCAiMjAyNiIsIDFd"},
    ):
        answer = client.get("/api/v1/threads", params=query)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid-cursor"), query


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=x", "view=secrets", "sort=password_hash", "sort=id;--"]
)
@pytest.mark.checklist(23, 26)
def test_bounds_views_and_sorts_are_fixed_lists(world: World, query: str) -> None:
    assert world.browser().get(f"/api/v1/threads?{query}").status_code == 422


@pytest.mark.checklist(24)
def test_search_takes_percent_and_underscore_as_they_stand(world: World) -> None:
    client = world.browser()
    wanted = world.thread(subject="100% off_now")
    world.thread(subject="1000 offXnow")
    for q, found in (
        ("100%", 1),
        ("off_now", 1),
        ("%", 1),
        ("_", 1),
        ("100% OFF_NOW", 1),
        ("\\", 0),
        ("ana@example.net", 3),
    ):
        items = client.get("/api/v1/threads", params={"q": q}).json()["items"]
        assert len(items) == found, q
        assert found != 1 or items[0]["id"] == wanted


def test_counts_agree_with_the_lists(world: World) -> None:
    client = world.browser()
    for state in ("spam", "closed", "trash", "pending"):
        world.thread(state=state)
    world.thread(needs_review=True, has_outbound=True, unread=False)
    counts = client.get("/api/v1/counts").json()
    for view, count in counts.items():
        assert len(client.get("/api/v1/threads", params={"view": view, "limit": 100}).json()["items"]) == count, view


def test_a_change_can_be_taken_back_with_what_it_answers(world: World) -> None:
    client, thread = world.browser(), world.thread()
    before = client.get(f"/api/v1/threads/{thread}").json()
    for change in (
        {"state": "closed"},
        {"state": "spam"},
        {"assignee_id": world.ids["agent"], "starred": True},
        {"unread": False},
        {"state": "snoozed", "snoozed_until": (utcnow() + timedelta(days=1)).isoformat()},
    ):
        done = client.patch(f"/api/v1/threads/{thread}", json=change)
        assert done.status_code == 200, done.text
        undone = client.patch(f"/api/v1/threads/{thread}", json=done.json()["undo"])
        assert undone.status_code == 200, undone.text
        after = undone.json()["thread"]
        assert {k: v for k, v in after.items() if k != "version"} == {k: v for k, v in before.items() if k != "version"}


def test_a_change_on_what_somebody_else_changed_is_412(world: World) -> None:
    client, thread = world.browser(), world.thread()
    etag = client.get(f"/api/v1/threads/{thread}").headers["etag"]
    assert (
        client.patch(f"/api/v1/threads/{thread}", json={"starred": True}, headers={"if-match": etag}).status_code == 200
    )
    late = client.patch(f"/api/v1/threads/{thread}", json={"state": "closed"}, headers={"if-match": etag})
    assert (late.status_code, late.json()["version"]) == (412, 2)


def test_of_two_agents_who_accept_one_is_told_who_was_faster_and_one_mail_goes(world: World) -> None:
    callers = [world.browser(), world.browser("agent@example.org")]
    for _ in range(8):
        suggestion, thread = world.suggestion()
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(lambda client, s=suggestion: accept(client, s), callers))
        won, lost = sorted(found, key=lambda answer: answer.status_code)
        assert (won.status_code, lost.status_code) == (201, 409), lost.text
        assert lost.json()["agent"] in {"Admin", "Agent"}
        with world.container.database.reading() as session:
            assert session.query(Message).filter_by(thread_id=thread, direction=Direction.OUTBOUND).count() == 1


def test_a_suggestion_that_changed_since_it_was_read_is_412(world: World) -> None:
    client = world.browser()
    suggestion, _ = world.suggestion(version=3)
    answer = client.get(f"/api/v1/suggestions/{suggestion}")
    assert answer.headers["etag"] == '"3"'
    assert accept(client, suggestion, 2).status_code == 412
    assert accept(client, suggestion, 3).status_code == 201


def test_accepting_needs_if_match(world: World) -> None:
    suggestion, _ = world.suggestion()
    assert world.browser().post(f"/api/v1/suggestions/{suggestion}/accept", json={}).status_code == 422


def test_an_edited_suggestion_keeps_both_texts(world: World) -> None:
    client = world.browser()
    suggestion, _ = world.suggestion()
    sent = accept(client, suggestion, text="Hello Ana, it was sent yesterday.")
    assert sent.json()["text"].startswith("Hello Ana, it was sent yesterday.")
    kept = client.get(f"/api/v1/suggestions/{suggestion}").json()
    assert kept["state"] == "edited" and 0 < kept["edit_share"] < 1
    assert kept["final_text"] != kept["text"]


def test_a_rejected_suggestion_can_be_brought_back(world: World) -> None:
    client = world.browser()
    suggestion, _ = world.suggestion()
    rejected = client.post(
        f"/api/v1/suggestions/{suggestion}/reject", json={"reason": "wrong tone"}, headers={"if-match": '"1"'}
    )
    assert (rejected.status_code, rejected.json()["state"]) == (200, "rejected")
    assert client.post(f"/api/v1/suggestions/{suggestion}/restore").json()["state"] == "proposed"


def test_a_held_message_is_taken_back_once_and_never_after_it_left(world: World) -> None:
    client, thread = world.browser(), world.thread()
    held = client.post(f"/api/v1/threads/{thread}/messages", json={"text": "hello", "hold_seconds": 60}).json()
    assert held["status"] == "held" and held["release_at"]
    assert client.post(f"/api/v1/messages/{held['id']}/cancel").json()["status"] == "cancelled"
    assert client.post(f"/api/v1/messages/{held['id']}/cancel").status_code == 409
    assert client.post(f"/api/v1/messages/{held['id']}/send-now").status_code == 409
    other = client.post(f"/api/v1/threads/{thread}/messages", json={"text": "hello", "hold_seconds": 60}).json()
    assert client.post(f"/api/v1/messages/{other['id']}/send-now").json()["status"] == "queued"
    assert client.get("/api/v1/threads?view=outbox").json()["items"][0]["id"] == thread


def test_messages_come_old_to_new_with_attachments_and_events(
    world: World, statements: Callable[[], list[str]]
) -> None:
    client = world.browser()
    thread = world.ids["thread"]
    client.post(f"/api/v1/threads/{thread}/messages", json={"text": "hello"})
    statements()
    listing = client.get(f"/api/v1/threads/{thread}/messages").json()["items"]
    assert len(statements()) <= 5
    assert [item["direction"] for item in listing] == ["inbound", "outbound"]
    assert listing[0]["attachments"][0]["filename"] == "note.html"
    assert listing[1]["events"]
    first = client.get(f"/api/v1/threads/{thread}/messages?limit=1").json()
    second = client.get(f"/api/v1/threads/{thread}/messages?limit=1&cursor={first['next_cursor']}").json()
    assert [first["items"][0]["id"], second["items"][0]["id"]] == [item["id"] for item in listing]


@pytest.mark.checklist(44)
def test_an_attachment_is_only_ever_a_download(world: World) -> None:
    answer = world.browser().get(f"/api/v1/attachments/{world.ids['attachment']}")
    assert answer.status_code == 200 and answer.content.startswith(b"<script>")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment;")
    assert "sandbox" in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\Windows\\x.exe", "x.exe"),
        ('a"b\r\nSet-Cookie: x=1.txt', "a_bSet-Cookie_ x_1.txt"),
        ("invoice\u202efdp.exe", "invoicefdp.exe"),
        ("..", "attachment"),
        ("", "attachment"),
        ("\0", "attachment"),
        ("x" * 500, "x" * 150),
    ],
)
@pytest.mark.checklist(57)
def test_no_filename_leaves_its_place(name: str, shown: str) -> None:
    from api.routers.attachments import disposition

    header = disposition(name)
    assert header.startswith(f'attachment; filename="{shown}"; ')
    assert header.isascii() and header.isprintable()


def test_a_suppressed_contact_is_refused_with_words(world: World) -> None:
    from assistant.db.contacts import Suppression

    with world.container.database.transaction() as session:
        session.add(Suppression(channel="email", address="ana@example.net", cause="opt-out"))
    answer = world.browser().post(f"/api/v1/threads/{world.thread()}/messages", json={"text": "hello"})
    assert (answer.status_code, answer.json()["code"]) == (403, "not-allowed") and len(answer.json()["detail"]) > 10
