"""Prepared training texts: one JSON line each, `{"text", "label", "part", "source", "group"}`.

`part` is `train`, `recent` (the newest slice of train: thresholds and calibration are chosen on it) or `test`; `group`
keeps threads and near-duplicates together. A group in two parts is a leak and is refused with the pair shown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from assistant.errors import InvalidInput

__all__ = ["Sample", "clean", "load", "refuse_leaks"]

_LIST_TAG = re.compile(r"\[[\w .:-]{2,30}\]\s*")
_FOOTER = re.compile(r"\n_{30,}\n.*\Z|\n-{5,}\s*\n(?:This sf\.net email|Yahoo! Groups Sponsor).*\Z|\nYahoo! Groups Sponsor.*\Z", re.S)
_MAINTAINER = re.compile(r"\b(?:zzzz|yyyy|jm)@[\w.-]+", re.I)


@dataclass(frozen=True, slots=True)
class Sample:
    text: str
    label: str
    part: str
    source: str
    group: str


def clean(subject: str, body: str) -> str:
    """Subject and body as the classifier sees them, without the give-aways of one corpus: list tags, footers, mirrors."""
    text = f"{_LIST_TAG.sub('', subject)}\n{_FOOTER.sub('', body)}"
    return _MAINTAINER.sub("someone@example.org", text).strip()


def load(path: Path) -> list[Sample]:
    """Read prepared lines. Raises `InvalidInput` naming the line that is not one."""
    samples = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            samples.append(Sample(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise InvalidInput(f"{path.name} line {number} is not a sample: {error}") from None
    refuse_leaks(samples)
    return samples


def refuse_leaks(samples: Iterable[Sample]) -> None:
    """Raise `InvalidInput` when a group or an equal text stands on both sides of train and test."""
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
