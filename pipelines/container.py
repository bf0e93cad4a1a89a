"""The composition root: the only place where concrete parts meet. Each part is built when it is first asked for, once.

A process therefore pays only for what it uses: the api never loads a model, a worker never loads a web framework.
"""

from __future__ import annotations

import hashlib
import hmac
from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import structlog
from celery import Celery

from assistant import failpoints
from assistant.backends.blobs import Blobs
from assistant.backends.bus import Bus
from assistant.backends.cache import GenerationCache
from assistant.backends.coordination import Limiter
from assistant.backends.secrets import secret_key
from assistant.db.session import Database, Event, Job
from assistant.errors import NotifyrError
from assistant.failpoints import failpoint
from assistant.services import profiles
from assistant.settings import Settings, load_settings
from assistant.telemetry import METRICS
from channels.base import Channel
from channels.support.child import ParserChild
from pipelines import broker
from pipelines.inbound import Receiver
from pipelines.outbound import Deliverer, Portal, open_channels
from pipelines.outgoing import Screener

if TYPE_CHECKING:
    from assistant.backends.vectors import Vectors
    from channels.support.http import SafeClient
    from models.base import Embedder, Generator
    from models.heads.labeller import Labeller
    from pipelines.triage import Triage

__all__ = ["Container", "build", "find_redis"]

_log = structlog.get_logger(__name__)


def find_redis(settings: Settings) -> str:
    """The Redis URL: from the settings, or of the embedded server that the run command started (empty when none runs)."""
    if settings.redis_url is not None:
        return settings.redis_url.get_secret_value()
    try:
        return settings.path("run", "redis-url").read_text().strip()
    except FileNotFoundError:
        return ""


class Container:
    """Everything one process works with. Raises `ConfigurationError` from the part that cannot be built."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.redis_url = find_redis(settings)
        failpoints.arm(settings.failpoints)

    # -- stores

    @cached_property
    def database(self) -> Database:
        return Database(
            self.settings.sql_url,
            dispatch=self._dispatch,
            announce=self._announce,
            pool_size=max(5, self.settings.worker_threads + 2),
        )

    @cached_property
    def blobs(self) -> Blobs:
        return Blobs.open(self.settings)

    @cached_property
    def bus(self) -> Bus:
        return Bus(self.redis_url)

    @cached_property
    def limiter(self) -> Limiter:
        return Limiter(self.redis_url)

    @cached_property
    def secret_key(self) -> bytes:
        return secret_key(self.settings)

    @cached_property
    def vectors(self) -> Vectors:
        from assistant.backends.vectors import Vectors

        return Vectors.open(self.settings)

    # -- the broker

    @cached_property
    def celery(self) -> Celery:
        return broker.create_celery(self.settings, broker.broker_url(self.settings, self.redis_url))

    def _dispatch(self, job: Job) -> None:
        if not self.redis_url and self.settings.broker_url is None:
            return  # a command without a running server: its sweeper takes the rows up
        failpoint("dispatch.before")
        broker.dispatch(self.celery, job)
        failpoint("dispatch.after")

    def _announce(self, event: Event) -> None:
        if not self.redis_url:
            return
        failpoint("publish.before")
        self.bus.publish(event)
        failpoint("publish.after")

    # -- mail in, mail out

    @cached_property
    def parser(self) -> ParserChild:
        return ParserChild()

    @cached_property
    def receiver(self) -> Receiver:
        return Receiver(self.database, self.blobs, self.parser)

    @cached_property
    def fetcher(self) -> SafeClient:
        """For URLs that strangers chose: pictures that mails name."""
        from channels.support.http import SafeClient

        own = {self.settings.host, urlsplit(self.settings.base_url).hostname or ""}
        return SafeClient(own_hosts=own, seconds=8.0, max_bytes=3_000_000)

    @cached_property
    def portal(self) -> Portal:
        return Portal()

    @cached_property
    def channels(self) -> dict[str, Channel]:
        return open_channels(self.settings)

    @cached_property
    def deliverer(self) -> Deliverer:
        return Deliverer(
            self.database, self.channels, self.portal, self.blobs, settings=self.settings, screener=self.screener
        )

    @cached_property
    def screener(self) -> Screener:
        """Looks at mail before it is sent. Of the encoder it takes the judge of words, which a process that triages has anyway."""
        from models.catalog import load_embedder

        encoder = load_embedder(
            self.settings.encoder, threads=self.settings.model_threads, tokens=self.settings.encoder_tokens
        )
        return Screener(encoder.judge if encoder is not None else None)

    def notice_relay(self) -> None:
        """At the start of a process that sends: what was blocked at another relay, or with another password, is tried again.

        The mark is made with the secret key, so that no password can be guessed from it. A database that is away stops no start.
        """
        url = self.settings.relay_url.get_secret_value() if self.settings.relay_url is not None else ""
        relay = f"{url} {self.settings.relay_ca_file}".encode()
        try:
            mark = hmac.new(self.secret_key, relay, hashlib.sha256).hexdigest()
            with self.database.transaction() as session:
                profile = profiles.ensure_default(session, self.settings)
                profiles.sends_through(session, profile.id, relay=mark, actor="start")
        except NotifyrError as error:
            _log.warning("relay_not_noticed", code=error.code, reason=error.message)

    # -- models and the stages on them

    @cached_property
    def classifier(self) -> Labeller | None:
        """Every head on one encoder. The workers load it at their start, the api when its intents page asks for it."""
        if self.settings.encoder == "off":
            return None
        from models.catalog import load_classifier
        from pipelines.lessons import HeadsLessons, IntentLessons, SpamLessons

        return load_classifier(
            self.settings.encoder,
            threads=self.settings.model_threads,
            tokens=self.settings.encoder_tokens,
            taught=IntentLessons(self.database),
            taught_spam=SpamLessons(self.database),
            taught_heads=HeadsLessons(self.database),
            observe=METRICS.batch_texts.observe,
        )

    @cached_property
    def embedder(self) -> Embedder | None:
        if self.settings.encoder == "off":
            return None
        from models.catalog import load_embedder

        return load_embedder(
            self.settings.encoder, threads=self.settings.model_threads, tokens=self.settings.encoder_tokens
        )

    @cached_property
    def generator(self) -> Generator | None:
        if self.settings.generator == "off":
            return None
        from models.catalog import load_generator
        from models.wrappers import Cached

        generator = load_generator(
            self.settings.generator, threads=self.settings.model_threads, timeout=self.settings.draft_timeout
        )
        if generator is None or not self.redis_url or not self.settings.cache_seconds:
            return generator
        return Cached(generator, GenerationCache(self.redis_url, seconds=self.settings.cache_seconds))

    @cached_property
    def triage(self) -> Triage:
        from pipelines.triage import Triage

        return Triage(self)

    def close(self) -> None:
        """Give everything back that was built."""
        built = self.__dict__
        for name in ("deliverer", "parser", "portal", "bus", "limiter", "celery", "vectors", "database"):
            part = built.pop(name, None)
            if part is not None:
                part.close()


def build(settings: Settings | None = None) -> Container:
    """A container on the given settings, or on those of the environment. Constructs nothing yet."""
    return Container(settings or load_settings())
