"""Process reward model (PRM): gives a score to every step of a solution (arXiv:2305.20050)."""

from collections.abc import Sequence
from typing import Any

from models.scalar_head import ScalarModel
from models.tokens.tokenizer import Tokenizer
from reasoning.generation.step_splitter import StepSplitter
from reasoning.verifiers.scalar import ScalarVerifier


class ProcessVerifier(ScalarVerifier):
    """Estimates after each step the probability that the solution is right so far.

    `train.objectives.process_reward` trains the model; its labels define what "right" means.
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
        """Makes a verifier from a trained scalar model; see `ScalarVerifier`.

        Args:
          model: the scalar model.
          params: its parameters.
          tokenizer: its tokenizer.
          generator_tokenizer: tokenizer of the generator; None to tokenize responses' texts.
          delimiter: the text that ended a step in training.

        Raises:
          ValueError: the tokenizers differ, or the delimiter is empty.
        """
        super().__init__(model, params, tokenizer, generator_tokenizer=generator_tokenizer)
        self._splitter = StepSplitter(tokenizer, delimiter)

    def read_at(self, token_ids: Sequence[int]) -> list[int]:
        """Returns the indices of the tokens that end a step."""
        return self._splitter.ends(token_ids)
