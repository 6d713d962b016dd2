"""Splits a response into steps, at the tokens that complete a delimiter.

It works on the sampled token ids, never on text that is tokenized again, and uses the same
automaton as the sampler uses for stop strings. The steps are therefore the same as if the response
had been sampled one step at a time. If a delimiter is completed inside a token, that token ends the
step, even if more text follows in the token.
"""

from collections.abc import Sequence

from models.tokens.stopping import TokenAutomaton
from models.tokens.tokenizer import Tokenizer
from reasoning.generation.delimiters import step_ends


class StepSplitter:
    """Finds the steps of responses.

    Attributes:
      delimiter: the text that ends a step and is part of it; see `delimiters.step_ends`.
    """

    def __init__(self, tokenizer: Tokenizer, delimiter: str = "\n"):
        """Makes a splitter; raises `ValueError` if the delimiter is empty."""
        automaton = TokenAutomaton.of(step_ends(delimiter), tokenizer, tokenizer.vocab_size)
        self.delimiter = delimiter
        # Indexing a list token by token is faster than indexing an array.
        self._transitions = automaton.transitions.tolist()

    def ends(self, token_ids: Sequence[int]) -> list[int]:
        """Returns the ascending indices of the tokens that end a step.

        The last token always ends a step: the tokens after the last delimiter are a step too, even
        if the end-of-sequence token is the only one. An empty response has no steps.
        """
        ends, state, match = [], 0, len(self._transitions) - 1
        known = len(self._transitions[0])
        for i, token in enumerate(token_ids):
            # A model's vocabulary may be padded beyond the tokenizer's; such ids add no text.
            state = self._transitions[state][token] if token < known else state
            if state == match:
                ends.append(i)
                state = 0
        if len(token_ids) and ends[-1:] != [len(token_ids) - 1]:
            ends.append(len(token_ids) - 1)
        return ends

    def split(self, token_ids: Sequence[int]) -> list[list[int]]:
        """Returns the token ids of each step; joined, they give `token_ids`."""
        ends = self.ends(token_ids)
        starts = [0, *(end + 1 for end in ends)]
        return [list(token_ids[start : end + 1]) for start, end in zip(starts, ends)]
