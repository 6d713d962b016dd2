"""Evaluation of a scripted generator, whose figures can be counted by hand."""

import json

import pytest

from models.decoding.sampling import SamplingParams
from reasoning.evaluation import evaluate, evaluate_votes, grade
from reasoning.generation.generator import Completion
from reasoning.problem import Problem, Verdict
from reasoning.tasks import Task


class Words(Task):
    """An answer is right if it is the reference."""

    def problems(self, split, count, seed):
        raise NotImplementedError

    def verify_all(self, problems, answers):
        same = [p.answer == a.strip() for p, a in zip(problems, answers, strict=True)]
        return [Verdict(right, "same" if right else "not the same") for right in same]


class Facts(Words):
    figure = "accuracy"


class Wins(Words):
    """A wrong answer counts a little where it was tried."""

    figure = "win_rate"

    def score(self, problem, answer, verdict):
        return 1.0 if verdict.correct else 0.25 * bool(answer)


class Script:
    """Continues each prompt with the texts written for it, of as many tokens as words."""

    def __init__(self, texts):
        self._texts, self.calls = texts, []

    def generate(self, prompts, *, num_samples, max_new_tokens, sampling, stop=(), seed):
        self.calls.append((len(prompts), num_samples, max_new_tokens, sampling, seed))
        return [
            [Completion(t, [7] * len(t.split()), None, "stop") for t in self._texts[p]]
            for p in prompts
        ]


def right(text, chain="so and now"):
    return f"<think> {chain} </think> <answer> {text} </answer>"


SUMS = [
    Problem("tiny_words", "one", "1", {"language": "en"}),
    Problem("tiny_words", "two", "2", {"language": "de"}),
]
FACTS = [Problem("tiny_words", "three", "3", {"language": "en"}), Problem("tiny_words", "4 =", "4")]
TEXTS = {
    "Q one": [right("1"), right("9")],  # half right, two English words each
    # Both are right, one has no tags; they are English and should be German.
    "Q two": ["#### 2", right("2", "so wait now")],
    "Q three": ["no idea", right("3") + " 3"],  # the second is right, its format is not
    "Q 4 =": [right("4"), ""],
}


@pytest.fixture
def evaluated():
    generator = Script(TEXTS)
    sampling = SamplingParams(temperature=0.6)
    metrics, graded = evaluate(
        generator,
        {"math": (Words("words"), SUMS), "knowledge": (Facts("words"), FACTS)},
        lambda question: f"Q {question}",
        num_samples=2,
        max_new_tokens=11,
        sampling=sampling,
        seed=5,
    )
    assert generator.calls == [(4, 2, 11, sampling, 5)]  # one shape to compile
    return metrics, graded


def test_figures(evaluated):
    metrics, _ = evaluated
    means = {name: (figure["mean"], figure["n"]) for name, figure in metrics.items()}
    assert means == {
        "math/pass@1": ((0.5 + 1) / 2, 2),
        "knowledge/accuracy": ((0.5 + 0.5) / 2, 2),
        "math/format": (0.75, 2),
        "knowledge/format": (0.25, 2),
        # One share a problem, over all domains: 2/2, 1/2, 0/2, 1/2.
        "format": (0.5, 4),
        # Of two responses to "two", one checks itself.
        "self_checks": (0.5 / 4, 4),
        # Words: 8 + 8, 2 + 8, 2 + 9, 8 + 0.
        "response_tokens": (45 / 8, 4),
        # Where a language is asked for and words tell one: 1 and 1; 0; 1. "4 =" names no language.
        "language_consistency": ((1 + 0 + 1) / 3, 3),
    }
    for figure in metrics.values():
        low, high = figure["ci95"]
        assert figure["seeds"] == 1 and low <= figure["mean"] <= high
    json.dumps(metrics)


def test_votes_and_what_they_could_at_best_be():
    """1: 2 of 3 are right. 2: 1 of 3, so that another wins. 3: nobody is, and one has no answer."""
    texts = {
        "one": [right("9"), right("1"), right("1")],
        "two": [right("3"), right("2"), right("3")],
        "three": ["", right("5"), right("7")],
    }
    problems = [*SUMS, FACTS[0]]
    metrics = evaluate_votes(
        Script(texts), {"math": (Words("words"), problems)}, str, num_samples=3, max_new_tokens=4,
        sampling=SamplingParams(), seed=0,
    )  # fmt: skip
    means = {name: (figure["mean"], figure["n"]) for name, figure in metrics.items()}
    assert means == {"math/majority@3": (1 / 3, 3), "math/pass@3": (2 / 3, 3)}


def test_every_response_is_recorded(evaluated):
    _, graded = evaluated
    records = [each.record() for each in graded]
    questions = [q for q in ("one", "two", "three", "4 =") for _ in range(2)]
    assert [r["question"] for r in records] == questions
    assert [r["correct"] for r in records] == [1, 0, 1, 1, 0, 1, 1, 0]
    assert [r["well_formed"] for r in records] == [1, 1, 0, 1, 0, 0, 1, 0]
    assert records[1] == {
        "task": "tiny_words", "question": "one", "answer": "1", "prompt": "Q one", "tokens": 8,
        "response": right("9"), "correct": False, "reason": "not the same", "well_formed": True,
    }  # fmt: skip
    json.dumps(records)


def test_no_language_no_consistency():
    metrics, _ = evaluate(
        Script(TEXTS), {"math": (Words("words"), FACTS[1:])}, lambda question: f"Q {question}",
        num_samples=2, max_new_tokens=4, sampling=SamplingParams(), seed=0,
    )  # fmt: skip
    assert "language_consistency" not in metrics


def test_the_answer_is_read_as_the_task_reads_it():
    class Shouted(Words):
        def extract(self, response):
            return response.rpartition("!")[2] or None

    completions = [[Completion(text, [], None, "stop") for text in ("2! 1", "1! 2", "")]]
    verdicts = grade(Shouted("words"), SUMS[:1], ["Q one"], completions)
    assert [each.verdict.correct for each in verdicts[0]] == [True, False, False]


def test_an_empty_domain_is_an_error():
    with pytest.raises(ValueError, match="no shares to average: the evaluation had no problems"):
        evaluate(
            Script(TEXTS), {"math": (Words("words"), [])}, str, num_samples=1, max_new_tokens=4,
            sampling=SamplingParams(), seed=0,
        )  # fmt: skip
