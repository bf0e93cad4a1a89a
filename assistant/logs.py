"""Logs. One JSON line per event with ECS field names; ids, never bodies, addresses or secrets."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Literal

import structlog

__all__ = ["configure_logging", "redact"]

_SECRET_NAMES = re.compile(
    r"(password|passwd|secret|token|api[_-]?key|authorization|cookie|credential|relay_url)", re.I
)
_URL_PASSWORD = re.compile(r"(?P<head>[a-z][a-z0-9+.-]{0,30}://[^\s:/@]*:)[^\s@/]+(?=@)", re.I)
_BEARER = re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9._~+/=-]+", re.I)
_KEY = re.compile(r"\bntf_[A-Za-z0-9_-]{8,}")
_ROW = re.compile(
    r"^(DETAIL|CONTEXT):.*?(?=^(?:HINT|CONTEXT|QUERY|\[SQL|\(Background|Traceback|The above|During)\b|\Z)", re.M | re.S
)
"""What PostgreSQL adds to an error: the row that it refused, values and all."""
_ADDRESS = re.compile(r"[^\s<>@\"'(),;:]{1,64}@[A-Za-z0-9.-]{1,255}")


def redact(text: str) -> str:
    """`text` without passwords in URLs, bearer tokens, API keys, mail addresses and the rows that PostgreSQL's errors quote."""
    text = _URL_PASSWORD.sub(r"\g<head>***", text)
    text = _BEARER.sub(r"\1 ***", text)
    text = _KEY.sub("ntf_***", text)
    text = _ROW.sub(r"\1: ***\n", text)
    return _ADDRESS.sub("***@***", text)


def _redact_event(_logger: object, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if _SECRET_NAMES.search(key):
            event[key] = "***"
        elif isinstance(value, str):
            event[key] = redact(value)
    return event


def _ecs(_logger: object, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    out: dict[str, Any] = {
        "@timestamp": event.pop("timestamp", None),
        "log.level": event.pop("level", "info"),
        "message": event.pop("event", ""),
        "ecs.version": "8.11",
        "service.name": "notifyr",
    }
    if (logger := event.pop("logger", None)) is not None:
        out["log.logger"] = logger
    if (trace := event.pop("exception", None)) is not None:
        out["error.stack_trace"] = trace
    if event:
        out["labels"] = dict(event)
    return out


def configure_logging(level: str = "info", style: Literal["json", "console"] = "json") -> None:
    """Send structlog and the standard library's loggers to standard error in one format."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _redact_event,
    ]
    last: list[structlog.typing.Processor] = (
        [_ecs, structlog.processors.JSONRenderer()]
        if style == "json"
        else [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("httpx", "httpcore", "kombu", "amqp", "mail.log"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
