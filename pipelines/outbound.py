"""One queued message to its carrier: look at it, claim, hand over with no transaction open, record what came of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from threading import Lock
from time import sleep
from typing import Protocol, TypeVar

import structlog
from anyio.from_thread import BlockingPortal, start_blocking_portal
from sqlalchemy.orm import Session

from assistant.clock import monotonic, utcnow
from assistant.db.session import Database
from assistant.errors import (
    ConfigurationError,
    NotifyrError,
    PermanentChannelError,
    StorageError,
    TemporaryChannelError,
    UncertainDelivery,
)
from assistant.failpoints import failpoint
from assistant.services import attempts, screening
from assistant.services.attempts import Claim
from assistant.services.screening import Limits, Seen
from assistant.settings import Settings
from assistant.states import Delivery, Screening
from assistant.telemetry import METRICS
from assistant.values import Attachment, OutboundMessage, Receipt, ThreadHeaders
from channels.base import Capability, Channel
from channels.email import Email, EmailConfig
from pipelines.outgoing import Screener

__all__ = ["Deliverer", "Portal", "limits_of", "open_channels"]

_log = structlog.get_logger(__name__)
Answer = TypeVar("Answer")
_PAUSE_FIRST, _PAUSE_MOST = 0.1, 5.0
"""Seconds between tries to record an outcome."""


class Files(Protocol):
    """The part of the blob store that is needed here."""

    def get(self, key: str) -> bytes: ...


class Portal:
    """The one event loop of a process in which carriers live, so that their connections survive from task to task."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._opened: AbstractContextManager[BlockingPortal] | None = None
        self._portal: BlockingPortal | None = None

    def call(self, work: Callable[[], Awaitable[Answer]]) -> Answer:
        """Run a coroutine function there and wait for it. The loop is started by the first call."""
        with self._lock:
            if self._portal is None:
                self._opened = start_blocking_portal("asyncio")
                self._portal = self._opened.__enter__()
        return self._portal.call(work)

    def close(self) -> None:
        with self._lock:
            opened, self._opened, self._portal = self._opened, None, None
        if opened is not None:
            opened.__exit__(None, None, None)


def open_channels(settings: Settings) -> dict[str, Channel]:
    """Every channel that the settings describe, by name. Raises `ConfigurationError`. Nothing is connected yet."""
    try:
        email = Email(
            EmailConfig(
                address=settings.mail_address,
                outbox=settings.path("outbox"),
                relay_url=settings.relay_url,
                relay_ca_file=settings.relay_ca_file,
                relay_timeout=settings.relay_timeout,
            )
        )
    except ValueError as error:
        raise ConfigurationError([f"NOTIFYR_RELAY_URL: {error}"]) from None
    return {Email.name: email}


def limits_of(settings: Settings) -> Limits:
    """From which scores something is done about an outgoing mail."""
    return Limits(
        warn=settings.outgoing_warn,
        hold=settings.outgoing_hold,
        reject=settings.outgoing_reject,
        hold_agents=settings.outgoing_hold_agents,
        reject_agents=settings.outgoing_reject_agents,
        unscored=Screening(settings.outgoing_unscored),
    )


class Deliverer:
    """Delivers messages of the outbox. Calling it twice for one message, also at the same time, sends one mail."""

    def __init__(
        self,
        database: Database,
        channels: dict[str, Channel],
        portal: Portal,
        blobs: Files,
        *,
        settings: Settings,
        screener: Screener | None = None,
    ) -> None:
        """Without a `screener` the rules look alone."""
        self._database = database
        self._channels = channels
        self._portal = portal
        self._blobs = blobs
        self._settings = settings
        self._screener = screener or Screener()
        self._limits = limits_of(settings)

    @property
    def repeatable(self) -> frozenset[str]:
        """Names of channels on which a claim that ended without a result may simply be tried again."""
        return frozenset(name for name, channel in self._channels.items() if _is_repeatable(channel))

    def deliver(self, message_id: str) -> None:
        """Make one attempt, when one is due. What comes of it is in the row; only a database that is down raises."""
        failpoint("send.before_claim")
        started = monotonic()
        verdict = self._look(message_id)
        with self._database.transaction() as session:
            if verdict is not None:
                screening.keep(session, message_id, *verdict)
            claim = attempts.claim(session, message_id, lease_seconds=self._settings.lease_seconds)
            failpoint("send.before_claim_commit")
        failpoint("send.after_claim")
        if claim is None:
            return
        try:
            receipt = self._hand_over(claim, deadline=started + self._settings.lease_seconds / 2)
        except NotifyrError as error:
            self._record_failure(claim, error)
            return
        self._record_sent(claim, receipt)

    def close(self) -> None:
        """Give the carriers' connections back."""
        for channel in self._channels.values():
            self._portal.call(channel.close)

    # -- the parts of an attempt

    def _look(self, message_id: str) -> tuple[Seen, Screening] | None:
        """What the look before the first attempt found, and what follows. None when there is nothing to look at any more."""
        with self._database.reading() as session:
            mail = screening.unseen(session, message_id)
        if mail is None:
            return None
        seen = self._screener.look(mail)
        return seen, screening.decide(seen, self._limits, machine=mail.machine)

    def _hand_over(self, claim: Claim, *, deadline: float) -> Receipt:
        channel = self._channels.get(claim.channel)
        if channel is None:
            raise PermanentChannelError(f"there is no channel named {claim.channel} here")
        with _known_unsent(claim.message_id):
            message = self._build(claim, deadline=deadline)
            failpoint("send.before_carrier")
        try:
            with METRICS.delivery_seconds.labels(channel=claim.channel).time():
                receipt = self._portal.call(lambda: channel.send(message))
            failpoint("send.after_carrier")
        except NotifyrError as error:
            if isinstance(error, UncertainDelivery) and _is_repeatable(channel):
                raise TemporaryChannelError(error.message) from error
            raise
        except Exception as error:
            # A fault of ours in the middle of a hand-over: nobody knows how far it came.
            _log.exception("carrier_failed", channel=claim.channel, message_id=claim.message_id)
            raise UncertainDelivery(f"the hand-over broke off: {type(error).__name__}") from error
        return receipt

    def _build(self, claim: Claim, *, deadline: float) -> OutboundMessage:
        return OutboundMessage(
            id=claim.message_id,
            sender=claim.sender,
            to=claim.to,
            cc=claim.cc,
            bcc=claim.bcc,
            subject=claim.subject,
            text=claim.text,
            html=claim.html,
            attachments=tuple(
                Attachment(one.filename, one.content_type, self._blobs.get(one.blob_key), one.content_id, one.inline)
                for one in claim.attachments
            ),
            thread_headers=ThreadHeaders(claim.external_id, claim.in_reply_to, claim.references),
            message_class=claim.message_class,
            idempotency_key=claim.message_id,
            created_at=claim.created_at,
            settled=frozenset(claim.settled),
            deadline=deadline,
        )

    def _record_sent(self, claim: Claim, receipt: Receipt) -> None:
        most = self._settings.max_attempts
        status = self._record(claim, lambda session: attempts.record_sent(session, claim, receipt, max_attempts=most))
        self._count(claim, str(status) if status is not None else "fenced")

    def _record_failure(self, claim: Claim, error: NotifyrError) -> None:
        most = self._settings.max_attempts
        status = self._record(claim, lambda session: attempts.record_failure(session, claim, error, max_attempts=most))
        self._count(claim, str(status) if status is not None else "fenced")
        _log.warning(
            "delivery_failed", message_id=claim.message_id, attempt=claim.attempt, code=error.code, status=str(status)
        )

    def _record(self, claim: Claim, write: Callable[[Session], Delivery | None]) -> Delivery | None:
        """Write an outcome that is known: while the claim holds, a database that is away does not make it `unknown`.

        What was committed without our hearing of it is not written twice: its token is gone.
        """
        pause = _PAUSE_FIRST
        while True:
            try:
                with self._database.transaction() as session:
                    status = write(session)
                    failpoint("send.before_record_commit")
            except StorageError:
                if utcnow() + timedelta(seconds=pause) >= claim.lease_until:
                    raise
                sleep(pause)
                pause = min(2 * pause, _PAUSE_MOST)
            else:
                failpoint("send.after_record")
                return status

    def _count(self, claim: Claim, outcome: str) -> None:
        METRICS.deliveries.labels(channel=claim.channel, outcome=outcome).inc()
        if outcome == "fenced":
            _log.error("delivery_fenced", message_id=claim.message_id, attempt=claim.attempt)


@contextmanager
def _known_unsent(message_id: str) -> Iterator[None]:
    """What breaks in here breaks before anything was said to the carrier."""
    try:
        yield
    except NotifyrError:
        raise
    except Exception as error:
        _log.exception("message_not_built", message_id=message_id)
        raise TemporaryChannelError(f"nothing was handed over: {type(error).__name__}: {error}") from error


def _is_repeatable(channel: Channel) -> bool:
    return Capability.IDEMPOTENCY_KEY in channel.capabilities or bool(getattr(channel, "repeatable", False))
