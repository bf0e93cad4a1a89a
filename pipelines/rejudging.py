"""Judge spam again in the mails that are like one an agent has corrected: those that are here already, not only the later ones.

The whole pipeline is not run again. Only the judge of spam is asked, with the corrections that stand now, so the same task
gives back what a correction changed once it is undone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import structlog

from assistant.db.session import Database, committing, enqueue
from assistant.errors import ModelError, ModelUnavailable
from assistant.failpoints import failpoint
from assistant.services import campaigns, corrections
from assistant.services.campaigns import Mail
from assistant.services.rules import Rules
from assistant.values import Decision, DecisionKind, Label, TraceStep, Turn
from models.features import HEAD, TAIL, hashed
from models.memory import HEARD, Columns, likeness
from pipelines.stages.classify import ALONE, Classify, Explaining, Seen, ended, spam_said, told, whole_of

__all__ = ["MOST", "Judged", "Rejudging", "judged_again"]

_log = structlog.get_logger(__name__)
MOST = 500
"""Mails that are judged again for one correction, the most alike first."""
_SAME = 0.001
"""Scores that differ by less say the same."""
_HELD = "it was held as spam: nobody has looked for an answer"


@dataclass(frozen=True, slots=True)
class Judged:
    """What the judge says of a mail now. `why`: as `spam_because`."""

    score: float
    why: Mapping[str, Any]


class Rejudging:
    """Safe from any thread. What it keeps saves time only: a bulk of corrections, made at once, is as many tasks."""

    def __init__(self) -> None:
        self._columns: dict[str, Columns] = {}
        self._done: tuple[str, frozenset[str]] = ("", frozenset())

    def __call__(self, database: Database, classify: Classify, message_id: str) -> None:
        """Twice is once. Where corrections change meanwhile the task comes again, and judges by them."""
        model: object = classify.model
        if not isinstance(model, Explaining):
            return
        failpoint("rejudge.before_read")
        with database.reading() as session:
            version = corrections.generation(session, "spam")
            own = campaigns.mail(session, message_id, front=HEAD, back=TAIL)
            others = campaigns.candidates(session, but=message_id, front=HEAD, back=TAIL) if own else []
        if own is None or not (alike := self._alike(own, others, version)):
            return
        with database.reading() as session:
            turns = campaigns.turns(session, alike)
        rules = classify.rules()
        failpoint("rejudge.before_judge")
        try:
            judged = _judged(classify, model, turns)
        except ModelError as error:  # they stay as they were judged, as where there is no encoder
            _log.warning("not_judged_again", message_id=message_id, reason=error.message)
            return
        failpoint("rejudge.after_judge")
        for turn in turns:
            one = judged.get(turn.message_id)
            if one is None or judged_again(turn, one, classify, rules) is turn:
                continue
            with database.transaction() as session:
                committing("rejudge", session)
                said = partial(judged_again, judged=one, classify=classify, rules=rules)
                saved = campaigns.save(session, turn.message_id, version=version, said=said)
                if saved is None:
                    enqueue(session, "rejudge", message_id)
            if saved is None:
                return
        before, done = self._done
        self._done = (version, frozenset(alike) | (done if before == version else frozenset()))

    def _alike(self, own: Mail, others: list[Mail], version: str) -> list[str]:
        """Those that the correction is heard of, but what was judged by these very corrections already."""
        known = self._columns
        columns = {
            one.message_id: found if (found := known.get(one.message_id)) is not None else hashed(one.text)
            for one in others
        }
        self._columns = columns
        scores = zip(columns, likeness(hashed(own.text), list(columns.values())), strict=True)
        ranked = sorted(((score, message_id) for message_id, score in scores if score > HEARD), reverse=True)
        before, done = self._done
        return [one for _, one in ranked[:MOST] if before != version or one not in done]


def _judged(classify: Classify, model: Explaining, turns: list[Turn]) -> dict[str, Judged]:
    """Of every mail that the whole judge speaks of, in one go. By half of it no mail is judged anew."""
    shown = [(whole_of(turn), classify.clues(turn)) for turn in turns]
    labels = model.spam_only([text for text, _ in shown], [clues for _, clues in shown])
    found = {}
    for turn, (text, clues), said in zip(turns, shown, labels, strict=True):
        score = next((label.score for label in said if label.name == "spam:spam"), None)
        if score is not None and (why := model.spam_because(text, clues))["stage"] != ALONE:
            found[turn.message_id] = Judged(score, why)
    return found


def judged_again(turn: Turn, judged: Judged, classify: Classify, rules: Rules) -> Turn:
    """A triaged mail with another verdict on spam, everything else as it was; the very turn where it says the same."""
    place = next((place for place, step in enumerate(turn.trace) if step.stage == "classify"), None)
    was = next((label.score for label in turn.labels if label.name == "spam:spam"), None)
    if place is None or was is None:
        return turn
    turn = _screened(before := turn)
    step, detail = turn.trace[place], cast("dict[str, Any]", dict(turn.trace[place].detail))
    verdict, band = classify.verdict(turn, judged.score, rules)
    if detail.get("spam") == verdict and abs(was - judged.score) < _SAME:
        return before
    intent, best = str(detail.get("intent") or ""), turn.label("intent")
    claimed = f"intent {intent} {best.score:.2f}" if intent and best else "no clear intent"
    faults = {
        head: ModelUnavailable(str(words)) for head, words in (detail.get("faults") or {}).items() if head != "spam"
    }
    wants_out = str(detail.get("opt_out") or "")
    decision, outcome, reason = ended(
        turn, Seen(verdict, judged.score, wants_out, claimed, faults, lacking=told(faults))
    )
    detail |= {
        "spam": verdict,
        "because": [*_but_spam(detail), *_words(verdict, judged.why), *spam_said(verdict, judged.why)],
        "spam_because": dict(judged.why) | {"band": band},
        "judged_again": True,
    }
    again = replace(step, outcome=outcome, reason=reason, score=judged.score, detail=detail)
    trace = (*turn.trace[:place], again, *turn.trace[place + 1 :])
    return replace(
        turn,
        labels=_relabelled(turn.labels, judged.score),
        trace=_handed_over(trace, step.reason, decision, stopped=outcome == "stop"),
        decision=decision,
    )


def _screened(turn: Turn) -> Turn:
    """With the decision of the first screening, which the trace keeps in words."""
    kinds = {"stop": DecisionKind.STOP, "handoff": DecisionKind.HANDOFF}
    step = next((one for one in turn.trace if one.stage == "screen"), None)
    kind = kinds.get(step.outcome) if step is not None else None
    return turn if step is None or kind is None else replace(turn, decision=Decision(kind, step.reason))


def _relabelled(labels: tuple[Label, ...], score: float) -> tuple[Label, ...]:
    place = next(place for place, label in enumerate(labels) if label.head == "spam")
    pair = sorted((Label("spam:spam", score), Label("spam:ham", 1 - score)), key=lambda label: -label.score)
    rest = [label for label in labels if label.head != "spam"]
    return (*rest[:place], *pair, *rest[place:])


def _but_spam(detail: Mapping[str, Any]) -> list[str]:
    """The sentences on every other label."""
    own = set((detail.get("spam_because") or {}).get("reasons") or [])
    marks = ("words: ", "as an agent said of “", "spam decided by: ")
    return [said for said in detail.get("because") or [] if said not in own and not said.startswith(marks)]


def _words(verdict: str, why: Mapping[str, Any]) -> list[str]:
    words = [word for word, weight in why["words"] if weight > 0 and not word.startswith("#")]
    return ["words: " + ", ".join(words[:5])] if words and verdict in ("spam", "uncertain") else []


def _handed_over(
    trace: tuple[TraceStep, ...], said: str, decision: Decision | None, *, stopped: bool
) -> tuple[TraceStep, ...]:
    """A mail that comes out of quarantine has no draft and no decision: it asks for a person, until it is held again.

    `said`: the reason that the verdict before gave. Where it was the decision's, the decision says the new one.
    """
    kept = tuple(step for step in trace if not (step.stage == "decide" and step.detail.get("judged_again")))
    if stopped:
        return kept
    reason = decision.reason if decision is not None else _HELD
    if all(step.stage != "decide" for step in kept):
        if any(step.stage == "screen" and step.outcome == "stop" for step in kept):
            return kept  # what a machine wrote asks for nobody
        return (*kept, TraceStep("decide", "handoff", 0.0, reason, None, {"kind": "handoff", "judged_again": True}))
    return tuple(
        replace(step, reason=reason if decision is not None else "it was perhaps spam: please look")
        if step.stage == "decide" and step.outcome == "handoff" and step.reason == said
        else step
        for step in kept
    )
