"""Every cap of a mail, at the cap exactly and one beyond it: the first is read, the second is put aside with its bytes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields

import pytest

from channels.support.child import ParserChild
from channels.support.mime import DEFAULT, Limits, parse

HEAD = b"From: ann@example.com\nMessage-ID: <1@example.com>\n"


@dataclass(frozen=True)
class Cap:
    """`make(n)` is a mail that has exactly n of what is counted."""

    limit: str
    make: Callable[[int], bytes]
    defect: str


def _size(count: int) -> bytes:
    head = HEAD + b"Subject: size\n\n"
    return head + b"x" * (count - len(head))


def _header_bytes(count: int) -> bytes:
    """The whole head, in headers that are each small enough."""
    head = HEAD + b"".join(b"X-%d: %b\n" % (number, b"y" * 50_000) for number in range(count // 50_100))
    rest = count - len(head) - len(b"X-Rest: ")
    return head + b"X-Rest: " + b"y" * rest + b"\n\nhello\n"


def _one_header(count: int) -> bytes:
    return HEAD + b"Subject: " + b"x" * (count - len(b"Subject: ")) + b"\n\nhello\n"


def _folded_header(count: int) -> bytes:
    """Lines of one header count together, each end of a line as one byte."""
    lines, rest = divmod(count - len(b"Subject:"), 500)
    return HEAD + b"Subject:" + b"".join(b"\n " + b"x" * 499 for _ in range(lines)) + b"x" * rest + b"\n\nhello\n"


def _part_header(count: int) -> bytes:
    header = b"Content-Description: " + b"x" * (count - len(b"Content-Description: "))
    return HEAD + b"Content-Type: multipart/mixed; boundary=b\n\n--b\n" + header + b"\n\nhello\n--b--\n"


def _header_lines(count: int) -> bytes:
    """Ends of lines in the head."""
    own = HEAD.count(b"\n")
    return HEAD + b"X: y\n" * (count - own) + b"Subject: lines\n\nhello\n"


def _parts(count: int) -> bytes:
    part = b"--b\nContent-Type: text/plain\n\nhello\n"
    return HEAD + b"Content-Type: multipart/mixed; boundary=b\n\n" + part * count + b"--b--\n"


def _bare_parts(count: int) -> bytes:
    """Parts without a header: nothing before the parser counts them one by one."""
    return HEAD + b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\n\nhello\n" * count + b"--b--\n"


def _depth(count: int) -> bytes:
    opened = [b'Content-Type: multipart/mixed; boundary="b%d"\n\n--b%d\n' % (one, one) for one in range(count)]
    closed = [b"--b%d--\n" % one for one in reversed(range(count))]
    return HEAD + b"".join(opened) + b"Content-Type: text/plain\n\nhello\n" + b"".join(closed)


def _attached_mails(count: int) -> bytes:
    """Mails in mails."""
    inner = b"Content-Type: message/rfc822\n\n" * count
    return HEAD + inner + b"Content-Type: text/plain\n\nhello\n"


def _addresses(header: bytes) -> Callable[[int], bytes]:
    def make(count: int) -> bytes:
        return HEAD + header + b": " + b", ".join(b"a%d@x.org" % one for one in range(count)) + b"\n\nhello\n"

    return make


def _parameters(count: int) -> bytes:
    return HEAD + b"Content-Type: text/plain" + b"".join(b"; x%d=a" % one for one in range(count)) + b"\n\nhello\n"


def _part_parameters(count: int) -> bytes:
    header = b"Content-Disposition: inline" + b"".join(b";\n x%d=a" % one for one in range(count))
    return HEAD + b"Content-Type: multipart/mixed; boundary=b\n\n--b\n" + header + b"\n\nhello\n--b--\n"


CAPS = {
    "size": Cap("size", _size, "larger than 35000000 bytes"),
    "headers": Cap("header_bytes", _header_bytes, "headers too large"),
    "one header": Cap("one_header", _one_header, "a header is too large"),
    "one folded header": Cap("one_header", _folded_header, "a header is too large"),
    "a header of a part": Cap("one_header", _part_header, "a part's header is too large"),
    "lines of the head": Cap("header_lines", _header_lines, "headers too large"),
    "parts": Cap("parts", _parts, "too many parts"),
    "parts without a header": Cap("parts", _bare_parts, "unreadable: ValueError"),
    "depth": Cap("depth", _depth, "too deeply nested"),
    "mails in mails": Cap("depth", _attached_mails, "too deeply nested"),
    "addresses": Cap("addresses", _addresses(b"To"), "too many addresses"),
    "addresses of a copy": Cap("addresses", _addresses(b"Cc"), "too many addresses"),
    "parameters": Cap("parameters", _parameters, "too many parameters"),
    "parameters of a part": Cap("parameters", _part_parameters, "too many parameters"),
}


def test_every_cap_is_tried() -> None:
    # `text` cuts what is shown of a mail; it refuses none.
    assert {cap.limit for cap in CAPS.values()} == {one.name for one in fields(Limits)} - {"text"}


@pytest.mark.checklist(2)
@pytest.mark.parametrize("name", CAPS)
def test_a_mail_at_a_cap_is_read_and_one_beyond_it_is_quarantined(name: str) -> None:
    cap = CAPS[name]
    most: int = getattr(DEFAULT, cap.limit)
    started = time.thread_time()
    at, beyond = parse(cap.make(most)), parse(cap.make(most + 1))
    assert time.thread_time() - started < 8
    assert "quarantine" not in at.defects and cap.defect not in at.defects, at.defects
    assert at.text or at.attachments, "it was read"
    assert {cap.defect, "quarantine"} <= set(beyond.defects), beyond.defects
    assert (beyond.text, beyond.html, beyond.attachments) == ("", "", ())
    # Who wrote is known all the same, so that an agent can look at the raw mail.
    assert beyond.sender.value == "ann@example.com" and beyond.external_id == "<1@example.com>"


@pytest.mark.checklist(2, 3)
def test_the_child_gives_the_same_answers_at_and_beyond_the_caps() -> None:
    """Over the pipe, within its own limits of time and memory."""
    child = ParserChild()
    try:
        for name in ("depth", "parts", "addresses", "parameters", "one header"):
            cap = CAPS[name]
            most: int = getattr(DEFAULT, cap.limit)
            for raw in (cap.make(most), cap.make(most + 1)):
                assert child.parse(raw).defects == parse(raw).defects, name
    finally:
        child.close()


def test_text_beyond_its_cap_is_cut_and_not_refused() -> None:
    for extra in (0, 1):
        found = parse(HEAD + b"\n" + b"x" * (DEFAULT.text + extra))
        assert len(found.text) == DEFAULT.text
        assert "quarantine" not in found.defects
