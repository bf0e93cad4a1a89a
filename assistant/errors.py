"""Every error Notifyr raises on purpose, and what becomes of it.

    NotifyrError
    ├── NotAuthenticated 401      ├── ChannelError 502
    ├── NotAllowed       403      │   ├── TemporaryChannelError   retryable, optional delay
    ├── NotFound         404      │   ├── UncertainDelivery       the other side may have accepted: never resent alone
    ├── Conflict         409      │   └── PermanentChannelError
    │   ├── StaleSuggestion       │       ├── RecipientRefused    suppresses the address
    │   └── Unsupported           │       ├── UnsupportedFeature
    ├── PreconditionFailed 412    │       └── CredentialsRefused  blocks the profile
    ├── TooLarge         413      ├── ModelError 503
    ├── InvalidInput     422      │   ├── ModelTimeout            retryable
    │   ├── InvalidSignature 401  │   └── ModelUnavailable
    │   └── UnsafeTarget          └── StorageError 503            retryable
    ├── RateLimited      429
    │
    ConfigurationError            outside the root, so that nothing swallows it

`code` is stable and public (RFC 9457 `type` ends in it), `status` is the HTTP status, `retryable` says whether the same
call may succeed later. A message says what happened and what to do next, and never carries a secret.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "ChannelError",
    "ConfigurationError",
    "Conflict",
    "CredentialsRefused",
    "InvalidInput",
    "InvalidSignature",
    "ModelError",
    "ModelTimeout",
    "ModelUnavailable",
    "NotAllowed",
    "NotAuthenticated",
    "NotFound",
    "NotifyrError",
    "PermanentChannelError",
    "PreconditionFailed",
    "RateLimited",
    "RecipientRefused",
    "StaleSuggestion",
    "StorageError",
    "TemporaryChannelError",
    "TooLarge",
    "UncertainDelivery",
    "UnsafeTarget",
    "Unsupported",
    "UnsupportedFeature",
]


class ConfigurationError(Exception):
    """The settings are wrong. `problems` lists every one of them, so that one run shows all."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("configuration is not valid:\n" + "\n".join(f"  - {problem}" for problem in problems))


class NotifyrError(Exception):
    """Root of the expected failures."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Something went wrong"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, delay: float | None = None, detail: dict[str, object] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.delay = delay
        """Seconds to wait before the next try, when the other side said so."""
        self.detail = detail or {}
        """Public facts for the problem document (for example `{"agent": "Bo"}` on a conflict)."""


class NotAuthenticated(NotifyrError):
    code, status, title = "not-authenticated", 401, "Sign in first"


class NotAllowed(NotifyrError):
    code, status, title = "not-allowed", 403, "Not allowed"


class NotFound(NotifyrError):
    code, status, title = "not-found", 404, "Not found"


class Conflict(NotifyrError):
    code, status, title = "conflict", 409, "Conflict"


class StaleSuggestion(Conflict):
    """The thread moved on after the suggestion was drafted."""

    code, title = "stale-suggestion", "The thread has a newer message"


class Unsupported(Conflict):
    """A text still holds something that no source says. `detail["unsupported"]` names each."""

    code, title = "unsupported", "Not everything has a source"


class PreconditionFailed(NotifyrError):
    code, status, title = "precondition-failed", 412, "It changed since you read it"


class TooLarge(NotifyrError):
    code, status, title = "too-large", 413, "Too large"


class InvalidInput(NotifyrError):
    code, status, title = "invalid-input", 422, "The input is not valid"


class InvalidSignature(InvalidInput):
    code, status, title = "invalid-signature", 401, "The signature does not match"


class UnsafeTarget(InvalidInput):
    code, title = "unsafe-target", "That address may not be contacted"


class RateLimited(NotifyrError):
    code, status, title, retryable = "rate-limited", 429, "Too many requests", True


class StorageError(NotifyrError):
    """The database, the blob store or the disk refused. Nothing was accepted; the sender should try again."""

    code, status, title, retryable = "storage", 503, "Storage is not available", True


class ChannelError(NotifyrError):
    code, status, title = "channel", 502, "The channel failed"


class TemporaryChannelError(ChannelError):
    code, title, retryable = "channel-temporary", "The channel is not available right now", True


class UncertainDelivery(ChannelError):
    """The connection ended between the last byte sent and the answer: the message may have been accepted."""

    code, title = "delivery-unknown", "It is not known whether the message was accepted"


class PermanentChannelError(ChannelError):
    code, title = "channel-permanent", "The channel refused the message"


class RecipientRefused(PermanentChannelError):
    code, title = "recipient-refused", "The recipient was refused"


class UnsupportedFeature(PermanentChannelError):
    code, title = "unsupported-feature", "The channel cannot do that"


class CredentialsRefused(PermanentChannelError):
    code, title = "credentials-refused", "The account was refused"


class ModelError(NotifyrError):
    code, status, title = "model", 503, "The model failed"


class ModelTimeout(ModelError):
    code, title, retryable = "model-timeout", "The model took too long", True


class ModelUnavailable(ModelError):
    code, title = "model-unavailable", "The model is not available"
