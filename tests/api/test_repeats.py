"""Idempotency-Key: the same request twice does one thing and gets one answer, whatever happens in between."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import httpx
import pytest
from sqlalchemy import func, select, update

from assistant.clock import utcnow
from assistant.db.access import ApiKey, IdempotentAnswer
from assistant.db.messages import Message
from assistant.services import access, answers
from assistant.states import Direction
from tests.api.conftest import BOTH, World

ENGINES = BOTH

REPLY = {"text": "Hello Ana, it is on its way."}


def sent(world: World, thread_id: str) -> int:
    with world.container.database.reading() as session:
        count = session.scalar(
            select(func.count()).where(Message.thread_id == thread_id, Message.direction == Direction.OUTBOUND)
        )
    return count or 0


def send(client: httpx.Client, thread_id: str, key: str, text: str = REPLY["text"]) -> httpx.Response:
    return client.post(f"/api/v1/threads/{thread_id}/messages", json={"text": text}, headers={"idempotency-key": key})


@pytest.mark.checklist(25)
def test_the_same_key_and_body_get_the_same_bytes_and_one_message(world: World) -> None:
    client, thread = world.browser(), world.thread()
    first, second = send(client, thread, "k-1"), send(client, thread, "k-1")
    assert first.status_code == second.status_code == 201
    assert first.content == second.content and first.headers["location"] == second.headers["location"]
    assert second.headers["idempotency-replayed"] == "true"
    assert sent(world, thread) == 1


@pytest.mark.checklist(25)
def test_the_same_key_with_another_body_is_refused(world: World) -> None:
    client, thread = world.browser(), world.thread()
    send(client, thread, "k-1")
    other = send(client, thread, "k-1", "something else")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")
    assert sent(world, thread) == 1


def test_keys_belong_to_a_caller_and_a_route(world: World) -> None:
    one, two = world.thread(), world.thread()
    admin, agent = world.browser(), world.browser("agent@example.org")
    codes = [send(c, t, "k").status_code for c in (admin, agent) for t in (one, two)]
    assert codes == [201] * 4
    assert (sent(world, one), sent(world, two)) == (2, 2)


def test_of_twins_at_once_one_acts_and_the_others_are_told_to_wait(world: World) -> None:
    client, thread = world.program("messages:send"), world.thread()
    gate = threading.Barrier(12)

    def one(_: int) -> httpx.Response:
        with httpx.Client(base_url=world.url, headers=client.headers, trust_env=False, timeout=30) as mine:
            gate.wait()
            return send(mine, thread, "twin")

    for _ in range(3):
        with ThreadPoolExecutor(12) as pool:
            found = list(pool.map(one, range(12)))
        codes = {answer.status_code for answer in found}
        assert codes <= {201, 409} and 201 in codes, codes
        assert all(answer.json()["code"] == "idempotency-key-in-use" for answer in found if answer.status_code == 409)
        assert len({answer.content for answer in found if answer.status_code == 201}) == 1
    assert sent(world, thread) == 1


@pytest.mark.checklist(25)
def test_a_twin_of_a_running_request_gets_409(world: World) -> None:
    client, thread = world.program("messages:send"), world.thread()
    with world.container.database.transaction() as session:
        key = session.scalars(select(ApiKey).order_by(ApiKey.id.desc())).first()
        assert key is not None
        scope = f"{key.id} POST /api/v1/threads/{thread}/messages"
    first = send(client, thread, "k")
    with world.container.database.transaction() as session:
        row = session.scalars(select(IdempotentAnswer).where(IdempotentAnswer.scope == scope)).one()
        row.status = 0
    again = send(client, thread, "k")
    assert (first.status_code, again.status_code) == (201, 409)
    assert again.json()["code"] == "idempotency-key-in-use" and again.headers["retry-after"] == "1"


@pytest.mark.checklist(25)
def test_a_failed_validation_stores_nothing(world: World) -> None:
    client, thread = world.browser(), world.thread()
    wrong = client.post(f"/api/v1/threads/{thread}/messages", json={"texxt": "x"}, headers={"idempotency-key": "k"})
    assert wrong.status_code == 422
    missing = send(client, "019a0000-0000-7000-8000-000000000000", "k")
    assert missing.status_code == 404
    with world.container.database.reading() as session:
        assert session.scalar(select(func.count(IdempotentAnswer.id))) == 0
    assert send(client, thread, "k").status_code == 201


def test_a_server_error_stores_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from assistant.services import outbox

    client, thread = world.browser(), world.thread()

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("broken")

    with monkeypatch.context() as patch:
        patch.setattr(outbox, "queue_message", broken)
        assert send(client, thread, "k").status_code == 500
    assert send(client, thread, "k").status_code == 201


def test_a_request_that_died_is_taken_over_after_its_lease(world: World) -> None:
    client, thread = world.browser(), world.thread()
    first = send(client, thread, "k")
    with world.container.database.transaction() as session:
        # As a process leaves it that was killed between the reservation and the commit: nothing was sent.
        session.execute(
            update(IdempotentAnswer).values(status=0, created_at=utcnow() - answers.LEASE - timedelta(seconds=1))
        )
        session.query(Message).filter_by(id=first.json()["id"]).update({"idempotency_key": None})
    assert send(client, thread, "k").status_code == 201


def test_a_slow_request_whose_place_was_taken_is_rolled_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from assistant.services import outbox

    client, thread = world.browser(), world.thread()
    queue = outbox.queue_message

    def slow(session, **values):  # type: ignore[no-untyped-def]
        session.execute(update(IdempotentAnswer).values(id="taken-over"))
        return queue(session, **values)

    monkeypatch.setattr(outbox, "queue_message", slow)
    answer = send(client, thread, "k")
    assert (answer.status_code, answer.json()["code"]) == (409, "idempotency-key-in-use")
    assert sent(world, thread) == 0


@pytest.mark.checklist(25)
def test_answers_are_kept_for_more_than_a_day_and_then_purged(world: World) -> None:
    assert timedelta(hours=24) <= answers.KEEP
    client, thread = world.browser(), world.thread()
    send(client, thread, "k")
    with world.container.database.transaction() as session:
        (kept_until,) = session.scalars(select(IdempotentAnswer.expires_at))
        assert kept_until >= utcnow() + timedelta(hours=24)
        assert answers.purge(session) == 0
        session.execute(update(IdempotentAnswer).values(expires_at=utcnow() - timedelta(seconds=1)))
        assert answers.purge(session) == 1


def test_a_secret_shown_once_is_replayed_but_never_stored_in_the_open(world: World) -> None:
    client = world.browser()
    body = {"name": "k", "scopes": ["threads:read"]}
    one, two = (client.post("/api/v1/keys", json=body, headers={"idempotency-key": "k"}) for _ in range(2))
    assert one.content == two.content
    with world.container.database.reading() as session:
        stored = session.scalars(select(IdempotentAnswer.body)).one()
    secret = one.json()["secret"]
    assert secret not in stored and secret.encode().hex() not in stored


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "a\tq"])
def test_a_malformed_key_is_refused(world: World, key: str) -> None:
    client, thread = world.browser(), world.thread()
    answer = send(client, thread, key)
    assert answer.status_code == 422 and sent(world, thread) == 0


def test_a_replay_needs_the_right_to_call(world: World) -> None:
    client, thread = world.program("messages:send"), world.thread()
    send(client, thread, "k")
    with world.container.database.transaction() as session:
        for key in access.api_keys(session):
            access.revoke_key(session, key.id, actor="test")
    assert send(client, thread, "k").status_code == 401
