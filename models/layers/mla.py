"""Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434, section 2.1; V3's is the same)."""

import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx

from models.config import ModelConfig, YarnScaling
from models.layers.dense import Projection, RMSNorm
from models.layers.rope import apply_rope
from models.sharding import constrain

# Of the norms on latents, in all published code, whatever `norm_eps` says.
LATENT_EPS = 1e-6


class LatentAttention(nnx.Module):
    """Attention whose keys and values are made of one small latent c for all heads.

    With `k_b` the part of `kv_b` that makes keys and `v_b` that for values, a head's score is
    q . (c k_b) = (q k_b^T) . c, and its output is sum w (c v_b) = (sum w c) v_b. The left sides are
    cheaper for whole rows and are used in training. With a cache the right ones are, "absorbed":
    there is one key head then, the latent with the rotated key behind it, which is all that is
    cached, and the value is the latent itself.
    """

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        c, latent = config, config.latent
        D, N, H = c.embed_dim, c.num_heads, c.head_dim
        projection = functools.partial(Projection, config=c, rngs=rngs)
        norm = functools.partial(RMSNorm, axis="norm", config=c.replace(norm_eps=LATENT_EPS))
        if latent.q_rank is None:
            self.q = projection((D, N, H), ("embed", "heads", "head_dim"), 1)
        else:
            self.q_a = projection((D, latent.q_rank), ("embed", "latent"), 1)
            self.q_norm = norm(latent.q_rank)
            self.q_b = projection((latent.q_rank, N, H), ("latent", "heads", "head_dim"), 1)
        self.kv_a = projection((D, latent.kv_rank + latent.rope_dim), ("embed", "latent"), 1)
        self.kv_norm = norm(latent.kv_rank)
        shape = (latent.kv_rank, N, latent.nope_dim + latent.value_dim)
        self.kv_b = projection(shape, ("latent", "heads", "head_dim"), 1)
        self.o = projection((N, latent.value_dim, D), ("heads", "head_dim", "embed"), 2)
        self.config = c

    def __call__(self, x_BTD, rope_BT2F, attend, cache, layer):
        latent = self.config.latent
        if latent.q_rank is None:
            q_BTNH = self.q(x_BTD)
        else:
            q_BTR = constrain(self.q_a(x_BTD), "batch", "length", "mlp")
            q_BTNH = self.q_b(self.q_norm(q_BTR))
        q_BTNH = constrain(q_BTNH, "batch", "length", "heads", "head_dim")
        q_nope, q_rope = jnp.split(q_BTNH, [latent.nope_dim], -1)
        kv_BTR = constrain(self.kv_a(x_BTD), "batch", "length", None)
        c_BTR, k_rope = jnp.split(kv_BTR, [latent.kv_rank], -1)
        c_BTR = self.kv_norm(c_BTR)
        q_rope = apply_rope(_paired(q_rope), rope_BT2F)
        k_rope = apply_rope(_paired(k_rope[:, :, None]), rope_BT2F)
        form = self._expanded if cache is None else self._absorbed
        return form(q_nope, q_rope, c_BTR, k_rope, attend, cache, layer)

    def _expanded(self, q_nope, q_rope, c_BTR, k_rope, attend, cache, layer):
        kv_BTNH = constrain(self.kv_b(c_BTR), "batch", "length", "heads", "head_dim")
        k_nope, v_BTNH = jnp.split(kv_BTNH, [self.config.latent.nope_dim], -1)
        k_rope = jnp.broadcast_to(k_rope, (*k_nope.shape[:3], k_rope.shape[-1]))
        q_BTNH = self._scaled(jnp.concatenate([q_nope, q_rope], -1))
        k_BTNH = jnp.concatenate([k_nope, k_rope], -1)
        out_BTNH, cache = attend(q_BTNH, k_BTNH, v_BTNH, cache, layer)
        return self.o(constrain(out_BTNH, "batch", "length", "heads", "head_dim")), cache

    def _absorbed(self, q_nope, q_rope, c_BTR, k_rope, attend, cache, layer):
        k_b, v_b = jnp.split(self.kv_b.weights(c_BTR.dtype), [self.config.latent.nope_dim], -1)
        q_BTNR = jnp.einsum("btnh,rnh->btnr", q_nope, k_b)
        q_BTNR = constrain(q_BTNR, "batch", "length", "heads", None)
        q_BTNR = self._scaled(jnp.concatenate([q_BTNR, q_rope], -1))
        c_BTKR = c_BTR[:, :, None]
        k_BTKR = jnp.concatenate([c_BTKR, k_rope], -1)
        out_BTNR, cache = attend(q_BTNR, k_BTKR, c_BTKR, cache, layer)
        out_BTNH = jnp.einsum("btnr,rnh->btnh", out_BTNR, v_b)
        return self.o(constrain(out_BTNH, "batch", "length", "heads", "head_dim")), cache

    def _scaled(self, q_BTNH):
        """Queries as attention takes them, which divides by the root of their dimension."""
        scale = math.sqrt(q_BTNH.shape[-1] / self.config.head_dim)
        if isinstance(self.config.rope_scaling, YarnScaling):
            scale *= self.config.rope_scaling.score_scale
        if scale == 1:
            return q_BTNH
        return (q_BTNH.astype(jnp.float32) * scale).astype(q_BTNH.dtype)


def _paired(x: jax.Array) -> jax.Array:
    """From checkpoints' rotated pairs (2i, 2i + 1) to those of `apply_rope`."""
    return jnp.concatenate([x[..., ::2], x[..., 1::2]], -1)
