"""Acts on rows and on the open thread as the page asks for them: colleagues, moments, and the way back and forth."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from html import unescape
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from assistant.clock import utcnow
from assistant.db.access import AuditEntry
from assistant.db.messages import Message, Thread
from assistant.services import access, labels, verdicts
from assistant.states import ThreadState
from tests.api.conftest import BOTH, World

ENGINES = BOTH


def shown(world: World, thread_id: str) -> tuple[str, bool, bool, str | None]:
    """State, unread, starred and assignee of a thread."""
    with world.container.database.reading() as session:
        found = session.get_one(Thread, thread_id)
        return found.state.value, found.unread, found.starred, found.assignee_id


def button(page: str, key: str) -> tuple[str, dict[str, str]]:
    """Where the toast's undo or redo posts to, and what."""
    toast = page[page.index('id="toasts"') :]
    form = next(one for one in re.findall(r"<form.*?</form>", toast, re.DOTALL) if f'data-key="{key}"' in one)
    path = re.search(r'action="([^"]+)"', form)
    assert path is not None
    fields = {name: unescape(value) for name, value in re.findall(r'name="([\w-]+)" value="([^"]*)"', form)}
    return unescape(path[1]), {name: value for name, value in fields.items() if name != "csrf_token"}


def post(client: httpx.Client, path: str, **fields: Any) -> str:
    answer = client.post(path, data=fields, follow_redirects=True)
    assert answer.status_code == 200, answer.text
    return unescape(answer.text)


@pytest.mark.parametrize(
    ("act", "said"),
    [
        ({"act": "star"}, "Starred"),
        ({"act": "unstar"}, "Star removed"),
        ({"act": "assign"}, "Assigned to you"),
        ({"assignee": "agent"}, "Assigned to Agent"),
        ({"assignee": "nobody"}, "Assigned to nobody"),
        ({"act": "unread"}, "Marked as unread"),
        ({"act": "done"}, "Done"),
        ({"until": "2999-03-01T09:00+00:00"}, "Snoozed until"),
    ],
    ids=["star", "unstar", "to me", "to a colleague", "to nobody", "unread", "done", "snooze"],
)
@pytest.mark.parametrize("on", ["thread", "row"])
def test_every_act_on_a_thread_says_what_it_did_and_goes_back_and_forth(
    world: World, on: str, act: dict[str, str], said: str
) -> None:
    with world.container.database.transaction() as session:
        third = access.create_agent(session, "bo@example.org", name="Bo", role="agent").id
    given = act.get("assignee") or act.get("act") == "assign"
    thread = world.thread(unread=False, starred=act.get("act") == "unstar", assignee_id=third if given else None)
    client, before = world.browser(), shown(world, thread)
    act = {name: world.ids.get(value, value) for name, value in act.items()}
    if on == "row":
        page = post(client, "/inbox-bulk", id=thread, view="all", **act)
    else:
        page = post(client, f"/inbox/{thread}/act", view="all", **act)
    after = shown(world, thread)
    assert after != before
    assert said in page
    path, fields = button(page, "undo")
    page = post(client, path, **fields)
    assert shown(world, thread) == before
    assert "Undone" in page
    path, fields = button(page, "redo")
    page = post(client, path, **fields)
    assert shown(world, thread) == after
    assert said in page


def test_a_thread_marked_as_unread_is_left_for_the_list_and_stays_unread(world: World) -> None:
    thread, client = world.thread(unread=False), world.browser()
    answer = client.post(f"/inbox/{thread}/act", data={"act": "unread", "view": "inbox"})
    assert answer.headers["location"].startswith("/inbox?")
    page = client.get(answer.headers["location"]).text
    assert re.search(rf'<li class="row unread[^>]*id="row-{thread}"', page)


def test_an_act_on_a_row_leaves_the_thread_open_that_is_read_meanwhile(world: World) -> None:
    read, other = world.thread(), world.thread()
    client = world.browser()
    answer = client.post("/inbox-bulk", data={"act": "done", "id": other, "open": read, "view": "inbox"})
    assert answer.headers["location"].startswith(f"/inbox/{read}?")
    answer = client.post("/inbox-bulk", data={"act": "done", "id": [read], "open": read, "view": "inbox"})
    assert answer.headers["location"].startswith("/inbox?"), "it left the list with the others"


def test_who_can_be_given_a_thread_stands_in_a_menu_without_those_who_left(world: World) -> None:
    with world.container.database.transaction() as session:
        gone = access.create_agent(session, "gone@example.org", name="Gone", role="agent")
        gone.disabled_at = utcnow()
    thread, client = world.thread(assignee_id=world.ids["agent"]), world.browser()
    page = client.get(f"/inbox/{thread}").text
    menu = re.search(r'<details class="menu" data-panel="assign">.*?</details>', page, re.DOTALL)
    assert menu is not None
    people = re.findall(r'name="assignee" value="([^"]+)"( aria-current="true")?', menu[0])
    assert people == [(world.ids["admin"], ""), (world.ids["agent"], ' aria-current="true"'), ("nobody", "")]
    with world.container.database.reading() as session:
        left = next(one.id for one in access.agents(session) if one.name == "Gone")
    answer = client.post(f"/inbox/{thread}/act", data={"assignee": left, "view": "inbox"})
    assert answer.status_code == 422
    assert "there is no such agent to assign to" in answer.text
    assert shown(world, thread)[3] == world.ids["agent"]


def test_a_moment_that_nobody_understands_changes_nothing_and_says_so_on_the_page(world: World) -> None:
    one, two, client = world.thread(), world.thread(), world.browser()
    answer = client.post("/inbox-bulk", data={"act": "snooze", "when": "blursday", "id": [one, two], "view": "inbox"})
    assert answer.status_code == 422
    assert 'id="rows"' in answer.text
    assert "blursday" in unescape(answer.text)
    assert {shown(world, thread)[0] for thread in (one, two)} == {"open"}


def test_many_rows_sleep_until_the_moment_that_was_typed(world: World) -> None:
    one, two, client = world.thread(), world.thread(), world.browser()
    page = post(client, "/inbox-bulk", act="snooze", when="in 2 days", id=[one, two], view="inbox")
    assert "2 threads: snoozed until" in page
    with world.container.database.reading() as session:
        sleeps = [session.get_one(Thread, thread).snoozed_until for thread in (one, two)]
    assert sleeps[0] == sleeps[1] is not None
    assert abs(sleeps[0] - utcnow() - timedelta(days=2)) < timedelta(days=1, minutes=1)


def test_a_label_on_rows_goes_off_and_on_again(world: World) -> None:
    ids, client = [world.thread(), world.thread()], world.browser()

    def labelled() -> list[int]:
        with world.container.database.reading() as session:
            found = labels.of_threads(session, ids)
        return [len(found[one]) for one in ids]

    page = post(client, "/inbox-bulk", act="label", label="Money", id=ids, view="all")
    assert labelled() == [1, 1]
    path, fields = button(page, "undo")
    page = post(client, path, **fields)
    assert labelled() == [0, 0]
    path, fields = button(page, "redo")
    post(client, path, **fields)
    assert labelled() == [1, 1]


def by_the_list(world: World, thread: str) -> None:
    post(world.browser(), "/inbox-bulk", act="not-spam", id=[thread, world.thread(state=ThreadState.OPEN)], view="spam")


def by_the_api(world: World, thread: str) -> None:
    assert world.program().patch(f"/api/v1/threads/{thread}", json={"state": "open"}).status_code == 200


def by_a_correction(world: World, thread: str) -> None:
    with world.container.database.transaction() as session:
        message = session.scalars(select(Message.id).where(Message.thread_id == thread)).one()
        verdicts.correct(session, message, head="spam", label="ham", agent_id=world.ids["admin"])


@pytest.mark.parametrize("door", [by_the_list, by_the_api, by_a_correction])
def test_a_release_from_quarantine_by_any_door_is_in_the_audit_trail_once(
    world: World, door: Callable[[World, str], None]
) -> None:
    held = world.thread(state=ThreadState.SPAM)
    door(world, held)
    with world.container.database.reading() as session:
        told = session.scalars(select(AuditEntry).where(AuditEntry.action == "quarantine.release")).all()
    assert [(one.subject, one.actor) for one in told] == [(held, world.ids["admin"])]
    assert shown(world, held)[0] == "open"


def test_the_trash_says_how_long_it_keeps_and_what_keeps_a_thread(world: World) -> None:
    client, thread = world.browser(), world.thread()
    assert "stays here for 30 days, then it is deleted for good" in client.get("/inbox?view=trash").text
    page = post(client, f"/inbox/{thread}/act", act="trash", view="all")
    assert "Moved to trash" in page
    page = client.get(f"/inbox/{thread}?view=trash").text
    assert "It is deleted for good 30 days after it came here" in page
    assert 'name="act" value="reopen"' in page
