"""Help that stands in the program: a page of what is not obvious, and what the palette finds while one types."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from api.inbox import words
from api.inbox.shell import SignedIn, render
from api.inbox.times import PRESETS
from assistant.services import autopilot, directory, saved_replies, searching

__all__ = ["router"]

router = APIRouter(include_in_schema=False)
_FEWEST, _MOST = 2, 6
"""Letters before contacts are looked up, and how many are shown."""


@router.get("/palette")
def found(page: SignedIn, q: str = "") -> HTMLResponse:
    """Contacts with every word of `q` in name or address, as options of the palette."""
    text = " ".join(q.split())[:100]
    with page.container.database.reading() as session:
        people = directory.find(session, text, limit=_MOST) if len(text) >= _FEWEST else []
        return render("palette-found.html", page=page, found=people)


@router.get("/help")
def help_page(page: SignedIn) -> HTMLResponse:
    """Searching, marks, snoozing, keys, saved replies, what leaves without a person."""
    return render(
        "help.html",
        page=page,
        examples=searching.EXAMPLES,
        presets=PRESETS,
        names=saved_replies.NAMES,
        marks=words.MARK_MEANINGS,
        needed=autopilot.NEEDED,
        ready=autopilot.READY,
        mode=page.container.settings.autopilot,
    )
