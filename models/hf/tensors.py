"""Maps the tensors of a Hugging Face checkpoint to the parameters of our decoder and back."""

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
    """Describes how a checkpoint stores one of our parameters.

    Attributes:
      path: keys of the parameter in our tree.
      hf_name: name of the tensor. A name with `{layer}` is one slice of a parameter that is stacked
        over layers; a name with `{expert}` too is stacked over layers and experts.
      axes: for each axis of the stored tensor, the axes of our slice that it flattens. A linear
        layer is stored as `[out, in]` and ours is `[in..., out...]`, so a query kernel `[D, N, H]`
        that is stored as `[N * H, D]` has axes `((1, 2), (0,))`.
      first_layer: number of the layer in the checkpoint that is the first of our stack.
    """

    path: tuple[str, ...]
    hf_name: str
    axes: tuple[tuple[int, ...], ...]
    first_layer: int = 0

    @property
    def stacked(self) -> int:
        """Returns the number of leading axes of the parameter that the stored tensor lacks."""
        return ("{layer}" in self.hf_name) + ("{expert}" in self.hf_name)

    def name(self, index: Sequence[int]) -> str:
        """Returns the name of the tensor for `parameter[index]`; `index` is over stacked axes."""
        layer, expert, *_ = (*index, 0, 0)
        return self.hf_name.format(layer=self.first_layer + layer, expert=expert)

    def hf_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Returns the shape of the stored tensor for a slice of our parameter with this shape."""
        return tuple(math.prod(shape[axis] for axis in group) for group in self.axes)

    def to_hf(self, array: np.ndarray) -> np.ndarray:
        """Converts one slice of the parameter to the stored layout."""
        order = [axis for group in self.axes for axis in group]
        return np.ascontiguousarray(array.transpose(order).reshape(self.hf_shape(array.shape)))

    def read(self, stored: Any, shape: Sequence[int], index: Sequence[slice]) -> np.ndarray:
        """Returns the block `index` of one slice, and reads only the rows that hold the block.

        Args:
          stored: the tensor in the file, read when it is indexed (safetensors' `get_slice`).
          shape: shape of the whole slice of the parameter.
          index: one Python slice for each axis of `shape`.
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
    """Returns the suffix of the `transformers` class for the head of this model."""
    if not isinstance(model, ScalarModel):
        return CAUSAL_LM
    return TOKEN_CLASSIFICATION if model.bias else SEQUENCE_CLASSIFICATION


def tensor_rules(config: ModelConfig, head: str = CAUSAL_LM) -> tuple[TensorRule, ...]:
    """Returns the rules for all tensors of a checkpoint, in the order of writing."""
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
    """Yields `(name, stored shape, rule, index of the slice)` for every tensor of a checkpoint."""
    for rule in tensor_rules(model.config, head_of(model)):
        shape = leaf(model.abstract_params, rule.path).shape
        for index in np.ndindex(*shape[: rule.stacked]):
            yield rule.name(index), rule.hf_shape(shape[rule.stacked :]), rule, index


def leaf(tree: Any, path: Sequence[str]) -> Any:
    """Returns the leaf of a nested dict at this path."""
    for key in path:
        tree = tree[key]
    return tree
