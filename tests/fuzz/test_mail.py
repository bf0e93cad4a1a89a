"""Random mails and random bytes: the parser, the quotes, the reports and the subjects take them all."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from assistant.subjects import base_subject, is_forward
from channels.support.bounces import report_of
from channels.support.mime import parse
from channels.support.quotes import split_reply
from channels.support.threading import reply_references
from tests.channels.test_mime import assert_sound

NAMES = (
    "From To Cc Subject Date Message-ID In-Reply-To References Content-Type Content-Disposition Content-ID Reply-To "
    "Content-Transfer-Encoding Auto-Submitted List-Id Precedence Return-Path MIME-Version X"
).split()
PIECES = (
    "multipart/mixed multipart/report message/rfc822 message/delivery-status message/partial text/plain text/html image/png "
    "; boundary=b boundary=\"\" charset=utf-8 charset=idna charset=\x00 name*0*=utf-8''%C3 filename=x x* =?utf-8?q?=C3?= "
    '=?b?b?!?= a@example.com <b@example.com> ( ) < > , : " \\ base64 quoted-printable x-uuencode utf-16 bounce no'
).split(" ")
header = st.builds(
    lambda name, pieces, fold: f"{name}: " + fold.join(pieces),
    st.sampled_from(NAMES),
    st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=8)), max_size=6),
    st.sampled_from(["", " ", "\n ", "\r\n\t"]),
)
body = st.one_of(
    st.text(max_size=60),
    st.lists(
        st.sampled_from(
            ["--b", "--b--", "", "hi", "> hi", "Content-Type: text/html", "<p hidden>", "=C3=", "begin 6 x"]
        )
    ).map("\n".join),
)
mails = st.builds(
    lambda headers, end, text: (end.join(headers) + end + end + text.replace("\n", end)).encode(
        "utf-8", "surrogatepass"
    ),
    st.lists(header, max_size=8),
    st.sampled_from(["\n", "\r\n", "\r"]),
    body,
)
many = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@many
@given(st.one_of(mails, st.binary(max_size=400)))
@example(b"Content-Type: text/plain; x*")
@pytest.mark.checklist(1, 4)
def test_any_mail_is_read(raw: bytes) -> None:
    message = parse(raw)
    assert_sound(message)
    assert parse(raw) == message


@many
@given(mails, st.data())
def test_a_flipped_byte_is_no_obstacle(raw: bytes, data: st.DataObject) -> None:
    changed = bytearray(raw)
    changed[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    assert_sound(parse(bytes(changed)))


@many
@given(st.one_of(mails, st.binary(max_size=200)))
def test_any_report_is_read(raw: bytes) -> None:
    for report in report_of(b"Content-Type: multipart/report; report-type=delivery-status; boundary=b\n\n--b\n" + raw):
        assert report.status == "" or report.status[0] in "245"
        assert "\n" not in report.recipient + report.diagnostic


@many
@given(st.lists(st.sampled_from(["On Monday Ann wrote:", "> q", "word", "", "-- ", "From: a@b", "Sent: x", "\t"])))
def test_new_words_are_never_invented_and_never_empty(lines: list[str]) -> None:
    text = "\n".join(lines)
    new, rest = split_reply(text)
    assert bool(new) == bool(text.strip())
    assert set(new.split()) <= set(text.split())
    assert set(rest.split()) <= set(text.split())


@many
@given(st.lists(st.sampled_from(["Re:", "AW: ", "[list] ", "Fwd:", "(fwd)", "回复：", " ", "Order 7", "re[2]: "])))
def test_a_base_subject_stays_as_it_is(parts: list[str]) -> None:
    subject = "".join(parts)
    base = base_subject(subject)
    assert base_subject(base) == base
    assert base_subject("Re: " + subject) == base
    is_forward(subject)


@many
@given(st.lists(st.integers(0, 200).map(lambda n: f"<{n}@example.com>"), max_size=120))
def test_references_fit_into_a_line_and_keep_their_ends(ids: list[str]) -> None:
    found = reply_references("<parent@example.com>", ids)
    assert found[-1] == "<parent@example.com>"
    assert len(set(found)) == len(found)
    assert len(" ".join(found)) < 980
    if ids:
        assert found[0] == ids[0]
