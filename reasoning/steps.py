"""Responses that grow step by step: what search over reasoning steps asks of a generator.

A step is what is sampled up to a delimiter. Each prompt has numbered places for partial responses;
extending one stores the longer path in a place, so a path can be forked, kept or overwritten.
Place -1 is the bare prompt.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from models.decoder import LanguageModel
from models.paths import FINISH_REASONS, STOP, PathSampler, PathState, Steps
from models.sampler import SamplingParams
from models.stopping import TokenAutomaton
from models.tokenizer import Tokenizer
from reasoning.generator import Generator

Places = Sequence[Sequence[int]]


@dataclasses.dataclass(frozen=True)
class Step:
    """One sampled step.

    Attributes:
      token_ids: the end-of-sequence token included.
      text: the delimiter included, the end-of-sequence token left out.
      logprobs: float32 `[len(token_ids)]`; None where the generator does not report them.
      finish: "delimiter", "step_length" (it was cut, and can go on), "stop" (the response has
        ended) or "length" (it is as long as one may be).
    """

    token_ids: list[int]
    text: str
    logprobs: np.ndarray | None
    finish: str


class Paths(Protocol):
    """Partial responses to some prompts."""

    def extend(
        self, parents: Places, into: Places, sampling: SamplingParams | None = None
    ) -> list[list[Step]]:
        """Samples a step for paths of each prompt.

        Args:
          parents: for each prompt, places of the paths to extend; one may occur several times.
          into: alike, the distinct places of the results. All parents are read before any place
            is written.
          sampling: in place of that of `start`.
        """
        ...

    def copy(self) -> "Paths":
        """The same paths, to go another way with."""
        ...


class StepGenerator(Protocol):
    """Anything that samples responses step by step."""

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
    ) -> Paths:
        """No paths yet, for each prompt.

        Args:
          capacity: places of a prompt.
          width: most paths of a prompt in one `extend`.
          max_new_tokens: of a whole response.
          step_tokens: longest step; a longer one is cut, and goes on as another.
        """
        ...


class JaxStepGenerator:
    """The compiled `PathSampler` behind the interface; compiles once for each shape of search.

    Attributes:
      params: may be replaced between searches.
    """

    def __init__(self, model: LanguageModel, params: Any, tokenizer: Tokenizer):
        tokenizer.check_fits(model.config.vocab_size)
        self.model, self.params, self.tokenizer = model, params, tokenizer
        self._samplers: dict[Any, PathSampler] = {}

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
    ) -> "JaxPaths":
        """See `StepGenerator`. Fewer prompts than before, of an equal search, compile nothing."""
        prompt_ids = self.tokenizer.encode_batch(prompts)
        shape = (capacity, width, max_new_tokens, step_tokens, delimiter)
        sampler = self._samplers.get(shape)
        if sampler is None or sampler.prompts < len(prompts):
            vocab = range(self.model.config.vocab_size)
            token_bytes = [self.tokenizer.token_bytes(i) for i in vocab]
            sampler = self._samplers[shape] = PathSampler(
                self.model,
                prompts=len(prompts),
                capacity=capacity,
                width=width,
                max_new_tokens=max_new_tokens,
                step_tokens=step_tokens,
                stop_ids=self.tokenizer.stop_ids,
                delimiter=TokenAutomaton.build([delimiter], token_bytes),
            )
        state = sampler.start(self.params, prompt_ids)
        key = jax.random.key(seed)
        return JaxPaths(sampler, self.params, self.tokenizer, state, key, sampling, len(prompts))


class JaxPaths:
    """See `Paths`. Keys and values are forked by index on the device."""

    def __init__(
        self,
        sampler: PathSampler,
        params: Any,
        tokenizer: Tokenizer,
        state: PathState,
        key: jax.Array,
        sampling: SamplingParams,
        num_prompts: int,
    ):
        self._sampler, self._params, self._tokenizer = sampler, params, tokenizer
        self._state, self._key, self._sampling = state, key, sampling
        self._ids: list[dict[int, tuple[int, ...]]] = [{-1: ()} for _ in range(num_prompts)]
        self._texts: list[dict[int, str]] = [{-1: ""} for _ in range(num_prompts)]
        self._steps = 0
        # A state that a copy shares must outlive this one's next step.
        self._shared = True

    def extend(
        self, parents: Places, into: Places, sampling: SamplingParams | None = None
    ) -> list[list[Step]]:
        """See `Paths`."""
        shape = (self._sampler.prompts, self._sampler.width)
        rows_from, rows_into = np.full(shape, -1, np.int32), np.full(shape, -1, np.int32)
        for p, (of_prompt, places) in enumerate(zip(parents, into, strict=True)):
            if len(of_prompt) > self._sampler.width:
                raise ValueError(
                    f"{len(of_prompt)} paths of prompt {p} are to be extended; width="
                    f"{self._sampler.width} is the most"
                )
            rows_from[p, : len(of_prompt)], rows_into[p, : len(places)] = of_prompt, places
        key = jax.random.fold_in(self._key, self._steps)
        self._steps += 1
        self._state, steps = self._sampler.extend(
            self._params, self._state, rows_from, rows_into, key, sampling or self._sampling,
            donate=not self._shared,
        )  # fmt: skip
        self._shared = False
        return [self._record(p, steps, each, to) for p, (each, to) in enumerate(zip(parents, into))]

    def copy(self) -> "JaxPaths":
        """See `Paths`. The copy draws from a key of its own; memory is shared until it steps."""
        twin = object.__new__(JaxPaths)
        twin.__dict__.update(self.__dict__)
        twin._ids = [dict(held) for held in self._ids]
        twin._texts = [dict(held) for held in self._texts]
        twin._key = jax.random.fold_in(jax.random.fold_in(self._key, self._steps), 1)
        self._shared = twin._shared = True
        return twin

    def _record(self, p: int, steps: Steps, parents, into) -> list[Step]:
        """The steps of one prompt, and what its places hold after them."""
        made, ids, texts = [], [], []
        for row, parent in enumerate(parents):
            new = steps.tokens[p, row, : steps.lengths[p, row]].tolist()
            finish = int(steps.finish[p, row])
            whole = (*self._ids[p][parent], *new)
            # Decoded with what precedes it: a character may have bytes on both sides.
            text = self._tokenizer.decode(whole[:-1] if finish == STOP else whole)
            ids.append(whole)
            texts.append(text)
            made.append(
                Step(
                    new,
                    text[len(self._texts[p][parent]) :],
                    steps.logprobs[p, row, : len(new)],
                    FINISH_REASONS[finish],
                )
            )
        self._ids[p].update(zip(into, ids, strict=True))
        self._texts[p].update(zip(into, texts, strict=True))
        return made


class TextStepGenerator:
    """Steps of any `Generator`, such as a server: each continues the prompt and the path's text.

    Nothing is kept between steps here; a server may keep its own cache of prefixes.
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
        """See `StepGenerator`."""
        del capacity, width

        def generate(texts: Sequence[str], limits: Sequence[int], sampling, turn: int):
            # A step near the end may be shorter; the limits are few, and so are the calls.
            found: list[Any] = [None] * len(texts)
            for limit in sorted(set(limits)):
                members = [i for i, each in enumerate(limits) if each == limit]
                groups = self.generator.generate(
                    [texts[i] for i in members],
                    num_samples=1,
                    max_new_tokens=limit,
                    sampling=sampling,
                    stop=[delimiter],
                    seed=seed + turn,
                )
                for i, group in zip(members, groups, strict=True):
                    found[i] = group[0]
            return found

        return TextPaths(generate, prompts, max_new_tokens, step_tokens, sampling)


class TextPaths:
    """See `Paths`: texts, and how many tokens each has."""

    def __init__(
        self,
        generate: Callable[..., list[Any]],
        prompts: Sequence[str],
        max_new_tokens: int,
        step_tokens: int,
        sampling: SamplingParams,
    ):
        self._generate, self._prompts = generate, list(prompts)
        self._limits, self._sampling = (max_new_tokens, step_tokens), sampling
        self._held: list[dict[int, tuple[str, int]]] = [{-1: ("", 0)} for _ in prompts]
        self._turn = 0

    def extend(
        self, parents: Places, into: Places, sampling: SamplingParams | None = None
    ) -> list[list[Step]]:
        """See `Paths`."""
        most, of_step = self._limits
        rows = [(p, parent) for p, each in enumerate(parents) for parent in each]
        before = [self._held[p][parent] for p, parent in rows]
        completions = iter(
            self._generate(
                [self._prompts[p] + text for (p, _), (text, _) in zip(rows, before)],
                [min(of_step, most - count) for _, count in before],
                sampling or self._sampling,
                self._turn,
            )
        )
        self._turn += 1
        steps = []
        for p, (of_prompt, places) in enumerate(zip(parents, into, strict=True)):
            grown, made = {}, []
            for parent, place in zip(of_prompt, places, strict=True):
                completion, (text, count) = next(completions), self._held[p][parent]
                count += len(completion.token_ids)
                finish = {"stop_string": "delimiter", "length": "step_length"}
                reason = finish.get(completion.finish, completion.finish)
                if reason != "stop" and count >= most:
                    reason = "length"
                grown[place] = (text + completion.text, count)
                made.append(
                    Step(completion.token_ids, completion.text, completion.logprobs, reason)
                )
            self._held[p] |= grown
            steps.append(made)
        return steps

    def copy(self) -> "TextPaths":
        """See `Paths`."""
        twin = object.__new__(TextPaths)
        twin.__dict__.update(self.__dict__)
        twin._held = [dict(held) for held in self._held]
        twin._turn = self._turn + 1_000_000  # Draws of its own.
        return twin
