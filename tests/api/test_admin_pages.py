"""What admins do on pages: agents with one-time links, API keys shown once, server settings to read, the audit trail."""

from __future__ import annotations

import re
import threading
import time
from html import unescape

import httpx
import pytest
from sqlalchemy import select
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from assistant.db.access import AuditEntry
from assistant.errors import Conflict
from assistant.services import access, audit, profiles
from tests.api.conftest import BOTH, World

ENGINES = BOTH

PAGES = ("/settings/agents", "/settings/keys", "/settings/server", "/settings/audit")


def post(client: httpx.Client, path: str, **fields: str | list[str]) -> httpx.Response:
    return client.post(path, data=fields, headers={"origin": str(client.base_url)}, follow_redirects=False)


def shown_once(answer: httpx.Response) -> str:
    found = re.search(r'id="once"[^>]*value="([^"]+)"', answer.text)
    assert found, answer.text
    return unescape(found[1])


def names(answer: httpx.Response) -> list[str]:
    return re.findall(r"<strong>([^<]+)</strong>", answer.text)


@pytest.mark.parametrize("path", PAGES)
def test_only_an_admin_sees_the_admins_pages(world: World, path: str) -> None:
    html = {"accept": "text/html"}
    assert world.browser().get(path, headers=html).status_code == 200
    refused = world.browser("agent@example.org").get(path, headers=html)
    assert refused.status_code == 403 and "not-allowed" in refused.text and "Ask an admin" in refused.text
    assert world.client().get(path, headers=html, follow_redirects=False).status_code == 303
    assert "/settings/keys" not in world.browser("agent@example.org").get("/settings", headers=html).text


def test_an_invited_agent_signs_in_once_by_the_link(world: World) -> None:
    admin = world.browser()
    made = post(admin, "/settings/agents", email="bo@example.org", name="Bo", role="agent")
    token = shown_once(made).partition("#")[2]
    assert made.status_code == 200 and made.headers["cache-control"] == "no-store"
    assert token not in admin.get("/settings/agents").text
    first = post(world.client(), "/link", token=token, password="a long new password")
    assert first.status_code == 303 and first.headers["location"] == "/inbox"
    assert post(world.client(), "/link", token=token).status_code == 401
    assert post(admin, "/settings/agents", email="bo@example.org", name="Bo again").status_code == 409
    assert world.browser("bo@example.org", "a long new password").get("/inbox").status_code == 200


def test_closing_an_account_ends_its_pages_and_sockets_within_a_second(world: World) -> None:
    admin, other = world.browser(), world.browser("agent@example.org")
    cookie = f"notifyr={other.cookies['notifyr']}"
    closed: list[float] = []
    with connect(
        world.url.replace("http", "ws") + "/live", additional_headers={"Cookie": cookie, "Origin": world.url}
    ) as socket:

        def wait() -> None:
            try:
                while True:
                    socket.recv(timeout=20)
            except ConnectionClosed:
                closed.append(time.monotonic())

        listener = threading.Thread(target=wait)
        listener.start()
        began = time.monotonic()
        assert post(admin, f"/settings/agents/{world.ids['agent']}/disable").status_code == 303
        assert other.get("/api/v1/auth/me").status_code == 401
        listener.join(20)
    assert closed and closed[0] - began < 15, "asked twice a second; the rest is a busy machine"
    assert "closed" in admin.get("/settings/agents").text
    assert post(admin, f"/settings/agents/{world.ids['agent']}/enable").status_code == 303
    assert other.get("/api/v1/auth/me").status_code == 401, "the old session stays dead"
    assert world.browser("agent@example.org").get("/inbox").status_code == 200


@pytest.mark.checklist(15)
def test_a_role_changes_with_the_next_sign_in_and_never_ones_own(world: World) -> None:
    admin, other = world.browser(), world.browser("agent@example.org")
    assert post(admin, f"/settings/agents/{world.ids['agent']}/admin").status_code == 303
    assert other.get("/settings/agents").status_code in {303, 401}, "sessions of the old role are dead"
    assert world.browser("agent@example.org").get("/settings/agents").status_code == 200
    for change in ("agent", "disable"):
        refused = post(admin, f"/settings/agents/{world.ids['admin']}/{change}")
        assert refused.status_code == 409 and "ask another admin" in refused.text
    assert post(admin, f"/settings/agents/{world.ids['agent']}/king").status_code == 422


def test_a_key_is_shown_once_works_within_its_scopes_and_dies_when_revoked(world: World) -> None:
    admin = world.browser()
    secret = shown_once(post(admin, "/settings/keys", name="Export <b>", scope=["threads:read"], lifetime="30 days"))
    program = world.client(authorization=f"Bearer {secret}")
    assert program.get("/api/v1/threads").status_code == 200
    assert program.get("/api/v1/contacts").status_code == 403
    page = admin.get("/settings/keys").text
    assert secret not in page and "Export &lt;b&gt;" in page and "last used" in page
    with world.container.database.reading() as session:
        key = access.api_keys(session)[0]
    rotated = shown_once(post(admin, f"/settings/keys/{key.id}/rotate", overlap="at once"))
    assert program.get("/api/v1/threads").status_code == 401
    assert world.client(authorization=f"Bearer {rotated}").get("/api/v1/threads").status_code == 200
    with world.container.database.reading() as session:
        newest = access.api_keys(session)[0]
    assert post(admin, f"/settings/keys/{newest.id}/revoke").status_code == 303
    assert world.client(authorization=f"Bearer {rotated}").get("/api/v1/threads").status_code == 401
    assert post(admin, f"/settings/keys/{newest.id}/revoke").status_code == 409


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "x"}, "at least one scope"),
        ({"name": "x", "scope": "all"}, "unknown scope"),
        ({"name": "x", "scope": "threads:read", "lifetime": "1 eon"}, "choose one of"),
    ],
)
def test_a_key_that_cannot_be_made_says_why(world: World, fields: dict[str, str], words: str) -> None:
    answer = post(world.browser(), "/settings/keys", **fields)
    assert answer.status_code == 422 and words in answer.text


def test_the_acts_need_the_forms_token(world: World) -> None:
    admin = world.browser()
    del admin.headers["x-csrf-token"]
    for path in ("/settings/agents", "/settings/keys", f"/settings/agents/{world.ids['agent']}/disable"):
        assert post(admin, path, email="e@example.org", name="E", scope="threads:read").status_code == 403
    with world.container.database.reading() as session:
        assert len(access.agents(session)) == 2


def test_every_setting_is_shown_with_its_source_and_no_secret(world: World) -> None:
    admin = world.browser()
    page = admin.get("/settings/server").text
    settings = world.container.settings
    for name in type(settings).model_fields:
        assert f"NOTIFYR_{name.upper()}" in page
    for value in settings.__dict__.values():
        if hasattr(value, "get_secret_value") and "://" not in value.get_secret_value():
            assert value.get_secret_value() not in page
    found = admin.get("/settings/server", params={"q": "relay"}).text
    assert "NOTIFYR_RELAY_URL" in found and "NOTIFYR_PORT" not in found
    assert "Show all" in admin.get("/settings/server", params={"q": "<nothing>"}).text


def test_the_audit_trail_names_who_did_what_and_pages_back(world: World) -> None:
    admin = world.browser()
    for number in range(60):
        post(admin, "/settings/agents", email=f"a{number}@example.org", name=f"A{number}")
    page = admin.get("/settings/audit", params={"area": "agent"}).text
    assert "agent.created" in page and "Admin" in page and "session.opened" not in page
    older = re.search(r'href="(/settings/audit\?[^"]*cursor=[^"]+)"', page)
    assert older
    rest = admin.get(unescape(older[1])).text
    assert "A0<" in rest and "A59<" not in rest
    assert admin.get("/settings/audit", params={"cursor": "x"}).status_code == 400
    assert "Nothing here yet" in admin.get("/settings/audit", params={"area": "%"}).text


def test_the_trail_is_in_order_and_complete(database) -> None:  # type: ignore[no-untyped-def]
    with database.transaction() as session:
        one = access.create_agent(session, "one@example.org", name="One", role="admin")
        two = access.create_agent(session, "two@example.org", name="Two", actor=one.id)
        access.set_role(session, two.id, role="admin", actor=one.id)
        access.disable_agent(session, two.id, actor=one.id)
        access.disable_agent(session, two.id, actor=one.id)
        access.enable_agent(session, two.id, actor=one.id)
        with pytest.raises(Conflict):
            access.set_role(session, one.id, role="agent", actor=one.id)
    with database.reading() as session:
        seen, cursor = [], None
        while True:
            page = audit.trail(session, cursor=cursor, limit=2)
            seen += [(entry.actor, entry.action, entry.subject) for entry in page.items]
            cursor = page.next_cursor
            if cursor is None:
                break
    assert seen == [
        ("One", "agent.enabled", "Two"),
        ("One", "agent.disabled", "Two"),
        ("One", "agent.role", "Two"),
        ("One", "agent.created", "Two"),
        ("system", "agent.created", "One"),
    ]


def test_a_blocked_profile_is_said_everywhere_and_an_admin_lets_it_send_again(world: World) -> None:
    with world.container.database.transaction() as session:
        profile = profiles.list_profiles(session)[0]
        profiles.block(session, profile.id, code="credentials", text="535 wrong password")
        path, address = f"/settings/profiles/{profile.id}/unblock", profile.address
    admin, agent = world.browser(), world.browser("agent@example.org")
    ready = admin.get("/readyz").json()
    assert (ready["status"], ready["checks"]["sending"]) == ("degraded", "down")
    assert f"Nothing leaves through {address}: credentials: 535 wrong password" in agent.get("/inbox").text
    assert path in admin.get("/settings").text and path not in agent.get("/settings").text
    assert post(agent, path).status_code == 403
    assert post(admin, path).status_code == 303
    assert admin.get("/readyz").json()["checks"]["sending"] == "up"
    assert "Nothing leaves through" not in agent.get("/inbox").text
    assert post(admin, path).status_code == 409, "it sends already"
    with world.container.database.reading() as session:
        assert "profile.unblocked" in [row.action for row in session.scalars(select(AuditEntry))]


def test_a_change_of_ones_own_settings_is_in_the_audit_trail_by_name_and_never_by_value(world: World) -> None:
    client = world.browser("agent@example.org")
    form = {"theme": "dark", "letters": "on", "undo_seconds": "7", "name": "Bo Secret"}
    for sent in (form, form, form | {"undo_seconds": "61"}):
        client.post("/settings", data=sent)
    with world.container.database.reading() as session:
        rows = session.scalars(select(AuditEntry).where(AuditEntry.action == "settings.changed")).all()
    assert [(row.actor, row.subject) for row in rows] == [(world.ids["agent"], world.ids["agent"])], (
        "once, where it changed"
    )
    assert {"theme", "undo_seconds", "name"} <= set(rows[0].detail["names"])
    assert "dark" not in str(rows[0].detail) and "Secret" not in str(rows[0].detail)
