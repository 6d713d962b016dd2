"""How a response is split into steps: at the tokens that complete a delimiter.

Works on the ids that were sampled, never on text tokenized anew, and walks the same automaton as
the sampler does for a stop string. So the steps of a response are those that sampling it one step
at a time, each until the delimiter, would have stopped at: where a delimiter is completed inside a
token, that token ends the step, whatever else it holds.
"""

from collections.abc import Sequence

from models.tokens.stopping import TokenAutomaton
from models.tokens.tokenizer import Tokenizer


class StepSplitter:
    """Finds the steps of responses.

    Attributes:
      delimiter: text that ends a step and belongs to it.
    """

    def __init__(self, tokenizer: Tokenizer, delimiter: str = "\n"):
        """Raises `ValueError` where the delimiter is empty."""
        automaton = TokenAutomaton.of([delimiter], tokenizer, tokenizer.vocab_size)
        self.delimiter = delimiter
        # As lists: walking them token by token is faster than indexing an array.
        self._transitions = automaton.transitions.tolist()

    def ends(self, token_ids: Sequence[int]) -> list[int]:
        """Indices of the tokens that end a step, ascending; the last token always does.

        What follows the last delimiter is a step too, if only the end-of-sequence token. No tokens
        make no steps.
        """
        ends, state, match = [], 0, len(self._transitions) - 1
        known = len(self._transitions[0])
        for i, token in enumerate(token_ids):
            # An id of the padded part of a model's vocabulary adds no text.
            state = self._transitions[state][token] if token < known else state
            if state == match:
                ends.append(i)
                state = 0
        if len(token_ids) and ends[-1:] != [len(token_ids) - 1]:
            ends.append(len(token_ids) - 1)
        return ends

    def split(self, token_ids: Sequence[int]) -> list[list[int]]:
        """The steps themselves; joined, they are `token_ids`."""
        ends = self.ends(token_ids)
        starts = [0, *(end + 1 for end in ends)]
        return [list(token_ids[start : end + 1]) for start, end in zip(starts, ends)]
