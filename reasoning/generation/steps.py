"""A step generator extends partial responses ("paths") by one reasoning step at a time.

What a search over steps sees (`reasoning.search`): paths are kept in places, `ROOT` being the bare
prompt, and a step continues the path of one place and stores the result in another. Like a
`Generator`, it is the compiled model here, or any server (`reasoning.generation.text_steps`).
"""

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

import jax
import numpy as np

from models.decoder import LanguageModel
from models.decoding.sampling import SamplingParams
from models.decoding.self_check import Sampled, SamplerCheck
from models.paths.path_pool import ROOT
from models.paths.path_sampler import FINISH_REASONS, PathSampler
from models.tokens.stopping import TokenAutomaton
from models.tokens.tokenizer import Tokenizer

# For each prompt, a place for each row; rows may be ragged.
Places = Sequence[Sequence[int]]
# A sampler for so many times the prompts is used rather than one compiled for fewer.
_SPARE_PROMPTS = 4


@dataclasses.dataclass(frozen=True)
class Step:
    """What was appended to a path.

    Attributes:
      token_ids: the delimiter or end-of-sequence token included; what was generated.
      text: decoded, the end-of-sequence token left out. The texts of a path's steps make up the
        text of its tokens: bytes of a character that the step's last token cuts are held back for
        the next step.
      logprobs: float32 `[len(token_ids)]`, under softmax(logits / temperature); None where the
        generator does not report them.
      finish: "delimiter"; "stop" by the end-of-sequence token; "step_length", the limit of a step;
        or "length", that of a path, also where its last token ends a step. A path has ended after
        "stop" and "length".
    """

    token_ids: list[int]
    text: str
    logprobs: np.ndarray | None
    finish: str

    @property
    def ended(self) -> bool:
        """Whether the path cannot be extended any more."""
        return self.finish in ("stop", "length")


class Paths(Protocol):
    """Paths of P prompts, `capacity` places each.

    Attributes:
      prompt_tokens: `[P]`, tokens of each prompt, 0 where the generator keeps its tokenizer to
        itself.
      sampled_tokens: int64 `[P]`, tokens generated so far, in copies too.
    """

    prompt_tokens: list[int]
    sampled_tokens: np.ndarray

    def extend(
        self, parents: Places, into: Places, sampling: SamplingParams | None = None
    ) -> list[list[Step]]:
        """Continues paths by one step each; all parents are read before any place is written.

        Args:
          parents: for each prompt, the places of up to `width` paths to continue; one that occurs
            several times is forked.
          into: alike, the distinct places of the results.
          sampling: for this step, instead of what the paths were started with.

        Raises:
          ValueError: see `models.paths.path_pool.check_places`.
        """
        ...

    def copy(self) -> "Paths":
        """One with the same paths, which goes its own way; to look ahead with. It costs nothing."""
        ...

    def text(self, prompt: int, place: int) -> str:
        """The text of a path, without its prompt."""
        ...

    def token_ids(self, prompt: int, place: int) -> list[int]:
        """The tokens of a path, without its prompt's."""
        ...


class StepGenerator(Protocol):
    """Anything that samples step by step."""

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
        """No paths yet but the bare prompts.

        Args:
          capacity: places for paths of each prompt.
          width: most rows of each prompt in one call of `extend`.
          max_new_tokens: most tokens of a path.
          step_tokens: most tokens of a step.
          delimiter: ends a step, whose text it is part of.
          seed: with the number of the extension, the prompt and the row, decides what is drawn.
        """
        ...


class JaxStepGenerator:
    """The compiled sampler of paths behind the `StepGenerator` interface.

    Samplers are kept by shape, so repeated searches compile nothing. `params` may be replaced
    between searches.
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
        """See `StepGenerator`; a prompt is read once, whatever is forked from it."""
        sampler = self._sampler(
            len(prompts), delimiter, capacity=capacity, width=width,
            max_new_tokens=max_new_tokens, step_tokens=step_tokens,
        )  # fmt: skip
        return JaxPaths(
            sampler, self.params, self.tokenizer, prompts, sampling, seed, self._check
        )

    def _sampler(self, prompts: int, delimiter: str, **shape: int) -> PathSampler:
        kept = self._samplers.setdefault((delimiter, *shape.values()), [])
        fitting = [s for s in kept if prompts <= s.prompts <= _SPARE_PROMPTS * prompts]
        if not fitting:
            if delimiter not in self._automata:
                self._automata[delimiter] = TokenAutomaton.of(
                    [delimiter], self.tokenizer, self.model.config.vocab_size
                )
            sampler = PathSampler(
                self.model, prompts=prompts, stop_ids=self.tokenizer.stop_ids,
                delimiter=self._automata[delimiter], **shape,
            )  # fmt: skip
            fitting = [sampler]
            kept.append(sampler)
        return min(fitting, key=lambda sampler: sampler.prompts)


@dataclasses.dataclass(frozen=True)
class Told:
    """What the host knows of a path: its tokens, and its text but for a character begun."""

    token_ids: list[int]
    text: str


class HostPaths:
    """What both kinds of paths keep on the host; see `Paths`."""

    def __init__(self, prompt_tokens: Sequence[int], sampling: SamplingParams, seed: int):
        self.prompt_tokens = list(prompt_tokens)
        self.sampled_tokens = np.zeros(len(prompt_tokens), np.int64)
        self._told = [{ROOT: Told([], "")} for _ in prompt_tokens]
        self._sampling, self._seed = sampling, seed
        # Shared with copies, so that a rollout is no rehearsal of what is drawn after it.
        self._extensions = np.zeros((), np.int64)

    def copy(self):
        """See `Paths`."""
        twin = copy.copy(self)
        twin._told = [dict(told) for told in self._told]
        return twin

    def text(self, prompt: int, place: int) -> str:
        """See `Paths`."""
        return self._told[prompt][place].text

    def token_ids(self, prompt: int, place: int) -> list[int]:
        """See `Paths`."""
        return list(self._told[prompt][place].token_ids)

    def _request(
        self, parents: Places, into: Places, prompts: int, width: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ragged rows as arrays `[prompts, width]`, -1 where nothing is asked for."""
        count = len(self._told)
        if len(parents) != count or len(into) != count:
            raise ValueError(
                f"there are {count} prompts; parents are of {len(parents)} and into of {len(into)}"
            )
        padded = np.full((2, prompts, width), -1, np.int32)
        for p, (sources, targets) in enumerate(zip(parents, into)):
            if len(sources) != len(targets) or len(sources) > width:
                raise ValueError(
                    f"prompt {p} has {len(sources)} parents for {len(targets)} places; there must "
                    f"be as many of both, and at most {width}"
                )
            if min(targets, default=0) < 0:
                raise ValueError(f"prompt {p} stores a path in place {min(targets)}; use 0 or more")
            padded[0, p, : len(sources)], padded[1, p, : len(targets)] = sources, targets
        return padded[0], padded[1]

    def _next_extension(self) -> int:
        number = int(self._extensions)
        self._extensions += 1
        return number

    def _tell(self, told: Sequence[Sequence[Told]], into: Places) -> None:
        """Stores what was extended, all of it read before."""
        for of_prompt, paths, places in zip(self._told, told, into):
            of_prompt.update(zip(places, paths, strict=True))


class JaxPaths(HostPaths):
    """See `Paths`. Keys and values stay on the device; old ones are written over unless copied."""

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
        prompt_ids = tokenizer.encode_batch(prompts)
        super().__init__([len(ids) for ids in prompt_ids], sampling, seed)
        self._sampler, self._tokenizer, self._check = sampler, tokenizer, check
        self._params, self._prompt_ids = params, prompt_ids
        self._key = jax.random.key(seed)
        self._state = sampler.start(params, prompt_ids)
        self._weights = sampler.prepare(params)
        self._shared = False

    def copy(self) -> "JaxPaths":
        """See `Paths`."""
        self._shared = True
        return super().copy()

    def extend(
        self, parents: Places, into: Places, sampling: SamplingParams | None = None
    ) -> list[list[Step]]:
        """See `Paths`."""
        request = self._request(parents, into, self._sampler.prompts, self._sampler.width)
        self._state, steps = self._sampler.extend(
            self._weights, self._state, *request, self._key, sampling or self._sampling,
            number=self._next_extension(), donate=not self._shared,
        )  # fmt: skip
        self._shared = False
        sampling = sampling or self._sampling
        self.sampled_tokens += steps.lengths.sum(1)[: len(self.sampled_tokens)]
        found, told = [], []
        for p, places in enumerate(parents):
            rows = [self._step(steps, p, row, parent) for row, parent in enumerate(places)]
            found.append([step for step, _ in rows])
            told.append([path for _, path in rows])
        if self._check.due():
            drawn = [
                Sampled(
                    self._prompt_ids[p] + self._told[p][places[0]].token_ids,
                    found[p][0].token_ids,
                    found[p][0].logprobs,
                )
                for p, places in enumerate(parents)
                if places
            ]
            self._check(self._params, drawn, sampling.temperature)
        self._tell(told, into)
        return found

    def _step(self, steps, prompt: int, row: int, parent: int) -> tuple[Step, Told]:
        length, before = steps.lengths[prompt, row], self._told[prompt][parent]
        new = steps.tokens[prompt, row, :length].tolist()
        finish = FINISH_REASONS[steps.finish[prompt, row]]
        ids = before.token_ids + new
        text = self._tokenizer.decode(ids[:-1] if finish == "stop" else ids)
        if finish not in ("stop", "length"):
            # What is no whole character yet may become one.
            text = text.rstrip("\ufffd")
        logprobs = steps.logprobs[prompt, row, :length]
        return Step(new, text[len(before.text) :], logprobs, finish), Told(ids, text)
