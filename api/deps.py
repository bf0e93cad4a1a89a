"""What routes ask for: the container, a reading session, the transaction of the request, and who is calling.

`Transaction` ends with `scope="function"`: the commit happens before the answer leaves, so a failing commit is a 503 and never
a 201 for something that was not kept.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import structlog
from anyio.to_thread import run_sync
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from fastapi import Depends, Path
from fastapi.routing import APIRoute
from python_multipart.multipart import parse_options_header
from sqlalchemy.orm import Session
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from api.errors import ThreadMerged
from api.security import CSRF_HEADER, SAFE_METHODS, check_csrf, client_network, session_token
from assistant.backends.coordination import RULES
from assistant.db.access import Agent, AgentSession, ApiKey
from assistant.errors import InvalidInput, NotAllowed, NotAuthenticated, NotFound, StorageError
from assistant.services import access, answers, merging
from pipelines.container import Container

__all__ = [
    "Access",
    "ApiRoute",
    "Caller",
    "Id",
    "Parts",
    "Reading",
    "Transaction",
    "caller_of",
    "container_of",
]

Id = Annotated[
    str,
    Path(
        pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
        description="Identifier (UUIDv7).",
        examples=["019a0000-0000-7000-8000-000000000000"],
    ),
]
_log = structlog.get_logger(__name__)
_IDEMPOTENCY = re.compile(r"[\x21-\x7e]{1,255}")
_KEPT_HEADERS = ("content-type", "etag", "location")


def container_of(connection: HTTPConnection) -> Container:
    container = connection.app.state.container
    assert isinstance(container, Container)
    return container


def _container(request: Request) -> Container:
    return container_of(request)


Parts = Annotated[Container, Depends(_container)]


def _reading(container: Parts) -> Iterator[Session]:
    with container.database.reading() as session:
        yield session


def _transaction(request: Request, container: Parts) -> Iterator[Session]:
    try:
        with container.database.transaction() as session:
            request.state.transaction = session
            yield session
    except BaseException:
        # Also when the commit itself fails: the answer was ready but the act was not kept.
        _release(request, container)
        raise


Reading = Annotated[Session, Depends(_reading, scope="function")]
Transaction = Annotated[Session, Depends(_transaction, scope="function")]


# -- who is calling


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes the request: an agent's browser, or a program with a key (that acts for the agent who made it)."""

    agent: Agent | None
    opened: AgentSession | None = None
    key: ApiKey | None = None

    @property
    def actor(self) -> str:
        """For the audit trail and for counting."""
        if self.key is not None:
            return self.key.id
        assert self.agent is not None
        return self.agent.id

    @property
    def agent_id(self) -> str | None:
        return self.agent.id if self.agent is not None else None

    def require_agent(self) -> Agent:
        """The agent that an act is put down to. Raises `NotAllowed` for a key whose agent is gone."""
        if self.agent is None:
            raise NotAllowed("this key belongs to no agent any more; make a new one")
        return self.agent


def caller_of(connection: HTTPConnection) -> Caller | None:
    """Who calls, by key or by cookie; None when neither is there or neither counts. Looked up once a request.

    A wrong key is refused even beside a good cookie: a program must not act as the person whose browser it runs in.
    """
    state = connection.scope.setdefault("state", {})
    if "caller" not in state:
        state["caller"] = _authenticate(connection, container_of(connection))
    found: Caller | None = state["caller"]
    return found


def _authenticate(connection: HTTPConnection, container: Container) -> Caller | None:
    headers = connection.headers.getlist("authorization")
    if headers:
        return _by_key(headers, client_network(connection), container)
    token = session_token(connection, container.settings)
    with container.database.reading() as session:
        found = access.agent_of_session(session, token)
    if found is None:
        return None
    opened, agent = found
    if not access.is_fresh(opened.last_seen_at):
        _mark(container, lambda session: access.touch_session(session, opened.id))
    return Caller(agent, opened=opened)


def _by_key(headers: list[str], network: str, container: Container) -> Caller | None:
    scheme, _, secret = headers[0].partition(" ")
    with container.database.reading() as session:
        key = None
        if len(headers) == 1 and scheme.lower() == "bearer":
            key = access.verify_key(session, secret.strip())
        agent = access.find_agent(session, key.agent_id) if key is not None else None
    if key is None:
        container.limiter.hit(RULES["key-wrong"], network)
        return None
    if agent is not None and agent.disabled_at is not None:
        return None
    if not access.is_fresh(key.last_used_at):
        _mark(container, lambda session: access.touch_key(session, key.id))
    return Caller(agent, key=key)


def _mark(container: Container, touch: Callable[[Session], None]) -> None:
    """Note the use. A database that can be read and not written (a full disk) keeps no mark, and is read all the same."""
    try:
        with container.database.transaction() as session:
            touch(session)
    except StorageError as error:
        _log.warning("use_not_noted", reason=error.message)


class Access:
    """A route's rule: which scope a key needs, whether only a signed-in browser or only an admin may call.

    Every route has exactly one, or is on the public list (a test walks the route table).
    """

    ANY: ClassVar[str] = "*"
    """As a scope: every key, whatever it may do otherwise."""

    def __init__(self, scope: str | None = None, *, admin: bool = False, rule: str = "") -> None:
        self.scope = scope
        self.admin = admin
        self.rule = rule

    def __call__(self, request: Request) -> Caller:
        caller = caller_of(request)
        if caller is None:
            raise NotAuthenticated("sign in, or send an API key as Authorization: Bearer ntf_...")
        if caller.opened is not None and request.method not in SAFE_METHODS:
            check_csrf(caller.opened, request.headers.get(CSRF_HEADER, ""))
        rule = self.rule or ("read" if request.method in SAFE_METHODS else "write")
        container_of(request).limiter.hit(RULES[rule], caller.actor)
        if caller.key is not None and self.scope != self.ANY and self.scope not in caller.key.scopes:
            needed = f"the scope {self.scope}" if self.scope else "a signed-in agent, not a key"
            raise NotAllowed(f"this needs {needed}")
        if self.admin and (caller.agent is None or caller.agent.role != "admin"):
            raise NotAllowed("this needs an admin")
        return caller


# -- requests that may be repeated


class ApiRoute(APIRoute):
    """A route whose POST honours `Idempotency-Key`: the answer is stored in the very transaction of the act.

    Only a success is stored. Stored answers are encrypted, because some carry what is shown once. The id of a thread that was
    merged into another leads there (308).
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_found(request: Request) -> Response:
            try:
                return await handle_once(request)
            except NotFound as error:
                # Raised, not returned: what the request had begun is rolled back.
                raise await run_sync(_elsewhere, request) or error from None

        async def handle_once(request: Request) -> Response:
            if request.method != "POST" or "idempotency-key" not in request.headers:
                return await handle(request)
            if await run_sync(caller_of, request) is None:
                return await handle(request)  # the route's own rule answers; nobody's body is read for it
            body = await request.body()
            stored = await run_sync(_reserve, request, body)
            if stored is not None:
                return stored
            container = container_of(request)
            try:
                response = await handle(request)
                await run_sync(_complete, request, response)
            except BaseException:
                # With a transaction open, its own end gives the key back: SQLite has one writer at a time.
                if getattr(request.state, "transaction", None) is None:
                    await run_sync(_release, request, container)
                raise
            return response

        return handle_found


def _elsewhere(request: Request) -> ThreadMerged | None:
    """Where a thread's messages are now, when the path names one that was merged; None when it is there or never was."""
    thread_id = str(request.path_params.get("thread_id", ""))
    if not thread_id:
        return None
    with container_of(request).database.reading() as session:
        now = merging.now_at(session, thread_id)
    if not now or now == thread_id:
        return None
    url = request.url.path.replace(thread_id, now, 1) + (f"?{request.url.query}" if request.url.query else "")
    return ThreadMerged("the thread was merged into another one; repeat the request there", thread_id=now, location=url)


def _scope(request: Request, caller: Caller) -> str:
    return f"{caller.actor} {request.method} {request.url.path}"


def _cipher(container: Container) -> AESGCM:
    return AESGCM(hashlib.sha256(b"notifyr stored answers" + container.secret_key).digest())


def _reserve(request: Request, body: bytes) -> Response | None:
    keys = request.headers.getlist("idempotency-key")
    if len(keys) != 1 or not _IDEMPOTENCY.fullmatch(keys[0]):
        raise InvalidInput("an Idempotency-Key has 1 to 255 visible ASCII characters")
    caller = caller_of(request)
    if caller is None:
        return None  # the route's own rule answers
    if caller.opened is not None:
        check_csrf(caller.opened, request.headers.get(CSRF_HEADER, ""))
    container = container_of(request)
    scope = _scope(request, caller)
    about = json.dumps([request.url.query, request.headers.get("if-match", "")]).encode()
    request_hash = hashlib.sha256(about + b"\0" + _content(request, body)).hexdigest()
    with container.database.transaction() as session:
        found = answers.reserve(session, scope, key=keys[0], request_hash=request_hash)
    if isinstance(found, str):
        request.state.reservation = found
        return None
    try:
        sealed = bytes.fromhex(found.body)
        content = _cipher(container).decrypt(sealed[:12], sealed[12:], scope.encode())
    except (ValueError, InvalidTag):
        # The secret key was changed since: the act is done, but its answer can no longer be read.
        raise answers.KeyReused("the first answer to this key cannot be read any more") from None
    return Response(content, found.status, dict(found.headers) | {"Idempotency-Replayed": "true"})


def _content(request: Request, body: bytes) -> bytes:
    """What makes a request the same again. The line between the parts of a form is another one in each try."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary", b"")
    return body.replace(boundary, b"") if kind == b"multipart/form-data" and boundary else body


def _complete(request: Request, response: Response) -> None:
    reservation = getattr(request.state, "reservation", None)
    if reservation is None:
        return
    container = container_of(request)
    session: Session | None = getattr(request.state, "transaction", None)
    caller = caller_of(request)
    if session is None or caller is None:
        _release(request, container)
        return
    if response.status_code >= 300:
        answers.release(session, reservation)
        return
    nonce = hashlib.sha256(reservation.encode()).digest()[
        :12
    ]  # a reservation is sealed once, so its id may be the nonce
    sealed = nonce + _cipher(container).encrypt(nonce, bytes(response.body), _scope(request, caller).encode())
    headers = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
    answers.complete(session, reservation, status=response.status_code, body=sealed.hex(), headers=headers)


def _release(request: Request, container: Container) -> None:
    reservation = getattr(request.state, "reservation", None)
    if reservation is None:
        return
    request.state.reservation = None
    with container.database.transaction() as session:
        answers.release(session, reservation)
