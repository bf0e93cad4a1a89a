"""Coverage-guided fuzzing of the mail parser. Not a test: run it as long as you like, and keep what it finds.

    python tests/fuzz/mime.py -max_total_time=300 /tmp/corpus tests/data/mime

A new crash or a slow input goes into `tests/data/mime/` under a name that says what it is; `test_mime.py` runs them all.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
with atheris.instrument_imports(include=["email", "channels", "mailparser_reply"]):
    from channels.support.bounces import report_of
    from channels.support.mime import parse
    from channels.support.quotes import split_reply


def one(data: bytes) -> None:
    message = parse(data)
    for text in (message.subject, message.text, message.html, message.external_id, message.sender.value):
        text.encode()
    if message.sender.value.count("@") != 1 or "\x00" in message.text or "\n" in message.subject:
        raise AssertionError("the contract of InboundMessage is broken")
    split_reply(message.text)
    if message.auto_submitted == "bounce" and "quarantine" not in message.defects:
        report_of(data)


if __name__ == "__main__":
    atheris.Setup([*sys.argv, "-timeout=5", "-rss_limit_mb=1024"], one)
    atheris.Fuzz()
