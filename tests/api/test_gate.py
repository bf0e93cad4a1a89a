"""The gate: host, origin, CSRF, bodies, headers and errors, on every route."""

from __future__ import annotations

import contextlib
import json
import time

import httpx
import pytest
from fastapi.routing import APIRoute, iter_route_contexts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.errors import CODES, BadRequest
from api.openapi import rules
from api.security import MAX_BODY, parse_json
from tests.api.conftest import World

CHANGES = ("POST", "PUT", "PATCH", "DELETE")


def changing(world: World) -> list[tuple[str, str]]:
    """Every state-changing route of the whole application, pages too, with its ids filled in."""
    found = []
    for context in iter_route_contexts(world.app.routes):
        if isinstance(context.original_route, APIRoute):
            path = str(context.path)
            for name in context.original_route.param_convertors:
                path = path.replace("{" + name + "}", world.ids.get(name.removesuffix("_id"), world.ids["thread"]))
            found += [(method, path) for method in context.original_route.methods if method in CHANGES]
    return found


@pytest.mark.checklist(17)
def test_every_change_refuses_a_foreign_origin(world: World) -> None:
    browser = world.browser()
    for method, path in changing(world):
        for headers in (
            {"origin": "https://evil.example"},
            {"origin": "null"},
            {"origin": world.url.replace("127.0.0.1", "127.0.0.1.evil.example")},
            {"sec-fetch-site": "cross-site"},
        ):
            answer = browser.request(method, path, headers=headers, json={})
            assert (answer.status_code, answer.json()["code"]) == (403, "foreign-origin"), (method, path, headers)


@pytest.mark.checklist(17)
def test_every_change_by_a_browser_needs_the_page_token(world: World) -> None:
    browser = world.browser()
    right = browser.headers.pop("x-csrf-token")
    public = {"/api/v1/auth/sign-in", "/api/v1/auth/link"}
    for method, path in changing(world):
        if not path.startswith("/api/") or path in public:
            continue
        for token in ("", "wrong", right[:-1], right + "x"):
            for extra in ({}, {"idempotency-key": "k"}):
                answer = browser.request(method, path, headers={"x-csrf-token": token} | extra, json={})
                assert (answer.status_code, answer.json()["code"]) == (403, "csrf-token"), (method, path)
    assert browser.get("/api/v1/threads").status_code == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonp"])
@pytest.mark.checklist(17)
def test_json_in_another_content_type_is_refused(world: World, kind: str) -> None:
    answer = world.client().post("/api/v1/auth/sign-in", content=b'{"email": "a@b.co"}', headers={"content-type": kind})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported-media-type")


@pytest.mark.checklist(17)
def test_no_change_by_the_api_takes_what_a_form_of_another_site_can_send(world: World) -> None:
    """JSON under a content type that a browser sends without asking us first, on every route and not on one."""
    browser = world.browser()
    for method, path in changing(world):
        for kind in ("text/plain", "application/x-www-form-urlencoded"):
            if path.startswith("/api/"):
                answer = browser.request(method, path, content=b'{"text": "hello"}', headers={"content-type": kind})
                assert (answer.status_code, answer.json()["code"]) == (415, "unsupported-media-type"), (method, path)


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "user@127.0.0.1", "", "[", "127.0.0.1/x"])
def test_another_host_name_is_refused(world: World, host: str) -> None:
    answer = world.client().get("/livez", headers={"host": host})
    assert answer.status_code in {400, 421}


def test_own_names_are_answered(world: World) -> None:
    port = world.url.rpartition(":")[2]
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", "LOCALHOST"):
        assert world.client().get("/livez", headers={"host": host}).status_code == 200


def test_a_body_over_the_limit_is_refused_before_it_is_parsed(world: World) -> None:
    headers = {"content-type": "application/json"}
    whole = world.client().post("/api/v1/auth/sign-in", content=b" " * (MAX_BODY + 1), headers=headers)
    assert (whole.status_code, whole.json()["code"]) == (413, "too-large")

    def endless():  # type: ignore[no-untyped-def]
        for _ in range(40):
            yield b" " * 65_536

    try:
        chunked = world.client().post("/api/v1/auth/sign-in", content=endless(), headers=headers)
        assert chunked.status_code == 413
    except httpx.TransportError:
        pass  # it answered and hung up while the rest was still coming


def test_a_compressed_body_is_refused(world: World) -> None:
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    assert world.client().post("/api/v1/auth/sign-in", content=b"x", headers=headers).status_code == 415


@pytest.mark.parametrize(
    "body",
    [
        '{"email": "a@b.co", "email": "c@d.co", "password": "x"}',
        '{"email": "a@b.co", "password": NaN}',
        '{"email": "a@b.co", "password": 1e999}',
        '{"email": "a@b.co", "password": -Infinity}',
        '{"email": "a@b.co", "password": 9007199254740993}',
        '{"email": "a@b.co", "password": ' + "9" * 100_000 + "}",
        '{"email": "a\\u0000@b.co", "password": "x"}',
        '{"email": "\\ud800@b.co", "password": "x"}',
        "[" * 33 + "]" * 33,
        "[" * 100_000,
        '{"a":' * 5_000 + "1" + "}" * 5_000,
        '{"email"',
    ],
    ids=lambda body: body[:30],
)
def test_json_that_could_mean_two_things_is_refused(world: World, body: str) -> None:
    started = time.monotonic()
    answer = world.client().post(
        "/api/v1/auth/sign-in", content=body.encode(), headers={"content-type": "application/json"}
    )
    assert (answer.status_code, answer.json()["code"]) == (400, "bad-request")
    assert time.monotonic() - started < 15


@settings(max_examples=300, deadline=None)
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**53) + 1, 2**53 - 1)
        | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), inner, max_size=3
            )
        ),
        max_leaves=20,
    )
)
def test_ordinary_json_is_read_as_it_stands(value: object) -> None:
    assert parse_json(json.dumps(value).encode()) == value


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    with contextlib.suppress(BadRequest):
        parse_json(body)


def test_every_answer_carries_the_security_headers(world: World) -> None:
    client = world.browser()
    answers = [
        client.get("/livez"),
        client.get("/api/v1/threads"),
        client.get("/nothing-here"),
        client.get("/api/v1/threads/not-an-id"),
        client.put("/api/v1/threads"),
        client.post("/api/v1/threads", headers={"origin": "https://evil.example"}),
        client.get("/livez", headers={"host": "evil.example"}),
        world.client().get("/api/v1/threads"),
        client.get(f"/api/v1/attachments/{world.ids['attachment']}"),
    ]
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'") and "unsafe" not in policy
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert "server" not in answer.headers and len(answer.headers["x-request-id"]) == 36


@pytest.mark.checklist(27)
def test_every_error_is_a_problem_document_with_a_listed_code(world: World) -> None:
    client = world.browser()
    for answer in (
        world.client().get("/api/v1/threads"),
        client.get("/nothing"),
        client.put("/api/v1/threads"),
        client.get("/api/v1/threads?limit=0"),
        client.get("/api/v1/threads?cursor=zzz"),
        client.get(f"/api/v1/threads/{'0' * 8}-0000-7000-8000-{'0' * 12}"),
        client.post("/api/v1/auth/sign-in", content=b"{", headers={"content-type": "application/json"}),
    ):
        body = answer.json()
        assert answer.headers["content-type"] == "application/problem+json"
        assert CODES[body["code"]][0] == answer.status_code == body["status"]
        assert body["type"].endswith(body["code"]) and body["request_id"] == answer.headers["x-request-id"]


@pytest.mark.checklist(27)
def test_a_broken_route_tells_nothing_about_the_inside(world: World) -> None:
    def broken() -> None:
        raise RuntimeError("SELECT password FROM agents; /srv/notifyr/secret.py")

    world.app.add_api_route("/broken", broken)
    answer = world.client().get("/broken")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    page = world.browser().get("/broken", headers={"accept": "text/html"})
    assert page.status_code == 500 and page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "Go to the inbox" in page.text and page.headers["x-request-id"] in page.text
    for word in ("RuntimeError", "SELECT", "Traceback", "secret.py", "/srv"):
        assert word not in answer.text + page.text


def test_what_breaks_its_error_page_too_is_still_answered(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("the templates are gone")

    monkeypatch.setattr(world.app.state, "render_problem", broken)
    answer = world.client().get("/nowhere", headers={"accept": "text/html"})
    assert (answer.status_code, answer.json()["code"]) == (404, "not-found")


def test_a_request_that_the_gate_refuses_is_a_page_for_a_browser(world: World) -> None:
    answer = world.client(accept="text/html").post("/sign-in", headers={"origin": "https://evil.example"})
    assert answer.status_code == 403 and answer.headers["content-type"].startswith("text/html")
    assert "foreign-origin" in answer.text


@pytest.mark.checklist(27)
def test_a_database_that_refuses_is_503_without_its_words(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from sqlalchemy.exc import OperationalError

    from assistant.services import overview

    browser = world.browser()

    def refuse(*_: object, **__: object) -> None:
        raise OperationalError("SELECT secret", {}, Exception("disk I/O error at /var/x"))

    monkeypatch.setattr(overview, "counts", refuse)
    answer = browser.get("/api/v1/counts")
    assert (answer.status_code, answer.json()["code"]) == (503, "storage")
    assert "retry-after" in answer.headers and "SELECT" not in answer.text and "disk" not in answer.text


def test_an_answer_is_not_given_for_what_was_not_kept(world: World) -> None:
    """The commit comes before the answer: when it fails, the caller hears 503, never 201."""
    from sqlalchemy import event
    from sqlalchemy.exc import OperationalError

    browser = world.browser()
    engine = world.container.database.engine
    written: list[str] = []

    def note(_c: object, _cursor: object, statement: str, *_: object) -> None:
        if "INTO api_keys" in statement:
            written.append(statement)

    def refuse(_c: object) -> None:
        if written:
            written.clear()
            raise OperationalError("COMMIT", {}, Exception("disk full"))

    event.listen(engine, "before_cursor_execute", note)
    event.listen(engine, "commit", refuse)
    body = {"name": "lost", "scopes": ["threads:read"]}
    answers = [
        browser.post("/api/v1/keys", json=body),
        browser.post("/api/v1/keys", json=body, headers={"idempotency-key": "k"}),
    ]
    event.remove(engine, "commit", refuse)
    event.remove(engine, "before_cursor_execute", note)
    assert [answer.status_code for answer in answers] == [503, 503]
    assert "lost" not in browser.get("/api/v1/keys").text
    assert browser.post("/api/v1/keys", json=body, headers={"idempotency-key": "k"}).status_code == 201


def test_identity_in_headers_is_nobody(world: World) -> None:
    for name in ("x-forwarded-user", "x-remote-user", "x-account", "x-agent-id", "remote-user", "x-api-key"):
        assert world.client(**{name: world.ids["admin"]}).get("/api/v1/threads").status_code == 401


def test_a_forwarded_address_does_not_change_what_is_counted(world: World) -> None:
    body = {"email": "admin@example.org", "password": "wrong"}
    codes = [
        world.client().post("/api/v1/auth/sign-in", json=body, headers={"x-forwarded-for": f"8.8.8.{n}"}).status_code
        for n in range(11)
    ]
    assert codes[-1] == 429


@pytest.mark.checklist(66)
def test_metrics_are_for_this_machine_or_a_key(world: World) -> None:
    assert world.client().get("/metrics").status_code == 200
    assert "notifyr_http_seconds" in world.client().get("/metrics").text
    behind_proxy = world.client(**{"x-forwarded-for": "8.8.8.8"})
    assert behind_proxy.get("/metrics").status_code == 401
    assert world.program("threads:read").get("/metrics").status_code == 403
    key = world.program("metrics:read")
    assert key.get("/metrics", headers={"x-forwarded-for": "8.8.8.8"}).status_code == 200


@pytest.mark.checklist(66)
def test_interactive_documentation_and_debug_pages_are_not_served(world: World) -> None:
    for path in ("/docs", "/redoc", "/openapi.json", "/debug", "/admin", "/.env", "/api/v1/openapi.json"):
        assert world.client().get(path).status_code in {401, 404}, path
    assert world.program("threads:read").get("/api/v1/openapi.json").json()["openapi"].startswith("3.")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=80), st.from_regex(rb"(Bearer|bearer|Basic) ntf_[a-z0-9_]{0,90}", fullmatch=True)))
@pytest.mark.checklist(11)
def test_no_authorization_header_breaks_anything(world: World, value: bytes) -> None:
    value = value.replace(b"\r", b"").replace(b"\n", b"").replace(b"\0", b"").strip()
    try:
        answer = world.client().get("/api/v1/threads", headers=[(b"authorization", value)])
    except (httpx.LocalProtocolError, httpx.RemoteProtocolError):
        return
    assert answer.status_code in {400, 401, 429}


@pytest.mark.checklist(11)
def test_two_authorization_headers_are_refused(world: World) -> None:
    key = world.program("threads:read").headers["authorization"]
    answer = world.client().get("/api/v1/threads", headers=[("authorization", key), ("authorization", key)])
    assert answer.status_code == 401


def test_every_route_is_guarded_or_listed_as_public(world: World) -> None:
    from api.openapi import PUBLIC

    bare = {at for at, guard in rules(world.app).items() if guard is None and at[1].startswith("/api/")}
    assert bare == {at for at in PUBLIC if at[1].startswith("/api/")}


def test_a_person_gets_an_error_page_with_code_and_request_id_and_a_program_the_document(world: World) -> None:
    browser = world.browser()
    page = browser.get("/nothing-here", headers={"accept": "text/html,*/*"})
    assert page.status_code == 404 and page.headers["content-type"].startswith("text/html")
    assert "not-found" in page.text and page.headers["x-request-id"] in page.text
    assert browser.get("/nothing-here").headers["content-type"] == "application/problem+json"
    data = browser.get("/api/v1/nothing", headers={"accept": "text/html"})
    assert data.headers["content-type"] == "application/problem+json"
