"""`notifyr classify`: labels for many texts at once, without a server."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from api import console
from api.commands.common import PARTLY, Json, existing, ready, writable

__all__ = ["Item", "count_items", "items_in", "register"]

_BATCH = 256
"""Texts worked on together; so many more are read meanwhile."""
_TOGETHER = 8_000_000
"""Characters after which a batch is full, however few texts it has: two of them are in memory."""
_LONGEST = 10_000_000
_LINE = 60_000_000
"""Characters of one line of JSON: a text of the longest with every character written as \\uXXXX."""
_HALF = re.compile("[\ud800-\udfff]")
"""Half of a character: JSON and file names may hold one, no text that is written can."""
HEADS = ("spam", "intent", "reply_intent", "urgency", "sentiment", "language", "optout")
_OF = {"spam": "spam", "optout": "yes"}
"""Heads whose score is that of one label, whichever is the better one."""
_NONE = "other"


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

    A score is a calibrated probability; for spam it is that of being spam, for optout that of `yes`, whatever the label. Spam has
    `reasons` beside them where a text hides or disguises something, or a mail is built in a way to know of. The intent
    is `other` where none reaches NOTIFYR_INTENT_THRESHOLD, with the probability of being none of them. A text whose language cannot
    be told has the label `unknown`. JSONL and CSV have the columns `text`, and if there are any `subject` and `id`. What cannot
    be read gets a line with an `error`; the rest goes on. A file is written whole or not at all. No server is needed.

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
    labeller = load_classifier(
        settings.encoder, threads=settings.model_threads, tokens=settings.encoder_tokens, **_taught(settings)
    )
    if labeller is None:
        raise ModelUnavailable("NOTIFYR_ENCODER is off: there is nothing to classify with; unset it")
    alone = heads == ["spam"]  # needs the encoder only where words leave a text open
    classify_batch = labeller.spam_only if alone else functools.partial(labeller.classify, heads=heads)
    lacking = _lacking(labeller, heads)
    done = failed = 0
    with contextlib.ExitStack() as files, console.progress(quiet=as_json) as progress:
        sink: IO[str] = files.enter_context(_replaced(output)) if output else sys.stdout
        bar = progress.add_task("classifying", total=None if progress.disable else count_items(paths))
        try:
            for batch in _ahead(_batches(items_in(paths))):
                for line in _labelled(labeller, classify_batch, batch, heads, settings.intent_threshold):
                    failed += "error" in line
                    done += 1
                    _write(sink, line)
                progress.advance(bar, len(batch))
        except KeyboardInterrupt:
            if output:
                console.error(f"stopped after {done}: {output} is as it was before, begin again")
            raise
    if output:
        words = f"{done} labelled" + (f", {failed} with errors" if failed else "") + f": {output}"
        facts = {"done": done, "failed": failed, "output": str(output)} | ({"lacking": lacking} if lacking else {})
        console.emit(facts, [words], as_json=as_json)
    if failed or lacking:
        raise typer.Exit(PARTLY if failed < done or not done else 1)


def _lacking(labeller: Any, heads: list[str]) -> str:
    """What is missing of the model though every head that is asked for says something. Raises where one says nothing."""
    from assistant.errors import ModelUnavailable
    from pipelines.stages.classify import told

    labeller.load(heads)
    faults = labeller.faults(heads)
    judge = labeller.encoder.judge.fault() if "spam" in heads else None
    silent = {head: error for head, error in faults.items() if head != "spam"} | ({"spam": judge} if judge else {})
    if silent:
        rest = [head for head in heads if head not in silent]
        words = f"; the others can be asked for alone: --labels {','.join(rest)}" if rest else ""
        raise ModelUnavailable(told(silent) + words)
    if faults:
        console.error(f"goes on with less than the whole model: {told(faults)}")
    return told(faults)


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


@contextlib.contextmanager
def _replaced(path: Path) -> Iterator[IO[str]]:
    """A text file that stands at `path` once all of it is written and on the disk; until then, and should it break off, what was
    there before stays. A pipe or a device is written to as it is.
    """
    import os
    import shutil
    import tempfile

    real = path.resolve()
    if real.exists() and not real.is_file():
        with real.open("w", encoding="utf-8") as direct:
            yield direct
        return
    number, name = tempfile.mkstemp(prefix=f".{real.name}.", suffix=".part", dir=real.parent)
    try:
        with os.fdopen(number, "w", encoding="utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if real.exists():
            shutil.copymode(real, name)
        Path(name).replace(real)
    except BaseException:  # an interrupt, too
        Path(name).unlink(missing_ok=True)
        raise


def _write(sink: IO[str], line: dict[str, Any]) -> None:
    import json

    sink.write(json.dumps(line, ensure_ascii=False) + "\n")


def _labelled(
    labeller: Any, classify_batch: Any, batch: list[Item], heads: list[str], floor: float
) -> Iterator[dict[str, Any]]:
    from models.clues import reasons

    found = _found(classify_batch, [item for item in batch if not item.error])
    for item in batch:
        line: dict[str, Any] = {"id": item.id}
        if item.file:
            line["file"] = item.file
        labels = found.get(id(item), item.error)
        if not isinstance(labels, str) and "spam" in heads and not any(label.head == "spam" for label in labels):
            labels = f"spam was not judged: {labeller.spam_fault(item.text, item.clues)}"
        if isinstance(labels, str):
            yield line | {"labels": {}, "error": labels}
        else:
            answers = {head: _answer(head, labels, floor) for head in heads}
            if "spam" in answers and (shown := reasons(item.clues)):
                answers["spam"]["reasons"] = shown
            yield line | {"labels": answers}


def _found(classify_batch: Any, items: list[Item]) -> dict[int, Any]:
    """The labels of each item by its identity; where they could not be found, why: one text never costs another its labels."""
    try:
        labels = classify_batch([item.text for item in items], [item.clues for item in items])
    except Exception as error:  # noqa: BLE001  # whatever a stranger's text does, it is told on its own line
        if len(items) > 1:
            half = len(items) // 2
            return _found(classify_batch, items[:half]) | _found(classify_batch, items[half:])
        return {id(item): f"it could not be labelled ({type(error).__name__}: {error!s:.300})" for item in items}
    return dict(zip([id(item) for item in items], labels, strict=True))


def _answer(head: str, labels: list[Any], floor: float) -> dict[str, Any]:
    """The label of a head and its probability."""
    found = {label.value: label.score for label in labels if label.head == head}
    if not found:
        return {"label": "unknown", "score": 0.0}
    value = max(found, key=lambda name: found[name])
    if head == "intent" and found[value] < floor:
        value = _NONE
    wanted = _OF.get(head, value)
    # An intent that is not among the best ones has at most what these leave.
    score = found.get(wanted, max(0.0, 1 - sum(found.values())))
    return {"label": value, "score": round(score, 6)}


def _batches(items: Iterator[Item]) -> Iterator[list[Item]]:
    batch: list[Item] = []
    room = _TOGETHER
    for item in items:
        batch.append(item)
        room -= len(item.text)
        if len(batch) >= _BATCH or room <= 0:
            yield batch
            batch, room = [], _TOGETHER
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
    """Every text of the paths, one at a time, in a stable order. What cannot be read is an item with an error."""
    for path in paths:
        try:
            yield from _reader(path)(path)
        except OSError as error:
            yield Item(_plain(path.name), "", _plain(str(path)), f"it cannot be read: {error.strerror or error}")


def count_items(paths: list[Path]) -> int:
    """How many texts there are, for the bar: lines, rows and mails are counted, none of them is understood."""
    from api.commands.import_mail import count_mails

    total = 0
    for path in paths:
        try:
            if (reader := _reader(path)) is _jsonl:
                total += sum(bool(line.strip()) for _, line in _lines(path))
            elif reader is _csv:
                total += sum(1 for _ in _rows(path))
            else:
                total += count_mails([path])
        except OSError:
            total += 1  # the line that tells it
    return total


def _reader(path: Path) -> Callable[[Path], Iterator[Item]]:
    kind = path.suffix.lower()
    if path.is_file() and kind in {".jsonl", ".ndjson"}:
        return _jsonl
    return _csv if path.is_file() and kind == ".csv" else _mails


def _mails(path: Path) -> Iterator[Item]:
    from api.commands.import_mail import mails_by_file

    lost: list[Item] = []

    def skip(file: Path, words: str) -> None:
        lost.append(Item(_name(path, file), "", _plain(str(file)), f"it cannot be read: {words}"))

    for file, number, raw in mails_by_file(path, skip):
        yield from lost
        lost.clear()
        yield _mail(f"{_name(path, file)}#{number}" if number else _name(path, file), _plain(str(file)), raw)
    yield from lost


def _name(path: Path, file: Path) -> str:
    return _plain(file.name if path.is_file() or file == path else file.relative_to(path).as_posix())


def _mail(name: str, file: str, raw: bytes) -> Item:
    from channels.support.mime import parse
    from channels.support.quotes import split_reply
    from channels.support.shape import shape_of
    from models.clues import clues

    try:
        message = parse(raw)
        new, _ = split_reply(message.text)
        found = clues(message, shape_of(raw))
    except Exception as error:  # noqa: BLE001  # whatever a stranger's mail does, it is told on its own line
        return Item(name, "", file, f"it could not be read as a mail ({type(error).__name__}: {error!s:.300})")
    if "quarantine" in message.defects:
        return Item(name, "", file, "; ".join(message.defects))
    return Item(name, _plain(f"{message.subject}\n{new}"[:_LONGEST]), file, clues=found)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines with their numbers; of one that never ends only the beginning, which is too long to be one of ours."""
    with path.open(encoding="utf-8-sig", errors="replace") as lines:
        number = 0
        while line := lines.readline(_LINE + 1):
            number += 1
            yield number, line
            while len(line) > _LINE and not line.endswith("\n"):
                line = lines.readline(_LINE + 1)


def _jsonl(path: Path) -> Iterator[Item]:
    import json

    for number, line in _lines(path):
        if not line.strip():
            continue
        if len(line) > _LINE:
            yield Item(str(number), "", error=f"line {number} is longer than {_LINE // 1_000_000} million characters")
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            yield Item(str(number), "", error=f"line {number} is not JSON")
            continue
        yield _row(row, number)


def _rows(path: Path) -> Iterator[dict[str, Any] | str]:
    """Rows of a CSV file; a last one that is none of CSV is the reason as text."""
    import csv

    csv.field_size_limit(_LONGEST)
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
        reader = csv.DictReader(line.replace("\0", "") for line in lines)
        try:
            yield from reader
        except csv.Error as error:
            yield str(error)


def _csv(path: Path) -> Iterator[Item]:
    for number, row in enumerate(_rows(path), 1):
        if isinstance(row, str):
            yield Item(str(number), "", error=f"row {number} is not CSV: {row}; what follows it was not read")
        else:
            yield _row(row, number)


def _row(row: Any, number: int) -> Item:
    from models.clues import of_text

    if not isinstance(row, dict) or not isinstance(row.get("text"), str):
        name = str(row.get("id", number)) if isinstance(row, dict) else str(number)
        return Item(_plain(name), "", error=f"row {number} has no text")
    subject = row.get("subject")
    text = f"{subject}\n{row['text']}" if isinstance(subject, str) and subject else row["text"]
    given = row.get("id")
    shown = _plain(text[:_LONGEST])
    return Item(_plain(str(number if given is None or given == "" else given)), shown, clues=of_text(shown))


def _plain(text: str) -> str:
    return _HALF.sub("\ufffd", text)
