"""`notifyr demo`: real mail through the listener, so that every screen has content."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api import console
from api.commands.common import PARTLY, Json, opened_container

if TYPE_CHECKING:
    from assistant.db.session import Database
    from assistant.settings import Settings

__all__ = ["MAILS", "answers", "mails", "register"]

MAILS = Path(__file__).resolve().parents[2] / "channels" / "twins" / "mails"
_RECIPIENT = b"@@TO@@"
_FIELD = r"(?im)^%s:\s*(.+)$"
_ANSWERED = "<demo-human@horvat.example>"
_ANSWER = """Dear Mr Horvat,

I am sorry that you had to write three times. I have your order in front of me and call you this afternoon.

Kind regards"""
"""Somebody who asks for a person gets one: so that there is something under Sent."""


def register(app: typer.Typer) -> None:
    """Add `notifyr demo`."""
    app.command("demo", rich_help_panel="Try it")(demo)


def demo(
    as_json: Json = False,
    wait: Annotated[float, typer.Option(help="Seconds to wait for labels and drafts.", min=0)] = 180.0,
) -> None:
    """Fill the inbox: add approved answers and send sample mails to the SMTP listener of a running `notifyr run`.

    One of them is answered, unless a relay is set: nothing of the demo leaves this machine. A second run sends nothing again.

    Example: notifyr demo --wait 60
    """
    from assistant.services import knowledge

    with opened_container() as container:
        settings = container.settings
        with container.database.transaction() as session:
            added = knowledge.seed(session, answers())
        wanted = [(name, content, message_id(content)) for name, content in mails(settings.mail_address)]
        known = _known(container.database, [external_id for _, _, external_id in wanted])
        fresh = [(name, content) for name, content, external_id in wanted if external_id not in known]
        with console.progress(quiet=as_json) as progress:
            sending = progress.add_task("sending mails", total=len(fresh), visible=bool(fresh))
            _send(settings, fresh, lambda: progress.advance(sending))
            drafting = progress.add_task("labels and drafts", total=None)
            open_work = _wait(
                container.database,
                [item[2] for item in wanted],
                seconds=wait,
                seen=lambda done, total: progress.update(drafting, completed=done, total=total),
            )
        replied = settings.relay_url is None and _reply(container.database)
    result = {
        "answers_added": added,
        "mails_sent": len(fresh),
        "mails_known": len(known),
        "replies_written": int(replied),
        "still_working_on": open_work,
        "url": listening(settings, "lock") or settings.base_url,
    }
    _say(result, as_json=as_json)
    raise typer.Exit(PARTLY if open_work else 0)


def answers() -> list[tuple[str, str]]:
    """The sample knowledge of an invented lamp shop: `(title, text)` pairs."""
    parts = re.split(r"(?m)^# +(.+)$", (MAILS / "answers.md").read_text(encoding="utf-8"))
    return [(title.strip(), text.strip()) for title, text in zip(parts[1::2], parts[2::2], strict=True)]


def mails(recipient: str) -> list[tuple[str, bytes]]:
    """The sample mails addressed to `recipient`, in order, as `(name, bytes with CRLF)`."""
    found = []
    for path in sorted(MAILS.glob("*.eml")):
        content = path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        found.append((path.stem, content.replace(_RECIPIENT, recipient.encode())))
    return found


def message_id(content: bytes) -> str:
    return _header(content, "Message-ID")


def listening(settings: Settings, name: str) -> str:
    """Where a running server really listens: another port than configured when that one was taken."""
    try:
        return settings.path("run", name).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""


def _send(settings: Settings, fresh: list[tuple[str, bytes]], advance: Callable[[], None]) -> None:
    import smtplib

    from assistant.errors import TemporaryChannelError

    if not fresh:
        return
    host, port = settings.smtp_host, settings.smtp_port
    if found := listening(settings, "smtp-address"):
        host, _, digits = found.rpartition(":")
        port = int(digits)
    try:
        with smtplib.SMTP(host, port, timeout=30) as smtp:
            for _, content in fresh:
                # A delivery report has the null sender (RFC 5321, section 4.5.5).
                sender = "" if b"multipart/report" in content else _address(_header(content, "From"))
                smtp.sendmail(sender, [settings.mail_address], content, mail_options=["BODY=8BITMIME"])
                advance()
    except (OSError, smtplib.SMTPException) as error:
        words = f"no mail could be sent to {host}:{port} ({error}); start the server first: notifyr run"
        raise TemporaryChannelError(words) from None


def _wait(database: Database, external_ids: list[str], *, seconds: float, seen: Callable[[int, int], None]) -> int:
    import time

    from assistant.clock import monotonic

    deadline, before = monotonic() + seconds, -1
    while True:
        left, total = _left(database, external_ids)
        if left != before:
            seen(total - left, total)
            before = left
        if not left or monotonic() >= deadline:
            return left
        time.sleep(0.25)


def _left(database: Database, external_ids: list[str]) -> tuple[int, int]:
    """How many of the mails still wait for triage or for their draft, and how many there are."""
    from sqlalchemy import select

    from assistant.db.messages import Message, Suggestion
    from assistant.states import SuggestionState, TriageState

    with database.reading() as session:
        rows = session.execute(select(Message.id, Message.triage).where(Message.external_id.in_(external_ids))).all()
        drafting = set(
            session.scalars(select(Suggestion.message_id).where(Suggestion.state == SuggestionState.DRAFTING))
        )
    return sum(triage == TriageState.WAITING or row_id in drafting for row_id, triage in rows), len(rows)


def _reply(database: Database) -> bool:
    """Answer one of the mails, as the first admin would. False when there is nobody to, or when it is answered already."""
    from sqlalchemy import select

    from assistant.db.messages import Message
    from assistant.services import access, outbox
    from assistant.states import Author

    with database.transaction() as session:
        thread_id = session.scalar(select(Message.thread_id).where(Message.external_id == _ANSWERED))
        admins = [one for one in access.agents(session) if one.role == "admin" and one.disabled_at is None]
        if thread_id is None or not admins:
            return False
        if session.scalar(select(Message.id).where(Message.idempotency_key == _ANSWERED)) is not None:
            return False
        agent = min(admins, key=lambda one: one.created_at)
        outbox.queue_message(
            session,
            thread_id=thread_id,
            author=Author.AGENT,
            agent_id=agent.id,
            text=_ANSWER,
            idempotency_key=_ANSWERED,
        )
        return True


def _known(database: Database, external_ids: list[str]) -> set[str]:
    from sqlalchemy import select

    from assistant.db.messages import Message

    with database.reading() as session:
        return set(session.scalars(select(Message.external_id).where(Message.external_id.in_(external_ids))))


def _say(result: dict[str, Any], *, as_json: bool) -> None:
    lines = [
        (
            f"{result['mails_sent']} mails sent, {result['mails_known']} were there already, "
            f"{result['answers_added']} approved answers added."
        )
    ]
    if result["still_working_on"]:
        lines.append(f"Still working on {result['still_working_on']}; the page fills itself.")
    console.emit(result, [*lines, f"Open {result['url']}"], as_json=as_json)


def _header(content: bytes, name: str) -> str:
    found = re.search(_FIELD % re.escape(name), content.decode("utf-8", "replace").partition("\r\n\r\n")[0])
    return found.group(1).strip() if found else ""


def _address(value: str) -> str:
    from email.utils import parseaddr

    return parseaddr(value)[1]
