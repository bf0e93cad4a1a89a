"""The whole inbox page as values for its template: the list, the open thread, its suggestion card, what was just done."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from fastapi.responses import HTMLResponse
from sqlalchemy.orm import Session

from api.inbox import frames, learning, outgoing, starts, words
from api.inbox.card import card_of, chosen
from api.inbox.happening import between, folded
from api.inbox.shell import Page, render
from api.inbox.times import PRESETS, snoozes
from assistant.clock import utcnow
from assistant.db.access import Agent
from assistant.db.messages import Message, Suggestion, Thread
from assistant.db.profiles import Profile
from assistant.errors import NotFound
from assistant.services import (
    access,
    composing,
    contacts,
    directory,
    drafts,
    labels,
    merging,
    notes,
    overview,
    profiles,
    saved_filters,
    searching,
    threads,
    timeline,
    uploads,
)
from assistant.states import Delivery, Direction, ProfileState, SuggestionState

__all__ = ["show"]

_UNFOLDED = 3
"""Messages of a long thread that are open beside the first: the newest ones."""


def show(
    page: Page,
    *,
    thread_id: str = "",
    view: str = "inbox",
    sort: str = "newest",
    q: str = "",
    cursor: str = "",
    upto: str = "",
    compose: str = "",
    problem: Any = None,
) -> HTMLResponse:
    """The whole inbox page. `problem` is an error of the act that led here; it is shown and decides the status."""
    view = view if view in threads.VIEWS else "inbox"
    sort = sort if sort in threads.SORTS else "newest"
    container = page.container
    place = container.bus.place()  # before the rows: what happens in between is told again, never missed
    with container.database.reading() as session:
        listed = threads.list_threads(
            session,
            view,
            sort=sort,
            cursor=cursor or None,
            upto=upto or None,
            filters=searching.read(q, zone=page.zone, agent_id=page.agent.id),
        )
        counts, channels = overview.counted(session)
        agents = access.agents(session)
        own = profiles.list_profiles(session)
        values: dict[str, Any] = {
            "counts": counts,
            "channels": channels,
            "rows": listed.items,
            "next_cursor": listed.next_cursor,
            "last_cursor": listed.last_cursor or "",
            "covered": upto if len(listed.items) < threads.FARTHEST else "",
            "did": _did(session, page),
            "open": _thread(session, page, thread_id, compose, agents, own) if thread_id else None,
            **_acting(page, agents),
            "all_labels": labels.every(session),
            "blocked_profiles": [one for one in own if one.state == ProfileState.BLOCKED],
            "filters": saved_filters.counted(session, page.agent.id, zone=page.zone),
            "row_labels": labels.of_threads(session, [row.id for row in listed.items]),
            "outgoing": outgoing.became(session, [row.id for row in listed.items], view),
            "crowds": container.bus.crowds([row.id for row in listed.items]),
            "told": {} if listed.items else _told(session, page, view),
        }
    smtp = starts.listener(container.settings)
    named = {"view": view, "sort": sort if sort != "newest" else "", "q": q, "cursor": cursor, "upto": upto}
    tail, further = _query(named), _query(named | {"cursor": "", "upto": ""})
    here = f"/inbox{'/' + thread_id if thread_id else ''}?{tail}"
    answer = render(
        "inbox.html",
        status=problem.status if problem is not None else 200,
        page=page,
        view=view,
        sort=sort,
        q=q,
        tail=tail,
        further=further,
        problem=problem,
        here=here,
        models=container.bus.models(),
        place=place,
        smtp=smtp,
        starts=starts.lines(smtp),
        views=words.VIEW_WORDS,
        channel_words=words.CHANNEL_WORDS,
        sorts=threads.SORTS,
        marks=words.MARKS,
        presets=PRESETS,
        snoozes=snoozes(page.zone),
        examples=searching.EXAMPLES,
        **values,
    )
    if problem is not None:
        # This page answers a form's post, whose own address nobody can read again.
        answer.headers["HX-Push-Url"] = here
    return answer


def _query(named: dict[str, str]) -> str:
    return urlencode({name: value for name, value in named.items() if value})


def _acting(page: Page, agents: Sequence[Agent]) -> dict[str, Any]:
    """What is said of acts, what this agent calls each of the others, and who can be given a thread: they themselves first."""
    here = [one for one in agents if one.disabled_at is None]
    return {
        "did_words": words.DID,
        "settled_words": words.SETTLED,
        "names": {one.id: "you" if one.id == page.agent.id else one.name for one in agents},
        "colleagues": sorted(here, key=lambda one: one.id != page.agent.id),
    }


def _told(session: Session, page: Page, view: str) -> dict[str, Any]:
    """What an empty view says besides that it is empty, asked for only then."""
    if view == "spam":
        return {"held": overview.held_lately(session), "days": overview.HELD_DAYS}
    midnight = utcnow().astimezone(page.zone).replace(hour=0, minute=0, second=0, microsecond=0)
    return {"done": overview.done_since(session, midnight), "sleeper": overview.longest_snoozed(session)}


def _thread(
    session: Session, page: Page, thread_id: str, compose: str, agents: Sequence[Agent], own: Sequence[Profile]
) -> dict[str, Any]:
    found = threads.get_thread(session, thread_id)
    messages = threads.messages_of(session, thread_id)
    drafted = threads.suggestions_of(session, thread_id)
    newest = next((m for m in reversed(messages) if m.direction == Direction.INBOUND), None)
    editing = drafts.load(session, thread_id, agent_id=page.agent.id, kind="edit")
    current = chosen(page, drafted)
    card = _card(found, newest, current)
    present = page.container.bus.who(thread_id)
    names = {one.id: one.name for one in agents}
    lines_of = between(
        messages,
        notes=notes.of_thread(session, thread_id),
        moves=merging.moves_of(session, thread_id),
        events=timeline.happened(session, found, messages, drafted),
        names=names,
    )
    # An edit whose suggestion is gone (decided by another agent, made stale by a newer mail) goes on as a reply.
    left = editing.text if editing and card != "proposed" else ""
    edit = page.typed.get("edit") or (
        editing.text if editing and current and editing.suggestion_id == current.id else None
    )
    return {
        "thread": found,
        "messages": messages,
        "folded": max(0, len(messages) - _UNFOLDED) if len(messages) > _UNFOLDED + 2 else 0,
        "newest": newest,
        "start": messages[-1].id if len(messages) > 1 else "",
        "suggestion": current,
        "card": card,
        "review": card_of(session, page, current, drafted, messages, present=present, edit=edit),
        "composer": _composer(session, page, found, newest, own, compose, left),
        "between": {message: folded(lines) for message, lines in lines_of.items()},
        "people": _people(found, messages, own={one.address.lower() for one in own}),
        "notes": sum(line.kind == "note" for lines in lines_of.values() for line in lines),
        "agents": names,
        "siblings": merging.siblings(session, found),
        "labels": labels.of_threads(session, [thread_id])[thread_id],
        "edit": edit,
        "contact": directory.get_contact(session, found.contact_id),
        "blocked": _blocked(session, found),
        "consent": contacts.standing(session, found.contact),
        "profile": profiles.get(session, found.profile_id),
        "present": present,
        "held": [m for m in messages if m.status == Delivery.HELD],
        "verdicts": learning.shown(page, session, newest),
        "shown": frames.shown(session, messages),
        "trusted": {m.id for m in messages if m.from_address.lower() in page.preferences.get("images_from", [])},
    }


def _people(thread: Thread, messages: Sequence[Message], *, own: set[str]) -> list[str]:
    """Names of who takes part in a thread beside us, the contact first. `own`: the addresses of our profiles."""
    names = {one.address.lower(): thread.contact.display_name for one in thread.contact.identities}
    first = next(iter(names.values()), "")
    found = dict.fromkeys([first] if first else [])
    for message in messages:
        sender = {"address": message.from_address, "name": message.from_name}
        for one in (sender, *message.to_addresses, *message.cc_addresses):
            if (address := one["address"].lower()) not in own:
                found.setdefault(names.get(address) or one.get("name") or address)
    return list(found)


def _composer(
    session: Session, page: Page, thread: Thread, newest: Message | None, own: Sequence[Profile], kind: str, left: str
) -> dict[str, Any]:
    """What is being written: its kind, recipients, words and files. `left`: the words of an edit that has no card any more."""
    kind = kind if kind in composing.KINDS else "reply"
    kept = "reply" if kind == "reply-all" else kind
    draft = drafts.load(session, thread.id, agent_id=page.agent.id, kind=kept)
    everyone = composing.outline_of(session, thread, newest, own, "reply-all")
    begun = {"reply-all": everyone, "note": composing.Outline(kind)}
    start = begun.get(kind) or composing.outline_of(session, thread, newest, own, kind)
    typed = draft.fields if draft is not None and draft.fields.get("mode") == kind else {}
    return {
        "kind": kind,
        "to": typed.get("to", start.to),
        "cc": typed.get("cc", start.cc),
        "bcc": typed.get("bcc", ""),
        "subject": typed.get("subject") or start.subject,
        "text": page.typed.get(kept)
        or (draft.text if draft is not None else (left if kept == "reply" and left else start.text)),
        "draft": draft is not None,
        "along": start.files,
        "uploads": uploads.of(session, agent_id=page.agent.id, thread_id=thread.id, kind=kept),
        "others": len(everyone.people) > 1,
    }


def _card(thread: Thread, newest: Message | None, suggestion: Suggestion | None) -> str:
    """Which face: `proposed`, `drafting`, `stopped`, `stale`, `failed`, `rejected`, `sent`, `policy`, `none` or nothing at all."""
    if newest is None:
        return ""
    if suggestion is None or suggestion.message_id != newest.id:
        return "stale" if suggestion is not None and suggestion.state == SuggestionState.EXPIRED else "none"
    reason = suggestion.reject_reason
    faces = {
        SuggestionState.PROPOSED: "proposed",
        SuggestionState.DRAFTING: "drafting",
        SuggestionState.EXPIRED: "stale",
        SuggestionState.REJECTED: reason if reason in {"failed", "stopped"} else "rejected",
    }
    return faces.get(suggestion.state, "policy" if suggestion.policy_id else "sent")


def _blocked(session: Session, thread: Thread) -> str:
    """Why this contact may not be written to on this channel; empty when one may."""
    address = next(
        (one.address for one in thread.contact.identities if one.channel == thread.channel),
        "",
    )
    return contacts.may_write(session, channel=thread.channel, address=address, thread_id=thread.id) or ""


def _did(session: Session, page: Page) -> dict[str, str]:
    """What the last act did, from the query: the toast offers to undo it. Nothing here is trusted, only shown."""
    names = ("did", "thread", "message", "suggestion", "state", "version", "redo", "until", "back", "to")
    did = {name: page.request.query_params.get(name, "")[:64] for name in names}
    did["was"] = page.request.query_params.get("was", "")[:8_000]
    did["left"] = str(_seconds_left(session, did["message"])) if did["did"] == "sending" else "0"
    return did


def _seconds_left(session: Session, message_id: str) -> int:
    """Seconds of the undo window that are left: the server keeps the time."""
    try:
        message = threads.get_message(session, message_id)
    except NotFound:
        return 0
    if message.status != Delivery.HELD or message.release_at is None:
        return 0
    return max(0, math.ceil((message.release_at - utcnow()).total_seconds()))
