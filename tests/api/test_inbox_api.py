"""What agents add to threads, by programs: notes, labels, files, saved replies, merges. Who may is in test_matrix.py."""

from __future__ import annotations

import threading
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from assistant.backends.blobs import key_of
from assistant.clock import new_id
from assistant.db.inbox import Label, Note, Upload
from assistant.db.messages import Attachment, Message
from assistant.services import uploads
from assistant.states import Direction
from tests.api.conftest import BOTH, World

ENGINES = BOTH


def at(world: World, rest: str = "", thread: str = "") -> str:
    return f"/api/v1/threads/{thread or world.ids['thread']}{rest}"


def upload(client: httpx.Client, content: bytes = b"hello", name: str = "a.txt", **headers: str) -> httpx.Response:
    return client.post("/api/v1/uploads", files={"file": (name, content, "text/plain")}, headers=headers)


def count(world: World, table: Any) -> int:
    with world.container.database.reading() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def pages(client: httpx.Client, path: str, limit: int) -> list[dict[str, Any]]:
    """Every item of a list, page by page; no page is longer than it was asked to be."""
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        answer = client.get(path, params={"limit": limit, "cursor": cursor})
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["items"]) <= limit
        found += answer.json()["items"]
        cursor = answer.json()["next_cursor"]
        if cursor is None:
            return found


def test_notes_are_written_listed_by_page_and_taken_away_by_who_wrote_them(world: World) -> None:
    admin, agent = world.program(), world.program(agent="agent")
    texts = [f"note {number}" for number in range(5)]
    made = [admin.post(at(world, "/notes"), json={"text": one}) for one in texts]
    assert {one.status_code for one in made} == {201}
    assert [one["text"] for one in pages(agent, at(world, "/notes"), 2)] == texts
    note = made[0].json()["id"]
    assert agent.delete(f"/api/v1/notes/{note}").status_code == 404
    assert admin.delete(f"/api/v1/notes/{note}").status_code == 204
    assert admin.delete(f"/api/v1/notes/{note}").status_code == 404
    assert [one["text"] for one in pages(agent, at(world, "/notes"), 50)] == texts[1:]
    blank = admin.post(at(world, "/notes"), json={"text": "  "})
    assert (blank.status_code, blank.json()["code"]) == (422, "invalid-input")


def test_labels_are_put_found_counted_and_taken_off(world: World) -> None:
    client, other = world.program(), world.thread()
    put = client.post(at(world, "/labels"), json={"name": "Needs  Refund"})
    assert (put.status_code, put.json()["name"]) == (201, "needs-refund")
    assert client.post(at(world, "/labels"), json={"name": "needs-refund"}).json() == put.json()
    client.post(at(world, "/labels", other), json={"name": "needs refund"})
    client.post(at(world, "/labels", other), json={"name": "vip"})
    assert [one["name"] for one in client.get(at(world, "/labels", other)).json()] == ["needs-refund", "vip"]
    counted = {one["name"]: one["threads"] for one in pages(client, "/api/v1/labels", 1)}
    assert counted == {"needs-refund": 2, "vip": 1}
    found = client.get("/api/v1/threads", params={"label": "vip"}).json()["items"]
    assert [one["id"] for one in found] == [other]
    label = put.json()["id"]
    assert client.delete(at(world, f"/labels/{label}")).status_code == 204
    assert client.delete(at(world, f"/labels/{label}")).status_code == 404
    assert client.delete(at(world, f"/labels/{label}", other)).status_code == 204
    assert count(world, Label) == 1
    assert client.post(at(world, "/labels"), json={"name": "!?"}).status_code == 422


def test_a_file_is_uploaded_sent_once_and_waits_no_more(world: World) -> None:
    client = world.program()
    first, second = upload(client, b"%PDF-1.4 x", "bill.pdf"), upload(client, b"two", "../b\r\n.txt")
    assert first.status_code == second.status_code == 201, first.text
    assert first.json()["content_type"] == "application/pdf"
    assert "/" not in second.json()["filename"] and "\r" not in second.json()["filename"]
    ids = [first.json()["id"], second.json()["id"]]
    assert [one["id"] for one in pages(client, "/api/v1/uploads", 1)] == ids
    sent = client.post(at(world, "/messages"), json={"text": "Here it is.", "upload_ids": ids[:1]})
    assert sent.status_code == 201, sent.text
    assert [one["filename"] for one in sent.json()["attachments"]] == ["bill.pdf"]
    assert client.get(sent.json()["attachments"][0]["url"]).content == b"%PDF-1.4 x"
    again = client.post(at(world, "/messages"), json={"text": "And again.", "upload_ids": ids[:1]})
    assert (again.status_code, again.json()["code"]) == (404, "not-found")
    assert client.delete(f"/api/v1/uploads/{ids[1]}").status_code == 204
    assert pages(client, "/api/v1/uploads", 50) == []


def test_nobody_sends_deletes_or_sees_a_file_of_another_agent(world: World) -> None:
    admin, agent = world.program(), world.program(agent="agent")
    one = upload(admin).json()["id"]
    assert pages(agent, "/api/v1/uploads", 50) == []
    assert agent.delete(f"/api/v1/uploads/{one}").status_code == 404
    refused = agent.post(at(world, "/messages"), json={"text": "x", "upload_ids": [one]})
    absent = agent.post(at(world, "/messages"), json={"text": "x", "upload_ids": [new_id()]})
    assert (refused.status_code, refused.json()["detail"]) == (404, absent.json()["detail"])
    assert admin.post(at(world, "/messages"), json={"text": "x", "upload_ids": [one]}).status_code == 201


def test_a_file_that_is_too_large_or_none_is_refused_and_nothing_is_kept(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = world.program()
    monkeypatch.setattr(uploads, "LARGEST", 1000)
    monkeypatch.setattr(uploads, "WAITING", 2)
    assert upload(client, b"x" * 1001).status_code == 413
    assert client.post("/api/v1/uploads", files={"other": b"x"}).status_code == 422
    assert client.post("/api/v1/uploads", data={"file": "x"}).status_code in {400, 415}
    assert client.post("/api/v1/uploads", json={"file": "x"}).status_code == 415
    two = [("file", ("a", b"a")), ("file", ("b", b"b"))]
    assert client.post("/api/v1/uploads", files=two).status_code == 400
    torn = client.post(
        "/api/v1/uploads", content=b"--b\r\nnonsense", headers={"content-type": "multipart/form-data; boundary=b"}
    )
    assert torn.status_code in {400, 422}
    assert count(world, Upload) == 0
    ids = [upload(client, b"x" * 600, f"{number}").json()["id"] for number in range(2)]
    assert upload(client, b"x", "third").status_code == 413
    much = client.post(at(world, "/messages"), json={"text": "x", "upload_ids": ids})
    assert much.status_code == 413 and count(world, Upload) == 2


def test_two_messages_that_name_one_file_at_once_get_it_once(world: World) -> None:
    client, one = world.program(), upload(world.program()).json()["id"]
    start, codes = threading.Barrier(2), list[int]()

    def send() -> None:
        start.wait()
        codes.append(client.post(at(world, "/messages"), json={"text": "x", "upload_ids": [one]}).status_code)

    both = [threading.Thread(target=send) for _ in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join()
    assert sorted(codes) == [201, 404]
    assert count(world, Upload) == 0
    with world.container.database.reading() as session:
        assert (
            session.scalar(select(func.count(Attachment.id)).where(Attachment.blob_key == key_of("parts", b"hello")))
            == 1
        )


def test_saved_replies_are_written_changed_under_their_tag_and_deleted(world: World) -> None:
    client = world.program()
    made = client.post("/api/v1/saved-replies", json={"name": "Thanks", "text": "Hello {first_name}, thank you."})
    assert made.status_code == 201, made.text
    url = made.headers["location"]
    read = client.get(url)
    assert read.json() == made.json() and read.headers["etag"] == made.headers["etag"]
    change = {"name": "Thanks", "text": "Many thanks."}
    assert client.put(url, json=change).status_code == 422, "a change says which words it read"
    done = client.put(url, json=change, headers={"if-match": read.headers["etag"]})
    assert (done.status_code, done.json()["text"]) == (200, "Many thanks.")
    late = client.put(url, json={"name": "Mine", "text": "x"}, headers={"if-match": read.headers["etag"]})
    assert (late.status_code, late.json()["code"]) == (412, "precondition-failed")
    assert client.delete(url, headers={"if-match": read.headers["etag"]}).status_code == 412
    taken = client.post("/api/v1/saved-replies", json={"name": "Thanks", "text": "x"})
    assert (taken.status_code, taken.json()["code"]) == (409, "conflict")
    hole = client.post("/api/v1/saved-replies", json={"name": "Hole", "text": "{config}"})
    assert hole.status_code == 422
    names = ["Thanks", "b", "c"]
    for name in names[1:]:
        client.post("/api/v1/saved-replies", json={"name": name, "text": "x"})
    assert [one["name"] for one in pages(client, "/api/v1/saved-replies", 2)] == names
    assert client.delete(url, headers={"if-match": done.headers["etag"]}).status_code == 204
    assert client.get(url).status_code == 404
    trail = world.browser().get("/settings/audit?area=reply").text
    assert "reply.written" in trail and "reply.changed" in trail and "reply.removed" in trail


def test_two_who_change_one_saved_reply_at_once_one_wins(world: World) -> None:
    clients = [world.program(), world.program(agent="agent")]
    made = clients[0].post("/api/v1/saved-replies", json={"name": "One", "text": "first"})
    start, codes = threading.Barrier(2), list[int]()

    def change(client: httpx.Client, text: str) -> None:
        start.wait()
        headers = {"if-match": made.headers["etag"]}
        codes.append(
            client.put(made.headers["location"], json={"name": "One", "text": text}, headers=headers).status_code
        )

    both = [threading.Thread(target=change, args=(client, f"by {n}")) for n, client in enumerate(clients)]
    for each in both:
        each.start()
    for each in both:
        each.join()
    assert sorted(codes) == [200, 412]


def merged(world: World, client: httpx.Client) -> tuple[str, str, str]:
    """A thread that was merged into another: its id, the other's, the merge's."""
    first, second = world.ids["thread"], world.thread(subject="Again: refund?")
    done = client.post(at(world, "/merge", second), json={"into_id": first, "reason": "the same order"})
    assert done.status_code == 201, done.text
    return second, first, done.json()["id"]


def test_the_id_of_a_merged_thread_leads_to_where_it_is_with_method_and_body(world: World) -> None:
    client = world.program()
    old, now, _ = merged(world, client)
    moved = client.get(at(world, "/messages?limit=7", old))
    assert moved.status_code == 308
    assert moved.headers["location"] == at(world, "/messages?limit=7", now)
    assert (moved.json()["code"], moved.json()["thread_id"]) == ("thread-merged", now)
    assert moved.headers["cache-control"] == "no-store"
    with httpx.Client(base_url=world.url, headers=client.headers, follow_redirects=True, trust_env=False) as follows:
        assert follows.get(at(world, "", old)).json()["id"] == now
        assert follows.patch(at(world, "", old), json={"starred": True}).json()["thread"]["id"] == now
        sent = follows.post(at(world, "/messages", old), json={"text": "On its way."}, headers={"idempotency-key": "k"})
        assert sent.status_code == 201 and sent.json()["thread_id"] == now
        again = follows.post(
            at(world, "/messages", old), json={"text": "On its way."}, headers={"idempotency-key": "k"}
        )
        assert again.content == sent.content
    waiting = upload(client).json()["id"]
    refused = client.post(at(world, "/messages", old), json={"text": "x", "upload_ids": [waiting]})
    assert refused.status_code == 308
    assert [one["id"] for one in pages(client, "/api/v1/uploads", 50)] == [waiting], "what it had begun was taken back"
    with world.container.database.reading() as session:
        ours = select(func.count(Message.id)).where(Message.direction == Direction.OUTBOUND)
        assert session.scalar(ours) == 1


def test_where_a_merged_thread_went_is_told_only_to_who_may_read_it(world: World) -> None:
    old, _, _ = merged(world, world.program())
    assert world.client().get(at(world, "", old)).status_code == 401
    assert world.program("contacts:read").get(at(world, "", old)).status_code == 403
    assert world.program("threads:read").get(at(world, "", new_id())).status_code == 404


def test_a_merge_and_a_split_are_taken_back_once(world: World) -> None:
    client = world.program()
    old, now, move = merged(world, client)
    second = [one["id"] for one in pages(client, at(world, "/messages", now), 50)][-1]
    split = client.post(f"/api/v1/messages/{second}/split", json={"reason": "another matter"})
    assert split.status_code == 201 and split.json()["from_id"] == now
    fresh = split.json()["into_id"]
    assert client.post(f"/api/v1/messages/{second}/split", json={"reason": "again"}).status_code == 409
    assert client.post(f"/api/v1/moves/{split.json()['id']}/undo").status_code == 200
    assert client.get(at(world, "", fresh)).headers["location"] == at(world, "", now)
    assert client.post(f"/api/v1/moves/{move}/undo").status_code == 200
    assert client.post(f"/api/v1/moves/{move}/undo").status_code == 409
    assert client.get(at(world, "", old)).json()["id"] == old, "its address is its own again"


def test_what_cannot_be_merged_is_refused(world: World) -> None:
    client, thread = world.program(), world.ids["thread"]
    itself = client.post(at(world, "/merge"), json={"into_id": thread, "reason": "x"})
    assert itself.status_code == 422
    assert client.post(at(world, "/merge"), json={"into_id": new_id(), "reason": "x"}).status_code == 404
    assert client.post(at(world, "/merge", new_id()), json={"into_id": thread, "reason": "x"}).status_code == 404
    other = world.thread()
    assert client.post(at(world, "/merge"), json={"into_id": other, "reason": " "}).status_code == 422


POSTS: dict[str, dict[str, Any]] = {
    "/api/v1/threads/{thread}/notes": {"json": {"text": "call her"}},
    "/api/v1/threads/{thread}/labels": {"json": {"name": "vip"}},
    "/api/v1/uploads": {"files": {"file": ("a.txt", b"hello", "text/plain")}},
    "/api/v1/saved-replies": {"json": {"name": "Thanks", "text": "Thank you."}},
    "/api/v1/threads/{other}/merge": {"json": {"into_id": "{thread}", "reason": "the same order"}},
}


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.checklist(25)
def test_a_repeated_post_does_one_thing_and_gets_the_same_bytes(world: World, path: str) -> None:
    client, names = world.program(), {"thread": world.ids["thread"], "other": world.thread()}
    options = {**POSTS[path], "headers": {"idempotency-key": "k"}}
    if "into_id" in options.get("json", {}):
        options["json"] = options["json"] | {"into_id": names["thread"]}
    first, second = (client.post(path.format(**names), **options) for _ in range(2))
    assert (first.status_code, first.content) == (201, second.content), first.text + second.text
    assert second.headers["idempotency-replayed"] == "true"
    other = (
        {"files": {"file": ("b.txt", b"else")}} if "files" in options else {"json": {"name": "else", "text": "else"}}
    )
    if "files" in options or path.endswith("replies"):
        assert client.post(path.format(**names), **other, headers=options["headers"]).status_code == 422
    assert count(world, Note) <= 1 and count(world, Upload) <= 1
