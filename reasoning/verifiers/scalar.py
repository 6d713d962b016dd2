"""What the learned verifiers share: batched scores of sequences by a scalar model."""

import abc
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from models.compilations import count_programs
from models.decoder import Model
from models.paths.path_scorer import PathScorer
from models.scalar_head import ScalarModel
from models.tokens.packing import pack, place
from models.tokens.tokenizer import Tokenizer
from reasoning.generation.generator import Completion
from reasoning.problem import Problem
from reasoning.verifiers import Tracker
from reasoning.verifiers.rescoring import RescoringTracker, ResponseSoFar
from reasoning.verifiers.stepwise import StepwiseTracker

# Shortest row that sequences are packed into; rows grow by powers of two.
LEAST_ROW = 64


def check_same_vocabulary(verifier: Tokenizer, generator: Tokenizer) -> None:
    """Raises `ValueError` where a token id means another text to the verifier."""
    if verifier is generator:
        return
    for i in range(max(verifier.vocab_size, generator.vocab_size)):
        ours, theirs = verifier.token_bytes(i), generator.token_bytes(i)
        if ours != theirs:
            raise ValueError(
                f"the verifier's tokenizer is not the generator's: token {i} is {ours!r} to the "
                f"verifier and {theirs!r} to the generator; use a verifier that was trained from "
                "a model with this tokenizer"
            )


class SequenceScorer:
    """Values of every token of many sequences, by packed forward passes.

    Sequences are packed into rows, and rows into batches, whose sizes are powers of two: a few
    programs serve all calls.
    """

    def __init__(
        self,
        model: Model,
        params: Any,
        batch_tokens: int = 2**14,
        values: Callable[[Any, jax.Array], jax.Array] | None = None,
    ):
        """Args:
        batch_tokens: tokens, padding included, of one forward pass.
        values: `(params, hidden [B, T, D]) -> [B, T]`; those of the scalar model by default.
        """
        self.model, self.params, self._batch_tokens = model, params, batch_tokens
        of_hidden = values or model.values

        def forward(params, tokens, positions, segment_ids):
            return of_hidden(params, model.hidden(params, tokens, positions, segment_ids))

        self._values = jax.jit(forward)

    @property
    def compilations(self) -> int:
        """Programs compiled so far."""
        return count_programs(self._values)

    def __call__(self, sequences: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Float32 values `[length]` of each sequence; equal sequences are read once.

        Raises:
          ValueError: a sequence that is empty, too long for the model, or of another vocabulary.
        """
        distinct = list(dict.fromkeys(tuple(sequence) for sequence in sequences))
        if not distinct:
            return []
        config = self.model.config
        longest = max(len(sequence) for sequence in distinct)
        if longest > config.max_length:
            raise ValueError(
                f"a prompt with its response has {longest} tokens; the verifier's context is "
                f"{config.max_length}: shorten it, or allow fewer new tokens"
            )
        largest = max(max(sequence, default=0) for sequence in distinct)
        if largest >= config.vocab_size:
            raise ValueError(
                f"token {largest} is outside the verifier's vocabulary of {config.vocab_size}"
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
        """Values of every token of each response behind its prompt, the prompt's tokens included.

        Args:
          prompts: P sequences of token ids.
          groups: `[P][G]` responses to them.
        """
        pairs = zip(prompts, groups, strict=True)
        values = iter(self([[*prompt, *ids] for prompt, group in pairs for ids in group]))
        return [[next(values) for _ in group] for group in groups]

    def _block(self, batch, start: int, count: int) -> jax.Array:
        """Values of some rows, filled up to a power of two with empty ones."""
        rows = 1 << (count - 1).bit_length()
        padded = [
            np.pad(batch[name][start : start + count], ((0, rows - count), (0, 0)))
            for name in ("tokens", "positions", "segment_ids")
        ]
        return self._values(self.params, *map(jnp.asarray, padded))[:count]


class ScalarVerifier(abc.ABC):
    """A learned verifier: the sigmoid of a scalar model's values at some tokens of a response.

    Attributes:
      model, params, tokenizer: the scalar model.
      config: sizes by which to count its FLOPs: those of a decoder with a vocabulary of one.
    """

    def __init__(
        self,
        model: ScalarModel,
        params: Any,
        tokenizer: Tokenizer,
        *,
        generator_tokenizer: Tokenizer | None = None,
    ):
        """Args:
        generator_tokenizer: of the generator whose token ids are scored; must have the same
          vocabulary. None for a generator of text alone, whose responses are tokenized here.

        Raises:
          ValueError: another vocabulary.
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
        """Indices of the response's tokens whose values are its step scores."""

    def score(
        self,
        problems: Sequence[Problem],
        prompts: Sequence[str],
        completions: Sequence[Sequence[Completion]],
    ) -> list[list[np.ndarray]]:
        """See `reasoning.verifiers.Verifier`."""
        del problems
        prompt_ids = self.tokenizer.encode_batch(prompts)
        responses = [[self._ids(completion) for completion in group] for group in completions]
        values = self._scorer.of_responses(prompt_ids, responses)
        scores = []
        for prompt, group, of_group in zip(prompt_ids, responses, values):
            scores.append([])
            for ids, read in zip(group, of_group):
                # An empty response is judged by what the prompt's last token promises.
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
        """See `reasoning.verifiers.Verifier`. Compiles once for each shape of search.

        Reads each step once where token ids are scored, and whole paths anew where texts are.
        """
        prompt_ids = self.tokenizer.encode_batch(prompts)
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
        if self._reads_ids:
            return list(response.token_ids)
        ids = self.tokenizer.encode(response.text)
        return [*ids, self.tokenizer.eos_id] if response.finish == "stop" else ids
