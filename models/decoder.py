"""The decoder that every model of this project shares.

Inside, it consists of Flax NNX modules. Outside, `LanguageModel` offers pure functions over a
pytree of parameters. A block does not know where keys and values are stored: its caller passes an
`Attend` function, which is packed causal attention in training and attention over a KV cache when
sampling.
"""

import abc
import dataclasses
import functools
import operator
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from models.config import ModelConfig
from models.layers import attention
from models.layers.attention import Attend
from models.layers.dense import MLP, Projection, RMSNorm, normal
from models.layers.mla import LatentAttention
from models.layers.moe import MoE
from models.layers.rope import apply_rope, rope_angles
from models.sharding import constrain


class Attention(nnx.Module):
    """Grouped-query attention (arXiv:2305.13245) with RoPE, optional biases and QK-norm."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        c = config
        D, N, K, H = c.embed_dim, c.num_heads, c.num_kv_heads, c.head_dim
        projection = functools.partial(Projection, config=c, rngs=rngs)
        query, key = ("embed", "heads", "head_dim"), ("embed", "kv_heads", "head_dim")
        self.q = projection((D, N, H), query, 1, bias=c.qkv_bias)
        self.k = projection((D, K, H), key, 1, bias=c.qkv_bias)
        self.v = projection((D, K, H), key, 1, bias=c.qkv_bias)
        self.o = projection((N, H, D), ("heads", "head_dim", "embed"), 2)
        if c.qk_norm:
            self.q_norm = RMSNorm(H, "norm", c)
            self.k_norm = RMSNorm(H, "norm", c)
        self.config = c

    def __call__(
        self,
        x_BTD: jax.Array,
        rope_BT2Y: jax.Array,
        attend: Attend,
        cache: Any,
        layer: jax.Array | int,
    ) -> tuple[jax.Array, Any]:
        """Attends from each token to the tokens that `attend` gives it.

        Args:
          x_BTD: normed hidden states.
          rope_BT2Y: `rope_angles` of the tokens' positions.
          attend: see `Attend`.
          cache: keys and values of earlier tokens, passed to `attend`; None in training.
          layer: index of the layer, passed to `attend`.

        Returns:
          `(output [B, T, D], cache)`, the cache as `attend` returned it.
        """
        q_BTNH = constrain(self.q(x_BTD), "batch", "length", "heads", "head_dim")
        k_BTKH = constrain(self.k(x_BTD), "batch", "length", "kv_heads", "head_dim")
        v_BTKH = constrain(self.v(x_BTD), "batch", "length", "kv_heads", "head_dim")
        if self.config.qk_norm:
            q_BTNH, k_BTKH = self.q_norm(q_BTNH), self.k_norm(k_BTKH)
        q_BTNH = apply_rope(q_BTNH, rope_BT2Y)
        k_BTKH = apply_rope(k_BTKH, rope_BT2Y)
        out_BTNH, cache = attend(q_BTNH, k_BTKH, v_BTKH, cache, layer)
        return self.o(constrain(out_BTNH, "batch", "length", "heads", "head_dim")), cache


class Block(nnx.Module):
    """One layer: attention, then an MLP or a mixture of experts.

    Each of the two reads the normed residual stream and adds its output to the stream.
    """

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs, experts: bool):
        self.attention_norm = RMSNorm(config.embed_dim, "norm", config)
        self.attention = (LatentAttention if config.latent else Attention)(config, rngs)
        self.mlp_norm = RMSNorm(config.embed_dim, "norm", config)
        self.mlp = MoE(config, rngs) if experts else MLP(config, rngs, config.mlp_dim)

    def __call__(
        self,
        x_BTD: jax.Array,
        rope_BT2Y: jax.Array,
        attend: Attend,
        cache: Any,
        layer: jax.Array | int,
    ) -> tuple[jax.Array, Any]:
        """Returns `(x_BTD, cache)` after the block; see `Attention.__call__` for the arguments."""
        out_BTD, cache = self.attention(self.attention_norm(x_BTD), rope_BT2Y, attend, cache, layer)
        x_BTD = constrain(x_BTD + out_BTD, "batch", "sequence", "residual")
        x_BTD = x_BTD + self.mlp(self.mlp_norm(x_BTD))
        return constrain(x_BTD, "batch", "sequence", "residual"), cache


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LoopWeights:
    """Parameters, with the arrays that a loop over tokens would else compute again at every step.

    XLA's CPU backend moves no computation out of a loop, so `Model.for_loop` makes these arrays
    before the loop starts. The methods of `Model` take a `LoopWeights` instead of parameters; they
    have no gradient through it.

    Attributes:
      params: the parameters themselves.
      stacks: the weights of each layer of each stack, by the stack's name; None if the scans over
        layers are not unrolled.
      head: `[D, V]`, the LM head in the layout that a matrix product reads fastest.
      rope: `[length, 2, Y]`, `rope_angles` of every position.
    """

    params: Any
    stacks: dict[str, tuple[Any, ...]] | None
    head: jax.Array
    rope: jax.Array


class Decoder(nnx.Module):
    """The network: embedding, one scan over the blocks of each stack, final norm, LM head."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.config = config
        V, D = config.vocab_size, config.embed_dim
        self.embedding = normal(rngs, (V, D), D, ("vocab", "embed"), config.param_dtype)

        for name, layers in config.stacks.items():
            experts = config.experts is not None and name == "layers"
            stack = nnx.vmap(functools.partial(Block, config, experts=experts))
            setattr(self, name, nnx.split_rngs(splits=len(layers))(stack)(rngs))
        self.loop_weights: LoopWeights | None = nnx.data(None)
        self.final_norm = RMSNorm(D, "norm", config)
        if not config.tie_embeddings:
            exact = config.replace(int8_kernels=False)
            self.lm_head = Projection((D, V), ("embed", "vocab"), 1, exact, rngs)

    def hidden(
        self, tokens_BT: jax.Array, positions_BT: jax.Array, attend: Attend, cache: Any = None
    ) -> tuple[jax.Array, Any]:
        """Computes the hidden states after the final norm.

        Args:
          tokens_BT: int32 token ids.
          positions_BT: int32 position of each token in its sequence.
          attend: see `Attend`.
          cache: keys and values of earlier tokens, passed to `attend`; None in training.

        Returns:
          `(hidden [B, T, D], cache)`, the cache as `attend` returned it.
        """
        # Each device gathers whole rows of the table first, as it gathers every other weight where
        # it is used. The reason: `fsdp` splits both the table's columns and the tokens, and XLA
        # would replicate the result to get from one split to the other.
        table_VD = constrain(self.embedding[...], "vocab", "residual")
        x_BTD = table_VD[tokens_BT].astype(self.config.dtype)
        x_BTD = constrain(x_BTD, "batch", "sequence", "residual")
        if self.loop_weights is None:
            rope_BT2Y = rope_angles(positions_BT, self.config)
        else:
            rope_BT2Y = self.loop_weights.rope[positions_BT]
            rope_BT2Y = constrain(rope_BT2Y, "batch", "length", None, None)
        carry = (x_BTD, cache)
        for name, layers in self.config.stacks.items():
            carry = self._through(name, layers, carry, rope_BT2Y, attend)
        x_BTD, cache = carry
        return self.final_norm(x_BTD), cache

    def _through(self, name: str, layers: range, carry, rope_BT2Y, attend: Attend):
        """Returns `(x_BTD, cache)` after one stack of layers."""
        block_def, stacked = nnx.split(getattr(self, name))

        def body(carry, inputs):
            x_BTD, cache = carry
            weights, layer = inputs
            block = nnx.merge(block_def, weights)
            return block(x_BTD, rope_BT2Y, attend, cache, layer), None

        if self.config.remat != "none":
            policy = None
            if self.config.remat == "dots":
                policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
            body = jax.checkpoint(body, policy=policy, prevent_cse=False)
        if self.loop_weights is not None and self.loop_weights.stacks is not None:
            for layer, weights in zip(layers, self.loop_weights.stacks[name], strict=True):
                state = jax.tree.map(lambda x: x, stacked)
                nnx.replace_by_pure_dict(state, weights)
                carry, _ = body(carry, (state, layer))
            return carry
        inputs = (stacked, jnp.arange(layers.start, layers.stop))
        return jax.lax.scan(body, carry, inputs, unroll=self.config.scan_unroll)[0]

    def head(self) -> jax.Array:
        """Returns the matrix `[D, V]` that maps hidden states to logits."""
        if self.loop_weights is not None:
            return self.loop_weights.head
        return self.embedding[...].T if self.config.tie_embeddings else self.lm_head.kernel[...]

    def logits(self, x_D: jax.Array) -> jax.Array:
        """Returns float32 logits `[..., V]` for hidden states `[..., D]`."""
        logits = jnp.matmul(
            x_D.reshape(-1, x_D.shape[-1]),
            self.head().astype(x_D.dtype),
            preferred_element_type=jnp.float32,
        )
        return logits.reshape(*x_D.shape[:-1], -1)


class Model(abc.ABC):
    """A decoder as pure functions over a pytree of parameters, whatever its head is.

    The pytree consists of nested dicts of arrays and holds no NNX types. A subclass builds its NNX
    module in `module`.
    """

    def __init__(self, config: ModelConfig):
        self.config = config
        abstract = nnx.eval_shape(lambda: self.module(nnx.Rngs(0)))
        self._graph, self._state = nnx.split(abstract)

    @abc.abstractmethod
    def module(self, rngs: nnx.Rngs) -> Decoder:
        """Builds the NNX module with random parameters."""

    def init(self, key: jax.Array) -> Any:
        """Returns random parameters; jit it with `out_shardings` to create them sharded."""
        return nnx.to_pure_dict(nnx.state(self.module(nnx.Rngs(params=key))))

    @functools.cached_property
    def abstract_params(self) -> Any:
        """The parameter pytree with a `jax.ShapeDtypeStruct` in place of every array."""
        return nnx.to_pure_dict(self._state)

    @functools.cached_property
    def logical_axes(self) -> Any:
        """The parameter pytree with a tuple of logical axis names in place of every array.

        `models.sharding` maps these names to mesh axes.
        """

        def axes(path, variable):
            names = variable.get_metadata("logical_axes")
            return ("layers", *names) if path[0] in self.config.stacks else tuple(names)

        tree: dict = {}
        for path, variable in nnx.to_flat_state(self._state):
            node = tree
            for name in path[:-1]:
                node = node.setdefault(name, {})
            node[path[-1]] = axes(path, variable)
        return tree

    def bind(self, params: Any) -> Decoder:
        """Returns the NNX module with these parameters, for use inside a traced function.

        Args:
          params: the parameter pytree, or a `LoopWeights`.
        """
        loop_weights = None
        if isinstance(params, LoopWeights):
            params, loop_weights = params.params, params
        state = jax.tree.map(lambda x: x, self._state)
        nnx.replace_by_pure_dict(state, params)
        decoder = nnx.merge(self._graph, state)
        decoder.loop_weights = nnx.data(loop_weights)
        return decoder

    def for_loop(self, params: Any, length: int) -> LoopWeights:
        """Prepares `params` for a loop over tokens; call it before the loop.

        Args:
          length: upper bound of the positions that the loop uses, exclusive.
        """
        config, stacks = self.config, None
        if config.scan_unroll >= config.num_layers:
            stacks = {
                name: tuple(
                    jax.tree.map(operator.itemgetter(i), params[name]) for i in range(len(layers))
                )
                for name, layers in config.stacks.items()
            }
        rope = rope_angles(jnp.arange(length), config)
        return LoopWeights(params, stacks, self.bind(params).head(), rope)

    def hidden(
        self,
        params: Any,
        tokens_BT: jax.Array,
        positions_BT: jax.Array,
        segment_ids_BT: jax.Array,
        prefix_ids_BT: jax.Array | None = None,
    ) -> jax.Array:
        """Returns hidden states `[B, T, D]` of packed rows, without a cache.

        Args:
          tokens_BT: int32 token ids.
          positions_BT: int32 position of each token in its segment and the prefix before it.
          segment_ids_BT, prefix_ids_BT: int32 segment of each token, and the one that it sees, too;
            see `attention.packed_attention`.
        """

        def attend(q, k, v, cache, layer):
            del layer
            return attention.packed_attention(q, k, v, segment_ids_BT, prefix_ids_BT), cache

        return self.bind(params).hidden(tokens_BT, positions_BT, attend)[0]


class LanguageModel(Model):
    """The decoder with an LM head, which predicts the next token.

    Example:
      model = LanguageModel(config)
      params = model.init(jax.random.key(0))
      hidden_BTD = model.hidden(params, tokens_BT, positions_BT, segment_ids_BT)
      logits_BTV = model.logits(params, hidden_BTD)
    """

    @property
    def base(self) -> "LanguageModel":
        """The model without adapters, which samples and is exported; see `models.lora`."""
        return self

    def merge(self, params: Any) -> Any:
        """Returns the parameters of `base` that compute the same as `params`."""
        return params

    def module(self, rngs: nnx.Rngs) -> Decoder:
        """Builds the NNX module with random parameters."""
        return Decoder(self.config, rngs)

    def logits(self, params: Any, hidden_D: jax.Array) -> jax.Array:
        """Returns float32 logits `[..., V]` for hidden states `[..., D]`."""
        return self.bind(params).logits(hidden_D)
