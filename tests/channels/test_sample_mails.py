"""The sample mails of `notifyr demo`: real mails, each with an id of its own, to nobody outside."""

from __future__ import annotations

import email
import re
from email.policy import default

import pytest

from api.commands.demo import answers, mails, message_id
from assistant.services.knowledge import chunk

MAILS = mails("support@example.org")


def test_there_is_something_for_every_screen() -> None:
    names = " ".join(name for name, _ in MAILS)
    assert len(MAILS) >= 25
    for kind in (
        "parcel refund password damaged sales spam newsletter auto-reply bounce opt-out rtl emoji attachment thread-2"
        " long-6 injection html urgent human".split()
    ):
        assert kind in names


def test_every_mail_has_an_id_of_its_own_so_that_a_second_run_adds_nothing() -> None:
    ids = [message_id(content) for _, content in MAILS]
    assert all(re.fullmatch(r"<demo-[a-z0-9-]+@[a-z0-9.-]+\.example>", found) for found in ids)
    assert len(set(ids)) == len(ids)
    assert mails("support@example.org") == MAILS


@pytest.mark.parametrize(("name", "content"), MAILS, ids=[name for name, _ in MAILS])
def test_a_sample_is_a_mail_to_the_configured_address(name: str, content: bytes) -> None:
    parsed = email.message_from_bytes(content, policy=default)
    assert parsed["To"].addresses[0].addr_spec == "support@example.org"
    assert parsed["From"].addresses[0].domain.endswith(".example")
    assert parsed["Date"].datetime is not None
    assert b"\n" not in content.replace(b"\r\n", b"")
    assert max(map(len, content.split(b"\r\n"))) <= 998
    domains = re.findall(rb"[\w.-]+@([\w-]+(?:\.[\w-]+)+)|https?://([\w-]+(?:\.[\w-]+)+)", content)
    outside = [d for pair in domains for d in pair if d and not d.endswith((b".example", b"example.org"))]
    assert outside == []


def test_the_answers_fit_into_one_chunk_each_and_have_titles_of_their_own() -> None:
    found = answers()
    assert len(found) >= 20
    assert len({title for title, _ in found}) == len(found)
    assert all(len(chunk(text)) == 1 for _, text in found)
