"""The decoder with a linear head that gives each token one number.

Verifiers, reward models and value functions are such models.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from models.config import ModelConfig
from models.decoder import Decoder, Model
from models.layers.dense import Projection


class ScalarDecoder(Decoder):
    """The decoder with a linear head `D -> 1` instead of an LM head."""

    def __init__(self, config: ModelConfig, bias: bool, rngs: nnx.Rngs):
        # With tied embeddings, `Decoder` makes no LM head.
        super().__init__(config.replace(tie_embeddings=True), rngs)
        self.config = config
        self.score = _head(config, bias, rngs)

    def values(self, hidden_D: jax.Array) -> jax.Array:
        """Returns float32 values `[...]`; see `ScalarModel.values`."""
        values = jnp.matmul(
            hidden_D,
            self.score.kernel[...][:, 0].astype(hidden_D.dtype),
            preferred_element_type=jnp.float32,
        )
        if self.score.has_bias:
            values = values + self.score.bias[...][0].astype(jnp.float32)
        return values


class ScalarModel(Model):
    """A model that gives every token one number; `Model` documents the methods that it inherits.

    The training objective decides what the number means. For a process or outcome verifier it is
    the logit of the probability that the solution so far ends right; for a reward model it is a
    reward on an arbitrary scale.

    Its parameters are those of a language model without `lm_head`, plus `score/kernel` `[D, 1]`
    and, with a bias, `score/bias` `[1]`.

    Attributes:
      bias: whether the head has a bias. The bias of a verifier expresses the base rate of its
        probability. A Bradley-Terry reward needs none, since a bias cancels in every difference.
    """

    def __init__(self, config: ModelConfig, bias: bool = True):
        self.bias = bias
        super().__init__(config)

    def module(self, rngs: nnx.Rngs) -> ScalarDecoder:
        """Builds the NNX module with random parameters."""
        return ScalarDecoder(self.config, self.bias, rngs)

    def values(self, params: Any, hidden_D: jax.Array) -> jax.Array:
        """Returns float32 values `[...]` for hidden states `[..., D]`, without a sigmoid."""
        return self.bind(params).values(hidden_D)

    def logits(self, params: Any, hidden_D: jax.Array) -> jax.Array:
        """Returns float32 logits `[..., V]` of the next token, computed with the tied embedding.

        Raises:
          ValueError: the config has untied embeddings; this model's parameters lack an LM head.
        """
        if not self.config.tie_embeddings:
            raise ValueError(
                "a scalar model can predict tokens only with its embedding, but this config has "
                "tie_embeddings=False: its LM head is not kept. Use a LanguageModel instead"
            )
        return self.bind(params).logits(hidden_D)

    def from_language_model(self, lm_params: Any, key: jax.Array) -> Any:
        """Returns parameters that share the decoder's arrays with a language model.

        The head is new: its kernel is normal with variance 1/D, as in arXiv:2009.01325 (appendix
        B), and its bias is zero.

        Args:
          lm_params: parameters of a language model with the same config.
          key: random key for the head.

        Raises:
          ValueError: the parameters belong to another model.
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
                f"these parameters belong to another model: {path} is {shapes.get(path, 'absent')} "
                f"and should be {wanted.get(path, 'absent')}; pass those of a language model with "
                "the same config"
            )
        return params


def _head(config: ModelConfig, bias: bool, rngs: nnx.Rngs) -> Projection:
    return Projection((config.embed_dim, 1), ("embed", None), 1, config, rngs, bias=bias)


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x.shape for path, x in leaves}
