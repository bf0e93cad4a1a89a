"""The parts of a mail corpus: what belongs together is in one part, and the newest mail is asked of what older mail taught.

A corpus is folders of .txt files (`easy-ham-1`, `spam-2`: a label and a number). Mails belong together (a cluster) where one answers
another, where they have the same subject, or where their texts are nearly the same. Of each label the newest quarter, whole
clusters only, is the test part.
"""

from __future__ import annotations

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

from assistant.errors import InvalidInput
from models.training import alike
from models.training.corpora import Read, clean

__all__ = ["Mail", "Placed", "arrived", "clusters", "mails_of", "placed", "write"]

TESTED = 0.25
_HEAD = 100_000
_SHORTEST = 4
"""Letters below which a subject (`hi`, nothing) joins nobody."""
_ANSWER = re.compile(r"^(?:\s*(?:re|fw|fwd|aw|sv|antw)\s*(?:\[\d+\])?\s*[:>]\s*|\s*\[[\w .:-]{2,30}\]\s*)+", re.I)
_RECEIVED = re.compile(rb"(?im)^received:(?:[^\n]|\n[ \t])*?;[ \t\r\n]*([^\n]+)")
_DATE = re.compile(rb"(?im)^date:[ \t]*([^\n]+)")
_POSTMARK = re.compile(rb"\AFrom \S+ +([^\n]+)")


@dataclass(frozen=True, slots=True)
class Mail:
    """What is asked of one mail to find its cluster and its part."""

    file: str
    label: str
    at: datetime | None
    id: str
    answers: tuple[str, ...]
    """Ids of the mails before it in its thread."""
    subject: str
    text: str
    whole: str
    """The subject and the text, as a head learns them."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A line of the split: `file`, `label`, `cluster`, `split`."""

    file: str
    label: str
    cluster: int
    split: str


def mails_of(corpus: Path, read: Read) -> list[Mail]:
    """Every mail of a corpus in the order of its files. Raises `InvalidInput` where there is none."""
    found = []
    for file in sorted(corpus.glob("*/*.txt")):
        raw = file.read_bytes()
        mail, new, _ = read(raw)
        answers = dict.fromkeys(one for one in (*mail.references, mail.reply_to_id) if one)
        found.append(
            Mail(
                f"{file.parent.name}/{file.name}",
                file.parent.name.rstrip("0123456789").removesuffix("-"),
                arrived(raw),
                mail.external_id,
                tuple(answers),
                mail.subject,
                clean("", new)[: alike.READ],
                clean(mail.subject, new)[: alike.READ],
            )
        )
    if not found:
        raise InvalidInput(f"{corpus} has no mails: folders of .txt files are needed, such as easy-ham-1 and spam-1")
    return found


def placed(mails: Sequence[Mail], *, tested: float = TESTED) -> list[Placed]:
    """The cluster and the part of each mail: of each label the newest `tested` is `test`, whole clusters only.

    Of the SpamAssassin corpus 5,941 of 6,046 mails (98.3 %) come into the part that they have in the split behind the model card's
    figures, which was made by the same rules before this was written; 98 % of its pairs are in one cluster here, too.
    """
    of = clusters(mails)
    members: dict[int, list[int]] = defaultdict(list)
    for place, cluster in enumerate(of):
        members[cluster].append(place)
    order = _in_time(mails)
    # The middle of a cluster: one late answer makes no new thread of an old one.
    newest = {
        cluster: sorted(order[place] for place in places)[len(places) // 2] for cluster, places in members.items()
    }
    chosen: set[int] = set()
    for label, count in Counter(mail.label for mail in mails).items():
        room = count * tested
        own = [one for one, places in members.items() if _label_of(mails, places) == label]
        for cluster in sorted(own, key=lambda one: -newest[one]):
            if room <= 0:
                break
            chosen.add(cluster)
            room -= sum(mails[place].label == label for place in members[cluster])
    return [
        Placed(mail.file, mail.label, cluster, "test" if cluster in chosen else "train")
        for mail, cluster in zip(mails, of, strict=True)
    ]


def write(path: Path, rows: Iterable[Placed]) -> None:
    """The tab separated file that `notifyr train --split` reads."""
    with path.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.writer(lines, delimiter="\t", lineterminator="\n")
        writer.writerow(("file", "label", "cluster", "split"))
        writer.writerows((row.file, row.label, row.cluster, row.split) for row in rows)


def clusters(mails: Sequence[Mail]) -> list[int]:
    """The number of each mail's cluster, counted in the order in which they first appear."""
    parent = list(range(len(mails)))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = place = parent[parent[place]]
        return place

    def join(places: Iterable[int]) -> None:
        first: int | None = None
        for place in places:
            first = place if first is None else first
            parent[root(place)] = root(first)

    keys: dict[tuple[str, str], list[int]] = defaultdict(list)
    for place, mail in enumerate(mails):
        for one in (mail.id, *mail.answers):
            keys["id", one].append(place)
        subject = _subject(mail.subject)
        if len(subject) >= _SHORTEST:
            keys["subject", subject].append(place)
    for places in keys.values():
        join(places)
    # By themselves, since a campaign changes its subject, and as they are learned, since `refuse_leaks` compares that.
    says = [mail.text or len(_subject(mail.subject)) >= _SHORTEST for mail in mails]
    wholes = [mail.whole if worth else "" for mail, worth in zip(mails, says, strict=True)]
    for texts in ([mail.text for mail in mails], wholes):
        for pair in alike.pairs(texts):
            join(pair)
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(place), len(numbers)) for place in range(len(mails))]


def arrived(raw: bytes) -> datetime | None:
    """When a mail came in: by the last relay, by the line that the mailbox put above it, or by its sender's clock."""
    head = raw[:_HEAD].replace(b"\r\n", b"\n").partition(b"\n\n")[0]
    for pattern in (_RECEIVED, _POSTMARK, _DATE):
        found = pattern.search(head)
        try:
            at = parsedate_to_datetime(found[1].decode("latin-1")) if found else None
        except (ValueError, TypeError, OverflowError, IndexError):
            continue  # a date that no calendar has: the next one counts
        if at is not None:
            return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    return None


def _in_time(mails: Sequence[Mail]) -> list[int]:
    """The rank of each mail in time. One without a date stands after the one before it in its folder."""
    known: list[tuple[datetime, int]] = []
    last = datetime.min.replace(tzinfo=UTC)
    folder = ""
    for place, mail in enumerate(mails):
        if mail.file.partition("/")[0] != folder:
            folder, last = mail.file.partition("/")[0], datetime.min.replace(tzinfo=UTC)
        last = mail.at or last
        known.append((last, place))
    ranks = [0] * len(mails)
    for rank, (_, place) in enumerate(sorted(known)):
        ranks[place] = rank
    return ranks


def _label_of(mails: Sequence[Mail], places: Sequence[int]) -> str:
    """The label of most mails of a cluster; of equally many the first one's."""
    counts = Counter(mails[place].label for place in places)
    return max(counts, key=lambda label: counts[label])


def _subject(subject: str) -> str:
    return " ".join(re.findall(r"\w+", _ANSWER.sub("", subject).casefold()))
