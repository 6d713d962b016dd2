"""Verifiers that need no training: they score a response by the policy's own probabilities."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from models.config import ModelConfig
from models.decoder import LanguageModel
from models.logprobs import map_columns
from models.tokens.tokenizer import Tokenizer
from reasoning.generation.generator import Completion
from reasoning.problem import Problem
from reasoning.verifiers import Tracker
from reasoning.verifiers.scalar import SequenceScorer


class MeanLogprob:
    """Scores a response by exp of the mean log-probability of its tokens (inverse perplexity).

    It costs nothing, since the generator reports the log-probabilities. It scores whole responses
    only.
    """

    config: ModelConfig | None = None  # It runs no model.

    def score(
        self,
        problems: Sequence[Problem],
        prompts: Sequence[str],
        completions: Sequence[Sequence[Completion]],
    ) -> list[list[np.ndarray]]:
        """Returns one score for each response; see `Verifier`. An empty response scores 0.

        Raises:
          ValueError: the generator reports no log-probabilities.
        """
        scores = []
        for group in completions:
            scores.append([])
            for completion in group:
                logprobs = completion.logprobs
                if logprobs is None:
                    raise ValueError(
                        "MeanLogprob needs log-probabilities, but the generator reports none: use"
                        " a generator that reports them, or another verifier"
                    )
                mean = np.mean(logprobs) if len(logprobs) else -np.inf
                scores[-1].append(np.exp(np.array([mean])))
        return scores

    def start(self, problems: Sequence[Problem], prompts: Sequence[str], **limits: int) -> Tracker:
        """Always raises `ValueError`, since it cannot score single steps."""
        raise ValueError(
            "MeanLogprob scores whole responses: use a process verifier to search over steps"
        )


class SelfCertainty:
    """Scores a response by 1 - exp(-c), where c is its self-certainty (arXiv:2502.18581).

    c is the mean over the response's tokens of KL(uniform | p) in nats, where p is the distribution
    that the token was drawn from. It measures how far the policy was from guessing, for any token
    that it drew. The map from c in [0, inf) to [0, 1) keeps the order.

    The policy reads the responses again, at temperature 1. It scores whole responses only.
    """

    def __init__(self, model: LanguageModel, params: Any, tokenizer: Tokenizer):
        """Makes a verifier from the policy.

        Args:
          model: the policy's model.
          params: its parameters.
          tokenizer: its tokenizer.
        """
        self.config = model.config
        self._tokenizer, vocab = tokenizer, model.config.vocab_size

        def of_columns(params: Any, hidden: jax.Array) -> jax.Array:
            """Returns KL(uniform | softmax(logits)) for hidden vectors `[..., D]`."""
            logits = model.logits(params, hidden)
            return jax.nn.logsumexp(logits, -1) - logits.mean(-1) - jnp.log(float(vocab))

        def certainty(params: Any, hidden_BTD: jax.Array) -> jax.Array:
            return map_columns(lambda h: of_columns(params, h), (hidden_BTD,), vocab)

        self._scorer = SequenceScorer(model, params, values=certainty)

    def score(
        self,
        problems: Sequence[Problem],
        prompts: Sequence[str],
        completions: Sequence[Sequence[Completion]],
    ) -> list[list[np.ndarray]]:
        """Returns one score for each response; see `Verifier`. An empty response scores 0."""
        del problems
        prompt_ids = self._tokenizer.encode_prompts(prompts)
        responses = [[completion.token_ids for completion in group] for group in completions]
        certainties = self._scorer.of_responses(prompt_ids, responses)
        # The model outputs a token's distribution at the position of the token before it.
        own = [
            [read[len(prompt) - 1 : -1] for read in group]
            for prompt, group in zip(prompt_ids, certainties)
        ]
        return [
            [1 - np.exp(-np.array([each.mean() if each.size else 0.0])) for each in group]
            for group in own
        ]

    def start(self, problems: Sequence[Problem], prompts: Sequence[str], **limits: int) -> Tracker:
        """Always raises `ValueError`, since it cannot score single steps."""
        raise ValueError(
            "SelfCertainty scores whole responses: use a process verifier to search over steps"
        )
