"""Who may open and post what: every page and act of the inbox, by every kind of caller. Generated from the route table.

A new route fails the first test until it is declared in `PAGES`; the others then try it by themselves.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator

import httpx
import pytest
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.routing import BaseRoute, WebSocketRoute

from assistant.clock import new_id
from assistant.db.tables import metadata
from tests.api.conftest import BOTH, World

ENGINES = BOTH
PAGES: dict[str, str] = {
    # every page and act -> who may: "public", "machine" (this machine, or a key), "agent" (anybody signed in), "admin"
    "GET /": "public",
    "GET /livez": "public",
    "GET /readyz": "public",
    "GET /metrics": "machine",
    "GET /worker.js": "public",
    "GET /static/{name:path}": "public",
    "GET /sign-in": "public",
    "POST /sign-in": "public",
    "GET /link": "public",
    "POST /link": "public",
    "POST /sign-out": "agent",
    "GET /inbox": "agent",
    "GET /inbox/{thread_id}": "agent",
    "GET /inbox/{thread_id}/notice": "agent",
    "POST /inbox/{thread_id}/act": "agent",
    "POST /inbox/{thread_id}/undo": "agent",
    "POST /inbox/{thread_id}/draft": "agent",
    "POST /inbox/{thread_id}/files": "agent",
    "POST /inbox/{thread_id}/reply": "agent",
    "POST /inbox/{thread_id}/note": "agent",
    "POST /inbox/{thread_id}/labels": "agent",
    "GET /inbox/{thread_id}/saved-replies": "agent",
    "POST /inbox/{thread_id}/merge": "agent",
    "POST /messages/{message_id}/split": "agent",
    "POST /moves/{move_id}/undo": "agent",
    "POST /inbox-bulk": "agent",
    "POST /first-mail": "agent",
    "GET /palette": "agent",
    "GET /help": "agent",
    "POST /filters": "agent",
    "POST /filters/{filter_id}": "agent",
    "POST /filters/{filter_id}/remove": "agent",
    "GET /messages/{message_id}/frame": "agent",
    "GET /messages/{message_id}/raw": "agent",
    "POST /messages/{message_id}/images": "agent",
    "POST /messages/{message_id}/cancel": "agent",
    "POST /messages/{message_id}/send-now": "agent",
    "POST /messages/{message_id}/release": "agent",
    "POST /messages/{message_id}/settle": "agent",
    "POST /messages/{message_id}/unsettle": "agent",
    "POST /messages/{message_id}/regenerate": "agent",
    "POST /messages/{message_id}/verdict": "agent",
    "POST /corrections/{correction_id}/undo": "agent",
    "POST /suggestions/{suggestion_id}/accept": "agent",
    "POST /suggestions/{suggestion_id}/reject": "agent",
    "POST /suggestions/{suggestion_id}/reason": "agent",
    "POST /suggestions/{suggestion_id}/restore": "agent",
    "POST /suggestions/{suggestion_id}/diff": "agent",
    "POST /suggestions/{suggestion_id}/stop": "agent",
    "POST /suggestions/{suggestion_id}/take": "agent",
    "POST /suggestions/{suggestion_id}/throw-away": "agent",
    "POST /inbox/{thread_id}/take-over": "agent",
    "POST /files/{upload_id}/remove": "agent",
    "POST /notes/{note_id}/remove": "agent",
    "POST /notes/{note_id}/restore": "agent",
    "POST /notes/{note_id}/undo": "agent",
    "GET /compose": "agent",
    "POST /compose": "agent",
    "POST /compose/draft": "agent",
    "POST /compose/files": "agent",
    "GET /knowledge": "agent",
    "POST /knowledge": "agent",
    "POST /knowledge/{document_id}/{switch}": "agent",
    "GET /learning": "agent",
    "POST /learning/{message_id}": "agent",
    "GET /models": "agent",
    "GET /settings": "agent",
    "POST /settings": "agent",
    "POST /settings/password": "agent",
    "GET /settings/replies": "agent",
    "POST /settings/replies": "agent",
    "POST /settings/replies/{reply_id}": "agent",
    "POST /settings/replies/{reply_id}/remove": "agent",
    "POST /settings/profiles/{profile_id}/unblock": "admin",
    "GET /settings/agents": "admin",
    "POST /settings/agents": "admin",
    "POST /settings/agents/{agent_id}/link": "admin",
    "POST /settings/agents/{agent_id}/{change}": "admin",
    "GET /settings/keys": "admin",
    "POST /settings/keys": "admin",
    "POST /settings/keys/{key_id}/rotate": "admin",
    "POST /settings/keys/{key_id}/revoke": "admin",
    "GET /settings/server": "admin",
    "GET /settings/audit": "admin",
    "GET /settings/trust": "agent",
    "POST /policies": "admin",
    "POST /policies/{policy_id}/revoke": "admin",
    "GET /settings/intents": "admin",
    "POST /settings/intents": "admin",
    "POST /settings/intents/try": "admin",
    "POST /settings/intents/{intent_id}": "admin",
    "POST /settings/intents/{intent_id}/{switch}": "admin",
    "GET /settings/labels": "admin",
    "POST /settings/labels": "admin",
    "POST /settings/labels/never": "admin",
    "POST /settings/labels/take-back": "admin",
    "POST /settings/labels/{exception_id}/forget": "admin",
}
OWN = {
    # a path's name -> which of the world's ids it is; every other name is tried with ids of other kinds only
    "thread_id": "thread",
    "message_id": "message",
    "suggestion_id": "suggestion",
    "agent_id": "agent",
    "key_id": "key",
}
WORDS = {"switch": "on", "change": "disable", "name": "app.css"}
CHANGES = frozenset({"POST", "PUT", "PATCH", "DELETE"})


def table(world: World) -> Iterator[tuple[str, BaseRoute]]:
    """Every operation outside /api, as `METHOD path`."""
    for context in iter_route_contexts(world.app.routes):
        route, path = context.original_route, str(context.path)
        if isinstance(route, APIRoute) and not path.startswith("/api/"):
            for method in sorted(route.methods):
                yield f"{method} {path}", route


def filled(operation: str, ids: dict[str, str]) -> tuple[str, str]:
    method, path = operation.split()
    for name in re.findall(r"\{(\w+)(?::path)?\}", path):
        path = re.sub(r"\{" + name + r"(?::path)?\}", ids.get(name, WORDS.get(name, "")) or new_id(), path)
    return method, path


FORMS: dict[str, dict[str, str]] = {
    # a form that is right in itself, for acts that read it before they look for what they act on
    "POST /inbox/{thread_id}/undo": {"state": "open"},
    "POST /inbox/{thread_id}/note": {"text": "hello"},
    "POST /inbox/{thread_id}/labels": {"name": "hello", "label": "hello"},
    "POST /inbox/{thread_id}/reply": {"text": "hello", "kind": "reply"},
    "POST /messages/{message_id}/settle": {"outcome": "sent"},
    "POST /suggestions/{suggestion_id}/accept": {"version": "1"},
    "POST /suggestions/{suggestion_id}/reject": {"version": "1"},
    "POST /suggestions/{suggestion_id}/reason": {"reason": "other"},
    "POST /messages/{message_id}/split": {"reason": "another question"},
    "POST /filters/{filter_id}": {"name": "hello"},
    "POST /settings/replies/{reply_id}": {"name": "hello", "text": "hello"},
    "POST /learning/{message_id}": {"label": "other"},
}
NEEDS_MORE = {"POST /learning/{message_id}", "POST /inbox/{thread_id}/files"}
"""What wants more than a form (a model, a file): tried for who may call, not for what is absent."""


def call(client: httpx.Client, operation: str, ids: dict[str, str], **headers: str) -> httpx.Response:
    method, path = filled(operation, ids)
    form = FORMS.get(operation, {}) if method in CHANGES else None
    return client.request(method, path, data=form, headers=headers)


def own(world: World) -> dict[str, str]:
    return {name: world.ids[kind] for name, kind in OWN.items()}


def guarded(*who: str) -> list[str]:
    return [operation for operation, rule in PAGES.items() if rule in (who or ("agent", "admin"))]


def same(one: httpx.Response, two: httpx.Response, *ids: str) -> bool:
    """Equal but for the request's own id and minute, ages, offers to snooze, the form's own token and the id that was asked for."""
    texts = []
    for answer in (one, two):
        text = answer.text.replace(answer.headers["x-request-id"], "")
        for identity in ids:
            text = text.replace(identity, "")
        text = re.sub(r"\(request , [^)]*\)", "", text)
        text = re.sub(r"(<time [^>]*>)[^<]*", r"\1", text)  # `now` is `1 min` a moment later
        text = re.sub(
            r'(<button name="until") value="[^"]*"(>[^<]*<span class="quiet">)[^<]*', r"\1\2", text
        )  # from now on
        texts.append(re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "", text))
    return one.status_code == two.status_code and texts[0] == texts[1]


@pytest.mark.checklist(19)
def test_every_page_and_act_is_declared(world: World) -> None:
    found = {operation for operation, _ in table(world)}
    new, gone = sorted(found - set(PAGES)), sorted(set(PAGES) - found)
    assert not new, (
        f"{', '.join(new)}: declare each in PAGES of tests/api/test_page_matrix.py as "
        '"agent", "admin" or "public"; the other tests here then try it by themselves'
    )
    assert not gone, f"{', '.join(gone)}: no such route any more, take it off PAGES"
    sockets = {
        str(context.path)
        for context in iter_route_contexts(world.app.routes)
        if isinstance(context.original_route, WebSocketRoute)
    }
    assert sockets == {"/live"}, "a new websocket: give it the tests of tests/api/test_live_limits.py"


@pytest.mark.checklist(19, 20, 21)
def test_nobody_and_no_key_opens_a_page_or_acts_on_one(world: World) -> None:
    out = world.browser()
    token = out.cookies["notifyr"]
    assert out.post("/sign-out").status_code == 303
    callers = [
        world.client(),
        world.program(),
        world.client(cookie=f"notifyr={token}"),
        world.client(cookie="notifyr=" + "0" * 43),
        world.client(**{"x-forwarded-user": world.ids["admin"]}),
    ]
    for operation in guarded():
        for number, client in enumerate(callers):
            world.clear_limits()
            here, absent = call(client, operation, own(world)), call(client, operation, {})
            assert here.status_code == absent.status_code == 401, (operation, number, here.status_code)
            assert same(here, absent), (operation, number)
            page = call(client, operation, own(world), accept="text/html")
            assert page.status_code == 303 and page.headers["location"].startswith("/sign-in"), (operation, number)


@pytest.mark.checklist(17)
def test_every_act_of_a_page_needs_the_token_of_its_form(world: World) -> None:
    browser = world.browser()
    right = browser.headers.pop("x-csrf-token")
    other = world.browser("agent@example.org").headers["x-csrf-token"]
    for operation in guarded():
        method, path = filled(operation, own(world))
        if method not in CHANGES:
            continue
        for token in ("", "wrong", right[:-1], right + "x", other):
            for way in (
                {"data": {"csrf_token": token}},
                {"headers": {"x-csrf-token": token}},
                {"params": {"csrf_token": right}},
            ):
                world.clear_limits()
                answer = browser.request(method, path, **way)
                assert (answer.status_code, answer.json()["code"]) == (403, "csrf-token"), (operation, way)
    assert browser.get("/inbox").status_code == 200, "signing out needed the token, too"


@pytest.mark.checklist(20)
def test_an_agent_sees_nothing_of_the_admins_pages(world: World) -> None:
    agent = world.browser("agent@example.org")
    for operation in guarded("admin"):
        world.clear_limits()
        here, absent = call(agent, operation, own(world)), call(agent, operation, {})
        assert here.status_code == absent.status_code == 403 and same(here, absent), operation


@pytest.mark.checklist(20)
def test_what_is_absent_and_what_is_another_kind_look_the_same(world: World) -> None:
    browsers = {"admin": world.browser(), "agent": world.browser("agent@example.org")}
    tried = 0
    for operation in guarded():
        names = re.findall(r"\{(\w+_id)\}", operation)
        if not names or operation in NEEDS_MORE:
            continue
        for client in [browsers["admin"]] if PAGES[operation] == "admin" else browsers.values():
            world.clear_limits()
            gone, other = new_id(), world.ids["contact"]
            absent, foreign = (call(client, operation, dict.fromkeys(names, one)) for one in (gone, other))
            assert absent.status_code == 404, (
                f"{operation} answers {absent.status_code} for an id that does not exist: look the id up first, or give "
                "FORMS a form that is right in itself"
            )
            assert same(absent, foreign, gone, other), (operation, absent.text, foreign.text)
            for bad in ("1", "..%2f..%2fetc", "%27%20OR%201=1", "A" * 300, "0" * 36):
                answer = call(client, operation, dict.fromkeys(names, bad))
                assert answer.status_code in {404, 422}, (operation, bad, answer.status_code)
            tried += 1
    assert tried >= 40


BACK = frozenset({"thread_id", "open"})
"""Fields that only say which page comes next."""
NAMED: dict[tuple[str, str], tuple[str, dict[str, str]]] = {
    # an act and its field that names something -> what it names, and the rest of a form that is right in itself
    ("POST /inbox/{thread_id}/act", "assignee"): ("agent", {}),
    ("POST /inbox-bulk", "assignee"): ("agent", {"id": "THREAD"}),
    ("POST /inbox-bulk", "id"): ("thread", {"act": "done"}),
    ("POST /inbox-bulk", "ids"): ("thread", {"act": "done"}),
    ("POST /inbox/{thread_id}/draft", "suggestion_id"): ("suggestion", {"kind": "edit", "text": "hello"}),
    ("POST /inbox/{thread_id}/merge", "into"): ("thread", {"reason": "the same order"}),
}
_NAMES = re.compile(r"(^|_)ids?$|^(into|assignee|open)$")


def fields_of(route: APIRoute) -> set[str]:
    """The fields of the form that a route's function reads, by itself or through functions of its module."""
    module = sys.modules[route.endpoint.__module__]
    ahead, seen, found = [route.endpoint], set[str](), set[str]()
    while ahead:
        function = ahead.pop()
        if function.__name__ in seen:
            continue
        seen.add(function.__name__)
        for call in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function)))):
            if not isinstance(call, ast.Call):
                continue
            words = [one.value for one in call.args if isinstance(one, ast.Constant) and isinstance(one.value, str)]
            if ast.unparse(call.func) in {"form.get", "form.getlist"} or (
                call.args and ast.unparse(call.args[0]) == "form"
            ):
                found.update(words)
            other = getattr(module, ast.unparse(call.func), None)
            if inspect.isfunction(other) and other.__module__ == module.__name__:
                ahead.append(other)
    return found


@pytest.mark.checklist(20)
def test_an_id_in_a_form_is_refused_like_one_in_a_path_and_changes_nothing(world: World) -> None:
    found = {
        (operation, name)
        for operation, route in table(world)
        if operation.startswith("POST") and isinstance(route, APIRoute)
        for name in fields_of(route)
        if _NAMES.search(name) and name not in BACK and name != "form_id"
    }
    assert found == set(NAMED), (
        "say in NAMED what a new field names, or in BACK that it only says which page comes next"
    )
    client = world.browser("agent@example.org")
    for (operation, name), (kind, rest) in NAMED.items():
        form = {one: world.ids["thread"] if value == "THREAD" else value for one, value in rest.items()}
        before, answers = everything(world), []
        wrong = [new_id(), *(world.ids[one] for one in ("contact", "message", "profile") if one != kind)]
        for value in wrong:
            world.clear_limits()
            method, path = filled(operation, own(world))
            answers.append(client.request(method, path, data=form | {name: value}, headers={"accept": "*/*"}))
        assert 400 <= answers[0].status_code < 500, (operation, name, answers[0].status_code, answers[0].headers)
        for value, answer in zip(wrong, answers, strict=True):
            assert same(answers[0], answer, *wrong), (operation, name, value)
        for bad in ("1", "../../etc", "' OR 1=1", "A" * 300):
            world.clear_limits()
            method, path = filled(operation, own(world))
            answer = client.request(method, path, data=form | {name: bad})
            assert answer.status_code < 500, (operation, name, bad)
        assert everything(world) == before, (operation, name)


_INLINE = re.compile(r"<script(?![^>]*\bsrc=)[^>]*>|<style\b|\sstyle=|\son[a-z]+=|javascript:", re.I)
_ELSEWHERE = re.compile(r"""(?:src|href|action|hx-(?:get|post|put|delete))=["']?(?:https?:)?//""", re.I)
_DRAWN = {"GET /messages/{message_id}/frame"}
"""Its own document, whose style is allowed by its hash or in its sandbox: tests/api/test_inbox_html.py."""


@pytest.mark.checklist(47)
def test_no_page_has_code_in_it_or_names_another_host(world: World) -> None:
    """Every page of the table, with a thread, a suggestion and a stranger's words on it, under the policy that says the same."""
    browser, pages = world.browser(), 0
    for operation in PAGES:
        method, path = filled(operation, own(world))
        world.clear_limits()
        if method != "GET" or operation in _DRAWN:
            continue
        answer = browser.get(path, headers={"accept": "text/html"})
        if answer.headers.get("content-type", "").startswith("text/html"):
            pages += 1
            assert _INLINE.findall(answer.text) == [], operation
            assert _ELSEWHERE.findall(answer.text) == [], operation
            policy = answer.headers["content-security-policy"]
            assert "unsafe" not in policy and policy.startswith("default-src 'none'"), operation
            assert not re.search(r"script-src[^;]*(?:https?:|\*|data:)", policy), operation
    assert pages >= 15


def everything(world: World) -> dict[str, list[str]]:
    """Every row of every table but that which says when somebody was last seen."""
    with world.container.database.reading() as session:
        return {
            name: sorted(map(repr, session.execute(rows.select())))
            for name, rows in metadata.tables.items()
            if name != "agent_sessions"
        }
