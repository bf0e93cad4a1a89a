"""MiniLM as an int8 graph whose vectors stay near those of fp32. Needs the `train` extra (torch, transformers, onnx).

A plain dynamic quantisation loses most by its one scale for a whole text, and the rest by seven bits of the weights. Here columns
of the input that are far larger than the others are evened out into the weights (SmoothQuant, Xiao et al. 2022) and then mixed with
their neighbours by a rotation that the weights undo, so that no single value of a token is large (QuaRot, Ashkboos et al. 2024; here
in blocks of 32); weights are rounded one after the other so that each makes good the error of those before it on real activations
(GPTQ, Frantar et al. 2022).

What comes out of a normalisation, evened and mixed, is of nearly one size in every token, and so is what attention gives: one scale,
chosen once on real activations, serves all of it, and query, key, value and attention are one kernel. What comes out of GELU is
not: there each token has a scale of its own.

Since at most its own row decides a token's scale, texts of one length may share a pass: company changes no answer.
Seven bits of the weights (-63 to 63): on AVX2 without VNNI, VPMADDUBSW saturates with eight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["quantised"]

_LAYERS, _HEADS, _WIDTH, _PLACES = 6, 12, 384, 512
_LARGEST = 2**6 - 1
_SMOOTH = 0.65
"""How much of a column's size moves into the weights: 0 none of it, 1 all."""
_MIXED = 32
"""Neighbouring columns that one rotation mixes: a power of two that divides 384 and 1,536."""
_CUT = np.linspace(0.25, 1, 31)
"""Shares of the largest value that are tried as the largest that eight bits hold."""
_ROWS = 12
"""Tokens of each text whose activations the rounding goes by."""
_DAMPING = 0.1
_BLOCK = 64
_MICROSOFT = "com.microsoft"
Floats = npt.NDArray[np.float32]


@dataclass
class _Site:
    """What came into one product of matrices: the largest size of each column, and some rows."""

    largest: Floats = field(default_factory=lambda: np.zeros(0, dtype=np.float32))
    rows: list[Floats] = field(default_factory=list)

    def add(self, came: Floats, chance: np.random.Generator) -> None:
        sizes = np.abs(came).max(0)
        self.largest = np.maximum(self.largest, sizes) if len(self.largest) else sizes
        self.rows.append(came[chance.permutation(len(came))[:_ROWS]])

    def sample(self) -> Floats:
        return np.concatenate(self.rows)


def quantised(base: Path, texts: Sequence[Sequence[int]]) -> bytes:
    """The ONNX file of the model folder `base`; `texts` are token ids of some hundred texts like those it will read.

    `input_ids` (int64, batch x tokens, all of one length) to `embedding` (float32, batch x 384, length 1).
    """
    from safetensors.numpy import load_file

    weights = {name.removeprefix("bert."): value for name, value in load_file(str(base / "model.safetensors")).items()}
    return _Graph(weights, _activations(base, texts)).build()


def _activations(base: Path, texts: Sequence[Sequence[int]]) -> dict[str, _Site]:
    import torch
    from transformers import AutoModel

    network: Any = AutoModel.from_pretrained(base, attn_implementation="eager").eval()
    chance = np.random.default_rng(0)
    sites: dict[str, _Site] = {}

    def watch(module: Any, name: str) -> None:
        site = sites.setdefault(name, _Site())
        module.register_forward_pre_hook(lambda _, inputs: site.add(inputs[0][0].numpy(), chance))

    for number, layer in enumerate(network.encoder.layer):
        watch(layer.attention.self.query, f"{number}.qkv")
        watch(layer.attention.output.dense, f"{number}.out")
        watch(layer.intermediate.dense, f"{number}.up")
        watch(layer.output.dense, f"{number}.down")
    with torch.inference_mode():
        for ids in texts:
            network(input_ids=torch.tensor([list(ids)]))
    return sites


def _rounded(weights: Floats, came: Floats) -> tuple[npt.NDArray[np.int8], Floats]:
    """Whole numbers for `weights` (input x output) and the scale of each output, so that `came @ weights` changes least."""
    size = len(weights)
    second = came.T.astype(np.float64) @ came / len(came)
    second += np.eye(size) * _DAMPING * np.trace(second) / size
    upper = np.linalg.cholesky(np.linalg.inv(second)).T
    scale = np.maximum(np.abs(weights).max(0), 1e-12) / _LARGEST
    left = weights.astype(np.float64)
    whole = np.zeros(weights.shape, dtype=np.int8)
    for start in range(0, size, _BLOCK):
        end = min(size, start + _BLOCK)
        wrong = np.zeros((end - start, weights.shape[1]))
        for row in range(start, end):
            whole[row] = np.clip(np.round(left[row] / scale), -_LARGEST, _LARGEST)
            wrong[row - start] = (left[row] - whole[row] * scale) / upper[row, row]
            left[row + 1 : end] -= np.outer(upper[row, row + 1 : end], wrong[row - start])
        left[end:] -= upper[start:end, end:].T @ wrong
    return whole, scale.astype(np.float32)


def _signed(came: Floats) -> Floats:
    """Activations as their signed eight bits say them: zero at 128, one scale a token."""
    step = np.maximum(np.abs(came).max(1, keepdims=True), 1e-12) / 127
    return np.asarray(np.round(came / step) * step, dtype=np.float32)


def _step(came: Floats) -> float:
    """The step of eight bits that changes `came` least in the mean square: a few large values may be cut off."""

    def wrong(step: float) -> float:
        return float(np.square(_held(came, step) - came).mean())

    return min((float(one) for one in np.abs(came).max() * _CUT / 127), key=wrong)


def _held(came: Floats, step: float) -> Floats:
    """Activations as their eight bits say them: zero at 128, one scale for all of them."""
    return np.asarray(np.clip(np.round(came / step), -128, 127) * step, dtype=np.float32)


def _rotation(size: int) -> Floats:
    """Sylvester's matrix of +1 and -1, orthogonal: its transpose undoes it."""
    made = np.ones((1, 1), dtype=np.float32)
    while len(made) < size:
        made = np.block([[made, made], [made, -made]])
    return np.asarray(made / np.sqrt(size), dtype=np.float32)


def _in_blocks(rows: Floats) -> Floats:
    """Each row times the rotation, block by block, as the graph turns its values."""
    return np.asarray((rows.reshape(len(rows), -1, _MIXED) @ _rotation(_MIXED)).reshape(rows.shape), dtype=np.float32)


class _Graph:
    """The nodes of the network in the order they run. A value is the name of what a node gives, or of a stored array."""

    def __init__(self, weights: dict[str, Floats], sites: dict[str, _Site]) -> None:
        self._weights = weights
        self._sites = sites
        self._nodes: list[Any] = []
        self._stored: dict[str, Any] = {}

    def build(self) -> bytes:
        from onnx import TensorProto, checker, helper

        for name, value in {"largest": 127.0, "step": 1.0}.items():
            self._keep(name, np.array(value, dtype=np.float32))
        self._keep("middle", np.array(128, dtype=np.uint8))
        self._keep("rotation", _rotation(_MIXED))
        x = self._norm(self._words(), "embeddings.LayerNorm")
        for number in range(_LAYERS):
            place = f"encoder.layer.{number}"
            x = self._norm(self._do("Add", x, self._attention(x, number)), f"{place}.attention.output.LayerNorm")
            x = self._norm(self._do("Add", x, self._feed_forward(x, number)), f"{place}.output.LayerNorm")
        mean = self._do("ReduceMean", x, axes=[1], keepdims=0)
        self._nodes.append(
            helper.make_node("Div", [mean, self._do("ReduceL2", mean, axes=[1], keepdims=1)], ["embedding"])
        )
        graph = helper.make_graph(
            self._nodes,
            "sentence",
            [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"])],
            [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", _WIDTH])],
            list(self._stored.values()),
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid(_MICROSOFT, 1)]
        )
        model.ir_version = 9
        checker.check_model(model)
        return bytes(model.SerializeToString())

    # -- the parts of the network

    def _words(self) -> str:
        from onnx import TensorProto

        table = self._weights["embeddings.word_embeddings.weight"]
        scale = np.maximum(np.abs(table).max(1, keepdims=True), 1e-12) / 127
        words = self._do("Gather", self._keep("words", np.round(table / scale).astype(np.int8)), "input_ids")
        scales = self._do("Gather", self._keep("words.scale", scale.astype(np.float32)), "input_ids")
        first = self._weights["embeddings.token_type_embeddings.weight"][0]
        places = self._weights["embeddings.position_embeddings.weight"][:_PLACES] + first
        zero = self._keep("zero", np.array([0], dtype=np.int64))
        count = self._do("Shape", "input_ids", start=1, end=2)
        place = self._do("Slice", self._keep("places", places), zero, count, zero)
        return self._do("Add", self._do("Mul", self._do("Cast", words, to=TensorProto.FLOAT), scales), place)

    def _attention(self, x: str, number: int) -> str:
        own, out = f"encoder.layer.{number}.attention.self", f"encoder.layer.{number}.attention.output.dense"
        kinds = ("query", "key", "value")
        weights = np.concatenate([self._weights[f"{own}.{kind}.weight"] for kind in kinds]).T
        bias = np.concatenate([self._weights[f"{own}.{kind}.bias"] for kind in kinds])
        name = f"{number}.qkv"
        taken, whole, steps, step = self._steady(x, weights, name)
        none = self._keep("none", np.zeros(3 * _WIDTH, dtype=np.int8))
        given = taken, whole, self._keep(f"{name}.bias", bias), step, steps, "", "middle", none
        seen = self._do("QAttention", *given, domain=_MICROSOFT, num_heads=_HEADS)
        name = f"{number}.out"
        # What attention gives is even already: turning it gains nothing that can be seen.
        taken, whole, steps, step = self._steady(seen, self._weights[f"{out}.weight"].T, name, even=False)
        return self._integer(taken, whole, steps, step, self._keep(f"{name}.bias", self._weights[f"{out}.bias"]))

    def _feed_forward(self, x: str, number: int) -> str:
        place, up, down = f"encoder.layer.{number}", f"{number}.up", f"{number}.down"
        first, first_bias = (self._weights[f"{place}.intermediate.dense.{kind}"] for kind in ("weight", "bias"))
        second, second_bias = (self._weights[f"{place}.output.dense.{kind}"] for kind in ("weight", "bias"))
        y = self._integer(*self._steady(x, first.T, up), self._keep(f"{up}.bias", first_bias))
        product = self._product(self._do("Gelu", y, domain=_MICROSOFT), second.T, down)
        return self._do("Add", product, self._keep(f"{down}.bias", second_bias))

    # -- products in int8

    def _steady(self, x: str, weights: Floats, name: str, *, even: bool = True) -> tuple[str, str, str, str]:
        """`x` in eight bits of one scale for every token, the weights that it is to meet, their scales, and its own."""
        came = self._sites[name].sample()
        if even:
            inputs = np.maximum(self._sites[name].largest, 1e-3) ** _SMOOTH
            evened = inputs / np.maximum(np.abs(weights).max(1), 1e-3) ** (1 - _SMOOTH)
            evened = (evened / np.exp(np.log(evened).mean())).astype(np.float32)
            x = self._rotated(self._do("Mul", x, self._keep(f"{name}.even", 1 / evened)), len(weights))
            weights, came = _in_blocks((weights * evened[:, None]).T).T, _in_blocks(came / evened)
        size = _step(came)
        step = self._keep(f"{name}.step", np.array(size, dtype=np.float32))
        taken = self._do("QuantizeLinear", x, step, "middle")
        return taken, *self._weighed(weights, _held(came, size), name), step

    def _product(self, x: str, weights: Floats, name: str) -> str:
        """`x @ weights`, with `x` mixed and in eight bits of one scale a token."""
        x, weights, came = (
            self._rotated(x, len(weights)),
            _in_blocks(weights.T).T,
            _in_blocks(self._sites[name].sample()),
        )
        largest = self._do("ReduceMax", self._do("Abs", x), axes=[-1], keepdims=1)
        scaled = self._do("Mul", x, self._do("Div", "largest", largest))
        taken = self._do("QuantizeLinear", scaled, "step", "middle")
        y = self._integer(taken, *self._weighed(weights, _signed(came), name), "step")
        return self._do("Mul", y, self._do("Div", largest, "largest"))

    def _weighed(self, weights: Floats, came: Floats, name: str) -> tuple[str, str]:
        whole, steps = _rounded(weights, came)
        return self._keep(f"{name}.weight", whole), self._keep(f"{name}.steps", steps)

    def _integer(self, taken: str, whole: str, steps: str, step: str, bias: str = "") -> str:
        given = taken, whole, step, steps, "middle", *(("", bias) if bias else ())
        return self._do("MatMulIntegerToFloat", *given, domain=_MICROSOFT)

    def _rotated(self, x: str, size: int) -> str:
        apart = self._keep(f"apart.{size}", np.array([0, 0, size // _MIXED, _MIXED], dtype=np.int64))
        whole = self._keep(f"whole.{size}", np.array([0, 0, size], dtype=np.int64))
        return self._do("Reshape", self._do("MatMul", self._do("Reshape", x, apart), "rotation"), whole)

    def _norm(self, x: str, name: str) -> str:
        gain, bias = (self._keep(f"{name}.{kind}", self._weights[f"{name}.{kind}"]) for kind in ("weight", "bias"))
        return self._do("LayerNormalization", x, gain, bias, axis=-1, epsilon=1e-12)

    # -- nodes

    def _keep(self, name: str, array: npt.NDArray[Any]) -> str:
        from onnx import numpy_helper

        if name not in self._stored:
            stored = array.astype(np.float32) if array.dtype == np.float64 else array
            self._stored[name] = numpy_helper.from_array(np.ascontiguousarray(stored), name)
        return name

    def _do(self, kind: str, *inputs: str, domain: str = "", **values: Any) -> str:
        name = f"n{len(self._nodes)}"
        self._node(kind, list(inputs), [name], domain=domain, **values)
        return name

    def _node(self, kind: str, inputs: list[str], outputs: list[str], *, domain: str = "", **values: Any) -> None:
        from onnx import helper

        self._nodes.append(helper.make_node(kind, inputs, outputs, domain=domain, **values))
