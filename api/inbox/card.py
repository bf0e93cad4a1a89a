"""What the suggestion card shows, as values for its template: the draft cut at its citations, sources, drafts, odds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.orm import Session

from api.inbox.diff import word_diff
from api.inbox.shell import Page
from assistant.db.messages import Message, Suggestion
from assistant.services import autopilot, calibration, drafts, knowledge, policies, suggestions
from assistant.states import SuggestionState

__all__ = ["card_of", "changes_of", "chosen", "cut", "lit"]

_COST = "0.00"
"""What a draft costs: every model of this version runs on this machine. A hosted one has to store its price with the draft."""


def chosen(page: Page, drafted: Sequence[Suggestion]) -> Suggestion | None:
    """The draft the card is about: the one the address names, while it can still be sent, else the newest."""
    wanted = page.request.query_params.get("draft", "")
    found = next((one for one in drafted if one.id == wanted and one.state == SuggestionState.PROPOSED), None)
    return found or (drafted[0] if drafted else None)


def card_of(
    session: Session,
    page: Page,
    current: Suggestion | None,
    drafted: Sequence[Suggestion],
    messages: Sequence[Message],
    *,
    present: Mapping[str, Mapping[str, Any]],
    edit: str | None,
) -> dict[str, Any]:
    """Values beside the suggestion itself. Only what its face needs is read. `present`: who is at the thread (`Bus.who`);
    `edit`: the agent's own version of it, as far as it is typed and kept.
    """
    me = page.agent.id
    thread_id = messages[0].thread_id if messages else ""
    others = drafts.others(session, thread_id, agent_id=me) if thread_id else []
    values: dict[str, Any] = {
        "typing": next((one["name"] for agent, one in present.items() if agent != me and one["state"] == "typing"), ""),
        "others": others,
        "walk": None,
        "stream": "",
        "cost": _COST,
    }
    if current is None:
        return values
    if current.state == SuggestionState.DRAFTING:
        values["stream"] = page.container.bus.read_draft(current.id)
    if current.state in {SuggestionState.PROPOSED, SuggestionState.EXPIRED}:
        found = calibration.outcomes(session)
        values |= {
            "pieces": cut(current.text, current.marks, current.spans),
            "sources": _sources(session, current, messages),
            "unsupported": suggestions.unsupported(current, current.text),
            "changes": None if edit is None else changes_of(current, edit),
            # A draft from before there were enough outcomes is told what is known now.
            "estimate": calibration.estimate(found, current.confidence, intent=current.intent)
            if current.estimate is None
            else current.estimate,
            "outcomes": found.count,
            "enough": calibration.ENOUGH,
            "policy_words": _policy_words(session, page, current, found),
        }
    if current.policy_id:
        values["policy"] = policies.get(session, current.policy_id)
        values["sent"] = next((one for one in reversed(messages) if one.suggestion_id == current.id), None)
    values["walk"] = _walk(current, drafted)
    return values


def changes_of(suggestion: Suggestion, text: str) -> dict[str, Any]:
    """What an edit changed, word by word, and what is in it still that no source says: for `diff.html`."""
    return {
        "id": suggestion.id,
        "parts": word_diff(suggestion.text, text),
        "share": suggestions.edit_share(suggestion.text, text),
        "left": suggestions.unsupported(suggestion, text),
    }


def _policy_words(session: Session, page: Page, current: Suggestion, found: calibration.Outcomes) -> str:
    """Why a person is asked, and how far the intent is from not needing one."""
    said = next((step["reason"] for step in reversed(current.trace) if step["stage"] == "policy"), "")
    if policies.granted(session, current.intent or "other") is not None and said:
        return str(said)
    reach = next((one for one in calibration.reach(found) if one.intent == (current.intent or "other")), None)
    clean, count = (reach.clean, reach.count) if reach is not None else (0, 0)
    more = autopilot.sends_needed(clean, count)
    if not more:
        return f"policy: suggest only ({clean} of {count} sent clean)"
    return (
        f"policy: suggest only (needs {more}{' or' if more >= 1000 else ''} more clean send{'' if more == 1 else 's'})"
    )


def _walk(current: Suggestion, drafted: Sequence[Suggestion]) -> dict[str, Any] | None:
    """Where this draft stands among those of its message, old to new; None when it is the only one."""
    row = [
        one
        for one in reversed(drafted)
        if one.message_id == current.message_id and (one.state == SuggestionState.PROPOSED or one.id == current.id)
    ]
    if len(row) < 2:
        return None
    place = row.index(current)
    return {
        "place": place + 1,
        "count": len(row),
        "older": row[place - 1].id if place else "",
        "newer": row[place + 1].id if place + 1 < len(row) else "",
    }


def cut(
    text: str, marks: Sequence[Mapping[str, Any]], spans: Sequence[Mapping[str, Any]]
) -> list[tuple[str, str, Mapping[str, Any] | None]]:
    """The draft in pieces: `("text" | "bad" | "cite", words, mark or span)`."""
    places = sorted(
        [(int(one["start"]), 1, "bad", one) for one in spans] + [(int(one["at"]), 0, "cite", one) for one in marks],
        key=lambda place: place[:2],
    )
    pieces: list[tuple[str, str, Mapping[str, Any] | None]] = []
    at = 0
    for start, _, kind, one in places:
        if start < at or start > len(text):
            continue
        if start > at:
            pieces.append(("text", text[at:start], None))
        at = start
        if kind == "cite":
            pieces.append(("cite", "", one))
        else:
            at = min(int(one["end"]), len(text))
            pieces.append(("bad", text[start:at], one))
    if at < len(text):
        pieces.append(("text", text[at:], None))
    return pieces


def lit(text: str, ranges: Sequence[tuple[int, int]]) -> list[tuple[bool, str, int]]:
    """A source in pieces: whether a draft cites it, the words, and where they start."""
    pieces = []
    at = 0
    for start, end in sorted(set(ranges)):
        if start < at or end > len(text):
            continue
        pieces += [(False, text[at:start], at), (True, text[start:end], start)]
        at = end
    return [piece for piece in [*pieces, (False, text[at:], at)] if piece[1]]


def _sources(session: Session, current: Suggestion, messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Passages, then cited lines of the thread, with their numbers."""
    documents = knowledge.by_ids(session, [str(one.get("document_id", "")) for one in current.citations])
    found: list[dict[str, Any]] = []
    for number, one in enumerate(current.citations, 1):
        ranges = [(mark["start"], mark["end"]) for mark in current.marks if mark["number"] == number]
        document = documents.get(str(one.get("document_id", "")))
        found.append(
            {
                "number": number,
                "kind": "passage",
                "title": one.get("source", ""),
                "pieces": lit(str(one.get("text", "")), ranges),
                "cited": bool(ranges),
                "score": one.get("score", 0.0),
                "version": one.get("version", 0),
                "document": document,
            }
        )
    order = {message.id: place for place, message in enumerate(messages, 1)}
    for number, line in enumerate(current.lines, len(current.citations) + 1):
        title = (
            f"message {order[line['message_id']]}, line {line['line']}" if line["message_id"] in order else "earlier"
        )
        found.append({"number": number, "kind": "message", "title": title, "cited": True, **line})
    return found
