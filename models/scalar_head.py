"""The one decoder with a learned scalar on top: verifiers, reward models, value functions."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from models.config import ModelConfig
from models.decoder import Decoder, Model
from models.layers.dense import Projection


class ScalarDecoder(Decoder):
    """The decoder with a linear head `D -> 1` in the place of its LM head."""

    def __init__(self, config: ModelConfig, bias: bool, rngs: nnx.Rngs):
        # A decoder with tied embeddings has no LM head of its own.
        super().__init__(config.replace(tie_embeddings=True), rngs)
        self.config = config
        self.score = _head(config, bias, rngs)

    def values(self, hidden_D: jax.Array) -> jax.Array:
        """See `ScalarModel.values`."""
        values = jnp.matmul(
            hidden_D,
            self.score.kernel[...][:, 0].astype(hidden_D.dtype),
            preferred_element_type=jnp.float32,
        )
        if self.score.has_bias:
            values = values + self.score.bias[...][0].astype(jnp.float32)
        return values


class ScalarModel(Model):
    """A decoder that gives every token one number; see `LanguageModel` for the rest.

    What the number means is the objective's affair: the logit of the probability that the solution
    so far ends right (a process or outcome verifier), or a reward on an arbitrary scale.

    Its parameters are those of a language model without `lm_head`, and `score/kernel` `[D, 1]`,
    with a bias also `score/bias` `[1]`.

    Attributes:
      bias: whether the head has one. It carries the base rate of a probability. A Bradley-Terry
        reward has none: it would cancel in every difference.
    """

    def __init__(self, config: ModelConfig, bias: bool = True):
        self.bias = bias
        super().__init__(config)

    def module(self, rngs: nnx.Rngs) -> ScalarDecoder:
        return ScalarDecoder(self.config, self.bias, rngs)

    def values(self, params: Any, hidden_D: jax.Array) -> jax.Array:
        """Float32 values `[...]` of hidden states `[..., D]`: no sigmoid is taken."""
        return self.bind(params).values(hidden_D)

    def logits(self, params: Any, hidden_D: jax.Array) -> jax.Array:
        """Float32 logits `[..., V]` of the next token, by the tied embedding.

        Raises:
          ValueError: a config whose LM head, which these parameters lack, is not its embedding.
        """
        if not self.config.tie_embeddings:
            raise ValueError(
                "a scalar model predicts tokens by its embedding alone, and this config has "
                "tie_embeddings=False: its LM head is not kept"
            )
        return self.bind(params).logits(hidden_D)

    def from_language_model(self, lm_params: Any, key: jax.Array) -> Any:
        """Parameters that share the decoder's arrays with a language model of the same config.

        The head is new: normal with variance 1/D, as in arXiv:2009.01325 (appendix B), its bias
        zero.

        Raises:
          ValueError: parameters of another model.
        """
        params = {name: leaf for name, leaf in lm_params.items() if name != "lm_head"}
        head = _head(self.config, self.bias, nnx.Rngs(params=key))
        params["score"] = nnx.to_pure_dict(nnx.state(head))
        shapes, wanted = (_shapes(tree) for tree in (params, self.abstract_params))
        if differing := sorted(
            path for path in shapes | wanted if shapes.get(path) != wanted.get(path)
        ):
            path = differing[0]
            raise ValueError(
                f"these parameters are of another model: {path} is {shapes.get(path, 'absent')} "
                f"and should be {wanted.get(path, 'absent')}; pass those of a language model with "
                "the same config"
            )
        return params


def _head(config: ModelConfig, bias: bool, rngs: nnx.Rngs) -> Projection:
    return Projection((config.embed_dim, 1), ("embed", None), 1, config, rngs, bias=bias)


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x.shape for path, x in leaves}
