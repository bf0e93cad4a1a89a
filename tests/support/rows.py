"""Threads of their own in the list, and a page of it that is driven by keys."""

from __future__ import annotations

from datetime import timedelta

from playwright.sync_api import Page

from assistant.clock import utcnow
from assistant.db.messages import Thread
from tests.api.conftest import World

__all__ = ["at", "filled", "pressed", "ready"]


def filled(world: World, count: int) -> list[str]:
    """Threads of their own, newest first, as the list shows them."""
    now = utcnow() + timedelta(minutes=5)
    return [
        world.thread(subject=f"Row {number}", unread=False, last_message_at=now - timedelta(minutes=number))
        for number in range(count)
    ]


def at(world: World, thread_id: str) -> tuple[str, bool, str | None]:
    with world.container.database.reading() as session:
        found = session.get_one(Thread, thread_id)
        return found.state.value, found.starred, found.assignee_id


def ready(page: Page, path: str) -> None:
    page.goto(path)
    page.wait_for_function("document.documentElement.dataset.ready === '1'")


def pressed(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)
