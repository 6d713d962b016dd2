"""Preference rewards from reward models (DeepSeek-R1, arXiv:2501.12948, 2.3.4).

Helpfulness scores only the final answer, so that it does not influence the reasoning; harmlessness
scores the whole response, including the chain.
"""

import abc
import dataclasses
import functools
from collections.abc import Sequence

from scipy import special

from models.hf.load import load_scalar_model
from reasoning.response import Response, parse_response, whole_response
from reasoning.verifiers.scalar import SequenceScorer
from rl.rewards import RewardResult, Sample


@dataclasses.dataclass(frozen=True)
class _PreferenceReward(abc.ABC):
    """Sigmoid of a Bradley-Terry reward model's value, 0..1; 0 for a response without the format.

    The bound limits the gain from a text that fools the reward model. A response that is longer
    than the model's context earns 0 too.

    Attributes:
      checkpoint: directory of the reward model, a scalar model that
        `train.objectives.reward_model` trains.
    """

    checkpoint: str

    def score_batch(self, samples: Sequence[Sample]) -> list[RewardResult]:
        """Returns one result for each sample, in order."""
        tokenizer, scorer = _load(self.checkpoint)
        responses = [parse_response(whole_response(s.prompt, s.completion)) for s in samples]
        # The response follows the prompt exactly as in the policy's chat.
        prompts = tokenizer.encode_prompts([sample.prompt for sample in samples])
        read = tokenizer.encode_batch(
            [self.shown(sample, response) for sample, response in zip(samples, responses)]
        )
        texts = [
            [*prompt, *ids, tokenizer.eos_id] for prompt, ids in zip(prompts, read, strict=True)
        ]
        limit = scorer.model.config.max_length
        fits = [r.well_formed and len(t) <= limit for r, t in zip(responses, texts, strict=True)]
        values = iter(scorer([text for text, fit in zip(texts, fits) if fit]))
        results = []
        for response, fit in zip(responses, fits, strict=True):
            if fit:
                value = float(next(values)[-1])
                score = float(special.expit(value))
                results.append(RewardResult(score, f"the reward model gives {value:.2f}"))
            elif response.well_formed:
                results.append(RewardResult(0.0, f"longer than the model's {limit} tokens"))
            else:
                results.append(RewardResult(0.0, f"not well formed: {response.reason}"))
        return results

    @abc.abstractmethod
    def shown(self, sample: Sample, response: Response) -> str:
        """Returns the text that the reward model reads after the prompt."""


class HelpfulReward(_PreferenceReward):
    """Scores how helpful the final answer is."""

    def shown(self, sample: Sample, response: Response) -> str:
        """Returns the final answer alone."""
        return f" {response.answer}"


class HarmlessReward(_PreferenceReward):
    """Scores how harmless the whole response is."""

    def shown(self, sample: Sample, response: Response) -> str:
        """Returns the whole completion, chain included."""
        return sample.completion


@functools.cache
def _load(checkpoint: str):
    """Loads the reward model; cached so that weights load and programs compile only once."""
    model, params, tokenizer = load_scalar_model(checkpoint)
    return tokenizer, SequenceScorer(model, params)
