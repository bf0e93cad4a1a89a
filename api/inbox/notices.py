"""Notifications of the system: what one says about a thread, and the script in the browser that shows it."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from api.deps import Id
from api.inbox.shell import SignedIn, static_file
from assistant.services import threads
from assistant.states import ThreadState

__all__ = ["CHOICES", "router"]

router = APIRouter(include_in_schema=False)
CHOICES = {"off": "off", "sender": "sender only", "preview": "sender and preview"}
"""What an agent may have shown, and its words. A preview may stand on a locked screen, so it is off until it is asked for."""
_PREVIEW = 140
_WORKER_POLICY = "default-src 'none'"


@router.get("/worker.js")
def worker() -> Response:
    """The service worker. It stands at the root so that it may open every page; it keeps nothing and fetches nothing."""
    answer = static_file("worker.js")
    answer.headers["Content-Security-Policy"] = _WORKER_POLICY
    return answer


@router.get("/inbox/{thread_id}/notice")
def notice(page: SignedIn, thread_id: Id) -> Response:
    """Sender and, if this agent wants it, first words of an unread thread. 204 when there is nothing to tell: held, or read."""
    wanted = page.preferences.get("notify", "off")
    with page.container.database.reading() as session:
        thread = threads.get_thread(session, thread_id)
        if wanted not in CHOICES or wanted == "off" or not thread.unread or thread.state != ThreadState.OPEN:
            return Response(status_code=204)
        contact = thread.contact
        name = contact.display_name or next((one.address for one in contact.identities), "Somebody")
        body = (
            f"{thread.subject or 'No subject'}\n{thread.snippet}"[:_PREVIEW] if wanted == "preview" else "New message"
        )
    return JSONResponse({"title": name, "body": body, "url": f"/inbox/{thread_id}"})
