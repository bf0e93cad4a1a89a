"""Who may call what: every route of the API, by every kind of caller, on own, absent and malformed ids. From the route table."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from api.deps import Access
from api.openapi import PUBLIC, document, rules
from assistant.clock import new_id
from assistant.db.tables import metadata
from assistant.services import access, uploads
from assistant.values import StoredAttachment
from tests.api.conftest import BOTH, World

ENGINES = BOTH

ROUTES: dict[str, str | None] = {
    # every operation -> the scope a key needs, "admin" for a signed-in admin, "browser" for a signed-in agent, "any", None: public
    "GET /api/v1/agents": "threads:read",
    "POST /api/v1/agents": "admin",
    "POST /api/v1/agents/{agent_id}/disable": "admin",
    "POST /api/v1/agents/{agent_id}/links": "admin",
    "GET /api/v1/attachments/{attachment_id}": "threads:read",
    "POST /api/v1/auth/link": None,
    "GET /api/v1/auth/me": "any",
    "POST /api/v1/auth/password": "browser",
    "POST /api/v1/auth/sign-in": None,
    "POST /api/v1/auth/sign-out": "browser",
    "GET /api/v1/contacts": "contacts:read",
    "GET /api/v1/contacts/{contact_id}": "contacts:read",
    "PATCH /api/v1/contacts/{contact_id}": "contacts:write",
    "GET /api/v1/labels": "threads:read",
    "GET /api/v1/keys": "admin",
    "POST /api/v1/keys": "admin",
    "DELETE /api/v1/keys/{key_id}": "admin",
    "POST /api/v1/keys/{key_id}/rotate": "admin",
    "GET /api/v1/messages/{message_id}": "threads:read",
    "POST /api/v1/messages/{message_id}/cancel": "messages:send",
    "POST /api/v1/messages/{message_id}/release": "messages:send",
    "POST /api/v1/messages/{message_id}/resolve": "messages:send",
    "POST /api/v1/messages/{message_id}/retry": "messages:send",
    "POST /api/v1/messages/{message_id}/send-now": "messages:send",
    "POST /api/v1/messages/{message_id}/split": "threads:write",
    "POST /api/v1/messages/{message_id}/suggestions": "suggestions:write",
    "POST /api/v1/moves/{move_id}/undo": "threads:write",
    "DELETE /api/v1/notes/{note_id}": "notes:write",
    "GET /api/v1/openapi.json": "any",
    "GET /api/v1/saved-replies": "replies:read",
    "POST /api/v1/saved-replies": "replies:write",
    "DELETE /api/v1/saved-replies/{reply_id}": "replies:write",
    "GET /api/v1/saved-replies/{reply_id}": "replies:read",
    "PUT /api/v1/saved-replies/{reply_id}": "replies:write",
    "GET /api/v1/suggestions/{suggestion_id}": "suggestions:read",
    "POST /api/v1/suggestions/{suggestion_id}/accept": "suggestions:write",
    "POST /api/v1/suggestions/{suggestion_id}/reject": "suggestions:write",
    "POST /api/v1/suggestions/{suggestion_id}/restore": "suggestions:write",
    "GET /api/v1/threads": "threads:read",
    "GET /api/v1/counts": "threads:read",
    "GET /api/v1/threads/{thread_id}": "threads:read",
    "PATCH /api/v1/threads/{thread_id}": "threads:write",
    "GET /api/v1/threads/{thread_id}/labels": "threads:read",
    "POST /api/v1/threads/{thread_id}/labels": "threads:write",
    "DELETE /api/v1/threads/{thread_id}/labels/{label_id}": "threads:write",
    "POST /api/v1/threads/{thread_id}/merge": "threads:write",
    "GET /api/v1/threads/{thread_id}/messages": "threads:read",
    "POST /api/v1/threads/{thread_id}/messages": "messages:send",
    "GET /api/v1/threads/{thread_id}/notes": "notes:read",
    "POST /api/v1/threads/{thread_id}/notes": "notes:write",
    "GET /api/v1/threads/{thread_id}/suggestions": "suggestions:read",
    "GET /api/v1/uploads": "messages:send",
    "POST /api/v1/uploads": "messages:send",
    "DELETE /api/v1/uploads/{upload_id}": "messages:send",
}
BODIES: dict[str, Any] = {
    "POST /api/v1/agents": {"email": "x@example.org", "name": "X"},
    "POST /api/v1/auth/link": {"token": "x"},
    "POST /api/v1/auth/sign-in": {"email": "a@b.co", "password": "x"},
    "POST /api/v1/auth/password": {"current": "wrong", "new": "another long password"},
    "PATCH /api/v1/contacts/{contact_id}": {"note": "n"},
    "POST /api/v1/keys": {"name": "k", "scopes": ["threads:read"]},
    "POST /api/v1/keys/{key_id}/rotate": {},
    "POST /api/v1/messages/{message_id}/resolve": {"outcome": "sent"},
    "POST /api/v1/messages/{message_id}/split": {"reason": "another matter"},
    "POST /api/v1/messages/{message_id}/suggestions": {},
    "POST /api/v1/saved-replies": {"name": "Thanks", "text": "Thank you."},
    "PUT /api/v1/saved-replies/{reply_id}": {"name": "Thanks", "text": "Thank you."},
    "POST /api/v1/suggestions/{suggestion_id}/accept": {},
    "POST /api/v1/suggestions/{suggestion_id}/reject": {},
    "PATCH /api/v1/threads/{thread_id}": {"starred": True},
    "POST /api/v1/threads/{thread_id}/labels": {"name": "urgent"},
    "POST /api/v1/threads/{thread_id}/merge": {"into_id": new_id(), "reason": "the same order"},
    "POST /api/v1/threads/{thread_id}/messages": {"text": "hello"},
    "POST /api/v1/threads/{thread_id}/notes": {"text": "call her"},
}
"""A valid body for each route that takes one."""

FILES: dict[str, Any] = {"POST /api/v1/uploads": {"file": ("a.txt", b"hello", "text/plain")}}
"""The same for those that take a file."""
TAGS = {"/accept": '"1"', "/reject": '"1"', "/saved-replies/": '"0123456789abcdef"'}
"""What the If-Match of some operations looks like."""


@pytest.fixture
def world(world: World) -> World:
    """With one of everything that agents add."""
    world.add()
    return world


def call(client: httpx.Client, operation: str, ids: dict[str, str]) -> httpx.Response:
    method, path = operation.split()
    tag = tag_for(path)
    headers = {"if-match": tag} if tag and method != "GET" else {}
    for name, value in ids.items():
        path = path.replace("{" + name + "_id}", value)
    return client.request(method, path, json=BODIES.get(operation), files=FILES.get(operation), headers=headers)


def tag_for(path: str) -> str:
    return next((tag for part, tag in TAGS.items() if part in path), "")


def ids_in(operation: str) -> list[str]:
    return re.findall(r"{([a-z]+)_id}", operation)


@pytest.mark.checklist(19)
def test_the_route_table_is_the_declared_one(world: World) -> None:
    found = {f"{method} {path}": rule for (method, path), rule in rules(world.app).items() if path.startswith("/api/")}
    assert set(found) == set(ROUTES)
    for operation, rule in found.items():
        assert _said(rule) == ROUTES[operation], operation
    documented = {
        f"{method.upper()} {path}" for path, operations in document(world.app)["paths"].items() for method in operations
    }
    assert set(ROUTES) <= documented
    assert {f"{method} {path}" for method, path in PUBLIC if path.startswith("/api/")} == {
        operation for operation, said in ROUTES.items() if said is None
    }


def _said(rule: Access | None) -> str | None:
    if rule is None:
        return None
    if rule.admin:
        return "admin"
    return {None: "browser", Access.ANY: "any"}.get(rule.scope, rule.scope)


@pytest.mark.checklist(20)
def test_nobody_gets_in_without_signing_in(world: World) -> None:
    dead = world.program("threads:read")
    with world.container.database.transaction() as session:
        for key in access.api_keys(session):
            access.revoke_key(session, key.id, actor="test")
    out = world.browser()
    token = out.cookies["notifyr"]
    out.post("/api/v1/auth/sign-out")
    callers = [
        world.client(),
        dead,
        world.client(cookie=f"notifyr={token}"),
        world.client(authorization="Bearer ntf_aaaaaaaaaa_" + "0" * 64),
        world.client(authorization="Bearer " + world.ids["key"]),
    ]
    for operation, needed in ROUTES.items():
        if needed is None:
            continue
        for number, client in enumerate(callers):
            world.clear_limits()
            for ids in (world.ids, dict.fromkeys(world.ids, new_id())):
                answer = call(client, operation, ids)
                assert answer.status_code == 401, (operation, number, answer.text)


@pytest.mark.parametrize("scope", sorted(access.SCOPES))
@pytest.mark.checklist(20)
def test_a_key_does_what_its_scope_says_and_nothing_else(world: World, scope: str) -> None:
    key = world.program(scope)
    for operation, needed in ROUTES.items():
        if needed is None:
            continue
        world.clear_limits()
        own, absent = call(key, operation, world.ids), call(key, operation, dict.fromkeys(world.ids, new_id()))
        if needed in {scope, "any"}:
            assert own.status_code not in {401, 403}, (operation, own.text)
        else:
            assert own.status_code == absent.status_code == 403, (operation, own.text)
            assert _same(own, absent), operation


@pytest.mark.checklist(20)
def test_an_agent_may_not_do_what_an_admin_may(world: World) -> None:
    agent = world.browser("agent@example.org")
    for operation, needed in ROUTES.items():
        if needed != "admin":
            continue
        world.clear_limits()
        own, absent = call(agent, operation, world.ids), call(agent, operation, dict.fromkeys(world.ids, new_id()))
        assert own.status_code == absent.status_code == 403 and _same(own, absent), operation


@pytest.mark.checklist(20)
def test_an_absent_id_is_404_everywhere_and_so_is_the_id_of_another_kind(world: World) -> None:
    admin = world.browser()
    for operation in ROUTES:
        if "{" not in operation:
            continue
        for kind in ids_in(operation):
            world.clear_limits()
            gone = new_id()
            absent = call(admin, operation, world.ids | {kind: gone})
            assert (absent.status_code, absent.json()["code"]) == (404, "not-found"), (operation, absent.text)
            other = world.ids["contact" if kind != "contact" else "thread"]
            foreign = call(admin, operation, world.ids | {kind: other})
            assert foreign.status_code == 404, (operation, foreign.text)
            words = {absent.json()["detail"].replace(gone, ""), foreign.json()["detail"].replace(other, "")}
            assert len(words) == 1, operation


@pytest.mark.checklist(20)
def test_a_malformed_id_is_refused_before_anything_is_looked_up(world: World) -> None:
    admin = world.browser()
    for operation in ROUTES:
        if "{" not in operation:
            continue
        for kind in ids_in(operation):
            for bad in ("1", "..%2f..%2fetc", "%27%20OR%201=1", "A" * 300, "0" * 36):
                world.clear_limits()
                assert call(admin, operation, world.ids | {kind: bad}).status_code in {404, 422}, (operation, bad)


BODY_IDS = {
    # every field of a body and every parameter of a query that names something -> what it names
    "assignee_id": "agent",
    "into_id": "thread",
    "upload_ids": "upload",
    "assignee": "agent",
    "contact_id": "contact",
}
UNDER_WAY = frozenset({"agent_sessions", "api_keys", "idempotent_answers"})
"""Tables that a refused request may touch: when a caller was last seen, and the key of a repeat while it runs."""


def named_in(described: dict[str, Any]) -> list[tuple[str, str, str]]:
    """`(operation, "body" or "query", field)` for each id that is not in a path, from the API's own description."""
    found, schemas = [], described["components"]["schemas"]
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            asked = [one["name"] for one in operation.get("parameters", []) if one["in"] == "query"]
            named = [name for name in asked if name in BODY_IDS or re.search(r"(^|_)ids?$", name)]
            found += [(f"{method.upper()} {path}", "query", name) for name in named]
            for content in operation.get("requestBody", {}).get("content", {}).values():
                schema = content["schema"]
                schema = schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
                inner = re.findall(r"#/components/schemas/(\w+)", str(schema.get("properties")))
                assert not [one for one in inner if "properties" in schemas[one]], (
                    f"{path}: look for ids in {inner}, too"
                )
                for name, field in schema.get("properties", {}).items():
                    if re.search(r"(^|_)ids?$", name):
                        found.append((f"{method.upper()} {path}", "body:" + field.get("type", ""), name))
    return found


def everything(world: World) -> dict[str, list[str]]:
    """Every row of every table."""
    with world.container.database.reading() as session:
        return {
            name: sorted(map(repr, session.execute(table.select())))
            for name, table in metadata.tables.items()
            if name not in UNDER_WAY
        }


@pytest.mark.checklist(20)
def test_an_id_in_a_body_or_a_query_is_refused_like_one_in_a_path_and_changes_nothing(world: World) -> None:
    found = named_in(document(world.app))
    assert {name for _, _, name in found} == set(BODY_IDS), "say in BODY_IDS what a new field names"
    assert {operation for operation, _, _ in found} <= set(ROUTES)
    with world.container.database.transaction() as session:
        file = StoredAttachment("b.txt", "text/plain", 5, "parts/other")
        other = uploads.add(session, file, agent_id=world.ids["agent"], thread_id=None, kind=uploads.PROGRAM)
        page = uploads.add(session, file, agent_id=world.ids["admin"], thread_id=world.ids["thread"], kind="reply")
        world.ids |= {"foreign": other.id, "of a page": page.id}
    for client in (world.browser(), world.program()):
        for operation, where, name in found:
            kind = BODY_IDS[name]
            kinds = [one for one in world.ids if one != kind and not (kind == "agent" and one == "admin")]
            wrong = {new_id(): "absent"} | {world.ids[one]: one for one in kinds}
            before, answers = everything(world), {}
            for value, what in wrong.items():
                world.clear_limits()
                answers[what] = _named(client, operation, where, name, value, world.ids)
            assert everything(world) == before, (operation, name)
            absent = answers["absent"]
            if where == "query":
                assert (absent.status_code, absent.json().get("items", [])) == (200, []), (operation, name, absent.text)
            else:
                assert absent.status_code in {404, 422} and absent.json()["code"] in {"not-found", "invalid-input"}
            for what, answer in answers.items():
                assert answer.status_code == absent.status_code and _same(answer, absent), (operation, name, what)
            for bad in ("1", "../../etc", "' OR 1=1", "A" * 300, "\x00", "0" * 36):
                world.clear_limits()
                answer = _named(client, operation, where, name, bad, world.ids)
                assert answer.status_code in {400, 404, 422} or (where == "query" and _same(answer, absent)), (
                    name,
                    bad,
                )
            assert everything(world) == before, (operation, name)
            # The refusals were about the id: a right one is taken.
            right = world.ids[kind] if name != "into_id" else world.thread()
            world.clear_limits()
            answer = _named(client, operation, where, name, right, world.ids)
            assert answer.status_code < 300, (operation, name, answer.text)
            if name == "into_id":
                world.ids["thread"] = right
            elif name == "upload_ids":
                world.ids["upload"] = _uploaded(client)


def _named(
    client: httpx.Client, operation: str, where: str, name: str, value: str, ids: dict[str, str]
) -> httpx.Response:
    """A request that is right but for one id."""
    method, path = operation.split()
    for kind, one in ids.items():
        path = path.replace("{" + kind + "_id}", one)
    if where == "query":
        return client.request(method, path, params={name: value})
    body = BODIES[operation] | {name: [value] if where == "body:array" else value}
    return client.request(method, path, json=body)


def _uploaded(client: httpx.Client) -> str:
    made: str = client.post("/api/v1/uploads", files=FILES["POST /api/v1/uploads"]).json()["id"]
    return made


@pytest.mark.checklist(22)
def test_fields_that_only_the_server_sets_are_refused(world: World) -> None:
    admin = world.browser()
    for operation, body in BODIES.items():
        for field in ("id", "role", "status", "state_reason", "agent_id", "author", "sent_at", "created_at", "account"):
            if field == "role" and operation == "POST /api/v1/agents":
                continue
            world.clear_limits()
            method, path = operation.split()
            tag = tag_for(path)
            for name, value in world.ids.items():
                path = path.replace("{" + name + "_id}", value)
            answer = admin.request(method, path, json=body | {field: "x"}, headers={"if-match": tag})
            assert answer.status_code == 422, (operation, field)
            assert any(error["pointer"].endswith(field) for error in answer.json()["errors"]), (operation, field)


def _same(one: httpx.Response, two: httpx.Response) -> bool:
    drop = {"request_id"}
    left, right = ({k: v for k, v in answer.json().items() if k not in drop} for answer in (one, two))
    return left == right
