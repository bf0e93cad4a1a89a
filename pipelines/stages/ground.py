"""Where each sentence of a draft comes from: citations behind what a source says, spans around what none does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from assistant.values import CitedLine, Draft, Mark, Span, Turn
from pipelines.stages.facts import facts, placed, stems, tokens

__all__ = ["POLITE", "ground"]

_ENOUGH = 0.6
"""Share of a sentence's content words that its source must have."""
POLITE = stems(
    "thank thanks question questions asking message mail email request writing contacting getting touch help happy glad"
    " sorry hear understand inconvenience note know let hope this answers hello dear regards"
)
"""What a rewriting may add of its own."""


@dataclass(frozen=True, slots=True)
class _Source:
    """One sentence of a passage (`number` from 1) or one line of a message (`number` 0)."""

    number: int
    start: int
    end: int
    text: str
    words: frozenset[str]
    line: CitedLine | None = None


def ground(draft: Draft, turn: Turn, *, body: str, sentences: bool = True) -> Draft:
    """The draft with its marks, cited lines and unsupported spans. `body`: the part of its text that needs sources.

    Without `sentences` (the draft is in another language than its sources) only numbers, links, names and the like are
    looked up, and nothing is cited.
    """
    sources = [*_passages(turn), *_lines(turn)]
    said = {token.value.casefold() for source in sources for token in tokens(source.text)}
    said |= {word.casefold().strip(".,;:!?()") for source in sources for word in source.text.split()}
    # What the sender claims supports nothing; only the names of things (an order number with letters) come from there.
    claimed = {token.value.casefold() for token in tokens(turn.new_text) if token.kind in {"identifier", "name"}}
    asked = stems(turn.new_text)
    offset = draft.text.index(body)
    marks: list[Mark] = []
    spans: list[Span] = []
    lines: list[CitedLine] = []
    for place, (start, sentence) in enumerate(placed(body)):
        at = offset + start
        words = stems(sentence) - POLITE
        best = _best(words, sources)
        if sentences and words and not _says(sentence, words, best, sources) and not (place == 0 and words <= asked):
            spans.append(Span(at, at + len(sentence), "sentence", sentence))
            continue
        if sentences and words and best is not None and len(words & best.words) >= _ENOUGH * len(words):
            marks.append(_mark(at + len(sentence.rstrip(".!?:;")), best, turn, lines))
        spans += [
            Span(at + token.start, at + token.end, token.kind, sentence[token.start : token.end])
            for token in tokens(sentence)
            if token.value.casefold() not in said
            and not (token.kind in {"identifier", "name"} and token.value.casefold() in claimed)
        ]
    return replace(draft, marks=tuple(_thinned(marks)), spans=tuple(spans), lines=tuple(lines))


def _passages(turn: Turn) -> Iterator[_Source]:
    for number, passage in enumerate(turn.passages, 1):
        for start, sentence in placed(passage.text):
            yield _Source(number, start, start + len(sentence), sentence, stems(sentence))


def _lines(turn: Turn) -> Iterator[_Source]:
    """Lines that we wrote ourselves earlier in the thread."""
    for message in turn.history:
        for number, line in enumerate(message.text.splitlines()[:400], 1):
            if line.strip() and message.direction == "outbound":
                cited = CitedLine(message.id, number, line.strip()[:500])
                yield _Source(0, 0, len(line.strip()), line.strip(), stems(line), cited)


def _best(words: frozenset[str], sources: Sequence[_Source]) -> _Source | None:
    """The source that shares most words; a passage before a line of the mail."""
    return max(sources, key=lambda source: (len(words & source.words), source.number > 0, -source.number), default=None)


def _says(sentence: str, words: frozenset[str], best: _Source | None, sources: Sequence[_Source]) -> bool:
    """Whether one source has the words of the sentence, and denies what it denies."""
    if best is None:
        return False
    # A sentence may join two of its source: all of the passage counts, the line of a mail stands alone.
    whole = [source for source in sources if source.number == best.number] if best.number else [best]
    known = frozenset().union(*(source.words for source in whole))
    if len(words & known) < _ENOUGH * len(words):
        return False
    told, meant = set(facts(sentence).negations), set(facts(best.text).negations)
    allowed = {target for source in whole for target in facts(source.text).negations}
    close = len(words & best.words) >= _ENOUGH * max(len(words), 1)
    return told <= allowed and (not close or meant <= told or len(best.words & words) < _ENOUGH * len(best.words))


def _mark(at: int, best: _Source, turn: Turn, lines: list[CitedLine]) -> Mark:
    if best.line is None:
        return Mark(at, best.number, best.start, best.end)
    if best.line not in lines:
        lines.append(best.line)
    return Mark(at, len(turn.passages) + 1 + lines.index(best.line), best.start, best.end)


def _thinned(marks: Sequence[Mark]) -> list[Mark]:
    """One mark for neighbours that cite the same sentence: the last of them."""
    following = [*marks[1:], None][: len(marks)]
    return [
        mark
        for mark, after in zip(marks, following, strict=True)
        if after is None or (after.number, after.start) != (mark.number, mark.start)
    ]
