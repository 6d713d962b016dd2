"""A bank of scores asks its verifier once for each response, also where questions repeat."""

import numpy as np

from reasoning.generation.generator import Completion
from reasoning.problem import Problem
from reasoning.search.common.sample_bank import ScoreBank


class Counting:
    """Scores a response by its length and its prompt's, and counts what it was asked."""

    def __init__(self):
        self.asked = []

    def score(self, problems, prompts, completions):
        self.asked += [c.text for group in completions for c in group]
        return [
            [np.array([len(c.text) + 100.0 * len(prompt)]) for c in group]
            for prompt, group in zip(prompts, completions, strict=True)
        ]


def group(*texts):
    return [Completion(text, list(text.encode()), None, "stop") for text in texts]


def test_scores_are_those_of_the_verifier_whatever_repeats():
    verifier = Counting()
    bank = ScoreBank(verifier)
    prompts = ["one", "three", "one", "one"]
    problems = [Problem("sum", prompt, "") for prompt in prompts]
    # Equal responses within a group, in groups of the same question, and of another one.
    groups = [group("a", "bb", "a"), group("a"), group("bb", "cccc"), group("a", "bb")]
    expected = Counting().score(problems, prompts, groups)
    assert bank.score(problems, prompts, groups) == expected
    asked = len(verifier.asked)
    assert bank.score(problems[::-1], prompts[::-1], groups[::-1]) == expected[::-1]
    assert len(verifier.asked) == asked
    more = [group("a", "new"), group("a")]
    assert bank.score(problems[:2], prompts[:2], more)[0][0] == expected[0][0]
    assert verifier.asked[asked:] == ["new"]
