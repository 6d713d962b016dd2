"""Tests of budget forcing, self-refinement and prompting, with scripted generators."""

import dataclasses

import numpy as np
import pytest

from models.decoding.sampling import SamplingParams
from models.tokens.tokenizer_training import train_bpe
from reasoning.generation.generator import Completion
from reasoning.problem import Problem
from reasoning.search.best_of_n import BestOfN
from reasoning.search.budget_forcing import CLOSING, BudgetForcing
from reasoning.search.interface import Policy
from reasoning.search.prompting import Prompting
from reasoning.search.self_consistency import SelfConsistency
from reasoning.search.self_refine import SelfRefine
from reasoning.tasks import get_task

TOKENIZER = train_bpe(["a"], 258, eos_token="<eos>", pad_token="<pad>")
PROBLEMS = [Problem("tiny_math", "1 + 2", "3")]


class Script:
    """Answers each call by the next of its texts; a text that ends in "|" was cut off."""

    tokenizer = TOKENIZER

    def __init__(self, *texts):
        self._texts = list(texts)
        self.prompts, self.requests, self.sampled = [], [], 0

    def generate(self, prompts, *, num_samples=1, max_new_tokens, sampling=None, stop=(), seed=0):
        self.prompts += prompts
        self.requests.append((sampling, tuple(stop), max_new_tokens))
        return [[self._next(stop) for _ in range(num_samples)] for _ in prompts]

    def _next(self, stop):
        text = self._texts.pop(0)
        finish = "length" if text.endswith("|") else "stop"
        text = text.rstrip("|")
        for each in stop:
            if each in text:
                text, finish = text[: text.index(each) + len(each)], "stop_string"
        ids = TOKENIZER.encode(text)
        self.sampled += len(ids)
        return Completion(text, ids, np.zeros(len(ids), np.float32), finish)


def policy(generator):
    return Policy(
        generator=generator,
        steps=None,
        task=get_task("tiny_math"),
        template=lambda question: f"Q: {question}\nA:",
        max_new_tokens=200,
        step_tokens=20,
        typical_tokens=20,
    )


def search(method, generator, budget, verifier=None):
    (result,) = method(policy(generator), verifier, PROBLEMS, budget)
    return result


def test_thinking_is_extended_and_then_answered():
    script = Script(
        "<think> 4 </think><answer>4</answer>", " no 5 </think>", " 3|", " 3</answer> and more"
    )
    result = search(BudgetForcing("Wait"), script, 3)
    assert result.response == ("<think> 4  Wait no 5  Wait 3</think><answer> 3</answer>")
    assert (result.answer, result.chain) == ("3", "4  Wait no 5  Wait 3")
    assert script.prompts[1] == "Q: 1 + 2\nA:<think> 4  Wait"
    assert script.prompts[-1].endswith(CLOSING)
    # What was put in its mouth was not sampled.
    assert result.spent.generated_tokens == script.sampled
    answer_request = script.requests[-1]
    assert answer_request[0].temperature == 0 and answer_request[1] == ("</answer>",)


@pytest.mark.parametrize(
    ("later", "answer"),
    [("5", "4"), ("56", "4"), ("55", "5"), ("556", "4"), ("4555", "5"), ("455", "4")],
)
def test_a_vote_keeps_the_first_answer_unless_most_turns_agree(later, answer):
    texts = ["<think> 4 </think>", " 4</answer>"]
    for each in later:
        texts += [f" no {each} </think>", f" {each}</answer>"]
    script = Script(*texts)
    result = search(BudgetForcing("Wait", vote=True), script, 1 + len(later))
    assert result.answer == answer
    assert [each.answer for each in result.candidates] == ["4", *later]
    # An answer is no part of the chain that goes on.
    assert script.prompts[2] == "Q: 1 + 2\nA:<think> 4  Wait"
    assert result.spent.generated_tokens == script.sampled
    # Without the vote the last answer counts.
    script = Script("<think> 4 </think>", " no 5 </think>", " no 6 </think>", " 6</answer>")
    assert search(BudgetForcing("Wait"), script, 3).answer == "6"


def test_no_more_turns_than_the_budget_and_none_for_a_chain_that_was_cut_off():
    script = Script("<think> 4 </think>", " 4</answer>")
    assert search(BudgetForcing(), script, 1).answer == "4"
    script = Script("<think> 4|", " 4</answer>")
    assert search(BudgetForcing(), script, 8).answer == "4"


def test_the_context_limits_the_turns():
    generator = Script("<think> 4 </think>", " 4</answer>")
    small = policy(generator)
    config = type("Config", (), {"max_length": 280, "flops_per_token": lambda self, n: 1.0})()
    (result,) = BudgetForcing()(Policy(**{**small.__dict__, "model": config}), None, PROBLEMS, 50)
    assert result.answer == "4" and len(generator.prompts) == 2


def test_a_response_without_a_chain_stays_as_it_is():
    assert search(BudgetForcing(), Script("so 7"), 4).response == "so 7"


@pytest.mark.parametrize("method", [SelfConsistency(), Prompting()])
def test_a_chain_that_never_closes_is_answered_not_left_as_garbage(method):
    script = Script("<think> 1 and 2 and 1 and 2|", " 3</answer>")
    result = search(method, script, 1)
    assert result.answer == "3"
    assert result.chain == "1 and 2 and 1 and 2"


def test_explicit_and_hidden_reasoning_are_apart():
    script = Script("<think>\n 1 and 2 makes 3\n</think><answer> 3</answer>")
    result = search(Prompting(), script, 1)
    assert (result.chain, result.answer) == ("1 and 2 makes 3", "3")
    assert "makes" not in result.answer


def test_what_the_prompt_has_opened_is_part_of_the_response():
    script = Script(" 1 and 2 makes 3 </think><answer> 3</answer>", " 1|", " 3</answer>")
    opened = dataclasses.replace(
        policy(script), template=lambda question: f"Q: {question}\nA: <think>\n"
    )
    results = [SelfConsistency()(opened, None, PROBLEMS, 1)[0] for _ in range(2)]
    assert [r.chain for r in results] == ["1 and 2 makes 3", "1"]
    assert [r.answer for r in results] == ["3", "3"]
    assert results[0].response.startswith(" <think>\n 1 and")
    # The second chain never closed; its answer was asked for.
    assert script.prompts[-1].endswith(f"<think>\n 1{CLOSING}")


def test_prompting_is_greedy_and_its_prefill_is_part_of_the_response():
    script = Script(" 3</answer>")
    result = search(Prompting(prefill=" <think></think><answer>"), script, 64)
    assert script.prompts == ["Q: 1 + 2\nA: <think></think><answer>"]
    assert script.requests[0][0] == SamplingParams(temperature=0.0)
    assert result.response == " <think></think><answer> 3</answer>"
    assert result.answer == "3" and result.chain == ""


class ByWord:
    """Step scores: low where a line says "bad"."""

    config = None

    def score(self, problems, prompts, completions):
        def of(completion):
            lines = completion.text.splitlines()
            return np.array([0.1 if "bad" in line else 0.9 for line in lines])

        return [[of(completion) for completion in group] for group in completions]


def test_self_refine_resumes_before_the_weakest_step_and_keeps_what_is_better():
    script = Script(" good\n bad\n so 1", " bad again\n so 5", " fine\n so 3")
    result = search(SelfRefine(aggregation="min"), script, 3, ByWord())
    assert script.prompts[1] == "Q: 1 + 2\nA: good\n"
    assert script.prompts[2] == "Q: 1 + 2\nA: good\n"  # the first revision was no better
    assert result.response == " good\n fine\n so 3"
    assert (result.answer, result.candidates[0].score) == ("3", 0.9)
    assert result.spent.generated_tokens == script.sampled
    assert result.spent.verifier_calls == 3


def test_self_refine_by_instruction_shows_the_response():
    script = Script(" bad 1", " so 3")
    result = search(SelfRefine(instruction="Check it.", aggregation="min"), script, 2, ByWord())
    assert script.prompts[1] == "Q: 1 + 2\nA: bad 1\nCheck it.\n"
    assert result.response == " so 3"


def test_a_worse_revision_is_not_taken():
    result = search(SelfRefine(aggregation="min"), Script(" so 3", " bad 4"), 2, ByWord())
    assert result.response == " so 3"


def test_bad_settings():
    with pytest.raises(ValueError, match="wait='  ' is blank"):
        BudgetForcing("  ")
    with pytest.raises(ValueError, match="self_refine needs a verifier"):
        search(SelfRefine(), Script(), 2)
    blind = type("Blind", (), {"generate": None})()
    with pytest.raises(ValueError, match="self_refine resumes a response at a token"):
        search(SelfRefine(), blind, 2, ByWord())
    with pytest.raises(ValueError, match="budget=-1 of best_of_n"):
        search(BestOfN(), Script(), -1)
    with pytest.raises(ValueError, match="step_tokens=9 exceeds max_new_tokens=8"):
        Policy(None, None, None, None, max_new_tokens=8, step_tokens=9, typical_tokens=1)
