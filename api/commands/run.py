"""`notifyr run`: everything on this machine, with no question asked. The same processes run as containers in production."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api import console

if TYPE_CHECKING:
    from api.supervisor import Supervisor
    from assistant.settings import Settings

__all__ = ["register"]

_FIRST_PAGE_SECONDS = 120.0
_EDGES = ("api", "mailboxes")
"""Started first, and alone: on two cores the others would double the time to the first page."""


def register(app: typer.Typer) -> None:
    """Add `run`."""
    app.command("run")(run)


def run(
    demo: Annotated[
        bool, typer.Option("--demo", help="Send the sample mails through the listener after the start.")
    ] = False,
    browser: Annotated[bool, typer.Option(help="Open the inbox when a display exists.")] = True,
    logs: Annotated[bool, typer.Option("--logs", help="Stream the processes' logs here, not to files.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document once it is ready.")] = False,
) -> None:
    """Start everything on this machine: stores, listener, workers, inbox. Ctrl-C stops it in order.

    Example: notifyr run --demo
    """
    from api.startup import require_folder
    from assistant.clock import monotonic
    from assistant.settings import load_settings

    began = monotonic()
    settings = load_settings()
    require_folder(settings)
    with _only_one(settings):
        raise typer.Exit(Run(settings, demo=demo, browser=browser, logs=logs, as_json=as_json, began=began).main())


@contextlib.contextmanager
def _only_one(settings: Settings) -> Iterator[None]:
    """One installation runs once. Raises `Conflict` with the address of the one that is there."""
    import fcntl

    from assistant.errors import Conflict

    folder = settings.path("run")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise Conflict(f"it is running already: {lock.read().strip() or 'about to be ready'}") from None
        lock.truncate(0)
        os.register_at_fork(after_in_child=lock.close)  # it is ours alone: children may outlive us for a moment
        yield


@dataclass
class Run:
    """One `notifyr run`, from the first check to the last process gone."""

    settings: Settings
    demo: bool
    browser: bool
    logs: bool
    as_json: bool
    began: float
    environment: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    asked_to_stop: bool = False

    def say(self, text: str) -> None:
        (console.error if self.as_json else console.line)(text)

    def main(self) -> int:
        """Run until a signal. Returns the exit code."""
        from api.supervisor import Supervisor

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._stop)
        self._choose_ports()
        supervisor = Supervisor(
            self.environment, self.settings.path("logs"), self.say, stream=self.logs, on_exit=self._forget_metrics
        )
        try:
            self._start_store(supervisor)
            supervisor.forking = self._preload()
            path = self._prepare()
            self._start_processes(supervisor, edges=True)
            return self._watch(supervisor, path)
        finally:
            if supervisor.children:
                self.say("stopping: messages in hand are finished first")
                supervisor.stop()
            self.settings.path("run", "redis-url").unlink(missing_ok=True)

    def _stop(self, _number: int, _frame: object) -> None:
        self.asked_to_stop = True

    # -- before anything runs

    def _choose_ports(self) -> None:
        settings = self.settings
        port = _port("host", settings.host, settings.port)
        smtp_port = _port("smtp_host", settings.smtp_host, settings.smtp_port, taken=[port])
        for what, wanted, got in (("port", settings.port, port), ("SMTP port", settings.smtp_port, smtp_port)):
            if wanted != got:
                self.say(f"{what} {wanted} is taken; using {got}")
        metrics = settings.path("run", "metrics")
        shutil.rmtree(metrics, ignore_errors=True)
        metrics.mkdir(parents=True, mode=0o700)
        self.environment = {
            **os.environ,
            "NOTIFYR_DATA_DIR": str(settings.path()),
            "NOTIFYR_PORT": str(port),
            "NOTIFYR_SMTP_PORT": str(smtp_port),
            "PROMETHEUS_MULTIPROC_DIR": str(metrics),
        }
        shown = f"[{settings.host}]" if ":" in settings.host else settings.host
        self.facts = {
            "url": settings.public_url.rstrip("/") or f"http://{shown}:{port}",
            "local": f"http://{shown}:{port}",
            "smtp": f"{settings.smtp_host}:{smtp_port}",
            "mail_address": settings.mail_address,
        }

    def _start_store(self, supervisor: Supervisor) -> None:
        """The embedded Valkey, when no Redis is named. Its address is in the environment and in a private file."""
        if self.settings.redis_url is not None:
            return
        from api.supervisor import free_port
        from assistant.backends.secrets import write_private
        from assistant.backends.valkey import EmbeddedValkey

        port = free_port("127.0.0.1", 20_000 + os.getpid() % 20_000)
        embedded = EmbeddedValkey.prepare(self.settings.path("valkey"), port=port)
        supervisor.start("valkey", embedded.command)
        self.environment["NOTIFYR_REDIS_URL"] = embedded.url
        write_private(self.settings.path("run", "redis-url"), embedded.url)

    def _preload(self) -> bool:
        """Import what the processes share, if they can be forks of this one."""
        from api.forks import can_fork, preload

        os.environ["PROMETHEUS_MULTIPROC_DIR"] = self.environment["PROMETHEUS_MULTIPROC_DIR"]  # read by the import
        if can_fork():
            preload()
        return can_fork()

    def _prepare(self) -> str:
        """Checks, tables, first admin: in a process of its own, so that no file or connection stays open in this one.
        Returns the page to open.
        """
        from api.forks import Fork, can_fork
        from api.supervisor import OURS

        words = ("prepare", "--json")
        with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
            if can_fork():
                code = Fork(words, self.environment, output=output.fileno(), errors=errors.fileno()).wait()
            else:
                code = subprocess.run(  # noqa: S603  # our own command
                    [*OURS, *words],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=errors,
                    env=self.environment,
                    check=False,
                ).returncode
            for file in (output, errors):
                file.seek(0)
            if code:
                console.error(_reason(errors.read()))
                raise typer.Exit(code)
            path: str = json.loads(output.read())["path"]
        return path

    def _start_processes(self, supervisor: Supervisor, *, edges: bool) -> None:
        from api.supervisor import procfile
        from assistant.settings import ROOT

        for name, command in procfile(ROOT / "deploy" / "Procfile").items():
            if (name in _EDGES) == edges:
                supervisor.start(name, command)

    def _forget_metrics(self, pid: int) -> None:
        """A dead process' gauges are no longer true; its counters stay."""
        for file in Path(self.environment["PROMETHEUS_MULTIPROC_DIR"]).glob(f"gauge_live*_{pid}.db"):
            file.unlink(missing_ok=True)

    # -- while it runs

    def _watch(self, supervisor: Supervisor, path: str) -> int:
        from assistant.clock import monotonic

        ready = False
        while not self.asked_to_stop:
            hopeless = supervisor.tick(hopeful=ready)
            if hopeless is not None:
                console.error(f"notifyr: {hopeless.name} does not start; the end of its log:")
                console.error(_tail(supervisor.log_of(hopeless.name)))
                return 1
            if not ready and self._answers():
                ready = True
                self._announce(path, monotonic() - self.began)
                self._start_processes(supervisor, edges=False)
                if self.demo:
                    subprocess.Popen(
                        [sys.executable, "-m", "api.cli", "demo"], stdin=subprocess.DEVNULL, env=self.environment
                    )
            if not ready and monotonic() - self.began > _FIRST_PAGE_SECONDS:
                console.error(f"notifyr: no page within {_FIRST_PAGE_SECONDS:g} s; see {supervisor.log_of('api')}")
                return 1
        return 0

    def _answers(self) -> bool:
        """Whether the inbox and the listener are both there."""
        import http.client
        import socket

        host, _, port = self.facts["local"].removeprefix("http://").rpartition(":")
        connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=2)
        try:
            connection.request("GET", "/livez")
            if connection.getresponse().status != http.client.OK:
                return False
            smtp_host, _, smtp_port = self.facts["smtp"].rpartition(":")
            socket.create_connection((smtp_host, int(smtp_port)), timeout=2).close()
            return True
        except OSError:
            return False
        finally:
            connection.close()

    def _announce(self, path: str, seconds: float) -> None:
        target = self.facts["url"] + path
        self.settings.path("run", "lock").write_text(self.facts["url"])
        if self.as_json:
            console.line(json.dumps({**self.facts, "open": target, "seconds": round(seconds, 2)}))
        else:
            once = " (this link signs you in once)" if path != "/" else ""
            console.line(f"\nNotifyr is ready after {seconds:.1f} s. Open{once}:\n\n    {target}\n")
            console.line(f"Mail in:   SMTP on {self.facts['smtp']}, for {self.facts['mail_address']}")
            console.line(f"Logs:      {'here' if self.logs else self.settings.path('logs')}")
            if not self.demo:
                console.line(f"Samples:   {_command()} demo   (in another terminal: sends sample mails)")
            console.line("Stop:      Ctrl-C\n")
        if self.browser and (
            os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or sys.platform == "darwin"
        ):
            import webbrowser

            webbrowser.open(target)


def _port(setting: str, host: str, wanted: int, *, taken: Sequence[int] = ()) -> int:
    """A free port on an address of this machine. Raises `ConfigurationError`, also where all near it are taken."""
    from api.supervisor import free_port
    from assistant.errors import ConfigurationError
    from assistant.settings import PREFIX

    try:
        return free_port(host, wanted, taken=taken)
    except OSError as error:
        words = f"{PREFIX}{setting.upper()}: cannot listen on {host}: {error.strerror or error}; is it this machine's?"
        raise ConfigurationError([words]) from None


def _command() -> str:
    """How the user calls us: by the path of the script in this environment, as short as it can be said."""
    script = Path(sys.executable).with_name("notifyr")
    if shutil.which("notifyr") == str(script) or not script.exists():
        return "notifyr"
    return str(script.relative_to(Path.cwd())) if script.is_relative_to(Path.cwd()) else str(script)


def _reason(text: str) -> str:
    """The words in a command's standard error, whether it printed them as JSON or not."""
    for candidate in reversed(text.strip().splitlines()):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            return f"notifyr: {json.loads(candidate)['error']['message']}"
    return text.strip() or "notifyr: the preparation failed"


def _tail(path: Path, lines: int = 20) -> str:
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return "(no log)"
