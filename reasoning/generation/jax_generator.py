"""The generator in this process: the compiled sampler behind the `Generator` interface."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax

from models.decoder import LanguageModel
from models.decoding.sampler import FINISH_REASONS, STOP_TOKEN, Sampler
from models.decoding.sampling import SamplingParams
from models.decoding.self_check import Sampled, SamplerCheck
from models.tokens.stopping import TokenAutomaton
from models.tokens.tokenizer import Tokenizer
from reasoning.generation.generator import Completion


class JaxGenerator:
    """The compiled sampler behind the `Generator` interface.

    Samplers are kept by shape, so repeated calls compile nothing. `params` may be replaced between
    calls (RL does so after every step).

    Attributes:
      rows: samples in flight at a time, rounded down to whole groups of `num_samples`.
    """

    def __init__(self, model: LanguageModel, params: Any, tokenizer: Tokenizer, rows: int = 128):
        tokenizer.check_fits(model.config.vocab_size)
        self.model, self.params, self.tokenizer, self.rows = model, params, tokenizer, rows
        self._samplers: dict[Any, Sampler] = {}
        self._check = SamplerCheck(model)

    @contextlib.contextmanager
    def holding(self, params: Any) -> Iterator["JaxGenerator"]:
        """Samples with these parameters within the block, and lets go of them at its end.

        What they take of the device's memory is then free for training.
        """
        self.params = params
        try:
            yield self
        finally:
            self.params = None

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
        """See `Generator`; `seed` and a prompt's place decide what is drawn for it."""
        return self.generate_from_ids(
            self.tokenizer.encode_batch(prompts),
            num_samples=num_samples,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            stop=stop,
            seed=seed,
        )

    def generate_from_ids(
        self,
        prompt_ids: Sequence[Sequence[int]],
        *,
        num_samples: int = 1,
        max_new_tokens: int,
        limits: Sequence[int] | None = None,
        sampling: SamplingParams = SamplingParams(),
        stop: Sequence[str] = (),
        seed: int = 0,
    ) -> list[list[Completion]]:
        """`generate` for prompts given as token ids, such as responses to be gone on with.

        Args:
          limits: most new tokens for each prompt, up to `max_new_tokens`, which is the default.

        Raises:
          SamplerMismatch: the trainer would give what was sampled other log-probs; some calls are
            checked.
        """
        sampler = self._sampler(num_samples, max_new_tokens, tuple(stop))
        samples = sampler(self.params, prompt_ids, jax.random.key(seed), sampling, limits)
        completions = [
            [self._completion(samples, i, g) for g in range(num_samples)]
            for i in range(len(prompt_ids))
        ]
        if self._check.due():
            drawn = [
                Sampled(ids, group[0].token_ids, group[0].logprobs)
                for ids, group in zip(prompt_ids, completions, strict=True)
            ]
            self._check(self.params, drawn, sampling.temperature)
        return completions

    def _sampler(self, num_samples: int, max_new_tokens: int, stop: tuple[str, ...]) -> Sampler:
        shape = (num_samples, max_new_tokens, stop)
        if shape not in self._samplers:
            automaton = None
            if stop:
                automaton = TokenAutomaton.of(stop, self.tokenizer, self.model.config.vocab_size)
            self._samplers[shape] = Sampler(
                self.model,
                slots=max(1, self.rows // num_samples),
                group=num_samples,
                max_new_tokens=max_new_tokens,
                stop_ids=self.tokenizer.stop_ids,
                stop_strings=automaton,
            )
        return self._samplers[shape]

    def _completion(self, samples, prompt: int, sample: int) -> Completion:
        ids = samples.ids(prompt, sample)
        finish = int(samples.finish[prompt, sample])
        # The stop token is trained on but is no part of what is read.
        text = self.tokenizer.decode(ids[:-1] if finish == STOP_TOKEN else ids)
        logprobs = samples.logprobs[prompt, sample, : len(ids)]
        return Completion(text, ids, logprobs, FINISH_REASONS[finish])
