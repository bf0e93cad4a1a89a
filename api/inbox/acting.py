"""How every act of the inbox runs: one form post, one transaction, and the page after it."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlencode

from anyio.to_thread import run_sync
from fastapi.responses import Response
from sqlalchemy.orm import Session
from starlette.datastructures import FormData

from api.inbox.shell import Page, go
from api.inbox.views import show
from assistant.errors import InvalidInput, NotifyrError
from assistant.services import searching, threads
from assistant.services.paging import MAX_PAGE

__all__ = ["act_on", "field", "number"]

_WALKED = 20
"""Pages of a list that are looked through for the thread after an open one."""


def field(form: FormData, name: str, default: str = "") -> str:
    value = form.get(name, default)
    return value if isinstance(value, str) else default


def number(form: FormData, name: str) -> int:
    try:
        return int(field(form, name))
    except ValueError:
        raise InvalidInput(f"{name} is not a number") from None


async def act_on(
    page: Page,
    form: FormData,
    thread_id: str,
    do: Callable[[Session], dict[str, str]],
    *,
    advance: frozenset[str] = frozenset(),
    leave: bool = False,
    compose: str = "",
) -> Response:
    """Run `do` in a transaction and go to the page after it; on an error show this page with the reason.

    `advance`: the views in which the next thread is opened, because this one leaves them. `leave`: the list is gone to,
    whatever the view. `compose`: what was being written.
    """
    query = {name: field(form, name) for name in ("view", "sort", "q") if field(form, name)}

    def run() -> Response:
        after = "" if leave else thread_id
        if query.get("view") in advance:
            after = _following(page, thread_id, query)
        try:
            with page.container.database.transaction() as session:
                did = do(session)
        except NotifyrError as error:
            if (error.status >= 500 and not page.read_only) or page.request.headers.get("accept") == "application/json":
                raise  # a script that catches up with acts wants the reason, not the page
            return show(page, thread_id=thread_id, problem=error, compose=compose, **query)
        path = f"/inbox/{after}" if after else "/inbox"
        return go(f"{path}?{urlencode(query | did)}")

    return await run_sync(run)


def _following(page: Page, thread_id: str, query: dict[str, str]) -> str:
    """The thread after this one in the list that the agent sees: where they go next. The list itself when there is none.

    After the last one the first; also when this one is not in the list, or further down than `_WALKED` pages.
    """
    sort = query.get("sort", "newest")
    filters = searching.read(query.get("q", ""), zone=page.zone, agent_id=page.agent.id)
    first, cursor, found = "", None, False
    with page.container.database.reading() as session:
        for _ in range(_WALKED):
            listed = threads.list_threads(
                session,
                query["view"],
                sort=sort if sort in threads.SORTS else "newest",
                cursor=cursor,
                limit=MAX_PAGE,
                filters=filters,
            )
            for one in listed.items:
                if found:
                    return one.id
                found = one.id == thread_id
                first = first or ("" if found else one.id)
            cursor = listed.next_cursor
            if cursor is None:
                break
    return first
