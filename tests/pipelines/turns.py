"""Turns for tests, made from few words."""

from __future__ import annotations

from typing import Any

from assistant.values import Address, InboundMessage, Passage, Turn

__all__ = ["passage", "turn"]


def turn(
    text: str = "Where is my parcel?", *, subject: str = "", sender: str = "ana@mail.example", **values: Any
) -> Turn:
    """A turn whose message says `text`; other names go to the turn, or to its message when it has them."""
    fields = {name: values.pop(name) for name in ("auto_submitted", "defects") if name in values}
    message = InboundMessage(
        channel="email",
        external_id="<1@mail.example>",
        sender=Address("email", sender),
        recipients=(Address("email", "support@example.org"),),
        subject=subject,
        text=text,
        **fields,
    )
    return Turn(message_id="m", thread_id="t", message=message, new_text=text, **values)


def passage(text: str, *, score: float = 0.6, source: str = "Answer", document_id: str = "d") -> Passage:
    return Passage(text=text, source=source, score=score, document_id=document_id, version=1)
