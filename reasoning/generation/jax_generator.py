"""The `Generator` that runs the model in this process, with the compiled sampler."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, cast

import jax
import numpy as np

from models.decoder import LanguageModel
from models.decoding.sampler import Sampler
from models.decoding.samples import FINISH_REASONS, STOP_TOKEN, Samples
from models.decoding.sampling import SamplingParams
from models.decoding.self_check import Sampled, SamplerCheck
from models.decoding.weights import DecodingWeights, decoding_model
from models.host.interruption import STOPS
from models.tokens.stopping import TokenAutomaton
from models.tokens.tokenizer import Tokenizer
from reasoning.generation.generator import Completion


class JaxGenerator:
    """The compiled sampler behind the `Generator` interface.

    It keeps one compiled sampler for each shape, so repeated calls compile nothing. A caller may
    replace `params` between calls, as RL does after every step.

    Attributes:
      model: the model.
      params: its parameters.
      tokenizer: its tokenizer.
      rows: samples drawn at the same time, rounded down to a multiple of `num_samples`.
      last: what the sampler returned at the latest call.
    """

    def __init__(
        self,
        model: LanguageModel,
        params: Any,
        tokenizer: Tokenizer,
        rows: int = 128,
        int8: bool = False,
        int8_cache: bool = False,
    ):
        """Creates a generator; the first call compiles.

        Args:
          int8: sample with int8 kernels; see `models.decoding.weights`.
          int8_cache: keep int8 keys and values; see `models.layers.kv_cache`.
        """
        tokenizer.check_fits(model.config.vocab_size)
        self.model, self.tokenizer, self.rows = model, tokenizer, rows
        self._samplers: dict[Any, Sampler] = {}
        self.last: Samples | None = None
        self._weights = DecodingWeights(model, int8)
        self._decoding_model = decoding_model(model, int8, int8_cache)
        self.params = params
        self._check = SamplerCheck(model, "int8" if int8 or int8_cache else None)

    @contextlib.contextmanager
    def holding(self, params: Any) -> Iterator["JaxGenerator"]:
        """Returns a context in which this generator samples with `params`.

        At its end the generator drops the parameters; see `release`.
        """
        self.params = params
        try:
            yield self
        finally:
            self.release()

    @property
    def params(self) -> Any:
        """The parameters of the model."""
        return self._params

    @params.setter
    def params(self, params: Any) -> None:
        self._params = params
        self._weights.release()

    @property
    def layout_seconds(self) -> float:
        """How long it took to lay the weights out for sampling; 0 if that was not needed."""
        return self._weights.seconds

    def release(self) -> None:
        """Drops the parameters, so that others can use their memory."""
        self.params = self.last = None

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
        """Samples completions; see `Generator`.

        The draws for a prompt depend on `seed` and on the prompt's index in `prompts`.
        """
        return self.generate_from_ids(
            self.tokenizer.encode_prompts(prompts),
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
        kept: Samples | None = None,
    ) -> list[list[Completion]]:
        """Samples completions of prompts given as token ids, such as responses to continue.

        A signal to the job stops the sampling within some seconds, if a training or an entry point
        watches for signals (`models.host.interruption`).

        Args:
          prompt_ids: the token ids of each prompt.
          num_samples: completions of each prompt.
          max_new_tokens: most tokens of any completion.
          limits: most new tokens for each prompt, at most `max_new_tokens`; None for
            `max_new_tokens` everywhere.
          sampling: temperature and the other sampling settings.
          stop: strings that end a completion.
          seed: seed of the draws.
          kept: finished samples of the same call that was stopped; they are not drawn again.

        Raises:
          SamplingStopped: the job is to stop; the exception has the finished samples.
          SamplerMismatch: the log-probabilities of the sampler differ from those that a forward
            pass of the trainer gives. Only some calls are checked.
        """
        sampler = self._sampler(num_samples, max_new_tokens, tuple(stop))
        weights = self._weights(self.params)
        samples = sampler(
            weights, prompt_ids, jax.random.key(seed), sampling, limits,
            kept=kept, stop=lambda: STOPS.reason if STOPS.here() else None,
        )  # fmt: skip
        self.last = samples
        completions = [
            [self._completion(samples, i, g) for g in range(num_samples)]
            for i in range(len(prompt_ids))
        ]
        if self._check.due():
            drawn = [
                # The compiled sampler always reports log-probabilities.
                Sampled(ids, group[0].token_ids, cast(np.ndarray, group[0].logprobs))
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
                self._decoding_model,
                slots=max(1, self.rows // num_samples),
                group=num_samples,
                max_new_tokens=max_new_tokens,
                stop_ids=self.tokenizer.stop_ids,
                stop_strings=automaton,
            )
        return self._samplers[shape]

    def _completion(self, samples: Samples, prompt: int, sample: int) -> Completion:
        ids = samples.ids(prompt, sample)
        finish = int(samples.finish[prompt, sample])
        # The stop token counts for training, but it is not part of the text.
        text = self.tokenizer.decode(ids[:-1] if finish == STOP_TOKEN else ids)
        logprobs = samples.logprobs[prompt, sample, : len(ids)]
        return Completion(text, ids, logprobs, FINISH_REASONS[finish])
