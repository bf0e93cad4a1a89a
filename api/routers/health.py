"""Is it alive, is it ready, what does it count. For supervisors and monitoring."""

from __future__ import annotations

import ipaddress
import os
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from api.deps import Access, ApiRoute, Caller, Parts, caller_of
from api.routers.common import FAILS
from api.schemas import Ready
from assistant.errors import NotifyrError
from assistant.services import profiles

__all__ = ["router"]

router = APIRouter(tags=["health"], route_class=ApiRoute, responses=FAILS)


@router.get("/livez", operation_id="livez")
def livez() -> dict[str, str]:
    """The process answers. Says nothing about what it depends on, so that nobody restarts it for a broken database."""
    return {"status": "alive"}


@router.get("/readyz", operation_id="readyz", responses={503: {"model": Ready}})
def readyz(parts: Parts, response: Response) -> Ready:
    """Ready for work. Degraded, and still answering: without Redis (mail is kept, rows are swept up later), with a model
    that failed or lacks a part (triage goes on with its other stages), or with a profile that is blocked (it holds its mail).
    """
    database, sending = _database(parts)
    checks = {"database": database, "redis": "up" if parts.limiter.ping() else "down", "sending": sending}
    models = parts.bus.models()
    lacking = "down" in checks.values() or any(fact["state"] in {"failed", "partial"} for fact in models.values())
    status: Literal["ready", "degraded", "down"] = (
        "down" if checks["database"] == "down" else "degraded" if lacking else "ready"
    )
    if status == "down":
        response.status_code = 503
    return Ready(status=status, checks=checks, models=models)


def may_read_metrics(request: Request) -> Caller | None:
    """This machine may read them; another one needs a key. Behind a proxy everybody looks local, so then too."""
    forwarded = any(name in request.headers for name in ("x-forwarded-for", "forwarded", "x-real-ip"))
    if not forwarded and _loopback(request) and caller_of(request) is None:
        return None
    return Access("metrics:read")(request)


@router.get(
    "/metrics",
    operation_id="metrics",
    response_class=Response,
    responses={200: {"description": "Prometheus text format.", "content": {"text/plain": {}}}},
)
def metrics(caller: Annotated[Caller | None, Depends(may_read_metrics)]) -> Response:
    """Counters of every process."""
    registry = REGISTRY
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # the library has no annotation here
    return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _database(parts: Parts) -> tuple[str, str]:
    """Whether the database answers, and whether every profile may send."""
    try:
        with parts.database.reading() as session:
            return "up", "down" if profiles.blocked(session) else "up"
    except NotifyrError:
        return "down", "down"


def _loopback(request: Request) -> bool:
    try:
        return request.client is not None and ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False
