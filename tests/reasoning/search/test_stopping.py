"""Votes that stop early or leave out samples."""

import numpy as np
import pytest
from scipy import integrate

from models.decoding.sampling import SamplingParams
from reasoning.generation.generator import Completion
from reasoning.problem import Problem
from reasoning.search.common.sample_bank import SampleBank
from reasoning.search.interface import Policy
from reasoning.search.stopping import AdaptiveVote, ConfidentVote, settled, weakest_stretch
from reasoning.tasks import get_task

SAMPLING = SamplingParams(temperature=1.0)


class Scripted:
    """Gives the listed answers of a question in turn, each with a log-probability per token."""

    def __init__(self, answers):
        self.answers, self.given = answers, {}

    def generate(self, prompts, *, num_samples=1, max_new_tokens, sampling=SAMPLING, stop=(),
                 seed=0):  # fmt: skip
        out = []
        for prompt in prompts:
            start = self.given.get(prompt, 0)
            self.given[prompt] = start + num_samples
            mine = self.answers[prompt][start : start + num_samples]
            out.append(
                [Completion(f"<think>\nx\n</think><answer> {a}</answer>", [1] * 4,
                            np.full(4, logprob, np.float32), "stop") for a, logprob in mine]
            )  # fmt: skip
        return out


def policy(answers, bank=0):
    generator = Scripted(answers)
    if bank:
        generator = SampleBank(generator, bank, 8, SAMPLING, shared=list(answers), seed=0)
    return Policy(
        generator=generator, steps=None, task=get_task("tiny_math"), template=str,
        max_new_tokens=8, step_tokens=8, typical_tokens=4, sampling=SAMPLING,
    )  # fmt: skip


def problems(*questions):
    return [Problem("tiny_math", question, "7") for question in questions]


@pytest.mark.parametrize("bank", [0, 16])
def test_a_settled_vote_stops_and_an_open_one_goes_on(bank):
    answers = {"easy": [(7, 0.0)] * 16, "hard": [(7, 0.0), (8, 0.0)] * 8}
    easy, hard = AdaptiveVote()(policy(answers, bank), None, problems(*answers), 16)
    assert len(easy.candidates) == 5 and easy.answer == "7"
    assert len(hard.candidates) == 16
    assert easy.spent.generated_tokens == 20 and hard.spent.generated_tokens == 64


def test_a_bank_gives_each_sample_once():
    answers = {"q": [(i, 0.0) for i in range(8)]}
    (found,) = AdaptiveVote()(policy(answers, 8), None, problems("q"), 8)
    assert [each.answer for each in found.candidates] == [str(i) for i in range(8)]


def test_the_probability_of_staying_ahead_is_the_integral_of_the_paper():
    for votes in ([3], [3, 1], [2, 5, 1], [4, 4]):
        first, second, *_ = [*sorted(votes, reverse=True), 0]

        def density(share, first=first, second=second):
            return share**first * (1 - share) ** second

        above = integrate.quad(density, 0.5, 1)[0] / integrate.quad(density, 0, 1)[0]
        assert settled(votes) == pytest.approx(above, abs=1e-9)
    assert settled([]) == pytest.approx(0.5)


def test_unsure_samples_do_not_vote():
    answers = {"q": [(8, -3.0), (8, -3.0), (8, -2.9), (7, -0.1), (7, -0.2), (9, -0.3)]}
    (plain,) = AdaptiveVote(confidence=1)(policy(answers), None, problems("q"), 6)
    (sure,) = ConfidentVote(confidence=1)(policy(answers), None, problems("q"), 6)
    assert plain.answer == "8" and sure.answer == "7"
    assert len(sure.candidates) == 6


def test_the_weakest_stretch_is_the_lowest_mean_of_a_window():
    values = np.array([-1, -1, -5, -3, 0, 0], np.float32)
    assert weakest_stretch(Completion("", [1] * 6, values, "stop"), 2) == -4
    assert weakest_stretch(Completion("", [1] * 6, values, "stop"), 100) == pytest.approx(-10 / 6)
    assert np.isnan(weakest_stretch(Completion("", [], None, "stop"), 2))


@pytest.mark.parametrize("settings", [{"confidence": 0}, {"first": 0}, {"round": 0}])
def test_wrong_settings_are_refused(settings):
    for kind in (AdaptiveVote, ConfidentVote):
        with pytest.raises(ValueError, match="at least 1"):
            kind(**settings)
    with pytest.raises(ValueError, match="keep=0"):
        ConfidentVote(keep=0)
