"""Rules before any model: robots are never answered (RFC 3834), an opt-out is heeded, the unreadable goes to a person.

The rules are data (`screen_rules.json`); this module says what their conditions mean.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from assistant.errors import ConfigurationError
from assistant.services.autopilot import Facts, decide
from assistant.values import Label, Turn
from models.heads.wording import folded, optout_lexicon
from pipelines.stages.run import noted

__all__ = ["CONDITIONS", "Rule", "Screen", "load_rules"]

_FILE = Path(__file__).with_name("screen_rules.json")
_PUNCTUATION = " .,!?:;\"'*¡¿。！？،"
_QUOTE = re.compile(r"^[ \t]*((?:>[ \t]?)+)", re.MULTILINE)
Condition = Callable[[Turn, frozenset[str]], bool]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: its name goes to the trace, its reason to the agent. It applies when all its conditions do."""

    name: str
    kind: Literal["robot", "person"]
    reason: str
    conditions: tuple[Condition, ...]

    def applies(self, turn: Turn, own: frozenset[str]) -> bool:
        return all(condition(turn, own) for condition in self.conditions)


def _says(patterns: list[str]) -> Condition:
    found = re.compile("|".join(f"(?:{pattern})" for pattern in patterns), re.IGNORECASE)

    def condition(turn: Turn, _own: frozenset[str]) -> bool:
        said = " ".join(turn.new_text[:10_000].split())
        return bool(found.search(turn.message.subject[:500]) or found.search(said))

    return condition


def _sender(pattern: str) -> Condition:
    found = re.compile(pattern, re.IGNORECASE)
    return lambda turn, _own: found.fullmatch(turn.message.sender.value.rpartition("@")[0]) is not None


def _whole(_: bool) -> Condition:
    def condition(turn: Turn, _own: frozenset[str]) -> bool:
        words = folded(turn.new_text[:2000]).strip(_PUNCTUATION)
        subject = folded(turn.message.subject[:500]).strip(_PUNCTUATION)
        return (words or subject) in optout_lexicon().whole

    return condition


def _quoted_deeper(levels: int) -> Condition:
    return lambda turn, _own: any(
        match[1].count(">") > levels for match in _QUOTE.finditer(turn.message.text[:200_000])
    )


CONDITIONS: dict[str, Callable[[Any], Condition]] = {
    "marked": lambda kinds: lambda turn, _own: turn.message.auto_submitted in kinds,
    "robot": lambda _: lambda turn, _own: turn.message.auto_submitted not in ("", "no", "suppressed"),
    "own": lambda _: lambda turn, own: turn.message.sender.value.casefold() in own,
    "sender": _sender,
    "defect": lambda name: lambda turn, _own: name in turn.message.defects,
    "says": _says,
    "whole": _whole,
    "short": lambda most: lambda turn, _own: len(" ".join(turn.new_text[:2000].split())) <= most,
    "longer": lambda most: lambda turn, _own: len(turn.new_text) > most,
    "quoted_deeper": _quoted_deeper,
    "empty": lambda _: lambda turn, _own: not (turn.new_text.strip() or turn.message.subject.strip()),
}
"""What a rule may ask for: name in the file -> the condition of its value."""


def load_rules(path: Path = _FILE) -> tuple[tuple[Rule, ...], Condition]:
    """The rules in order, and what marks a mail as urgent. Raises `ConfigurationError` that names every problem."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        urgent = _says([found["urgent"]])
        problems: list[str] = []
        rules = tuple(_rule(entry, problems) for entry in found["rules"])
    except (OSError, ValueError, KeyError, TypeError, re.error) as error:
        raise ConfigurationError([f"{path.name}: {type(error).__name__}: {error}"]) from error
    if problems:
        raise ConfigurationError(problems)
    return rules, urgent


def _rule(entry: dict[str, Any], problems: list[str]) -> Rule:
    asked = {name: value for name, value in entry.items() if name not in {"name", "kind", "reason"}}
    name = entry["name"]
    problems += [f"rule {name}: there is no condition {one}" for one in sorted(set(asked) - set(CONDITIONS))]
    if entry["kind"] not in {"robot", "person"} or not asked or not entry["reason"]:
        problems.append(f"rule {name}: needs a kind (robot or person), a reason and a condition")
    made = tuple(CONDITIONS[one](value) for one, value in asked.items() if one in CONDITIONS)
    return Rule(name, entry["kind"], entry["reason"], made)


@cache
def _shipped() -> tuple[tuple[Rule, ...], Condition]:
    return load_rules()


@dataclass(frozen=True, slots=True)
class Screen:
    """`own` are the addresses of our profiles, in lower case."""

    own: Callable[[], frozenset[str]]
    name: str = "screen"

    def __call__(self, turn: Turn) -> Turn:
        rules, urgent = _shipped()
        own = self.own()
        rule = next((rule for rule in rules if rule.applies(turn, own)), None)
        if (rule is None or rule.kind == "person") and urgent(turn, own):
            turn = replace(turn, labels=(*turn.labels, Label("urgency:high", 1.0)))
        if rule is None:
            return noted(turn, self.name, "ok", "a person wrote it")
        facts = Facts(robot=rule.reason) if rule.kind == "robot" else Facts(person_needed=rule.reason)
        outcome = "stop" if rule.kind == "robot" else "handoff"
        return noted(replace(turn, decision=decide(facts)), self.name, outcome, rule.reason, rule=rule.name)
