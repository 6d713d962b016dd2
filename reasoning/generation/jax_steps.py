"""The `StepGenerator` that runs the model in this process, with the compiled path sampler."""

from collections.abc import Sequence
from typing import Any

import jax

from models.decoder import LanguageModel
from models.decoding.sampling import SamplingParams
from models.decoding.self_check import Sampled, SamplerCheck
from models.paths.path_sampler import FINISH_REASONS, PathSampler, Steps
from models.tokens.stopping import TokenAutomaton
from models.tokens.tokenizer import Tokenizer
from reasoning.generation.delimiters import step_ends
from reasoning.generation.steps import HostPaths, PathText, Places, Step

# A sampler compiled for up to this many times the prompts is reused; a new one costs a compilation.
_SPARE_PROMPTS = 4


class JaxStepGenerator:
    """The compiled path sampler behind the `StepGenerator` interface.

    It keeps one compiled sampler for each shape, so repeated searches compile nothing. A caller may
    replace `params` between searches.
    """

    def __init__(self, model: LanguageModel, params: Any, tokenizer: Tokenizer):
        tokenizer.check_fits(model.config.vocab_size)
        self.model, self.params, self.tokenizer = model, params, tokenizer
        self._samplers: dict[Any, list[PathSampler]] = {}
        self._automata: dict[str, TokenAutomaton] = {}
        self._check = SamplerCheck(model)

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
        """Starts a search from bare prompts; see `StepGenerator`.

        The model reads each prompt once, however many paths the search forks from it.
        """
        sampler = self._sampler(
            len(prompts), delimiter, capacity=capacity, width=width,
            max_new_tokens=max_new_tokens, step_tokens=step_tokens,
        )  # fmt: skip
        return JaxPaths(sampler, self.params, self.tokenizer, prompts, sampling, seed, self._check)

    def _sampler(self, prompts: int, delimiter: str, **shape: int) -> PathSampler:
        kept = self._samplers.setdefault((delimiter, *shape.values()), [])
        fitting = [s for s in kept if prompts <= s.prompts <= _SPARE_PROMPTS * prompts]
        if not fitting:
            if delimiter not in self._automata:
                self._automata[delimiter] = TokenAutomaton.of(
                    step_ends(delimiter), self.tokenizer, self.model.config.vocab_size
                )
            sampler = PathSampler(
                self.model, prompts=prompts, stop_ids=self.tokenizer.stop_ids,
                delimiter=self._automata[delimiter], **shape,
            )  # fmt: skip
            fitting = [sampler]
            kept.append(sampler)
        return min(fitting, key=lambda sampler: sampler.prompts)


class JaxPaths(HostPaths):
    """The `Paths` of the model in this process; keys and values stay on the device.

    An extension overwrites old keys and values in place, unless a copy still needs them.
    """

    def __init__(
        self,
        sampler: PathSampler,
        params: Any,
        tokenizer: Tokenizer,
        prompts: Sequence[str],
        sampling: SamplingParams,
        seed: int,
        check: SamplerCheck,
    ):
        prompt_ids = tokenizer.encode_prompts(prompts)
        super().__init__([len(ids) for ids in prompt_ids], sampling, seed)
        self._sampler, self._tokenizer, self._check = sampler, tokenizer, check
        self._params, self._prompt_ids = params, prompt_ids
        self._key = jax.random.key(seed)
        self._state = sampler.start(params, prompt_ids)
        self._weights = sampler.prepare(params)
        self._shared = False

    def copy(self) -> "JaxPaths":
        """Returns independent paths; see `Paths`."""
        self._shared = True
        return super().copy()

    def extend(
        self, parents: Places, into: Places, sampling: SamplingParams | None = None
    ) -> list[list[Step]]:
        """Extends paths by one step each; see `Paths`."""
        request = self._request(parents, into, self._sampler.prompts, self._sampler.width)
        self._state, steps = self._sampler.extend(
            self._weights, self._state, *request, self._key, sampling or self._sampling,
            number=self._next_extension(), donate=not self._shared,
        )  # fmt: skip
        self._shared = False
        sampling = sampling or self._sampling
        self.sampled_tokens += steps.lengths.sum(1)[: len(self.sampled_tokens)]
        found, grown = [], []
        for p, places in enumerate(parents):
            rows = [self._step(steps, p, row, parent) for row, parent in enumerate(places)]
            found.append([step for step, _ in rows])
            grown.append([path for _, path in rows])
        if self._check.due():
            drawn = [
                Sampled(
                    self._prompt_ids[p] + self._path_texts[p][places[0]].token_ids,
                    found[p][0].token_ids,
                    found[p][0].logprobs,
                )
                for p, places in enumerate(parents)
                if places
            ]
            self._check(self._params, drawn, sampling.temperature)
        self._keep(grown, into)
        return found

    def _step(self, steps: Steps, prompt: int, row: int, parent: int) -> tuple[Step, PathText]:
        """Returns one sampled step and the path that it makes of its parent."""
        length, before = steps.lengths[prompt, row], self._path_texts[prompt][parent]
        new = steps.tokens[prompt, row, :length].tolist()
        finish = FINISH_REASONS[steps.finish[prompt, row]]
        ids = before.token_ids + new
        text = self._tokenizer.decode(ids[:-1] if finish == "stop" else ids)
        if finish not in ("stop", "length"):
            # The trailing bytes may become a character with the next step's bytes.
            text = text.rstrip("\ufffd")
        logprobs = steps.logprobs[prompt, row, :length]
        return Step(new, text[len(before.text) :], logprobs, finish), PathText(ids, text)
