"""A broker may deliver a task several times, late, out of order and to several workers at once: it has one effect.

Every task of the worker, `TEST_DUPLICATES` rows each, two to five deliveries a row, shuffled over four threads.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select

from assistant.db.messages import Message, MessageEvent, Suggestion
from assistant.services import profiles, suggestions
from assistant.settings import Settings
from assistant.states import Delivery, Direction, SuggestionState, TriageState
from assistant.values import Passage
from pipelines.container import Container
from pipelines.tasks import TASKS
from tests.faults.reconciler import reconcile
from tests.support.figures import Tell
from tests.support.outboxes import add_thread, queue
from tests.support.servers import SmtpSink

ROWS = int(os.environ.get("TEST_DUPLICATES", "60"))
SEED = int(os.environ.get("TEST_SEED", "20261124"))
PASSAGE = Passage(text="We ship within 2 working days.", source="Delivery", score=0.9, document_id="d", version=1)


@pytest.fixture
def office(
    make_settings: Callable[..., Settings], database_url: str, valkey_url: str, smtp_sink: SmtpSink
) -> Iterator[Container]:
    """Everything wired as in a worker, without models, on SQLite and on PostgreSQL."""
    settings = make_settings(
        database_url=database_url, redis_url=valkey_url, relay_url=smtp_sink.url, encoder="off", generator="off"
    )
    built = Container(settings)
    yield built
    built.close()


def rows(office: Container) -> dict[str, list[tuple[str, ...]]]:
    """The work of every task: its arguments."""
    raw = "From: c{0}@example.com\r\nTo: support@example.org\r\nMessage-ID: <d{0}@example.com>\r\n\r\nHello {0}\r\n"
    with office.database.transaction() as session:
        profile_id = profiles.ensure_default(session, office.settings).id
    received = [
        office.receiver.receive(raw.format(number).encode(), profile_id=profile_id).message_id for number in range(ROWS)
    ]
    drafts, replies = [], []
    for number in range(ROWS):
        thread_id = add_thread(office.database, address=f"k{number}@example.com")
        replies.append(queue(office.database, thread_id))
        with office.database.transaction() as session:
            inbound = session.scalars(
                select(Message.id).where(Message.thread_id == thread_id, Message.direction == Direction.INBOUND)
            ).one()
            drafts.append(suggestions.begin(session, inbound, passages=[PASSAGE]).id)
    return {
        "triage": [(one,) for one in received],
        "draft": [(one,) for one in drafts],
        "ask": [(one,) for one in received],
        "rejudge": [(one,) for one in received],
        "deliver": [(one,) for one in replies],
        "sweep": [()] * 5,
        "tidy": [()] * 5,
    }


@pytest.mark.timeout(300)
def test_every_task_delivered_two_to_five_times_in_any_order_has_one_effect(
    office: Container, smtp_sink: SmtpSink, tell: Tell
) -> None:
    work, dice = rows(office), random.Random(SEED)
    assert set(work) == set(TASKS), "a new task belongs in here"
    deliveries = [(task, ids) for task, many in work.items() for ids in many for _ in range(dice.randint(2, 5))]
    dice.shuffle(deliveries)
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(TASKS[task], office, *ids) for task, ids in deliveries]:
            done.result()
    arrived = Counter(str(one.message["Message-ID"]) for one in smtp_sink.mails)
    source = [f"<d{number}@example.com>" for number in range(ROWS)]
    with office.database.reading() as session:
        triaged = Counter(session.scalars(select(Message.triage).where(Message.external_id.in_(source))))
        drafted = Counter(session.scalars(select(Suggestion.state)))
        statuses = Counter(session.scalars(select(Message.status).where(Message.direction == Direction.OUTBOUND)))
        twice = session.execute(
            select(MessageEvent.message_id, MessageEvent.kind)
            .group_by(MessageEvent.message_id, MessageEvent.kind)
            .having(func.count() > 1)
        ).all()
    found = reconcile(office.database, arrived=arrived, files=office.blobs, backlog=False)
    tell(f"{len(deliveries)} deliveries of {sum(len(many) for many in work.values())} rows, seed {SEED}; {found}")
    assert found.problems == []
    assert statuses == {Delivery.SENT: ROWS}
    assert len(smtp_sink.mails) == ROWS
    assert triaged == {TriageState.DONE: ROWS}
    assert drafted == {SuggestionState.PROPOSED: ROWS}
    assert twice == [], "no step is noted twice in a message's trail"
