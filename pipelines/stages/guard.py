"""Verify a rewritten answer against the approved one; in doubt the approved words are used as they are.

The guard makes suggestions safe, not the model: every number, date, link, address, name and negation of the approved
answer must survive, none may be new, and nothing of the sender's words or of our instructions may appear.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from assistant.services.autopilot import confidence_of, word_of
from assistant.values import Check, Draft, Turn
from pipelines.stages.draft import APPROVED, PROMPT_VERSION, SYSTEM, compose
from pipelines.stages.facts import Facts, facts, sentences, stems
from pipelines.stages.ground import POLITE, ground
from pipelines.stages.run import noted

__all__ = ["Guard", "verify"]

_MARKUP = re.compile(
    r"\]\s*\(|!\[|^[^\S\n]*\[[^\]\n]{1,80}\]:|<[a-z!/][^>\n]{0,200}>?|```|^#{1,6}\s|\|\s*-{2,}"
    r"|javascript:|data:[a-z]+/|&#|\*\*|__",
    re.IGNORECASE | re.MULTILINE,
)
_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\U000e0000-\U000e007f]"
)
_KEPT = 0.6
"""Share of a sentence's content words that must survive in the rewriting."""
_RUN = 5
"""So many words in a row from the sender's mail are a quotation."""
_FIELDS = (
    ("numbers", "numbers"),
    ("dates", "dates"),
    ("links", "links"),
    ("addresses", "addresses"),
    ("identifiers", "identifiers"),
    ("names", "names"),
    ("negations", "negations"),
    ("limits", "limits"),
)
_HARD = frozenset({"plain text", "sender's words", "instructions", "length"})
"""Checks that no wish of an agent excuses."""


@dataclass(frozen=True, slots=True)
class Guard:
    """Checks the draft of the turn and puts the approved answer in its place when one check fails.

    With `asked` a person wished for another wording: it is shown, and what no source supports is marked in it, so that it
    cannot be sent before it is edited out. `same_language(text, source)` says whether sentences can be compared.
    """

    floor: float
    sign_off: str
    asked: bool = False
    same_language: Callable[[str, str], bool] = lambda text, source: True
    name: str = "guard"

    def __call__(self, turn: Turn) -> Turn:
        if not turn.passages:
            return noted(turn, self.name, "skipped", "no passage found")
        approved = turn.passages[0]
        rivals = [passage.score for passage in turn.passages[1:] if passage.document_id != approved.document_id]
        confidence = confidence_of(approved.score, rival=max(rivals, default=None), floor=self.floor)
        draft = turn.draft or Draft("", APPROVED, PROMPT_VERSION, 0.0)
        checks = self._checks(draft.text, approved.text, turn) if draft.text else ()
        refused = [check for check in checks if not check.passed]
        stands = bool(draft.text) and not [check for check in refused if not self.asked or check.name in _HARD]
        if stands:
            said = "as you asked" if refused else "every number, link, name and negation kept"
            body, reason = draft.text, f"rephrased by {draft.model}: {said}"
        else:
            why = refused[0].name + (f" ({refused[0].detail})" if refused[0].detail else "") if refused else ""
            reason = f"approved answer unchanged: the rewriting failed on {why}" if why else "approved answer unchanged"
            body, checks = approved.text, (*verify(approved.text, approved.text), Check("fallback", True, reason))
            draft = replace(draft, model=APPROVED)
        text = compose(body, contact_name=turn.contact_name, sign_off=self.sign_off)
        finished = replace(draft, text=text, confidence=confidence, citations=(approved.source,))
        comparable = not stands or not refused or self.same_language(body, approved.text)
        finished = ground(finished, turn, body=body.strip(), sentences=comparable)
        if not comparable:
            checks = (
                *checks,
                Check("language", False, "not the language of its sources: compare the sentences yourself"),
            )
        return noted(
            replace(turn, draft=finished, checks=checks),
            self.name,
            "ok",
            reason,
            score=confidence,
            word=word_of(confidence),
            refused=[check.name for check in refused],
            unsupported=len(finished.spans),
        )

    def _checks(self, text: str, approved: str, turn: Turn) -> tuple[Check, ...]:
        checks = verify(text, approved, inbound=turn.new_text)
        if not self.asked:
            return checks
        # "Shorter" may be much shorter.
        fits = 20 <= len(text) <= len(approved) * 2 + 300
        return tuple(replace(check, passed=fits) if check.name == "length" else check for check in checks)


def verify(draft: str, approved: str, *, inbound: str = "") -> tuple[Check, ...]:
    """One check per kind of harm, all of them always: the agent sees which one failed."""
    known = sorted(stem for stem in (word.casefold() for word in re.findall(r"[^\W\d_]+", approved)))
    told, meant = facts(draft, known=known), facts(approved, known=known)
    return (
        _check("plain text", _MARKUP.findall(draft) + _CONTROL.findall(draft), "has"),
        Check("length", _length_fits(draft, approved), f"{len(draft)} of {len(approved)} characters"),
        *(_same(name, field, told, meant) for name, field in _FIELDS),
        _check("nothing left out", _lost(draft, approved), "lost"),
        _check("nothing added", _added(draft, approved, inbound), "adds"),
        _check("sender's words", _copied(draft, inbound, allowed=approved), "repeats"),
        _check("instructions", _copied(draft, SYSTEM, allowed=approved), "repeats"),
    )


def _same(name: str, field: str, told: Facts, meant: Facts) -> Check:
    said, approved = getattr(told, field), getattr(meant, field)
    if said == approved:
        return Check(name, True)
    lost, new = sorted(set(approved) - set(said)), sorted(set(said) - set(approved))
    parts = [f"lost {', '.join(lost[:3])}"] * bool(lost) + [f"new {', '.join(new[:3])}"] * bool(new)
    return Check(name, False, "; ".join(parts) or "other order or count")


def _check(name: str, found: Iterable[str], verb: str) -> Check:
    found = [item.strip()[:60] for item in found]
    return Check(name, not found, f"{verb} {found[0]!r}" if found else "")


def _length_fits(draft: str, approved: str) -> bool:
    return len(approved) * 0.5 <= len(draft) <= len(approved) * 1.6 + 160


def _lost(draft: str, approved: str) -> list[str]:
    kept = stems(draft)
    wanted = ((sentence, stems(sentence)) for sentence in sentences(approved))
    return [sentence for sentence, words in wanted if words and len(words & kept) < _KEPT * len(words)]


def _added(draft: str, approved: str, inbound: str) -> list[str]:
    fine = stems(approved) | POLITE
    first, *rest = sentences(draft) or [""]
    # Only the opening may name the subject of the mail ("Thank you for asking about your parcel").
    return sorted(stems(first) - fine - stems(inbound)) + sorted(stems(" ".join(rest)) - fine)


def _copied(draft: str, source: str, *, allowed: str) -> list[str]:
    runs, fine = _runs(source), _runs(allowed)
    return [" ".join(run) for run in _runs(draft) if run in runs and run not in fine]


def _runs(text: str) -> dict[tuple[str, ...], None]:
    words = re.findall(r"\w+", text.casefold()[:20_000])
    return dict.fromkeys(tuple(words[start : start + _RUN]) for start in range(len(words) - _RUN + 1))
