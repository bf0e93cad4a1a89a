"""Moves between states, and what a refused one says to the person who asked for it."""

from __future__ import annotations

from enum import StrEnum

import pytest

from assistant.errors import Conflict
from assistant.states import Delivery, ProfileState, SuggestionState, ThreadState, transition

KINDS: tuple[tuple[type[StrEnum], str], ...] = (
    (Delivery, "message"),
    (ThreadState, "thread"),
    (SuggestionState, "suggestion"),
    (ProfileState, "profile"),
)


@pytest.mark.parametrize(("kind", "what"), KINDS)
def test_a_refusal_says_what_it_is_and_the_next_step_in_two_sentences(kind: type[StrEnum], what: str) -> None:
    refused, allowed = 0, 0
    for current in kind:
        for new in kind:
            try:
                assert transition(current, new) is new  # type: ignore[type-var]  # each state of each kind in turn
                allowed += 1
            except Conflict as error:
                refused += 1
                first, _, step = error.message.partition(". ")
                assert first.startswith(f"this {what} ") and first.endswith(", so nothing was changed"), error.message
                assert step.endswith(".") and len(step) > 15, error.message
                for inner in (kind.__name__, "cannot go from"):
                    assert inner not in error.message
                assert error.detail == {"state": current.value, "wanted": new.value}
    assert refused and allowed


@pytest.mark.parametrize(
    ("current", "new", "said"),
    [
        (ThreadState.CLOSED, ThreadState.CLOSED, "this thread is done already, so nothing was changed. Reload"),
        (Delivery.SENT, Delivery.CANCELLED, "this message was sent, so nothing was changed. Write again"),
        # Two kinds have a state of this name, and it means something else in each.
        (Delivery.REJECTED, Delivery.SENT, "this message was refused, so nothing was changed. Its thread says"),
        (SuggestionState.REJECTED, SuggestionState.ACCEPTED, "this suggestion was dismissed, so"),
        (
            SuggestionState.EXPIRED,
            SuggestionState.PROPOSED,
            "they wrote again after it, so nothing was changed. Read the",
        ),
        (ProfileState.EXPIRED, ProfileState.BLOCKED, "this profile is stopped because its credentials ended"),
    ],
)
def test_the_words_are_those_of_the_agent(current: StrEnum, new: StrEnum, said: str) -> None:
    with pytest.raises(Conflict) as caught:
        transition(current, new)  # type: ignore[type-var]  # each kind in turn
    assert said in caught.value.message
