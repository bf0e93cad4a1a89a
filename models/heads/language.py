"""The language of a text by py3langid (BSD; its model lies in the package): nothing is downloaded, no pickle is read."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from itertools import islice
from typing import Any

from assistant.values import Label

__all__ = ["LANGUAGES", "Languages"]

LANGUAGES = (
    "ar bg bn cs da de el en es et fa fi fr he hi hr hu id it ja ko lt lv ms nl no pl pt ro ru sk sl sr sv th tr uk ur vi zh"
).split()
_READ = 2000
_LETTERS, _DENSE_LETTERS = 6, 2
"""Letters below which nobody can tell; Chinese, Japanese and Korean need two."""
_DENSE = re.compile("[\u3040-\u9fff\uac00-\ud7a3]")


class Languages:
    """Loaded on first use, once (half a second, most of it outside the interpreter); safe to call from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._identifier: Any = None

    def label(self, texts: Sequence[str]) -> list[Label | None]:
        """`language:CODE` (ISO 639-1) with its probability, or None for a text that is too short to tell."""
        identifier = self._load()
        found: list[Label | None] = []
        for whole in texts:
            text = whole[:_READ]
            enough = len(list(islice(filter(str.isalpha, text), _LETTERS))) == _LETTERS
            if not enough and len(_DENSE.findall(text)) < _DENSE_LETTERS:
                found.append(None)
                continue
            code, probability = identifier.classify(text)
            found.append(Label(f"language:{code}", float(probability)))
        return found

    def load(self) -> None:
        """Read the model now instead of on first use."""
        self._load()

    def _load(self) -> Any:
        with self._lock:
            if self._identifier is None:
                from py3langid.langid import MODEL_FILE, LanguageIdentifier

                identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
                identifier.set_languages(LANGUAGES)
                self._identifier = identifier
            return self._identifier
