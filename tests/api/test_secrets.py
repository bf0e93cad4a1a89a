"""Secrets seeded in twelve places are found in no log line, no answer, no metric and no table in the open."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog
from sqlalchemy import inspect, text

from assistant.services import access
from assistant.telemetry import configure_logging, redact
from tests.api.conftest import World


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What production would write to standard error."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    configure_logging("debug", "json")
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.mark.checklist(61)
def test_no_canary_leaves_its_place(world: World, log: io.StringIO) -> None:
    canary = "canary-7f3a9c"
    with world.container.database.transaction() as session:
        link = access.create_link(session, world.ids["agent"], purpose="reset")
        _, secret = access.create_key(
            session, "seeded", scopes=["threads:read"], actor="test", agent_id=world.ids["admin"]
        )
    browser = world.browser()
    cookie, csrf = browser.cookies["notifyr"], browser.headers["x-csrf-token"]
    canaries = {
        "password": f"{canary}-password",
        "wrong password": f"{canary}-wrong",
        "link": link,
        "key": secret,
        "cookie": cookie,
        "csrf": csrf,
        "wrong key": "ntf_aaaaaaaaaa_" + "c0ffee" * 10 + "c0ff",
        "mail text": f"{canary}-text",
        "mail address": f"{canary}@example.net",
        "search": f"{canary}-search",
        "header": f"{canary}-header",
        "url": f"{canary}-url",
    }
    assert len(canaries) == 12
    thread = world.thread(subject=canaries["mail text"])
    answers = [
        world.client().post(
            "/api/v1/auth/sign-in", json={"email": canaries["mail address"], "password": canaries["wrong password"]}
        ),
        world.client().post("/api/v1/auth/link", json={"token": link + "x", "password": canaries["password"]}),
        world.client(authorization=f"Bearer {canaries['wrong key']}").get("/api/v1/threads"),
        world.client(**{"x-api-key": canaries["header"], "x-forwarded-user": canaries["header"]}).get(
            "/api/v1/threads"
        ),
        browser.get("/api/v1/threads", params={"view": canaries["search"]}),
        browser.get(f"/{canaries['url']}"),
        browser.post(
            f"/api/v1/threads/{thread}/messages", json={"text": canaries["mail text"], "to": canaries["mail address"]}
        ),
        browser.post(
            "/api/v1/auth/password", json={"current": canaries["wrong password"], "new": canaries["password"]}
        ),
        browser.get("/api/v1/keys"),
        browser.get("/metrics"),
        world.client(authorization=f"Bearer {secret}").get("/api/v1/auth/me"),
    ]
    world.app.add_api_route("/canary", lambda: 1 / 0)
    answers.append(world.client(cookie=f"notifyr={cookie}", authorization=f"Bearer {secret}").get("/canary"))
    assert answers[-1].status_code == 500
    for name, value in canaries.items():
        for answer in answers:
            assert value not in answer.text, (name, answer.request.url)
    lines = log.getvalue()
    assert lines.count("\n") >= len(answers) and all(json.loads(line) for line in lines.splitlines())
    for name, value in canaries.items():
        assert value not in lines, name
    assert "division by zero" in lines  # the cause of a failure is there all the same


@pytest.mark.checklist(61)
def test_secrets_are_stored_only_as_hashes(world: World) -> None:
    browser = world.browser()
    made = browser.post(
        "/api/v1/keys", json={"name": "x", "scopes": ["threads:read"]}, headers={"idempotency-key": "k"}
    ).json()["secret"]
    with world.container.database.transaction() as session:
        link = access.create_link(session, world.ids["agent"], purpose="reset")
    engine = world.container.database.engine
    with engine.connect() as connection:
        dump = "\n".join(
            str(row)
            for table in inspect(engine).get_table_names()
            for row in connection.execute(text(f'SELECT * FROM "{table}"'))
        )
    for secret in (made, made.rpartition("_")[2], link, browser.cookies["notifyr"], "correct horse battery"):
        assert secret not in dump
    assert "$argon2id$" in dump


def test_an_object_that_holds_a_hash_does_not_print_it(world: World) -> None:
    with world.container.database.reading() as session:
        assert "argon2" not in repr(access.credentials_of(session, "admin@example.org"))


@pytest.mark.parametrize(
    "line",
    [
        "Authorization: Bearer abcdef0123456789",
        "redis://user:hunter22@host:6379/0 refused",
        "smtp://me:hunter22@relay.example.org:587",
        "key ntf_abcdefghij_" + "0" * 64,
        "write to ana@example.org",
    ],
)
@pytest.mark.checklist(61)
def test_redaction_takes_secrets_and_addresses_out(line: str) -> None:
    shown = redact(line)
    for word in ("abcdef0123456789", "hunter22", "0" * 64, "ana@example.org"):
        assert word not in shown
