"""The thread in the browser: the receipt of a reply sent by policy, what happened, risky files, and a database that only reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import event

from assistant.db.messages import Attachment, Message, Suggestion
from assistant.services import policies, threads
from assistant.states import Delivery, SuggestionState, ThreadState
from tests.api.conftest import World
from tests.api.test_policies_page import granted, receipt
from tests.support.axe import violations


def ready(page: Page) -> None:
    page.wait_for_function("document.documentElement.dataset.ready === '1'")


@contextmanager
def read_only(world: World) -> Iterator[None]:
    """SQLite itself refuses every change."""
    engine = world.container.database.engine

    def connected(connection: object, _record: object) -> None:
        connection.execute("PRAGMA query_only=ON")  # type: ignore[attr-defined]  # the driver's connection

    engine.dispose()
    event.listen(engine, "connect", connected)
    try:
        yield
    finally:
        event.remove(engine, "connect", connected)
        engine.dispose()


def test_an_admin_reads_the_receipt_revokes_and_sends_it_themselves(world: World, desk: Callable[..., Page]) -> None:
    granted(world)
    suggestion, thread = receipt(world)
    page = desk()
    page.goto("/inbox")
    ready(page)
    row = page.locator(f"#row-{thread}")
    expect(row).to_contain_text("sent by policy")
    row.locator("a").first.click()
    card = page.get_by_role("region", name="Suggested reply")
    expect(card).to_contain_text("sent by policy")
    expect(card).to_contain_text("Granted by Admin")
    expect(card).to_contain_text("At least 94 % of them were sent without an edit")
    expect(page.locator('[data-event="policy-sent"]')).to_contain_text(
        "The assistant sent a reply by policy: order status"
    )
    card.get_by_role("button", name="Revoke for this intent").click()
    expect(page.locator(".toast")).to_contain_text("1 reply that waited was taken back")
    expect(card.get_by_role("button", name="Accept & send")).to_be_enabled()
    page.keyboard.press("y")
    expect(page.locator(".toast")).to_contain_text("Sending in")
    with world.container.database.reading() as session:
        found = session.get_one(Suggestion, suggestion)
        assert (found.state, found.agent_id) == (SuggestionState.ACCEPTED, world.ids["admin"])
        messages = session.query(Message).filter_by(suggestion_id=suggestion).order_by(Message.created_at).all()
        assert [one.status for one in messages] == [Delivery.CANCELLED, Delivery.HELD]
        assert policies.granted(session, found.intent) is None


def busy(world: World) -> str:
    """A thread with assignments, states and a risky file."""
    thread = world.ids["thread"]
    with world.container.database.transaction() as session:
        threads.assign(session, thread, assignee_id=world.ids["agent"], agent_id=world.ids["admin"])
        for state in (ThreadState.CLOSED, ThreadState.OPEN) * 2:
            threads.change_state(session, thread, state=state, agent_id=world.ids["agent"])
        session.get_one(Attachment, world.ids["attachment"]).risk = "program in an archive: it holds setup.exe"
    return thread


def test_events_fold_and_a_risky_file_takes_a_second_press(world: World, desk: Callable[..., Page]) -> None:
    page, thread = desk(), busy(world)
    page.goto(f"/inbox/{thread}")
    ready(page)
    page.get_by_text("2 earlier events").click()
    expect(page.get_by_text("Admin assigned this to")).to_be_visible()
    link = page.get_by_role("link", name="Download all the same")
    expect(link).not_to_be_visible()
    page.get_by_text("program in an archive: it holds setup.exe").click()
    with page.expect_download() as download:
        link.click()
    assert download.value.suggested_filename == "note.html"


def test_while_nothing_can_be_written_acts_are_locked_and_the_words_stay(
    world: World, desk: Callable[..., Page]
) -> None:
    page, thread = desk(), world.ids["thread"]
    page.goto(f"/inbox/{thread}")
    ready(page)
    page.fill("#reply", "Words that took an hour")
    with read_only(world):
        page.get_by_role("button", name="Send", exact=False).last.click()
        expect(page.locator("#read-only")).to_contain_text("the database takes no changes, it is read-only")
        for name in ("Accept & send", "Done", "Send & done"):
            expect(page.get_by_role("button", name=name).first).to_be_disabled()
        expect(page.locator("#reply")).to_have_value("Words that took an hour")


@pytest.mark.parametrize("width", [1440, 375])
def test_the_thread_has_no_violation(world: World, desk: Callable[..., Page], width: int) -> None:
    granted(world)
    _, sent = receipt(world)
    page, thread = desk(width=width), busy(world)

    def sound(path: str) -> None:
        page.goto(path)
        ready(page)
        for summary in page.locator(".risky > summary, .events-fold summary, .trace.steps > summary").all():
            summary.click()
        assert violations(page) == [], path
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path

    for path in (f"/inbox/{thread}", f"/inbox/{sent}", "/settings"):
        sound(path)
    world.container.database._refusal = ("the disk of the database is full", 1e12)
    sound(f"/inbox/{thread}")
