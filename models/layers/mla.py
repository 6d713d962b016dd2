"""Multi-head latent attention, which DeepSeek-V2 and V3 use instead of grouped-query attention.

Source: DeepSeek-V2, arXiv:2405.04434, section 2.1; V3 changes nothing.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from models.config import ModelConfig, YarnScaling
from models.layers.attention import Attend
from models.layers.dense import Projection, RMSNorm
from models.layers.rope import apply_rope
from models.sharding import constrain

# Epsilon of the norms on latents; all published code uses it, whatever `norm_eps` says.
LATENT_EPS = 1e-6


class LatentAttention(nnx.Module):
    """Attention whose keys and values are projections of one small latent c that all heads share.

    Let `k_b` be the part of `kv_b` that projects to keys and `v_b` the part that projects to
    values. Then a head's score is q . (c k_b) = (q k_b^T) . c, and its output is
    sum w (c v_b) = (sum w c) v_b. The left sides are cheaper for whole rows, so training uses them
    ("expanded"). The right sides are cheaper with a cache, so sampling uses them ("absorbed"): they
    have one key head, the latent followed by the rotated key, and the value is the latent itself.
    The cache holds nothing else.
    """

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        c, latent = config, config.latent
        assert latent is not None  # `models.decoder.Block` chooses this module only then.
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
        self.config, self.latent = c, latent

    def __call__(
        self,
        x_BTD: jax.Array,
        rope_BT2Y: jax.Array,
        attend: Attend,
        cache: Any,
        layer: jax.Array | int,
    ) -> tuple[jax.Array, Any]:
        """Attends as `models.decoder.Attention.__call__` does, with the same arguments."""
        latent = self.latent
        if latent.q_rank is None:
            q_BTNH = self.q(x_BTD)
        else:
            q_BTZ = constrain(self.q_a(x_BTD), "batch", "length", "mlp")
            q_BTNH = self.q_b(self.q_norm(q_BTZ))
        q_BTNH = constrain(q_BTNH, "batch", "length", "heads", "head_dim")
        q_nope, q_rope = jnp.split(q_BTNH, [latent.nope_dim], -1)
        kv_BTZ = constrain(self.kv_a(x_BTD), "batch", "length", None)
        c_BTZ, k_rope = jnp.split(kv_BTZ, [latent.kv_rank], -1)
        c_BTZ = self.kv_norm(c_BTZ)
        q_rope = apply_rope(_paired(q_rope), rope_BT2Y)
        k_rope = apply_rope(_paired(k_rope[:, :, None]), rope_BT2Y)
        form = self._expanded if cache is None else self._absorbed
        return form(q_nope, q_rope, c_BTZ, k_rope, attend, cache, layer)

    def _expanded(self, q_nope, q_rope, c_BTZ, k_rope, attend, cache, layer):
        kv_BTNH = constrain(self.kv_b(c_BTZ), "batch", "length", "heads", "head_dim")
        k_nope, v_BTNH = jnp.split(kv_BTNH, [self.latent.nope_dim], -1)
        k_rope = jnp.broadcast_to(k_rope, (*k_nope.shape[:3], k_rope.shape[-1]))
        q_BTNH = self._scaled(jnp.concatenate([q_nope, q_rope], -1))
        k_BTNH = jnp.concatenate([k_nope, k_rope], -1)
        out_BTNH, cache = attend(q_BTNH, k_BTNH, v_BTNH, cache, layer)
        return self.o(constrain(out_BTNH, "batch", "length", "heads", "head_dim")), cache

    def _absorbed(self, q_nope, q_rope, c_BTZ, k_rope, attend, cache, layer):
        k_b, v_b = jnp.split(self.kv_b.weights(c_BTZ.dtype), [self.latent.nope_dim], -1)
        q_BTNZ = jnp.einsum("btnh,znh->btnz", q_nope, k_b)
        q_BTNZ = constrain(q_BTNZ, "batch", "length", "heads", None)
        q_BTNZ = self._scaled(jnp.concatenate([q_BTNZ, q_rope], -1))
        c_BTKZ = c_BTZ[:, :, None]
        k_BTKZ = jnp.concatenate([c_BTKZ, k_rope], -1)
        out_BTNZ, cache = attend(q_BTNZ, k_BTKZ, c_BTKZ, cache, layer)
        out_BTNH = jnp.einsum("btnz,znh->btnh", out_BTNZ, v_b)
        return self.o(constrain(out_BTNH, "batch", "length", "heads", "head_dim")), cache

    def _scaled(self, q_BTNH):
        """Scales queries so that the scores of `attend` come out right.

        `attend` divides scores by the root of the queries' dimension, which differs from H in the
        absorbed form.
        """
        scale = math.sqrt(q_BTNH.shape[-1] / self.config.head_dim)
        if isinstance(self.config.rope_scaling, YarnScaling):
            scale *= self.config.rope_scaling.score_scale
        if scale == 1:
            return q_BTNH
        return (q_BTNH.astype(jnp.float32) * scale).astype(q_BTNH.dtype)


def _paired(x: jax.Array) -> jax.Array:
    """Reorders dimensions from the pairs (2i, 2i + 1) of checkpoints to those of `apply_rope`."""
    return jnp.concatenate([x[..., ::2], x[..., 1::2]], -1)
