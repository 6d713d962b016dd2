"""A generator's partial responses and a verifier's view of them, extended and forked together."""

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
      place: where its keys and values are kept.
      text: so far.
      tokens: so far.
      scores: the verifier's, of each step.
      finish: how its last step ended.
    """

    place: int = ROOT
    text: str = ""
    tokens: int = 0
    scores: tuple[float, ...] = ()
    finish: str = ""

    @property
    def ended(self) -> bool:
        """Whether it is a whole response, or as long as one may be."""
        return self.finish in ("stop", "length")


ROOT_PATH = Path()


class ScoredPaths:
    """Paths of a batch of problems.

    Args:
      capacity: paths that are kept at a time for each problem.
      width: paths of each problem that are extended at a time.
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
        self._paths = policy.steps.start(
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
        """One more step for each of `wanted`: (path, place of the extended path), by problem.

        Paths are read before any is written: a place may be both.
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
        """Paths to try something on; these stay as they are. What is spent counts for both."""
        other = object.__new__(ScoredPaths)
        other.__dict__.update(self.__dict__)
        other._paths, other._tracker = self._paths.copy(), self._tracker.copy()
        return other

    def candidate(self, path: Path, aggregation: str) -> Candidate:
        """A path as a response."""
        response = self._policy.opening + path.text
        return Candidate(
            response=response,
            answer=self._policy.task.extract(response),
            score=aggregate(path.scores, aggregation),
            tokens=path.tokens,
            complete=path.finish == "stop",
        )


def distinct(paths: Sequence[Path]) -> list[Path]:
    """Without those whose text another has: a beam of copies would search one path."""
    return list({path.text: path for path in reversed(paths)}.values())[::-1]
