"""The `StepGenerator` interface, which extends partial responses ("paths") by one reasoning step.

Searches over steps (`reasoning.search`) use it. A place is a slot that holds one path; the place
`ROOT` holds the bare prompt. An extension continues the path in one place by a step and stores the
longer path in another place. `jax_steps` implements the interface with the model in this process,
`text_steps` with any `Generator`, such as a server.
"""

import copy
import dataclasses
from collections.abc import Sequence
from typing import Protocol, Self

import numpy as np

from models.decoding.sampling import SamplingParams
from models.paths.places import ROOT

# The places of the rows of each prompt; prompts may have different numbers of rows.
Places = Sequence[Sequence[int]]


@dataclasses.dataclass(frozen=True)
class Step:
    """One reasoning step that a path was extended by.

    Attributes:
      token_ids: all generated tokens, with the delimiter or end-of-sequence token.
      text: decoded text, without the end-of-sequence token. The texts of a path's steps join to the
        text of its tokens: if a step's last token cuts a character, its bytes appear in the text of
        the next step.
      logprobs: float32 `[len(token_ids)]`, under softmax(logits / temperature); None if the
        generator does not report them.
      finish: why the step ended: "delimiter"; "stop" (end-of-sequence token); "step_length" (the
        limit of a step); or "length" (the limit of a path, even if the last token also completes
        the delimiter). "stop" and "length" end the path.
    """

    token_ids: list[int]
    text: str
    logprobs: np.ndarray | None
    finish: str

    @property
    def ended(self) -> bool:
        """Whether the step ends its path, which then cannot be extended."""
        return self.finish in ("stop", "length")


class Paths(Protocol):
    """The paths of P prompts in one search, with `capacity` places for each prompt.

    Attributes:
      prompt_tokens: `[P]`, tokens of each prompt; zeros if the generator has no `tokenizer`.
      sampled_tokens: int64 `[P]`, tokens generated so far, in copies too.
    """

    prompt_tokens: list[int]
    sampled_tokens: np.ndarray

    def extend(
        self, parents: Places, into: Places, sampling: SamplingParams | None = None
    ) -> list[list[Step]]:
        """Extends paths by one step each; reads all parents before it writes any place.

        Args:
          parents: for each prompt, the places of up to `width` paths to extend. A place that occurs
            several times is forked.
          into: for each prompt, the distinct places that receive the longer paths.
          sampling: sampling settings of this step; None for those of `StepGenerator.start`.

        Returns:
          For each prompt the sampled steps, in the order of `parents`.

        Raises:
          ValueError: the request is not valid; see `models.paths.places.check_places`.
        """
        ...

    def copy(self) -> "Paths":
        """Returns independent paths with the same content, for lookahead. Copying costs nothing."""
        ...

    def text(self, prompt: int, place: int) -> str:
        """Returns the text of a path, without its prompt."""
        ...

    def token_ids(self, prompt: int, place: int) -> list[int]:
        """Returns the token ids of a path, without its prompt."""
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
        """Starts a search; only the bare prompts can be extended at first.

        Args:
          prompts: the prompts' texts.
          capacity: places for paths of each prompt.
          width: most rows of each prompt in one call of `extend`.
          max_new_tokens: most tokens of a path.
          step_tokens: most tokens of a step.
          delimiter: the text that ends a step and is part of it; see `delimiters.step_ends`.
          sampling: temperature and the other sampling settings.
          seed: the draws of a row depend on it, on the number of the extension, on the prompt and
            on the row.

        Raises:
          ValueError: a limit is below 1, or the delimiter is empty.
        """
        ...


@dataclasses.dataclass(frozen=True)
class PathText:
    """A path's tokens and text on the host, without the bytes of an incomplete last character."""

    token_ids: list[int]
    text: str


class HostPaths:
    """Base class of both kinds of `Paths`: keeps each path's tokens and text on the host."""

    def __init__(self, prompt_tokens: Sequence[int], sampling: SamplingParams, seed: int):
        self.prompt_tokens = list(prompt_tokens)
        self.sampled_tokens = np.zeros(len(prompt_tokens), np.int64)
        self._path_texts = [{ROOT: PathText([], "")} for _ in prompt_tokens]
        self._sampling, self._seed = sampling, seed
        # Copies share the counter: a rollout on a copy must not use the draws of later extensions.
        self._extensions = np.zeros((), np.int64)

    def copy(self) -> Self:
        """Returns independent paths with the same content; see `Paths`."""
        twin = copy.copy(self)
        twin._path_texts = [dict(of_prompt) for of_prompt in self._path_texts]
        return twin

    def text(self, prompt: int, place: int) -> str:
        """Returns the text of a path, without its prompt."""
        return self._path_texts[prompt][place].text

    def token_ids(self, prompt: int, place: int) -> list[int]:
        """Returns the token ids of a path, without its prompt."""
        return list(self._path_texts[prompt][place].token_ids)

    def _request(
        self, parents: Places, into: Places, prompts: int, width: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Checks a request and returns its places as arrays `[prompts, width]`, padded with -1."""
        count = len(self._path_texts)
        if len(parents) != count or len(into) != count:
            raise ValueError(
                f"there are {count} prompts, but parents has {len(parents)} rows and into has"
                f" {len(into)}: give one row for each prompt"
            )
        padded = np.full((2, prompts, width), -1, np.int32)
        for p, (sources, targets) in enumerate(zip(parents, into)):
            if len(sources) != len(targets) or len(sources) > width:
                raise ValueError(
                    f"prompt {p} has {len(sources)} parents for {len(targets)} places; give as many"
                    f" places as parents, at most width={width}"
                )
            if min(targets, default=0) < 0:
                raise ValueError(f"prompt {p} stores a path in place {min(targets)}; use 0 or more")
            padded[0, p, : len(sources)], padded[1, p, : len(targets)] = sources, targets
        return padded[0], padded[1]

    def _next_extension(self) -> int:
        """Returns the number of the next extension and counts it."""
        number = int(self._extensions)
        self._extensions += 1
        return number

    def _keep(self, grown: Sequence[Sequence[PathText]], into: Places) -> None:
        """Stores the longer paths; the caller has read all parents before."""
        for of_prompt, paths, places in zip(self._path_texts, grown, into):
            of_prompt.update(zip(places, paths, strict=True))
