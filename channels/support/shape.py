"""How a mail was built, as short tokens: which program's habits its headers and parts show. Never whom it is from or to.

Only headers that the sender's own program writes count. Those of lists, relays and filters name one mailbox and one year.
"""

from __future__ import annotations

import re
from email import message_from_bytes
from email.message import Message
from itertools import pairwise

__all__ = ["shape", "shape_of"]

_OWN = frozenset(
    "from to cc bcc subject date message-id mime-version content-type content-transfer-encoding content-disposition "
    "content-language reply-to in-reply-to references x-mailer user-agent x-priority x-msmail-priority x-mimeole importance "
    "priority organization x-accept-language thread-topic thread-index content-class comments x-originating-ip".split()
)
_ORDERED = frozenset("from to cc subject mime-version message-id content-type reply-to x-mailer".split())
_PARTS = 7
_HEAD = 64_000


def shape_of(raw: bytes) -> tuple[str, ...]:
    """The shape of raw bytes. Never raises: bytes that are no mail have none."""
    try:
        return shape(message_from_bytes(raw[:_HEAD]))
    except (ValueError, LookupError, RecursionError, TypeError, AttributeError):
        return ()  # a mail that the reader cannot stand has no shape to speak of; its defects are noted where it is parsed


def shape(mail: Message) -> tuple[str, ...]:
    """Sorted tokens, each once."""
    names = [name for name in mail.keys()[:200] if name.lower() in _OWN]
    found = {f"h:{name}" for name in names}
    order = [name.lower() for name in names if name.lower() in _ORDERED]
    found |= {f"order:{first}>{second}" for first, second in pairwise(order)}
    for name in ("X-Mailer", "User-Agent"):
        found |= {f"mailer:{word.lower()}" for word in re.findall(r"[A-Za-z]{3,20}", _text(mail, name))[:4]}
    for number, part in enumerate(mail.walk()):
        if number >= _PARTS:
            break
        found |= _part(part, "part" if number else "ctype")
    zone = re.search(r"(?:[+-]\d{4}|\b[A-Z]{3,4})\s*(\(.*\))?\s*\Z", _text(mail, "Date"))
    found.add("date-odd" if zone is None else "date-zone:" + ("named" if zone[1] else "bare"))
    to = _text(mail, "To")
    found |= {"to-angle" if "<" in to else "to-bare", "to-quoted" if '"' in to else "to-unquoted"}
    if priority := _text(mail, "X-Priority").strip():
        found.add(f"priority:{priority[0]}")
    return tuple(sorted(re.sub(r"\s", "_", token) for token in found))


def _part(part: Message, kind: str) -> set[str]:
    content_type = _text(part, "Content-Type")
    found = {f"{kind}:{content_type.partition(';')[0].strip().lower()[:30]}"}
    charset = re.search(r"charset\s*=\s*(\"?)([\w.-]{2,20})", content_type, re.I)
    if charset:
        found |= {f"charset:{charset[2].lower()}", "charset-quoted" if charset[1] else "charset-bare"}
    boundary = re.search(r"boundary\s*=\s*\"?([^\";\s]{1,60})", content_type, re.I)
    if boundary:
        kinds = "".join("9" if c.isdigit() else "a" if c.isalpha() else c for c in boundary[1])
        found.add("boundary:" + re.sub(r"(.)\1+", r"\1", kinds)[:16])
    if encoding := _text(part, "Content-Transfer-Encoding").strip():
        found.add(f"encoding:{encoding.lower()[:16]}")
    return found


def _text(mail: Message, name: str) -> str:
    return str(mail.get(name) or "")[:2000]
