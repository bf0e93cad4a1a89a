"""The clock of the api's machine jumps by minutes or a day while pages and programs are open: nothing breaks, nobody is let in who was not.

Sessions and links end by the clock they are used under; nobody waits for a limit that lies in the future.
"""

from __future__ import annotations

from datetime import timedelta

import pytest
import time_machine
from sqlalchemy import select

from assistant.clock import utcnow
from assistant.db.messages import Message
from assistant.services import access
from assistant.states import Delivery, Direction
from tests.api.conftest import BOTH, World

ENGINES = BOTH

JUMPS = [timedelta(minutes=5), timedelta(minutes=-5), timedelta(days=1), timedelta(days=-1)]
IDS = ["+5 min", "-5 min", "+1 d", "-1 d"]


@pytest.mark.parametrize("jump", JUMPS, ids=IDS)
def test_requests_go_on_over_a_jump_and_a_repeated_one_is_still_the_same(world: World, jump: timedelta) -> None:
    key, thread = world.program(), world.thread()

    def reply(number: int) -> dict[str, object]:
        answer = key.post(
            f"/api/v1/threads/{thread}/messages",
            json={"text": f"Reply {number}", "hold_seconds": 0},
            headers={"idempotency-key": f"reply-{number}"},
        )
        assert answer.status_code == 201, answer.text
        made: dict[str, object] = answer.json()
        return made

    first = reply(1)
    with time_machine.travel(utcnow() + jump):
        world.clear_limits()
        assert reply(1)["id"] == first["id"], "the key of the first request is known"
        second = reply(2)
        for path in ("/api/v1/threads", f"/api/v1/threads/{thread}", f"/api/v1/threads/{thread}/messages", "/readyz"):
            assert key.get(path).status_code == 200, path
    world.clear_limits()
    assert reply(2)["id"] == second["id"]
    with world.container.database.reading() as session:
        sent = session.scalars(select(Message.id).where(Message.direction == Direction.OUTBOUND)).all()
    assert sorted(sent) == sorted([str(first["id"]), str(second["id"])])


@pytest.mark.parametrize("jump", JUMPS, ids=IDS)
def test_a_reply_that_was_queued_by_another_clock_leaves_once(world: World, jump: timedelta) -> None:
    key, thread = world.program(), world.thread()
    with time_machine.travel(utcnow() + jump):
        world.clear_limits()
        made = key.post(f"/api/v1/threads/{thread}/messages", json={"text": "On its way.", "hold_seconds": 0}).json()
    late = max(jump, timedelta()) + timedelta(seconds=1)
    for moment in (utcnow(), utcnow() + late, utcnow() + late):
        with time_machine.travel(moment):
            world.container.deliverer.deliver(made["id"])
    with world.container.database.reading() as session:
        assert session.get_one(Message, made["id"]).status == Delivery.SENT
    assert len(list((world.container.settings.data_dir / "outbox" / "new").iterdir())) == 1


@pytest.mark.parametrize("jump", JUMPS, ids=IDS)
def test_a_session_of_a_week_lives_on_under_either_clock(world: World, jump: timedelta) -> None:
    old = world.browser()
    with time_machine.travel(utcnow() + jump):
        world.clear_limits()
        assert old.get("/inbox").status_code == 200
        fresh = world.browser("agent@example.org")
        assert fresh.get("/inbox").status_code == 200
    world.clear_limits()
    assert [one.get("/inbox").status_code for one in (old, fresh)] == [200, 200]
    with time_machine.travel(utcnow() + jump + timedelta(days=9)):
        assert [one.get("/inbox").status_code for one in (old, fresh)] == [401, 401]


@pytest.mark.parametrize("jump", JUMPS, ids=IDS)
def test_a_link_ends_by_the_clock_it_is_used_under(world: World, jump: timedelta) -> None:
    """Made while the clock was off it ends as much earlier or later, never not at all."""
    with time_machine.travel(utcnow() + jump), world.container.database.transaction() as session:
        made_at = utcnow()
        link = access.create_link(session, world.ids["agent"], purpose="reset")
    body = {"token": link, "password": "another long password"}
    lasts = timedelta(hours=access.LINK_HOURS["reset"])
    with time_machine.travel(made_at + lasts + timedelta(minutes=1)):
        late = world.client().post("/api/v1/auth/link", json=body)
    assert 400 <= late.status_code < 500, late.text
    world.clear_limits()
    with time_machine.travel(made_at + lasts - timedelta(minutes=1)):
        in_time = world.client().post("/api/v1/auth/link", json=body)
    assert in_time.status_code == 200, in_time.text


@pytest.mark.parametrize("jump", JUMPS, ids=IDS)
def test_a_limit_that_was_reached_ends_also_when_the_clock_was_set(world: World, jump: timedelta) -> None:
    """Nobody is kept out for a day because the clock went back a day: the store counts, by a clock of its own."""
    client = world.client()
    body = {"email": "agent@example.org", "password": "wrong"}
    answers = [client.post("/api/v1/auth/sign-in", json=body) for _ in range(30)]
    assert answers[-1].status_code == 429
    with time_machine.travel(utcnow() + jump):
        refused = client.post("/api/v1/auth/sign-in", json=body)
        assert refused.status_code in {401, 429}
        if refused.status_code == 429:
            assert 0 < int(refused.headers["retry-after"]) <= 900
