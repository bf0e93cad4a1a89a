"""Logs and metrics. One JSON line per event with ECS field names; ids, never bodies, addresses or secrets.

Metrics are defined here once, with bounded labels. With several processes `PROMETHEUS_MULTIPROC_DIR` (set by the run
command before Python starts) makes `/metrics` of the api show all of them.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Literal

import structlog
from prometheus_client import Counter, Gauge, Histogram

__all__ = ["METRICS", "configure_logging", "redact"]

_SECRET_NAMES = re.compile(
    r"(password|passwd|secret|token|api[_-]?key|authorization|cookie|credential|relay_url)", re.I
)
_URL_PASSWORD = re.compile(r"(?P<head>[a-z][a-z0-9+.-]{0,30}://[^\s:/@]*:)[^\s@/]+(?=@)", re.I)
_BEARER = re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9._~+/=-]+", re.I)
_KEY = re.compile(r"\bntf_[A-Za-z0-9_-]{8,}")
_ADDRESS = re.compile(r"[^\s<>@\"'(),;:]{1,64}@[A-Za-z0-9.-]{1,255}")


def redact(text: str) -> str:
    """`text` without passwords in URLs, bearer tokens, API keys and mail addresses."""
    text = _URL_PASSWORD.sub(r"\g<head>***", text)
    text = _BEARER.sub(r"\1 ***", text)
    text = _KEY.sub("ntf_***", text)
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


_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class METRICS:
    """Every metric. Labels are bounded: a channel, a stage, an outcome, a route template; never an id or an address."""

    received = Counter("notifyr_received_total", "Inbound messages", ["channel", "outcome"])
    triaged = Counter("notifyr_triaged_total", "Messages through triage", ["outcome"])
    stage_seconds = Histogram("notifyr_stage_seconds", "Time of one triage stage", ["stage"], buckets=_SECONDS)
    batch_texts = Histogram(
        "notifyr_encoder_batch_texts",
        "Texts of several requests encoded together",
        buckets=(1, 2, 4, 8, 16, 32, 64, 128),
    )
    labels = Counter("notifyr_labels_total", "Labels claimed and abstained from", ["head", "outcome"])
    triage_seconds = Histogram("notifyr_triage_seconds", "Triage of one message without generation", buckets=_SECONDS)
    generation_seconds = Histogram("notifyr_generation_seconds", "One generated draft", ["model"], buckets=_SECONDS)
    generation_tokens = Counter("notifyr_generation_tokens_total", "Tokens", ["model", "kind"])
    cache = Counter("notifyr_generation_cache_total", "Generation cache look-ups", ["outcome"])
    suggestions = Counter("notifyr_suggestions_total", "Suggestions by what became of them", ["outcome"])
    deliveries = Counter("notifyr_deliveries_total", "Outbound deliveries", ["channel", "outcome"])
    delivery_seconds = Histogram(
        "notifyr_delivery_seconds", "One hand-over to a carrier", ["channel"], buckets=_SECONDS
    )
    swept = Counter("notifyr_swept_total", "Rows taken up again by the sweeper", ["kind"])
    queue_depth = Gauge("notifyr_queue_depth", "Rows waiting", ["kind"], multiprocess_mode="mostrecent")
    queue_age = Gauge("notifyr_queue_age_seconds", "Oldest waiting row", ["kind"], multiprocess_mode="mostrecent")
    http_seconds = Histogram("notifyr_http_seconds", "HTTP requests", ["method", "route", "status"], buckets=_SECONDS)
    sockets = Gauge("notifyr_sockets", "Open live sockets", multiprocess_mode="livesum")
    model_state = Gauge("notifyr_model_ready", "1 when the model is loaded", ["model"], multiprocess_mode="mostrecent")
    dispatch_failures = Counter("notifyr_dispatch_failures_total", "Tasks the broker did not take", ["task"])
