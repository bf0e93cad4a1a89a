"""What the classifier's speed is measured against: `transformers.pipeline` on the same network, and the machine's own peak."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from assistant.clock import monotonic
from tests.support.goals import FP32_LABELS

__all__ = ["CORES", "GOALS", "best_rates", "flops", "peak", "pipeline", "say", "setting"]

CORES = 2
LAYERS, WIDTH = 6, 384
GOALS = {
    "one by one": 3.0,
    "batch_size=32": 6.0,
    "spam alone": 20.0,
    "fp32 labels": FP32_LABELS,
    "fp32 peak": 0.8,
    "p50 ms": 40.0,
    "first label s": 1.0,
}


def say(text: str) -> None:
    """A line of the report."""
    sys.stdout.write(f"\n  {text}")
    sys.stdout.flush()


def setting() -> str:
    """Machine, load and versions, for beside the figures."""
    with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("onnxruntime", "tokenizers", "torch", "transformers")
    )
    load = " ".join(f"{one:.2f}" for one in os.getloadavg())
    model = names[0] if names else platform.machine()
    return f"{len(names)} x {model}, load {load}; Python {platform.python_version()}, {versions}"


def best_rates(
    engines: dict[str, Callable[[Sequence[str]], object]], texts: Sequence[str], rounds: int
) -> dict[str, float]:
    """Texts a second of each engine, its best round; the engines take turns, so that other load meets them alike."""
    best = dict.fromkeys(engines, 0.0)
    for _ in range(rounds):
        for name, act in engines.items():
            began = monotonic()
            act(texts)
            best[name] = max(best[name], len(texts) / (monotonic() - began))
    return best


def pipeline(base: Path, limit: int) -> Any:
    """`transformers.pipeline` for text classification as its documentation has it: fp32, front of a text, on every core."""
    import torch
    import transformers

    torch.set_num_threads(CORES)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model = transformers.AutoModelForSequenceClassification.from_pretrained(base, num_labels=15, local_files_only=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(base, model_max_length=limit, local_files_only=True)
    return transformers.pipeline("text-classification", model=model.eval(), tokenizer=tokenizer, device="cpu")


def flops(tokens: int) -> float:
    """Multiply-adds times two of one pass: 12 d^2 per token and layer in the matrices, 2 n d in the attention."""
    return LAYERS * tokens * 2 * (12 * WIDTH * WIDTH + 2 * tokens * WIDTH)


def peak() -> float:
    """fp32 matrix products on every core at once, GFLOP/s, best of ten. numpy is kept to one thread a product."""
    size = 1024
    a = np.random.default_rng(0).random((size, size), dtype=np.float32)

    def multiply(_: int) -> None:
        a @ a

    best = 0.0
    with ThreadPoolExecutor(CORES) as pool:
        for _ in range(10):
            began = monotonic()
            list(pool.map(multiply, range(2 * CORES)))
            best = max(best, 2 * CORES * 2 * size**3 / (monotonic() - began) / 1e9)
    return best
