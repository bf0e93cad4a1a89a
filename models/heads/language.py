"""The language of a text by py3langid (BSD): nothing is downloaded, no pickle is read.

Its own model knows 142 labels and takes 0.7 s of a core to unpack. `deploy/weights/language` holds the columns of the languages
below out of it (`models.training.language`), which answer the same and are there in a quarter of that. Without them, or where
they are not what their manifest names, the package's own model is read.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import threading
from array import array
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from assistant.values import Label
from models.parts import ONE_AT_A_TIME, arrays_in
from models.reading import readable

__all__ = ["ARRAYS", "FOLDER", "LANGUAGES", "Languages"]

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "weights" / "language"
ARRAYS = "language.npz"
LANGUAGES = (
    "ar bg bn cs da de el en es et fa fi fr he hi hr hu id it ja ko lt lv ms nl no pl pt ro ru sk sl sr sv th tr uk ur vi zh"
).split()
_READ = 2000
_LETTERS, _DENSE_LETTERS = 6, 2
"""Letters below which nobody can tell; Chinese, Japanese and Korean need two."""
_DENSE = re.compile("[\u3040-\u9fff\uac00-\ud7a3]")
_UNSIGNED = {2: "H", 4: "I", 8: "L"}
"""Bytes of a number -> its type code in `array`, whose items py3langid walks quicker than numpy's."""


class Languages:
    """Loaded on first use, once; safe to call from several threads."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._identifier: Any = None

    def label(self, texts: Sequence[str]) -> list[Label | None]:
        """`language:CODE` (ISO 639-1) with its probability, or None for a text that is too short to tell."""
        identifier = self._load()
        found: list[Label | None] = []
        for whole in texts:
            text = readable(whole[:_READ])
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
                self._identifier = _ours(self._folder) or _packaged()
            return self._identifier


def _ours(folder: Path) -> Any:
    """The identifier of the file in `folder`; None where it cannot be used."""
    from py3langid.langid import LanguageIdentifier

    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        packed = (folder / ARRAYS).read_bytes()
        if hashlib.sha256(packed).hexdigest() != manifest["files"][ARRAYS]:
            raise ValueError("it is not the file its manifest names")
        stored = arrays_in(io.BytesIO(packed))
        return LanguageIdentifier(
            stored["ptc"],
            stored["pc"],
            stored["classes"].tolist(),
            _numbers(stored["nextmove"]),
            stored["out_feat"].tolist(),
            norm_probs=True,
            tk_row=_numbers(stored["nextmove_row"]),
        )
    except (OSError, ValueError, LookupError, TypeError) as error:
        import structlog  # seldom needed, and as long to import as all the heads

        structlog.get_logger(__name__).warning(
            "language_model_of_the_package", reason=f"{type(error).__name__}: {error}"
        )
        return None


def _packaged() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    with ONE_AT_A_TIME:
        identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(LANGUAGES)
    return identifier


def _numbers(found: Any) -> array[int]:
    out = array(_UNSIGNED[found.dtype.itemsize])
    out.frombytes(memoryview(found).cast("B"))  # no copy on the way: one of them has 40 MB
    return out
