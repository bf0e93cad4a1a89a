"""Who replies in a thread that nobody has may get it: as the server says, or as the agent does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from assistant.services import threads
from tests.api.conftest import BOTH, World

ENGINES = BOTH


@contextmanager
def switched_on(world: World) -> Iterator[None]:
    """The server runs with NOTIFYR_ASSIGN_ON_REPLY=true."""
    settings = world.container.settings
    object.__setattr__(world.container, "settings", settings.model_copy(update={"assign_on_reply": True}))
    try:
        yield
    finally:
        object.__setattr__(world.container, "settings", settings)


def post(client: httpx.Client, path: str, **fields: str) -> httpx.Response:
    answer = client.post(path, data=fields, headers={"accept": "text/html"}, follow_redirects=True)
    assert answer.status_code == 200, answer.text
    return answer


def reply(client: httpx.Client, thread: str) -> None:
    post(client, f"/inbox/{thread}/reply", text="On its way.", form_id=thread)


def assignee(world: World, thread: str) -> str | None:
    with world.container.database.reading() as session:
        return threads.get_thread(session, thread).assignee_id


def test_a_reply_takes_the_thread_only_when_the_server_says_so(world: World) -> None:
    client = world.browser("agent@example.org")
    before, after = world.thread(), world.thread()
    reply(client, before)
    with switched_on(world):
        reply(client, after)
    assert (assignee(world, before), assignee(world, after)) == (None, world.ids["agent"])
    assert "took this: by replying" in client.get(f"/inbox/{after}").text


def test_accepting_takes_it_too_and_a_note_or_a_forward_does_not(world: World) -> None:
    client = world.browser("agent@example.org")
    suggestion, accepted = world.suggestion()
    noted, forwarded = world.thread(), world.thread()
    with switched_on(world):
        post(client, f"/suggestions/{suggestion}/accept", thread_id=accepted, version="1")
        post(client, f"/inbox/{noted}/note", text="Look at this", form_id="n")
        post(client, f"/inbox/{forwarded}/reply", kind="forward", to="bo@example.org", text="See", form_id="f")
    taken = [assignee(world, one) for one in (accepted, noted, forwarded)]
    assert taken == [world.ids["agent"], None, None]


def test_a_thread_that_somebody_has_stays_with_them(world: World) -> None:
    thread = world.thread()
    with world.container.database.transaction() as session:
        threads.assign(session, thread, assignee_id=world.ids["admin"])
    with switched_on(world):
        reply(world.browser("agent@example.org"), thread)
    assert assignee(world, thread) == world.ids["admin"]


@pytest.mark.parametrize(("server", "own", "taken"), [(True, "off", False), (False, "on", True), (True, "", True)])
def test_an_agent_chooses_otherwise_for_themselves(world: World, server: bool, own: str, taken: bool) -> None:
    client, thread = world.browser("agent@example.org"), world.thread()
    post(client, "/settings", assign_on_reply=own)
    shown = client.get("/settings").text
    assert (f'value="{own}" selected' in shown) == bool(own)
    if server:
        with switched_on(world):
            reply(client, thread)
    else:
        reply(client, thread)
    assert (assignee(world, thread) is not None) == taken


def test_the_api_goes_by_the_same_setting(world: World) -> None:
    program = world.program(agent="agent")
    thread = world.thread()
    suggestion, accepted = world.suggestion()
    with switched_on(world):
        sent = program.post(f"/api/v1/threads/{thread}/messages", json={"text": "Here."})
        assert sent.status_code == 201, sent.text
        done = program.post(f"/api/v1/suggestions/{suggestion}/accept", json={}, headers={"if-match": '"1"'})
        assert done.status_code == 201, done.text
    assert {assignee(world, thread), assignee(world, accepted)} == {world.ids["agent"]}
