"""Every error answer: one table, one form (RFC 9457), stable codes, a request id, and nothing about the inside."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import compile_path

import assistant.services.answers
import assistant.services.paging  # noqa: F401  (errors of both belong to the table of codes)
from assistant.errors import NotifyrError

__all__ = [
    "CODES",
    "PROBLEM",
    "BadRequest",
    "ThreadMerged",
    "UnsupportedMedia",
    "install",
    "problem",
    "problem_of",
    "shown",
    "type_of",
]

PROBLEM = "application/problem+json"
_log = structlog.get_logger(__name__)

Renderer = Callable[[Request, dict[str, Any]], Awaitable[Response]]


class UnsupportedMedia(NotifyrError):
    code, status, title = "unsupported-media-type", 415, "Send another content type"


class BadRequest(NotifyrError):
    code, status, title = "bad-request", 400, "The request is not valid"


class MisdirectedRequest(NotifyrError):
    code, status, title = "unknown-host", 421, "This server does not answer for that host"


class ForeignOrigin(NotifyrError):
    code, status, title = "foreign-origin", 403, "The request comes from another site"


class MissingCsrfToken(NotifyrError):
    code, status, title = "csrf-token", 403, "The page's token is missing or wrong"


class MethodNotAllowed(NotifyrError):
    code, status, title = "method-not-allowed", 405, "That method is not available here"


class ThreadMerged(NotifyrError):
    """The same request, with its method and body, is answered elsewhere. A merge can be taken back: nobody keeps this answer."""

    code, status, title = "thread-merged", 308, "The thread was merged into another one"

    def __init__(self, message: str, *, thread_id: str, location: str) -> None:
        super().__init__(message, detail={"thread_id": thread_id})
        self.location = location


def _tree(root: type[NotifyrError]) -> Iterator[type[NotifyrError]]:
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)


CODES: dict[str, tuple[int, str]] = {kind.code: (kind.status, kind.title) for kind in _tree(NotifyrError)}
"""Every code with its status and title. Codes are part of the API: they are never renamed."""
_BY_STATUS = {
    400: "bad-request",
    404: "not-found",
    405: "method-not-allowed",
    413: "too-large",
    415: UnsupportedMedia.code,
}


def type_of(code: str) -> str:
    return f"urn:notifyr:problem:{code}"


def problem_of(
    code: str, *, detail: str = "", request_id: str = "", extra: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The document for one code; `extra` are public facts, for example the agent who was faster."""
    status, title = CODES[code]
    document: dict[str, Any] = {
        "type": type_of(code),
        "title": title,
        "status": status,
        "detail": detail or title,
        "code": code,
        "request_id": request_id,
    }
    return document | {name: value for name, value in (extra or {}).items() if name not in document}


def problem(error: NotifyrError, *, request_id: str = "") -> Response:
    """The answer to one of our errors. Above 500 only its title is told: the rest may be about the inside."""
    detail = error.message if error.status < 500 else ""
    document = problem_of(error.code, detail=detail, request_id=request_id, extra=error.detail)
    headers = {}
    if error.delay is not None or error.retryable:
        headers["Retry-After"] = str(max(1, round(error.delay or 1)))
    if isinstance(error, ThreadMerged):
        headers["Location"] = error.location
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="notifyr"'
    return _respond(document, headers)


def _respond(document: dict[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    body = json.dumps(document, ensure_ascii=False, default=str).encode("utf-8", "replace")
    return Response(body, document["status"], dict(headers or {}), PROBLEM)


def request_id_of(request: Request) -> str:
    return str(request.scope.get("state", {}).get("request_id", ""))


def install(app: FastAPI) -> None:
    """Answer every failure of `app` in one form. Pages may set `app.state.render_problem` to show them to people."""

    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, NotifyrError)
        if error.status >= 500:
            _log.warning("request_failed", code=error.code, reason=error.message)
        return await shown(request, problem(error, request_id=request_id_of(request)))

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        # Neither the input nor the name of a class goes back: only where it is wrong, and what is wanted.
        errors = [
            {"pointer": "/" + "/".join(str(part) for part in item["loc"]), "message": str(item["msg"])}
            for item in error.errors()
        ]
        document = problem_of(
            "invalid-input",
            detail="some fields are not valid; see errors",
            request_id=request_id_of(request),
            extra={"errors": errors[:50]},
        )
        return await shown(request, _respond(document))

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = _BY_STATUS.get(error.status_code, "bad-request" if error.status_code < 500 else "internal")
        document = problem_of(code, request_id=request_id_of(request))
        headers = dict(error.headers or {})
        if error.status_code == 405:
            headers["Allow"] = ", ".join(sorted(_allowed(app, request.url.path)))
        return await shown(request, _respond(document, headers))

    app.add_exception_handler(NotifyrError, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)


def _allowed(app: FastAPI, path: str) -> set[str]:
    """What may be done at a path: every route there, not only the first (RFC 9110, section 10.2.1)."""
    return {
        method
        for context in iter_route_contexts(app.routes)
        if isinstance(route := context.original_route, APIRoute) and compile_path(str(context.path))[0].match(path)
        for method in route.methods or ()
    }


async def shown(request: Request, answer: Response) -> Response:
    """The same error as a page, where a browser asks for one; the answer itself where that cannot be drawn either."""
    render: Renderer | None = getattr(request.app.state, "render_problem", None)
    if render is None or request.url.path.startswith("/api/") or "text/html" not in request.headers.get("accept", ""):
        return answer
    try:
        page = await render(request, json.loads(bytes(answer.body)))
    except Exception:  # noqa: BLE001  # whatever broke the page may break this one, too
        _log.exception("error_page_broke")
        return answer
    for name in ("retry-after", "allow"):
        if name in answer.headers:
            page.headers[name] = answer.headers[name]
    return page
