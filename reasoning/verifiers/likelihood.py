"""Verifiers that need no training: what the policy itself thinks of its responses."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from models.decoder import LanguageModel
from models.logprobs import map_columns
from models.tokens.tokenizer import Tokenizer
from reasoning.generation.generator import Completion
from reasoning.problem import Problem
from reasoning.verifiers import Tracker
from reasoning.verifiers.scalar import SequenceScorer


class MeanLogprob:
    """exp of the mean log-probability of a response's tokens: its inverse perplexity.

    Free: the generator has reported it. It scores whole responses only.
    """

    config = None  # runs no model

    def score(
        self,
        problems: Sequence[Problem],
        prompts: Sequence[str],
        completions: Sequence[Sequence[Completion]],
    ) -> list[list[np.ndarray]]:
        """See `Verifier`.

        Raises:
          ValueError: the generator reports no log-probabilities.
        """
        if any(completion.logprobs is None for group in completions for completion in group):
            raise ValueError(
                "the mean log-probability was asked for, but the generator reports none: use a"
                " generator that does, or another verifier"
            )
        return [
            [np.exp([np.mean(c.logprobs) if len(c.logprobs) else -np.inf]) for c in group]
            for group in completions
        ]

    def start(self, problems: Sequence[Problem], prompts: Sequence[str], **limits: int) -> Tracker:
        """Raises `ValueError`: a search over steps needs a process verifier."""
        raise ValueError(
            "the mean log-probability scores whole responses: search over steps by another verifier"
        )


class SelfCertainty:
    """1 - exp(-c), c being the self-certainty of a response (arXiv:2502.18581).

    c is the mean over its tokens of KL(uniform | p), p being the distribution that a token was
    drawn from: how far the policy was from guessing, whichever token came of it. In nats, here
    brought from [0, inf) to [0, 1), which keeps the order. Whole responses are read again, under
    softmax(logits); it scores nothing else.
    """

    def __init__(self, model: LanguageModel, params: Any, tokenizer: Tokenizer):
        """Args:
        model, params, tokenizer: of the policy.
        """
        self.config = model.config
        self._tokenizer, vocab = tokenizer, model.config.vocab_size

        def of_columns(params, hidden):
            logits = model.logits(params, hidden)
            return jax.nn.logsumexp(logits, -1) - logits.mean(-1) - jnp.log(float(vocab))

        def certainty(params, hidden_BTD):
            return map_columns(lambda h: of_columns(params, h), (hidden_BTD,), vocab)

        self._scorer = SequenceScorer(model, params, values=certainty)

    def score(
        self,
        problems: Sequence[Problem],
        prompts: Sequence[str],
        completions: Sequence[Sequence[Completion]],
    ) -> list[list[np.ndarray]]:
        """See `Verifier`; an empty response scores 0."""
        del problems
        prompt_ids = self._tokenizer.encode_batch(prompts)
        responses = [[completion.token_ids for completion in group] for group in completions]
        certainties = self._scorer.of_responses(prompt_ids, responses)
        # The distribution of a token stands where the token before it is read.
        own = [
            [read[len(prompt) - 1 : -1] for read in group]
            for prompt, group in zip(prompt_ids, certainties)
        ]
        return [
            [1 - np.exp(-np.array([each.mean() if each.size else 0.0])) for each in group]
            for group in own
        ]

    def start(self, problems: Sequence[Problem], prompts: Sequence[str], **limits: int) -> Tracker:
        """Raises `ValueError`: a search over steps needs a process verifier."""
        raise ValueError(
            "self-certainty scores whole responses: search over steps by another verifier"
        )
