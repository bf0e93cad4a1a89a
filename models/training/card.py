"""The figures beside the weights, and the tables of the model card that are written from them.

`figures.json` holds what `notifyr evaluate --write` measured, each part with the checksums of the files that it depends on:
a part that was measured on other weights is shown as such, so the card cannot drift from what ships.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from assistant.errors import InvalidInput

__all__ = ["BEGIN", "END", "FIGURES", "MEASURED", "Row", "block", "keep", "put_into", "rows", "stale"]

FIGURES = "figures.json"
BEGIN, END = "<!-- figures: notifyr evaluate --write -->", "<!-- end of figures -->"
_ENCODER, _LABELS, _SPAM = "model.onnx", "labels/labels.npz", "spam/spam.npz"
MEASURED = {
    "mail": (_ENCODER, "heads.npz", _SPAM),
    "mail_text_only": (_ENCODER, "heads.npz", _SPAM),
    "sms": (_ENCODER, "heads.npz"),
    "intents": (_ENCODER, _LABELS),
    "banking77": (_ENCODER,),
    "clinc150": (_ENCODER,),
    "optout": (_ENCODER, _LABELS),
    "reply_intent": (_ENCODER, _LABELS),
    "urgency": (_ENCODER, _LABELS),
    "sentiment": (_ENCODER, _LABELS),
    "language": (),
}
"""Each part of a report and the files whose change makes it another measurement."""


def keep(folder: Path, report: dict[str, Any]) -> dict[str, Any]:
    """Put the parts of a report beside those that were measured before; returns all of them."""
    path = folder / FIGURES
    figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for name, files in MEASURED.items():
        if name in report:
            figures[name] = {"of": _digests(folder, files), "figures": report[name]}
    path.write_text(json.dumps(figures, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    return figures


def stale(folder: Path) -> list[str]:
    """The parts that were measured on other weights than those in the folder."""
    figures = _kept(folder)
    return [name for name, part in figures.items() if part["of"] != _digests(folder, MEASURED.get(name, ()))]


@dataclass(frozen=True, slots=True)
class Row:
    """What was measured of one head. Figures are shares; None where a head has no such figure."""

    name: str
    title: str
    measured_on: str
    result: str
    """Every figure in words, what counts most between `**`."""
    calibration_error: float | None
    confused: str
    """What it was → what was said, times."""
    stale: bool
    """Measured on other weights than those in the folder."""
    recall: float | None = None
    """Of spam, at 0.1 % false positives."""
    pr_auc: float | None = None
    hard_ham: float | None = None
    """Share of newsletters and receipts that would be held there."""


def rows(folder: Path) -> list[Row]:
    """Every head that was measured, in the order of the card. Raises `InvalidInput` when none was, or the figures are damaged."""
    figures, old = _kept(folder), set(stale(folder))
    found = []
    for name, words in _ROWS.items():
        if name not in figures:
            continue
        of = figures[name]["figures"]
        title, told, result = words(of)
        found.append(
            Row(
                name,
                title,
                told,
                result,
                of.get("calibration_error"),
                _confusion(of),
                name in old,
                of.get("recall_at_0.1_percent"),
                of.get("pr_auc"),
                of.get("hard_ham_false_positives"),
            )
        )
    return found


def put_into(page: str, folder: Path) -> str:
    """A page with the tables between its markers written anew. Raises `InvalidInput` for a page without markers."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InvalidInput(f"the page has no place for the figures: put {BEGIN} and {END} into it")
    return f"{before}{BEGIN}\n\n{block(folder)}\n{END}{after}"


def block(folder: Path) -> str:
    """The tables: one row for each measured part, and what is confused with what."""
    figures = _kept(folder)
    lines = ["| head | measured on | result | calibration error |", "|---|---|---|---|"]
    for row in rows(folder):
        gone = " **(of earlier weights: measure again)**" if row.stale else ""
        error = "" if row.calibration_error is None else f"{row.calibration_error:.3f}"
        lines.append(f"| {row.title} | {row.measured_on} | {row.result}{gone} | {error} |")
    lines += ["", "Confused most (what it was → what was said, times):", ""]
    for name, part in figures.items():
        if said := _confusion(part["figures"]):
            lines.append(f"- {name.replace('_', ' ')}: {said}")
    return "\n".join(lines) + "\n"


def _spam(title: str) -> Callable[[dict[str, Any]], tuple[str, str, str]]:
    def row(found: dict[str, Any]) -> tuple[str, str, str]:
        hard = f", hard ham {found['hard_ham_false_positives']:.1%}" if "hard_ham_false_positives" in found else ""
        result = f"recall **{found['recall_at_0.1_percent']:.3f}** at 0.1 % false positives, PR-AUC {found['pr_auc']:.3f}{hard}"
        return title, f"{found['texts']:,} texts, {found['spam']} spam", result

    return row


def _intents(found: dict[str, Any]) -> tuple[str, str, str]:
    told = f"{found['texts']} own examples, {found['classes']} intents, four parts left out in turn"
    return "shipped intents", told, f"{found['accuracy']:.3f}"


def _banking(found: dict[str, Any]) -> tuple[str, str, str]:
    told = f"BANKING77, train part ({found['texts']:,} texts, {found['classes']} intents), five-fold"
    result = f"{found['accuracy_cross_validated']:.3f}; **{found['accuracy_at_10_examples']:.3f}** from 10 examples an intent"
    if "test" in found:
        told += f"; its test part ({found['test']['texts']:,})"
        result += f"; **{found['test']['accuracy']:.3f}** on the test part"
    return "intents, full training", told, result


def _clinc(found: dict[str, Any]) -> tuple[str, str, str]:
    told = (
        f"CLINC150 `{found['part']}` ({found['inside']:,}) against {found['outside']:,} outside, none of them learned"
        + (f"; {found['twins']} that are in its train part, too, were not asked" if found.get("twins") else "")
    )
    return "out of scope", told, f"AUROC **{found['out_of_scope_auroc']:.3f}**, accuracy {found['accuracy']:.3f}"


def _optout(found: dict[str, Any]) -> tuple[str, str, str]:
    told = (
        f"{found['opt_outs']} opt-outs in {found['languages']} languages and {found['near_misses']} near misses, of "
        "families of wording left out of training"
    )
    result = (
        f"**{found['heard']:.3f}** heard ({found['recorded_at_once']:.2f} recorded at once, the rest shown to a person); near "
        f"misses {found['near_misses_recorded']:.2f} recorded, {found['near_misses_shown_to_a_person']:.2f} shown or recorded"
    )
    return "opt-out", told, result


def _further(title: str) -> Callable[[dict[str, Any]], tuple[str, str, str]]:
    def row(found: dict[str, Any]) -> tuple[str, str, str]:
        result = f"{found['accuracy']:.2f}; {found['accuracy_where_claimed']:.2f} where it is claimed ({found['claimed']:.0%})"
        return title, f"{found['texts']} own texts, five-fold", result

    return row


def _language(found: dict[str, Any]) -> tuple[str, str, str]:
    told = f"the {found['texts']} short lines of the opt-out set in {found['languages']} languages"
    return "language", told, f"{found['accuracy']:.3f}"


_ROWS: dict[str, Callable[[dict[str, Any]], tuple[str, str, str]]] = {
    "mail": _spam("spam, cleaned text and envelope"),
    "mail_text_only": _spam("spam, cleaned subject and text only"),
    "sms": _spam("spam, text messages"),
    "intents": _intents,
    "banking77": _banking,
    "clinc150": _clinc,
    "optout": _optout,
    "reply_intent": _further("kind of reply"),
    "urgency": _further("urgency"),
    "sentiment": _further("sentiment"),
    "language": _language,
}


def _confusion(found: dict[str, Any]) -> str:
    """Pairs from a list of the most frequent ones, or from a whole table."""
    rows: Iterable[tuple[str, str, int]] = [tuple(one) for one in found.get("confused", [])]
    if "confusion" in found:
        cells = [
            (was, said, n) for was, row in found["confusion"].items() for said, n in row.items() if was != said and n
        ]
        rows = sorted(cells, key=lambda cell: (-cell[2], cell[:2]))[:8]
    if "confusion_at_half" in found:
        rows = [
            ("spam", "ham", found["confusion_at_half"]["spam_missed"]),
            ("ham", "spam", found["confusion_at_half"]["ham_stopped"]),
        ]
    return ", ".join(f"{was} → {said} {count}" for was, said, count in rows)


def _digests(folder: Path, names: Iterable[str]) -> dict[str, str]:
    return {name: _digest(folder / name, *_stamp(folder / name)) for name in names}


def _stamp(file: Path) -> tuple[int, int]:
    try:
        found = file.stat()
    except OSError:
        return 0, -1
    return found.st_mtime_ns, found.st_size


@lru_cache(32)
def _digest(file: Path, changed: int, size: int) -> str:
    """The beginning of a file's SHA-256; nothing for one that is not there. A page asks for it again and again."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16] if size >= 0 else ""


def _kept(folder: Path) -> dict[str, Any]:
    if not (folder / FIGURES).exists():
        raise InvalidInput(f"nothing was measured for {folder.name}/ yet: notifyr evaluate --write")
    try:
        found = json.loads((folder / FIGURES).read_text(encoding="utf-8"))
        return {str(name): {"of": part["of"], "figures": part["figures"]} for name, part in found.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidInput(f"{FIGURES} cannot be read ({error!s:.200}): notifyr evaluate --write") from error
