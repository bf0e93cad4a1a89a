"""What kind of robot wrote a mail (RFC 3834), and what a delivery report says (RFC 3464, RFC 5965)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message
from email.policy import compat32

__all__ = ["Report", "auto_submitted", "report_of"]

_ROBOT = re.compile(
    r"(mailer-daemon|postmaster|no-?reply|do-?not-?reply|bounces?|owner-[^@]*|[^@]*-(request|owner|bounces?))(\+[^@]*)?@",
    re.I,
)
_SUPPRESS = re.compile(r"\b(?:all|autoreply)\b", re.I)
_ORIGINALS = frozenset({"message/rfc822", "message/global", "message/rfc822-headers", "message/global-headers"})
_REPLY_HEADERS = ("x-autoreply", "x-autorespond", "x-auto-reply", "x-autoresponder")


@dataclass(frozen=True, slots=True)
class Report:
    """One recipient of a delivery report. Only `action == "failed"` is a bounce."""

    action: str
    status: str
    """RFC 3463, `5.1.1`; empty when the report gives none."""
    recipient: str
    diagnostic: str
    original_id: str
    """Message-ID of the mail it is about, with angle brackets; empty when it is not enclosed."""


def _value(mail: Message, name: str) -> str:
    value = mail.get(name)
    return "" if value is None else " ".join(str(value).split())[:500]


def auto_submitted(mail: Message, sender: str) -> str:
    """Empty for a person; else `bounce`, `complaint`, `auto-replied`, `auto-generated`, `list`, `bulk` or `robot`."""
    if mail.get_content_type() == "multipart/report":
        kind = str(mail.get_param("report-type", "") or "").lower()
        return {"delivery-status": "bounce", "feedback-report": "complaint"}.get(kind, "auto-generated")
    marked = _value(mail, "Auto-Submitted").partition(";")[0].strip().lower()
    if marked and marked != "no":
        return marked if marked in {"auto-replied", "auto-generated"} else "auto-generated"
    if any(mail.get(name) is not None for name in _REPLY_HEADERS):
        return "auto-replied"
    if _SUPPRESS.search(_value(mail, "X-Auto-Response-Suppress")):
        return "auto-generated"
    if mail.get("List-Id") is not None or mail.get("List-Unsubscribe") is not None:
        return "list"
    precedence = _value(mail, "Precedence").lower()
    if precedence in {"bulk", "junk", "list", "auto_reply"}:
        return {"list": "list", "auto_reply": "auto-replied"}.get(precedence, "bulk")
    if _value(mail, "Return-Path") == "<>":
        return "bounce"
    return "robot" if _ROBOT.match(sender) else ""


def report_of(raw: bytes) -> list[Report]:
    """The recipients of a delivery report; empty for any other mail. Call it only on mail that `parse` could read."""
    mail = message_from_bytes(raw, policy=compat32)
    if mail.get_content_type() != "multipart/report":
        return []
    original, groups = "", []
    for part in mail.walk():
        kind = part.get_content_type()
        payload = part.get_payload()
        if kind == "message/delivery-status" and isinstance(payload, list):
            groups += [group for group in payload if isinstance(group, Message) and group.get("Action")]
        elif kind == "message/global-delivery-status" and isinstance(payload, list) and payload:
            groups += _groups(payload[0])
        elif kind in _ORIGINALS and isinstance(payload, list) and payload:
            original = original or _id(payload[0])
        elif kind == "text/rfc822-headers":
            content = part.get_payload(decode=True)
            if isinstance(content, bytes):
                original = original or _id(message_from_bytes(content, policy=compat32))
    return [
        Report(
            action=_value(group, "Action").lower(),
            status=(re.search(r"[245]\.\d{1,3}\.\d{1,3}", _value(group, "Status")) or [""])[0],
            recipient=_value(group, "Final-Recipient").partition(";")[2].strip()
            or _value(group, "Original-Recipient").partition(";")[2].strip(),
            diagnostic=_value(group, "Diagnostic-Code").partition(";")[2].strip()[:500],
            original_id=original,
        )
        for group in groups[:100]
    ]


def _groups(status: object) -> list[Message]:
    """The recipients of an internationalised report (RFC 6533), which the standard library reads as an attached mail."""
    text = status.get_payload(decode=True) if isinstance(status, Message) and not status.is_multipart() else None
    blocks = re.split(rb"\r?\n[ \t]*\r?\n", text) if isinstance(text, bytes) else []
    groups = (message_from_bytes(block.strip() + b"\n\n", policy=compat32) for block in blocks[:200])
    return [group for group in groups if group.get("Action")]


def _id(mail: object) -> str:
    if not isinstance(mail, Message):
        return ""
    match = re.search(r"<[^<>\s]{1,990}>", _value(mail, "Message-ID"))
    return match.group(0) if match else ""
