"""What is trained ahead of time for the heads beside spam: one file with its checksum, in `labels/` of the encoder's folder.

The heads read the vectors of one encoder: the manifest names the checksum of its model, and any other is refused.
"""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from assistant.errors import ModelUnavailable
from models.bert import _once
from models.heads.intents import Shipped
from models.heads.mixed import Mixed

__all__ = ["FOLDER", "Weights", "keep"]

FOLDER = "labels"
_FORMAT = 1
_ARRAYS = "labels.npz"
_FIX = "restore the folder from the release or rebuild it: notifyr train --only labels"


class Weights:
    """Read on first use, once. Raises `ModelUnavailable` (missing, altered, of another encoder) with the command that mends it."""

    def __init__(self, encoder: Path) -> None:
        self.folder = encoder / FOLDER
        self._encoder = encoder
        self._lock = threading.Lock()
        self._arrays: dict[str, npt.NDArray[Any]] = {}
        self._manifest: dict[str, Any] = {}

    def shipped(self) -> Shipped:
        """The intents that come with the project."""
        arrays, manifest = self.read()
        names = manifest["intent"]["labels"]
        texts = manifest["intent"]["texts"]
        labels = tuple(names[i] for i in arrays["intent.truth"])
        return Shipped(
            arrays["intent.vectors"].astype(np.float32), labels, (*texts, *[""] * (len(labels) - len(texts)))
        )

    def mixed(self) -> tuple[Mixed, ...]:
        """The heads on wording and meaning: opt-out, kind of reply, urgency, sentiment."""
        arrays, manifest = self.read()
        return tuple(
            Mixed(
                name,
                tuple(spec["labels"]),
                arrays[f"{name}.wording"].astype(np.float32),
                arrays[f"{name}.meaning"].astype(np.float32),
                arrays[f"{name}.bias"].astype(np.float32),
                float(spec["temperature"]),
            )
            for name, spec in manifest["heads"].items()
        )

    def read(self) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
        """Every array by name, and the manifest."""
        with self._lock:
            if not self._manifest:
                self._read()
            return self._arrays, self._manifest

    def _read(self) -> None:
        try:
            manifest = json.loads((self.folder / "manifest.json").read_text(encoding="utf-8"), object_pairs_hook=_once)
            packed = (self.folder / _ARRAYS).read_bytes()
        except (OSError, ValueError, RecursionError) as error:
            raise ModelUnavailable(
                f"the heads in {FOLDER}/ cannot be read ({type(error).__name__}: {error}): {_FIX}"
            ) from error
        if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
            raise ModelUnavailable(f"the heads in {FOLDER}/ are of another format: {_FIX}")
        if hashlib.sha256(packed).hexdigest() != manifest.get("sha256"):
            raise ModelUnavailable(f"{_ARRAYS} is not the file its manifest names (truncated or altered): {_FIX}")
        if manifest.get("encoder") != _digest(self._encoder):
            raise ModelUnavailable(f"the heads in {FOLDER}/ were trained on another encoder: {_FIX}")
        with np.load(self.folder / _ARRAYS, allow_pickle=False) as stored:
            self._arrays = {name: stored[name] for name in stored.files}
        self._manifest = manifest


def keep(encoder: Path, manifest: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]) -> None:
    """Write the heads of the encoder in a folder, with the checksums that `Weights` asks for."""
    folder = encoder / FOLDER
    folder.mkdir(exist_ok=True)
    np.savez_compressed(folder / _ARRAYS, **arrays)  # type: ignore[arg-type]  # savez's stub wants one array type
    full = manifest | {
        "format": _FORMAT,
        "encoder": _digest(encoder),
        "sha256": hashlib.sha256((folder / _ARRAYS).read_bytes()).hexdigest(),
    }
    (folder / "manifest.json").write_text(
        json.dumps(full, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def _digest(encoder: Path) -> str:
    """The checksum of the model as its own manifest names it: the encoder checks the file against it."""
    try:
        return str(json.loads((encoder / "manifest.json").read_text(encoding="utf-8"))["files"]["model.onnx"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise ModelUnavailable(f"the encoder's manifest in {encoder.name}/ cannot be read: {_FIX}") from error
