"""What the settings name is tried once: does each server answer, are the model files there. For `notifyr config check`."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote, urlsplit

from api.console import without_secrets
from assistant.errors import NotifyrError
from assistant.settings import Settings

__all__ = ["Part", "look"]

SECONDS = 3
"""What a server may take to answer."""
State = Literal["reachable", "unreachable", "embedded", "off"]


@dataclass(frozen=True, slots=True)
class Part:
    """One server or file. `where` has no secret in it; `problem` and `fix` are words, empty when nothing is wrong."""

    name: str
    setting: str
    where: str
    state: State
    problem: str = ""
    fix: str = ""


def look(settings: Settings) -> list[Part]:
    """Every server and model file that the settings name, each tried for at most a few seconds."""
    return [
        _server("database", "NOTIFYR_DATABASE_URL", settings.database_url, _database, "SQLite in the data folder"),
        _server("Redis", "NOTIFYR_REDIS_URL", settings.redis_url, _redis, "started by notifyr run"),
        _server("broker", "NOTIFYR_BROKER_URL", settings.broker_url, _broker, "the Redis above"),
        _server("vector index", "NOTIFYR_QDRANT_URL", settings.qdrant_url, _qdrant, "in the data folder"),
        _server("blob store", "NOTIFYR_BLOBS_URL", settings.blobs_url, _blobs, "in the data folder"),
        _server("mail relay", "NOTIFYR_RELAY_URL", settings.relay_url, _relay, "a Maildir in the data folder"),
        _model("encoder", "NOTIFYR_ENCODER", settings.encoder, _encoder),
        _model("generator", "NOTIFYR_GENERATOR", settings.generator, _generator),
    ]


_FIXES = {
    "database": "start PostgreSQL there, or correct the address, name and password",
    "Redis": "start Redis or Valkey there, or correct the address and password",
    "broker": "start the broker there, or correct the address, user and password",
    "vector index": "start Qdrant there, or correct the address and key (https://:KEY@host:6333)",
    "blob store": "correct the bucket, AWS_ENDPOINT_URL and the AWS_ keys, or start the store",
    "mail relay": "start the relay there, or correct the address and port",
}


def _server(name: str, setting: str, url: object, attempt: Callable[[str], None], embedded: str) -> Part:
    from pydantic import SecretStr

    if not isinstance(url, SecretStr):
        return Part(name, setting, embedded, "embedded")
    plain = url.get_secret_value()
    shown = without_secrets(plain)
    try:
        attempt(plain)
    except Exception as error:  # noqa: BLE001  # whatever a client raises for a server that is not there
        problem = _words(error, plain)
        return Part(name, setting, shown, "unreachable", problem, f"{_FIXES[name]}, or unset {setting}")
    return Part(name, setting, shown, "reachable")


def _model(name: str, setting: str, spec: str, attempt: Callable[[str], None]) -> Part:
    if spec == "off":
        return Part(name, setting, "off", "off")
    try:
        attempt(spec)
    except Exception as error:  # noqa: BLE001  # a missing file, a damaged one, a name that is none
        fix = f"make setup installs the shipped one; or set {setting}=off"
        return Part(name, setting, spec, "unreachable", _words(error, ""), fix)
    return Part(name, setting, spec, "reachable")


def _words(error: BaseException, url: str) -> str:
    """Why, in one line without the URL's password. Clients wrap the reason, so the innermost known one is said."""
    at: BaseException | None = error
    while at is not None:
        said = str(at).lower()
        for kind, parts, words in _KNOWN:
            if isinstance(at, kind) or any(part in said for part in parts):
                return words
        at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)
    said = error.message if isinstance(error, NotifyrError) else str(error)
    lines = [line.strip() for line in said.splitlines() if line.strip()] or [type(error).__name__]
    password = urlsplit(url).password if url else None
    text = f"{type(error).__name__}: {lines[0]}"[:300]
    for secret in filter(None, {password, unquote(password or "")}):
        text = text.replace(secret, "***")
    return text


_KNOWN: tuple[tuple[type[BaseException], tuple[str, ...], str], ...] = (
    (ConnectionRefusedError, ("connection refused",), "nothing listens there"),
    (socket.gaierror, ("name or service not known", "failed to lookup address"), "no such host name"),
    (TimeoutError, ("timed out", "timeout expired"), f"no answer within {SECONDS} seconds"),
    (ssl.SSLError, ("certificate verify failed",), "TLS failed: wrong port, or a certificate that is not trusted"),
)
"""Class, or words of those who wrap it -> what it means."""


# -- one try each


def _database(url: str) -> None:
    from sqlalchemy import create_engine, text
    from sqlalchemy.engine import make_url

    parsed = make_url(url)
    options = {} if parsed.get_backend_name() == "sqlite" else {"connect_timeout": SECONDS}
    engine = create_engine(parsed, connect_args=options)
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
    finally:
        engine.dispose()


def _redis(url: str) -> None:
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    retry = Retry(NoBackoff(), 0)
    with Redis.from_url(url, socket_connect_timeout=SECONDS, socket_timeout=SECONDS, retry=retry) as client:
        client.ping()


def _broker(url: str) -> None:
    from pipelines.broker import try_broker

    if url.startswith(("redis", "unix", "valkey")):
        _redis(url)
    else:
        try_broker(url, seconds=SECONDS)


def _qdrant(url: str) -> None:
    from assistant.backends.vectors import qdrant_client

    client = qdrant_client(url, seconds=SECONDS)
    try:
        client.get_collections()
    finally:
        client.close()


def _blobs(url: str) -> None:
    from assistant.backends.blobs import Blobs

    # A list, since the store answers the same for a key that is not there and a bucket that is not.
    next(Blobs.at(url, tries=1).list("raw"), None)


def _relay(url: str) -> None:
    from channels.support.smtp import RelayAddress

    relay = RelayAddress.parse(url)
    with socket.create_connection((relay.host, relay.port), timeout=SECONDS) as line:
        if relay.security == "implicit":
            return  # it speaks TLS first; that it listens is all that can be said without an account
        greeting = line.recv(200)
    if not greeting.startswith(b"220"):
        raise OSError(f"it is no mail server: it says {greeting[:40]!r}")


def _encoder(spec: str) -> None:
    from models.catalog import load_embedder

    encoder = load_embedder(spec, threads=1)
    if encoder is not None:
        encoder.embed(["check"])


def _generator(spec: str) -> None:
    from models.catalog import load_generator

    generator = load_generator(spec, threads=1, timeout=SECONDS)
    if generator is not None:
        generator.verify()
