"""The one decoder. Flax NNX modules inside, pure functions over a parameter pytree outside.

A block does not know where keys and values are kept: it is handed an `Attend` function, which is
packed causal attention in training, and attention over a cache when sampling.
"""

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from models.config import ModelConfig
from models.layers import attention
from models.layers.dense import MLP, Projection, RMSNorm, normal
from models.layers.mla import LatentAttention
from models.layers.moe import MoE
from models.layers.rope import apply_rope, rope_angles
from models.sharding import constrain

# (q_BTNH, k_BTKH, v_BTKH, cache, layer index) -> (output_BTNH, cache)
Attend = Callable[..., tuple[jax.Array, Any]]


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

    def __call__(self, x_BTD, rope_BT2F, attend: Attend, cache, layer):
        q_BTNH = constrain(self.q(x_BTD), "batch", "length", "heads", "head_dim")
        k_BTKH = constrain(self.k(x_BTD), "batch", "length", "kv_heads", "head_dim")
        v_BTKH = constrain(self.v(x_BTD), "batch", "length", "kv_heads", "head_dim")
        if self.config.qk_norm:
            q_BTNH, k_BTKH = self.q_norm(q_BTNH), self.k_norm(k_BTKH)
        q_BTNH = apply_rope(q_BTNH, rope_BT2F)
        k_BTKH = apply_rope(k_BTKH, rope_BT2F)
        out_BTNH, cache = attend(q_BTNH, k_BTKH, v_BTKH, cache, layer)
        return self.o(constrain(out_BTNH, "batch", "length", "heads", "head_dim")), cache


class Block(nnx.Module):
    """Pre-norm attention and MLP or mixture of experts, each added to the residual stream."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs, experts: bool):
        self.attention_norm = RMSNorm(config.embed_dim, "norm", config)
        self.attention = (LatentAttention if config.latent else Attention)(config, rngs)
        self.mlp_norm = RMSNorm(config.embed_dim, "norm", config)
        self.mlp = MoE(config, rngs) if experts else MLP(config, rngs, config.mlp_dim)

    def __call__(self, x_BTD, rope_BT2F, attend: Attend, cache, layer):
        out_BTD, cache = self.attention(
            self.attention_norm(x_BTD), rope_BT2F, attend, cache, layer
        )
        x_BTD = constrain(x_BTD + out_BTD, "batch", "length", "residual")
        x_BTD = x_BTD + self.mlp(self.mlp_norm(x_BTD))
        return constrain(x_BTD, "batch", "length", "residual"), cache


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LoopWeights:
    """Parameters and what a loop over tokens would make of them anew at every step.

    XLA's CPU backend hoists nothing out of loops. Made by `LanguageModel.for_loop`; the functions
    of `LanguageModel` take it in place of parameters, but have no gradient through it.

    Attributes:
      params: the parameters themselves.
      stacks: the stacked layers by name, cut apart; None where the scans stay rolled up.
      head: `[D, V]`, the head as a product reads it fastest.
      rope: `[length, 2, rope_dim / 2]`, `rope_angles` of every position.
    """

    params: Any
    stacks: dict[str, tuple[Any, ...]] | None
    head: jax.Array
    rope: jax.Array


class Decoder(nnx.Module):
    """Embedding, stacked blocks under one scan for each stack, final norm, LM head."""

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
            self.lm_head = Projection((D, V), ("embed", "vocab"), 1, config, rngs)

    def hidden(self, tokens_BT, positions_BT, attend: Attend, cache=None):
        """Final normed hidden states `[B, T, D]` and the cache that `attend` returned."""
        # Whole rows first, as every other weight is gathered where it is used: `fsdp` splits both
        # the table's columns and the tokens, and XLA would replicate the result to get from one to
        # the other.
        table_VD = constrain(self.embedding[...], "vocab", "residual")
        x_BTD = table_VD[tokens_BT].astype(self.config.dtype)
        x_BTD = constrain(x_BTD, "batch", "length", "residual")
        if self.loop_weights is None:
            rope_BT2F = rope_angles(positions_BT, self.config)
        else:
            rope_BT2F = self.loop_weights.rope[positions_BT]
            rope_BT2F = constrain(rope_BT2F, "batch", "length", None, None)
        carry = (x_BTD, cache)
        for name, layers in self.config.stacks.items():
            carry = self._through(name, layers, carry, rope_BT2F, attend)
        x_BTD, cache = carry
        return self.final_norm(x_BTD), cache

    def _through(self, name: str, layers: range, carry, rope_BT2F, attend: Attend):
        """`(x_BTD, cache)` after one stack of layers."""
        block_def, stacked = nnx.split(getattr(self, name))

        def body(carry, inputs):
            x_BTD, cache = carry
            weights, layer = inputs
            block = nnx.merge(block_def, weights)
            return block(x_BTD, rope_BT2F, attend, cache, layer), None

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

    def head(self):
        """The matrix `[D, V]` from hidden states to logits."""
        if self.loop_weights is not None:
            return self.loop_weights.head
        return self.embedding[...].T if self.config.tie_embeddings else self.lm_head.kernel[...]

    def logits(self, x_D):
        """Float32 logits `[..., V]` of hidden states `[..., D]`."""
        logits = jnp.matmul(
            x_D.reshape(-1, x_D.shape[-1]),
            self.head().astype(x_D.dtype),
            preferred_element_type=jnp.float32,
        )
        return logits.reshape(*x_D.shape[:-1], -1)


class Model(abc.ABC):
    """Pure functions over a pytree of parameters (nested dicts of arrays, no NNX types).

    What a decoder with any head has in common. A subclass makes its module in `module`.
    """

    def __init__(self, config: ModelConfig):
        self.config = config
        abstract = nnx.eval_shape(lambda: self.module(nnx.Rngs(0)))
        self._graph, self._state = nnx.split(abstract)

    @abc.abstractmethod
    def module(self, rngs: nnx.Rngs) -> Decoder:
        """The NNX module with random parameters."""

    def init(self, key: jax.Array) -> Any:
        """Random parameters; jit it with `out_shardings` to create them sharded."""
        return nnx.to_pure_dict(nnx.state(self.module(nnx.Rngs(params=key))))

    @functools.cached_property
    def abstract_params(self) -> Any:
        """`jax.ShapeDtypeStruct` of every parameter."""
        return nnx.to_pure_dict(self._state)

    @functools.cached_property
    def logical_axes(self) -> Any:
        """A tuple of logical axis names for every parameter."""

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
        """The NNX module around these parameters, for use inside a traced function."""
        loop_weights = None
        if isinstance(params, LoopWeights):
            params, loop_weights = params.params, params
        state = jax.tree.map(lambda x: x, self._state)
        nnx.replace_by_pure_dict(state, params)
        decoder = nnx.merge(self._graph, state)
        decoder.loop_weights = nnx.data(loop_weights)
        return decoder

    def for_loop(self, params: Any, length: int) -> LoopWeights:
        """`params` laid out for a loop over tokens at positions below `length`; made outside it."""
        config, stacks = self.config, None
        if config.scan_unroll >= config.num_layers:
            stacks = {
                name: tuple(
                    jax.tree.map(lambda x: x[i], params[name]) for i in range(len(layers))
                )
                for name, layers in config.stacks.items()
            }
        rope = rope_angles(jnp.arange(length), config)
        return LoopWeights(params, stacks, self.bind(params).head(), rope)

    def hidden(self, params, tokens_BT, positions_BT, segment_ids_BT) -> jax.Array:
        """Hidden states `[B, T, D]` of packed rows; see `attention.packed_attention`."""

        def attend(q, k, v, cache, layer):
            del layer
            return attention.packed_attention(q, k, v, segment_ids_BT), cache

        return self.bind(params).hidden(tokens_BT, positions_BT, attend)[0]


class LanguageModel(Model):
    """The decoder with its LM head.

    Example:
      model = LanguageModel(config)
      params = model.init(jax.random.key(0))
      hidden_BTD = model.hidden(params, tokens_BT, positions_BT, segment_ids_BT)
      logits_BTV = model.logits(params, hidden_BTD)
    """

    def module(self, rngs: nnx.Rngs) -> Decoder:
        return Decoder(self.config, rngs)

    def logits(self, params, hidden_D) -> jax.Array:
        """Float32 logits `[..., V]`."""
        return self.bind(params).logits(hidden_D)
