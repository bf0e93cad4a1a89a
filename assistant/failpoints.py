"""Named places where a test may break the program: before and after every external call and every commit.

`failpoint("outbox.after_send")` does nothing unless a test armed it. Actions: `exit` (as kill -9), `raise` (an `OSError`),
`delay` (0.2 s), `hang` (for ever). The list below is the whole list; a test fails when one of them is never hit.
"""

from __future__ import annotations

import os
import threading
import time

__all__ = ["FAILPOINTS", "arm", "disarm", "failpoint", "hits"]

FAILPOINTS: frozenset[str] = frozenset(
    {
        # receive: one inbound message, from the wire to the answer
        "receive.before_blob",
        "receive.after_blob",
        "receive.before_part",
        "receive.after_part",
        "receive.before_commit",
        "receive.after_commit",
        "receive.before_answer",
        # triage: one message through the stages
        "triage.before_read",
        "triage.before_stages",
        "triage.before_commit",
        "triage.after_commit",
        # ask: one intent that the encoder left open
        "ask.before_generate",
        "ask.after_generate",
        "ask.before_commit",
        "ask.after_commit",
        # rejudge: the mails like one that an agent called spam or not
        "rejudge.before_read",
        "rejudge.before_judge",
        "rejudge.after_judge",
        "rejudge.before_commit",
        "rejudge.after_commit",
        # suggest: one draft
        "suggest.before_generate",
        "suggest.after_generate",
        "suggest.before_commit",
        "suggest.after_commit",
        # review: an agent's decision
        "review.before_commit",
        "review.after_commit",
        # send: one outbound message
        "send.before_claim",
        "send.before_claim_commit",
        "send.after_claim",
        "send.before_carrier",
        "send.after_carrier",
        "send.before_record_commit",
        "send.after_record",
        # the relay's dialogue, and the outbox folder that stands for it
        "smtp.before_connect",
        "smtp.before_envelope",
        "smtp.before_data",
        "smtp.before_dot",
        "smtp.after_dot",
        "smtp.after_answer",
        "folder.before_write",
        "folder.before_rename",
        "folder.after_rename",
        # every commit of every transaction: of the pages and the API, too
        "commit.before",
        "commit.after",
        # the blob store: raw mails, and the files that agents and programs attach
        "blob.before_put",
        "blob.after_put",
        "blob.before_sync",
        "blob.after_sync",
        "blob.before_read",
        "blob.after_read",
        "blob.before_move",
        "blob.after_move",
        "blob.before_delete",
        "blob.after_delete",
        # the vector index
        "index.before_open",
        "index.after_open",
        "index.before_upsert",
        "index.after_upsert",
        "index.before_delete",
        "index.after_delete",
        "index.before_search",
        "index.after_search",
        # finished generations in Redis: who computes, what is kept, and the lease of whoever computes
        "cache.before_lead",
        "cache.after_lead",
        "cache.before_renew",
        "cache.after_renew",
        "cache.before_keep",
        "cache.after_keep",
        "cache.before_release",
        "cache.after_release",
        # counters of tries in Redis
        "limit.before_hit",
        "limit.after_hit",
        "limit.before_forget",
        "limit.after_forget",
        "limit.before_trust",
        "limit.after_trust",
        # what open pages share in Redis: who is where, a draft while it is written, what was removed a moment ago
        "presence.before_note",
        "presence.after_note",
        "presence.before_leave",
        "presence.after_leave",
        "draft.before_write",
        "draft.after_write",
        "draft.before_stop",
        "draft.after_stop",
        "removed.before_keep",
        "removed.after_keep",
        # a URL that somebody else chose
        "fetch.before_request",
        "fetch.after_answer",
        # the bus and the broker
        "dispatch.before",
        "dispatch.after",
        "publish.before",
        "publish.after",
    }
)

_armed: dict[str, tuple[str, int]] = {}
_hits: dict[str, int] = {}
_lock = threading.Lock()


def arm(spec: str) -> None:
    """Arm failpoints from `name=action[:n]` pairs, comma separated; `n` is the hit that triggers (1 is the first)."""
    for pair in filter(None, spec.split(",")):
        name, _, action = pair.strip().partition("=")
        action, _, count = action.partition(":")
        if name not in FAILPOINTS:
            raise ValueError(f"unknown failpoint {name!r}")
        if action not in {"exit", "raise", "delay", "hang"}:
            raise ValueError(f"unknown failpoint action {action!r}")
        _armed[name] = (action, int(count or 1))


def disarm() -> None:
    _armed.clear()
    _hits.clear()


def hits() -> dict[str, int]:
    """How often each failpoint was passed since the last `disarm`, armed or not. Counted only while something is armed."""
    return dict(_hits)


def failpoint(name: str) -> None:
    """A place where a test may break the program. Costs one dictionary check when nothing is armed."""
    if not _armed:
        return
    with _lock:
        _hits[name] = count = _hits.get(name, 0) + 1
    action, at = _armed.get(name, ("", 0))
    if not action or count != at:
        return
    if action == "exit":
        os._exit(137)
    if action == "raise":
        raise OSError(f"failpoint {name}")
    if action == "delay":
        time.sleep(0.2)
    while action == "hang":
        time.sleep(3600)
