"""Load that is held: mail over SMTP at a steady rate beside open live sockets; nothing lost, the backlog drains, memory stays.

What it promises is asserted; its times are figures, and only a run by itself (`make load`) says much.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import aiosmtplib
import httpx
import psutil
import pytest
from sqlalchemy import func, select
from websockets.asyncio.client import ClientConnection, connect

from assistant.clock import monotonic
from assistant.db.messages import Message
from assistant.db.session import Database
from assistant.states import TriageState
from tests.support.figures import Tell
from tests.support.installation import Installation, installation, mail
from tests.support.servers import wait_until

SECONDS = int(os.environ.get("TEST_LOAD_SECONDS", "60"))
RATE = int(os.environ.get("TEST_LOAD_MAILS", "50"))
SOCKETS = int(os.environ.get("TEST_LOAD_SOCKETS", "200"))
_CONNECTIONS = 8
_DRAIN_SECONDS = 600


def _said(times: Sequence[float]) -> str:
    """p50, p95 and p99 of seconds, in words."""
    cuts = statistics.quantiles(times, n=100)
    return ", ".join(f"p{cut} {cuts[cut - 1] * 1000:.0f} ms" for cut in (50, 95, 99))


def _memory(run: Installation) -> float:
    """MiB of the whole tree, shared pages counted once a process."""
    people = [psutil.Process(run.process.pid), *psutil.Process(run.process.pid).children(recursive=True)]
    return sum(person.memory_full_info().pss for person in people) / 2**20


def _processor(run: Installation) -> dict[str, float]:
    """Seconds of processor time that each process of the installation has taken, and this one, which plays senders and pages."""
    spent = {"this bench": sum(psutil.Process().cpu_times()[:2])}
    for person in [psutil.Process(run.process.pid), *psutil.Process(run.process.pid).children(recursive=True)]:
        words = " ".join(person.cmdline()).rpartition("api.cli ")[2] or person.name()
        spent[words.partition(" --name")[0]] = sum(person.cpu_times()[:2])
    return spent


class Load:
    """The sender's side: `times` of accepted mails, `later` counts 4xx, each of which is tried again until it is taken."""

    def __init__(self, run: Installation) -> None:
        self.run = run
        self.times: list[float] = []
        self.later = 0
        self.behind = 0.0
        self.took = 0.0
        self.read: dict[str, list[float]] = {"/inbox": [], "/api/v1/threads": []}
        """Seconds that each of the two lists took, asked for twice a second by an agent and by a program."""
        self.told: list[float] = []
        """Seconds from a change in the stream to a page that hears of it."""

    async def sockets(self, cookie: str) -> list[ClientConnection]:
        where = self.run.url.replace("http", "ws") + "/live"
        headers = {"Origin": self.run.url, "Cookie": f"notifyr={cookie}"}
        return [await connect(where, additional_headers=headers, proxy=None) for _ in range(SOCKETS)]

    async def sender(self, first: int, began: float) -> None:
        client = aiosmtplib.SMTP(hostname="127.0.0.1", port=self.run.settings.smtp_port, timeout=60, start_tls=False)
        await client.connect()
        for number in range(first, RATE * SECONDS, _CONNECTIONS):
            due = began + number / RATE
            await asyncio.sleep(max(0.0, due - monotonic()))
            self.behind = max(self.behind, monotonic() - due)
            letter = mail(f"ann{number % 500}@example.com", f"Question {number}", f"Where is my order {number}?")
            while True:
                at = monotonic()
                try:
                    await client.send_message(letter)
                    self.times.append(monotonic() - at)
                    break
                except aiosmtplib.SMTPResponseException as answer:
                    assert 400 <= answer.code < 500, answer
                    self.later += 1
                    await asyncio.sleep(0.5)
        await client.quit()

    async def reader(self, cookie: str, path: str) -> None:
        async with httpx.AsyncClient(base_url=self.run.url, cookies={"notifyr": cookie}, trust_env=False) as client:
            while True:
                at = monotonic()
                (await client.get(path, timeout=60)).raise_for_status()
                self.read[path].append(monotonic() - at)
                await asyncio.sleep(0.5)

    async def listen(self, one: ClientConnection) -> int:
        """How many changes a page heard of. As a page does, it says now and then that it is there."""
        events, said = 0, monotonic()
        async for text in one:
            frames = json.loads(text)
            for frame in frames if isinstance(frames, list) else [frames]:
                events += 1
                if stream_id := frame.get("id"):
                    self.told.append(time.time() - int(stream_id.partition("-")[0]) / 1000)
            if monotonic() - said > 20:
                said = monotonic()
                await one.send('{"kind": "ping"}')
        return events

    async def held(self, cookie: str) -> int:
        """Run it; how many sockets were still open at the end."""
        opened = await self.sockets(cookie)
        heard = [asyncio.create_task(self.listen(one)) for one in opened]
        readers = [asyncio.create_task(self.reader(cookie, path)) for path in self.read]
        began = monotonic()
        await asyncio.gather(*[self.sender(first, began) for first in range(_CONNECTIONS)])
        self.took = monotonic() - began
        for one in readers:
            assert not one.done(), one
            one.cancel()
        await asyncio.sleep(1)
        alive = sum(not one.done() for one in heard)
        for one in opened:
            await one.close()
        events = await asyncio.gather(*heard)
        assert min(events) > 0, "every page hears of new mail"
        return alive


@pytest.mark.timeout(1800)
def test_mail_comes_in_at_a_steady_rate_beside_open_pages_and_none_is_lost(tmp_path: Path, tell: Tell) -> None:
    with installation(tmp_path / "var", wait_for_models=False, encoder="off", generator="off") as run:
        with httpx.Client(base_url=run.url, headers={"Origin": run.url}) as browser:
            browser.post("/api/v1/auth/link", json={"token": run.link.rpartition("#")[2]}).raise_for_status()
            cookie = browser.cookies["notifyr"]
        run.send(mail("first@example.com", "Hello", "Is anybody there?"))
        with closing(Database(run.settings.sql_url, pool_size=1)) as database, database.reading() as session:
            triaged = select(func.count()).select_from(Message).where(Message.triage == TriageState.DONE)
            wait_until(lambda: session.rollback() or session.scalar(triaged), seconds=60, what="the workers")
        idle, spent = _memory(run), _processor(run)
        load = Load(run)
        alive = asyncio.run(load.held(cookie))
        spent = {name: after - spent.get(name, 0.0) for name, after in _processor(run).items()}
        after = _memory(run)
        with closing(Database(run.settings.sql_url, pool_size=1)) as database:

            def rows(*conditions: object) -> int:
                with database.reading() as session:
                    query = select(func.count()).select_from(Message).where(*conditions)  # type: ignore[arg-type]
                    return session.scalar(query) or 0

            stored, backlog, began = rows(), rows(Message.triage == TriageState.WAITING), monotonic()
            wait_until(
                lambda: rows(Message.triage == TriageState.WAITING) == 0, seconds=_DRAIN_SECONDS, what="the backlog"
            )
        for line in (
            f"{RATE} mails/s for {SECONDS} s, {SOCKETS} sockets, load average {os.getloadavg()[0]:.1f}",
            f"accepted {len(load.times)}, stored {stored}, asked to try later {load.later}, sockets open {alive}",
            f"{len(load.times) / load.took:.1f} mails/s, behind the schedule by at most {load.behind:.1f} s",
            f"answer to a mail: {_said(load.times)}",
            f"list as a page: {_said(load.read['/inbox'])}; by the API: {_said(load.read['/api/v1/threads'])}",
            f"from a change to a page that shows it: {_said(load.told)}, {len(load.told)} frames",
            f"processor time: {', '.join(f'{name} {took:.0f} s' for name, took in sorted(spent.items()) if took >= 1)}",
            f"triage behind by {backlog} at the end, caught up in {monotonic() - began:.0f} s",
            f"memory of all processes: {idle:.0f} MiB idle, {after:.0f} MiB after",
        ):
            tell(line)
        assert stored - 1 == len(load.times) == RATE * SECONDS
        assert alive == SOCKETS
        assert after - idle < 400
