"""Banks that draw samples and compute scores once for all methods that need the same ones.

They make a comparison of methods over many budgets affordable.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from models.decoding.sampling import SamplingParams
from reasoning.generation.generator import Completion, Generator
from reasoning.problem import Problem
from reasoning.verifiers import Verifier


class SampleBank:
    """A generator that draws `size` samples of a prompt once and hands out the first of them.

    A method with a smaller budget gets a part of the samples that a larger budget gets, so a
    comparison over budgets costs one draw. Requests with stop strings, with other sampling settings
    or limits, or for more than `size` samples go to the wrapped generator.

    Args:
      generator: draws the samples.
      size: samples of a prompt.
      max_new_tokens: limit of a sample that the bank keeps.
      sampling: settings of a sample that the bank keeps.
      shared: prompts that several methods ask for. They are drawn together, with `seed`, as soon as
        one of them is asked for: so their samples do not depend on which method comes first, and a
        comparison that was interrupted goes on with the same ones.
      seed: seed of the shared prompts' samples.
    """

    def __init__(
        self,
        generator: Generator,
        size: int,
        max_new_tokens: int,
        sampling: SamplingParams,
        *,
        shared: Sequence[str],
        seed: int,
    ):
        self._generator, self._size = generator, size
        self._terms = (max_new_tokens, sampling)
        self._shared, self._seed = list(dict.fromkeys(shared)), seed
        self._kept: dict[str, list[Completion]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._generator, name)

    def generate(
        self,
        prompts: Sequence[str],
        *,
        num_samples: int = 1,
        max_new_tokens: int,
        sampling: SamplingParams = SamplingParams(),
        stop: Sequence[str] = (),
        seed: int = 0,
    ) -> list[list[Completion]]:
        """Returns samples from the bank if it can; see `Generator`.

        Samples of a prompt are drawn once; later calls get the same ones, whatever their seed.
        Those of a prompt that is not shared are drawn with the seed of the first call.
        """
        terms = {"max_new_tokens": max_new_tokens, "sampling": sampling, "seed": seed}
        if (max_new_tokens, sampling) != self._terms or stop or num_samples > self._size:
            return self._generator.generate(prompts, num_samples=num_samples, stop=stop, **terms)
        if set(self._shared) & set(prompts) and self._shared[0] not in self._kept:
            self._draw(self._shared, terms | {"seed": self._seed})
        self._draw(list(dict.fromkeys(p for p in prompts if p not in self._kept)), terms)
        return [self._kept[prompt][:num_samples] for prompt in prompts]

    def _draw(self, prompts: list[str], terms: dict[str, Any]) -> None:
        if prompts:
            groups = self._generator.generate(prompts, num_samples=self._size, **terms)
            self._kept |= zip(prompts, groups, strict=True)


class ScoreBank:
    """A verifier that scores each response once and remembers the scores."""

    def __init__(self, verifier: Verifier):
        self._verifier = verifier
        self._kept: dict[Any, np.ndarray] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._verifier, name)

    def score(
        self,
        problems: Sequence[Problem],
        prompts: Sequence[str],
        completions: Sequence[Sequence[Completion]],
    ) -> list[list[np.ndarray]]:
        """Scores the responses that have no stored scores, and returns all; see `Verifier`."""
        keys = [
            [(prompt, completion.text, tuple(completion.token_ids)) for completion in group]
            for prompt, group in zip(prompts, completions, strict=True)
        ]
        # The keys are noted before any score is stored: two problems with the same question may
        # have the same response.
        missing = [
            [(key, each) for key, each in zip(of_group, group) if key not in self._kept]
            for of_group, group in zip(keys, completions, strict=True)
        ]
        wanted = [i for i, group in enumerate(missing) if group]
        if wanted:
            scores = self._verifier.score(
                [problems[i] for i in wanted],
                [prompts[i] for i in wanted],
                [[each for _, each in missing[i]] for i in wanted],
            )
            for i, of_group in zip(wanted, scores, strict=True):
                self._kept |= zip((key for key, _ in missing[i]), of_group, strict=True)
        return [[self._kept[key] for key in of_group] for of_group in keys]
