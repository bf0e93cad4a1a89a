"""What a mail shows besides its words: how it is addressed and built, as short tokens that a head can weigh and a person can read.

A text of any other channel shows only what is done to its letters and links (`of_text`), which is told and not weighed: no head
has learned from text messages that hide something.

Made from an `InboundMessage` only. Names of people, hosts and lists are no clues: they belong to one mailbox and one year.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from assistant.values import InboundMessage
from models.reading import posing

__all__ = ["REASONS", "clues", "of_mail", "of_text", "reasons"]

_FREE = frozenset(
    "gmail googlemail hotmail outlook live msn yahoo ymail aol aim icloud me gmx web mail t-online protonmail proton "
    "excite lycos netscape earthlink juno eudoramail bigfoot usa email yandex qq 163 126 sina".split()
)
_TAG = re.compile(r"<\s*([a-z][a-z0-9]{0,10})\b([^<>]{0,600})", re.I)
_ANCHOR = re.compile(r"<a\b[^<>]{0,600}?href\s*=\s*[\"']?([^\s\"'<>]{1,500})[^<>]{0,300}>(.{0,300}?)</a", re.I | re.S)
_ATTRIBUTE = re.compile(
    r"\b(bgcolor|background|color|face|size|align|width|height|style|onload|action|src)\s*=\s*[\"']?([^\s\"'<>]{1,24})",
    re.I,
)
_HOST = re.compile(r"(?i)\bhttps?://(?:[^/\s@\"'<>]{0,100}@)?([\w.%-]{1,120})")
_LOOKS_LIKE_HOST = re.compile(r"(?i)\b(?:https?://|www\.)?((?:[a-z0-9-]{1,63}\.){1,5}[a-z]{2,24})\b")
_INVISIBLE = re.compile(
    "[\u200b\u2060\ufeff\u00ad\u202a-\u202e\u2066-\u2069]|(?<=[A-Za-z\u00c0-\u052f])[\u200c\u200d](?=[\ufeff\u200b-\u200d]{0,9}[A-Za-z\u00c0-\u052f])"
)
"""Joiners belong into words of other scripts and into emoji; between Latin, Greek and Cyrillic letters they only hide."""
_SMUGGLED = re.compile(
    "(?<![\U0001f3f4\U000e0020-\U000e007f])[\U000e0020-\U000e007f]|[\U000e0020-\U000e007f]{8}|[\ufe00-\ufe0f\U000e0100-\U000e01ef]{2}"
)
"""Sentences in tags, which nobody sees but a program, and bytes in variation selectors. A flag is a few tags after its emoji."""
_MOST = 60_000
"""Characters of HTML that are looked at."""
_MOST_TEXT = 8000

REASONS = {
    "hidden-text": "has text that a reader cannot see",
    "invisible": "has invisible characters inside words",
    "mixed-script": "mixes alphabets inside a word",
    "posing": "has words in letters that only look Latin",
    "link-mismatch": "a link shows one address and leads to another",
    "link-address": "a link leads to a bare number address",
    "link-disguised": "a link hides its host",
    "reply-elsewhere": "answers go to another domain than the sender's",
    "no-message-id": "has no Message-ID",
    "form": "asks for words in a form inside the mail",
    "only-image": "is hardly more than a picture",
    "no-recipient": "names nobody as its recipient",
}
"""Clues that are shown to an agent in words."""
_OF_TEXT = frozenset({"hidden-text", "invisible", "mixed-script", "posing", "link-address", "link-disguised"})
"""Clues that a text may show that is no mail."""


def reasons(found: tuple[str, ...]) -> list[str]:
    """The clues that a person should know of, in words."""
    return [words for clue, words in REASONS.items() if clue in found]


def clues(message: InboundMessage, shape: Sequence[str] = ()) -> tuple[str, ...]:
    """Sorted, each once; of a message that is no email only those of its text (`of_text`).

    `shape` is how the raw mail was built (`channels.support.shape`), where its bytes are at hand.
    """
    if message.channel != "email":
        return of_text(f"{message.subject}\n{message.text}")
    found = {*_sender(message), *_envelope(message), *_words(message), *shape}
    if message.html:
        found |= _markup(message)
    else:
        found.add("plain")
    return tuple(sorted(found))


def of_text(text: str) -> tuple[str, ...]:
    """What a text hides or disguises, whatever it came by; sorted."""
    hosts = [host.lower() for host in _HOST.findall(text[:_MOST])]
    return tuple(sorted(_disguises(text[:_MOST_TEXT], hosts)))


def of_mail(found: Sequence[str]) -> Sequence[str]:
    """The clues of a mail, of whatever else none: what a text alone shows says nothing of how it is addressed and built."""
    return () if _OF_TEXT.issuperset(found) else found


def _sender(message: InboundMessage) -> set[str]:
    local, _, domain = message.sender.value.lower().rpartition("@")
    name = message.sender.display_name
    parts = domain.split(".")
    free = len(parts) > 1 and parts[-2] in _FREE
    found = {f"tld:{parts[-1][:12]}", "free-sender" if free else "own-domain"}
    found |= {"from:" + word for word in re.findall(r"[a-z]{3,20}", local) if word in _ROLES}
    digits = sum(one.isdigit() for one in local)
    found |= {f"from-digits:{min(digits, 4)}", f"from-length:{min(len(local) // 4, 6)}"}
    if not name:
        found.add("no-name")
    else:
        squeezed = re.sub(r"\W", "", name.lower())
        last = re.sub(r"\W", "", name.lower().split()[-1]) if name.split() else ""
        alike = bool(squeezed) and (squeezed in local or local in squeezed or (len(last) > 2 and last in local))
        found |= {"name-fits" if alike else "name-differs", f"name-words:{min(len(name.split()), 4)}"}
        if name.isupper():
            found.add("name-shouts")
        if "@" in name:
            found.add("name-is-address")
    answers = message.reply_to.value.lower().rpartition("@")[2] if message.reply_to else domain
    if message.reply_to is not None:
        found.add("reply-same" if answers == domain else "reply-elsewhere")
    return found


_ROLES = frozenset(
    "info sales support newsletter news offer offers deals admin webmaster noreply reply service services market marketing "
    "bounce mail mailer list owner request customer help billing account accounts security update alerts".split()
)


def _envelope(message: InboundMessage) -> set[str]:
    to, cc = len(message.recipients), len(message.cc)
    found = {f"to:{min(to, 4)}", f"cc:{min(cc, 3)}"}
    if not to and not cc:
        found.add("no-recipient")
    if message.external_id.endswith("@synthetic.invalid>"):
        found.add("no-message-id")
    else:
        left, _, right = message.external_id.strip("<>").lower().rpartition("@")
        domain = message.sender.value.lower().rpartition("@")[2]
        same = right == domain or right.endswith("." + domain) or domain.endswith("." + right)
        found |= {"id-of-sender" if same else "id-elsewhere", "id-shape:" + _shape(left)}
        found.add("id-host:" + ("dotted" if "." in right else "bare"))
    found.add("answers" if message.references or message.reply_to_id else "opens")
    subject = message.subject
    if re.match(r"(?i)re\s*:", subject):
        found.add("re-answers" if message.references or message.reply_to_id else "re-opens")
    if re.search(r"\s{4}\S", subject) or (
        re.search(r"\b[a-z0-9]{8,}\W*$", subject) and re.search(r"\d[a-z]|[a-z]\d", subject[-12:])
    ):
        found.add("subject-tail")
    if subject.isupper() and len(subject) > 8:
        found.add("subject-shouts")
    found |= {f"subject{mark}" for mark in "!?$%" if mark in subject}
    if not subject.strip():
        found.add("no-subject")
    found |= {f"file:{one.content_type.partition('/')[0]}" for one in message.attachments}
    return found


def _shape(text: str) -> str:
    """Runs of digits, capitals and letters of a Message-ID as one sign each, which tells programs that make them apart."""
    kinds = "".join("9" if c.isdigit() else "a" if c.isalpha() else c for c in text)
    return re.sub(r"(.)\1+", r"\1", kinds)[:14]


def _words(message: InboundMessage) -> set[str]:
    text = f"{message.subject}\n{message.text[:_MOST_TEXT]}"
    hosts = [host.lower() for host in _HOST.findall(text + message.html[:_MOST])]
    found = _disguises(text, hosts)
    found |= {f"links:{min(len(hosts).bit_length(), 6)}", f"hosts:{min(len(set(hosts)), 5)}"}
    found |= {f"link-tld:{host.rpartition('.')[2][:8]}" for host in hosts if "." in host}
    letters = [one for one in message.text[:4000] if one.isalpha()]
    if letters:
        found.add(f"capitals:{min(10 * sum(map(str.isupper, letters)) // len(letters), 6)}")
    found.add(f"size:{min(len(message.text).bit_length(), 15)}")
    quoted = sum(line.startswith((">", "|")) for line in message.text.splitlines()[:400])
    found.add(f"quoted:{min(quoted.bit_length(), 5)}")
    return found


def _disguises(text: str, hosts: Sequence[str]) -> set[str]:
    """What is done to letters and links so that they are taken for others."""
    found = set()
    if _INVISIBLE.search(text):
        found.add("invisible")
    if _SMUGGLED.search(text):
        found.add("hidden-text")
    if any(_mixed(word) for word in re.findall(r"[^\W\d_]{3,40}", text) if not word.isascii()):
        found.add("mixed-script")
    if posing(text):
        found.add("posing")
    if any(re.fullmatch(r"[\d.]{7,15}|0x[0-9a-f]+|\d{8,10}", host) for host in hosts):
        found.add("link-address")
    if any("%" in host or host.startswith("xn--") for host in hosts):
        found.add("link-disguised")
    return found


def _mixed(word: str) -> bool:
    """Latin beside Greek or Cyrillic letters in one word (UTS 39): `pаypal` with a Cyrillic a."""
    scripts = Counter(unicodedata.name(letter, "").partition(" ")[0] for letter in word)
    return "LATIN" in scripts and bool(_LOOKING_LATIN & set(scripts))


_LOOKING_LATIN = frozenset({"CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "COPTIC", "LISU"})
"""The alphabets of `lookalikes.json`."""


def _markup(message: InboundMessage) -> set[str]:
    html = message.html[:_MOST]
    found = {"html"}
    tags = Counter(match[1].lower() for match in _TAG.finditer(html))
    found |= {f"tag:{name}" for name in tags} | {f"tag:{name}>8" for name, count in tags.items() if count > 8}
    found |= {
        f"{name}={value}".lower() for name, value in _ATTRIBUTE.findall(html) if name.lower() not in {"src", "action"}
    }
    if any("hidden" in defect for defect in message.defects):
        found.add("hidden-text")
    if "form" in tags or "input" in tags:
        found.add("form")
    if "img" in tags and len(message.text) < 200:
        found.add("only-image")
    if "<!--" in html and re.search(r"\w<!--[^>]{0,60}-->\w", html):
        found.add("split-words")
    for target, shown in _ANCHOR.findall(html):
        host, claimed = _HOST.match(target), _LOOKS_LIKE_HOST.search(re.sub(r"<[^<>]{0,300}>", "", shown))
        if host and claimed and _base(host[1]) != _base(claimed[1]):
            found.add("link-mismatch")
    return found


def _base(host: str) -> str:
    return ".".join(host.lower().split(".")[-2:])
