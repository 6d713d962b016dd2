"""One table between the tensors of a Hugging Face checkpoint and the parameters of our decoder."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from models.config import ModelConfig
from models.decoder import Model
from models.hf.config import CAUSAL_LM, SEQUENCE_CLASSIFICATION, TOKEN_CLASSIFICATION
from models.scalar_head import ScalarModel


@dataclasses.dataclass(frozen=True)
class TensorRule:
    """How one of our parameters is stored.

    Attributes:
      path: keys of the parameter in our tree.
      hf_name: name of the tensor; one with `{layer}` is a slice of a parameter stacked over layers.
      axes: for each axis of the stored tensor, which of our axes (those of one layer) it flattens.
        A linear layer is stored `[out, in]` and ours are `[in..., out...]`, so a query kernel
        `[D, N, H]` stored as `[N * H, D]` reads `((1, 2), (0,))`.
    """

    path: tuple[str, ...]
    hf_name: str
    axes: tuple[tuple[int, ...], ...]

    @property
    def stacked(self) -> bool:
        return "{layer}" in self.hf_name

    def hf_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Shape of the stored tensor for one layer's parameter of this shape."""
        return tuple(math.prod(shape[axis] for axis in group) for group in self.axes)

    def to_hf(self, array: np.ndarray) -> np.ndarray:
        """One layer's parameter as it is stored."""
        order = [axis for group in self.axes for axis in group]
        return np.ascontiguousarray(array.transpose(order).reshape(self.hf_shape(array.shape)))

    def read(self, stored: Any, shape: Sequence[int], index: Sequence[slice]) -> np.ndarray:
        """`parameter[index]` of one layer, reading no more of the file than that block needs.

        Args:
          stored: the tensor in the file, sliced when indexed (safetensors' `get_slice`).
          shape: shape of one layer's whole parameter.
          index: one slice for each of its axes.
        """
        bounds = [part.indices(size)[:2] for part, size in zip(index, shape, strict=True)]
        file_index, block_shape, rest = [], [], []
        for outer, *inner in self.axes:
            # Rows of the outermost axis are contiguous; a cut within them is made after reading.
            width = math.prod(shape[axis] for axis in inner)
            start, stop = bounds[outer]
            file_index.append(slice(start * width, stop * width))
            block_shape += [stop - start, *(shape[axis] for axis in inner)]
            rest += [slice(None), *(slice(*bounds[axis]) for axis in inner)]
        order = [axis for group in self.axes for axis in group]
        block = stored[tuple(file_index)].reshape(block_shape)[tuple(rest)]
        return block.transpose(np.argsort(order))


# [D, N, H], [N, H, D], [in, out], [N, H] and what is stored as it is.
_QKV, _OUT, _LINEAR, _BIAS = ((1, 2), (0,)), ((2,), (0, 1)), ((1,), (0,)), ((0, 1),)
_VECTOR, _MATRIX = ((0,),), ((0,), (1,))


def head_of(model: Model) -> str:
    """What `transformers` calls the head of this model."""
    if not isinstance(model, ScalarModel):
        return CAUSAL_LM
    return TOKEN_CLASSIFICATION if model.bias else SEQUENCE_CLASSIFICATION


def tensor_rules(config: ModelConfig, head: str = CAUSAL_LM) -> tuple[TensorRule, ...]:
    """The tensors of a checkpoint with this config, in the order in which they are written."""
    block = [
        ("attention_norm.scale", "input_layernorm.weight", _VECTOR),
        ("attention.q.kernel", "self_attn.q_proj.weight", _QKV),
        ("attention.k.kernel", "self_attn.k_proj.weight", _QKV),
        ("attention.v.kernel", "self_attn.v_proj.weight", _QKV),
        ("attention.o.kernel", "self_attn.o_proj.weight", _OUT),
        ("mlp_norm.scale", "post_attention_layernorm.weight", _VECTOR),
        ("mlp.gate.kernel", "mlp.gate_proj.weight", _LINEAR),
        ("mlp.up.kernel", "mlp.up_proj.weight", _LINEAR),
        ("mlp.down.kernel", "mlp.down_proj.weight", _LINEAR),
    ]
    if config.qkv_bias:
        block += [(f"attention.{p}.bias", f"self_attn.{p}_proj.bias", _BIAS) for p in "qkv"]
    if config.qk_norm:
        block += [
            (f"attention.{p}_norm.scale", f"self_attn.{p}_norm.weight", _VECTOR) for p in "qk"
        ]
    rules = [("embedding", "model.embed_tokens.weight", _MATRIX)]
    rules += [(f"layers.{ours}", f"model.layers.{{layer}}.{hf}", axes) for ours, hf, axes in block]
    rules += [("final_norm.scale", "model.norm.weight", _VECTOR)]
    if head != CAUSAL_LM:
        rules += [("score.kernel", "score.weight", _LINEAR)]
        if head == TOKEN_CLASSIFICATION:
            rules += [("score.bias", "score.bias", _VECTOR)]
    elif not config.tie_embeddings:
        rules += [("lm_head.kernel", "lm_head.weight", _LINEAR)]
    return tuple(TensorRule(tuple(path.split(".")), hf, axes) for path, hf, axes in rules)


def stored_tensors(model: Model) -> Iterator[tuple[str, tuple[int, ...], TensorRule, int]]:
    """`(name, stored shape, rule, layer)` of every tensor of a checkpoint."""
    for rule in tensor_rules(model.config, head_of(model)):
        shape = leaf(model.abstract_params, rule.path).shape[rule.stacked :]
        for layer in range(model.config.num_layers if rule.stacked else 1):
            yield rule.hf_name.format(layer=layer), rule.hf_shape(shape), rule, layer


def leaf(tree: Any, path: Sequence[str]) -> Any:
    """The leaf of a nested dict at this path."""
    for key in path:
        tree = tree[key]
    return tree
