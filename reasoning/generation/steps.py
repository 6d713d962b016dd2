"""A step generator extends partial responses ("paths") by one reasoning step at a time.

What a search over steps sees (`reasoning.search`): paths are kept in places, `ROOT` being the bare
prompt, and a step continues the path of one place and stores the result in another. Like a
`Generator`, it is the model in this process (`reasoning.generation.jax_steps`), or any server
(`reasoning.generation.text_steps`).
"""

import copy
import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from models.decoding.sampling import SamplingParams
from models.paths.places import ROOT

# For each prompt, a place for each row; rows may be ragged.
Places = Sequence[Sequence[int]]


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
          ValueError: see `models.paths.places.check_places`.
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


@dataclasses.dataclass(frozen=True)
class PathText:
    """What the host knows of a path: its tokens, and its text but for a character begun."""

    token_ids: list[int]
    text: str


class HostPaths:
    """What both kinds of paths keep on the host; see `Paths`."""

    def __init__(self, prompt_tokens: Sequence[int], sampling: SamplingParams, seed: int):
        self.prompt_tokens = list(prompt_tokens)
        self.sampled_tokens = np.zeros(len(prompt_tokens), np.int64)
        self._path_texts = [{ROOT: PathText([], "")} for _ in prompt_tokens]
        self._sampling, self._seed = sampling, seed
        # Shared with copies, so that a rollout is no rehearsal of what is drawn after it.
        self._extensions = np.zeros((), np.int64)

    def copy(self):
        """See `Paths`."""
        twin = copy.copy(self)
        twin._path_texts = [dict(of_prompt) for of_prompt in self._path_texts]
        return twin

    def text(self, prompt: int, place: int) -> str:
        """See `Paths`."""
        return self._path_texts[prompt][place].text

    def token_ids(self, prompt: int, place: int) -> list[int]:
        """See `Paths`."""
        return list(self._path_texts[prompt][place].token_ids)

    def _request(
        self, parents: Places, into: Places, prompts: int, width: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ragged rows as arrays `[prompts, width]`, -1 where nothing is asked for."""
        count = len(self._path_texts)
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

    def _keep(self, grown: Sequence[Sequence[PathText]], into: Places) -> None:
        """Stores what was extended, all of it read before."""
        for of_prompt, paths, places in zip(self._path_texts, grown, into):
            of_prompt.update(zip(places, paths, strict=True))
