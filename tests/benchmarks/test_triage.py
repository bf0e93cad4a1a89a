"""Triage of one mail against bogofilter on the same mails, in one run: ratios, and where the time goes."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import select

from assistant.clock import monotonic
from assistant.db.messages import Message
from assistant.db.session import Database
from assistant.services import profiles
from assistant.settings import ROOT, Settings
from pipelines.container import Container
from tests.support.servers import find_binary

MAILS = sorted((ROOT / "channels" / "twins" / "mails").glob("*.eml"))
ROUNDS = 4
_GOAL_MS = 150
"""On two cores with nothing else to do."""


def _times(act: Callable[[bytes], object], mails: list[bytes]) -> list[float]:
    found = []
    for raw in mails:
        began = monotonic()
        act(raw)
        found.append((monotonic() - began) * 1000)
    return found


def _say(text: str) -> None:
    sys.stdout.write(f"\n  {text}")


@pytest.mark.slow
def test_triage_of_one_mail_against_bogofilter(
    make_settings: Callable[..., Settings], sqlite_database: Database, tmp_path: Path
) -> None:
    binary = find_binary("bogofilter", "bogofilter")
    container = Container(make_settings(database_url=None))
    container.__dict__["database"] = sqlite_database
    with sqlite_database.transaction() as session:
        profile_id = profiles.ensure_default(session, container.settings).id
    base = [path.read_bytes() for path in MAILS]
    mails = [b"X-Round: %d\r\n" % number + raw for number in range(ROUNDS) for raw in base]
    container.triage.warm(["inbound"])
    received: list[str] = []

    def receive(raw: bytes) -> None:
        received.append(container.receiver.receive(raw, profile_id=profile_id).message_id)

    receive(b"Subject: warm\r\n\r\nwarm\r\n")
    storing = _times(receive, mails)
    ids = iter(received[1:])
    triaging = _times(lambda _: container.triage.triage(next(ids)), mails)
    command = [binary, "-d", str(tmp_path), "-T"]
    for raw, mark in ((base[0], "-n"), (base[12], "-s")):
        subprocess.run([binary, "-d", str(tmp_path), mark], input=raw, check=True)

    def peer(raw: bytes) -> None:
        subprocess.run(command, input=raw, capture_output=True, check=False)

    bogofilter = _times(peer, mails)
    stages: dict[str, list[float]] = defaultdict(list)
    with sqlite_database.reading() as session:
        for trace in session.scalars(select(Message.trace)):
            for step in trace:
                stages[step["stage"]].append(step["milliseconds"])
    p50 = {name: statistics.median(times) for name, times in (("store", storing), ("triage", triaging))}
    base_p50 = statistics.median(bogofilter)
    _say(
        f"{len(mails)} mails; p50 in ms: store {p50['store']:.1f}, triage {p50['triage']:.1f}, bogofilter {base_p50:.1f}"
    )
    _say(
        f"triage takes {p50['triage'] / base_p50:.2f} of a bogofilter process a mail; storing {p50['store'] / base_p50:.2f}"
    )
    shares = {name: sum(times) / sum(triaging) for name, times in stages.items()}
    _say("share of triage: " + ", ".join(f"{name} {share:.0%}" for name, share in shares.items()))
    said = "reached" if p50["triage"] < _GOAL_MS else "NOT reached"
    _say(f"goal of triage without generation: p50 under {_GOAL_MS} ms: {said}, load {os.getloadavg()[0]:.1f}")
    _say(f"p95 of triage is {statistics.quantiles(triaging, n=20)[-1] / p50['triage']:.1f} times its p50\n")
    container.close()
    assert set(shares) >= {"screen", "classify", "retrieve", "decide"}
