"""How one token is drawn from logits: temperature, top-k, top-p, min-p."""

import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class SamplingParams:
    """How tokens are drawn. All values are traced: changing one never recompiles, except for
    switching the group top_k/top_p/min_p on or off.

    Attributes:
      temperature: 0 is greedy.
      top_k: keep the k likeliest tokens; 0 keeps all.
      top_p: keep the likeliest tokens until their mass reaches p (arXiv:1904.09751).
      min_p: keep tokens with at least this share of the likeliest one's probability
        (arXiv:2407.01082).
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self):
        if self.temperature < 0:
            raise ValueError(f"temperature={self.temperature} is negative; use 0 for greedy")
        if self.top_k < 0 or not 0 < self.top_p <= 1 or not 0 <= self.min_p <= 1:
            raise ValueError(
                f"top_k={self.top_k}, top_p={self.top_p}, min_p={self.min_p}: need top_k >= 0, "
                "0 < top_p <= 1 and 0 <= min_p <= 1"
            )

    @property
    def filtered(self) -> bool:
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0


def draw(logits: jax.Array, uniform: jax.Array, knobs: dict[str, jax.Array], filtered: bool):
    """One token per row and its log-probability, by inversion of the cumulative distribution.

    Args:
      logits: `[B, V]` float32.
      uniform: `[B]` in [0, 1).
      knobs: scalars `temperature`, `top_k`, `top_p`, `min_p`; see `SamplingParams`.
      filtered: whether the last three are in use (static).

    Returns:
      `(token [B] int32, logprob [B] float32)`.
    """
    greedy = knobs["temperature"] == 0
    logits = logits / jnp.where(greedy, 1.0, knobs["temperature"])
    peak = logits.max(-1, keepdims=True)
    mass = jnp.exp(logits - peak)
    total = mass.sum(-1)
    if filtered:
        ranked = -jnp.sort(-mass, -1)
        vocab = logits.shape[-1]
        last_k = jnp.where(knobs["top_k"] > 0, knobs["top_k"], vocab) - 1
        before = jnp.cumsum(ranked, -1) - ranked
        last_p = jnp.sum(before < knobs["top_p"] * total[:, None], -1) - 1
        last = jnp.minimum(last_p, jnp.minimum(last_k, vocab - 1))
        floor = jnp.take_along_axis(ranked, last[:, None], -1)
        # The likeliest token has mass 1.
        kept = jnp.where((mass >= floor) & (mass >= knobs["min_p"]), mass, 0.0)
    else:
        kept = mass
    token = jnp.where(greedy, jnp.argmax(logits, -1), _invert_cdf(kept, uniform))
    token = token.astype(jnp.int32)
    chosen = jnp.take_along_axis(logits - peak, token[:, None], -1)[:, 0]
    return token, chosen - jnp.log(total)


def _invert_cdf(mass: jax.Array, uniform: jax.Array) -> jax.Array:
    """The first index at which the cumulative mass `[B, V]` exceeds `uniform [B]` of its total.

    Searches blocks of about sqrt(V), then within one: two short cumulative sums instead of one
    over the vocabulary, eight times faster on CPU for V = 512.
    """
    rows, vocab = mass.shape
    size = 1 << ((vocab - 1).bit_length() // 2)
    blocks = jnp.pad(mass, ((0, 0), (0, -vocab % size))).reshape(rows, -1, size)
    cumulative = jnp.cumsum(blocks.sum(-1), -1)
    target = jnp.minimum(uniform, 1 - 1e-6) * cumulative[:, -1]
    # What has no mass repeats its predecessor's cumulative value: it is never the first above.
    block = jnp.sum(cumulative <= target[:, None], -1)
    chosen = jnp.take_along_axis(blocks, block[:, None, None], 1)[:, 0]
    before = jnp.take_along_axis(jnp.pad(cumulative, ((0, 0), (1, 0))), block[:, None], 1)[:, 0]
    inner = jnp.cumsum(chosen, -1)
    # The two sums may round apart; stay below the block's own total.
    target = jnp.minimum(target - before, inner[:, -1] * (1 - 1e-6))
    return block * size + jnp.sum(inner <= target[:, None], -1)
