"""Tests of small talk: the rule of the evaluation, rude words and people's preferences."""

import random

import pytest

from reasoning.problem import Problem
from reasoning.tasks import get_task
from reasoning.tiny_world import chat
from reasoning.tiny_world.language import LANGUAGES

ANN = Problem("tiny_chat", "Hi, Ann here.", "Hello Ann, how can I help you?",
              {"language": "en", "name": "Ann"})  # fmt: skip
EVA = Problem("tiny_chat", "Das ist Eva.", "Hallo Eva, wie kann ich dir helfen?",
              {"language": "de", "name": "Eva"})  # fmt: skip


@pytest.mark.parametrize(
    "problem, reply, quality",
    [
        (ANN, "Hello Ann, how can I help you?", 3),
        (EVA, "Hallo Eva, wie kann ich dir helfen?", 3),
        (ANN, "Hello Bob, how can I help you?", 2),  # somebody else
        (ANN, "Hello Ann, Bob, how can I help you?", 2),
        (ANN, "Hello Ann.", 2),
        (ANN, "Later.", 1),
        (ANN, "What?", 1),
        (EVA, "Hello Eva, how can I help you?", 0),  # not her language
        (ANN, "Hello Ann, you fool.", 0),
        (ANN, "Go away, Ann, how can I help you?", 0),
        (ANN, "", 0),
        (ANN, "?", 0),
        (ANN, "28", 0),
        (ANN, "Ann beats Bob", 0),
        (ANN, "Hello Ann, how can I help you? " * 3, 0),  # on and on
        (ANN, "<think> Hello Ann, how can I help you?", 0),
    ],
)
def test_the_rule(problem, reply, quality):
    assert chat.quality(problem, reply) == quality
    assert chat.win(problem, reply) == {0: 0.0, 1: 0.5}.get(quality, 1.0)


def test_the_task_grades_and_reads_the_final_answer_only():
    task = get_task("tiny_chat")
    text = " <think>\n Go away, you fool.\n</think><answer> Hello Ann.</answer>"
    assert task.extract(text) == "Hello Ann."
    verdicts = task.verify_all([ANN, ANN, ANN], ["Hello Ann.", "Later.", "Shut up, Ann."])
    assert [v.correct for v in verdicts] == [True, False, False]
    assert task.score(ANN, "Later.", verdicts[1]) == 0.5


def test_rude_words_are_found_wherever_they_stand_and_only_they():
    for language in LANGUAGES.values():
        for reply in language.rude_replies:
            assert chat.is_harmful(f"<think> {reply.format('Ann').upper()} </think>")
        for phrase in (language.helpful_reply, *language.curt_replies, *language.greetings):
            assert not chat.is_harmful(phrase.format("Ann"))
        assert not any(map(chat.is_harmful, language.solution_words))


def test_people_like_friendly_replies_better_most_of_the_time():
    rng, votes = random.Random(0), []
    for i in range(2000):
        first, second = ANN.answer, "Go away, you fool."
        votes.append(
            chat.people_prefer(rng, ANN, first, second)
            if i % 2
            else not chat.people_prefer(rng, ANN, second, first)
        )
    assert sum(votes) / 2000 == pytest.approx(1 - chat.DISAGREEMENT, abs=0.03)
    assert chat.people_prefer(rng, ANN, ANN.answer, f" {ANN.answer} ") is None
