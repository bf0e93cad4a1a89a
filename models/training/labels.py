"""Train what the heads beside spam need ahead of time: seconds on two cores, from files of this folder."""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from assistant.errors import InvalidInput
from models.bert import Encoder
from models.bert_torch import PACKAGED, TorchEncoder
from models.heads.intents import OTHER
from models.heads.linear import calibrated
from models.heads.mixed import fit_mixed, left_out
from models.heads.weights import fitted_arrays, keep
from models.heads.wording import columns as wording_columns
from models.heads.wording import optout_lexicon

__all__ = ["TESTED", "Measured", "Phrase", "measure", "optout_phrases", "reply_phrases", "train_labels"]

HERE = Path(__file__).resolve().parent
TESTED = ("+off", "+enough", "+consent", "+how", "-missing", "-instead", "-broke", "-join")
"""Families of wording that a measured opt-out head never saw."""
BESIDE = "beside"
"""The part that always helps to train and is never measured."""
_MIXED = ("optout", "reply_intent", "urgency", "sentiment")


@dataclass(frozen=True)
class Measured:
    """Probabilities of texts that a head did not see, with the truth as places in `labels`."""

    labels: tuple[str, ...]
    probabilities: npt.NDArray[np.floating]
    truth: npt.NDArray[np.int64]
    temperature: float

    @property
    def accuracy(self) -> float:
        return float((self.probabilities.argmax(axis=1) == self.truth).mean())


def train_labels(folder: Path, *, outside: Sequence[str] = ()) -> dict[str, Any]:
    """Write the heads of the encoder in `folder`; returns their manifest. `outside` are texts of no intent (CLINC150's)."""
    encoder = Encoder(folder)
    manifest: dict[str, Any] = {"name": "labels-1", "licence": "Apache-2.0"}
    spec, arrays = _intents(encoder, outside)
    manifest["intent"] = spec
    manifest["heads"] = {}
    for name in _MIXED:
        phrases = optout_phrases(outside) if name == "optout" else reply_phrases(_MIXED.index(name) - 1)
        measured = measure(encoder, name, phrases)
        labels, columns, vectors, truth = _prepared(encoder, name, phrases)
        head = fit_mixed(name, labels, columns, vectors, truth)
        arrays |= {
            f"{name}.wording": head.wording.astype(np.float16),
            f"{name}.meaning": head.meaning.astype(np.float16),
            f"{name}.bias": head.bias,
        }
        manifest["heads"][name] = {
            "labels": list(labels),
            "temperature": measured.temperature,
            "left_out_accuracy": round(measured.accuracy, 4),
            "trained_on": len(phrases),
            "data": "written for this project",
        }
    keep(folder, manifest, arrays)
    return manifest


def _intents(encoder: Encoder, outside: Sequence[str]) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Vectors of the shipped examples, and the head they make: with an operator's own it is trained where it is used."""
    pairs = [(text, label) for label, text in _intent_pairs()]
    names = sorted({label for _, label in pairs})
    vectors = encoder.embed([*[text for text, _ in pairs], *outside])
    truth = np.array([names.index(label) for _, label in pairs] + [names.index(OTHER)] * len(outside))
    rounded = vectors.astype(np.float16)  # as they are kept: the head is what these would make
    fitted, left_out = calibrated(rounded.astype(np.float32), truth, len(names))
    spec = {
        "labels": names,
        "texts": [text for text, _ in pairs],
        "left_out_accuracy": round(float((left_out.argmax(1) == truth).mean()), 4),
        "temperature": fitted.temperature,
        "trained_on": len(truth),
        "data": "written for this project; out-of-scope texts of CLINC150 (CC BY 3.0), as vectors only",
    }
    arrays = {"intent.vectors": rounded, "intent.truth": truth.astype(np.int16), **fitted_arrays(fitted, left_out)}
    exact = TorchEncoder(encoder.folder, PACKAGED)
    if (
        exact.network_fault() is None
    ):  # without torch the heads are made for the int8 file alone, and say so to the other
        arrays["intent.exact"] = exact.embed([*[text for text, _ in pairs], *outside]).astype(np.float16)
    return spec, arrays


@dataclass(frozen=True)
class Phrase:
    """One labelled text; `part` are texts of one wording, which stay together when a head is measured."""

    text: str
    label: str
    part: str
    language: str = "en"


def optout_phrases(outside: Sequence[str] = ()) -> list[Phrase]:
    """Opt-outs (`yes`) and near misses (`no`) in fifteen languages, by family of wording, and ordinary questions."""
    found = [
        Phrase(text, "yes" if family[0] == "+" else "no", family, language)
        for language, family, text in _rows("optout.tsv", 3)
    ]
    found += [Phrase(text, "no", BESIDE) for text in outside]
    found += [Phrase(text, "no", "-intents") for label, text in _intent_pairs() if label != "opt_out"]
    return found + [Phrase(row[3], "no", "-replies") for row in _rows("replies.tsv", 4)]


def reply_phrases(column: int) -> list[Phrase]:
    """`replies.tsv` with one of its columns as label: 0 the kind of reply, 1 urgency, 2 sentiment."""
    rows = _rows("replies.tsv", 4)
    found = [Phrase(row[3], row[column], str(number % 5)) for number, row in enumerate(rows)]
    found += [Phrase(text, row[column], BESIDE) for text, row in _like_replies() if row[column]]
    if column == 0:
        out = [one for one in optout_phrases() if one.label == "yes"]
        found += [Phrase(one.text, "opt_out", str(number % 5)) for number, one in enumerate(out[::8])]
    return found


def _like_replies() -> list[tuple[str, tuple[str, str, str]]]:
    """The shipped intents' examples with what their intent says of kind, urgency and sentiment."""
    told = {"complaint": ("complaint", "normal", "negative"), "thanks": ("positive", "low", "positive")}
    rest = ("", "normal", "neutral")
    return [
        (text, ("question", *rest[1:]) if "?" in text and label not in told else told.get(label, rest))
        for label, text in _intent_pairs()
        if label not in {"opt_out", OTHER}
    ]


def measure(encoder: Encoder, name: str, phrases: Sequence[Phrase], *, apart: Collection[str] = ()) -> Measured:
    """Probabilities of texts by a head that saw none of their part; with `apart`, only those parts are left out, together."""
    labels, columns, vectors, truth = _prepared(encoder, name, phrases)
    part = np.array([0 if apart and one.part in apart else hash_of(one.part) if not apart else 1 for one in phrases])
    if apart:
        seen, rest = np.flatnonzero(part == 1), np.flatnonzero(part == 0)
        head = fit_mixed(name, labels, [columns[i] for i in seen], vectors[seen], truth[seen])
        scores, truth = head.scores([columns[i] for i in rest], vectors[rest]), truth[rest]
        temperature = 1.0
    else:
        scores, temperature = left_out(name, labels, columns, vectors, truth, part, always=hash_of(BESIDE))
        rest = np.flatnonzero(part != hash_of(BESIDE))
        scores, truth = scores[rest], truth[rest]
    exp = np.exp((scores - scores.max(axis=1, keepdims=True)) / temperature)
    return Measured(labels, exp / exp.sum(axis=1, keepdims=True), truth, temperature)


def hash_of(part: str) -> int:
    return zlib.crc32(part.encode())


def _prepared(encoder: Encoder, name: str, phrases: Sequence[Phrase]) -> tuple[tuple[str, ...], Any, Any, Any]:
    labels = tuple(sorted({one.label for one in phrases}))
    lexicon = optout_lexicon()
    columns = [wording_columns(one.text, lexicon) for one in phrases]
    vectors = encoder.embed([one.text for one in phrases])
    return labels, columns, vectors, np.array([labels.index(one.label) for one in phrases])


def _rows(name: str, fields: int) -> list[list[str]]:
    lines = (HERE / name).read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines if line and not line.startswith("#")]
    if wrong := [row for row in rows if len(row) != fields]:
        raise InvalidInput(f"{name}: {wrong[0][:1]} has {len(wrong[0])} fields, {fields} are needed")
    return rows


def _intent_pairs() -> list[tuple[str, str]]:
    examples: dict[str, list[str]] = json.loads((HERE / "intents.json").read_text(encoding="utf-8"))["examples"]
    return [(label, text) for label, texts in examples.items() for text in texts]
