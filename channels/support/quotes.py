"""The new words of a reply: without quoted history and signature. A view only; the original is always kept."""

from __future__ import annotations

import re

__all__ = ["split_reply"]

_LONGEST = 60_000
_LANGUAGES = ["en", "de", "fr", "es", "it", "nl", "pl", "sv", "da", "pt", "ja", "zh"]
_WROTE = re.compile(
    r"^[ \t>]*(?:On|Am|Le|El|Il|Op|Den|Em|W dniu|Dnia|På|Vào)\b[^\n]{4,200}(?:\n[^\n]{0,120})?"
    r"(?:wrote|schrieb|a écrit|escribió|ha scritto|schreef|skrev|escreveu|napisał\(?a?\)?)\s*:?[ \t]*$",
    re.M | re.I,
)
_OUTLOOK = re.compile(
    r"^[ \t]*(?:-{2,}\s*(?:Original Message|Ursprüngliche Nachricht|Message d'origine|Mensaje original)\s*-{2,}"
    r"|_{20,}[ \t]*\n(?:From|Von|De|Fra|Från|Da|Od):[^\n]*)[ \t]*$",
    re.M | re.I,
)
_HEADERS = re.compile(
    r"^(?:\*?(?:From|Von|De|Fra|Från|Da|Od|Van)\*?:[ \t][^\n]{1,300}@[^\n]{1,300})\n"
    r"(?:\*?(?:Sent|Date|Gesendet|Datum|Envoyé|Enviado|Sendt|Skickat|Inviato|To|An|À|Para|Til)\*?:[^\n]*\n)",
    re.M | re.I,
)


def split_reply(text: str) -> tuple[str, str]:
    """(new words, the rest). Answers written between quoted lines stay, with what they answer. Never raises.

    The quote marks of twelve languages are known to `mail-parser-reply`; where it finds nothing new, all of the text counts.
    """
    if len(text) > _LONGEST:
        return text, ""
    cut = _cut(text)
    head, rest = text[:cut].rstrip(), text[cut:]
    if _interleaved(text):
        return text.strip(), ""
    new = _without_signature(head)
    if cut == len(text):
        new = _by_library(text) or new
    return (new, rest.strip()) if new.strip() else (text.strip(), "")


def _cut(text: str) -> int:
    places = [match.start() for pattern in (_WROTE, _OUTLOOK, _HEADERS) if (match := pattern.search(text))]
    trailing = re.search(r"\n(?:>[^\n]*\n?)+\s*\Z", "\n" + text)
    if trailing:
        places.append(max(0, trailing.start() - 1) if trailing.start() else 0)
    return min(places, default=len(text))


def _interleaved(text: str) -> bool:
    """Own words after quoted lines: the answer is inside the quote."""
    lines = [line for line in text.splitlines() if line.strip()]
    quoted = [number for number, line in enumerate(lines) if line.lstrip().startswith(">")]
    if not quoted:
        return False
    after = [line for line in lines[quoted[0] :] if not line.lstrip().startswith(">")]
    signature = next((n for n, line in enumerate(after) if line.rstrip() in {"--", "-- "}), len(after))
    return bool(after[:signature])


def _without_signature(text: str) -> str:
    return re.split(r"\n-- ?\n", text, maxsplit=1)[0].rstrip()


def _by_library(text: str) -> str:
    from mailparser_reply import EmailReplyParser

    try:
        return str(EmailReplyParser(languages=_LANGUAGES).parse_reply(text=text) or "").strip()
    except Exception:  # noqa: BLE001  # a parser of a stranger's text; the whole text is a good answer too
        return ""
