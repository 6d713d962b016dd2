"""Checks that what was sampled has the log-probs that the trainer would give it.

The sampler decodes token by token over a cache, the trainer reads whole sequences. They are two
programs of one model. Where they disagree, RL trains on tokens of another distribution than it
thinks, and searches and evaluations measure another model. `SamplerCheck` reads a few samples
again as the trainer would and raises `SamplerMismatch` where log-probs differ by more than
rounding explains.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from models.decoder import LanguageModel
from models.logprobs import token_logprobs

# Sequences that a check reads.
ROWS = 4
# Bounds by the dtype that the model computes in, on KL(sampler || trainer) in nats per token. At
# float32 rounding leaves 1e-8; bfloat16 has 8 bits, and published runs report up to 1e-2 with it.
MAX_KL = {"float32": 1e-4, "bfloat16": 5e-2}
# At float32 no single token may differ by more than this either, in nats.
MAX_GAP = {"float32": 2e-2}


class SamplerMismatch(ValueError):
    """The sampler's log-probs are not the trainer's."""


@dataclasses.dataclass(frozen=True)
class Sampled:
    """One sample as the sampler describes it.

    Attributes:
      context: token ids that precede it.
      tokens: its token ids.
      logprobs: float32 `[len(tokens)]`, under softmax(logits / temperature).
    """

    context: Sequence[int]
    tokens: Sequence[int]
    logprobs: np.ndarray


def mismatch(kl: float, gap: float, dtype: str) -> str | None:
    """Why sampler and trainer are not one model, in words, or None where they are.

    Args:
      kl: KL(sampler || trainer) in nats per token.
      gap: the largest difference of a token's log-prob, in nats.
      dtype: what the model computes in.
    """
    max_kl, max_gap = MAX_KL.get(dtype, MAX_KL["bfloat16"]), MAX_GAP.get(dtype, np.inf)
    if kl <= max_kl and gap <= max_gap:  # False for NaN.
        return None
    return (
        f"the sampler and the trainer disagree about what was sampled: KL {kl:.2g} nats per token"
        f" (at most {max_kl:g} with {dtype}), largest difference {gap:.2g}; results of such samples"
        " would be wrong, so the run stops. Report this with the processor and the versions of"
        " jax and jaxlib"
    )


def divergence(sampler: np.ndarray, trainer: np.ndarray) -> tuple[float, float]:
    """KL(sampler || trainer) per token, estimated without bias from samples, and the largest gap.

    The estimator is k3 (http://joschu.net/blog/kl-approx.html): never negative, low variance.

    Args:
      sampler, trainer: log-probs of the same sampled tokens, `[N]`.
    """
    log_ratio = np.asarray(trainer, np.float64) - np.asarray(sampler, np.float64)
    if not len(log_ratio):
        return 0.0, 0.0
    kl = np.expm1(np.minimum(log_ratio, 50.0)) - log_ratio
    return float(kl.mean()), float(np.abs(log_ratio).max())


class SamplerCheck:
    """Reads a few samples again as the trainer would; see the module.

    The first call of a program and later calls of it may differ, as they did where programs ran
    side by side. Calls 2, 4, 8, 16, ... are `due`, so checks cost next to nothing in the long run.
    """

    def __init__(self, model: LanguageModel):
        self._model, self._calls = model, 0

        def logprobs(params, tokens, positions, segment_ids, temperature):
            hidden = model.hidden(params, tokens, positions, segment_ids)
            return token_logprobs(model, params, hidden, tokens, temperature=temperature)

        self._logprobs = jax.jit(logprobs)

    def due(self) -> bool:
        """Counts a call of the sampler; whether its samples are to be checked."""
        self._calls += 1
        return self._calls > 1 and self._calls & (self._calls - 1) == 0

    def __call__(
        self, params: Any, samples: Sequence[Sampled], temperature: float
    ) -> tuple[float, float]:
        """KL(sampler || trainer) and the largest gap over the first few samples.

        Args:
          temperature: that of the sampler; 0 for greedy, whose log-probs are those of 1.

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
        kl, gap = divergence(
            np.concatenate([s.logprobs for s in samples]), np.concatenate(trainer)
        )
        if reason := mismatch(kl, gap, jnp.dtype(self._model.config.dtype).name):
            raise SamplerMismatch(reason)
        return kl, gap
