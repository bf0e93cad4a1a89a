"""Train spam on the frozen encoder: mails and text messages. Needs scikit-learn (`train` extra).

Minutes on two cores: the encoder runs once over the texts. Base models see `train`, the mix of encoder and words sees `recent`
only, `test` is only reported. The other heads are `models.training.labels`'.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from assistant.errors import ModelUnavailable
from models.bert import FORMAT, Encoder, pack
from models.features import hashed
from models.spam import FOLDER as SPAM_FOLDER
from models.training.corpora import Sample
from models.training.labels import optout_phrases
from models.training.spam import GAMMA, matrix_of, sure_between, train_spam

__all__ = ["SHORT_BELOW", "everyday", "train_heads", "train_mails"]

MAX_TOKENS = 128
"""Of a longer text the front and the end. With 256 the encoder took twice as long and the judge of mails was no better: the
words are counted in the whole text (docs/model-card.md)."""
SHORT_BELOW = 240
"""Characters below which a single line is judged as a short text (SMS, a line of chat)."""
_SHORT_MAIL = 400
"""Mails below so many characters help to train the judge of short texts."""
_SEED = 7
_SURE = 0.05, 0.9
"""What words are believed at least below and above; `sure_between` narrows it where the newest slice of train says otherwise.

Of that slice words alone above 0.9 cost neither recall at 0.1 % false positives nor the area under the curve, and they leave a
seventh fewer messages open than 0.98; below 0.08 instead of 0.05 they cost both.
"""
_GREETINGS = (
    "Hello,",
    "Hi there,",
    "Dear Sir or Madam,",
    "Good morning,",
    "Hi,",
    "Dear team,",
    "To whom it may concern,",
)
_FAREWELLS = (
    "Kind regards,\nAda Okafor",
    "Thanks,\nBo",
    "Best wishes\nMaria Lind\nAccounts, Northwind Ltd\n+44 20 7946 0101",
    "Yours sincerely,\nJ. Meyer",
    "Thank you!\nPriya",
    "Regards,\nTom Adams\nPurchasing Manager",
)


def _short_part(encoder: Encoder, samples: list[Sample]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both halves learn from `train` while the mix is fitted on `recent`, then once more from both."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import SVC

    vectors = encoder.embed([sample.text for sample in samples])
    matrix = matrix_of([hashed(sample.text, short=True) for sample in samples])
    truth = np.array([sample.label == "spam" for sample in samples], dtype=int)
    old = np.array([sample.part == "train" for sample in samples])

    def halves(rows: npt.NDArray[np.bool_]) -> tuple[Any, Any]:
        words = LogisticRegression(C=100.0, max_iter=300, solver="liblinear", random_state=_SEED)
        meaning = SVC(C=10.0, gamma=GAMMA)
        return words.fit(matrix[rows], truth[rows]), meaning.fit(vectors[rows], truth[rows])

    words, meaning = halves(old)
    lexical = words.decision_function(matrix[~old])
    pair = np.stack([meaning.decision_function(vectors[~old]), lexical], axis=1)
    mix = LogisticRegression(C=1.0, random_state=_SEED).fit(pair, truth[~old])
    alone = LogisticRegression(C=1.0, random_state=_SEED).fit(lexical[:, None], truth[~old])
    odds = alone.predict_proba(lexical[:, None])[:, 1]
    whole = mix.predict(pair) == 1
    words, meaning = halves(np.ones(len(samples), dtype=bool))
    arrays = {
        "words": words.coef_[0].astype(np.float16),
        "support": meaning.support_vectors_.astype(np.float16),
        "duals": meaning.dual_coef_[0].astype(np.float32),
    }
    spec = {
        "words_bias": float(words.intercept_[0]),
        "meaning_bias": float(meaning.intercept_[0]),
        "gamma": GAMMA,
        "mix": [float(mix.coef_[0][0]), float(mix.coef_[0][1]), float(mix.intercept_[0])],
        "alone": [float(alone.coef_[0][0]), float(alone.intercept_[0])],
        "between": list(sure_between(odds, truth[~old] == 1, whole, at_least=_SURE)),
        "trained_on": len(samples),
        "mixed_on": int((~old).sum()),
    }
    return spec, arrays


def _belongs(sample: Sample, *, short: bool) -> bool:
    if sample.source == "intents":
        return short == ("\n" not in sample.text)
    mail = sample.source != "sms"
    return (not mail or len(sample.text) < _SHORT_MAIL) if short else mail


def everyday(examples: dict[str, list[str]]) -> list[Sample]:
    """Ordinary questions to a shop, alone and as mails: public corpora know lists and newsletters, not customers."""
    found = []
    number = 0
    for texts in examples.values():
        for place, text in enumerate(texts):
            number += 1
            part = "recent" if number % 5 == 0 else "train"
            more, last = texts[(place + 1) % len(texts)], texts[(place + 2) % len(texts)]
            greeting, bye = _GREETINGS[number % len(_GREETINGS)], _FAREWELLS[number % len(_FAREWELLS)]
            mails = (
                f"{' '.join(more.split()[:5])}\n{greeting}\n\n{text} {more}\n\n{bye}",
                f"{' '.join(text.split()[:4])}\n{greeting}\n\n{text}\n{more} {last}\n\n{bye}",
            )
            found += [Sample(one, "ham", part, "intents", text) for one in (text, *mails)]
    # Opt-outs and their near misses in other languages: no alphabet is spam, though in the corpus some are nothing else.
    foreign = [phrase for phrase in optout_phrases() if phrase.language != "en"]
    for number, phrase in enumerate(foreign):
        mail = f"{' '.join(phrase.text.split()[:4])[:40]}\n{phrase.text}"
        found.append(Sample(mail, "ham", "recent" if number % 5 == 0 else "train", "intents", phrase.text))
    return found


def train_heads(folder: Path, samples: list[Sample], *, version: str, intents: Path) -> dict[str, Any]:
    """Train spam on the encoder in `folder` (model.onnx, tokenizer.json) and write heads and manifest there."""
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "architecture": "bert",
        "name": f"notifyr-encoder-{version}",
        "base": "sentence-transformers/all-MiniLM-L6-v2, Apache-2.0",
        "engine": "ONNX int8: a scale an output and, after GELU, a token; columns evened and turned in blocks of 32, GPTQ",
        "dimensions": 384,
        "max_tokens": MAX_TOKENS,
        "heads": {},
        "licence": "Apache-2.0 (weights of the base and of the heads)",
        "data": {
            "spam": "SpamAssassin public corpus (PDDL-1.0 as packaged), SMS Spam Collection v1 (CC BY 4.0), questions written for this project",
        },
        "files": {},
    }
    (folder / "heads.npz").unlink(missing_ok=True)
    pack(folder, manifest, {"empty": np.zeros(1)})
    encoder = _bare(folder)
    arrays: dict[str, npt.NDArray[Any]] = {}
    parts: dict[str, Any] = {}
    examples: dict[str, list[str]] = json.loads(intents.read_text(encoding="utf-8"))["examples"]
    samples = [*samples, *everyday(examples)]
    _train_mails(encoder, samples)
    chosen = [s for s in samples if s.part != "test" and _belongs(s, short=True)]
    parts["short"], found = _short_part(encoder, chosen)
    arrays |= {f"spam.short.{name}": value for name, value in found.items()}
    manifest["heads"]["spam"] = {"labels": ["ham", "spam"], "short_below": SHORT_BELOW, "parts": parts}
    pack(folder, manifest, arrays)
    return manifest


def train_mails(folder: Path, samples: list[Sample], *, intents: Path) -> dict[str, Any]:
    """Only the judge of mails, on the encoder in `folder`, as `train_heads` trains it. Raises `ModelUnavailable` without scikit-learn."""
    if importlib.util.find_spec("sklearn") is None:  # before minutes of the encoder, not after
        raise ModelUnavailable("scikit-learn is not installed: scripts/install_train.sh")
    examples: dict[str, list[str]] = json.loads(intents.read_text(encoding="utf-8"))["examples"]
    return _train_mails(Encoder(folder), [*samples, *everyday(examples)])


def _train_mails(encoder: Encoder, samples: list[Sample]) -> dict[str, Any]:
    mails = [one for one in samples if _belongs(one, short=False)]
    return train_spam(encoder.folder / SPAM_FOLDER, mails, encoder.embed([one.text for one in mails]))


def _bare(folder: Path) -> Encoder:
    """The encoder without heads, for embedding while they are trained."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["heads"] = {"spam": {"parts": {}, "short_below": SHORT_BELOW}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return Encoder(folder)
