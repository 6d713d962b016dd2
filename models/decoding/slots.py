"""The device state of the compiled sampler: the samples in flight, and their keys and values."""

import dataclasses

import jax
import jax.numpy as jnp

from models.config import ModelConfig
from models.decoding.samples import LENGTH, RUNNING
from models.layers.kv_cache import CacheFactors, KVCache
from models.sharding import constrain


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Slots:
    """The device state of the P x G samples in flight; `columns_*` are indexed by cache column."""

    cache: KVCache
    step: jax.Array  # [], number of decode steps so far
    prompt: jax.Array  # [P], index in the queue; -1 if the slot was never used
    start: jax.Array  # [P], step at which the slot was filled
    limit: jax.Array  # [P, G], most tokens to generate
    count: jax.Array  # [P, G], tokens generated so far
    token: jax.Array  # [P, G], next input
    position: jax.Array  # [P, G], position of the next input
    finish: jax.Array  # [P, G], index into `FINISH_REASONS`
    automaton: jax.Array  # [P, G], state of the stop-string automaton
    columns_token: jax.Array  # [P, G, W], tokens generated
    columns_logprob: jax.Array  # [P, G, W], their log-probs
    columns_uniform: jax.Array  # [P, G, W], uniform number that each column's token is drawn with

    @property
    def active(self) -> jax.Array:
        """Returns which samples are unfinished, bool `[P, G]`."""
        return self.finish == RUNNING

    @classmethod
    def empty(cls, config: ModelConfig, P: int, G: int, width: int, W: int) -> "Slots":
        """Returns P slots of G samples that hold nothing.

        Args:
          config: the model's config.
          P: prompts in flight at a time.
          G: samples of each prompt.
          width: most tokens of a prompt.
          W: most tokens of a sample.
        """
        cache = KVCache.zeros(config, P, G, width, W)
        factors = cache.factors
        if factors is not None:
            of_prompt = {n: getattr(factors, n) for n in ("prefix_k", "prefix_v")}
            of_sample = {n: getattr(factors, n) for n in ("suffix_k", "suffix_v")}
            factors = CacheFactors(
                **{n: constrain(x, None, "batch", "kv_heads", None) for n, x in of_prompt.items()},
                **{
                    n: constrain(x, None, "batch", None, "kv_heads", None)
                    for n, x in of_sample.items()
                },
            )

        def rows(fill=0):
            return constrain(jnp.full((P, G), fill, jnp.int32), "batch", None)

        def columns(dtype):
            return constrain(jnp.zeros((P, G, W), dtype), "batch", None, None)

        return cls(
            cache=dataclasses.replace(
                cache,
                prefix_k=constrain(cache.prefix_k, None, "batch", "kv_heads", None, None),
                prefix_v=constrain(cache.prefix_v, None, "batch", "kv_heads", None, None),
                suffix_k=constrain(cache.suffix_k, None, "batch", None, "kv_heads", None, None),
                suffix_v=constrain(cache.suffix_v, None, "batch", None, "kv_heads", None, None),
                factors=factors,
            ),
            step=jnp.int32(0),
            prompt=jnp.full(P, -1, jnp.int32),
            start=jnp.zeros(P, jnp.int32),
            limit=rows(),
            count=rows(),
            token=rows(),
            position=rows(),
            finish=rows(LENGTH),
            automaton=rows(),
            columns_token=columns(jnp.int32),
            columns_logprob=columns(jnp.float32),
            columns_uniform=columns(jnp.float32),
        )
