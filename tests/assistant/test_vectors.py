"""The vector index on Qdrant's embedded engine, on its client, and over its REST interface: it heals, and is never the truth."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import models

from assistant.backends.vectors import Matrix, Vectors, qdrant_client
from assistant.errors import ModelUnavailable, StorageError
from tests.support.qdrant import QdrantTwin, qdrant_twin

TEXTS = {number: f"text {number}" for number in range(1, 101)}


def embed(texts: Sequence[str], *, dimensions: int = 32) -> Matrix:
    """A fixed random direction for each text."""
    rows = [np.random.default_rng(list(text.encode())).normal(size=dimensions) for text in texts]
    return np.array([row / np.linalg.norm(row) for row in rows], dtype=np.float32)


def sync(
    vectors: Vectors,
    texts: dict[int, str] = TEXTS,
    *,
    version: str = "v1",
    encoder: str = "mini@1",
    dimensions: int = 32,
    embed: Callable[[Sequence[str]], Matrix] = embed,
) -> None:
    vectors.sync(encoder=encoder, dimensions=dimensions, version=version, texts=lambda: texts, embed=embed)


@pytest.fixture
def server() -> Iterator[QdrantTwin]:
    """Qdrant's REST interface on a socket, behind a key."""
    with qdrant_twin("tests-only") as twin:
        yield twin


def client_of(server: QdrantTwin) -> Any:
    return qdrant_client(server.url, seconds=1)


@pytest.fixture(params=["embedded", "client in process", "by URL"])
def vectors(request: pytest.FixtureRequest, tmp_path: Path) -> Vectors:
    if request.param == "embedded":
        opened = Vectors(tmp_path / "vectors")
    elif request.param == "by URL":
        opened = Vectors(tmp_path / "vectors", client=client_of(request.getfixturevalue("server")))
    else:
        from qdrant_client import QdrantClient

        client = QdrantClient(":memory:")
        request.addfinalizer(client.close)
        opened = Vectors(tmp_path / "vectors", client=client)
    request.addfinalizer(opened.close)
    return opened


def nearest(vectors: Vectors, text: str) -> int:
    return vectors.nearest(embed([text])[0], limit=3)[0][0]


def test_the_nearest_text_is_found_with_its_cosine(vectors: Vectors) -> None:
    sync(vectors)
    found = vectors.nearest(embed(["text 7"])[0], limit=3)
    assert found[0][0] == 7
    assert found[0][1] == pytest.approx(1.0, abs=1e-3)
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)


def test_only_what_changed_is_embedded_again(vectors: Vectors) -> None:
    seen: list[str] = []

    def counting(texts: Sequence[str]) -> Matrix:
        seen.extend(texts)
        return embed(texts)

    sync(vectors, embed=counting)
    sync(vectors, embed=counting)
    assert len(seen) == 100
    changed = {number: text for number, text in TEXTS.items() if number != 7} | {500: "new text"}
    sync(vectors, changed, version="v2", embed=counting)
    assert sorted(seen[100:]) == ["new text", "text 1"]  # the new one, and one probe
    assert nearest(vectors, "new text") == 500
    assert nearest(vectors, "text 7") != 7


def test_an_empty_index_finds_nothing(vectors: Vectors) -> None:
    sync(vectors, {})
    assert vectors.nearest(embed(["text 7"])[0], limit=3) == []


def test_another_encoder_or_dimension_gets_an_index_of_its_own(vectors: Vectors) -> None:
    sync(vectors)
    sync(vectors, {9: "nine"}, encoder="mini@2")
    assert nearest(vectors, "text 7") == 9

    def wide(texts: Sequence[str]) -> Matrix:
        return embed(texts, dimensions=64)

    sync(vectors, {3: "three"}, dimensions=64, embed=wide)
    assert vectors.nearest(wide(["x"])[0], limit=3)[0][0] == 3
    sync(vectors)
    assert nearest(vectors, "text 7") == 7


def test_a_wrong_dimension_is_a_storage_error_and_heals(vectors: Vectors) -> None:
    sync(vectors)
    with pytest.raises(StorageError):
        vectors.nearest(embed(["x"], dimensions=16)[0], limit=3)
    sync(vectors)
    assert nearest(vectors, "text 7") == 7


def test_searching_before_it_is_open_is_a_storage_error(vectors: Vectors) -> None:
    with pytest.raises(StorageError):
        vectors.nearest(embed(["x"])[0], limit=3)


def test_an_encoder_that_fails_keeps_its_own_error(vectors: Vectors) -> None:
    def gone(texts: Sequence[str]) -> Matrix:
        raise ModelUnavailable("gone")

    with pytest.raises(ModelUnavailable):
        sync(vectors, embed=gone)
    sync(vectors)
    assert nearest(vectors, "text 7") == 7


# -- a server by URL


def test_only_calls_of_qdrants_interface_are_made_and_its_key_is_sent(server: QdrantTwin, tmp_path: Path) -> None:
    vectors = Vectors(tmp_path, client=client_of(server))
    sync(vectors)
    sync(vectors, {7: "text 7"}, version="v2")
    assert nearest(vectors, "text 7") == 7
    calls = {one.replace(vectors._name, "NAME") for one in server.asked}
    assert calls == {
        "GET /collections/NAME/exists",
        "PUT /collections/NAME",
        "POST /collections/NAME/points/scroll",
        "PUT /collections/NAME/points",
        "POST /collections/NAME/points/delete",
        "POST /collections/NAME/points/query",
    }
    assert "tests-only" not in " ".join(server.asked)


@pytest.mark.parametrize("key", ["", "another"])
def test_a_wrong_or_missing_key_is_a_storage_error_that_says_401(server: QdrantTwin, tmp_path: Path, key: str) -> None:
    url = f"http://{f':{key}@' if key else ''}127.0.0.1:{server.port}"
    vectors = Vectors(tmp_path, client=qdrant_client(url, seconds=1))
    with pytest.raises(StorageError, match="401") as caught:
        sync(vectors)
    assert "another" not in str(caught.value)


def test_a_server_that_is_gone_slow_or_broken_is_a_storage_error_and_heals(tmp_path: Path) -> None:
    with qdrant_twin() as first:
        vectors = Vectors(tmp_path, client=client_of(first))
        sync(vectors)
        for broken in ("500", "words"):
            first.broken = broken
            with pytest.raises(StorageError):
                nearest(vectors, "text 7")
            with pytest.raises(StorageError):
                sync(vectors, version=broken)
        first.broken, first.slow = "", 10.0
        began = time.monotonic()
        with pytest.raises(StorageError):
            nearest(vectors, "text 7")
        assert time.monotonic() - began < 10.0, "it did not wait for it"
        first.slow = 0.0
        sync(vectors)
        assert nearest(vectors, "text 7") == 7
    with pytest.raises(StorageError):
        nearest(vectors, "text 7")
    with pytest.raises(StorageError):
        sync(vectors, version="v2")
    with qdrant_twin(port=first.port):  # the same address, and nothing of what it held
        sync(vectors, version="v2")
        assert nearest(vectors, "text 7") == 7


def test_an_index_that_was_emptied_behind_our_back_is_made_again(server: QdrantTwin, tmp_path: Path) -> None:
    vectors = Vectors(tmp_path, client=client_of(server))
    sync(vectors)
    server.engine.delete_collection(vectors._name)
    with pytest.raises(StorageError):
        nearest(vectors, "text 7")
    sync(vectors)
    assert nearest(vectors, "text 7") == 7
    everything = sorted(TEXTS)
    server.engine.delete(vectors._name, models.PointIdsList(points=list(everything)))
    with pytest.raises(StorageError, match="impossible"):
        nearest(vectors, "text 7")
    sync(vectors)
    assert nearest(vectors, "text 7") == 7


def test_a_collection_of_another_dimension_under_our_name_is_made_anew(server: QdrantTwin, tmp_path: Path) -> None:
    first = Vectors(tmp_path, client=client_of(server))
    sync(first)
    name = first._name
    server.engine.delete_collection(name)
    server.engine.create_collection(name, vectors_config=models.VectorParams(size=16, distance=models.Distance.COSINE))
    again = Vectors(tmp_path, client=client_of(server))
    sync(again)
    assert nearest(again, "text 7") == 7


# -- the embedded engine's folder


def test_it_survives_a_restart_without_embedding_again(tmp_path: Path) -> None:
    first = Vectors(tmp_path)
    sync(first)
    first.close()
    seen: list[str] = []

    def counting(texts: Sequence[str]) -> Matrix:
        seen.extend(texts)
        return embed(texts)

    second = Vectors(tmp_path)
    sync(second, embed=counting)
    assert nearest(second, "text 7") == 7
    assert seen == ["text 1"]  # one probe
    second.close()


def test_one_process_holds_the_folder(tmp_path: Path) -> None:
    first, second = Vectors(tmp_path), Vectors(tmp_path)
    sync(first)
    with pytest.raises(StorageError, match="another process"):
        sync(second)
    first.close()
    sync(second)
    assert nearest(second, "text 7") == 7
    second.close()


def _files(folder: Path) -> list[Path]:
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path.name != "lock")


@pytest.mark.parametrize("damage", ["cut", "flipped", "deleted"])
def test_whatever_file_is_damaged_the_index_heals_and_is_never_wrong(tmp_path: Path, damage: str) -> None:
    import shutil

    whole, folder = tmp_path / "whole", tmp_path / "damaged"
    made = Vectors(whole)
    sync(made)
    made.close()
    for file in _files(whole):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        path = folder / file
        content = path.read_bytes()
        if damage == "cut":
            path.write_bytes(content[: len(content) // 2])
        elif damage == "flipped":
            path.write_bytes(bytes(byte ^ 0xFF for byte in content[:4096]) + content[4096:])
        else:
            path.unlink()
        opened = Vectors(folder)
        try:
            sync(opened)
            assert nearest(opened, "text 7") == 7, file
        finally:
            opened.close()


def test_a_killed_process_leaves_an_index_that_opens(tmp_path: Path) -> None:
    script = (
        "import os, sys; sys.path.insert(0, os.getcwd())\n"
        "from pathlib import Path\n"
        "from tests.assistant.test_vectors import Vectors, sync\n"
        f"sync(Vectors(Path({str(tmp_path)!r})))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", script], cwd=root, check=False).returncode == -9
    opened = Vectors(tmp_path)
    sync(opened)
    assert nearest(opened, "text 7") == 7
    opened.close()
