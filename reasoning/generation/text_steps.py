"""The `StepGenerator` on top of any `Generator`, such as a server, which exchanges only text."""

from collections.abc import Sequence

import numpy as np

from models.decoding.sampling import SamplingParams
from models.paths.places import EMPTY, ROOT, at, check_places, check_sizes, put
from models.seeds import derive_seed
from reasoning.generation.delimiters import step_ends
from reasoning.generation.generator import Completion, Generator
from reasoning.generation.steps import HostPaths, PathText, Places, Step


class TextStepGenerator:
    """Samples steps from any `Generator`, such as a server.

    For each step it sends the prompt with the path's text so far. A server with a prefix cache need
    not read that text again.
    """

    def __init__(self, generator: Generator):
        self.generator = generator

    def start(
        self,
        prompts: Sequence[str],
        *,
        capacity: int,
        width: int,
        max_new_tokens: int,
        step_tokens: int,
        delimiter: str,
        sampling: SamplingParams = SamplingParams(),
        seed: int = 0,
    ) -> "TextPaths":
        """Starts a search from bare prompts; see `StepGenerator`."""
        check_sizes(
            capacity=capacity, width=width, max_new_tokens=max_new_tokens, step_tokens=step_tokens
        )
        step_ends(delimiter)  # It must not be empty.
        limits = capacity, width, max_new_tokens, step_tokens
        return TextPaths(self.generator, prompts, limits, delimiter, sampling, seed)


class TextPaths(HostPaths):
    """The `Paths` of any `Generator`.

    An extension takes one call of the generator, plus one for each shorter token limit that paths
    near their end have.
    """

    def __init__(
        self,
        generator: Generator,
        prompts: Sequence[str],
        limits: tuple[int, int, int, int],
        delimiter: str,
        sampling: SamplingParams,
        seed: int,
    ):
        tokenizer = getattr(generator, "tokenizer", None)
        ids = tokenizer.encode_prompts(prompts) if tokenizer else [[]] * len(prompts)
        super().__init__([len(each) for each in ids], sampling, seed)
        self._generator, self._prompts, self._delimiter = generator, list(prompts), delimiter
        capacity, self._width, self._most, self._step_tokens = limits
        self._lengths = np.full((len(prompts), capacity + 1), EMPTY, np.int64)
        self._lengths[:, ROOT] = 0
        self._ended = np.zeros(self._lengths.shape, bool)

    def extend(
        self, parents: Places, into: Places, sampling: SamplingParams | None = None
    ) -> list[list[Step]]:
        """Extends paths by one step each; see `Paths`."""
        shape = len(self._prompts), self._width
        sources, targets = check_places(
            self._lengths, self._ended, *self._request(parents, into, *shape), self._width
        )
        lengths = at(self._lengths, sources)
        limits = np.minimum(self._step_tokens, self._most - lengths)
        rows = [(p, i) for p, places in enumerate(parents) for i in range(len(places))]
        seed, steps = self._next_extension(), {}
        for limit in sorted({limits[row] for row in rows}, reverse=True):
            asked = [row for row in rows if limits[row] == limit]
            groups = self._generator.generate(
                [self._prompts[p] + self.text(p, sources[p, i]) for p, i in asked],
                max_new_tokens=int(limit),
                sampling=sampling or self._sampling,
                stop=step_ends(self._delimiter),
                seed=derive_seed(self._seed, seed, int(limit)),
            )
            for row, (completion,) in zip(asked, groups, strict=True):
                steps[row] = self._step(completion, lengths[row])
        gained, ended = np.zeros(shape, np.int64), np.zeros(shape, bool)
        for row, step in steps.items():
            gained[row], ended[row] = len(step.token_ids), step.ended
        self._lengths = put(self._lengths, targets, lengths + gained)
        self._ended = put(self._ended, targets, ended)
        self.sampled_tokens += gained.sum(1)
        found = [[steps[p, i] for i in range(len(places))] for p, places in enumerate(parents)]
        grown = [
            [
                PathText(before.token_ids + step.token_ids, before.text + step.text)
                for before, step in zip((self._path_texts[p][place] for place in places), found[p])
            ]
            for p, places in enumerate(parents)
        ]
        self._keep(grown, into)
        return found

    def _step(self, completion: Completion, length: int) -> Step:
        """Returns a completion as a step of a path that had `length` tokens before it."""
        count = len(completion.token_ids)
        if completion.finish == "stop":
            finish = "stop"
        elif length + count >= self._most or not count:
            # A path that does not grow must end, or the search would extend it for ever.
            finish = "length"
        else:
            finish = "delimiter" if completion.finish == "stop_string" else "step_length"
        return Step(list(completion.token_ids), completion.text, completion.logprobs, finish)
