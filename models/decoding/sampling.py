"""How one token is drawn from logits: temperature, top-k, top-p, min-p."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np


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

    @functools.cached_property
    def knobs(self) -> dict[str, np.generic]:
        """The values as `draw` takes them."""
        return {
            "temperature": np.float32(self.temperature),
            "top_k": np.int32(self.top_k),
            "top_p": np.float32(self.top_p),
            "min_p": np.float32(self.min_p),
        }


def draw(logits: jax.Array, uniform: jax.Array, knobs: dict[str, jax.Array], filtered: bool):
    """One token per row and its log-probability, by inversion of the cumulative distribution.

    The vocabulary is laid out as a table of about sqrt(V) rows, filled row by row. A column is
    drawn by its mass, then a row within that column: two short cumulative sums instead of one over
    the vocabulary, and every reduction runs along rows, where a CPU has vector instructions.

    Args:
      logits: `[B, V]` float32.
      uniform: `[B]` in [0, 1).
      knobs: scalars `temperature`, `top_k`, `top_p`, `min_p`; see `SamplingParams`.
      filtered: whether the last three are in use (static).

    Returns:
      `(token [B] int32, logprob [B] float32)`. At temperature 0 one of the likeliest tokens.
    """
    greedy = knobs["temperature"] == 0
    logits = logits / jnp.where(greedy, 1.0, knobs["temperature"])
    table_BRC, peak_BC, mass_BC = _columns(logits)
    peak_B, total_B = peak_BC.max(-1), mass_BC.sum(-1)
    if filtered:
        table_BRC, peak_BC, mass_BC = _columns(_filter(logits, peak_B, total_B, knobs))

    # Greedy: only the likeliest has mass, and what is drawn for it does not matter.
    mass_BC = jnp.where(greedy, peak_BC == peak_B[:, None], mass_BC)
    column_B, uniform = _invert_cdf(mass_BC, uniform)
    at = column_B[:, None]
    logits_BR = jnp.take_along_axis(table_BRC, at[:, None], -1)[..., 0]
    peak_B1 = jnp.take_along_axis(peak_BC, at, -1)
    mass_BR = jnp.where(greedy, logits_BR == peak_B1, jnp.exp(logits_BR - peak_B1))
    row_B, _ = _invert_cdf(mass_BR, uniform)
    chosen_B = jnp.take_along_axis(logits_BR, row_B[:, None], -1)[:, 0]
    token_B = row_B * table_BRC.shape[-1] + column_B
    return token_B.astype(jnp.int32), chosen_B - peak_B - jnp.log(total_B)


def _columns(logits):
    """Logits as a table `[B, R, C]`, and of its columns the largest logit and the mass `[B, C]`.

    The mass of a token is exp(logit - the row's largest logit).
    """
    batch, vocab = logits.shape
    rows = 1 << (vocab.bit_length() // 2)
    padded = jnp.pad(logits, ((0, 0), (0, -vocab % rows)), constant_values=-jnp.inf)
    table_BRC = padded.reshape(batch, rows, -1)
    # Finite, so that a column without mass has mass 0, not NaN.
    peak_BC = jnp.maximum(table_BRC.max(1), jnp.finfo(jnp.float32).min)
    inner_BC = jnp.exp(table_BRC - peak_BC[:, None]).sum(1)
    return table_BRC, peak_BC, inner_BC * jnp.exp(peak_BC - peak_BC.max(-1, keepdims=True))


def _filter(logits, peak_B, total_B, knobs):
    """`logits [B, V]`, minus infinity where top-k, top-p or min-p drop a token."""
    # The likeliest token has mass 1.
    mass = jnp.exp(logits - peak_B[:, None])
    ranked = -jnp.sort(-mass, -1)
    vocab = logits.shape[-1]
    last_k = jnp.where(knobs["top_k"] > 0, knobs["top_k"], vocab) - 1
    before = jnp.cumsum(ranked, -1) - ranked
    last_p = jnp.sum(before < knobs["top_p"] * total_B[:, None], -1) - 1
    last = jnp.minimum(last_p, jnp.minimum(last_k, vocab - 1))
    floor = jnp.take_along_axis(ranked, last[:, None], -1)
    return jnp.where((mass >= floor) & (mass >= knobs["min_p"]), logits, -jnp.inf)


def _invert_cdf(mass: jax.Array, uniform: jax.Array):
    """The first index at which the cumulative mass `[B, N]` exceeds `uniform [B]` of its total.

    Returns:
      The index `[B]`, and where between its bounds the draw fell: again uniform in [0, 1).
    """
    cumulative = jnp.cumsum(mass.astype(jnp.float32), -1)
    target = jnp.minimum(uniform, 1 - 1e-6) * cumulative[:, -1]
    # What has no mass repeats its predecessor's cumulative value: it is never the first above.
    index = jnp.sum(cumulative <= target[:, None], -1)
    upper = jnp.take_along_axis(cumulative, index[:, None], -1)[:, 0]
    lower = jnp.where(cumulative <= target[:, None], cumulative, 0.0).max(-1)
    return index, (target - lower) / (upper - lower)
