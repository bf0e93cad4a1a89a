"""The fold over delivery events: any order, any repeats, never backwards."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assistant.events import DeliveryEvent, EventKind, Outcome, advance, fold
from assistant.states import Delivery, Engagement

AT = datetime(2026, 1, 1, tzinfo=UTC)


def event(kind: EventKind, number: int = 0) -> DeliveryEvent:
    return DeliveryEvent(f"{kind}-{number}", kind, "<m@example.org>", AT)


events = st.lists(st.sampled_from(EventKind).map(event), max_size=12)


@given(events, st.randoms())
def test_order_and_repeats_do_not_matter(found: list[DeliveryEvent], random: object) -> None:
    shuffled = [*found, *found[: len(found) // 2]]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert fold(shuffled) == fold(found)


@given(events, events)
def test_a_status_never_goes_backwards(early: list[DeliveryEvent], late: list[DeliveryEvent]) -> None:
    once = advance(Delivery.SENT, fold(early))
    twice = advance(once, fold(late))
    assert advance(twice, fold(early)) == twice
    assert twice == advance(Delivery.SENT, fold([*late, *early]))


@pytest.mark.parametrize(
    ("kinds", "status"),
    [
        ([], None),
        ([EventKind.OPENED], None),
        ([EventKind.DELIVERED, EventKind.DEFERRED], Delivery.DELIVERED),
        ([EventKind.BOUNCED, EventKind.DELIVERED], Delivery.BOUNCED),
        ([EventKind.UNKNOWN, EventKind.SENT], Delivery.SENT),
    ],
)
def test_the_furthest_report_counts(kinds: list[EventKind], status: Delivery | None) -> None:
    assert fold([event(kind) for kind in kinds]).status == status


def test_engagement_is_an_axis_of_its_own() -> None:
    outcome = fold([event(EventKind.UNSUBSCRIBED), event(EventKind.OPENED)])
    assert outcome == Outcome(None, frozenset({Engagement.OPENED, Engagement.UNSUBSCRIBED}))


@pytest.mark.parametrize(
    "status", [Delivery.HELD, Delivery.QUEUED, Delivery.CANCELLED, Delivery.FAILED, Delivery.RECEIVED]
)
def test_a_report_about_a_message_that_never_left_changes_nothing(status: Delivery) -> None:
    assert advance(status, fold([event(EventKind.DELIVERED)])) is status


def test_a_report_settles_an_unknown_message() -> None:
    assert advance(Delivery.UNKNOWN, fold([event(EventKind.BOUNCED)])) is Delivery.BOUNCED
