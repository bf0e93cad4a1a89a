"""Threads: lists, counts, one thread, its messages, and the acts on it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Query, Response

from api.deps import Access, ApiRoute, Caller, Id, Parts, Reading, Transaction
from api.routers.common import CHANGED, FAILS, FOUND, MOVED, Cursor, IdempotencyKey, Limit, Search, etag, version_of
from api.schemas import (
    Counts,
    Listing,
    MessageOut,
    Reply,
    SuggestionOut,
    ThreadChange,
    ThreadChanged,
    ThreadOut,
    listing,
)
from assistant.services import outbox, overview, threads, uploads, verdicts
from assistant.states import Author

__all__ = ["counting", "hold_seconds", "router"]

router = APIRouter(prefix="/api/v1/threads", tags=["threads"], route_class=ApiRoute, responses=FAILS)
counting = APIRouter(prefix="/api/v1/counts", tags=["threads"], route_class=ApiRoute, responses=FAILS)
Reader = Annotated[Caller, Depends(Access("threads:read"))]
Writer = Annotated[Caller, Depends(Access("threads:write"))]
Sender = Annotated[Caller, Depends(Access("messages:send", rule="send"))]
View = Literal["inbox", "unread", "review", "spam", "sent", "snoozed", "done", "trash", "outbox", "all"]
Sort = Literal["newest", "oldest-waiting", "most-urgent", "least-certain"]
Word = Annotated[str, Query(max_length=80)]


@router.get("", operation_id="listThreads", response_model=Listing[ThreadOut])
def list_threads(
    caller: Reader,
    session: Reading,
    view: View = "inbox",
    sort: Sort = "newest",
    q: Search = "",
    unread: bool | None = None,
    starred: bool | None = None,
    assignee: Annotated[str, Query(max_length=36, description="An agent's id, `me`, or `none`.")] = "",
    channel: Word = "",
    intent: Word = "",
    label: Annotated[str, Query(max_length=50, description="The name of a label.")] = "",
    contact_id: Annotated[str, Query(max_length=36)] = "",
    cursor: Cursor = "",
    limit: Limit = 50,
) -> dict[str, Any]:
    """One page of a view. New mail never repeats or hides a thread on the next page."""
    who = (caller.agent_id or "none") if assignee == "me" else assignee
    filters = threads.Filters(
        search=q,
        unread=unread,
        starred=starred,
        assignee=who,
        channel=channel,
        intent=intent,
        label=label,
        contact_id=contact_id,
    )
    page = threads.list_threads(session, view, cursor=cursor, limit=limit, sort=sort, filters=filters)
    return listing(page, ThreadOut.of)


@counting.get("", operation_id="countThreads")
def count_threads(caller: Reader, session: Reading) -> Counts:
    """How many threads each view holds."""
    return Counts(**overview.counts(session))


@router.get("/{thread_id}", operation_id="getThread", responses=FOUND | MOVED)
def get_thread(thread_id: Id, caller: Reader, session: Reading, response: Response) -> ThreadOut:
    """One thread. The ETag is its version."""
    thread = threads.get_thread(session, thread_id)
    response.headers["ETag"] = etag(thread.version)
    return ThreadOut.of(thread)


@router.patch("/{thread_id}", operation_id="changeThread", responses=CHANGED | MOVED)
def change_thread(
    thread_id: Id,
    body: ThreadChange,
    caller: Writer,
    session: Transaction,
    response: Response,
    if_match: Annotated[str, Header(alias="If-Match", pattern=r'^("[0-9]{1,9}")?$')] = "",
) -> ThreadChanged:
    """Change state, assignee, snooze date or marks. `undo` in the answer takes it back.

    Whoever moves a thread into the state `spam`, or out of it to `open`, says so of its newest message, which is learned as in
    the inbox; back again takes that back.
    """
    version = version_of(if_match) if if_match else None
    change = threads.change(session, thread_id, version=version, agent_id=caller.agent_id, **body.values())
    if caller.agent_id is not None:
        verdicts.moved(session, change, agent_id=caller.agent_id, undoes=True)
    response.headers["ETag"] = etag(change.thread.version)
    return ThreadChanged.of(change)


@router.get(
    "/{thread_id}/messages",
    operation_id="listMessages",
    response_model=Listing[MessageOut],
    responses=FOUND | MOVED,
)
def list_messages(
    thread_id: Id, caller: Reader, session: Reading, cursor: Cursor = "", limit: Limit = 50
) -> dict[str, Any]:
    """The messages of a thread, old to new, with attachments and what happened to each."""
    return listing(threads.messages_page(session, thread_id, cursor=cursor, limit=limit), MessageOut.of)


@router.post("/{thread_id}/messages", operation_id="sendMessage", status_code=201, responses=CHANGED | MOVED)
def send_message(
    thread_id: Id,
    body: Reply,
    caller: Sender,
    session: Transaction,
    parts: Parts,
    response: Response,
    key: IdempotencyKey = None,
) -> MessageOut:
    """Reply to the contact, perhaps with files. The message is held for the undo window, then sent."""
    agent = caller.require_agent()
    files = uploads.take_named(session, body.upload_ids, agent_id=agent.id) if body.upload_ids else []
    message = outbox.queue_message(
        session,
        thread_id=thread_id,
        author=Author.AGENT,
        agent_id=agent.id,
        text=body.text,
        subject=body.subject,
        attachments=files,
        hold_seconds=hold_seconds(body.hold_seconds, caller, parts),
    )
    threads.take_by_reply(session, thread_id, agent=agent, by_default=parts.settings.assign_on_reply)
    session.flush()
    response.headers["Location"] = f"/api/v1/messages/{message.id}"
    return MessageOut.of(threads.get_message(session, message.id))


@router.get("/{thread_id}/suggestions", operation_id="listSuggestions", responses=FOUND | MOVED)
def list_suggestions(
    thread_id: Id, caller: Annotated[Caller, Depends(Access("suggestions:read"))], session: Reading
) -> list[SuggestionOut]:
    """The suggested replies of a thread, newest first."""
    return [SuggestionOut.of(suggestion) for suggestion in threads.suggestions_of(session, thread_id)]


def hold_seconds(wanted: int | None, caller: Caller, parts: Parts) -> int:
    """The undo window of a send: what the request says, else the agent's own setting, else the server's."""
    if wanted is not None:
        return wanted
    own = caller.agent.undo_seconds if caller.agent is not None else None
    return own if own is not None else parts.settings.undo_send_seconds
