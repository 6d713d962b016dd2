"""A toy world for search tests: a response is three steps, each a, b or c.

Every step is one letter and a newline. The n-th extension of a path draws the n-th letter, so
enough extensions give all continuations. A verifier with a table scores every path.
"""

import dataclasses
import itertools

import numpy as np

from models.decoding.sampling import SamplingParams
from reasoning.generation.generator import Completion
from reasoning.generation.steps import Step
from reasoning.problem import Problem, Verdict
from reasoning.search.interface import Policy
from reasoning.tasks import Task

LETTERS, DEPTH = "abc", 3
PROBLEMS = [Problem("toy", "first?", "abc", {"n": 0}), Problem("toy", "second?", "cab", {"n": 1})]


def leaves():
    words = itertools.product(LETTERS, repeat=DEPTH)
    return ["".join(f"{letter}\n" for letter in word) for word in words]


def random_scores(seed):
    rng = np.random.default_rng(seed)
    texts = [
        "".join(f"{letter}\n" for letter in each)
        for depth in range(1, DEPTH + 1)
        for each in itertools.product(LETTERS, repeat=depth)
    ]
    return dict(zip(texts, rng.uniform(size=len(texts)), strict=True))


class ToyTask(Task):
    def problems(self, split, count, seed):
        return PROBLEMS[:count]

    def extract(self, response):
        return response.replace("\n", "") or None

    def verify_all(self, problems, answers):
        return [Verdict(p.answer == a, "") for p, a in zip(problems, answers, strict=True)]


class ToyPaths:
    def __init__(self, generator, count):
        self._generator, self._texts = generator, [{-1: ""} for _ in range(count)]
        self.prompt_tokens = [0] * count

    def extend(self, parents, into, sampling=None):
        greedy = sampling is not None and sampling.temperature == 0
        steps = []
        before = [dict(texts) for texts in self._texts]
        for p, (of_problem, places) in enumerate(zip(parents, into, strict=True)):
            drawn: dict[int, int] = {}
            steps.append([])
            for parent, place in zip(of_problem, places, strict=True):
                text = before[p][parent]
                assert not self._generator.ended(text), "an ended path was extended"
                nth = drawn[parent] = drawn.get(parent, -1) + 1
                letter = LETTERS[0 if greedy else nth % len(LETTERS)]
                text += f"{letter}\n"
                self._texts[p][place] = text
                self._generator.sampled[p] += 1
                finish = "stop" if self._generator.ended(text) else "delimiter"
                steps[-1].append(Step([ord(letter)], f"{letter}\n", None, finish))
        return steps

    def copy(self):
        other = ToyPaths(self._generator, 0)
        other._texts = [dict(texts) for texts in self._texts]
        return other


class ToyGenerator:
    """Both a `Generator` and a `StepGenerator`; counts what it samples by problem of a batch.

    A path ends after three letters, or earlier at one of `ends`.
    """

    def __init__(self, ends=""):
        self.sampled, self._ends = np.zeros(len(PROBLEMS), int), ends

    def ended(self, text):
        return text.count("\n") == DEPTH or any(letter in text for letter in self._ends)

    def start(self, prompts, **limits):
        return ToyPaths(self, len(prompts))

    def generate(self, prompts, *, num_samples=1, max_new_tokens, sampling=None, stop=(), seed=0):
        texts = leaves()
        groups = []
        for p, _ in enumerate(prompts):
            self.sampled[p] += num_samples * DEPTH
            groups.append(
                [
                    Completion(texts[(seed + i) % len(texts)], [0] * DEPTH, None, "stop")
                    for i in range(num_samples)
                ]
            )
        return groups


class ToyTracker:
    def __init__(self, scores, count):
        self._scores, self._texts = scores, [{-1: ""} for _ in range(count)]

    def extend(self, parents, into, steps):
        before = [dict(texts) for texts in self._texts]
        found = []
        for p, of_problem in enumerate(parents):
            texts = [before[p][parent] + step.text for parent, step in zip(of_problem, steps[p])]
            for place, text in zip(into[p], texts, strict=True):
                self._texts[p][place] = text
            found.append([self._scores[text] for text in texts])
        return found

    def copy(self):
        other = ToyTracker(self._scores, 0)
        other._texts = [dict(texts) for texts in self._texts]
        return other


@dataclasses.dataclass
class ToyVerifier:
    scores: dict[str, float]
    config = None

    def start(self, problems, prompts, **limits):
        return ToyTracker(self.scores, len(problems))

    def score(self, problems, prompts, completions):
        return [[self._steps(c.text) for c in group] for group in completions]

    def _steps(self, text):
        lines = text.splitlines(keepends=True)
        return np.array([self.scores["".join(lines[: i + 1])] for i in range(len(lines))])


def toy_policy(rows=1024, ends=""):
    generator = ToyGenerator(ends)
    return Policy(
        generator=generator,
        steps=generator,
        task=ToyTask("toy"),
        template=lambda question: question,
        max_new_tokens=DEPTH,
        step_tokens=1,
        typical_tokens=DEPTH,
        sampling=SamplingParams(),
        rows=rows,
    )
