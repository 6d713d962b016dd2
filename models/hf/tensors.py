"""One table between the tensors of a Hugging Face checkpoint and the parameters of our decoder."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from models.config import ModelConfig
from models.decoder import Model
from models.hf.config import CAUSAL_LM, SEQUENCE_CLASSIFICATION, TOKEN_CLASSIFICATION
from models.hf.families import get_family
from models.hf.families.family import LINEAR, MATRIX, VECTOR
from models.scalar_head import ScalarModel


@dataclasses.dataclass(frozen=True)
class TensorRule:
    """How one of our parameters is stored.

    Attributes:
      path: keys of the parameter in our tree.
      hf_name: name of the tensor; one with `{layer}` is a slice of a parameter stacked over layers,
        one with `{expert}` too of one stacked over layers and experts.
      axes: for each axis of the stored tensor, which of our axes (those of one slice) it flattens.
        A linear layer is stored `[out, in]` and ours are `[in..., out...]`, so a query kernel
        `[D, N, H]` stored as `[N * H, D]` reads `((1, 2), (0,))`.
    """

    path: tuple[str, ...]
    hf_name: str
    axes: tuple[tuple[int, ...], ...]
    first_layer: int = 0

    @property
    def stacked(self) -> int:
        """Leading axes of the parameter that are not in the stored tensor."""
        return ("{layer}" in self.hf_name) + ("{expert}" in self.hf_name)

    def name(self, index: Sequence[int]) -> str:
        """Name of the tensor that holds `parameter[index]`, an index of the stacked axes."""
        layer, expert, *_ = (*index, 0, 0)
        return self.hf_name.format(layer=self.first_layer + layer, expert=expert)

    def hf_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Shape of the stored tensor for one slice of this shape."""
        return tuple(math.prod(shape[axis] for axis in group) for group in self.axes)

    def to_hf(self, array: np.ndarray) -> np.ndarray:
        """One slice of the parameter as it is stored."""
        order = [axis for group in self.axes for axis in group]
        return np.ascontiguousarray(array.transpose(order).reshape(self.hf_shape(array.shape)))

    def read(self, stored: Any, shape: Sequence[int], index: Sequence[slice]) -> np.ndarray:
        """`slice[index]` of the parameter, reading no more of the file than that block needs.

        Args:
          stored: the tensor in the file, sliced when indexed (safetensors' `get_slice`).
          shape: shape of the whole slice.
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


def head_of(model: Model) -> str:
    """What `transformers` calls the head of this model."""
    if not isinstance(model, ScalarModel):
        return CAUSAL_LM
    return TOKEN_CLASSIFICATION if model.bias else SEQUENCE_CLASSIFICATION


def tensor_rules(config: ModelConfig, head: str = CAUSAL_LM) -> tuple[TensorRule, ...]:
    """The tensors of a checkpoint with this config, in the order in which they are written."""
    family = get_family(config.family)
    rules: list[tuple[Any, ...]] = [("embedding", "model.embed_tokens.weight", MATRIX, 0)]
    for stack, layers in config.stacks.items():
        block = [
            ("attention_norm.scale", "input_layernorm.weight", VECTOR),
            *family.layer(config, stack),
            ("mlp_norm.scale", "post_attention_layernorm.weight", VECTOR),
        ]
        rules += [
            (f"{stack}.{ours}", f"model.layers.{{layer}}.{hf}", axes, layers.start)
            for ours, hf, axes in block
        ]
    rules += [("final_norm.scale", "model.norm.weight", VECTOR, 0)]
    if head != CAUSAL_LM:
        rules += [("score.kernel", "score.weight", LINEAR, 0)]
        if head == TOKEN_CLASSIFICATION:
            rules += [("score.bias", "score.bias", VECTOR, 0)]
    elif not config.tie_embeddings:
        rules += [("lm_head.kernel", "lm_head.weight", LINEAR, 0)]
    return tuple(TensorRule(tuple(path.split(".")), *rest) for path, *rest in rules)


def stored_tensors(
    model: Model,
) -> Iterator[tuple[str, tuple[int, ...], TensorRule, tuple[int, ...]]]:
    """`(name, stored shape, rule, index of the slice)` of every tensor of a checkpoint."""
    for rule in tensor_rules(model.config, head_of(model)):
        shape = leaf(model.abstract_params, rule.path).shape
        for index in np.ndindex(*shape[: rule.stacked]):
            yield rule.name(index), rule.hf_shape(shape[rule.stacked :]), rule, index


def leaf(tree: Any, path: Sequence[str]) -> Any:
    """The leaf of a nested dict at this path."""
    for key in path:
        tree = tree[key]
    return tree
