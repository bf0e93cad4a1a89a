"""What the databases see: bound parameters, an agent's own things by agent, no DDL; and Redis, which may be emptied at any time."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import event, insert, text
from sqlalchemy.orm import Session

from api.schemas import BaseModel
from assistant.backends.coordination import RULES
from assistant.clock import new_id, utcnow
from assistant.db.contacts import Contact, Identity
from assistant.db.messages import Thread
from assistant.db.session import Database
from assistant.services import access
from assistant.services.overview import counts
from assistant.services.threads import SORTS, VIEWS, Filters, list_threads
from assistant.settings import Settings
from tests.api.conftest import BOTH, PASSWORD, World
from tests.api.test_matrix import BODIES, ROUTES, call
from tests.support.servers import PostgresServer

ENGINES = BOTH
CANARY = "canary7f3a9c"
OWN = {"draft_texts", "new_drafts", "uploads"}
"""Tables of what belongs to one agent only."""


@pytest.fixture
def seen(world: World) -> Iterator[list[tuple[str, str]]]:
    """Every statement with its parameters, as text."""
    found: list[tuple[str, str]] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        found.append((statement, str(parameters)))

    event.listen(world.container.database.engine, "before_cursor_execute", note)
    yield found
    event.remove(world.container.database.engine, "before_cursor_execute", note)


def _walk(world: World, browser: Any) -> None:
    """Every operation of the API and every page, with words that would be seen again."""
    for operation in ROUTES:
        if operation.endswith(("/sign-out", "/disable", "/password", "DELETE /api/v1/keys/{key_id}")):
            continue
        world.clear_limits()
        call(browser, operation, world.ids)
    for query in (
        {"q": CANARY},
        {"search": CANARY},
        {"assignee": CANARY},
        {"intent": CANARY},
        {"view": CANARY},
        {"cursor": CANARY},
    ):
        browser.get("/api/v1/threads", params=query)
        browser.get("/inbox", params=query)
    browser.get("/api/v1/contacts", params={"search": CANARY})
    thread = world.ids["thread"]
    browser.post(f"/inbox/{thread}/draft", data={"text": CANARY, "kind": "reply"})
    browser.post(f"/inbox/{thread}/note", data={"text": CANARY})
    browser.post(f"/inbox/{thread}/labels", data={"name": CANARY})
    browser.get(f"/inbox/{thread}")
    browser.post("/compose/draft", data={"text": CANARY})
    browser.post(f"/api/v1/threads/{thread}/messages", json={"text": CANARY})


@pytest.mark.checklist(23, 59)
def test_no_words_of_a_caller_stand_in_a_statement(world: World, seen: list[tuple[str, str]]) -> None:
    _walk(world, world.browser())
    assert sum(CANARY in parameters for _, parameters in seen) >= 5, "the words did reach the database"
    assert [statement for statement, _ in seen if CANARY in statement] == []
    ids = re.compile(r"'[0-9a-f]{8}-[0-9a-f]{4}-7")
    assert [statement for statement, _ in seen if ids.search(statement)] == [], "an id is a parameter, too"


@pytest.mark.checklist(21, 59)
def test_what_belongs_to_an_agent_is_asked_for_by_agent(world: World, seen: list[tuple[str, str]]) -> None:
    _walk(world, world.browser())
    tables = {
        table for table in OWN if any(re.search(rf"\b(FROM|UPDATE|INTO) {table}\b", statement) for statement, _ in seen)
    }
    assert tables == OWN
    for statement, _ in seen:
        for table in OWN:
            if re.search(rf"\b(FROM|UPDATE) {table}\b", statement):
                where = statement.rpartition("WHERE")[2]
                assert "agent_id" in where or f"{table}.id" in where, statement


@pytest.mark.checklist(59)
def test_a_role_that_may_only_read_and_write_rows_is_enough(
    request: pytest.FixtureRequest, engine: str, world: World, seen: list[tuple[str, str]]
) -> None:
    _walk(world, world.browser())
    words = {statement.split(None, 1)[0].upper() for statement, _ in seen}
    assert words <= {
        "SELECT",
        "INSERT",
        "UPDATE",
        "DELETE",
        "WITH",
        "PRAGMA",
        "BEGIN",
        "SAVEPOINT",
        "RELEASE",
        "ROLLBACK",
        "SET",
        "SHOW",
    }, words
    if engine != "postgresql":
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    url = world.container.database.engine.url
    server.execute("DROP ROLE IF EXISTS rows_only")
    server.execute("CREATE ROLE rows_only LOGIN PASSWORD 'x' NOSUPERUSER NOCREATEDB NOCREATEROLE")
    with world.container.database.engine.begin() as connection:
        connection.execute(text("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO rows_only"))
        connection.execute(text("GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO rows_only"))
    limited = Database(url.set(username="rows_only", password="x").render_as_string(hide_password=False))
    try:
        with limited.transaction() as session:
            thread = list_threads(session, "all").items[0]
            session.get_one(Thread, thread.id).starred = True
        with pytest.raises(Exception, match=r"permission denied|must be owner"), limited.transaction() as session:
            session.execute(text("DROP TABLE messages"))
    finally:
        limited.close()
        with world.container.database.engine.begin() as connection:
            connection.execute(text("DROP OWNED BY rows_only"))
        server.execute("DROP ROLE rows_only")


# -- 22: every schema


def _schemas() -> list[type[BaseModel]]:
    from api import schemas, schemas_inbox

    used = [one for module in (schemas, schemas_inbox) for one in vars(module).values() if isinstance(one, type)]
    return [one for one in used if issubclass(one, BaseModel) and one is not BaseModel]


@pytest.mark.checklist(22)
def test_every_body_refuses_what_it_does_not_know(world: World) -> None:
    from api.openapi import document

    spec = document(world.app)
    contents = [
        operation["requestBody"]["content"]
        for item in spec["paths"].values()
        for operation in item.values()
        if "requestBody" in operation
    ]
    files = [one["multipart/form-data"]["schema"] for one in contents if "application/json" not in one]
    assert all(one["additionalProperties"] is False and set(one["properties"]) == {"file"} for one in files)
    bodies = {
        one["application/json"]["schema"]["$ref"].rpartition("/")[2] for one in contents if "application/json" in one
    }
    known = {one.__name__: one for one in _schemas()}
    server_owned = {
        "id",
        "sent_at",
        "created_at",
        "agent_id",
        "author",
        "status",
        "state_reason",
        "external_id",
        "token",
        "key",
        "password_hash",
    }
    assert len(bodies) >= 10
    for name in bodies:
        assert known[name].model_config.get("extra") == "forbid", name
        assert not server_owned - {"token"} & set(known[name].model_fields), name
        for nested in re.findall(r"#/components/schemas/(\w+)", str(spec["components"]["schemas"][name])):
            part = spec["components"]["schemas"][nested]
            assert part["type"] != "object" or part["additionalProperties"] is False, (name, nested)
    assert {operation for operation in ROUTES if operation in BODIES} == set(BODIES)


# -- 26: the worst allowed query

ROWS = int(os.environ.get("TEST_WORST_QUERY_ROWS", "20000"))
"""A release is tried with 1000000, where every query stays under a second."""


def _many(session: Session, profile_id: str, rows: int) -> None:
    now = utcnow()
    people = [new_id() for _ in range(max(1, rows // 20))]
    for start in range(0, len(people), 5000):
        part = people[start : start + 5000]
        session.execute(insert(Contact), [{"id": one, "display_name": f"Person {one[-6:]}"} for one in part])
        session.execute(
            insert(Identity),
            [
                {
                    "id": new_id(),
                    "contact_id": one,
                    "channel": "email",
                    "address": f"p{one}@example.net",
                    "display_name": "",
                }
                for one in part
            ],
        )
    urgencies = ("low", "normal", "high", "critical")
    for start in range(0, rows, 5000):
        session.execute(
            insert(Thread),
            [
                {
                    "id": new_id(), "profile_id": profile_id, "contact_id": people[n % len(people)], "channel": "email",
                    "subject": f"Order {n} is late", "snippet": f"Where is order {n}?", "message_count": 1,
                    "last_message_at": now - timedelta(seconds=n), "last_inbound_at": now - timedelta(seconds=n),
                    "last_direction": "inbound" if n % 3 else "outbound", "urgency": urgencies[n % 4], "certainty": (n % 100) / 100,
                    "unread": n % 5 == 0, "needs_review": n % 7 == 0,
                }
                for n in range(start, min(rows, start + 5000))
            ],
        )  # fmt: skip


def _spent(session: Session) -> Callable[[], float]:
    """Seconds of processor time of this thread and of the server's process behind the session."""
    if session.get_bind().dialect.name == "sqlite":
        return time.thread_time
    # A query that is shared out to other processes would hide what they spend.
    session.execute(text("SET LOCAL max_parallel_workers_per_gather = 0"))
    server = Path(f"/proc/{session.scalar(text('SELECT pg_backend_pid()'))}/schedstat")
    return lambda: time.thread_time() + int(server.read_text().split()[0]) / 1e9


@pytest.mark.timeout(1800)
@pytest.mark.checklist(26)
def test_the_worst_allowed_query_is_quick(world: World) -> None:
    """Every view in every order, its second page, a search without a match, the counts. One second at a million rows,
    and its share (at least a fifth of a second) at fewer: of processor time, ours and the database server's, because a
    machine that is shared makes any query slow.
    """
    database = world.container.database
    with database.transaction() as session:
        _many(session, world.ids["profile"], ROWS)
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))
    took: dict[str, float] = {}
    bound = max(0.2, ROWS / 1_000_000)

    def timed(name: str, ask: Callable[[Session], Any]) -> Any:
        best, answer = 9.0, None
        for tries in range(8):  # other work on the machine makes a try dear, never cheap
            if tries >= 2 and best <= bound:
                break
            with database.reading() as session:
                spent = _spent(session)
                began = spent()
                answer = ask(session)
                best = min(best, spent() - began)
        took[name] = best
        return answer

    for view in VIEWS:
        for sort in SORTS:
            page = timed(f"{view} {sort}", lambda s, v=view, o=sort: list_threads(s, v, sort=o, limit=100))
            if page.next_cursor:
                timed(
                    f"{view} {sort} 2",
                    lambda s, v=view, o=sort, c=page.next_cursor: list_threads(s, v, sort=o, limit=100, cursor=c),
                )
    words = Filters(search=" ".join(f"nothing{n}" for n in range(8)))
    timed("search", lambda s: list_threads(s, "all", filters=words, limit=100))
    timed("counts", counts)
    slow = sorted(((seconds, name) for name, seconds in took.items()), reverse=True)
    print(
        f"\n{ROWS:,} threads, {world.container.database.engine.dialect.name}: "
        + ", ".join(f"{name} {s * 1000:.0f} ms" for s, name in slow[:5])
    )
    assert [one for one in slow if one[0] > bound] == []


# -- 9, 60: Redis


@pytest.mark.checklist(9)
def test_nobody_is_kept_out_longer_than_a_quarter_of_an_hour(world: World) -> None:
    for name in ("sign-in-pair", "sign-in-network", "sign-in-account", "link", "key-wrong"):
        assert RULES[name].seconds <= 900, name
    body = {"email": "admin@example.org", "password": "wrong"}
    for _ in range(30):  # long after it is full: going on must not push the end away
        answer = world.client().post("/api/v1/auth/sign-in", json=body)
    assert answer.status_code == 429 and int(answer.headers["retry-after"]) <= 900
    with Redis.from_url(world.container.redis_url) as client:
        keys = [key for key in client.scan_iter("*limit*") if b"known" not in key]
        lives = [client.ttl(key) for key in keys]
        assert keys and all(0 < life <= 900 for life in lives), lives
        for key in keys:
            client.delete(key)  # what the end of the window does
    world.browser()


@pytest.mark.checklist(9, 10)
def test_links_and_wrong_keys_are_limited_per_network(world: World) -> None:
    client = world.client()
    codes = [
        client.post("/api/v1/auth/link", json={"token": f"{n:043}"}).status_code
        for n in range(RULES["link"].amount + 1)
    ]
    assert codes == [401] * RULES["link"].amount + [429]
    wrong = world.client(authorization="Bearer ntf_aaaaaaaaaa_" + "0" * 64)
    codes = [wrong.get("/api/v1/threads").status_code for _ in range(RULES["key-wrong"].amount + 1)]
    assert codes == [401] * RULES["key-wrong"].amount + [429]


@pytest.mark.checklist(60)
def test_every_key_has_our_prefix_and_emptying_redis_loses_speed_only(world: World) -> None:
    browser, key = world.browser(), world.program()
    thread = world.ids["thread"]
    assert browser.post(f"/api/v1/threads/{thread}/messages", json={"text": "kept"}).status_code == 201
    browser.get("/inbox")
    with Redis.from_url(world.container.redis_url) as client:
        names = list(client.scan_iter("*"))
        strangers = [name for name in names if not name.startswith((b"notifyr:", b"LIMITS:notifyr"))]
        assert names and strangers == [], strangers
        assert not any(CANARY.encode() in name or b"@" in name for name in names)
        client.flushall()
    assert browser.get("/api/v1/auth/me").status_code == 200, "a session is in the database"
    assert key.get(f"/api/v1/threads/{thread}").status_code == 200
    assert "kept" in key.get(f"/api/v1/threads/{thread}/messages").text
    assert world.browser(password=PASSWORD).get("/inbox").status_code == 200


@pytest.mark.checklist(60)
def test_redis_outside_this_machine_needs_a_password(make_settings: Callable[..., Settings], world: World) -> None:
    url = world.container.redis_url
    assert re.match(r"redis://:[^@]{16,}@127\.0\.0\.1:", url), "the embedded one is on loopback behind a password"
    with Redis.from_url(re.sub(r":[^:@/]+@", "", url)) as client, pytest.raises(Exception, match=r"(?i)auth"):
        client.ping()


@pytest.mark.checklist(11)
def test_a_key_of_a_closed_account_is_dead_and_a_secret_is_compared_as_a_hash(
    world: World, seen: list[tuple[str, str]]
) -> None:
    program = world.program("threads:read", agent="agent")
    secret = program.headers["authorization"].rpartition("_")[2]
    assert program.get("/api/v1/threads").status_code == 200
    assert not any(secret in statement + parameters for statement, parameters in seen), "only the prefix is looked up"
    with world.container.database.transaction() as session:
        access.disable_agent(session, world.ids["agent"], actor="test")
    assert program.get("/api/v1/threads").status_code == 401
