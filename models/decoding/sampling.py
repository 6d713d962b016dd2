"""Draws tokens from logits, with temperature, top-k, top-p and min-p."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class SamplingParams:
    """Settings of how tokens are drawn.

    All values are traced, so a new value causes no compilation. The exception: programs with and
    without the filters (top_k, top_p, min_p) differ.

    Attributes:
      temperature: divides the logits; 0 always takes the likeliest token.
      top_k: keep the k likeliest tokens; 0 keeps all.
      top_p: keep the likeliest tokens until their probability adds up to p (arXiv:1904.09751).
      min_p: keep tokens that have at least this share of the likeliest token's probability
        (arXiv:2407.01082).

    Raises:
      ValueError: a value is outside its range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature={self.temperature} is negative; use 0 for greedy")
        if self.top_k < 0 or not 0 < self.top_p <= 1 or not 0 <= self.min_p <= 1:
            raise ValueError(
                f"top_k={self.top_k}, top_p={self.top_p}, min_p={self.min_p}: need top_k >= 0, "
                "0 < top_p <= 1 and 0 <= min_p <= 1"
            )

    @property
    def filtered(self) -> bool:
        """Whether any of the filters top_k, top_p and min_p is on."""
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0

    @functools.cached_property
    def knobs(self) -> dict[str, np.generic]:
        """The values in the form that `draw` takes."""
        return {
            "temperature": np.float32(self.temperature),
            "top_k": np.int32(self.top_k),
            "top_p": np.float32(self.top_p),
            "min_p": np.float32(self.min_p),
        }


def draw(
    logits: jax.Array, uniform: jax.Array, knobs: Mapping[str, Any], filtered: bool
) -> tuple[jax.Array, jax.Array]:
    """Draws one token per row by inverting the cumulative distribution.

    The function lays the vocabulary out as a table `[I, J]` of about sqrt(V) rows, filled row by
    row. It draws a column of the table by the columns' masses, and then a row within that column.
    This takes two short cumulative sums instead of one over the vocabulary, and every reduction
    runs along rows, where a CPU has vector instructions.

    Args:
      logits: float32 `[B, V]`.
      uniform: float32 `[B]` in [0, 1), one random number per row.
      knobs: scalars `temperature`, `top_k`, `top_p`, `min_p`; see `SamplingParams`.
      filtered: whether any of the last three is on (static).

    Returns:
      The tokens (int32 `[B]`) and their log-probabilities before the filters (float32 `[B]`). At
      temperature 0 each token is one of the likeliest.
    """
    greedy = knobs["temperature"] == 0
    logits = logits / jnp.where(greedy, 1.0, knobs["temperature"])
    table_BIJ, peak_BJ, mass_BJ = _columns(logits)
    peak_B, total_B = peak_BJ.max(-1), mass_BJ.sum(-1)
    if filtered:
        table_BIJ, peak_BJ, mass_BJ = _columns(_filter(logits, peak_B, total_B, knobs))

    # In the greedy case only the likeliest token keeps its mass, so every draw hits it.
    mass_BJ = jnp.where(greedy, peak_BJ == peak_B[:, None], mass_BJ)
    column_B, uniform = _invert_cdf(mass_BJ, uniform)
    at = column_B[:, None]
    logits_BI = jnp.take_along_axis(table_BIJ, at[:, None], -1)[..., 0]
    peak_B1 = jnp.take_along_axis(peak_BJ, at, -1)
    mass_BI = jnp.where(greedy, logits_BI == peak_B1, jnp.exp(logits_BI - peak_B1))
    row_B, _ = _invert_cdf(mass_BI, uniform)
    chosen_B = jnp.take_along_axis(logits_BI, row_B[:, None], -1)[:, 0]
    token_B = row_B * table_BIJ.shape[-1] + column_B
    return token_B.astype(jnp.int32), chosen_B - peak_B - jnp.log(total_B)


def _columns(logits):
    """Returns logits as a table `[B, I, J]`, and each column's largest logit and mass `[B, J]`.

    The mass of a token is exp(logit - largest logit of the batch row).
    """
    batch, vocab = logits.shape
    rows = 1 << (vocab.bit_length() // 2)
    padded = jnp.pad(logits, ((0, 0), (0, -vocab % rows)), constant_values=-jnp.inf)
    table_BIJ = padded.reshape(batch, rows, -1)
    # The bound is finite, so that a column without tokens has mass 0 instead of NaN.
    peak_BJ = jnp.maximum(table_BIJ.max(1), jnp.finfo(jnp.float32).min)
    inner_BJ = jnp.exp(table_BIJ - peak_BJ[:, None]).sum(1)
    return table_BIJ, peak_BJ, inner_BJ * jnp.exp(peak_BJ - peak_BJ.max(-1, keepdims=True))


def _filter(logits, peak_B, total_B, knobs):
    """Returns logits `[B, V]` with minus infinity where top-k, top-p or min-p drop a token."""
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
    """Finds the first index where the cumulative sum of `mass` exceeds `uniform` times its total.

    Args:
      mass: `[B, I]` or `[B, J]`.
      uniform: `[B]` in [0, 1).

    Returns:
      The index `[B]`, and where the draw fell between the bounds of that index, `[B]`. The latter
      is again uniform in [0, 1).
    """
    cumulative = jnp.cumsum(mass.astype(jnp.float32), -1)
    target = jnp.minimum(uniform, 1 - 1e-6) * cumulative[:, -1]
    # An entry without mass repeats the cumulative value of its predecessor, so it is never first.
    index = jnp.sum(cumulative <= target[:, None], -1)
    upper = jnp.take_along_axis(cumulative, index[:, None], -1)[:, 0]
    lower = jnp.where(cumulative <= target[:, None], cumulative, 0.0).max(-1)
    return index, (target - lower) / (upper - lower)
