"""Process reward model: a score for every step of a solution (arXiv:2305.20050)."""

from collections.abc import Sequence
from typing import Any

from models.scalar_head import ScalarModel
from models.tokens.tokenizer import Tokenizer
from reasoning.generation.step_splitter import StepSplitter
from reasoning.verifiers.scalar import ScalarVerifier


class ProcessVerifier(ScalarVerifier):
    """The probability, after each step, that the solution is right so far.

    Trained by `train.objectives.process_reward`; what "right" means is its labels' affair.
    """

    def __init__(
        self,
        model: ScalarModel,
        params: Any,
        tokenizer: Tokenizer,
        *,
        generator_tokenizer: Tokenizer | None = None,
        delimiter: str = "\n",
    ):
        """See `ScalarVerifier`; `delimiter` is what ended a step in training."""
        super().__init__(model, params, tokenizer, generator_tokenizer=generator_tokenizer)
        self._splitter = StepSplitter(tokenizer, delimiter)

    def read_at(self, token_ids: Sequence[int]) -> list[int]:
        """The tokens that end a step."""
        return self._splitter.ends(token_ids)
