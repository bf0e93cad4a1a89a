"""The whole program as a user starts it: `notifyr run` on a folder of its own, with a real mail server as its relay."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import smtplib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import httpx
import psutil

from assistant.settings import ROOT, Settings, load_settings
from tests.support.servers import bound, clean_environment, free_port, wait_until

MODELS = ("encoder", "generator")


@dataclass
class Installation:
    """A running installation. `link` signs its first agent in, once."""

    process: subprocess.Popen[str]
    settings: Settings
    environment: dict[str, str]
    link: str

    @property
    def url(self) -> str:
        return self.settings.base_url

    def send(self, mail: EmailMessage) -> None:
        """Hand one mail to the listener, as any client would."""
        with smtplib.SMTP("127.0.0.1", self.settings.smtp_port, timeout=20) as client:
            client.send_message(mail)

    def command(self, *arguments: str, seconds: float = 240.0) -> str:
        """Run `notifyr ARGUMENTS` on this installation; its standard output."""
        done = subprocess.run(
            [sys.executable, "-m", "api.cli", *arguments],
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=True,
        )
        return done.stdout

    def models(self) -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(f"{self.url}/readyz", timeout=5).json()["models"]
        return found

    def child(self, word: str) -> psutil.Process:
        """The process of ours whose command line has `word` in it (`worker --queues inbound`, `api`, `valkey`)."""
        for one in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if word in " ".join(one.cmdline()):
                    return one
        raise LookupError(word)


def mail(sender: str, subject: str, text: str, *, to: str = "support@example.org", **headers: str) -> EmailMessage:
    """A mail with a Message-ID made from its sender and subject."""
    made = EmailMessage()
    made["From"], made["To"], made["Subject"] = sender, to, subject
    made["Message-ID"] = f"<{re.sub(r'[^a-z0-9]+', '.', (sender + subject).lower()).strip('.')}@mail.example>"
    for name, value in headers.items():
        made[name.replace("_", "-")] = value
    made.set_content(text)
    return made


@contextlib.contextmanager
def program(environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[str]]:
    """`notifyr run` as a process, which is stopped in order at the end. Nothing is waited for."""
    with log.open("w") as out:
        process = subprocess.Popen(
            [*bound(), sys.executable, "-m", "api.cli", "run"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


@contextlib.contextmanager
def installation(folder: Path, *, wait_for_models: bool = True, **values: str) -> Iterator[Installation]:
    """Start everything, wait for the first page (and the models), stop it in order."""
    environment = clean_environment(
        NOTIFYR_DATA_DIR=str(folder),
        NOTIFYR_PORT=str(free_port()),
        NOTIFYR_SMTP_PORT=str(free_port()),
        NOTIFYR_MAIL_ADDRESS="support@example.org",
        **{f"NOTIFYR_{name.upper()}": value for name, value in values.items()},
    )
    settings = load_settings({k: v for k, v in environment.items() if k.startswith("NOTIFYR_")})
    log = folder.with_suffix(".log")
    folder.mkdir(parents=True, exist_ok=True)
    with program(environment, log) as process:
        found = wait_until(lambda: re.search(r"http\S+/link#\S+", log.read_text()), seconds=60, what="the link")
        made = Installation(process, settings, environment, found.group(0))
        if wait_for_models:
            wait_until(
                lambda: all(made.models().get(name, {}).get("state") in {"ready", "off"} for name in MODELS),
                seconds=90,
                what="the models",
            )
        yield made
