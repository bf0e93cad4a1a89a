"""Names to models: `onnx:FOLDER`, `torch:BASE`, `llama:PACKAGE`, `llama:PATH.gguf`, `off`. Nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from assistant.errors import ConfigurationError
from models.bert import Encoder
from models.bert_torch import TorchEncoder
from models.heads.intents import Lessons
from models.heads.labeller import Labeller
from models.heads.taught import HeadLessons
from models.llama import Llama

__all__ = ["load_classifier", "load_embedder", "load_generator"]

SHIPPED = "deploy/weights/encoder"
_ROOT = Path(__file__).resolve().parent.parent
_encoders: dict[tuple[str, int, int], Encoder] = {}
_untaught: dict[tuple[str, int, int], Labeller] = {}


def load_embedder(spec: str, *, threads: int, tokens: int = 0) -> Encoder | None:
    """The encoder of a spec, one per process and spec; None for `off`. Weights are read on first use."""
    if spec == "off":
        return None
    kind, _, name = spec.partition(":")
    if kind not in {"onnx", "torch"} or not name:
        raise ConfigurationError([f"NOTIFYR_ENCODER: {spec!r} is not onnx:FOLDER, torch:BASE or off"])
    if kind == "torch":
        return _encoders.setdefault(
            (spec, threads, tokens), TorchEncoder(_ROOT / SHIPPED, name, threads=threads, tokens=tokens)
        )
    folder = Path(name) if Path(name).is_absolute() else _ROOT / name
    return _encoders.setdefault((str(folder), threads, tokens), Encoder(folder, threads=threads, tokens=tokens))


def load_classifier(
    spec: str,
    *,
    threads: int,
    tokens: int = 0,
    taught: Callable[[str], Lessons | None] | None = None,
    taught_spam: Callable[[str], Lessons | None] | None = None,
    taught_heads: Callable[[str], HeadLessons | None] | None = None,
    observe: Callable[[int], None] | None = None,
) -> Labeller | None:
    """Every head on the encoder of a spec; None for `off`. `taught...` give what people taught, see `Intents`,
    `SpamMemory` and `HeadMemory`; `observe` is told how many texts were encoded together.
    """
    encoder = load_embedder(spec, threads=threads, tokens=tokens)
    if encoder is None:
        return None
    if taught is not None or taught_spam is not None or taught_heads is not None:
        return Labeller(encoder, taught, taught_spam, taught_heads, observe=observe)
    return _untaught.setdefault((spec, threads, tokens), Labeller(encoder))


def load_generator(spec: str, *, threads: int, timeout: float) -> Llama | None:
    """The generator of a spec; None for `off`. Weights are read on first use."""
    if spec == "off":
        return None
    kind, _, name = spec.partition(":")
    if kind != "llama" or not name:
        raise ConfigurationError([f"NOTIFYR_GENERATOR: {spec!r} is not llama:PACKAGE, llama:PATH.gguf or off"])
    return Llama(name, threads=threads, timeout=timeout)
