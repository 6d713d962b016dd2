"""Evaluation and rewards grade alike, whatever the prompt opened."""

import dataclasses

import pytest

from models.tokens.tokenizer_training import train_bpe
from reasoning.evaluation import evaluate_votes, grade
from reasoning.generation.generator import Completion
from reasoning.grading import grade_completions
from reasoning.problem import Problem
from reasoning.prompts import get_template
from reasoning.tasks import get_task
from reasoning.verifiers.rule import RuleVerifier
from rl.rewards import Sample
from rl.rewards.accuracy import AccuracyReward
from rl.rewards.format import FormatReward

PROBLEM = Problem("gsm8k", "What is 2 + 2?", "4")
OPENINGS = {
    "": "Q:",
    "<think>": "Q: <think>\n",
    "<think></think>": "Q:<think>\n\n</think>\n\n",
    "<think></think><answer>": "Q: <think> </think> <answer>",
}
# By what the prompt opened and what was completed: well formed, and right.
CASES = [
    ("", "<think> a </think> <answer>4</answer>", True, True),
    ("", "a </think> <answer>4</answer>", False, True),
    ("", "it is 4", False, True),
    ("<think>", "a </think> <answer>4</answer>", True, True),
    ("<think>", "<think> a </think> <answer>4</answer>", False, True),
    ("<think>", "so far it is 4", False, False),
    ("<think>", "a </think> it is 4", False, True),
    ("<think>", "a </think> <answer>5</answer>", True, False),
    ("<think></think>", "<answer>4</answer>", True, True),
    ("<think></think>", "4", False, True),
    ("<think></think>", "a </think> <answer>4</answer>", False, True),
    ("<think></think><answer>", "4</answer>", True, True),
    ("<think></think><answer>", "4", False, False),
    ("<think></think><answer>", "5</answer>", True, False),
]


@pytest.mark.parametrize(("opened", "text", "formed", "right"), CASES)
def test_evaluation_and_rewards_agree(opened, text, formed, right):
    prompt, task = OPENINGS[opened], get_task("gsm8k")
    completion = Completion(text, [1, 2], None, "stop")
    [[graded]] = grade(task, [PROBLEM], [prompt], [[completion]])
    assert (graded.well_formed, graded.verdict.correct) == (formed, right)
    sample = Sample(prompt, text, PROBLEM, 2)
    assert AccuracyReward().score_batch([sample])[0].score == right
    assert FormatReward()(prompt, text, PROBLEM).score == formed
    strict = AccuracyReward(require_format=True)(prompt, text, PROBLEM)
    assert strict.score == (formed and right)
    [[verified]] = RuleVerifier(task).score([PROBLEM], [prompt], [[completion]])
    assert verified == [float(right)]


def test_votes_know_what_the_prompt_opened():
    """Of two completions behind an opened chain, only that which closes it has an answer."""

    class Scripted:
        def generate(self, prompts, *, num_samples, **options):
            texts = ["so far it is 4", "a </think> <answer>5</answer>"]
            return [[Completion(text, [1], None, "stop") for text in texts] for _ in prompts]

    tokenizer = train_bpe(["User"], 260, eos_token="<eos>")
    metrics = evaluate_votes(
        Scripted(), {"math": (get_task("gsm8k"), [PROBLEM])}, get_template("think", tokenizer),
        num_samples=2, max_new_tokens=8, sampling=None, seed=0,
    )  # fmt: skip
    assert metrics["math/pass@2"]["mean"] == 0


def test_each_task_verifies_its_own_problems():
    asked = []

    class Recorder:
        def __init__(self, right):
            self.right = right

        def extract(self, text):
            return None if text == "-" else text

        def verify_all(self, problems, answers):
            asked.append(list(zip(problems, answers, strict=True)))
            verdict = type(get_task("gsm8k").verify(PROBLEM, "4"))
            return [verdict(answer == self.right, "") for answer in answers]

    tasks = {name: Recorder(name) for name in ("a", "b")}
    problems = [dataclasses.replace(PROBLEM, task=name) for name in "abba"]
    grades = grade_completions(
        problems, ["Q"] * 4, ["a", "-", "b", "b"], lambda problem: tasks[problem.task]
    )
    assert [each.verdict.correct for each in grades] == [True, False, True, False]
    assert [each.answer for each in grades] == ["a", None, "b", "b"]
    assert grades[1].verdict.reason == "no answer found in the response"
    assert sorted(len(batch) for batch in asked) == [1, 2]
