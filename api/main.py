"""The web application: routes, the gate in front of them, and what is opened and closed with it."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio.to_thread import run_sync
from fastapi import FastAPI

from api import errors, openapi
from api.inbox import live, pages
from api.inbox.shell import render_problem
from api.routers import (
    attachments,
    auth,
    contacts,
    health,
    keys,
    labels,
    messages,
    moves,
    notes,
    saved_replies,
    suggestions,
    threads,
    uploads,
)
from api.security import Gate
from assistant.services import access
from assistant.settings import load_settings
from assistant.telemetry import configure_logging
from pipelines.container import Container, build

__all__ = ["ROUTERS", "app_factory", "create_app"]

VERSION = "0.1.0"
ROUTERS = (
    health.router,
    auth.router,
    threads.router,
    threads.counting,
    messages.router,
    suggestions.router,
    contacts.router,
    attachments.router,
    labels.router,
    notes.router,
    moves.router,
    uploads.router,
    saved_replies.router,
    keys.router,
    openapi.router,
)
INBOX = (pages.router, live.router)


def create_app(container: Container) -> FastAPI:
    """The application on a container, which it closes at its end."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # The first unknown address must not take longer than the second: make the stand-in hash now.
        await run_sync(access.password_matches, access.Credentials(), "")
        yield
        await run_sync(container.close)

    app = FastAPI(
        title="Notifyr",
        version=VERSION,
        summary="Threads, triage, suggested replies, review, sending.",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.state.container = container
    errors.install(app)
    for router in (*ROUTERS, *INBOX):
        # Not `include_router`: that makes each route a second time, which held up the first request of every start.
        app.router.routes.extend(router.routes)
    app.state.render_problem = render_problem
    app.add_middleware(Gate, settings=container.settings)
    openapi.install(app)
    return app


def app_factory() -> FastAPI:
    """For uvicorn: the application on the settings of the environment."""
    settings = load_settings()
    configure_logging(settings.log_level, settings.log_format)
    app = create_app(build(settings))
    gc.freeze()  # modules and routes stay to the end: to look through them for garbage stops every request
    return app
