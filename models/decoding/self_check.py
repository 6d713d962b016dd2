"""Checks that the sampler and the trainer give sampled tokens the same log-probs.

The sampler decodes token by token over a cache; the trainer reads whole sequences. They are two
programs of one model. If they disagree, RL trains on tokens of another distribution than it
assumes, and searches and evaluations measure another model. `SamplerCheck` reads a few samples
again as the trainer would and raises `SamplerMismatch` if log-probs differ by more than rounding
explains.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from models.decoder import LanguageModel
from models.logprobs import token_logprobs
from models.sharding import constrain

# How many sequences a check reads.
ROWS = 4
# Bounds on KL(sampler || trainer) in nats per token, by the dtype that the model computes in. With
# float32, rounding causes 1e-8; bfloat16 has 8 bits, and published runs report up to 1e-2 with it.
# int8: a sampler with int8 kernels or cache; server: one in another process, whatever its dtype.
MAX_KL = {"float32": 1e-4, "bfloat16": 5e-2, "int8": 1e-1, "server": 1e-1}
# Bounds on the difference of any single token's log-prob, in nats; bfloat16 has none.
MAX_GAP = {"float32": 2e-2}


class SamplerMismatch(ValueError):
    """The sampler's log-probs differ from the trainer's by more than rounding explains."""


@dataclasses.dataclass(frozen=True)
class Sampled:
    """One sample, as the sampler returned it.

    Attributes:
      context: token ids that precede the sample.
      tokens: token ids of the sample.
      logprobs: float32 `[len(tokens)]`, the sampler's log-probs under softmax(logits /
        temperature).
    """

    context: Sequence[int]
    tokens: Sequence[int]
    logprobs: np.ndarray


def mismatch(kl: float, gap: float, dtype: str) -> str | None:
    """Returns an error text if sampler and trainer differ by more than rounding, else None.

    Args:
      kl: KL(sampler || trainer) in nats per token.
      gap: the largest difference of a token's log-prob, in nats.
      dtype: name of the dtype that the model computes in, or another key of `MAX_KL`.
    """
    max_kl, max_gap = MAX_KL.get(dtype, MAX_KL["bfloat16"]), MAX_GAP.get(dtype, np.inf)
    if kl <= max_kl and gap <= max_gap:  # NaN fails this comparison, as it should.
        return None
    if dtype == "server":
        remedy = "Check that the server has this model and took the weights that it was sent last"
    else:
        remedy = "Please report this with the processor and the versions of jax and jaxlib"
    return (
        "the sampler and the trainer disagree about the log-probs of sampled tokens: KL is"
        f" {kl:.2g} nats per token (bound: {max_kl:g} with {dtype}), the largest difference"
        f" {gap:.2g} nats. Results of such samples would be wrong, so the run stops. {remedy}"
    )


def divergence(sampler: np.ndarray, trainer: np.ndarray) -> tuple[float, float]:
    """Estimates KL(sampler || trainer) from sampled tokens and finds the largest difference.

    The estimator is k3 (http://joschu.net/blog/kl-approx.html), which is unbiased, never negative
    and of low variance.

    Args:
      sampler, trainer: log-probs `[U]` of the same sampled tokens.

    Returns:
      KL in nats per token, and the largest difference of a token's log-prob in nats.
    """
    log_ratio = np.asarray(trainer, np.float64) - np.asarray(sampler, np.float64)
    if not len(log_ratio):
        return 0.0, 0.0
    kl = np.expm1(np.minimum(log_ratio, 50.0)) - log_ratio
    return float(kl.mean()), float(np.abs(log_ratio).max())


class SamplerCheck:
    """Compares a few samples with the trainer; see the module's docstring.

    Later calls of a program may differ from its first call, as happened when programs ran side by
    side. So `due` asks for checks of calls 2, 4, 8, 16, ..., which cost next to nothing in the long
    run.
    """

    def __init__(self, model: LanguageModel, precision: str | None = None):
        """Creates a check.

        Args:
          model: the trainer's model.
          precision: of the sampler, a key of `MAX_KL`; None is the model's dtype.
        """
        self._precision = precision or jnp.dtype(model.config.dtype).name
        self._model, self._calls = model, 0

        def logprobs(params, tokens, positions, segment_ids, temperature):
            hidden = model.hidden(params, tokens, positions, segment_ids)
            logprobs = token_logprobs(model, params, hidden, tokens, temperature=temperature)
            return constrain(logprobs, None, None)  # Every process reads all of them.

        self._logprobs = jax.jit(logprobs)

    def due(self) -> bool:
        """Counts one call of the sampler and returns whether its samples should be checked."""
        self._calls += 1
        return self._calls > 1 and self._calls & (self._calls - 1) == 0

    def __call__(
        self, params: Any, samples: Sequence[Sampled], temperature: float
    ) -> tuple[float, float]:
        """Reads the first few samples as the trainer would and compares the log-probs.

        Args:
          params: parameters of the model.
          samples: the sampler's output; empty samples and contexts are skipped.
          temperature: temperature of the sampler; 0 (greedy) has the log-probs of temperature 1.

        Returns:
          KL(sampler || trainer) in nats per token and the largest difference of a token's log-prob
          in nats; zeros if no sample is left.

        Raises:
          SamplerMismatch: they are larger than rounding explains.
        """
        samples = [s for s in samples if len(s.tokens) and len(s.context)][:ROWS]
        if not samples:
            return 0.0, 0.0
        longest = max(len(s.context) + len(s.tokens) for s in samples)
        width = max(32, 1 << (longest - 1).bit_length())
        tokens, segment_ids = np.zeros((2, ROWS, width), np.int32)
        for row, sample in enumerate(samples):
            ids = [*sample.context, *sample.tokens]
            tokens[row, : len(ids)], segment_ids[row, : len(ids)] = ids, 1
        positions = np.broadcast_to(np.arange(width, dtype=np.int32), tokens.shape)
        found = self._logprobs(
            params, tokens, positions, segment_ids, np.float32(temperature or 1.0)
        )
        found = np.asarray(found)
        trainer = [
            found[row, len(s.context) : len(s.context) + len(s.tokens)]
            for row, s in enumerate(samples)
        ]
        kl, gap = divergence(np.concatenate([s.logprobs for s in samples]), np.concatenate(trainer))
        if reason := mismatch(kl, gap, self._precision):
            raise SamplerMismatch(reason)
        return kl, gap
