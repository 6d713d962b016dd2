"""The base of the learned verifiers: scores many sequences with a scalar model, in batches.

`process` and `outcome` derive from `ScalarVerifier`.
"""

import abc
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from models.decoder import Model
from models.decoding.compilations import count_programs
from models.paths.path_scorer import PathScorer
from models.scalar_head import ScalarModel
from models.tokens.packing import pack, place
from models.tokens.tokenizer import Tokenizer
from reasoning.generation.generator import Completion
from reasoning.problem import Problem
from reasoning.verifiers import Tracker
from reasoning.verifiers.rescoring import RescoringTracker, ResponseSoFar
from reasoning.verifiers.stepwise import StepwiseTracker

# Length of the shortest row that sequences are packed into; lengths grow by powers of two.
LEAST_ROW = 64


def check_same_vocabulary(verifier: Tokenizer, generator: Tokenizer) -> None:
    """Raises `ValueError` if a token id stands for different texts in the two tokenizers."""
    if verifier is generator:
        return
    for i in range(max(verifier.vocab_size, generator.vocab_size)):
        ours, theirs = verifier.token_bytes(i), generator.token_bytes(i)
        if ours != theirs:
            raise ValueError(
                f"the verifier's tokenizer differs from the generator's: token {i} is {ours!r} for"
                f" the verifier and {theirs!r} for the generator; use a verifier that was trained"
                " from a model with the generator's tokenizer"
            )


class SequenceScorer:
    """Computes a value for every token of many sequences, in packed forward passes.

    It packs sequences into rows, and rows into batches. Both sizes are powers of two, so a few
    compiled programs serve all calls.
    """

    def __init__(
        self,
        model: Model,
        params: Any,
        batch_tokens: int = 2**14,
        values: Callable[[Any, jax.Array], jax.Array] | None = None,
    ):
        """Makes a scorer; nothing is compiled yet.

        Args:
          model: gives the hidden states, and the values if `values` is None.
          params: its parameters.
          batch_tokens: most tokens of one forward pass, padding included.
          values: maps `(params, hidden [B, T, D])` to values `[B, T]`; None for `model.values`,
            which a scalar model has.
        """
        self.model, self.params, self._batch_tokens = model, params, batch_tokens
        of_hidden = values or model.values

        def forward(params, tokens, positions, segment_ids):
            return of_hidden(params, model.hidden(params, tokens, positions, segment_ids))

        self._values = jax.jit(forward)

    @property
    def compilations(self) -> int:
        """Number of programs compiled so far."""
        return count_programs(self._values)

    def __call__(self, sequences: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Returns the float32 values `[length]` of each sequence; equal sequences are read once.

        Args:
          sequences: token ids of each sequence.

        Raises:
          ValueError: a sequence is empty or too long for the model, or a token is outside the
            model's vocabulary.
        """
        distinct = list(dict.fromkeys(tuple(sequence) for sequence in sequences))
        if not distinct:
            return []
        config = self.model.config
        longest = max(len(sequence) for sequence in distinct)
        if longest > config.max_length:
            raise ValueError(
                f"a prompt with its response has {longest} tokens; the verifier's context is"
                f" {config.max_length}: shorten the prompt, or lower max_new_tokens"
            )
        largest = max(max(sequence, default=0) for sequence in distinct)
        if largest >= config.vocab_size:
            raise ValueError(
                f"token {largest} is outside the verifier's vocabulary of {config.vocab_size}: use"
                " a verifier with the generator's tokenizer"
            )
        row_length = max(LEAST_ROW, 1 << (longest - 1).bit_length())
        placement = place([len(sequence) for sequence in distinct], row_length)
        batch = pack([{"tokens": np.array(s)} for s in distinct], placement, row_length)
        block = max(1, self._batch_tokens // row_length)
        rows = [
            self._block(batch, start, min(block, placement.num_rows - start))
            for start in range(0, placement.num_rows, block)
        ]
        values = np.concatenate([np.asarray(x) for x in rows])
        found = {
            sequence: values[row, offset : offset + len(sequence)]
            for sequence, row, offset in zip(distinct, placement.row, placement.offset)
        }
        return [found[tuple(sequence)] for sequence in sequences]

    def of_responses(
        self, prompts: Sequence[Sequence[int]], groups: Sequence[Sequence[Sequence[int]]]
    ) -> list[list[np.ndarray]]:
        """Returns the values of every token of each prompt and response, joined.

        Args:
          prompts: token ids of P prompts.
          groups: token ids of `[P][G]` responses.

        Returns:
          `[P][G]` float32 arrays `[prompt length + response length]`.
        """
        pairs = zip(prompts, groups, strict=True)
        values = iter(self([[*prompt, *ids] for prompt, group in pairs for ids in group]))
        return [[next(values) for _ in group] for group in groups]

    def _block(self, batch: dict[str, np.ndarray], start: int, count: int) -> jax.Array:
        """Returns the values of some rows, padded to a power of two with empty rows."""
        rows = 1 << (count - 1).bit_length()
        padded = [
            np.pad(batch[name][start : start + count], ((0, rows - count), (0, 0)))
            for name in ("tokens", "positions", "segment_ids")
        ]
        return self._values(self.params, *map(jnp.asarray, padded))[:count]


class ScalarVerifier(abc.ABC):
    """A learned verifier: the sigmoid of a scalar model's values at some tokens of a response.

    Attributes:
      model: the scalar model.
      params: its parameters.
      tokenizer: its tokenizer.
      config: config of a decoder with a vocabulary of one, to count FLOPs.
    """

    def __init__(
        self,
        model: ScalarModel,
        params: Any,
        tokenizer: Tokenizer,
        *,
        generator_tokenizer: Tokenizer | None = None,
    ):
        """Makes a verifier from a trained scalar model.

        Args:
          model: the scalar model.
          params: its parameters.
          tokenizer: its tokenizer.
          generator_tokenizer: tokenizer of the generator whose token ids are scored; it must have
            the same vocabulary. None if the generator returns text only; then the verifier
            tokenizes the responses.

        Raises:
          ValueError: the vocabularies differ.
        """
        tokenizer.check_fits(model.config.vocab_size)
        if generator_tokenizer is not None:
            check_same_vocabulary(tokenizer, generator_tokenizer)
        self.model, self.params, self.tokenizer = model, params, tokenizer
        self.config = model.config.replace(vocab_size=1)
        self._reads_ids = generator_tokenizer is not None
        self._scorer = SequenceScorer(model, params)
        self._path_scorers: dict[Any, PathScorer] = {}

    @abc.abstractmethod
    def read_at(self, token_ids: Sequence[int]) -> Sequence[int]:
        """Returns the indices of the response's tokens whose values are its step scores."""

    def score(
        self,
        problems: Sequence[Problem],
        prompts: Sequence[str],
        completions: Sequence[Sequence[Completion]],
    ) -> list[list[np.ndarray]]:
        """Returns the step scores of each response; see `reasoning.verifiers.Verifier`."""
        del problems
        prompt_ids = self.tokenizer.encode_prompts(prompts)
        responses = [[self._ids(completion) for completion in group] for group in completions]
        values = self._scorer.of_responses(prompt_ids, responses)
        scores = []
        for prompt, group, of_group in zip(prompt_ids, responses, values):
            scores.append([])
            for ids, read in zip(group, of_group):
                # An empty response gets the value of the prompt's last token.
                at = np.array(self.read_at(ids) if ids else [-1]) + len(prompt)
                scores[-1].append(special.expit(read[at].astype(np.float64)))
        return scores

    def start(
        self,
        problems: Sequence[Problem],
        prompts: Sequence[str],
        *,
        capacity: int,
        width: int,
        max_new_tokens: int,
        step_tokens: int,
    ) -> Tracker:
        """Returns a tracker for a search; see `reasoning.verifiers.Verifier`.

        With a generator tokenizer, the tracker reads each step once, and programs are compiled once
        for each set of limits. Without one, it reads a whole path again after each step.
        """
        prompt_ids = self.tokenizer.encode_prompts(prompts)
        if self._reads_ids:
            shape = (capacity, width, max_new_tokens, step_tokens)
            scorer = self._path_scorers.get(shape)
            if scorer is None or scorer.prompts < len(prompts):
                scorer = self._path_scorers[shape] = PathScorer(
                    self.model,
                    prompts=len(prompts),
                    capacity=capacity,
                    width=width,
                    max_new_tokens=max_new_tokens,
                    step_tokens=step_tokens,
                )
            return StepwiseTracker(scorer, self.params, prompt_ids, step_tokens)

        def score(paths: Sequence[ResponseSoFar]) -> list[float]:
            values = self._scorer([[*prompt_ids[p.problem], *self._ids(p)] for p in paths])
            return [special.expit(float(x[-1])) for x in values]

        return RescoringTracker(len(problems), capacity, score)

    def _ids(self, response: Completion | ResponseSoFar) -> list[int]:
        """Returns a response's token ids in the verifier's vocabulary."""
        if self._reads_ids:
            return list(response.token_ids)
        ids = self.tokenizer.encode(response.text)
        return [*ids, self.tokenizer.eos_id] if response.finish == "stop" else ids
