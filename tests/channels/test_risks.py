"""Kinds of attachments that may do harm are named with a reason; ordinary files are not; no bytes make it raise."""

from __future__ import annotations

import io
import zipfile
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.support.child import ParserChild
from channels.support.content import sniffed
from channels.support.risks import risk_of

EXE = b"MZ\x90\x00" + b"\0" * 60
PE = "application/vnd.microsoft.portable-executable"
OFFICE = "application/vnd.openxmlformats-officedocument"
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


def packed(**files: bytes) -> bytes:
    """A ZIP file; in names `__` stands for a slash and `_` for a dot."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/").replace("_", "."), content)
    return out.getvalue()


def locked() -> bytes:
    """A ZIP file whose directory says that its only file has a password."""
    plain = bytearray(packed(a_txt=b"x"))
    plain[plain.index(b"PK\x01\x02") + 8] |= 1
    return bytes(plain)


@pytest.mark.checklist(44)
@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("setup.exe", b"anything", "program:"),
        ("run", EXE, "program: it is a Windows program"),
        ("tool", b"\x7fELF\x02\x01", "program: it is a Linux program"),
        ("do.txt", b"#!/bin/sh\nrm -rf ~\n", "disguised program"),
        ("invoice.pdf.exe", b"x", "disguised program: its name says .pdf"),
        ("invoice.pdf        .SCR", b"x", "disguised program: its name says .pdf"),
        ("invoice.pdf", EXE, "disguised program: its name says .pdf, and it is a Windows program"),
        ("link.lnk", b"L\0\0\0", "program:"),
        ("disk.iso", b"x", "disk image"),
        ("files.zip", packed(a__setup_exe=EXE, b_txt=b"x"), "program in an archive: it holds setup.exe"),
        ("files.docx", packed(word__document_xml=b"x", word__vbaProject_bin=b"x"), "macros:"),
        ("report.docm", b"x", "macros:"),
        ("old.doc", OLE + b"\0" * 50 + "_VBA_PROJECT".encode("utf-16-le"), "macros:"),
        ("files.zip", packed(report_docm=b"x"), "macros in an archive"),
        ("files.zip", packed(more_zip=b"x"), "archive in an archive"),
        ("files.zip", locked(), "archive with a password"),
        ("files.zip", b"PK\x03\x04broken", "unseen archive"),
        ("files.rar", b"Rar!\x1a\x07\x00", "unseen archive"),
        ("sign-in.html", b"<p>", "web page"),
        ("picture.png", b"<svg onload=alert(1)>", "web page"),
        ("paper.pdf", b"%PDF-1.7\n<< /S /JavaScript >>", "script: this PDF"),
    ],
)
def test_what_may_do_harm_is_named_with_a_reason(name: str, content: bytes, words: str) -> None:
    assert risk_of(name, content).startswith(words)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("invoice.pdf", b"%PDF-1.4\n1 0 obj << /Type /Catalog >>"),
        ("photo.jpg", b"\xff\xd8\xff\xe0" + b"\0" * 50),
        ("notes.txt", b"Run setup.exe, please"),
        ("report.docx", packed(word__document_xml=b"x")),
        ("photos.zip", packed(one_jpg=b"x", two_png=b"x")),
        ("old.doc", OLE + b"\0" * 50),
        ("v1.2.3", b"x"),
        ("", b""),
    ],
)
def test_ordinary_files_are_not_named(name: str, content: bytes) -> None:
    assert risk_of(name, content) == ""


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (EXE, PE),
        (packed(a_exe=EXE), "application/zip"),
        (packed(word__document_xml=b"x"), f"{OFFICE}.wordprocessingml.document"),
        (packed(xl__workbook_xml=b"x"), f"{OFFICE}.spreadsheetml.sheet"),
        (packed(mimetype=b"application/vnd.oasis.opendocument.text"), "application/vnd.oasis.opendocument.text"),
        (b"PK\x03\x04broken", "application/zip"),
    ],
)
def test_programs_archives_and_documents_are_told_apart_by_their_bytes(content: bytes, kind: str) -> None:
    assert sniffed(content, "application/pdf") == kind


@given(st.text(max_size=30), st.binary(max_size=300), st.sampled_from([b"", b"PK\x03\x04", b"%PDF", OLE, b"MZ"]))
def test_no_bytes_make_it_raise(name: str, content: bytes, start: bytes) -> None:
    assert len(risk_of(name, start + content)) <= 200
    assert sniffed(start + content, "text/plain")


def test_a_broken_directory_of_an_archive_never_raises() -> None:
    whole = packed(a_exe=EXE, b__c_txt=b"hello")
    for place in range(len(whole)):
        for value in (0x00, 0xFF, whole[place] ^ 0x41):
            broken = whole[:place] + bytes([value]) + whole[place + 1 :]
            assert isinstance(risk_of("a.zip", broken), str)
            assert sniffed(broken, "application/zip")


def test_the_parsing_child_tells_the_risk_of_each_attachment() -> None:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Message-ID"] = "ann@example.com", "us@example.org", "<r@example.com>"
    mail.set_content("see attached")
    mail.add_attachment(EXE, maintype="application", subtype="pdf", filename="invoice.pdf")
    mail.add_attachment(b"%PDF-1.4 x", maintype="application", subtype="pdf", filename="bill.pdf")
    parser = ParserChild()
    try:
        first, second = parser.parse(mail.as_bytes()).attachments
    finally:
        parser.close()
    assert (first.content_type, first.risk.partition(":")[0]) == (PE, "disguised program")
    assert (second.content_type, second.risk) == ("application/pdf", "")
