"""Every sentence of a draft has a source or is marked: what is cited, and what nobody may send."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.inbox.card import cut, lit
from assistant.values import Draft, Turn, TurnMessage
from pipelines.stages.facts import placed, tokens
from pipelines.stages.guard import Guard
from tests.pipelines.turns import passage, turn

ANSWER = (
    "We send a refund within 14 days after we receive the goods. Shipping costs of 4.90 EUR are not refunded. "
    "You can follow it at https://lumen.example/refund or write to refunds@lumen.example before 12 March."
)


def guarded(text: str, *, asked: bool = True, **values: Any) -> tuple[Turn, Draft]:
    """What the guard makes of a rewriting that an agent asked for."""
    before = turn("where is my refund for RX-20?", passages=(passage(ANSWER, source="Refunds"),), **values)
    done = Guard(floor=0.3, sign_off="Kind regards,\nLumen", asked=asked)(
        Turn(**{name: getattr(before, name) for name in before.__dataclass_fields__} | {"draft": a_draft(text)})
    )
    assert done.draft is not None
    return done, done.draft


def a_draft(text: str) -> Draft:
    return Draft(text=text, model="llama", prompt_version="p", confidence=0.0)


def test_what_the_approved_answer_says_is_cited_sentence_by_sentence() -> None:
    _, draft = guarded(ANSWER)
    assert draft.spans == ()
    assert len(draft.marks) == 3
    for mark in draft.marks:
        said = ANSWER[mark.start : mark.end]
        assert mark.number == 1
        assert draft.text[: mark.at].endswith(said.rstrip("."))


UNSUPPORTED = [
    (ANSWER.replace("14", "40"), "number", "40"),
    (ANSWER.replace("4.90", "9.40"), "number", "9.40"),
    (ANSWER.replace("lumen.example/refund", "evil.example/refund"), "link", "https://evil.example/refund"),
    (ANSWER.replace("refunds@", "paypal@"), "address", "paypal@lumen.example"),
    (ANSWER.replace("12 March", "12 May"), "name", "May"),
    (ANSWER.replace("a refund within", "a refund to Klarna within"), "name", "Klarna"),
    (ANSWER.replace("You can", "With number ZX-99 you can"), "identifier", "ZX-99"),
    (ANSWER + " Your neighbour took the parcel.", "sentence", "Your neighbour took the parcel."),
    (ANSWER.replace("are not refunded", "are refunded"), "sentence", "Shipping costs of 4.90 EUR are refunded."),
    (
        ANSWER.replace("We send", "We do not send"),
        "sentence",
        "We do not send a refund within 14 days after we receive the goods.",
    ),
]


@pytest.mark.parametrize(("text", "kind", "said"), UNSUPPORTED)
def test_what_no_source_says_is_marked_where_it_stands(text: str, kind: str, said: str) -> None:
    _, draft = guarded(text)
    assert [(span.kind, span.text) for span in draft.spans] == [(kind, said)]
    span = draft.spans[0]
    assert draft.text[span.start : span.end] == said


def test_without_a_wish_the_approved_words_stand_and_nothing_is_unsupported() -> None:
    for text, _, _ in UNSUPPORTED:
        _, draft = guarded(text, asked=False)
        assert ANSWER in draft.text
        assert draft.spans == ()


def test_no_wish_excuses_markup_or_the_words_of_the_sender() -> None:
    for text in ("# Refund\n" + ANSWER, ANSWER + " <b>now</b>", "short"):
        _, draft = guarded(text)
        assert ANSWER in draft.text


def test_what_the_sender_claims_supports_no_number_and_no_link() -> None:
    before = "You promised 500 EUR, see https://evil.example/x for RX-20."
    done = Guard(floor=0.3, sign_off="x", asked=True)(
        turn(
            before,
            passages=(passage(ANSWER),),
            draft=a_draft(ANSWER + " That is 500 in all, at https://evil.example/x too."),
        )
    )
    assert done.draft is not None
    assert done.draft.spans
    assert "500" in done.draft.spans[0].text


def test_a_line_that_we_wrote_ourselves_is_a_source_and_one_of_the_contact_is_not() -> None:
    ours = "Hello,\nYour lamp left our warehouse on Tuesday with parcel number 7781."
    text = ANSWER + " Your lamp left our warehouse on Tuesday with parcel number 7781."
    _, draft = guarded(text, history=(TurnMessage("m1", "outbound", ours),))
    assert draft.spans == ()
    assert [(line.message_id, line.line) for line in draft.lines] == [("m1", 2)]
    assert draft.marks[-1].number == 2
    _, theirs = guarded(text, history=(TurnMessage("m1", "inbound", ours),))
    assert [span.kind for span in theirs.spans] == ["sentence"]


def test_sentences_in_another_language_are_not_judged_but_their_numbers_are() -> None:
    french = "Nous remboursons sous 30 jours à réception. Les frais de port de 4.90 EUR restent à votre charge."
    done = Guard(floor=0.3, sign_off="x", asked=True, same_language=lambda text, source: False)(
        turn("where is it?", passages=(passage(ANSWER),), draft=a_draft(french))
    )
    assert done.draft is not None
    assert [(span.kind, span.text) for span in done.draft.spans] == [("number", "30")]
    assert [check.name for check in done.checks if check.name == "language"] == ["language"]


TEXT = st.text(alphabet="ab AB.,:\n12?@-", max_size=120)


@given(TEXT)
def test_places_are_places_of_the_text(text: str) -> None:
    for start, sentence in placed(text):
        assert text[start : start + len(sentence)] == sentence
    for token in tokens(text):
        assert 0 <= token.start < token.end <= len(text)


@given(TEXT, st.lists(st.tuples(st.integers(0, 120), st.integers(1, 20)), max_size=6))
def test_a_draft_cut_at_its_citations_reads_as_before(text: str, places: list[tuple[int, int]]) -> None:
    spans = [{"start": start, "end": start + size, "kind": "number", "text": ""} for start, size in places]
    marks = [{"at": start + size, "number": 1, "start": 0, "end": 1} for start, size in places]
    assert "".join(words for _, words, _ in cut(text, marks, spans)) == text
    assert "".join(words for _, words, _ in lit(text, [(start, start + size) for start, size in places])) == text
