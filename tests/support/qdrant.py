"""Qdrant's REST interface, as far as we use it, on a real socket: for the client's side of the wire.

No Qdrant server could be had where this project was built, so this stands in its place: the calls, paths, bodies and status codes
of its OpenAPI (checked with qdrant-client's own models of it) in front of qdrant-client's in-process engine. It cannot
show what only the server does: durability, its own limits, clusters.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError
from qdrant_client import QdrantClient, models
from qdrant_client.http.models import CreateCollection, PointIdsList, PointsList, QueryRequest, ScrollRequest

__all__ = ["QdrantTwin", "Refused", "qdrant_twin"]


class Refused(Exception):
    """A status that is not 200, with the words in Qdrant's form."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


@dataclass
class QdrantTwin:
    """`answer` is what the wire needs; the rest is for tests: what it was asked, and what is wrong with it just now."""

    key: str = ""
    port: int = 0
    engine: QdrantClient = field(default_factory=lambda: QdrantClient(":memory:"))
    asked: list[str] = field(default_factory=list)
    slow: float = 0.0
    """Seconds before each answer."""
    broken: str = ""
    """`500`: it fails inside; `words`: its answers are not JSON."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://{f':{self.key}@' if self.key else ''}127.0.0.1:{self.port}"

    def answer(self, method: str, path: str, body: bytes, key: str) -> Any:
        """The `result` of one call. Raises `Refused`."""
        self.asked.append(f"{method} {path}")
        time.sleep(self.slow)
        if self.key and key != self.key:
            raise Refused(401, "Invalid API key or JWT" if key else "Must provide an API key or an Authorization token")
        if self.broken == "500":
            raise Refused(500, "Service internal error: task panicked")
        parts = path.strip("/").split("/")
        with self.lock:
            if parts == ["collections"]:
                return self.engine.get_collections().model_dump(mode="json")
            name, rest = parts[1], "/".join(parts[2:])
            if rest == "exists":
                return {"exists": self.engine.collection_exists(name)}
            act = _COLLECTION.get((method, rest))
            if act is not None:
                return act(self.engine, name, body)
            self._known(name)
            return _POINTS[method, rest](self.engine, name, body)

    def _known(self, name: str) -> None:
        if not self.engine.collection_exists(name):
            raise Refused(404, f"Not found: Collection `{name}` doesn't exist!")


Body = TypeVar("Body", bound=BaseModel)


def _read(kind: type[Body], body: bytes) -> Body:
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise Refused(400, f"Format error in JSON body: {error.error_count()} fields") from None


def _fits(engine: QdrantClient, name: str, vector: Any) -> None:
    params = engine.get_collection(name).config.params.vectors
    assert isinstance(params, models.VectorParams)
    if len(vector) != params.size:
        raise Refused(400, f"Wrong input: Vector dimension error: expected dim: {params.size}, got {len(vector)}")


def _create(engine: QdrantClient, name: str, body: bytes) -> bool:
    wanted = _read(CreateCollection, body)
    if engine.collection_exists(name):
        raise Refused(409, f"Wrong input: Collection `{name}` already exists!")
    return bool(engine.create_collection(name, vectors_config=wanted.vectors))


def _delete_collection(engine: QdrantClient, name: str, _: bytes) -> bool:
    return bool(engine.delete_collection(name))


def _scroll(engine: QdrantClient, name: str, body: bytes) -> Any:
    wanted = _read(ScrollRequest, body)
    points, following = engine.scroll(
        name, limit=wanted.limit or 10, offset=wanted.offset, with_payload=False, with_vectors=False
    )
    return {"points": [point.model_dump(mode="json") for point in points], "next_page_offset": following}


def _upsert(engine: QdrantClient, name: str, body: bytes) -> Any:
    points = _read(PointsList, body).points
    for point in points:
        _fits(engine, name, point.vector)
    engine.upsert(name, points)
    return {"operation_id": 1, "status": "completed"}


def _delete(engine: QdrantClient, name: str, body: bytes) -> Any:
    engine.delete(name, _read(PointIdsList, body))
    return {"operation_id": 1, "status": "completed"}


def _query(engine: QdrantClient, name: str, body: bytes) -> Any:
    wanted = _read(QueryRequest, body)
    vector: Any = getattr(wanted.query, "nearest", wanted.query)
    _fits(engine, name, vector)
    found = engine.query_points(name, query=vector, limit=wanted.limit or 10, with_payload=False)
    return found.model_dump(mode="json")


_COLLECTION: dict[tuple[str, str], Callable[[QdrantClient, str, bytes], Any]] = {
    ("PUT", ""): _create,
    ("DELETE", ""): _delete_collection,
}
_POINTS: dict[tuple[str, str], Callable[[QdrantClient, str, bytes], Any]] = {
    ("POST", "points/scroll"): _scroll,
    ("PUT", "points"): _upsert,
    ("POST", "points/delete"): _delete,
    ("POST", "points/query"): _query,
}


class _Handler(BaseHTTPRequestHandler):
    twin: QdrantTwin
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        try:
            result = self.twin.answer(self.command, urlsplit(self.path).path, body, self.headers.get("api-key", ""))
            status, document = 200, {"result": result, "status": "ok", "time": 0.001}
        except Refused as error:
            status, document = error.status, {"status": {"error": str(error)}, "time": 0.0}
        except KeyError:
            status, document = 404, {"status": {"error": "Not found"}, "time": 0.0}
        content = b"<html>502" if self.twin.broken == "words" else json.dumps(document).encode()
        with contextlib.suppress(OSError):  # the client did not wait
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815  # http.server's names

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextlib.contextmanager
def qdrant_twin(key: str = "", *, port: int = 0, engine: QdrantClient | None = None) -> Iterator[QdrantTwin]:
    """A running twin. Give the `engine` and `port` of an earlier one to start it again."""
    twin = QdrantTwin(key=key, engine=engine or QdrantClient(":memory:"))
    server = ThreadingHTTPServer(("127.0.0.1", port), type("Handler", (_Handler,), {"twin": twin}))
    server.daemon_threads = True
    twin.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield twin
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
