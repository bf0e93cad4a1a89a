"""Any bytes to an `InboundMessage`, without ever raising.

Caps are checked on the raw bytes before anything parses them, because parsers of mail are quadratic in several places.
The standard library's `compat32` reader is used: its modern policy raises on some inputs (cpython #151857) and is slow on
others. What it cannot read falls back to the headers alone, then to the raw bytes; those mails are quarantined.
`channels.support.child.ParserChild` does the same in a process with limits, so that a bomb costs its own child only.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes
from email.header import decode_header
from email.message import Message
from email.policy import Compat32
from email.utils import getaddresses, parsedate_to_datetime
from typing import Any

from assistant.values import Address, Attachment, InboundMessage
from channels.support.bounces import auto_submitted
from channels.support.content import file_name, sniffed
from channels.support.htmltext import html_to_text
from channels.support.risks import risk_of
from channels.support.text import deceives, one_line, tidy

__all__ = ["DEFAULT", "UNREADABLE", "Limits", "parse"]

UNREADABLE = "unreadable@invalid"
"""Sender of a mail whose From names nobody (RFC 2606 keeps `.invalid` for this)."""
_ANGLE = re.compile(r"<[^<>\s\x00-\x20]{1,990}>")
_LOCAL = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.\u0080-\U0010ffff-]{1,64}|\"[^\"\r\n\\]{1,62}\""
_ADDRESS = re.compile(rf"(?P<local>{_LOCAL})@(?P<domain>[A-Za-z0-9.\u0080-\U0010ffff-]{{1,255}}|\[[0-9A-Fa-f.:IPv]+\])")
_WITH_ADDRESSES = frozenset({b"to", b"cc", b"from", b"reply-to", b"sender", b"bcc"})
_PART_HEADER = re.compile(rb"(?m)^(content-[a-z-]{2,30})[ \t]*:[^\n]*(?:\n[ \t][^\n]*)*", re.I)
_NESTING = re.compile(
    rb"(?m)^(?:content-type[ \t]*:(?:[ \t]|\n[ \t])*(?:multipart/|message/rfc822)[^\n]*(?:\n[ \t][^\n]*)*|--[^\n]+)",
    re.I,
)
_BOUNDARY = re.compile(rb"boundary[ \t]*=[ \t]*(?:\"([^\"]{1,250})\"|([^\s;]{1,250}))", re.I)
_BARE_NAME = re.compile(
    r"\A\s*([^\"<>,;:()\\]{0,200}@[^\"<>,;:()\\]{0,200}?)\s*<([^<>@\s]{1,64}@[^<>@\s]{1,255})>\s*\Z"
)
"""`ann@example.org <ann@example.org>`: some clients forget the quotes round a name with an @ in it."""
_NAMED_HEADERS = ("list-id", "precedence", "auto-submitted", "return-path", "x-mailer", "importance", "x-priority")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a mail may have. More is quarantined with its raw bytes kept (or refused before, by the listener)."""

    size: int = 35_000_000
    header_bytes: int = 256_000
    one_header: int = 64_000
    header_lines: int = 10_000
    parts: int = 1_000
    depth: int = 50
    addresses: int = 500
    parameters: int = 100
    text: int = 2_000_000
    """Characters of text or HTML kept for display; the raw bytes have the rest."""


DEFAULT = Limits()


class _Lenient(Compat32):
    """`compat32` with raw 8-bit headers as text (RFC 6532, and what old clients send); it has question marks there."""

    def header_fetch_parse(self, name: str, value: str) -> str:
        return _eight_bit(value)


_POLICY = _Lenient()


def parse(raw: bytes, *, limits: Limits = DEFAULT, received_at: datetime | None = None) -> InboundMessage:
    """Read a mail. Never raises; what was wrong is in `defects`, and `quarantine` there means: show the raw form only."""
    digest = hashlib.sha256(raw).hexdigest()
    head = _head(raw)
    defects = _excesses(raw, head, limits)
    if not defects:
        try:
            return _read(message_from_bytes(raw, policy=_POLICY), digest, limits, received_at)
        except (Exception, RecursionError) as error:  # noqa: BLE001  # any failure of a parser ends here, by design
            defects = [f"unreadable: {type(error).__name__}"]
    try:
        bare = message_from_bytes(head[: limits.header_bytes][: limits.one_header] + b"\r\n\r\n", policy=_POLICY)
        return _headers_only(bare, digest, [*defects, "quarantine"], received_at)
    except (Exception, RecursionError):  # noqa: BLE001
        return _nothing(digest, [*defects, "headers unreadable", "quarantine"], received_at)


# -- caps, on the raw bytes


def _head(raw: bytes) -> bytes:
    end = re.search(rb"\r?\n\r?\n|\r\r", raw)
    return raw[: end.start()] if end else raw


def _excesses(raw: bytes, head: bytes, limits: Limits) -> list[str]:
    """Every cap that a mail breaks. One pass over the bytes for each question, whatever is in them."""
    if len(raw) > limits.size:
        return [f"larger than {limits.size} bytes"]
    # The parser ends a line at a bare CR, too.
    head, body = (part.replace(b"\r\n", b"\n").replace(b"\r", b"\n") for part in (head, raw[len(head) :]))
    if len(head) > limits.header_bytes or head.count(b"\n") > limits.header_lines:
        return ["headers too large"]
    found = []
    for line in re.sub(rb"\n[ \t]", b" ", head).split(b"\n"):
        name = line[:40].partition(b":")[0].strip().lower()
        if len(line) > limits.one_header:
            found.append("a header is too large")
        elif name in _WITH_ADDRESSES and line.count(b"@") > limits.addresses:
            found.append("too many addresses")
        elif name.startswith(b"content-") and line.count(b";") > limits.parameters:
            found.append("too many parameters")
    if body.count(b"\n--") > 4 * limits.parts:
        found.append("too many parts")
    content_types = 0
    for match in _PART_HEADER.finditer(body):
        content_types += match[1].lower() == b"content-type"
        if len(match[0]) > limits.one_header:
            found.append("a part's header is too large")
        elif match[0].count(b";") > limits.parameters:
            found.append("too many parameters")
    if content_types > limits.parts:
        found.append("too many parts")
    if not found and _depth(head, body) > limits.depth:
        found.append("too deeply nested")
    return list(dict.fromkeys(found))


def _depth(head: bytes, body: bytes) -> int:
    """How many multiparts and attached mails are open inside each other at the worst place."""
    deepest = 0
    still_open: list[bytes] = []
    for match in _NESTING.finditer(head + body):
        line = match[0].strip()
        if not line.startswith(b"--"):
            boundary = _BOUNDARY.search(line)
            still_open.append((boundary[1] or boundary[2]).strip() if boundary else b"")
            deepest = max(deepest, len(still_open))
            continue
        for place in range(len(still_open) - 1, max(-1, len(still_open) - 200), -1):
            name = still_open[place]
            if name and line[2:].startswith(name):
                del still_open[place + (line[2:].rstrip() != name + b"--") :]
                break
    return deepest


# -- reading


def _read(mail: Message, digest: str, limits: Limits, received_at: datetime | None) -> InboundMessage:
    defects: list[str] = []
    texts: list[str] = []
    htmls: list[str] = []
    attachments: list[Attachment] = []
    for number, part in enumerate(_leaves(mail), 1):
        if number > limits.parts:
            raise ValueError("too many parts")
        _take(part, texts, htmls, attachments, defects)
    html = "\n".join(htmls)[: limits.text]
    text = "\n".join(texts).strip()[: limits.text]
    if html:
        visible, hidden = html_to_text(html)
        text = text or visible
        if hidden:
            defects.append("hidden-text")
    base = _headers_only(mail, digest, defects, received_at)
    return _with(base, text=text, html=html, attachments=tuple(attachments))


def _with(base: InboundMessage, **values: Any) -> InboundMessage:
    from dataclasses import replace

    return replace(base, **values)


def _leaves(mail: Message) -> Iterator[Message]:
    """Parts that hold content, depth first; an attached mail is one leaf, not its parts."""
    stack = [mail]
    while stack:
        part = stack.pop()
        # Asked of a leaf, `get_payload()` decodes by the named charset, and some charsets raise.
        payload = part.get_payload() if part.is_multipart() else None
        if part.get_content_type() == "message/rfc822" and part is not mail:
            yield part
        elif isinstance(payload, list) and part.get_content_type() != "message/delivery-status":
            stack.extend(one for one in reversed(payload) if isinstance(one, Message))
        else:
            yield part


def _take(part: Message, texts: list[str], htmls: list[str], attachments: list[Attachment], defects: list[str]) -> None:
    kind = part.get_content_type()
    disposition = _decoded(str(part.get("Content-Disposition", ""))).partition(";")[0].strip().lower()
    filename = _filename(part)
    if part.defects:
        defects.extend(sorted({type(one).__name__ for one in part.defects} - set(defects))[:5])
    if kind in {"text/plain", "text/html"} and disposition != "attachment" and not filename:
        body = _text(part)
        (htmls if kind == "text/html" else texts).append(body)
        return
    content = _content(part)
    if not content and not filename:
        return
    attachments.append(
        Attachment(
            filename=filename or ("message.eml" if kind == "message/rfc822" else ""),
            content_type=sniffed(content, kind),
            content=content,
            risk=risk_of(filename, content),
            content_id=_decoded(str(part.get("Content-ID", ""))).strip().strip("<>")[:300],
            inline=disposition == "inline" or (bool(part.get("Content-ID")) and disposition != "attachment"),
        )
    )


def _content(part: Message) -> bytes:
    payload = part.get_payload() if part.is_multipart() else None
    if isinstance(payload, list):
        return b"\n".join(one.as_bytes(policy=_POLICY) for one in payload if isinstance(one, Message))
    decoded = part.get_payload(decode=True)
    return decoded if isinstance(decoded, bytes) else b""


def _text(part: Message) -> str:
    content = _content(part)
    charset = (part.get_content_charset() or "").strip("\"' ") or "utf-8"
    for name in (charset, "utf-8"):
        try:
            return tidy(content.decode(name))
        except (LookupError, UnicodeError, ValueError):
            continue
    return tidy(content.decode("windows-1252", "replace"))


def _filename(part: Message) -> str:
    name = part.get_filename()
    if not isinstance(name, str):
        return ""
    return file_name(_decoded(name))


# -- headers


def _headers_only(mail: Message, digest: str, defects: list[str], received_at: datetime | None) -> InboundMessage:
    sender, wrong = _sender(mail)
    if wrong:
        defects = [*defects, wrong]
    references = _ids(mail, "References")
    answers = _ids(mail, "In-Reply-To")
    own = _ids(mail, "Message-ID")
    if not own:
        defects = [*defects, "no message-id"]
    reply_to = _addresses(mail, "Reply-To")
    return InboundMessage(
        channel="email",
        external_id=own[0] if own else f"<{digest}@synthetic.invalid>",
        sender=sender,
        recipients=_addresses(mail, "To"),
        cc=_addresses(mail, "Cc"),
        subject=one_line(_header(mail, "Subject"))[:990],
        text="",
        reply_to=reply_to[0] if reply_to else None,
        reply_to_id=answers[0] if answers else (references[-1] if references else ""),
        references=tuple(references[-100:]),
        received_at=received_at,
        sent_at=_date(mail),
        auto_submitted=auto_submitted(mail, sender.value),
        content_hash=digest,
        headers={name: one_line(_header(mail, name))[:500] for name in _NAMED_HEADERS if mail.get(name) is not None},
        defects=tuple(dict.fromkeys(defects)),
    )


def _nothing(digest: str, defects: list[str], received_at: datetime | None) -> InboundMessage:
    return InboundMessage(
        channel="email",
        external_id=f"<{digest}@synthetic.invalid>",
        sender=Address("email", UNREADABLE),
        recipients=(),
        subject="",
        text="",
        received_at=received_at,
        content_hash=digest,
        defects=tuple(defects),
    )


def _header(mail: Message, name: str) -> str:
    value = mail.get(name)
    return "" if value is None else _decoded(str(value))


def _eight_bit(value: str) -> str:
    content = value.encode("utf-8", "surrogateescape")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("windows-1252", "replace")


def _decoded(value: str) -> str:
    """Encoded words (RFC 2047) and raw 8-bit bytes to text. Never raises."""
    plain = _eight_bit(value)
    if "=?" not in plain:
        return tidy(plain)
    try:
        pieces = decode_header(re.sub(r"\r?\n[ \t]+", " ", plain))
    except Exception:  # noqa: BLE001  # binascii, value and index errors of the standard library
        return tidy(plain)
    out = []
    for content, charset in pieces:
        if isinstance(content, str):
            out.append(content)
            continue
        try:
            out.append(content.decode(charset or "utf-8"))
        except (LookupError, UnicodeError, ValueError):
            out.append(content.decode("utf-8", "replace"))
    return tidy("".join(out))


def _ids(mail: Message, name: str) -> list[str]:
    return _ANGLE.findall(_header(mail, name)[:60_000])


def _date(mail: Message) -> datetime | None:
    try:
        found = parsedate_to_datetime(one_line(_header(mail, "Date"))[:100])
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    try:
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (OverflowError, ValueError):
        return None


def _addresses(mail: Message, name: str) -> tuple[Address, ...]:
    raw = [str(value) for value in mail.get_all(name, [])][:10]
    found = []
    for value in raw:
        # Names are decoded after the split: a comma inside an encoded word is no comma between addresses.
        flat = _BARE_NAME.sub(r'"\1" <\2>', re.sub(r"[\r\n]+", " ", value[:40_000]))
        for display, spec in getaddresses([flat]):
            if address := _address(display, spec):
                found.append(address)
    return tuple(found[:500])


def _address(display: str, spec: str) -> Address | None:
    plain = _decoded(spec).strip()
    match = _ADDRESS.fullmatch(plain)
    # In a domain IDNA would drop such marks without a word, and make another address of it.
    if match is None or deceives(plain):
        return None
    domain = match["domain"].lower().rstrip(".")
    if not domain.startswith("["):
        try:
            domain = domain.encode("idna").decode("ascii") if not domain.isascii() else domain
        except UnicodeError:
            return None
    value = unicodedata.normalize("NFC", f"{match['local']}@{domain}")
    return Address("email", value, one_line(_decoded(display))[:300])


def _sender(mail: Message) -> tuple[Address, str]:
    """The one From. A header that names several, or hides one behind a bracket (CVE-2023-27043), names nobody."""
    values = mail.get_all("From", [])
    header = re.sub(r"[\r\n]+", " ", str(values[0])) if values else ""
    unquoted = re.sub(r"\"(?:[^\"\\]|\\.)*\"", "", header)
    bare = unquoted
    while (inner := re.sub(r"\([^()]*\)", "", bare)) != bare:
        bare = inner
    found = _addresses(mail, "From")
    odd = any(mark in bare for mark in "()") or (
        bare.count("@") != 1 and not re.search(r"@[^<@]*<[^<>@]*@[^<>]*>", bare)
    )
    if len(found) == 1 and not odd and len(values) == 1:
        return found[0], ""
    shown = one_line(_decoded(header))[:300]
    return Address("email", UNREADABLE, shown), "sender unreadable"
