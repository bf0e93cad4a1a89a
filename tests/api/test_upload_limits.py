"""Files and fields of a form: as many and as large as may be are taken, one more is refused in words, and nothing of it is kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from api import security
from assistant.db.inbox import Upload
from assistant.services import uploads
from tests.api.conftest import World

FILE = ("file", ("a.txt", b"hello", "text/plain"))
LINE = "x" * 28
"""Between the parts of a form whose bytes are counted."""


def program(world: World, files: Any = None, **more: Any) -> httpx.Response:
    return world.program().post("/api/v1/uploads", files=files, **more)


def page(world: World, files: Any, fields: dict[str, str] | None = None, **more: Any) -> httpx.Response:
    """The form that a browser sends while somebody attaches files to a reply."""
    return world.browser().post(
        f"/inbox/{world.ids['thread']}/files",
        files=files,
        data={"kind": "reply"} | (fields or {}),
        headers={"accept": "text/html"} | more,
        follow_redirects=False,
    )


def named(count: int, size: int = 1) -> list[Any]:
    return [("files", (f"{number}.txt", b"y" * size, "text/plain")) for number in range(count)]


def kept(world: World) -> int:
    with world.container.database.reading() as session:
        return session.scalar(select(func.count()).select_from(Upload)) or 0


def problem(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, answer.json()["detail"]


def form_of(size: int, name: str = "file") -> bytes:
    """A form of exactly so many bytes, with one file."""
    head = f'--{LINE}\r\nContent-Disposition: form-data; name="{name}"; filename="a.txt"\r\n\r\n'.encode()
    tail = f"\r\n--{LINE}--\r\n".encode()
    return head + b"z" * (size - len(head) - len(tail)) + tail


# -- by the API


def test_one_file_is_an_upload_and_a_second_or_a_field_beside_it_is_refused_in_words(world: World) -> None:
    assert program(world, [FILE]).status_code == 201
    status, detail = problem(program(world, [FILE, FILE]))
    assert status == 400 and "Too many files. Maximum number of files is 1." in detail
    status, detail = problem(program(world, [FILE], data={"note": "x"}))
    assert status == 400 and "Too many fields. Maximum number of fields is 0." in detail
    assert kept(world) == 1


def test_a_file_of_exactly_the_largest_size_is_taken_and_one_byte_more_is_not(world: World) -> None:
    def of(size: int) -> list[Any]:
        return [("file", ("a.bin", b"\x00" * size, "application/octet-stream"))]

    assert program(world, of(uploads.LARGEST)).json()["size"] == uploads.LARGEST
    assert problem(program(world, of(uploads.LARGEST + 1))) == (413, "a file has at most 20 MB")
    assert kept(world) == 1


@pytest.mark.parametrize("chunked", [False, True], ids=["said before", "counted on the way"])
def test_a_form_of_exactly_the_largest_body_is_read_and_one_byte_more_is_not(
    world: World, monkeypatch: pytest.MonkeyPatch, chunked: bool
) -> None:
    monkeypatch.setattr(security, "MAX_UPLOAD", 200_000)

    def body(size: int) -> bytes | Iterator[bytes]:
        whole = form_of(size)
        return (whole[at : at + 50_000] for at in range(0, size, 50_000)) if chunked else whole

    kind = {"content-type": f"multipart/form-data; boundary={LINE}"}
    assert program(world, content=body(200_000), headers=kind).status_code == 201
    status, detail = problem(program(world, content=body(200_001), headers=kind))
    assert status == 413 and "200000 bytes" in detail
    assert kept(world) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        f"--{LINE}".encode(),
        form_of(1000).replace(b'name="file"; ', b""),
        form_of(1000).replace(b"Content-Disposition", b"X-Other"),
    ],
    ids=["empty", "only a line", "without a name", "without what it is"],
)
def test_a_form_that_is_torn_is_a_problem_in_words_and_nothing_is_kept(world: World, body: bytes) -> None:
    kind = {"content-type": f"multipart/form-data; boundary={LINE}"}
    status, detail = problem(program(world, content=body, headers=kind))
    assert status in {400, 422} and ("the form cannot be read" in detail or "send one file" in detail)
    assert kept(world) == 0


# -- by a page


def test_a_reply_takes_twenty_files_at_once_and_of_twenty_one_none(world: World) -> None:
    refused = page(world, named(21))
    assert refused.status_code == 400 and "Too many files. Maximum number of files is 20." in refused.text
    assert refused.headers["content-type"].startswith("text/html") and kept(world) == 0
    taken = page(world, named(20))
    assert taken.status_code == 200 and kept(world) == 20
    more = page(world, named(1))
    assert more.status_code == 413 and "a message has at most 20 files" in more.text and kept(world) == 20


def test_a_form_has_two_hundred_fields_and_not_one_more(world: World) -> None:
    assert page(world, named(1), {f"f{number}": "" for number in range(199)}).status_code == 200
    refused = page(world, named(1), {f"f{number}": "" for number in range(200)})
    assert refused.status_code == 400 and "Too many fields. Maximum number of fields is 200." in refused.text
    assert kept(world) == 1


def test_the_files_of_a_reply_have_twenty_megabytes_together(world: World) -> None:
    half = uploads.LARGEST // 2
    assert page(world, named(2, half)).status_code == 200
    refused = page(world, named(1))
    assert refused.status_code == 413 and "20 MB together" in refused.text and kept(world) == 2


def test_a_field_of_more_than_a_megabyte_beside_a_file_is_refused_in_words(world: World) -> None:
    assert page(world, named(1), {"text": "x" * 1_048_576}).status_code == 200
    refused = page(world, named(1), {"text": "x" * 1_048_577})
    assert refused.status_code == 400 and "Part exceeded maximum size of 1024KB." in refused.text
    assert kept(world) == 1


def test_a_page_says_too_large_of_a_body_that_is_counted_on_the_way(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: it was a form that cannot be read."""
    monkeypatch.setattr(security, "MAX_UPLOAD", 200_000)
    whole = form_of(200_001, "files")
    answer = world.browser().post(
        f"/inbox/{world.ids['thread']}/files",
        content=(whole[at : at + 50_000] for at in range(0, len(whole), 50_000)),
        headers={"content-type": f"multipart/form-data; boundary={LINE}", "accept": "text/html"},
    )
    assert answer.status_code == 413 and "200000 bytes" in answer.text and kept(world) == 0


def test_signing_in_takes_no_file(world: World) -> None:
    answer = world.client().post("/sign-in", files=[FILE], headers={"accept": "text/html"})
    assert answer.status_code == 400 and "Too many files. Maximum number of files is 0." in answer.text
