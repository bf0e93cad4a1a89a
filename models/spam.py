"""Is a mail spam: hashed words and clues first; the encoder is asked only where these are not sure.

A folder holds `spam.npz` and `manifest.json` with its SHA-256. Each of the two stages sums the standardised scores of its
parts with fixed shares and makes a calibrated probability of the sum.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from assistant.errors import ModelUnavailable
from models.clues import of_mail, reasons
from models.features import COLUMNS, hashed, tokens
from models.parts import Part, arrays_in

__all__ = [
    "FILES",
    "FOLDER",
    "FORMAT",
    "KERNELS",
    "Begun",
    "Clues",
    "Kernel",
    "Mix",
    "Read",
    "Short",
    "SpamJudge",
    "Verdict",
    "clue_columns",
]

FOLDER = "spam"
FILES = ("spam.npz",)
FORMAT = 2
_FIX = "restore the folder from the release or rebuild it: notifyr train (needs the train extra)"
_SIGHTS = ("with_clues", "without")
"""A mail whose envelope is known is mixed and called sure otherwise than bare text."""
Floats = npt.NDArray[np.float32]
Columns = npt.NDArray[np.int64]
Clues = Sequence[str]


@dataclass(frozen=True, slots=True)
class Verdict:
    """How probable spam is, and which stage decided."""

    score: float
    stage: str
    """`words` or `encoder`; `words alone` where the encoder would have been asked and is not there, `memory` where a person's
    correction of a mail like it decided."""
    reasons: tuple[str, ...] = ()
    """Clues of the mail in words, for an agent."""


@dataclass(frozen=True, slots=True)
class Mix:
    """Logistic regression on standardised scores."""

    center: Floats
    scale: Floats
    weights: Floats
    bias: float

    def probabilities(self, scores: Floats) -> Floats:
        """One probability for each row of scores."""
        odds = ((scores - self.center) / self.scale) @ self.weights + self.bias
        return np.asarray(1 / (1 + np.exp(-np.clip(odds, -30, 30))), dtype=np.float32)

    @classmethod
    def of(cls, spec: dict[str, Any]) -> Mix:
        """From its form in a manifest."""
        center, scale, weights = (np.array(spec[key], dtype=np.float32) for key in ("center", "scale", "weights"))
        return cls(center, scale, weights, float(spec["bias"]))


KERNELS = ("meaning", "envelope")
"""What is judged by likeness to training mails: the sentence vector, and the clues."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel machine on unit vectors: sum of duals * exp(-gamma * |v - support|^2) + bias."""

    support: Floats
    """Shape `(mails kept from training, dimensions)`."""
    duals: Floats
    gamma: float
    bias: float

    def scores(self, vectors: Floats) -> Floats:
        """One score a row, before any calibration."""
        return self.of_likeness(vectors @ self.support.T)

    def of_likeness(self, likeness: Floats) -> Floats:
        """Scores from the products with each of the supports, for who knows a cheaper way to them."""
        return np.asarray(np.exp(-2 * self.gamma * (1 - likeness)) @ self.duals + self.bias, dtype=np.float32)

    @classmethod
    def of(cls, spec: dict[str, Any], stored: Any, name: str) -> Kernel:
        """From its part of a manifest and the arrays beside it."""
        support, duals = (stored[f"{name}.{part}"].astype(np.float32) for part in ("support", "duals"))
        return cls(support, duals, float(spec["gamma"]), float(spec["bias"]))


@dataclass(frozen=True, slots=True)
class Short:
    """Text messages: hashed words, and meaning for those that words leave open: sigmoid(a * meaning + b * words + c)."""

    words: Floats
    words_bias: float
    meaning: Kernel
    mix: tuple[float, ...]
    alone: tuple[float, ...]
    """Slope and intercept that make a probability of the words' score alone."""
    between: tuple[float, ...]
    """The words' probabilities below the first and above the second are sure."""

    @classmethod
    def of(cls, spec: dict[str, Any], stored: Any) -> Short:
        """From its part of a manifest and the arrays beside it."""
        pairs = {key: tuple(float(one) for one in spec[key]) for key in ("mix", "alone", "between")}
        kernel = Kernel.of({"gamma": spec["gamma"], "bias": spec["meaning_bias"]}, stored, "spam.short")
        words = stored["spam.short.words"].astype(np.float32)
        return cls(
            words, float(spec["words_bias"]), kernel, pairs["mix"], *(pairs[one] for one in ("alone", "between"))
        )

    def by_words(self, lexical: float) -> float:
        """The probability by the words' score alone, calibrated for itself."""
        slope, intercept = self.alone
        return float(1 / (1 + np.exp(-np.clip(slope * lexical + intercept, -30, 30))))

    def sure(self, lexical: float) -> float | None:
        """The probability by the words' score alone where that is enough, else None."""
        p = self.by_words(lexical)
        return p if p <= self.between[0] or p >= self.between[1] else None

    def scores(self, vectors: Floats, lexical: Sequence[float]) -> Floats:
        """Probabilities by words and meaning."""
        a, b, c = self.mix
        odds = a * self.meaning.scores(vectors) + b * np.array(lexical, dtype=np.float32) + c
        return np.asarray(1 / (1 + np.exp(-np.clip(odds, -30, 30))), dtype=np.float32)

    def evidence(self, text: str, *, limit: int) -> list[tuple[str, float]]:
        """Words that weighed most, strongest first."""
        named = {word: _column(word) for word in tokens(text) if not word.startswith("#host:")}
        weighed = [(word, float(self.words[place])) for word, place in named.items()]
        return sorted(weighed, key=lambda pair: -abs(pair[1]))[:limit]

    def lexical(self, text: str) -> float:
        """The score of its words."""
        return _scaled(self.words[hashed(text, short=True)]) + self.words_bias


def clue_columns(clues: Clues) -> Columns:
    """Columns of the clues of a mail, sorted, each once."""
    return np.unique(np.fromiter((_column("c:" + clue) for clue in clues), np.int64, len(clues)))


@dataclass(frozen=True, slots=True)
class Read:
    """What the words and clues of mails say before any meaning is asked for, one row a mail."""

    scores: Floats
    """Shape `(mails, 2)`: of the linear head and of the envelope."""
    clues: Sequence[Clues]


@dataclass(frozen=True, slots=True)
class Begun:
    """What the first stage made of what it read."""

    read: Read
    scores: Floats
    """Probabilities, one a mail."""
    unsure: list[int]
    """Rows that a second stage should see."""


class SpamJudge:
    """Loaded on first use, once; safe from several threads. Raises `ModelUnavailable` with the command that mends it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._part = Part(self._load, [folder / name for name in ("manifest.json", *FILES)])

    def load(self) -> None:
        """Read and check the files now instead of on first use."""
        self._part.load()

    def fault(self) -> ModelUnavailable | None:
        """Why no mail is judged; None where the judge is whole."""
        return self._part.fault()

    @property
    def facts(self) -> dict[str, Any]:
        """The manifest: what it was trained on, its thresholds and figures."""
        self.load()
        return self._manifest

    def read(self, texts: Sequence[str], clues: Sequence[Clues]) -> Read:
        """The first stage: words, and the clues of `models.clues`, one set a text; only those of mails count."""
        if not texts:
            return Read(np.zeros((0, 2), dtype=np.float32), ())
        self.load()
        pairs = [(hashed(text), clue_columns(of_mail(found))) for text, found in zip(texts, clues, strict=True)]
        return Read(np.stack([self._cheap(*pair) for pair in pairs]), clues)

    def begin(self, read: Read) -> Begun:
        """Probabilities by words and clues, and the rows that these leave open."""
        if not len(read.scores):
            return Begun(read, np.zeros(0, dtype=np.float32), [])
        known = np.array([bool(of_mail(found)) for found in read.clues])
        scores = self._mixed("words", read.scores, known)
        low, high = (np.where(known, *ends) for ends in zip(*self._sure, strict=True))
        return Begun(read, scores, np.flatnonzero((scores > low) & (scores < high)).tolist())

    def finish(self, begun: Begun, vectors: Floats | None) -> list[Verdict]:
        """One verdict a row. `vectors` are those of the rows that were left open, or None where there is no encoder: then the
        words' own probability stands, which is calibrated without it.
        """
        scores, clues = begun.scores.copy(), begun.read.clues
        if vectors is not None and begun.unsure:
            known = np.array([bool(of_mail(clues[row])) for row in begun.unsure])
            meaning = self._meaning.scores(vectors)
            every = np.concatenate([begun.read.scores[begun.unsure], meaning[:, None]], axis=1)
            scores[begun.unsure] = self._mixed("encoder", every, known)
        stages = dict.fromkeys(begun.unsure, "words alone" if vectors is None else "encoder")
        return [
            Verdict(float(scores[row]), stages.get(row, "words"), tuple(reasons(tuple(clues[row]))))
            for row in range(len(scores))
        ]

    def by_words(self, text: str) -> float:
        """The probability of spam of a mail by its words alone: no clues, no encoder, about a millisecond."""
        return float(self.begin(self.read([text], [()])).scores[0])

    def stage(self, text: str, clues: Clues) -> str:
        """`words` where the first stage is sure of a text, else `encoder`."""
        self.load()
        clues = of_mail(clues)
        known = np.array([bool(clues)])
        score = self._mixed("words", self._cheap(hashed(text), clue_columns(clues))[None, :], known)[0]
        low, high = self._sure[0 if clues else 1]
        return "encoder" if low < score < high else "words"

    def evidence(self, text: str, clues: Clues = (), *, limit: int = 5) -> list[tuple[str, float]]:
        """Words and clues that weighed most for (positive) or against (negative) spam, strongest first."""
        self.load()
        named = {word: _column(word) for word in tokens(text) if not word.startswith("#host:")}
        named |= {clue: _column("c:" + clue) for clue in of_mail(clues)}
        weighed = [(name, float(self._words[place])) for name, place in named.items()]
        return sorted(weighed, key=lambda pair: -abs(pair[1]))[:limit]

    # -- inside

    def _cheap(self, text: Columns, clues: Columns) -> Floats:
        """Scores of the linear head and of the envelope, before any calibration."""
        linear = self._words_bias + _scaled(self._words[text]) + _scaled(self._words[clues])
        return np.array([linear, self._built(clues)], dtype=np.float32)

    def _built(self, clues: Columns) -> float:
        """How the mail is addressed and built, by the training mails that it is like; nothing without clues."""
        if not len(clues):
            return 0.0
        places = np.searchsorted(self._vocabulary, clues)
        known = places[self._vocabulary[np.minimum(places, len(self._vocabulary) - 1)] == clues]
        likeness = self._by_clue[known].sum(axis=0) / np.float32(np.sqrt(len(clues)))  # a mail has few of all the clues
        return float(self._envelope.of_likeness(likeness))

    def _mixed(self, stage: str, scores: Floats, known: npt.NDArray[np.bool_]) -> Floats:
        with_clues, without = self._mixes[stage]
        return np.where(known, with_clues.probabilities(scores), without.probabilities(scores))

    def _load(self) -> None:
        try:
            meta = json.loads((self.folder / "manifest.json").read_text(encoding="utf-8"))
            if not isinstance(meta, dict) or meta.get("format") != FORMAT:
                raise ModelUnavailable(f"{self.folder.name}/ holds another format: {_FIX}")
            for name in FILES:
                if hashlib.sha256((self.folder / name).read_bytes()).hexdigest() != meta["files"][name]:
                    raise ModelUnavailable(f"{name} is not the file its manifest names (truncated or altered): {_FIX}")
            self._open(meta)
        except ModelUnavailable:
            raise
        except OSError as error:
            lost = Path(str(error.filename)).name
            raise ModelUnavailable(f"{lost} is missing from {self.folder.name}/: {_FIX}") from error
        except Exception as error:  # the runtime raises classes of its own, directly under Exception
            raise ModelUnavailable(f"{self.folder.name}/ is no judge of ours ({error!s:.200}): {_FIX}") from error

    def _open(self, meta: dict[str, Any]) -> None:
        stored = arrays_in(self.folder / "spam.npz")
        self._words = stored["words"].astype(np.float32)
        self._meaning, self._envelope = (Kernel.of(meta["kernels"][name], stored, name) for name in KERNELS)
        self._vocabulary = stored["vocabulary"].astype(np.int64)
        self._by_clue = np.ascontiguousarray(self._envelope.support.T)
        if self._words.shape != (COLUMNS,):
            raise ModelUnavailable(f"spam.npz has {self._words.shape[0]} columns instead of {COLUMNS}: {_FIX}")
        self._words_bias = float(meta["words_bias"])
        self._sure = tuple((float(low), float(high)) for low, high in (meta["sure"][one] for one in _SIGHTS))
        self._mixes = {
            stage: (Mix.of(pair[_SIGHTS[0]]), Mix.of(pair[_SIGHTS[1]])) for stage, pair in meta["mix"].items()
        }
        self._manifest = meta


def _scaled(weights: Floats) -> float:
    return float(weights.sum() / np.sqrt(max(1, len(weights))))


def _column(token: str) -> int:
    return zlib.crc32(token.encode("utf-8", "replace")) % COLUMNS
