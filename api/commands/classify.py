"""`notifyr classify`: labels for many texts at once, without a server."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from api import console
from api.commands.common import PARTLY, Json, existing, ready, writable

__all__ = ["Item", "items_in", "register"]

_BATCH = 256
"""Texts worked on together; so many more are read meanwhile."""
_LONGEST = 10_000_000
HEADS = ("spam", "intent", "reply_intent", "urgency", "sentiment", "language", "optout")
_OF = {"spam": "spam", "optout": "yes"}
"""Heads whose score is that of one label, whichever is the better one."""


def register(app: typer.Typer) -> None:
    """Add `classify` to the `notifyr` command."""
    app.command("classify")(classify)


@dataclass(frozen=True, slots=True)
class Item:
    """One text to label; `error` says why there is none."""

    id: str
    text: str
    file: str = ""
    error: str = ""
    clues: tuple[str, ...] = ()


def classify(
    paths: Annotated[list[Path], typer.Argument(help=".eml, mbox, Maildir, folder, .jsonl or .csv.")],
    labels: Annotated[str, typer.Option(help=f"Heads, comma separated: {', '.join(HEADS)}.")] = "spam,intent",
    output: Annotated[Path | None, typer.Option(help="File for the lines; without it, standard output.")] = None,
    as_json: Json = False,
) -> None:
    """Label mails and texts, one JSON line each: {"id", "file", "labels": {"spam": {"label", "score"}}, "error"}.

    A score is a calibrated probability; for spam it is that of being spam, for optout that of `yes`, whatever the label.
    A text whose language cannot be told has the label `unknown`. JSONL and CSV have the
    columns `text`, and if there are any `subject` and `id`. A line that cannot be read gets an `error`; the rest goes on.

    Example: notifyr classify mails/ --labels spam,intent --output labels.jsonl
    """
    import sys

    from assistant.errors import ModelUnavailable
    from assistant.settings import load_settings
    from models.catalog import load_classifier

    heads = [part.strip() for part in labels.split(",") if part.strip()]
    unknown = sorted(set(heads) - set(HEADS))
    if unknown or not heads:
        words = f"unknown label {', '.join(unknown) or '(none)'}; choose from {', '.join(HEADS)}"
        raise typer.BadParameter(words, param_hint="--labels")
    existing(*paths)
    if output:
        writable(output)
    settings = load_settings()
    labeller = load_classifier(settings.encoder, threads=settings.model_threads, **_taught(settings))
    if labeller is None:
        raise ModelUnavailable("NOTIFYR_ENCODER is off: there is nothing to classify with; unset it")
    alone = heads == ["spam"]  # needs the encoder only where words leave a text open
    classify_batch = labeller.spam_only if alone else functools.partial(labeller.classify, heads=heads)
    labeller.encoder.load()
    if "spam" in heads:
        labeller.encoder.judge.load()  # a lost judge is said once, with the way to mend it, and not per mail
    done = failed = 0
    with contextlib.ExitStack() as files, console.progress(quiet=as_json) as progress:
        sink: IO[str] = files.enter_context(output.open("w", encoding="utf-8")) if output else sys.stdout
        bar = progress.add_task("classifying", total=None)
        for batch in _ahead(_batches(items_in(paths))):
            for line in _labelled(classify_batch, batch, heads, settings.intent_threshold):
                failed += "error" in line
                done += 1
                _write(sink, line)
            progress.advance(bar, len(batch))
    if output:
        words = f"{done} labelled" + (f", {failed} with errors" if failed else "") + f": {output}"
        console.emit({"done": done, "failed": failed, "output": str(output)}, [words], as_json=as_json)
    if failed:
        raise typer.Exit(PARTLY if failed < done else 1)


def _taught(settings: Any) -> dict[str, Any]:
    """What people taught, where there is a database to read it from."""
    from assistant.db.session import Database
    from pipelines.lessons import HeadsLessons, IntentLessons, SpamLessons

    if settings.database_url is None and not settings.path("notifyr.db").exists():
        return {}
    ready(settings)
    database = Database(settings.sql_url, pool_size=1)
    return {
        "taught": IntentLessons(database),
        "taught_spam": SpamLessons(database),
        "taught_heads": HeadsLessons(database),
    }


def _write(sink: IO[str], line: dict[str, Any]) -> None:
    import json

    sink.write(json.dumps(line, ensure_ascii=False) + "\n")


def _labelled(classify_batch: Any, batch: list[Item], heads: list[str], floor: float) -> Iterator[dict[str, Any]]:
    good = [item for item in batch if not item.error]
    labels_of = classify_batch([item.text for item in good], [item.clues for item in good])
    found = dict(zip([id(item) for item in good], labels_of, strict=True))
    for item in batch:
        line: dict[str, Any] = {"id": item.id}
        if item.file:
            line["file"] = item.file
        if item.error:
            yield line | {"labels": {}, "error": item.error}
            continue
        labels: dict[str, Any] = {}
        for head in heads:
            best = [label for label in found[id(item)] if label.head == head]
            if not best:
                labels[head] = {"label": "unknown", "score": 0.0}
                continue
            top = max(best, key=lambda label: label.score)
            score = next((label.score for label in best if label.value == _OF.get(head)), top.score)
            value = "other" if head == "intent" and score < floor else top.value
            labels[head] = {"label": value, "score": round(score, 6)}
        yield line | {"labels": labels}


def _batches(items: Iterator[Item]) -> Iterator[list[Item]]:
    batch: list[Item] = []
    for item in items:
        batch.append(item)
        if len(batch) >= _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _ahead(batches: Iterator[list[Item]]) -> Iterator[list[Item]]:
    """The same batches, each read while the one before it is worked on."""
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = reader.submit(next, batches, None)
            yield batch


# -- reading


def items_in(paths: list[Path]) -> Iterator[Item]:
    """Every text of the paths, one at a time, in a stable order."""
    for path in paths:
        kind = path.suffix.lower()
        if path.is_file() and kind in {".jsonl", ".ndjson"}:
            yield from _jsonl(path)
        elif path.is_file() and kind == ".csv":
            yield from _csv(path)
        else:
            yield from _mails(path)


def _mails(path: Path) -> Iterator[Item]:
    from api.commands.import_mail import mails_by_file
    from channels.support.mime import parse
    from channels.support.quotes import split_reply
    from channels.support.shape import shape_of
    from models.clues import clues

    for file, number, raw in mails_by_file(path):
        message = parse(raw)
        shown = file.name if path.is_file() else file.relative_to(path).as_posix()
        name = f"{shown}#{number}" if number else shown
        if "quarantine" in message.defects:
            yield Item(name, "", str(file), "; ".join(message.defects))
            continue
        new, _ = split_reply(message.text)
        found = clues(message, shape_of(raw))
        yield Item(name, f"{message.subject}\n{new}"[:_LONGEST], str(file), clues=found)


def _jsonl(path: Path) -> Iterator[Item]:
    import json

    with path.open(encoding="utf-8-sig", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                yield Item(str(number), "", error=f"line {number} is not JSON")
                continue
            yield _row(row, number)


def _csv(path: Path) -> Iterator[Item]:
    import csv

    csv.field_size_limit(_LONGEST)
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
        reader = csv.DictReader(line.replace("\0", "") for line in lines)
        number = 0
        while True:
            number += 1
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield Item(str(number), "", error=f"row {number} is not CSV: {error}")
                return
            yield _row(row, number)


def _row(row: Any, number: int) -> Item:
    if not isinstance(row, dict) or not isinstance(row.get("text"), str):
        name = str(row.get("id", number)) if isinstance(row, dict) else str(number)
        return Item(name, "", error=f"row {number} has no text")
    subject = row.get("subject")
    text = f"{subject}\n{row['text']}" if isinstance(subject, str) and subject else row["text"]
    given = row.get("id")
    return Item(str(number if given is None or given == "" else given), text[:_LONGEST])
