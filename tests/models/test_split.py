"""The split of a small synthetic corpus, whose clusters and times are known: what belongs together stays together, and the newest is the test."""

from __future__ import annotations

import random
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from assistant.errors import InvalidInput
from assistant.values import InboundMessage
from channels.support.mime import parse
from channels.support.quotes import split_reply
from models.training.corpora import mail_samples, refuse_leaks
from models.training.split import Placed, arrived, clusters, mails_of, placed, write

BEGAN = datetime(2002, 8, 1, 12, tzinfo=UTC)
WORDS = (
    "harbour lantern copper willow marble engine ribbon saddle thunder velvet walnut compass orchard feather gravel "
    "candle meadow pepper silver tunnel basket cotton dragon falcon garden hammer island jacket kettle ladder"
).split()


def prose(number: int) -> str:
    """Thirty words that no other number has in this order."""
    return " ".join(random.Random(number).choices(WORDS, k=30))  # the same each time


class Corpus:
    """Mails are written one by one, each an hour after the one before it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.group: dict[str, str] = {}
        self._count: dict[str, int] = defaultdict(int)
        self._number = 0

    def add(
        self, place: str, group: str, *, subject: str = "", text: str = "", answers: str = "", hour: float | None = None
    ) -> str:
        """One mail; returns its id. `group` is the cluster that it must end in."""
        self._number += 1
        number = self._count[place] = self._count[place] + 1
        file = self.folder / place / f"{number:05}.txt"
        file.parent.mkdir(exist_ok=True)
        at = BEGAN + timedelta(hours=self._number if hour is None else hour)
        head = [
            f"Received: from a.example by b.example;\n\t{format_datetime(at)}",
            f"From: person{self._number}@example.org",
            f"Subject: {subject or f'Matter of {WORDS[self._number % 30]} {self._number}'}",
            f"Message-ID: <{self._number}@example.org>",
            *([f"References: {answers}"] if answers else []),
            "Date: Thu, 01 Jan 1998 00:00:00 +0000",  # a clock that is wrong
        ]
        file.write_text("\n".join(head) + f"\n\n{text or prose(self._number)}\n")
        self.group[f"{place}/{file.name}"] = group
        return f"<{self._number}@example.org>"


def read(raw: bytes) -> tuple[InboundMessage, str, tuple[str, ...]]:
    mail = parse(raw)
    return mail, split_reply(mail.text)[0], ()


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    made = Corpus(tmp_path / "data")
    made.folder.mkdir()
    first = made.add("easy-ham-1", "thread")
    second = made.add("easy-ham-1", "thread", subject="Something else", answers=first)
    made.add("easy-ham-2", "thread", subject="And again", answers=second)
    made.add("easy-ham-1", "thread", answers="<never kept@example.org> " + first)
    made.add("easy-ham-1", "subject", subject="[ILUG] Kernel on a laptop")
    made.add("easy-ham-2", "subject", subject="Re: [ILUG] Re: kernel on a LAPTOP")
    for number in range(14):
        made.add("easy-ham-1", f"ham {number}")
    made.add("spam-1", "campaign", text=f"Dear Ada, {prose(99)} call 555 0199 today")
    made.add("spam-2", "campaign", text=f"Dear Bo Lind, {prose(99)} call 555 0123 today")
    for number in range(8):
        made.add("spam-2", f"spam {number}")
    for number in range(2):
        made.add("spam-2", f"short {number}", subject="Hi", text="")
    return made


def rows_of(corpus: Corpus) -> list[Placed]:
    return placed(mails_of(corpus.folder, read))


def test_threads_subjects_and_campaigns_are_clusters_and_nothing_else_is(corpus: Corpus) -> None:
    found: dict[str, set[int]] = defaultdict(set)
    groups: dict[int, set[str]] = defaultdict(set)
    for row in rows_of(corpus):
        found[corpus.group[row.file]].add(row.cluster)
        groups[row.cluster].add(corpus.group[row.file])
    assert {group: len(numbers) for group, numbers in found.items()} == dict.fromkeys(corpus.group.values(), 1)
    assert [names for names in groups.values() if len(names) > 1] == []


def test_the_newest_quarter_of_each_label_is_the_test_part(corpus: Corpus) -> None:
    rows = rows_of(corpus)
    assert {row.label for row in rows} == {"easy-ham", "spam"}
    for label, newest in (("easy-ham", [f"ham {n}" for n in range(9, 14)]), ("spam", ["short 0", "short 1", "spam 7"])):
        tested = {corpus.group[row.file] for row in rows if row.label == label and row.split == "test"}
        assert tested == set(newest), label
    assert all(row.split in {"train", "test"} for row in rows)


def test_one_late_answer_does_not_make_an_old_thread_new(corpus: Corpus) -> None:
    corpus.add("easy-ham-2", "thread", subject="Late", answers="<1@example.org>", hour=5000)
    split = {corpus.group[row.file]: row.split for row in rows_of(corpus)}
    assert split["thread"] == "train" and split["ham 13"] == "test"


def test_the_written_split_is_read_without_a_leak_and_the_same_every_time(corpus: Corpus, tmp_path: Path) -> None:
    write(tmp_path / "split.tsv", rows_of(corpus))
    samples = mail_samples(corpus.folder, tmp_path / "split.tsv", read)
    assert refuse_leaks(samples) == []
    assert {one.part for one in samples} == {"train", "recent", "test"}
    before = (tmp_path / "split.tsv").read_bytes()
    write(tmp_path / "split.tsv", rows_of(corpus))
    assert (tmp_path / "split.tsv").read_bytes() == before


def test_a_thread_torn_apart_by_hand_is_refused_with_the_pair_shown(corpus: Corpus, tmp_path: Path) -> None:
    rows = rows_of(corpus)
    torn = next(row for row in rows if corpus.group[row.file] == "campaign")
    write(
        tmp_path / "split.tsv",
        [Placed(row.file, row.label, row.cluster, "test" if row == torn else row.split) for row in rows],
    )
    samples = mail_samples(corpus.folder, tmp_path / "split.tsv", read)
    with pytest.raises(InvalidInput, match=r"group is in .*Dear|group is in test and in") as refused:
        refuse_leaks(samples)
    assert "train" in str(refused.value) or "recent" in str(refused.value)


def test_a_campaign_torn_apart_under_two_clusters_is_refused_with_the_pair_shown(
    corpus: Corpus, tmp_path: Path
) -> None:
    """Somebody who wrote the split by hand gave the two mails clusters of their own: only their words tell."""
    rows = rows_of(corpus)
    torn = next(row for row in rows if corpus.group[row.file] == "campaign")
    write(
        tmp_path / "split.tsv",
        [Placed(row.file, row.label, 999, "test") if row == torn else row for row in rows],
    )
    samples = mail_samples(corpus.folder, tmp_path / "split.tsv", read)
    with pytest.raises(
        InvalidInput, match=r"nearly the same .*Dear Ada.* in test and .*Dear Bo Lind.* in (train|recent)"
    ):
        refuse_leaks(samples)


def test_mails_that_are_nearly_the_same_only_with_their_subject_are_one_cluster(corpus: Corpus) -> None:
    """What `refuse_leaks` compares is what is kept together: no split of ours can be refused by it."""
    for end in ("today", "tonight"):
        corpus.add(
            "ham-1",
            "notice",
            subject=f"The lift in the north tower of the old town hall stands still again {end}",
            text=f"Use stairs {end}",
        )
    assert len({row.cluster for row in rows_of(corpus) if corpus.group[row.file] == "notice"}) == 1


@pytest.mark.parametrize(
    ("raw", "day"),
    [
        (b"From a@b  Thu Aug 22 12:36:23 2002\nDate: Fri, 23 Aug 2002 10:00:00 +0000\n\nx", 22),
        (b"Received: from a by b\n\tfor c; Sat, 24 Aug 2002 12:00:00 +0100 (IST)\nDate: junk\n\nx", 24),
        (
            b"Received: no date here\r\nDate: Fri, 23 Aug 2002 10:00:00 +0000\r\n\r\nReceived: a; Sun, 25 Aug 2002 1:00\n",
            23,
        ),
        (b"Received: from a; Thu, 99 Xxx 2002 99:99:99\nDate: Fri, 23 Aug 2002 10:00:00 +0000\n\nx", 23),
        (b"Subject: x\n\nDate: Fri, 23 Aug 2002 10:00:00 +0000", None),
        (b"", None),
    ],
)
def test_a_mail_came_in_when_its_last_relay_says_so_else_its_mailbox_else_its_sender(
    raw: bytes, day: int | None
) -> None:
    at = arrived(raw)
    assert (at.day if at else None) == day


def test_empty_texts_and_short_subjects_join_nobody(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path)
    for number in range(3):
        corpus.add("ham-1", f"{number}", subject="Re: hi", text=" ")
    assert clusters(mails_of(tmp_path, read)) == [0, 1, 2]
    with pytest.raises(InvalidInput, match="has no mails"):
        mails_of(tmp_path / "ham-1", read)
