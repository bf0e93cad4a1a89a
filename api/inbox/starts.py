"""What a new inbox offers: where its listener is, and lines that can be copied to send or bring mail."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass

from assistant.settings import Settings

__all__ = ["Listener", "lines", "listener"]

_SENDER, _SUBJECT, _BODY = "ana@example.org", "Where is my order?", "Hello, where is my order 48213?"


@dataclass(frozen=True, slots=True)
class Listener:
    """Where mail is taken, and the address that it is for."""

    host: str
    port: int
    address: str


def listener(settings: Settings) -> Listener:
    """As the running listener noted it, for its port may be another than the one that was set."""
    try:
        port = int(settings.path("run", "smtp-address").read_text().rpartition(":")[2])
    except (OSError, ValueError):
        port = settings.smtp_port
    return Listener(settings.smtp_host, port, settings.mail_address)


def lines(to: Listener) -> dict[str, str]:
    """Shell lines by what they do: `swaks`, `python`, `import`, `demo`."""
    mail = "\r\n".join((f"From: {_SENDER}", f"To: {to.address}", f"Subject: {_SUBJECT}", "", _BODY))
    # Double quotes inside, for the shell's single quotes stand around the program.
    host, sender, address, words = (json.dumps(one) for one in (to.host, _SENDER, to.address, mail))
    program = f"import smtplib; smtplib.SMTP({host}, {to.port}).sendmail({sender}, [{address}], {words})"
    sent = ("--from", _SENDER, "--to", to.address, "--header", f"Subject: {_SUBJECT}", "--body", _BODY)
    return {
        "swaks": shlex.join(("swaks", "--server", f"{to.host}:{to.port}", *sent)),
        "python": shlex.join(("python3", "-c", program)),
        "import": ".venv/bin/notifyr import PATH",
        "demo": ".venv/bin/notifyr demo",
    }
