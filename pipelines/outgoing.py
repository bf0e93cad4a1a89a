"""The look at an outgoing mail before it is sent: named rules, and the words alone of the judge of spam, each with its part.

The rules are data (`outgoing_rules.json`); this module says what their conditions mean. Nothing here needs the encoder, the
network or the database, so that sending never waits for a model: one look costs about as much as the mail's own parsing.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import structlog

from assistant.errors import ConfigurationError, ModelError
from assistant.services.screening import Outgoing, Part, Seen
from assistant.values import Address, InboundMessage
from channels.support.htmltext import html_to_text
from models.clues import clues

__all__ = ["CONDITIONS", "Rule", "Screener", "Sight", "Words", "load_rules", "sight_of"]

_log = structlog.get_logger(__name__)
_FILE = Path(__file__).with_name("outgoing_rules.json")
_MOST_TEXT, _MOST_HTML = 10_000, 60_000
"""Characters that are looked at."""
_HOST = re.compile(r"(?i)\bhttps?://(?:[^/\s@\"'<>]{0,100}@)?([\w.-]{1,120})")
_WORDS_SHARE = 0.45
"""The most that words alone add, too little for a warning without a rule: the judge learned from mail that came in, and takes
some of an office's own tone (an urgent recall, a lawyer's letter) for spam."""
_WORDS_FROM = 0.5
_HIGHEST = 0.99
_RULES, _WORDS = "rules", "words"


class Words(Protocol):
    """The probability of spam by the words of a text alone. Raises `ModelUnavailable` where its files are not whole."""

    def by_words(self, text: str) -> float: ...


@dataclass(frozen=True, slots=True)
class Sight:
    """A mail as the conditions see it, bounded."""

    subject: str
    text: str
    """New words on one line, without the lines that quote; then what a reader sees of the HTML and not of the text."""
    html: str
    links: str
    """Where addresses may stand: text and HTML as they are."""
    clues: frozenset[str]
    has_text: bool
    strangers: int


Condition = Callable[[Sight], bool]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: it applies when all its conditions do, and then weighs as probable as `weight`."""

    name: str
    reason: str
    weight: float
    conditions: tuple[Condition, ...]

    def applies(self, sight: Sight) -> bool:
        return all(condition(sight) for condition in self.conditions)


def sight_of(mail: Outgoing) -> Sight:
    """What the conditions look at. Never raises for any text."""
    html = mail.html[:_MOST_HTML]
    visible, hidden = html_to_text(html) if html else ("", False)
    new = _one_line(line for line in mail.text[:_MOST_TEXT].splitlines() if not line.lstrip().startswith(">"))
    # Most readers see the HTML: what only stands there counts as well, and what stands in both counts once.
    known = _one_line(mail.text[:_MOST_TEXT].splitlines())
    new = _one_line([new, *(line for line in visible[:_MOST_TEXT].splitlines() if _one_line([line]) not in known)])
    like = InboundMessage(
        channel="email",
        external_id="",
        sender=Address("email", mail.sender),
        recipients=(),
        subject=mail.subject[:500],
        text=new,
        html=html,
        defects=("hidden",) if hidden else (),
    )
    return Sight(
        subject=mail.subject[:500],
        text=new,
        html=html,
        links=f"{new}\n{html}",
        clues=frozenset(clues(like)),
        has_text=bool(mail.text.strip()),
        strangers=mail.strangers,
    )


def _one_line(lines: Iterable[str]) -> str:
    return " ".join(" ".join(lines).split())


def _patterns(patterns: Sequence[str]) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns), re.IGNORECASE)


def _says(patterns: Sequence[str]) -> Condition:
    found = _patterns(patterns)
    return lambda sight: bool(found.search(sight.subject) or found.search(sight.text))


def _links_to(patterns: Sequence[str]) -> Condition:
    found = _patterns(patterns)
    return lambda sight: found.search(sight.links) is not None


def _capitals(text: str, *, least: int, share: float) -> bool:
    letters = [one for one in text if one.isalpha()]
    return len(letters) >= least and sum(map(str.isupper, letters)) >= share * len(letters)


CONDITIONS: dict[str, Callable[[Any], Condition]] = {
    "shouts": lambda least: lambda sight: _capitals(sight.subject, least=least, share=0.8),
    "capitals": lambda least: lambda sight: _capitals(sight.text, least=least, share=0.5),
    "exclaims": lambda least: lambda sight: sight.subject.count("!") + sight.text.count("!") >= least,
    "clue": lambda names: lambda sight: not sight.clues.isdisjoint(names),
    "links_to": _links_to,
    "hosts": lambda least: lambda sight: len(Counter(map(str.lower, _HOST.findall(sight.links)))) >= least,
    "says": _says,
    "also": _says,
    "html_only": lambda _: lambda sight: bool(sight.html.strip()) and not sight.has_text,
    "strangers": lambda least: lambda sight: sight.strangers >= least,
}
"""What a rule may ask for: name in the file -> the condition of its value."""


def load_rules(path: Path = _FILE) -> tuple[Rule, ...]:
    """Raises `ConfigurationError` that names every problem."""
    try:
        problems: list[str] = []
        rules = tuple(_rule(entry, problems) for entry in json.loads(path.read_text(encoding="utf-8"))["rules"])
    except (OSError, ValueError, KeyError, TypeError, re.error) as error:
        raise ConfigurationError([f"{path.name}: {type(error).__name__}: {error}"]) from error
    problems += [
        f"there are two rules {name}" for name, count in Counter(one.name for one in rules).items() if count > 1
    ]
    if problems:
        raise ConfigurationError(problems)
    return rules


def _rule(entry: dict[str, Any], problems: list[str]) -> Rule:
    asked = {name: value for name, value in entry.items() if name not in {"name", "reason", "weight"}}
    name, weight = entry["name"], float(entry["weight"])
    problems += [f"rule {name}: there is no condition {one}" for one in sorted(set(asked) - set(CONDITIONS))]
    if not asked or not entry["reason"] or not 0 < weight < 1:
        problems.append(f"rule {name}: needs a reason, a weight between 0 and 1, and a condition")
    made = tuple(CONDITIONS[one](value) for one, value in asked.items() if one in CONDITIONS)
    return Rule(name, entry["reason"], weight, made)


@cache
def _shipped() -> tuple[Rule, ...]:
    return load_rules()


@dataclass(frozen=True, slots=True)
class Screener:
    """Scores outgoing mail: the same mail always the same. `words` is None where no model is wanted: the rules look alone."""

    words: Words | None = None

    def look(self, mail: Outgoing) -> Seen:
        """Every part that was found, and which scorer failed. Never raises: what failed is named instead."""
        found: list[Part] = []
        missing: list[str] = []
        scorers: list[tuple[str, Callable[[Sight], list[Part]]]] = [(_RULES, _by_rules)]
        if self.words is not None:
            scorers.append((_WORDS, self._by_words))
        sight = cache(lambda: sight_of(mail))
        for name, score in scorers:
            try:
                found += score(sight())
            except ModelError as error:
                _log.warning("outgoing_not_scored", scorer=name, code=error.code, reason=error.message)
                missing.append(name)
            except Exception:  # noqa: BLE001  # a fault of ours stops no mail: a setting says what follows
                _log.exception("outgoing_not_scored", scorer=name)
                missing.append(name)
        if len(missing) == len(scorers):
            return Seen(None, missing=tuple(missing))
        return Seen(_together(found), tuple(found), tuple(missing))

    def _by_words(self, sight: Sight) -> list[Part]:
        assert self.words is not None
        probability = self.words.by_words(f"{sight.subject}\n{sight.text}")
        share = _WORDS_SHARE * max(0.0, probability - _WORDS_FROM) / (1 - _WORDS_FROM)
        return [Part(_WORDS, "its words are those of spam", round(share, 4))] if share >= 0.01 else []


def _by_rules(sight: Sight) -> list[Part]:
    return [Part(rule.name, rule.reason, rule.weight) for rule in _shipped() if rule.applies(sight)]


def _together(parts: Sequence[Part]) -> float:
    """How probable spam is by all parts, were each an independent witness."""
    rest = 1.0
    for part in parts:
        rest *= 1 - part.score
    return round(min(1 - rest, _HIGHEST), 4)
