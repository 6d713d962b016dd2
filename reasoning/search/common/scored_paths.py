"""Partial responses with a verifier's scores: extends generator and verifier state together.

Searches over steps (`step_search`) see only this module, not the generator or the verifier.
"""

import dataclasses
from collections.abc import Sequence

from models.decoding.sampling import SamplingParams
from models.paths.places import ROOT
from reasoning.candidate import Candidate
from reasoning.problem import Problem
from reasoning.search import interface
from reasoning.search.interface import Policy
from reasoning.verifiers import Verifier, aggregate


@dataclasses.dataclass(frozen=True)
class Path:
    """A partial response.

    Attributes:
      place: the slot that holds its keys and values; `ROOT` for the bare prompt.
      text: its text so far.
      tokens: its number of tokens so far.
      scores: the verifier's score of each step.
      finish: how its last step ended; see `reasoning.generation.steps.Step`.
    """

    place: int = ROOT
    text: str = ""
    tokens: int = 0
    scores: tuple[float, ...] = ()
    finish: str = ""

    @property
    def ended(self) -> bool:
        """Whether the response is complete or has reached its length limit."""
        return self.finish in ("stop", "length")


ROOT_PATH = Path()


class ScoredPaths:
    """The paths of a batch of problems, each step scored by a verifier.

    Args:
      policy: the model; it must have a step generator.
      verifier: scores every step.
      problems: the problems.
      capacity: places for each problem, that is, paths kept at the same time.
      width: paths of each problem that are extended at the same time.
      seed: seed of the draws.
    """

    def __init__(
        self,
        policy: Policy,
        verifier: Verifier,
        problems: Sequence[Problem],
        *,
        capacity: int,
        width: int,
        seed: int,
    ):
        prompts = [policy.template(problem.question) for problem in problems]
        limits = {
            "capacity": capacity,
            "width": width,
            "max_new_tokens": policy.max_new_tokens,
            "step_tokens": policy.step_tokens,
        }
        self._policy = policy
        self._paths = interface.require_steps(policy, "a tree of scored paths").start(
            prompts, **limits, delimiter=policy.delimiter, sampling=policy.sampling, seed=seed
        )
        self._tracker = verifier.start(problems, prompts, **limits)
        self._prompt_lengths = self._paths.prompt_tokens
        self.meters = interface.meters(policy, verifier, self._prompt_lengths)
        for meter, length in zip(self.meters, self._prompt_lengths, strict=True):
            meter.verify(length, 0, calls=0)

    def extend(
        self, wanted: Sequence[Sequence[tuple[Path, int]]], sampling: SamplingParams | None = None
    ) -> list[list[Path]]:
        """Samples and scores one more step for some paths.

        All paths are read before any is written, so a place may be source and target at once.

        Args:
          wanted: for each problem, pairs of a path to extend and the place for the longer path.
          sampling: replaces the policy's sampling settings for this step.

        Returns:
          For each problem the longer paths, in the order of `wanted`.
        """
        parents = [[path.place for path, _ in each] for each in wanted]
        into = [[place for _, place in each] for each in wanted]
        steps = self._paths.extend(parents, into, sampling)
        scores = self._tracker.extend(parents, into, steps)
        extended = []
        for p, (each, of_problem, of_steps) in enumerate(zip(wanted, scores, steps, strict=True)):
            extended.append([])
            for (path, place), step, score in zip(each, of_steps, of_problem, strict=True):
                tokens, context = len(step.token_ids), self._prompt_lengths[p] + path.tokens
                self.meters[p].generate(tokens, context)
                self.meters[p].verify(tokens, context)
                extended[-1].append(
                    Path(
                        place,
                        path.text + step.text,
                        path.tokens + tokens,
                        (*path.scores, float(score)),
                        step.finish,
                    )
                )
        return extended

    def copy(self) -> "ScoredPaths":
        """Returns an independent copy of the paths; both count their cost on the same meters."""
        other = object.__new__(ScoredPaths)
        other.__dict__.update(self.__dict__)
        other._paths, other._tracker = self._paths.copy(), self._tracker.copy()
        return other

    def candidate(self, path: Path, aggregation: str) -> Candidate:
        """Returns a path as a candidate, with its answer and its combined score."""
        response = self._policy.opening + path.text
        return Candidate(
            response=response,
            answer=self._policy.task.extract(response),
            score=aggregate(path.scores, aggregation),
            tokens=path.tokens,
            complete=path.finish == "stop",
        )


def distinct(paths: Sequence[Path]) -> list[Path]:
    """Drops paths whose text equals that of an earlier path, so that copies do not fill a beam."""
    return list({path.text: path for path in reversed(paths)}.values())[::-1]
