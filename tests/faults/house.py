"""A whole installation whose every process, store and wire a test can break: started one by one, without a supervisor.

The relay and Redis are behind fault proxies, every process has a clock of its own, and the data folder is a
small file system where the machine lets us mount one.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import smtplib
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Self

import httpx
import psutil
from sqlalchemy import func, select

from api.supervisor import procfile
from assistant.clock import utcnow
from assistant.db.messages import Message, Suggestion
from assistant.errors import StorageError
from assistant.services import sweeper
from assistant.settings import ROOT, Settings, load_settings
from assistant.states import SuggestionState, TriageState
from pipelines.container import Container
from tests.faults.proxy import FaultProxy
from tests.faults.reconciler import Reconciliation, reconcile
from tests.support.people import Reviewer, Sender, question
from tests.support.servers import (
    SmtpSink,
    answers,
    bound,
    clean_environment,
    find_binary,
    free_port,
    notifyr,
    stop_process,
    wait_until,
)
from tests.support.stores import RedisStore

__all__ = ["PROCESSES", "House", "Wire", "fill", "sync_fails"]

PROCESSES = ("api", "mailboxes", "worker", "models", "beat")
LEASE = 300
_DISK = "256m"
_CLOCKED = ROOT / "tests" / "support" / "clocked_process.py"


class Wire(FaultProxy):
    """A fault proxy that can also be cut off: nothing new gets through, what is there ends."""

    @contextlib.contextmanager
    def cut_off(self) -> Iterator[None]:
        """Nobody is behind the wire: what is open ends, and what comes is closed at once."""
        target, self.target = self.target, free_port()
        self.drop()
        try:
            yield
        finally:
            self.target = target

    @contextlib.contextmanager
    def toxic(self, *toxics: object) -> Iterator[None]:
        self.toxics = list(toxics)  # type: ignore[arg-type]
        try:
            yield
        finally:
            self.toxics = []


class House:
    """`start` it in a folder of its own. `settle` waits until everything that was accepted has its reply."""

    def __init__(
        self, folder: Path, sink: SmtpSink, redis: RedisStore, relay: Wire, cache: Wire, **values: str
    ) -> None:
        self.folder = folder
        self.sink = sink
        self.redis = redis
        self.relay = relay
        self.cache = cache
        self.data = folder / "var"
        self.environment = clean_environment(
            NOTIFYR_DATA_DIR=str(self.data),
            NOTIFYR_PORT=str(free_port()),
            NOTIFYR_SMTP_PORT=str(free_port()),
            NOTIFYR_MAIL_ADDRESS="support@example.org",
            NOTIFYR_GENERATOR="off",
            NOTIFYR_SWEEP_SECONDS="1",
            NOTIFYR_LEASE_SECONDS=str(LEASE),
            NOTIFYR_RELAY_TIMEOUT="2",
            NOTIFYR_REDIS_URL=f"redis://127.0.0.1:{cache.port}/0",
            NOTIFYR_RELAY_URL=f"smtp://127.0.0.1:{relay.port}",
            **values,
        )
        self.settings: Settings = load_settings(
            {name: value for name, value in self.environment.items() if name.startswith("NOTIFYR_")}
        )
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._logged: dict[str, int] = {}
        """Where each process' log began with its last start."""
        self.numbers = iter(range(1_000_000))
        self.mounted = False
        self.killed: set[str] = set()
        self.restarts = 0
        self.patience = 4.0
        """Seconds that the mail client waits for an answer."""
        self.without_reply = 0
        """Mails that no suggestion can be expected for, because that was the fault."""

    # -- start and stop

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.reviewer.close()
        self.container.close()
        self._close()

    def _open(self) -> None:
        self.data.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={_DISK},mode=700", "notifyr-tests", str(self.data)]
        # Where nobody may mount, the limit on file sizes stands for the full disk.
        self.mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0
        done = notifyr("prepare", env=self.ours)
        assert done.returncode == 0, done.stderr
        answer = self.folder / "delivery.txt"
        answer.write_text("We ship within 2 working days.")
        self.command("knowledge", "add", "When does my parcel arrive, where is my order", "--file", str(answer))
        for name in PROCESSES:
            self.start(name, wait=False)
        self.container = Container(self.settings)
        self.sender = Sender(self)
        self.reviewer = Reviewer(self)
        for name in PROCESSES:
            self.wait_for(name)

    def _close(self) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in self.processes.values():
            stop_process(process, seconds=15)
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.data)], check=False)

    @property
    def ours(self) -> dict[str, str]:
        return {name: value for name, value in self.environment.items() if name.startswith("NOTIFYR_")}

    def start(self, name: str, *prefix: str, wait: bool = True, **changes: str) -> None:
        """Start a process, perhaps under another program or with other settings."""
        clock = self.folder / f"clock-{name}"
        clock.write_text("0")
        Path(f"{clock}.seen").unlink(missing_ok=True)
        self.killed.discard(name)
        words = procfile(ROOT / "deploy" / "Procfile")[name]
        with (self.folder / f"{name}.log").open("ab") as log:
            self._logged[name] = log.seek(0, os.SEEK_END)
            self.processes[name] = subprocess.Popen(
                [*bound(signal.SIGKILL), *prefix, sys.executable, str(_CLOCKED), str(clock), *words[3:]],
                cwd=ROOT,
                env=self.environment | changes,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if wait:
            self.wait_for(name)

    def tend(self) -> None:
        """What the supervisor does: start a process that ended by itself (a broker may refuse in words Celery ends with)."""
        for name, process in self.processes.items():
            if name not in self.killed and process.poll() is not None:
                self.start(name, wait=False)
                self.restarts += 1

    def wait_for(self, name: str) -> None:
        def ready() -> bool:
            assert self.processes[name].poll() is None, f"{name} ended: {self.log(name)}"
            if name == "api":
                with contextlib.suppress(httpx.HTTPError):
                    return httpx.get(f"{self.url}/livez", timeout=2).status_code == 200
                return False
            if name == "mailboxes":
                return answers(self.settings.smtp_port)
            return name == "beat" or "ready." in self._said(name)

        wait_until(ready, seconds=60, what=f"the start of {name}")

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")[-20_000:]

    def _said(self, name: str) -> str:
        """What a process has logged since it was started: an earlier life was ready, too."""
        with (self.folder / f"{name}.log").open("rb") as log:
            log.seek(self._logged[name])
            return log.read().decode(errors="replace")

    def stacks(self) -> str:
        """Where the threads of each process stand, the innermost frames, and what it said last: why something did not happen."""
        parts = []
        for name, process in self.processes.items():
            begins = (self.folder / f"{name}.log").stat().st_size
            if process.poll() is None:
                process.send_signal(signal.SIGUSR2)
                time.sleep(0.5)
            with (self.folder / f"{name}.log").open("rb") as log:
                log.seek(max(0, begins - 600))
                said = log.read(600).decode(errors="replace")
                threads = log.read(60_000).decode(errors="replace").split("\n\n")
            frames = [
                "\n".join(one.splitlines()[:6])
                for one in threads
                if "clocked_process.py" not in "".join(one.splitlines()[1:2])
            ]
            parts += [f"-- {name}: {said}", *frames]
        return "\n".join(parts)[-12_000:]

    def kill(self, name: str) -> None:
        """SIGKILL for a process and its children."""
        process = self.processes[name]
        self.killed.add(name)
        for one in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait(10)

    def tree(self, name: str) -> list[psutil.Process]:
        parent = psutil.Process(self.processes[name].pid)
        return [parent, *parent.children(recursive=True)]

    # -- faults of one process

    @contextlib.contextmanager
    def clock(self, name: str, seconds: float) -> Iterator[None]:
        """The process' clock jumps by so many seconds, and back at the end."""
        self._set_clock(name, seconds)
        try:
            yield
        finally:
            self._set_clock(name, 0)

    def _set_clock(self, name: str, seconds: float) -> None:
        file = self.folder / f"clock-{name}"
        file.write_text(str(seconds))

        def followed() -> bool:
            seen = Path(f"{file}.seen")
            words = seen.read_text().strip() if seen.exists() else ""
            return bool(words) and float(words) == seconds

        # One that has ended goes by the new clock when it is started again.
        wait_until(
            lambda: followed() or self.processes[name].poll() is not None, seconds=30, what=f"the clock of {name}"
        )

    @contextlib.contextmanager
    def no_space(self, *names: str) -> Iterator[None]:
        """Not one byte can be written into a file: the disk is full, or the limit on sizes says the same to `names`."""
        filler = self.data / "filler"
        if self.mounted and not names:
            # SQLite's log keeps its size: a write that fits into what it once took would go on. Emptied, it has to grow.
            self._empty_log()
            fill(filler)
            try:
                yield
            finally:
                filler.unlink()
            return
        limits = {}
        for one in (one for name in names or PROCESSES for one in self.tree(name)):
            limits[one.pid] = resource.prlimit(one.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(one.pid, resource.RLIMIT_FSIZE, (0, limits[one.pid][1]))
        try:
            yield
        finally:
            for pid, limit in limits.items():
                with contextlib.suppress(ProcessLookupError):
                    resource.prlimit(pid, resource.RLIMIT_FSIZE, limit)

    def _empty_log(self) -> None:
        with contextlib.closing(sqlite3.connect(self.data / "notifyr.db", isolation_level=None)) as database:

            def emptied() -> bool:
                return bool(database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0)

            wait_until(emptied, seconds=20, what="a moment in which nobody reads the log")

    # -- the people

    @property
    def url(self) -> str:
        return self.settings.base_url

    def send(self, mail: EmailMessage) -> None:
        with smtplib.SMTP("127.0.0.1", self.settings.smtp_port, timeout=self.patience) as client:
            client.send_message(mail)

    def command(self, *arguments: str) -> str:
        done = notifyr(*arguments, env=self.ours)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def mail(self, count: int = 1, *, seconds: float = 0.0) -> int:
        """Hand over new mails; how many were answered with 250 within the time (each is tried once at least)."""
        before, end = len(self.sender.accepted), time.monotonic() + seconds
        for message in [question(next(self.numbers)) for _ in range(count)]:
            self.hand_over(message, seconds=end - time.monotonic())
        return len(self.sender.accepted) - before

    def hand_over(self, message: EmailMessage, *, seconds: float = 10.0) -> bool:
        """Whether a mail was answered with 250 within the time, as a mail client tries: again and again, once at least."""
        end = time.monotonic() + seconds
        while not (kept := self.sender.try_once(message)) and time.monotonic() < end:
            time.sleep(0.3)
        return kept

    def proposed(self) -> dict[str, object]:
        """A new mail's suggestion, ready to be accepted."""
        sent = question(next(self.numbers))
        assert self.hand_over(sent), self.sender.refused

        def found() -> dict[str, object] | None:
            time.sleep(0.3)  # the API allows twenty reads a second
            self.later(100)
            with contextlib.suppress(httpx.HTTPError):
                for thread in self.reviewer.get("/api/v1/threads?view=review&limit=50")["items"]:
                    if thread["subject"] == sent["Subject"]:
                        for one in self.reviewer.get(f"/api/v1/threads/{thread['id']}/suggestions"):
                            if one["state"] == "proposed":
                                return {**one, "thread": thread["id"]}
            return None

        made: dict[str, object]
        try:
            made = wait_until(found, seconds=30, what="the suggestion")
        except BaseException as error:
            error.add_note(f"{self.told_of(sent)}\n{self.stacks()}")
            raise
        return made

    def told_of(self, sent: EmailMessage) -> str:
        """What the database knows of a mail: how far triage came and why, and what became of its drafts."""
        mails = select(Message).where(Message.subject == str(sent["Subject"]))
        with self.container.database.reading() as session:
            parts = [
                f"{one.direction} {one.triage} after {one.triage_attempts}, hint {one.hinted_at}: {one.trace}\n"
                + "".join(
                    f"  {draft.state}, hint {draft.hinted_at}: {draft.trace}\n"
                    for draft in session.scalars(select(Suggestion).where(Suggestion.message_id == one.id))
                )
                for one in session.scalars(mails)
            ]
        return f"{utcnow()}: {''.join(parts) or 'it is not stored'}"[:4000]

    def waiting(self, kind: str) -> int:
        """How many rows still wait for their `triage` or `draft`."""
        column, state = (
            (Message.triage, TriageState.WAITING) if kind == "triage" else (Suggestion.state, SuggestionState.DRAFTING)
        )
        with self.container.database.reading() as session:
            return session.scalar(select(func.count()).where(column == state)) or 0

    def codes(self) -> set[str]:
        """What is written beside the replies that have not left."""
        with self.container.database.reading() as session:
            return set(session.scalars(select(Message.error_code).where(Message.error_code != "")))

    # -- time and the end

    def later(self, seconds: float) -> None:
        """What the beat would have the worker do after so many seconds: take up what the broker forgot."""
        self.tend()
        with contextlib.suppress(StorageError), self.container.database.transaction() as session:
            sweeper.sweep(session, now=utcnow() + timedelta(seconds=seconds))

    def settle(self, *, seconds: float = 40.0, sending_ended: bool = False) -> Reconciliation:
        """Wait until every accepted mail has its reply out, or unknown; then the reconciliation.

        `sending_ended`: whoever held a claim is dead, so that leases may run out at once.
        """
        if sending_ended:
            self.later(LEASE + 1)
        mails = len(self.sender.accepted)
        tries = iter(range(10_000))

        def rest() -> Reconciliation | None:
            self.tend()
            if next(tries) % 6 == 2:
                self.later(100)
            with contextlib.suppress(httpx.HTTPError):
                self.reviewer.once()
            found = self.reconcile()
            time.sleep(0.3)
            return found if found.sent + found.unknown >= mails - self.without_reply and not found.problems else None

        try:
            found: Reconciliation = wait_until(rest, seconds=seconds, what="everything at rest")
        except BaseException as error:
            error.add_note(f"{self.reconcile()}\n{self.stacks()}")
            raise
        return found

    def reconcile(self) -> Reconciliation:
        arrived = Counter(str(one.message["Message-ID"]) for one in self.sink.mails)
        return reconcile(
            self.container.database, arrived=arrived, source=self.sender.accepted, files=self.container.blobs
        )


def fill(filler: Path) -> None:
    """Take every byte that the file system has left."""
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))


def as_root(*command: str) -> list[str]:
    """The command as root runs it; anybody else needs a `sudo` that asks for no password."""
    return list(command) if os.geteuid() == 0 else ["sudo", "-n", *command]


@contextlib.contextmanager
def sync_fails(*processes: psutil.Process) -> Iterator[None]:
    """Every fsync and fdatasync of these processes fails with EIO, as a dying disk answers."""
    strace = [find_binary("strace", "strace"), "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync"]
    command = [
        *strace,
        "-e",
        "inject=fsync,fdatasync:error=EIO",
        *(x for one in processes for x in ("-p", str(one.pid))),
    ]
    scope = Path("/proc/sys/kernel/yama/ptrace_scope")  # without it anybody may trace what is their own
    roots = os.geteuid() != 0 and scope.exists() and scope.read_text().strip() != "0"
    # A session of its own: sudo hands on no signal that comes from its own group.
    tracer = subprocess.Popen(
        [*bound(), *(as_root(*command) if roots else command)],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        wait_until(lambda: all(_traced(one.pid) for one in processes), seconds=10, what="strace at the process")
        yield
    finally:
        if roots:  # another user's process: a signal of ours would be refused
            subprocess.run(as_root("kill", str(tracer.pid)), check=False)
        else:
            tracer.terminate()
        tracer.communicate(timeout=10)


def _traced(pid: int) -> bool:
    return "TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text()
