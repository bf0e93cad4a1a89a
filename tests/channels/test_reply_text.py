"""Quoted history, base subjects, answer headers and delivery reports."""

from __future__ import annotations

import time

import pytest

from assistant.subjects import base_subject, is_forward
from channels.support.bounces import Report, report_of
from channels.support.quotes import split_reply
from channels.support.threading import reply_references

QUOTES = {
    "gmail": "On Mon, 1 Jan 2024 at 10:00, Ann <a@example.com> wrote:\n\n> hello\n> there\n",
    "wrapped": "On Mon, Jan 1, 2024 at 10:00 AM A Very Long Name Indeed\n<a@example.com> wrote:\n> hello\n",
    "german": "Am 01.01.2024 um 10:00 schrieb Ann <a@example.com>:\n> hallo",
    "french": "Le lun. 1 janv. 2024 à 10:00, Ann <a@example.com> a\nécrit :\n> bonjour",
    "spanish": "El lun, 1 ene 2024 a las 10:00, Ann (<a@example.com>) escribió:\n> hola",
    "italian": "Il giorno lun 1 gen 2024 alle ore 10:00 Ann <a@example.com> ha scritto:\n> ciao",
    "dutch": "Op ma 1 jan. 2024 om 10:00 schreef Ann <a@example.com>:\n> hallo",
    "swedish": "Den mån 1 jan. 2024 kl 10:00 skrev Ann <a@example.com>:\n> hej",
    "polish": "W dniu 1.01.2024 o 10:00, Ann pisze: napisał:\n> cześć",
    "danish outlook": "Fra: Ann <a@example.com>\nSendt: 1. januar 2024 10:00\nTil: B <b@example.org>\nEmne: hej\n\nhej",
    "german outlook": "Von: Ann <a@example.com>\nGesendet: Montag, 1. Januar 2024\nAn: B\nBetreff: x\n\nhallo",
    "japanese": "2024年1月1日(月) 10:00 Ann <a@example.com>:\n\n> こんにちは\n",
    "japanese outlook": "差出人: Ann <a@example.com>\n送信日時: 2024年1月1日 10:00\n宛先: B\n件名: x\n\nこんにちは",
    "chinese": "Ann <a@example.com> 于2024年1月1日周一 10:00写道：\n\n> 你好\n",
    "chinese outlook": "发件人: Ann <a@example.com>\n发送时间: 2024年1月1日 10:00\n收件人: B\n主题: x\n\n你好",
    "danish": "Den man. 1. jan. 2024 kl. 10.00 skrev Ann <a@example.com>:\n\n> hej\n",
    "norwegian": "man. 1. jan. 2024 kl. 10:00 skrev Ann <a@example.com>:\n\n> hei\n",
    "portuguese": "Em seg., 1 de jan. de 2024 às 10:00, Ann <a@example.com> escreveu:\n\n> olá\n",
    "polish of gmail": "pon., 1 sty 2024 o 10:00 Ann <a@example.com> napisał(a):\n\n> cześć\n",
    "russian": "пн, 1 янв. 2024 г. в 10:00, Ann <a@example.com>:\n\n> привет\n",
    "finnish": "ma 1. tammik. 2024 klo 10.00 Ann (a@example.com) kirjoitti:\n\n> hei\n",
    "wrapped elsewhere": "pon., 1 sty 2024 o 10:00 A Very Long Name Indeed\n<a@example.com> napisał(a):\n\n> cześć\n",
    "french outlook": "De : Ann <a@example.com>\nEnvoyé : lundi 1 janvier 2024 10:00\nÀ : B\nObjet : x\n\nbonjour",
    "polish outlook": "Od: Ann <a@example.com>\nWysłano: poniedziałek, 1 stycznia 2024\nDo: B\nTemat: x\n\ncześć",
    "spanish outlook": "De: Ann <a@example.com>\nEnviado el: lunes, 1 de enero de 2024\nPara: B\nAsunto: x\n\nhola",
    "swedish outlook": "Från: Ann <a@example.com>\nSkickat: den 1 januari 2024\nTill: B\nÄmne: x\n\nhej",
    "outlook": "________________________________\nFrom: Ann <a@example.com>\nSent: Monday\nTo: B\n\nhello",
    "outlook express": "-----Original Message-----\nFrom: Ann\nhello",
    "bold headers": "*From:* Ann <a@example.com>\n*Sent:* Monday\n*To:* B\n\nhello",
    "marks alone": "> hello\n> there\n\n",
}


@pytest.mark.parametrize("name", QUOTES)
def test_quoted_history_is_cut_off_and_kept_apart(name: str) -> None:
    new, rest = split_reply(f"Thanks, that works!\n\n{QUOTES[name]}")
    assert new == "Thanks, that works!"
    assert rest == QUOTES[name].strip()


@pytest.mark.parametrize(
    "text",
    [
        "Note: a colon is no header.\nFrom: the start it was late.\nBye",
        "On Monday I wrote: nothing.\nOn Tuesday too.",
        "> what is your number?\n\n12\n\n> and your name?\n\nAnn",
        "> only a quote",
        "On Mon, 1 Jan 2024, Ann <a@example.com> wrote:\n> hello",
        "-1 from me\n\n--- three dashes ---\nok",
        "Call me at 10:30, or write to <ann@example.com>:\nshe knows.",
        "The train leaves at 10:30:\nplatform 4.",
    ],
)
def test_words_that_are_new_survive(text: str) -> None:
    new, rest = split_reply(text)
    assert " ".join(new.split()) == " ".join(text.split())
    assert rest == ""


def test_a_signature_is_no_new_words() -> None:
    assert split_reply("See you\n-- \nAnn\nHead of Something")[0] == "See you"


@pytest.mark.parametrize(
    "text",
    ["\n" * 60_000, "> a\n" * 15_000, "\n>" * 30_000 + "x", " " * 60_000, "On a\n" * 12_000, "On " * 19_000 + "wrote",
     "From: a\n" * 7_000, "-" * 60_000, "_" * 60_000, "a\n \n" * 15_000, "On " * 1_200, "\n \n" * 1_300],
    ids=lambda text: repr(text[:6]),
)  # fmt: skip
def test_no_text_takes_long(text: str) -> None:
    started = time.thread_time()
    split_reply(text)
    assert time.thread_time() - started < 2


@pytest.mark.parametrize(
    ("subject", "base"),
    [
        ("Order 7", "order 7"),
        ("Re: Order 7", "order 7"),
        ("RE[2]: Order 7", "order 7"),
        ("Re:Order 7", "order 7"),
        ("Re : Order 7", "order 7"),
        ("Fwd: Re: FW: Order 7", "order 7"),
        ("AW: WG: Order 7", "order 7"),
        ("SV: VS: Antw: RV: TR: Odp: ENC: Order 7", "order 7"),
        ("回复：Order 7", "order 7"),
        ("转发: 回覆: Order 7", "order 7"),
        ("[list] Re: [other] Order 7", "order 7"),
        ("Order 7 (fwd)", "order 7"),
        ("[Fwd: Order 7]", "order 7"),
        ("  Re:   Order\t7  ", "order 7"),
        ("Regarding: Order 7", "regarding: order 7"),
        ("[list]", "[list]"),
        ("Re:", ""),
        ("", ""),
    ],
)
def test_a_base_subject_has_no_marks(subject: str, base: str) -> None:
    assert base_subject(subject) == base


@pytest.mark.parametrize(
    ("subject", "forward"),
    [("Fwd: x", True), ("FW: x", True), ("WG: x", True), ("[list] Fwd: x", True), ("TR: x", True), ("转发：x", True),
     ("Re: Fwd: x", False), ("AW: x", False), ("RV: x", False), ("x (fwd)", False), ("forward: x", False)],
)  # fmt: skip
def test_a_forward_is_known_by_its_newest_mark(subject: str, forward: bool) -> None:
    assert is_forward(subject) is forward


def test_an_answer_names_the_thread_its_newest_mails_and_its_parent() -> None:
    assert reply_references("<c@x>", ("<a@x>", "<b@x>")) == ("<a@x>", "<b@x>", "<c@x>")
    assert reply_references("<c@x>", (), "<b@x>") == ("<b@x>", "<c@x>")
    assert reply_references("<c@x>", ()) == ("<c@x>",)
    assert reply_references("<c@x>", ("<c@x>", "<a@x>", "<a@x>")) == ("<a@x>", "<c@x>")
    ids = [f"<{number:03}-0123456789012345678901234567890123456789@example.com>" for number in range(200)]
    found = reply_references("<parent@example.com>", ids)
    assert (found[0], found[-2], found[-1]) == (ids[0], ids[-1], "<parent@example.com>")
    assert len("References: " + " ".join(found)) < 998


def dsn(*groups: str, original: str = "", kind: str = "message/delivery-status") -> bytes:
    parts = ["--b\nContent-Type: text/plain\n\nSorry.", f"--b\nContent-Type: {kind}\n\nReporting-MTA: dns; m.example\n\n"
             + "\n\n".join(groups) + "\n", original, "--b--"]  # fmt: skip
    head = "From: MAILER-DAEMON@m.example\nContent-Type: multipart/report; report-type=delivery-status; boundary=b\n\n"
    return (head + "\n".join(part for part in parts if part) + "\n").encode()


GROUP = "Final-Recipient: rfc822; {}\nAction: {}\nStatus: {}\nDiagnostic-Code: smtp; {}"


def test_every_recipient_of_a_report_is_told() -> None:
    raw = dsn(
        GROUP.format("a@example.com", "failed", "5.1.1", "550 5.1.1 unknown"),
        GROUP.format("b@example.com", "delayed", "4.4.1", "timeout"),
        original="--b\nContent-Type: message/rfc822\n\nMessage-ID: <our@example.org>\nSubject: x\n\nhi",
    )
    assert report_of(raw) == [
        Report("failed", "5.1.1", "a@example.com", "550 5.1.1 unknown", "<our@example.org>"),
        Report("delayed", "4.4.1", "b@example.com", "timeout", "<our@example.org>"),
    ]


@pytest.mark.parametrize(
    ("original", "found"),
    [
        ("--b\nContent-Type: text/rfc822-headers\n\nMessage-ID: <our@example.org>", "<our@example.org>"),
        ("--b\nContent-Type: message/rfc822-headers\n\nMessage-ID: <our@example.org>", "<our@example.org>"),
        ("", ""),
    ],
)
def test_the_mail_of_a_report_is_found_in_headers_too_or_not_at_all(original: str, found: str) -> None:
    raw = dsn(GROUP.format("a@example.com", "failed", "5.1.1", "x"), original=original)
    assert [one.original_id for one in report_of(raw)] == [found]


def test_what_is_no_report_has_no_recipients() -> None:
    assert report_of(b"From: a@example.com\n\nAction: failed") == []
    assert report_of(dsn()) == []


def test_an_internationalised_report_is_read() -> None:
    groups = [GROUP.format(f"{name}@example.com", "failed", "5.1.1", "x") for name in ("jörg", "ann")]
    found = report_of(dsn(*groups, kind="message/global-delivery-status"))
    assert [(one.action, one.status) for one in found] == [("failed", "5.1.1")] * 2
    assert found[1].recipient == "ann@example.com"
