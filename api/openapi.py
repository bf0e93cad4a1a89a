"""The OpenAPI document, made the same way every time: error media types, security per operation, stable order."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.requests import Request
from starlette.responses import Response

from api.deps import Access, ApiRoute, Caller
from api.errors import CODES, PROBLEM
from api.routers.common import FAILS
from assistant.services.access import SCOPES

__all__ = ["PUBLIC", "document", "install", "render", "router", "rules"]

PUBLIC = frozenset(
    {
        ("GET", "/livez"),
        ("GET", "/readyz"),
        ("POST", "/api/v1/auth/sign-in"),
        ("POST", "/api/v1/auth/link"),
    }
)
"""Operations that need nobody signed in. A test fails when a route is neither here nor guarded."""
_DESCRIPTION = """Errors are problem documents (RFC 9457) with a stable `code`; see `x-problem-codes`.
Lists are paged by an opaque cursor. A POST with an `Idempotency-Key` may be repeated safely for 48 hours.
The id of a thread that was merged into another one answers 308 with the same request there; taking the merge back ends that.
Programs send `Authorization: Bearer ntf_...`; browsers use the session cookie with `X-CSRF-Token` on every change."""

router = APIRouter(prefix="/api/v1", tags=["health"], route_class=ApiRoute, responses=FAILS)


@router.get(
    "/openapi.json",
    operation_id="openapi",
    response_class=Response,
    responses={200: {"description": "The document.", "content": {"application/json": {}}}},
)
def openapi_document(caller: Annotated[Caller, Depends(Access(Access.ANY))], request: Request) -> Response:
    """This document."""
    return Response(render(request.app), media_type="application/json")


def install(app: FastAPI) -> None:
    app.openapi = lambda: document(app)  # type: ignore[method-assign]  # FastAPI's documented way to replace it


def rules(app: FastAPI) -> dict[tuple[str, str], Access | None]:
    """Every API operation with its access rule."""
    found: dict[tuple[str, str], Access | None] = {}
    for context in iter_route_contexts(app.routes):
        route = context.original_route
        if isinstance(route, APIRoute):
            guards = [d.call for d in route.dependant.dependencies if isinstance(d.call, Access)]
            for method in route.methods or ():
                found[method, str(context.path)] = guards[0] if guards else None
    return found


def document(app: FastAPI) -> dict[str, Any]:
    """The document of `app`, built once."""
    if app.openapi_schema is None:
        app.openapi_schema = _build(app)
    return app.openapi_schema


def render(app: FastAPI) -> str:
    """The document as text, in a stable order: what is committed as docs/openapi.json."""
    return json.dumps(document(app), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _build(app: FastAPI) -> dict[str, Any]:
    schema = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        description=_DESCRIPTION,
        routes=app.routes,
        separate_input_output_schemas=False,
    )
    guards = rules(app)
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            _secure(operation, guards.get((method.upper(), path)), (method.upper(), path))
            for status, response in operation["responses"].items():
                _as_problem(status, response)
    components = schema["components"]
    for name in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(name, None)
    components["securitySchemes"] = {
        "key": {"type": "http", "scheme": "bearer", "description": "An API key, `ntf_<prefix>_<secret>`."},
        "cookie": {"type": "apiKey", "in": "cookie", "name": "notifyr", "description": "`__Host-notifyr` over https."},
    }
    schema["x-problem-codes"] = {code: {"status": status, "title": title} for code, (status, title) in CODES.items()}
    schema["x-scopes"] = SCOPES
    return schema


def _secure(operation: dict[str, Any], guard: Access | None, at: tuple[str, str]) -> None:
    if at in PUBLIC or guard is None:
        operation["security"] = [] if at in PUBLIC else [{}, {"key": []}]
        return
    operation["security"] = [{"cookie": []}] + ([{"key": []}] if guard.scope is not None else [])
    if guard.scope not in (None, Access.ANY):
        operation["x-scope"] = guard.scope
    if guard.admin:
        operation["x-role"] = "admin"


def _as_problem(status: str, response: dict[str, Any]) -> None:
    content = response.get("content", {})
    schema = content.get("application/json", {}).get("schema", {})
    if int(status) >= 300 and schema.get("$ref", "").endswith("/Problem"):
        content[PROBLEM] = content.pop("application/json")
