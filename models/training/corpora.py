"""Prepared training texts: one JSON line each, `{"text", "label", "part", "source", "group"}`.

`part` is `train`, `recent` (the newest slice of train: thresholds and calibration are chosen on it) or `test`; `group`
keeps threads and near-duplicates together. A group in train and in test is a leak and is refused with the pair shown; so are texts
that are nearly the same, where they are more than a few.
"""

from __future__ import annotations

import csv
import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from assistant.errors import InvalidInput
from assistant.values import InboundMessage
from models.clues import clues
from models.training import alike

__all__ = ["Pair", "Sample", "clean", "load", "mail_samples", "refuse_leaks", "sms_samples"]

Read = Callable[[bytes], tuple[InboundMessage, str, tuple[str, ...]]]
_LIST_TAG = re.compile(r"\[[\w .:-]{2,30}\]\s*")
_FOOTER = re.compile(
    r"\n_{30,}\n.*\Z|\n-{5,}\s*\n(?:This sf\.net email|Yahoo! Groups Sponsor).*\Z|\nYahoo! Groups Sponsor.*\Z", re.S
)
_FEW = 0.01
"""Share of the tested mails that may be nearly the same as a learned one. The split behind the model card's figures, made before
this was looked at, has 9 of 1,516; a campaign or a newsletter torn apart by hand is more."""
_MAINTAINER = re.compile(r"\b(?:zzzz|yyyy|jm)@[\w.-]+", re.I)


@dataclass(frozen=True, slots=True)
class Sample:
    text: str
    label: str
    part: str
    source: str
    group: str
    clues: tuple[str, ...] = ()
    """What the mail shows besides its words (`models.clues`)."""


Pair = tuple[Sample, Sample]
"""A learned text and a tested one."""


def clean(subject: str, body: str) -> str:
    """Subject and body as the classifier sees them, without the give-aways of one corpus: list tags, footers, mirrors."""
    text = f"{_LIST_TAG.sub('', subject)}\n{_FOOTER.sub('', body)}"
    return _MAINTAINER.sub("someone@example.org", text).strip()


def load(path: Path) -> list[Sample]:
    """Read prepared lines. Raises `InvalidInput` naming the line that is not one."""
    samples = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            samples.append(Sample(**row | {"clues": tuple(row.get("clues", ()))}))
        except (ValueError, TypeError, AttributeError) as error:
            raise InvalidInput(f"{path.name} line {number} is not a sample: {error}") from None
    refuse_leaks(samples)
    return samples


def refuse_leaks(samples: Sequence[Sample]) -> list[Pair]:
    """Raise `InvalidInput` with the pair when a group or an equal text stands on both sides of train and test, or when more than
    a hundredth of the tested mails are nearly the same as a learned one.

    Returns the pairs that are nearly the same and few enough to go on with: they are for the caller to tell. Those of text
    messages are never refused, since their parts are drawn here (`sms_samples`) and nobody could mend them.
    """
    side: dict[tuple[str, str], Sample] = {}
    for sample in samples:
        test = sample.part == "test"
        for key in ((sample.source + " group", sample.group), ("text", sample.text)):
            other = side.setdefault(key, sample)
            if (other.part == "test") != test:
                raise InvalidInput(
                    f"the same {key[0]} is in {other.part} and in {sample.part}: "
                    f"{other.text[:60]!r} and {sample.text[:60]!r}"
                )
    sides = [sample.part == "test" for sample in samples]
    pairs = alike.pairs([sample.text for sample in samples], sides)
    near = [(samples[b], samples[a]) if sides[a] else (samples[a], samples[b]) for a, b in pairs]
    mails = [pair for pair in near if pair[1].source != "sms"]
    torn, asked = (
        len({id(pair[1]) for pair in mails}),
        sum(one.part == "test" and one.source != "sms" for one in samples),
    )
    if torn > asked * _FEW:
        learned, tested = mails[0]
        raise InvalidInput(
            f"{torn} of {asked} tested texts are nearly the same as one that is learned, such as {tested.text[:60]!r} in test and "
            f"{learned.text[:60]!r} in {learned.part}: keep such texts in one part, as notifyr train --write-split does"
        )
    return near


def mail_samples(corpus: Path, split: Path, read: Read, *, dropped: list[Sample] | None = None) -> list[Sample]:
    """The SpamAssassin corpus with its parts. `read` gives a mail, its new words, and how it was built (`channels.support`):
    a head learns from what it is asked of, and quoted history is no part of that.

    The newest fifth of each folder's train part (its files are in order of time) becomes `recent`, whole groups only. A train
    mail whose text is that of a test mail is left out; `dropped` takes these.
    """
    with split.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t"))
    recent = _recent_groups(rows)
    samples = []
    for row in rows:
        mail, new, shape = read((corpus / row["file"]).read_bytes())
        part = "recent" if row["split"] == "train" and row["cluster"] in recent else row["split"]
        label = "spam" if row["label"].startswith("spam") else "ham"
        text = clean(mail.subject, new)[:40_000]
        samples.append(Sample(text, label, part, row["label"], row["cluster"], clues(mail, shape)))
    return _without_twins(samples, dropped)


def sms_samples(path: Path, *, seed: int = 7, dropped: list[Sample] | None = None) -> list[Sample]:
    """The SMS collection without near-duplicates (equal but for digits and signs), a quarter of it for the test.

    A text of that quarter that is nearly the same as a learned one (`alike`) is tested with no more: knowing it again is no
    merit. `dropped` takes these, and the near-duplicates of a text that is there already.
    """
    chance = random.Random(seed)  # noqa: S311  # a split, not a secret
    groups: dict[str, tuple[str, str]] = {}
    twins: list[Sample] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        label, _, text = line.partition("\t")
        if label in {"ham", "spam"}:
            key = re.sub(r"\d", "#", re.sub(r"\W+", " ", text.lower())).strip()[:60]
            if key in groups:
                twins.append(Sample(text, label, "", "sms", key))
            else:
                groups[key] = label, text
    samples = []
    for key in sorted(groups):
        place = chance.random()
        part = "test" if place < 0.25 else "recent" if place < 0.4 else "train"
        samples.append(Sample(groups[key][1], groups[key][0], part, "sms", key))
    tested = [sample.part == "test" for sample in samples]
    known = {
        place for pair in alike.pairs([sample.text for sample in samples], tested) for place in pair if tested[place]
    }
    if dropped is not None:
        dropped += twins + [samples[place] for place in sorted(known)]
    return [sample for place, sample in enumerate(samples) if place not in known]


def _recent_groups(rows: list[dict[str, str]]) -> set[str]:
    folders: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        if row["split"] == "train":
            folders.setdefault(row["file"].partition("/")[0], []).append(row)
    older: set[str] = set()
    newer: set[str] = set()
    for found in folders.values():
        ordered = [row["cluster"] for row in sorted(found, key=lambda row: row["file"])]
        cut = int(len(ordered) * 0.8)
        older.update(ordered[:cut])
        newer.update(ordered[cut:])
    return newer - older


def _without_twins(samples: list[Sample], dropped: list[Sample] | None) -> list[Sample]:
    """Equal texts on both sides of the split: the test part keeps them."""
    tested = {sample.text for sample in samples if sample.part == "test"}
    kept: list[Sample] = []
    twins: list[Sample] = []
    for sample in samples:
        (twins if sample.part != "test" and sample.text in tested else kept).append(sample)
    if dropped is not None:
        dropped += twins
    return kept
