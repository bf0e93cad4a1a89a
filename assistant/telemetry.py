"""Metrics, defined here once, with bounded labels; and the logs beside them.

With several processes `PROMETHEUS_MULTIPROC_DIR` (set by the run command before this is imported) makes `/metrics` of the
api show all of them.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from assistant.logs import configure_logging, redact

__all__ = ["METRICS", "configure_logging", "redact"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class METRICS:
    """Every metric. Labels are bounded: a channel, a stage, an outcome, a route template; never an id or an address."""

    received = Counter("notifyr_received_total", "Inbound messages", ["channel", "outcome"])
    smtp_put_off = Counter(
        "notifyr_smtp_put_off_total", "Connections and mails of one peer that were too many", ["reason"]
    )
    triaged = Counter("notifyr_triaged_total", "Messages through triage", ["outcome"])
    stage_seconds = Histogram("notifyr_stage_seconds", "Time of one triage stage", ["stage"], buckets=_SECONDS)
    batch_texts = Histogram(
        "notifyr_encoder_batch_texts",
        "Texts of several requests encoded together",
        buckets=(1, 2, 4, 8, 16, 32, 64, 128),
    )
    labels = Counter("notifyr_labels_total", "Labels claimed and abstained from", ["head", "outcome"])
    spam_stages = Counter("notifyr_spam_decided_total", "Spam verdicts by the cascade stage that gave them", ["stage"])
    asked = Counter(
        "notifyr_asked_total", "Intents that the encoder left open and a generator was asked for", ["outcome"]
    )
    triage_seconds = Histogram("notifyr_triage_seconds", "Triage of one message without generation", buckets=_SECONDS)
    generation_seconds = Histogram("notifyr_generation_seconds", "One generated draft", ["model"], buckets=_SECONDS)
    generation_tokens = Counter("notifyr_generation_tokens_total", "Tokens", ["model", "kind"])
    cache = Counter("notifyr_generation_cache_total", "Generation cache look-ups", ["outcome"])
    suggestions = Counter("notifyr_suggestions_total", "Suggestions by what became of them", ["outcome"])
    deliveries = Counter("notifyr_deliveries_total", "Outbound deliveries", ["channel", "outcome"])
    outgoing_screened = Counter(
        "notifyr_outgoing_screened_total", "Outgoing mail looked at before it is sent", ["outcome", "scored"]
    )
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
