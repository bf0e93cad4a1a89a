"""The blob store: whole bytes or none, on a folder and on S3, under keys that cannot leave it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from assistant.backends.blobs import Blobs
from assistant.errors import InvalidInput, NotFound, StorageError
from assistant.settings import Settings


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, make_settings: Callable[..., Settings]) -> Iterator[Blobs]:
    if request.param == "folder":
        opened = Blobs.open(make_settings())
    else:
        facts = request.getfixturevalue("s3")
        patch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
        for name, value in {
            "AWS_ENDPOINT_URL": facts["endpoint"],
            "AWS_ACCESS_KEY_ID": facts["key"],
            "AWS_SECRET_ACCESS_KEY": facts["secret"],
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
        }.items():
            patch.setenv(name, value)
        opened = Blobs.open(make_settings(blobs_url=f"s3://{facts['bucket']}"))
    yield opened
    for key in list(opened.list()):
        opened.delete(key)
    opened.close()


def test_what_was_put_is_there_until_it_is_deleted(store: Blobs) -> None:
    content = os.urandom(100_000)
    assert not store.exists("raw/aa/x.eml")
    store.put("raw/aa/x.eml", content)
    store.put("raw/bb/y.eml", b"")
    assert (store.get("raw/aa/x.eml"), store.get("raw/bb/y.eml")) == (content, b"")
    assert store.exists("raw/aa/x.eml")
    assert sorted(store.list("raw")) == ["raw/aa/x.eml", "raw/bb/y.eml"]
    assert list(store.list("raw/bb")) == ["raw/bb/y.eml"]
    store.delete("raw/aa/x.eml")
    store.delete("raw/aa/x.eml")
    assert not store.exists("raw/aa/x.eml")
    with pytest.raises(NotFound):
        store.get("raw/aa/x.eml")


def test_the_same_key_again_replaces_all_of_it(store: Blobs) -> None:
    store.put("a", b"longer content")
    store.put("a", b"short")
    assert store.get("a") == b"short"


def test_bytes_that_are_there_are_kept_and_a_torn_file_is_mended(store: Blobs) -> None:
    store.keep("a", b"whole content")
    store.keep("a", b"whole content")
    assert store.get("a") == b"whole content"
    store.put("a", b"whole")  # what a machine without power leaves of it
    store.keep("a", b"whole content")
    assert store.get("a") == b"whole content"


def test_bytes_that_are_there_are_synced_before_anybody_relies_on_them(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    Blobs.open(settings).put("raw/aa/x", b"x")
    store = Blobs.open(settings)  # another process, which cannot know what the first one synced
    real, synced = os.fsync, list[Path]()

    def fsync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    store.keep("raw/aa/x", b"x")
    folder = settings.path("blobs").resolve()
    assert synced == [folder / part for part in ("raw/aa/x", "raw/aa", "raw", "")]
    synced.clear()
    store.put("raw/aa/y", b"y")
    assert synced == [folder / part for part in ("raw/aa/y", "raw/aa")], "the names above are on the disk already"
    synced.clear()
    store.put("raw/bb/z", b"z")
    assert synced == [folder / part for part in ("raw/bb/z", "raw/bb", "raw")]


@pytest.mark.parametrize(
    "key",
    ["", "/etc/passwd", "../x", "a/../../x", "a/..", "a\x00b", "a\\b", "a//b", "~x", ".hidden", "a b", "é", "a" * 300, "C:x", "a\n"],
)  # fmt: skip
@pytest.mark.checklist(57)
def test_a_key_that_could_leave_the_store_is_refused(store: Blobs, key: str) -> None:
    for act in (store.get, store.exists, store.delete, lambda one: store.put(one, b"x")):
        with pytest.raises(InvalidInput):
            act(key)


def test_bytes_move_whole_and_over_what_was_there(store: Blobs) -> None:
    store.put("a/b", b"new")
    store.put("c/d", b"old")
    store.move("a/b", "c/d")
    assert (list(store.list()), store.get("c/d")) == (["c/d"], b"new")
    with pytest.raises(NotFound):
        store.move("a/b", "c/d")
    with pytest.raises(InvalidInput):
        store.move("c/d", "../d")


def test_many_writers_of_one_key_leave_one_whole_content(store: Blobs) -> None:
    contents = [bytes([number]) * 200_000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda content: store.put("same", content), contents))
    assert store.get("same") in contents
    assert list(store.list()) == ["same"]


@pytest.mark.checklist(57)
def test_the_folder_is_for_its_owner_only(settings: Settings) -> None:
    Blobs.open(settings).put("raw/x", b"x")
    assert settings.path("blobs").stat().st_mode & 0o077 == 0


def test_a_full_disk_is_a_storage_error_and_leaves_no_half(tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from assistant.backends.blobs import Blobs\n"
        "from assistant.errors import StorageError\n"
        "from assistant.settings import load_settings\n"
        f"store = Blobs.open(load_settings({{}}, data_dir=Path({str(tmp_path)!r})))\n"
        "store.put('before', b'x')\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n    store.put('large', b'x' * 100_000)\n"
        "except StorageError:\n    sys.exit(42 if not store.exists('large') and list(store.list()) == ['before'] else 1)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 42, done.stderr


def test_a_file_in_the_way_is_a_storage_error(settings: Settings) -> None:
    store = Blobs.open(settings)
    store.put("raw", b"x")
    with pytest.raises(StorageError):
        store.put("raw/x", b"y")
