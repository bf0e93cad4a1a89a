"""Who sits at both ends of an installation: a mail client that tries until it is answered, an agent's program that accepts."""

from __future__ import annotations

import contextlib
import json
import smtplib
import threading
import time
from collections.abc import Iterable
from email.message import EmailMessage
from typing import Any, Protocol

import httpx

from tests.support.installation import mail

__all__ = ["Reviewer", "Sender", "question"]

SCOPES = ("threads:read", "suggestions:read", "suggestions:write")


class Running(Protocol):
    @property
    def url(self) -> str: ...
    def send(self, mail: EmailMessage) -> None: ...
    def command(self, *arguments: str) -> str: ...


def question(number: int | str) -> EmailMessage:
    """A mail that the approved answer about parcels fits."""
    text = f"Hello, when does my parcel {number} arrive?\n"
    return mail(f"Customer {number} <c{number}@customer.example>", f"Parcel {number}", text)


class Sender:
    """A mail client: hands every mail over until it is answered with 250."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.accepted: list[str] = []
        self.refused: list[str] = []
        """What was answered instead, in words."""
        self.tries = 0

    def send_all(self, numbers: Iterable[int | str], *, seconds: float = 600.0) -> None:
        end = time.monotonic() + seconds
        for number in numbers:
            while not self.try_once(question(number)):
                if time.monotonic() > end:
                    return
                time.sleep(0.3)

    def try_once(self, message: EmailMessage) -> bool:
        self.tries += 1
        try:
            self.running.send(message)
        except (OSError, smtplib.SMTPException) as error:
            self.refused.append(str(error))
            return False
        self.accepted.append(str(message["Message-ID"]))
        return True


class Reviewer:
    """An agent's program: accepts what it finds, and repeats a request that got no answer under the same key."""

    def __init__(self, running: Running) -> None:
        made = running.command("keys", "create", "reviewer", *(x for one in SCOPES for x in ("--scope", one)), "--json")
        secret = json.loads(made)["secret"]
        self.client = httpx.Client(base_url=running.url, headers={"Authorization": f"Bearer {secret}"}, timeout=10)
        self.accepted: set[str] = set()
        self.statuses: list[int] = []
        self.stop = threading.Event()

    def work(self) -> None:
        while not self.stop.is_set():
            with contextlib.suppress(httpx.HTTPError):
                self.once()
            time.sleep(0.3)

    def once(self) -> int:
        """Accept one page of suggestions; how many threads were found."""
        listed = self.get("/api/v1/threads?view=review&limit=20")["items"]
        for thread in listed:
            for suggestion in self.get(f"/api/v1/threads/{thread['id']}/suggestions"):
                if suggestion["state"] == "proposed" and suggestion["id"] not in self.accepted:
                    self.accept(suggestion)
        return len(listed)

    def get(self, url: str) -> Any:
        answer = self.client.get(url)
        self.statuses.append(answer.status_code)
        if answer.status_code in {429, 500, 502, 503}:
            time.sleep(0.5)
        return answer.raise_for_status().json()

    def accept(self, suggestion: dict[str, Any]) -> int:
        """Send the suggestion as it is; the status of the answer."""
        answer = self.client.post(
            f"/api/v1/suggestions/{suggestion['id']}/accept",
            json={"hold_seconds": 0},
            headers={"If-Match": f'"{suggestion["version"]}"', "Idempotency-Key": str(suggestion["id"])},
        )
        self.statuses.append(answer.status_code)
        if answer.status_code == 429:
            time.sleep(float(answer.headers["retry-after"]))
        elif answer.status_code == 201:
            self.accepted.add(str(suggestion["id"]))
        return answer.status_code

    def close(self) -> None:
        self.stop.set()
        self.client.close()
