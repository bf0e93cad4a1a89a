"""What an outgoing mail looks like on the wire, and what is refused before it gets there."""

from __future__ import annotations

import email
import email.policy
import os
import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assistant.clock import utcnow
from assistant.errors import InvalidInput, NotAllowed, UnsupportedFeature
from assistant.values import Address, Attachment, MessageClass, OutboundMessage, ThreadHeaders, Webhook
from channels.email import Email, EmailConfig, compose

MESSAGE = OutboundMessage(
    id="0190",
    sender=Address("email", "support@example.org", "Support"),
    to=(Address("email", "ann@example.com", "Ann Öst"),),
    subject="Re: Where is my parcel?",
    text="Dear Ann,\n.\n..two dots\nFrom here on.\nBye",
    thread_headers=ThreadHeaders("<0190@example.org>", "<q@example.com>", ("<p@example.com>", "<q@example.com>")),
)
SEPARATORS = [
    "\r",
    "\n",
    "\r\n",
    "\x00",
    "\x0b",
    "\x0c",
    "\x1c",
    "\x1d",
    "\x1e",
    "\x85",
    "\u2028",
    "\u2029",
    "\x7f",
    "\x1b",
]


def parsed(message: OutboundMessage) -> Any:
    return email.message_from_bytes(compose(message), policy=email.policy.default)


def test_an_answer_names_its_parent_and_the_whole_chain() -> None:
    mail = parsed(MESSAGE)
    assert mail["Message-ID"] == "<0190@example.org>"
    assert mail["In-Reply-To"] == "<q@example.com>"
    assert mail["References"].split() == ["<p@example.com>", "<q@example.com>"]
    assert mail["From"] == "Support <support@example.org>"
    assert mail["To"].addresses[0].display_name == "Ann Öst"
    assert mail["Date"] is not None


def test_the_text_arrives_as_it_was_written() -> None:
    assert parsed(MESSAGE).get_content().replace("\r\n", "\n").rstrip("\n") == MESSAGE.text


@pytest.mark.parametrize(
    ("message_class", "mark"),
    [
        (MessageClass.PERSONAL, None),
        (MessageClass.AUTO_REPLY, "auto-replied"),
        (MessageClass.AUTO_GENERATED, "auto-generated"),
    ],
)
def test_only_automatic_mail_carries_the_marks_of_rfc_3834(message_class: MessageClass, mark: str | None) -> None:
    mail = parsed(replace(MESSAGE, message_class=message_class))
    assert mail["Auto-Submitted"] == mark
    assert (mail["X-Auto-Response-Suppress"] is not None) == (mark is not None)


def test_long_threads_keep_every_header_line_under_998_octets() -> None:
    ids = tuple(f"<{'x' * 700}.{n}@example.com>" for n in range(40))
    content = compose(replace(MESSAGE, thread_headers=ThreadHeaders("<0190@example.org>", ids[-1], ids)))
    assert max(len(line) for line in content.split(b"\r\n")) < 998
    found = email.message_from_bytes(content, policy=email.policy.compat32)["References"].split()
    assert tuple(found) == ids, "ids are folded between each other, never encoded or cut"


@pytest.mark.checklist(36)
def test_no_bare_carriage_return_or_line_feed_leaves_the_house() -> None:
    message = replace(MESSAGE, text="a\rb\nc\r\nd\x0be\x85f\u2028g\x00h", html="<p>x\ry</p>", subject="é" * 400)
    content = compose(message)
    assert re.search(rb"(?<!\r)\n|\r(?!\n)|\x00", content) is None
    assert content.isascii()


@pytest.mark.parametrize("separator", SEPARATORS, ids=repr)
@pytest.mark.parametrize(
    "place", ["subject", "sender name", "recipient name", "recipient", "id", "reply", "reference", "file"]
)
@pytest.mark.checklist(38)
def test_header_injection_is_refused_everywhere(place: str, separator: str) -> None:
    evil = f"x{separator}Bcc: victim@example.net"
    threads = MESSAGE.thread_headers
    assert threads is not None
    message = {
        "subject": lambda: replace(MESSAGE, subject=evil),
        "sender name": lambda: replace(MESSAGE, sender=replace(MESSAGE.sender, display_name=evil)),
        "recipient name": lambda: replace(MESSAGE, to=(replace(MESSAGE.to[0], display_name=evil),)),
        "recipient": lambda: replace(MESSAGE, to=(Address("email", f"a{separator}@example.com"),)),
        "id": lambda: replace(MESSAGE, thread_headers=replace(threads, message_id=f"<{evil}@x>")),
        "reply": lambda: replace(MESSAGE, thread_headers=replace(threads, in_reply_to=f"<a@x>{separator}")),
        "reference": lambda: replace(MESSAGE, thread_headers=replace(threads, references=(f"<a{separator}@x>",))),
        "file": lambda: replace(MESSAGE, attachments=(Attachment(evil, "text/plain", b"x"),)),
    }[place]()
    with pytest.raises(InvalidInput):
        compose(message)


@settings(max_examples=300, deadline=None)
@given(
    subject=st.text(max_size=200), name=st.text(max_size=80), text=st.text(max_size=400), filename=st.text(max_size=60)
)
@pytest.mark.checklist(38)
def test_any_text_is_either_refused_or_adds_no_header(subject: str, name: str, text: str, filename: str) -> None:
    message = replace(
        MESSAGE,
        subject=subject,
        to=(Address("email", "ann@example.com", name),),
        text=text,
        attachments=(Attachment(filename, "text/plain", b"content"),),
    )
    try:
        content = compose(message)
    except InvalidInput:
        return
    assert re.search(rb"(?<!\r)\n|\r(?!\n)|\x00", content) is None
    assert max(len(line) for line in content.split(b"\r\n")) <= 998
    head = email.message_from_bytes(content, policy=email.policy.compat32)
    assert [key.lower() for key in head] == [
        "from", "to", "subject", "date", "message-id", "in-reply-to", "references", "mime-version", "content-type",
    ]  # fmt: skip


def test_html_and_files_come_as_alternative_and_attachment() -> None:
    mail = parsed(
        replace(
            MESSAGE, html="<p>Dear Ann</p>", attachments=(Attachment("Rechnung ä.pdf", "application/pdf", b"%PDF"),)
        )
    )
    assert mail.get_content_type() == "multipart/mixed"
    assert mail.get_body(("html",)).get_content().strip() == "<p>Dear Ann</p>"
    (file,) = mail.iter_attachments()
    assert (file.get_filename(), file.get_content()) == ("Rechnung ä.pdf", b"%PDF")


def test_a_file_cannot_pretend_to_be_a_part_of_the_message() -> None:
    mail = parsed(replace(MESSAGE, attachments=(Attachment("x", "message/rfc822", b"Bcc: a@b"),)))
    (file,) = mail.iter_attachments()
    assert file.get_content_type() == "application/octet-stream"


def folder_channel(folder: Path) -> Email:
    return Email(EmailConfig(address="support@example.org", outbox=folder))


def test_without_a_relay_mail_goes_into_the_outbox_folder_once(tmp_path: Path) -> None:
    channel = folder_channel(tmp_path)
    for _ in range(3):
        receipt = anyio.run(channel.send, MESSAGE)
    (file,) = (tmp_path / "new").iterdir()
    assert email.message_from_bytes(file.read_bytes())["Message-ID"] == receipt.external_id == "<0190@example.org>"
    assert list((tmp_path / "tmp").iterdir()) == []
    assert file.stat().st_mode & 0o077 == 0


def test_a_mail_program_that_read_the_folder_does_not_make_it_write_again(tmp_path: Path) -> None:
    channel = folder_channel(tmp_path)
    anyio.run(channel.send, MESSAGE)
    (file,) = (tmp_path / "new").iterdir()
    file.rename(tmp_path / "cur" / f"{file.name}:2,S")
    anyio.run(channel.send, MESSAGE)
    assert list((tmp_path / "new").iterdir()) == []


def test_the_name_of_a_mail_in_the_folder_is_on_the_disk_before_it_counts_as_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, synced = os.fsync, list[str]()

    def fsync(descriptor: int) -> None:
        where = Path(f"/proc/self/fd/{descriptor}").readlink()
        synced.append(f"new {len(list(where.iterdir()))}" if where.name == "new" else where.name)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    for _ in range(2):  # one that died between the name and the disk is tried again, and finds its file
        anyio.run(folder_channel(tmp_path).send, MESSAGE)
        assert synced[-1] == "new 1"
    assert tmp_path.name in synced


def test_what_killed_processes_left_in_the_folder_is_gone_after_a_day(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    for name, hours in (("old", 25), ("fresh", 1)):
        (tmp_path / "tmp" / name).write_bytes(b"half a mail")
        then = (utcnow() - timedelta(hours=hours)).timestamp()
        os.utime(tmp_path / "tmp" / name, (then, then))
    anyio.run(folder_channel(tmp_path).send, MESSAGE)
    assert [one.name for one in (tmp_path / "tmp").iterdir()] == ["fresh"]


@pytest.mark.checklist(38)
def test_only_the_profiles_own_address_may_send(tmp_path: Path) -> None:
    channel = folder_channel(tmp_path)
    with pytest.raises(NotAllowed):
        anyio.run(channel.send, replace(MESSAGE, sender=Address("email", "boss@example.org")))


def test_there_is_no_such_thing_as_a_mail_webhook(tmp_path: Path) -> None:
    channel = folder_channel(tmp_path)
    with pytest.raises(UnsupportedFeature):
        channel.verify(Webhook({}, {}, b"", ""))
    with pytest.raises(UnsupportedFeature):
        channel.parse(Webhook({}, {}, b"", ""))
