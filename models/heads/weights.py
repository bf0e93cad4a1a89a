"""What is trained ahead of time for the heads beside spam: one file, in `labels/` of the encoder's folder.

The heads read the vectors of one encoder: the manifest names the checksum of its model, and any other is refused. It names a
checksum of each head, too, so that one that is damaged takes only itself.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from assistant.errors import ModelUnavailable
from models.heads.intents import Shipped
from models.heads.linear import Alike, Blend, Linear
from models.heads.mixed import Mixed
from models.heads.wording import COLUMNS
from models.parts import PASSING, Part, arrays_in, arrays_left

__all__ = ["FOLDER", "MIXED", "Weights", "fitted_arrays", "keep", "sums"]

FOLDER = "labels"
MIXED = ("optout", "reply_intent", "urgency", "sentiment")
"""Heads on wording and meaning."""
_FORMAT = 1
_ARRAYS = "labels.npz"
_FIX = "restore the folder from the release or rebuild it: notifyr train --only labels"
_PARTS = {"intent": ("vectors", "truth")} | dict.fromkeys(MIXED, ("wording", "meaning", "bias"))
_EXACT = "exact"
"""Of the intents' examples also the vectors of the network in fp32, where they were made: likeness of vectors of two engines is
no likeness of texts."""
_FITTED = ("fit_mean", "fit_weights", "fit_bias", "fit_alike", "fit_left_out")
"""Of the intents' examples also the head that is fitted to them, for as long as nobody taught it more."""
_MORE = (_EXACT, *_FITTED)
Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class _Found:
    """What was read of a folder: the heads that are whole, and why the others are not."""

    arrays: Arrays
    manifest: dict[str, Any]
    mixed: tuple[Mixed, ...]
    faults: dict[str, ModelUnavailable]


class Weights:
    """Read on first use, once. Raises `ModelUnavailable` (missing, altered, of another encoder) with the command that mends it."""

    def __init__(self, encoder: Path, *, exact: bool = False) -> None:
        """`exact`: for an encoder that runs the network in fp32."""
        self.folder = encoder / FOLDER
        self._exact = exact
        self._encoder = encoder
        self._part = Part(self._read, [self.folder / "manifest.json", self.folder / _ARRAYS, encoder / "manifest.json"])
        self._found: _Found | None = None

    def faults(self) -> dict[str, ModelUnavailable]:
        """Head -> why it cannot be used; empty where all of them are whole."""
        whole = self._part.fault()
        if whole is None:
            return {}
        return dict(self._found.faults) if self._found is not None else dict.fromkeys(_PARTS, whole)

    def shipped(self) -> Shipped:
        """The intents that come with the project."""
        fault = self.faults().get("intent")
        if fault is not None or self._found is None:
            raise ModelUnavailable(str(fault)) from fault
        arrays, spec = self._found.arrays, self._found.manifest["intent"]
        labels = tuple(spec["labels"][i] for i in arrays["intent.truth"])
        texts = tuple(spec["texts"])
        vectors = arrays[f"intent.{_EXACT}" if self._exact else "intent.vectors"].astype(np.float32)
        fitted = None
        if not self._exact and all(f"intent.{name}" in arrays for name in _FITTED):
            mean, weights, bias, alike, left_out = (arrays[f"intent.{name}"] for name in _FITTED)
            linear = Linear(mean, weights, bias)
            fitted = Blend(linear, Alike(vectors, alike), float(spec["temperature"])), left_out
        return Shipped(vectors, labels, (*texts, *[""] * (len(labels) - len(texts))), fitted)

    def mixed(self) -> tuple[Mixed, ...]:
        """The heads on wording and meaning that are whole: opt-out, kind of reply, urgency, sentiment."""
        self._part.fault()
        return self._found.mixed if self._found is not None else ()

    def read(self) -> tuple[Arrays, dict[str, Any]]:
        """The arrays of the heads that are whole, and the manifest of these. Raises where none of them is."""
        whole = self._part.fault()
        if self._found is None or not self._found.arrays:
            raise ModelUnavailable(str(whole)[:1500]) from whole
        return self._found.arrays, self._found.manifest

    def _read(self) -> None:
        manifest, packed = self._opened()
        encoder, dimensions = _of_encoder(self._encoder)
        if manifest.get("encoder") != encoder:
            raise ModelUnavailable(f"the heads in {FOLDER}/ were trained on another encoder: {_FIX}")
        known = manifest.get("sums")
        altered = hashlib.sha256(packed).hexdigest() != manifest.get("sha256")
        specs = _specs(manifest)
        arrays: Arrays = {}
        mixed: list[Mixed] = []
        faults: dict[str, ModelUnavailable] = {}
        for head in _PARTS:
            try:
                if head not in specs:
                    raise ValueError("its manifest does not name it")
                _said_once(specs[head])
                found = _arrays_of(head, packed, cut=isinstance(known, dict))
                if isinstance(known, dict) and _sum(specs[head], found) != known.get(head):
                    raise ValueError("it is not what its manifest names (truncated or altered)")
                made = _made(head, specs[head], found, dimensions)
                if head == "intent" and self._exact and _EXACT not in found:
                    raise ValueError("it has no vectors of the network in fp32; train it where torch is installed")
            except Exception as error:  # noqa: BLE001  # zip, zlib and numpy raise classes of their own; each is told in `faults`
                faults[head] = ModelUnavailable(f"the head {head} in {FOLDER}/ cannot be used: {error!s:.200}: {_FIX}")
                faults[head].__cause__ = error
            else:
                arrays |= {f"{head}.{name}": array for name, array in found.items()}
                mixed += [made] if made is not None else []
        causes = [fault.__cause__ for fault in faults.values()]
        passing = next((one for one in causes if isinstance(one, PASSING)), None)
        if altered and not passing and (len(faults) == len(_PARTS) or not isinstance(known, dict)):
            raise ModelUnavailable(f"{_ARRAYS} is not the file its manifest names (truncated or altered): {_FIX}")
        whole = {head: specs[head] for head in specs if head not in faults}
        shown = manifest | {
            "intent": whole.pop("intent", {"labels": [], "texts": []}),
            "heads": whole,
        }
        # Heads that are good stay, should the folder have got worse since they were read.
        if self._found is None or set(faults) <= set(self._found.faults):
            self._found = _Found(arrays, shown, tuple(mixed), faults)
        if faults:
            raise ModelUnavailable("; ".join(fault.message for fault in faults.values())) from passing

    def _opened(self) -> tuple[dict[str, Any], bytes]:
        try:
            manifest = json.loads((self.folder / "manifest.json").read_text(encoding="utf-8"), object_pairs_hook=_pairs)
            packed = (self.folder / _ARRAYS).read_bytes()
        except (OSError, ValueError, RecursionError) as error:
            raise ModelUnavailable(
                f"the heads in {FOLDER}/ cannot be read ({type(error).__name__}: {error!s:.500}): {_FIX}"
            ) from error
        if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
            raise ModelUnavailable(f"the heads in {FOLDER}/ are of another format: {_FIX}")
        return manifest, packed


def keep(encoder: Path, manifest: dict[str, Any], arrays: Arrays) -> None:
    """Write the heads of the encoder in a folder, with the checksums that `Weights` asks for."""
    folder = encoder / FOLDER
    folder.mkdir(exist_ok=True)
    np.savez_compressed(folder / _ARRAYS, **arrays)  # type: ignore[arg-type]  # savez's stub wants one array type
    full = manifest | {
        "format": _FORMAT,
        "encoder": _of_encoder(encoder)[0],
        "sha256": hashlib.sha256((folder / _ARRAYS).read_bytes()).hexdigest(),
        "sums": sums(manifest, arrays),
    }
    (folder / "manifest.json").write_text(
        json.dumps(full, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def fitted_arrays(head: Blend, left_out: npt.NDArray[np.float32]) -> Arrays:
    """A head of intents, as `keep` writes it beside the examples that it was fitted to."""
    parts = (head.linear.mean, head.linear.weights, head.linear.bias, head.alike.weights, left_out)
    return {f"intent.{name}": np.asarray(one, dtype=np.float32) for name, one in zip(_FITTED, parts, strict=True)}


def sums(manifest: Mapping[str, Any], arrays: Arrays) -> dict[str, str]:
    """The checksum of each head: its arrays, and what the manifest says of it."""
    specs = _specs(manifest)
    return {head: _sum(specs[head], _own(head, arrays)) for head in specs}


class _Twice(ValueError):
    """Stands for what a manifest says twice, and is raised by who needs it."""


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Two values of one name would hide each other: there is neither, and `_Twice` tells it."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        found[name] = _Twice(f"{name} is there twice") if name in found else value
    return found


def _specs(manifest: Mapping[str, Any]) -> dict[str, Any]:
    heads = manifest.get("heads")
    every = {"intent": manifest.get("intent")} | (dict(heads) if isinstance(heads, dict) else {})
    return {head: every[head] for head in _PARTS if every.get(head) is not None}


def _arrays_of(head: str, packed: bytes, *, cut: bool) -> Arrays:
    """`cut`: of a file without its end what is left will do, because the checksum of each head is known."""
    wanted = {f"{head}.{name}" for name in (*_PARTS[head], *_MORE)}
    try:
        found = arrays_in(io.BytesIO(packed), wanted)
    except zipfile.BadZipFile:
        found = arrays_left(packed, wanted) if cut else {}
    if lost := [name for name in _PARTS[head] if f"{head}.{name}" not in found]:
        raise ValueError(f"{_ARRAYS} has no {lost[0]} for it (truncated?)")
    return _own(head, found)


def _own(head: str, stored: Mapping[str, npt.NDArray[Any]]) -> Arrays:
    """The arrays of a head by their names within it."""
    wanted = (*_PARTS[head], *[name for name in _MORE if f"{head}.{name}" in stored])
    return {name: stored[f"{head}.{name}"] for name in wanted}


def _sum(spec: Any, arrays: Arrays) -> str:
    made = hashlib.sha256(json.dumps(spec, sort_keys=True, ensure_ascii=False).encode())
    for name in sorted(arrays):
        one = np.ascontiguousarray(arrays[name])
        made.update(f"{name} {one.dtype.str} {one.shape}".encode())
        made.update(one.tobytes())
    return made.hexdigest()


def _said_once(spec: Any) -> None:
    if isinstance(spec, _Twice):
        raise spec
    for one in spec.values() if isinstance(spec, dict) else ():
        _said_once(one)


def _made(head: str, spec: dict[str, Any], arrays: Arrays, dimensions: int) -> Mixed | None:
    """The head of its arrays, or nothing for the intents, whose head is trained where it is used. Raises what does not fit."""
    labels = spec["labels"]
    if not isinstance(labels, list) or not labels or len(set(labels)) != len(labels):
        raise ValueError("its labels are no list of names that are each there once")
    if not all(np.isfinite(one).all() for one in arrays.values()):
        raise ValueError("it has weights that are no numbers")
    if head == "intent":
        vectors, truth = arrays["vectors"], arrays["truth"]
        if vectors.shape != (len(truth), dimensions) or len(spec["texts"]) > len(truth) or truth.min() < 0:
            raise ValueError("its examples do not fit each other")
        if _EXACT in arrays and arrays[_EXACT].shape != vectors.shape:
            raise ValueError("its examples do not fit their vectors in fp32")
        if int(truth.max()) >= len(labels):
            raise ValueError("its examples have labels that it does not name")
        _check_fitted(spec, arrays, (len(truth), dimensions, len(labels)))
        return None
    classes = len(labels)
    wanted = {"wording": (COLUMNS, classes), "meaning": (dimensions, classes), "bias": (classes,)}
    if wrong := [name for name, shape in wanted.items() if arrays[name].shape != shape]:
        raise ValueError(f"its {wrong[0]} has the shape {arrays[wrong[0]].shape} instead of {wanted[wrong[0]]}")
    wording, meaning, bias = (arrays[name].astype(np.float32) for name in wanted)
    return Mixed(head, tuple(labels), wording, meaning, bias, float(spec["temperature"]))


def _check_fitted(spec: dict[str, Any], arrays: Arrays, shape: tuple[int, int, int]) -> None:
    """Raises where the head that came with the examples is not theirs: by then it would answer with other intents' names."""
    texts, dimensions, classes = shape
    if not any(name in arrays for name in _FITTED):
        return
    shapes = (dimensions,), (dimensions, classes), (classes,), (texts, classes), (texts, classes)
    for name, wanted in zip(_FITTED, shapes, strict=True):
        if name not in arrays or arrays[name].shape != wanted:
            raise ValueError(f"its {name} is missing or has another shape than {wanted}")
    if list(spec["labels"]) != sorted(spec["labels"]) or set(arrays["truth"].tolist()) != set(range(classes)):
        raise ValueError("it was fitted to other labels than it names")
    if not float(spec["temperature"]) > 0:
        raise ValueError("its temperature is no positive number")


def _of_encoder(encoder: Path) -> tuple[str, int]:
    """The checksum of the model and how long its vectors are, as its own manifest says: the encoder checks the file against it."""
    try:
        manifest = json.loads((encoder / "manifest.json").read_text(encoding="utf-8"))
        return str(manifest["files"]["model.onnx"]), int(manifest["dimensions"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise ModelUnavailable(f"the encoder's manifest in {encoder.name}/ cannot be read: {_FIX}") from error
