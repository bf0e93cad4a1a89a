"""The gate in front of every request: host, origin, size and form of the body, security headers, request id.

And the cookie of a signed-in browser: how it is named, set and checked. Nothing here knows a route.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import math
from typing import Any
from urllib.parse import urlsplit

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import errors
from assistant.backends.coordination import RULES, network_of
from assistant.clock import monotonic, new_id
from assistant.db.access import Agent, AgentSession
from assistant.errors import NotAuthenticated, NotifyrError, TooLarge
from assistant.services import access
from assistant.settings import LOOPBACK, Settings
from assistant.telemetry import METRICS
from pipelines.container import Container

__all__ = [
    "MAX_BODY",
    "MAX_UPLOAD",
    "PAGE_POLICY",
    "Gate",
    "check_csrf",
    "client_network",
    "cookie_name",
    "forget_cookie",
    "is_secure",
    "parse_json",
    "session_token",
    "set_cookie",
    "sign_in",
    "sign_in_by_link",
    "strict_json",
]

MAX_BODY = 1_000_000
MAX_UPLOAD = 30_000_000
MAX_DEPTH = 32
MAX_NUMBER = 2**53 - 1
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_METHODS = SAFE_METHODS | {"POST", "PUT", "PATCH", "DELETE"}
CSRF_HEADER = "x-csrf-token"

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; "
    "frame-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_DATA_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox"
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cache-Control": "no-store",
}
"""On every answer, unless the route set its own."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_log = structlog.get_logger("notifyr.http")


# -- bodies


def parse_json(body: bytes) -> Any:
    """Parse JSON that means one thing only. Raises `BadRequest`.

    Refused: duplicate keys, NaN and infinities, integers beyond 2**53, more than 32 levels, NUL and lone surrogates in text.
    """
    try:
        value = json.loads(
            body.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=_bounded_int
        )
    except UnicodeDecodeError:
        raise errors.BadRequest("the body is not UTF-8") from None
    except RecursionError:
        raise errors.BadRequest(f"the body has more than {MAX_DEPTH} levels") from None
    except json.JSONDecodeError as error:
        raise errors.BadRequest(f"the body is not JSON (at character {error.pos})") from None
    _check(value)
    return value


def strict_json(body: bytes) -> None:
    """Raise `BadRequest` unless `body` is JSON that `parse_json` takes."""
    parse_json(body)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise errors.BadRequest("a name occurs twice in one object of the body")
    return found


def _no_constant(_: str) -> Any:
    raise errors.BadRequest("numbers in the body must be finite")


def _bounded_int(text: str) -> int:
    # Checked by length first: turning a million digits into an integer takes quadratic time.
    if len(text) > 17 or abs(int(text)) > MAX_NUMBER:
        raise errors.BadRequest("integers in the body must lie within 2**53")
    return int(text)


def _check(value: Any) -> None:
    level = [value]
    depth = 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise errors.BadRequest(f"the body has more than {MAX_DEPTH} levels")
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                for name in item:
                    _check_text(name)
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
            elif isinstance(item, str):
                _check_text(item)
            elif isinstance(item, float) and not math.isfinite(item):
                raise errors.BadRequest("numbers in the body must be finite")
        level = below


def _check_text(text: str) -> None:
    if "\0" in text or any("\ud800" <= c <= "\udfff" for c in text):
        raise errors.BadRequest("text in the body must be valid Unicode without NUL")


# -- the gate


class Gate:
    """ASGI middleware round the whole application; also the last place where an exception can arrive."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.secure = is_secure(settings)
        public = urlsplit(settings.base_url)
        self.hosts = {public.hostname or "", settings.host.lower(), *(_hostname(h) for h in settings.allowed_hosts)}
        if settings.host in LOOPBACK:
            self.hosts |= LOOPBACK
        self.hosts -= {"", "0.0.0.0", "::"}  # noqa: S104  (taken off the list, not listened on)
        self.proxies = tuple(ipaddress.ip_network(one) for one in settings.trusted_proxies)
        self.public_origin = f"{public.scheme}://{public.netloc}".lower()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.proxies and scope["type"] in {"http", "websocket"}:
            scope["client"] = _client_behind(self.proxies, scope)
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        origin = headers.get("origin", "")
        if not self._known_host(headers) or not origin or not self._own_origin(origin, headers):
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": "origin"})
            return
        await self.app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = new_id()
        scope.setdefault("state", {})["request_id"] = request_id
        started = monotonic()
        status = 500
        answered = False

        async def outgoing(message: Message) -> None:
            nonlocal status, answered
            if message["type"] == "http.response.start":
                status, answered = message["status"], True
                self._finish(MutableHeaders(scope=message), request_id)
            await send(message)

        structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            receive = await self._admit(scope, receive)
            await self.app(scope, receive, outgoing)
        except NotifyrError as error:
            if answered:
                raise
            await self._tell(error, request_id, scope, receive, outgoing)
        except Exception:
            _log.exception("request_broke")
            if answered:
                raise
            await self._tell(NotifyrError(""), request_id, scope, receive, outgoing)
        finally:
            seconds = monotonic() - started
            # Templates, not paths: an id in a label would make a series of its own, a query may carry what somebody typed.
            route = getattr(scope.get("route"), "path", "unmatched")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            METRICS.http_seconds.labels(method, route, str(status)).observe(seconds)
            _log.info("request", method=method, route=route, status=status, milliseconds=round(seconds * 1000, 1))
            structlog.contextvars.unbind_contextvars("request_id")

    async def _tell(self, error: NotifyrError, request_id: str, scope: Scope, receive: Receive, send: Send) -> None:
        answer = await errors.shown(Request(scope), errors.problem(error, request_id=request_id))
        await answer(scope, receive, send)

    async def _admit(self, scope: Scope, receive: Receive) -> Receive:
        headers = Headers(scope=scope)
        if not self._known_host(headers):
            raise errors.MisdirectedRequest("set NOTIFYR_PUBLIC_URL or NOTIFYR_ALLOWED_HOSTS to reach it by that name")
        if "\0" in scope["path"] or b"%00" in scope["query_string"] or b"\0" in scope["query_string"]:
            raise errors.BadRequest("a NUL character is not allowed")
        if scope["method"] in SAFE_METHODS:
            return receive
        origin = headers.get("origin")
        site = headers.get("sec-fetch-site", "same-origin")
        if (origin is not None and not self._own_origin(origin, headers)) or (
            origin is None and site not in {"same-origin", "none"}
        ):
            raise errors.ForeignOrigin("changes are only taken from this server's own pages")
        return await self._body(scope, receive, headers)

    async def _body(self, scope: Scope, receive: Receive, headers: Headers) -> Receive:
        """The body, bounded before anything parses it; JSON and forms are held, uploads are only counted."""
        if headers.get("content-encoding", "identity") != "identity":
            raise errors.UnsupportedMedia("send the body without compression")
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        upload = kind == "multipart/form-data"
        limit = MAX_UPLOAD if upload else MAX_BODY
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit():
            raise errors.BadRequest("Content-Length is not a number")
        if len(length) > 12 or int(length) > limit:
            raise TooLarge(f"the body may have {limit} bytes")
        if upload:
            return _counted(receive, limit)
        body = await _read(receive, limit)
        if body and scope["path"].startswith("/api/") and kind != "application/json":
            raise errors.UnsupportedMedia("the API takes application/json")
        if body and kind == "application/json":
            strict_json(body)
        return _replay(body, receive)

    def _finish(self, headers: MutableHeaders, request_id: str) -> None:
        headers["X-Request-Id"] = request_id
        for name, value in _HEADERS.items():
            headers.setdefault(name, value)
        if "content-security-policy" not in headers:
            html = headers.get("content-type", "").startswith("text/html")
            headers["Content-Security-Policy"] = PAGE_POLICY if html else _DATA_POLICY
        if self.secure:
            headers.setdefault("Strict-Transport-Security", "max-age=31536000; includeSubDomains")

    def _known_host(self, headers: Headers) -> bool:
        hosts = headers.getlist("host")
        return len(hosts) == 1 and _hostname(hosts[0]) in self.hosts

    def _own_origin(self, origin: str, headers: Headers) -> bool:
        """A page of ours: the public URL, or the very host that this request was sent to."""
        origin = origin.lower()
        host = headers.get("host", "").lower()
        return origin == self.public_origin or origin in {f"http://{host}", f"https://{host}"}


def _client_behind(proxies: tuple[Network, ...], scope: Scope) -> tuple[str, int] | None:
    """Who asks, when a proxy of ours passed it on: the last address of `X-Forwarded-For` that is not ours too.

    Each proxy adds the address it saw at the end. What stands before the last foreign one is that client's own word.
    """
    client: tuple[str, int] | None = scope.get("client")
    said = [part.strip() for line in Headers(scope=scope).getlist("x-forwarded-for") for part in line.split(",")]
    while client is not None and said and _is_one_of(proxies, client[0]):
        address = said.pop().strip("[]")
        if _address(address) is None:
            break
        client = (address, 0)
    return client


def _is_one_of(proxies: tuple[Network, ...], address: str) -> bool:
    found = _address(address)
    return found is not None and any(found in network for network in proxies)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def _hostname(host: str) -> str:
    """The name in a Host header, without port and brackets; empty when it is not one."""
    try:
        parts = urlsplit(f"//{host.lower()}")
        _ = parts.port
    except ValueError:
        return ""
    if parts.username is not None or parts.path or parts.query or parts.fragment:
        return ""
    return parts.hostname or ""


async def _read(receive: Receive, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise errors.BadRequest("the client went away")
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise TooLarge(f"the body may have {limit} bytes")
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _counted(receive: Receive, limit: int) -> Receive:
    size = 0

    async def counted() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > limit:
            raise TooLarge(f"an upload may have {limit} bytes")
        return message

    return counted


# -- the cookie of a signed-in browser


def is_secure(settings: Settings) -> bool:
    """Whether people reach the inbox over https, so that the cookie can be `Secure`."""
    return settings.base_url.lower().startswith("https://")


def cookie_name(settings: Settings) -> str:
    return "__Host-notifyr" if is_secure(settings) else "notifyr"


def set_cookie(response: Response, settings: Settings, token: str) -> None:
    """HttpOnly, SameSite=Lax, bound to this host and path /; `Secure` with the `__Host-` prefix over https."""
    response.set_cookie(
        cookie_name(settings),
        token,
        max_age=settings.session_hours * 3600,
        path="/",
        secure=is_secure(settings),
        httponly=True,
        samesite="lax",
    )


def forget_cookie(response: Response, settings: Settings) -> None:
    response.delete_cookie(cookie_name(settings), path="/", secure=is_secure(settings), httponly=True, samesite="lax")


def session_token(connection: HTTPConnection, settings: Settings) -> str:
    return connection.cookies.get(cookie_name(settings), "")


def check_csrf(opened: AgentSession, presented: str) -> None:
    """Raise unless the page's token (header `X-CSRF-Token` or form field `csrf_token`) is the session's."""
    if not hmac.compare_digest(opened.csrf_token.encode(), presented.encode("utf-8", "replace")):
        raise errors.MissingCsrfToken("reload the page and try again")


def client_network(connection: HTTPConnection) -> str:
    """What a caller is rate-limited under: the peer's address, or the one that a trusted proxy names (`Gate`)."""
    return network_of(connection.client.host if connection.client else "")


# -- signing in


def sign_in(
    container: Container, email: str, *, password: str, network: str, old_token: str = ""
) -> tuple[str, AgentSession, Agent]:
    """Check a password and open a session under a new id: the cookie's token, the session, the agent.

    Raises `NotAuthenticated` with the same words for an unknown address, a wrong password and a disabled account;
    `RateLimited`; `StorageError` while tries cannot be counted. The hash is computed with no transaction open.
    """
    account = email.strip().lower()
    limiter = container.limiter
    limiter.hit(RULES["sign-in-network"], network)
    limiter.hit(RULES["sign-in-pair"], account, network)
    if not limiter.trusted(account, network):
        limiter.hit(RULES["sign-in-account"], account)
    with container.database.reading() as session:
        credentials = access.credentials_of(session, account)
    right = access.password_matches(credentials, password)
    with container.database.transaction() as session:
        access.audit(
            session, credentials.agent_id if right else network, action="sign-in" if right else "sign-in.failed"
        )
        if right:
            agent = access.get_agent(session, credentials.agent_id)
            token, opened = access.open_session(
                session, agent.id, hours=container.settings.session_hours, replaces=old_token
            )
    if not right:
        raise NotAuthenticated("the address or the password is not right")
    limiter.forget(RULES["sign-in-pair"], account, network)
    limiter.trust(account, network)
    return token, opened, agent


def sign_in_by_link(
    container: Container, link: str, *, network: str, password: str | None = None, old_token: str = ""
) -> tuple[str, AgentSession, Agent]:
    """Use a one-time link up, set the password when one is given, and open a session. Raises as `sign_in` does."""
    container.limiter.hit(RULES["link"], network)
    with container.database.transaction() as session:
        agent = access.use_link(session, link)
        if password is not None:
            access.set_password(session, agent.id, password=password, actor=agent.id)
        token, opened = access.open_session(
            session, agent.id, hours=container.settings.session_hours, replaces=old_token
        )
    container.limiter.trust(agent.email, network)
    return token, opened, agent
