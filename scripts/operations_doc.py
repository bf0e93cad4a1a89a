"""Writes docs/operations/monitoring.md and problems.md from the metrics, the error codes and the exit codes of the program.

With --check it only says whether they are up to date. A metric or a code without words of its own here is an error.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import api.main  # noqa: E402, F401  # every module with an error of its own
from api.errors import CODES  # noqa: E402
from assistant.telemetry import METRICS  # noqa: E402

FOLDER = ROOT / "docs" / "operations"
WATCH = {
    "notifyr_queue_age_seconds": "Above some minutes: mail or replies wait. Is a worker of that queue running?",
    "notifyr_queue_depth": "Grows for long: more comes in than is worked off; start another worker.",
    "notifyr_deliveries_total": '`outcome="unknown"`: a person has to say what became of a reply. `failed`: look at the relay.',
    "notifyr_outgoing_screened_total": '`outcome="hold"`: mail waits in the Outbox for an agent. `scored="part"`: the model files of the word score are missing or damaged; the rules alone looked.',
    "notifyr_dispatch_failures_total": "The broker did not take a task: it is down or full. The sweeper makes up for it.",
    "notifyr_model_ready": "0 for more than a minute after a start: see the log of that worker.",
    "notifyr_swept_total": "Steadily above 0: the broker or a worker loses tasks.",
    "notifyr_http_seconds": '`status="500"` is a fault of ours; `503` means that the database or Redis is away.',
    "notifyr_received_total": "No more `new` although mail is sent: is the listener reachable?",
    "notifyr_smtp_put_off_total": "Your own relay among them? Name it in `NOTIFYR_SMTP_TRUSTED_NETWORKS`.",
}
"""Metric -> when to look, for those that an alert should stand on."""

NEXT = {
    "internal": "A fault of ours. Look for the `request_id` of the answer in the log of the api.",
    "not-authenticated": "Sign in, or send a key: `Authorization: Bearer ntf_...`. A link works once: `notifyr agents link EMAIL`.",
    "not-allowed": "The key lacks the scope that `detail` names, or the act needs an admin.",
    "not-found": "The id is wrong, or it was deleted.",
    "conflict": "Somebody was faster, or the state does not allow it any more; `detail` says which. Read it again.",
    "stale-suggestion": "A newer message came in. Read the thread, then ask for a new draft.",
    "unsupported": "The text says something that no approved answer says: change the words or add the answer.",
    "idempotency-key-in-use": "The first request with this key still runs: wait for `Retry-After`, then send it again.",
    "idempotency-key-reused": "Take a new `Idempotency-Key` for another request.",
    "precondition-failed": "It changed since you read it: get it again and use its new `ETag`.",
    "too-large": "JSON may have 1 MB, an upload 30 MB, a mail `NOTIFYR_MAX_MAIL_BYTES`.",
    "invalid-input": "`detail` names the field and what it takes.",
    "invalid-signature": "The webhook's secret differs on both sides.",
    "unsafe-target": "The address leads into a private network, and is not fetched.",
    "invalid-cursor": "Start the list again without `cursor`.",
    "rate-limited": "Wait for `Retry-After`. All people at once: is `NOTIFYR_TRUSTED_PROXIES` set?",
    "storage": "The database, Redis or the disk is away or full: `/readyz` says which. Nothing was kept; try again.",
    "channel": "The relay failed; the message waits in its thread with the relay's words.",
    "channel-temporary": "The relay asks to wait, or is away: it is tried again by itself.",
    "delivery-unknown": "The connection ended before the relay's answer. Look into its log, then say in the thread: sent or not.",
    "channel-permanent": "The relay refused this message for good; its words stand beside it.",
    "recipient-refused": "The address does not exist or takes nothing from you. It is not written to again.",
    "unsupported-feature": "The channel cannot do that at all.",
    "credentials-refused": "The relay refused user or password in `NOTIFYR_RELAY_URL`. Its messages are held until a start with the right one, or `notifyr profiles unblock ADDRESS`.",
    "model": "See the log of the models worker. Mail and review go on without it.",
    "model-timeout": "The draft took longer than `NOTIFYR_DRAFT_TIMEOUT`; ask again.",
    "model-unavailable": "`NOTIFYR_ENCODER` or `NOTIFYR_GENERATOR` is off, or its files are not there: `notifyr config check`.",
    "unsupported-media-type": "Send `application/json`, without compression.",
    "bad-request": "`detail` says what is wrong with the request.",
    "unknown-host": "Set `NOTIFYR_PUBLIC_URL` to the name that people type, or add it to `NOTIFYR_ALLOWED_HOSTS`.",
    "foreign-origin": "A page of another site asked. Behind a proxy: is `NOTIFYR_PUBLIC_URL` exactly what the browser shows?",
    "csrf-token": "Reload the page. A program uses an API key, which needs no token.",
    "method-not-allowed": "See the OpenAPI description for what the route takes.",
    "thread-merged": "Follow `Location`: the thread is part of another one now.",
}
EXITS = {
    0: "done",
    1: "failed; the words say why",
    2: "wrong words or wrong settings: `notifyr config check` lists every problem",
    3: "a part was done, and what was not is named",
    4: "not allowed",
    5: "something named does not exist",
    6: "in conflict with what is there, for example a second `notifyr run`",
    7: "a dependency is down: database, Redis, relay or model",
    130: "interrupted by Ctrl-C; what was finished is kept",
    141: "nobody reads the output any more, as behind `| head`",
}


def monitoring() -> str:
    rows = []
    for metric in vars(METRICS).values():
        if not hasattr(metric, "describe"):
            continue
        (said,) = metric.describe()
        full = f"{said.name}_total" if said.type == "counter" else said.name
        labels = ", ".join(f"`{label}`" for label in metric._labelnames) or "none"  # noqa: SLF001  # nothing public has them
        rows.append(f"| `{full}` | {said.type} | {labels} | {said.documentation}. {WATCH.pop(full, '')} |")
    if WATCH:
        sys.exit(f"no such metric: {', '.join(WATCH)}")
    return "\n".join([MONITORING, "| name | kind | labels | meaning |", "|---|---|---|---|", *map(_tidy, rows), ""])


def problems() -> str:
    if set(NEXT) != set(CODES):
        sys.exit(f"codes without words, or words without a code: {sorted(set(NEXT) ^ set(CODES))}")
    rows = [f"| `{code}` | {status} | {title} | {NEXT[code]} |" for code, (status, title) in sorted(CODES.items())]
    exits = [f"| {code} | {words} |" for code, words in EXITS.items()]
    return "\n".join(
        [PROBLEMS, "| code | status | title | what to do |", "|---|---|---|---|", *rows, EXIT_HEAD, *exits, ""]
    )


def _tidy(row: str) -> str:
    return row.replace(".  |", ". |")


MONITORING = """# Monitoring

- `GET /livez`: the process runs. Restart it when this fails, and for nothing else.
- `GET /readyz`: `ready`; `degraded` without Redis (mail is kept, pages are not live); `down` with status 503 without the database.
- `GET /metrics`: Prometheus text. From this machine without a proxy, or with a key:
  `notifyr keys create prometheus --scope metrics:read`.
- Logs: ECS JSON lines on standard error with ids, without bodies, addresses or secrets. `NOTIFYR_LOG_FORMAT=console` is for people.

This page is written by `make docs` from the metrics themselves.
"""
PROBLEMS = """# Problems and what to do

An answer that is an error is `application/problem+json` with a stable `code`, and the `request_id` under which the log has it.
Codes are never renamed. This page is written by `make docs` from the program's own table.
"""
EXIT_HEAD = """
## Exit codes of `notifyr`

| code | meaning |
|---|---|"""

if __name__ == "__main__":
    pages = {FOLDER / "monitoring.md": monitoring(), FOLDER / "problems.md": problems()}
    for page, text in pages.items():
        if "--check" not in sys.argv:
            page.write_text(text)
        elif not page.exists() or page.read_text() != text:
            sys.exit(f"{page.relative_to(ROOT)} is not up to date; run: make docs")
