"""What every page shares: templates, the signed-in agent, the token of the form, static files, and the error page."""

from __future__ import annotations

import hashlib
import mimetypes
import re
from collections.abc import Mapping
from datetime import UTC
from functools import cache, cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any
from urllib.parse import quote, unquote
from zoneinfo import ZoneInfo

import structlog
from fastapi import Depends, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.datastructures import FormData

from api.deps import Caller, caller_of, container_of
from api.forms import read_form
from api.inbox import keys, words
from api.inbox.keys import Key
from api.inbox.times import zone_of
from api.security import check_csrf
from assistant.backends.coordination import RULES
from assistant.clock import utcnow
from assistant.db.access import Agent, AgentSession
from assistant.errors import NotAuthenticated, NotFound, NotifyrError
from assistant.services import access, labels, overview, saved_filters

__all__ = [
    "Page",
    "SignedIn",
    "Visitor",
    "asset",
    "form_of",
    "go",
    "next_step",
    "render",
    "render_problem",
    "static_file",
]

_HERE = Path(__file__).parent
_STATIC = _HERE / "static"
_KINDS = {".webmanifest": "application/manifest+json", ".js": "text/javascript"}


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "asset": asset,
        "modules": _modules,
        "now": utcnow,
        "next_step": next_step,
        "request_id": _request_id,
    }
    environment.filters |= words.FILTERS
    return environment


@cache
def _files() -> dict[str, tuple[bytes, str, str]]:
    found = {}
    for path in sorted(_STATIC.rglob("*")):
        if path.is_file():
            name = path.relative_to(_STATIC).as_posix()
            content = _script(path) if path.suffix == ".js" else path.read_bytes()
            kind = _KINDS.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
            found[name] = (content, kind, _tag(content))
    return found


def _script(path: Path) -> bytes:
    """A module whose imports name the hashes of what they import: one changed file changes the address of all that use it."""

    def hashed(match: re.Match[bytes]) -> bytes:
        return match.group(0) + b"?v=" + _tag(_script(path.parent / match.group(1).decode())).encode()

    return re.sub(rb'(?<=(?:from|port) ")(\./[\w./-]+\.js)', hashed, path.read_bytes())


def _tag(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


@cache
def _modules(name: str) -> tuple[str, ...]:
    """The modules that a module needs, so that a page asks for all at once and not for one after the other."""
    folder = (_STATIC / name).parent
    needed: dict[str, None] = {}
    for match in re.findall(r'(?:from|import) "(\./[\w./-]+\.js)"', (_STATIC / name).read_text()):
        one = (folder / match).resolve().relative_to(_STATIC).as_posix()
        needed |= dict.fromkeys([one, *_modules(one)])
    return tuple(needed)


def asset(name: str) -> str:
    """URL of a static file with its hash, so that a browser may keep it for ever."""
    return f"/static/{name}?v={_files()[name][2]}"


def static_file(name: str, version: str = "") -> Response:
    """A file of `static/`; with its own hash as `version` it never changes. Only names of the start exist: else `NotFound`."""
    if name not in _files():
        raise NotFound("there is no such file")
    content, kind, tag = _files()[name]
    kept = "public, max-age=31536000, immutable" if version == tag else "no-cache"
    headers = {"Cache-Control": kept, "ETag": f'"{tag}"'}
    return Response(content, media_type=f"{kind}; charset=utf-8" if kind.startswith("text/") else kind, headers=headers)


class Page:
    """A signed-in agent and what every template needs."""

    def __init__(self, request: Request, caller: Caller, agent: Agent, opened: AgentSession) -> None:
        self.request = request
        self.caller = caller
        self.agent = agent
        self.opened = opened
        self.container = container_of(request)
        self.typed: dict[str, str] = {}
        """Words of a form that could not be kept, by kind: the page after it has them still."""

    @cached_property
    def read_only(self) -> str:
        """Why nothing can be changed just now, while reading works; empty when it can."""
        return self.container.database.refusal(lambda session: access.touch_session(session, self.opened.id))

    @property
    def preferences(self) -> dict[str, Any]:
        return self.agent.preferences

    @cached_property
    def keys(self) -> tuple[keys.Key, ...]:
        return keys.remapped(self.preferences.get("keys", {}), letters=bool(self.preferences.get("letters", True)))

    @cached_property
    def all_keys(self) -> tuple[Key, ...]:
        """Also those that are switched off: the palette has every act."""
        return keys.remapped(self.preferences.get("keys", {}))

    @cached_property
    def rail(self) -> dict[str, Any]:
        """The rail beside a page that is not of the inbox: what it counts, and the labels and filters that it names."""
        with self.container.database.reading() as session:
            counts, channels = overview.counted(session)
            return {
                "counts": counts,
                "channels": channels,
                "channel_words": words.CHANNEL_WORDS,
                "labels": labels.every(session),
                "filters": saved_filters.counted(session, self.agent.id, zone=self.zone),
            }

    views = words.VIEW_WORDS
    helps = words.HELPS

    @property
    def places(self) -> list[tuple[str, str]]:
        """Pages beside the inbox that this agent may open."""
        return [(href, name) for href, name, admins in words.PLACES if not admins or self.agent.role == "admin"]

    def key_of(self, href: str) -> str:
        """The keys that lead to an address, as people read them; empty when there are none."""
        return self._leading.get(href, "")

    @cached_property
    def _leading(self) -> dict[str, str]:
        return {key.href: key.shown for key in self.keys if key.href}

    @property
    def zone(self) -> ZoneInfo:
        """Where this agent is: their setting, else what the browser says."""
        return zone_of(str(self.preferences.get("zone", "")), unquote(self.request.cookies.get("zone", "")))

    @property
    def undo_seconds(self) -> int:
        own = self.agent.undo_seconds
        return own if own is not None else self.container.settings.undo_send_seconds

    async def form(self) -> FormData:
        """The form of a state-changing request, once its token is found right. Raises `MissingCsrfToken`."""
        return await form_of(self.request, self.opened)


async def form_of(request: Request, opened: AgentSession) -> FormData:
    form = await read_form(request, files=20, fields=200)
    presented = request.headers.get("x-csrf-token") or form.get("csrf_token", "")
    try:
        check_csrf(opened, presented if isinstance(presented, str) else "")
    except NotifyrError:
        await form.close()
        raise
    return form


def _signed_in(request: Request) -> Page:
    caller = caller_of(request)
    if caller is None or caller.opened is None or caller.agent is None:
        raise NotAuthenticated("sign in to see this page")
    rule = "read" if request.method in {"GET", "HEAD"} else "write"
    container_of(request).limiter.hit(RULES[rule], caller.actor)
    return Page(request, caller, caller.agent, caller.opened)


SignedIn = Annotated[Page, Depends(_signed_in)]


class Visitor:
    """Nobody yet: the sign-in pages. And error pages, which look as who is signed in wants them to."""

    keys: tuple[keys.Key, ...] = ()

    def __init__(self, preferences: Mapping[str, Any] = MappingProxyType({})) -> None:
        self.preferences = preferences


def render(template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """Not within `reading()`: a page reads its rail itself, and one request would hold two connections."""
    page = values.get("page")
    words.use_zone(page.zone if isinstance(page, Page) else UTC)
    html = _templates().get_template(template).render(**values)
    return HTMLResponse(html, status_code=status)


def go(url: str) -> RedirectResponse:
    """See other: the browser reads the page after its act, so that reload repeats nothing."""
    return RedirectResponse(url, status_code=303)


async def render_problem(request: Request, document: dict[str, Any]) -> Response:
    """An error as a page: what, why, the next step, and the id to tell support. Who is not signed in goes to sign in."""
    if document["code"] == "not-authenticated" and request.url.path not in {"/sign-in", "/link"}:
        back = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return go(f"/sign-in?next={quote(back, safe='')}" if request.method == "GET" else "/sign-in")
    step = next_step(document["code"])
    # Only who was found already: an error of the database must not ask it again.
    known: Caller | None = request.scope.get("state", {}).get("caller")
    page = Visitor(known.agent.preferences) if known is not None and known.agent is not None else Visitor()
    return render("error.html", status=document["status"], problem=document, step=step, page=page)


def next_step(code: str) -> str:
    """What a person can do about an error."""
    return words.NEXT_STEPS.get(code, words.NEXT_STEPS["*"])


def _request_id() -> str:
    return str(structlog.contextvars.get_contextvars().get("request_id", ""))
