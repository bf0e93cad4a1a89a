"""Rules before any model: robots are never answered (RFC 3834), an opt-out is heeded, the unreadable goes to a person."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from assistant.services.autopilot import Facts, decide
from assistant.values import Label, Turn
from pipelines.stages.run import noted

__all__ = ["RULES", "Rule", "Screen"]

MAX_CHARACTERS = 200_000
"""More text than a person writes: no model reads it, a person may."""
_ROBOT = re.compile(
    r"^(?:mailer-daemon|postmaster|no-?reply|do-?not-?reply|bounces?|owner-.+|.+-request|.+-bounces?)$", re.IGNORECASE
)
# One word that is the whole message (carriers' list, FCC 2024), and requests that leave no doubt in a short one.
_OPT_OUT_WORDS = frozenset(
    {
        *("stop", "stopall", "stop all", "unsubscribe", "end", "quit", "revoke", "optout", "opt-out", "opt out"),
        *("stop please", "please stop", "unsubscribe me", "please unsubscribe", "please unsubscribe me"),
        *("remove me", "please remove me"),
    }
)
_OPT_OUT_REQUEST = re.compile(
    r"\b(?:(?:stop|quit) (?:e-?mailing|mailing|texting|messaging|contacting|writing to|sending) me"
    r"|(?:take|remove|delete) me (?:off|from) (?:your|the|this|all) (?:e-?mail |mailing )?lists?"
    r"|(?:un-?subscribe|opt) me (?:out )?(?:from|of) (?:your|the|this|all) (?:e-?mails?|mailings?|newsletters?|lists?)"
    r"|(?:do not|don'?t|never) (?:e-?mail|contact|text|message|write to) me (?:again|any ?more|ever))\b",
    re.IGNORECASE,
)
_HUMAN = re.compile(
    r"\b(?:speak|talk|chat) (?:to|with) (?:a |an |some)?(?:real |actual |human )?(?:person|human|body|one|someone|somebody|agent|manager|supervisor)\b"
    r"|\b(?:please )?call me (?:back|today|tomorrow|now)\b|\bnot a (?:bot|robot|machine)\b",
    re.IGNORECASE,
)
_LEGAL = re.compile(
    r"\b(?:my (?:lawyer|solicitor|attorney)|legal action|letter before action|take you to court|liability insur\w+"
    r"|we act for|data protection authority|small claims)\b",
    re.IGNORECASE,
)
_URGENT = re.compile(
    r"\b(?:urgent(?:ly)?|asap|as soon as possible|immediately|emergency|right away|deadline today)\b", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: its name goes to the trace, its reason to the agent."""

    name: str
    kind: Literal["robot", "person"]
    reason: str
    applies: Callable[[Turn, frozenset[str]], bool]


def _marked(*kinds: str) -> Callable[[Turn, frozenset[str]], bool]:
    return lambda turn, _own: turn.message.auto_submitted in kinds


def _says(pattern: re.Pattern[str]) -> Callable[[Turn, frozenset[str]], bool]:
    return lambda turn, _own: bool(pattern.search(turn.message.subject[:500]) or pattern.search(turn.new_text[:10_000]))


def _local_part(turn: Turn) -> str:
    return turn.message.sender.value.rpartition("@")[0]


def _wants_out(turn: Turn, _own: frozenset[str]) -> bool:
    said = " ".join(turn.new_text[:2000].split())
    words = said.strip(" .,!?:;\"'*").casefold()
    subject = turn.message.subject.strip(" .,!?:;\"'*").casefold()
    return (
        words in _OPT_OUT_WORDS
        or (not words and subject in _OPT_OUT_WORDS)
        or (len(said) <= 400 and _OPT_OUT_REQUEST.search(said) is not None)
    )


RULES: tuple[Rule, ...] = (
    Rule("bounce", "robot", "a delivery report: no answer to a bounce", _marked("bounce")),
    Rule("complaint", "robot", "a spam complaint report", _marked("complaint")),
    Rule("auto-reply", "robot", "an automatic reply", _marked("auto-replied")),
    Rule("list", "robot", "a mailing list or newsletter", _marked("list", "bulk")),
    Rule(
        "robot",
        "robot",
        "sent by a machine",
        lambda turn, _: turn.message.auto_submitted not in ("", "no", "suppressed"),
    ),
    Rule(
        "own-address",
        "robot",
        "sent from one of our own addresses",
        lambda turn, own: turn.message.sender.value.casefold() in own,
    ),
    Rule(
        "no-reply", "robot", "the sender takes no replies", lambda turn, _: _ROBOT.match(_local_part(turn)) is not None
    ),
    Rule(
        "quarantine",
        "person",
        "could not be read safely: shown as raw",
        lambda turn, _: "quarantine" in turn.message.defects,
    ),
    Rule("opt-out", "person", "asks not to be written to: recorded", _wants_out),
    Rule("human", "person", "asks for a human", _says(_HUMAN)),
    Rule("legal", "person", "a legal matter", _says(_LEGAL)),
    Rule("size", "person", "too long for the models", lambda turn, _: len(turn.new_text) > MAX_CHARACTERS),
    Rule(
        "empty",
        "person",
        "no text of its own: only quotes, pictures or attachments",
        lambda turn, _: not (turn.new_text.strip() or turn.message.subject.strip()),
    ),
)
"""In order; the first that applies decides."""


@dataclass(frozen=True, slots=True)
class Screen:
    """`own` are the addresses of our profiles, in lower case."""

    own: Callable[[], frozenset[str]]
    rules: tuple[Rule, ...] = RULES
    name: str = "screen"

    def __call__(self, turn: Turn) -> Turn:
        own = self.own()
        rule = next((rule for rule in self.rules if rule.applies(turn, own)), None)
        if (rule is None or rule.kind == "person") and _says(_URGENT)(turn, own):
            turn = replace(turn, labels=(*turn.labels, Label("urgency:high", 1.0)))
        if rule is None:
            return noted(turn, self.name, "ok", "a person wrote it")
        facts = Facts(robot=rule.reason) if rule.kind == "robot" else Facts(person_needed=rule.reason)
        outcome = "stop" if rule.kind == "robot" else "handoff"
        return noted(replace(turn, decision=decide(facts)), self.name, outcome, rule.reason, rule=rule.name)
