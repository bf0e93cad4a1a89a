"""The new words of a reply: without quoted history and signature. A view only; the original is always kept."""

from __future__ import annotations

import re

__all__ = ["split_reply"]

_LONGEST = 60_000
_LIBRARY = 4_000
"""Characters that the library is given: its expressions take time that grows with the square of the text."""
_LANGUAGES = ["en", "de", "fr", "es", "it", "nl", "pl", "sv", "da", "pt", "ja", "zh"]
_NAMES = "From|Von|De|Fra|Från|Da|Od|Van|Lähettäjä|От|差出人|发件人|寄件者"
_STARTS = re.compile(r"(?:On|Am|Le|El|Il|Op|Den|Em|W dniu|Dnia|På|Vào)\b", re.I)
_WROTE = re.compile(
    r"\b(?:wrote|schrieb[^:]{0,100}|a écrit|escribió|ha scritto|schreef[^:]{0,100}|skrev[^:]{0,100}|escreveu|napisał\(?a?\)?) ?:$",
    re.I,
)
_OUTLOOK = re.compile(
    r"-{2,} ?(?:Original Message|Ursprüngliche Nachricht|Message d'origine|Mensaje original|Oprindelig meddelelse"
    r"|Ursprungligt meddelande|Wiadomość oryginalna|Messaggio originale|Oorspronkelijk bericht) ?-{2,}$",
    re.I,
)
_FROM = re.compile(rf"\*?(?:{_NAMES}) ?[:：]\*? ?\S", re.I)
_SENT = re.compile(
    r"\*?(?:Sent|Date|Gesendet|Datum|Envoyé|Enviado(?: el)?|Sendt|Skickat|Inviato|Wysłano|Verzonden|Lähetetty|Отправлено|送信日時|发送时间"
    r"|寄件日期) ?[:：]\*? ?\S",
    re.I,
)
_WHO = re.compile(r"[<(][^<>()\s@]{1,64}@[^<>()\s]{1,255}[>)]")
_WHEN = re.compile(r"\b\d{1,2}[:.]\d{2}(?!\d)")
_RULE = re.compile(r"_{20,}$")


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
    if cut == len(text) and len(text) <= _LIBRARY:
        head = _by_library(re.sub(r"\n{3,}", "\n\n", "\n".join(map(str.rstrip, text.split("\n"))))) or head
    new = _without_signature(head)
    return (new, rest.strip()) if new.strip() else (text.strip(), "")


def _cut(text: str) -> int:
    """Where the history begins: at a line that introduces it, or at the quoted lines that end the text."""
    lines = text.split("\n")
    flat = [" ".join(line.split()) for line in lines]
    end = len(flat)
    while end and (not flat[end - 1] or flat[end - 1].startswith(">")):
        end -= 1
    if not any(flat[end:]):
        end = len(lines)
    first = next((number for number in range(end) if _introduces(flat, number)), _said(flat, end))
    return sum(len(line) + 1 for line in lines[:first]) if first < len(lines) else len(text)


def _said(flat: list[str], end: int) -> int:
    """Where the line begins that says, in any language, who wrote what is quoted from `end` on, and when; else `end`.

    It names an address and a time and ends with a colon, right above the quoted lines. Clients wrap it.
    """
    if not 0 < end < len(flat) or not flat[end - 1].endswith((":", "：")):
        return end
    for lines in (1, 2):
        said = " ".join(flat[max(0, end - lines) : end])
        if len(said) <= 300 and _WHO.search(flat[end - 1]) and _WHEN.search(said):
            return max(0, end - lines)
    return end


def _introduces(flat: list[str], number: int) -> bool:
    line = flat[number]
    if len(line) > 300:
        return False
    if _OUTLOOK.match(line):
        return True
    following = [one[:300] for one in flat[number + 1 : number + 4]]
    if _RULE.match(line):
        return bool(following) and bool(_FROM.match(following[0]))
    if _STARTS.match(line):
        # Clients wrap this line: it ends with the verb on the same line or on one of the next two.
        return any(_WROTE.search(" ".join([line, *following[:more]])) for more in range(3))
    # Outlook's block of headers: a sender, and when it was sent right below.
    return bool(_FROM.match(line)) and any(_SENT.match(one) for one in following[:2])


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
