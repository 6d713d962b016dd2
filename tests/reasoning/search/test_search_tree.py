"""Tests of searches over steps against brute force and reference code, in a toy world."""

import numpy as np
import pytest

from reasoning.search import mcts
from reasoning.search.beam import BeamSearch
from reasoning.search.dvts import DiverseTreeSearch
from reasoning.search.lookahead import LookaheadSearch
from reasoning.search.mcts import TreeSearch
from reasoning.verifiers import aggregate
from tests.reasoning.search.search_toy import (
    DEPTH,
    LETTERS,
    PROBLEMS,
    ToyVerifier,
    leaves,
    random_scores,
    toy_policy,
)

ALL = len(LETTERS) ** DEPTH
METHODS = {
    "beam": BeamSearch(),
    "dvts": DiverseTreeSearch(),
    "lookahead": LookaheadSearch(),
    "mcts": TreeSearch(short_step=1),
}


def path_score(scores, text, aggregation="last"):
    lines = text.splitlines(keepends=True)
    return aggregate([scores["".join(lines[: i + 1])] for i in range(len(lines))], aggregation)


def reference_beam(scores, keep, expansions, aggregation, ended):
    """Beam search as the paper words it; all final paths."""
    beam, done = [""], []
    rows = keep * expansions
    while beam:
        grown = []
        for i, text in enumerate(beam):
            count = len(range(i, rows, len(beam)))
            grown += [text + f"{LETTERS[n % 3]}\n" for n in range(count)]
        grown = sorted(set(grown), key=lambda text: -path_score(scores, text, aggregation))
        kept = grown[: rows // expansions]
        done += [text for text in kept if ended(text)]
        beam = [text for text in kept if not ended(text)]
        rows -= expansions * sum(map(ended, kept))
    return done


@pytest.mark.parametrize("aggregation", ["last", "min", "product", "mean"])
def test_a_beam_of_all_continuations_is_brute_force(aggregation):
    scores = random_scores(0)
    search = BeamSearch(expansions=len(LETTERS), aggregation=aggregation, choose="best")
    results = search(toy_policy(), ToyVerifier(scores), PROBLEMS, ALL * len(LETTERS))
    best = max(leaves(), key=lambda text: path_score(scores, text, aggregation))
    assert [result.response for result in results] == [best, best]
    assert {c.response for c in results[0].candidates} == set(leaves())


@pytest.mark.parametrize("ends", ["", "c"])
@pytest.mark.parametrize("keep", [1, 2, 4])
def test_beam_keeps_the_best_paths_of_every_step(keep, ends):
    """Also where paths end early, each of which leaves the beam one narrower."""
    for seed in range(5):
        scores, policy = random_scores(seed), toy_policy(ends=ends)
        search = BeamSearch(expansions=3, choose="best")
        result = search(policy, ToyVerifier(scores), PROBLEMS[:1], 3 * keep)[0]
        expected = reference_beam(scores, keep, 3, "last", policy.generator.ended)
        assert sorted(c.response for c in result.candidates) == sorted(expected)
        assert result.response == max(expected, key=lambda text: scores[text])


def test_lookahead_ranks_a_step_by_the_end_of_its_rollout():
    """The best-looking first step leads nowhere: a search that ignores its rollouts takes it."""
    scores = dict.fromkeys(random_scores(0), 0.1)
    scores |= {"a\n": 0.9, "b\n": 0.5, "b\na\n": 1.0, "b\na\na\n": 1.0}
    budget, problems = 6, PROBLEMS[:1]
    search = LookaheadSearch(expansions=3, choose="best", steps=1)
    assert search(toy_policy(), ToyVerifier(scores), problems, budget)[0].answer == "baa"
    beam = BeamSearch(expansions=3, choose="best")
    assert beam(toy_policy(), ToyVerifier(scores), problems, 3)[0].answer[0] == "a"


def test_a_path_without_rivals_is_not_rolled_out():
    """What lookahead spends at a budget of one response is one response."""
    scores = random_scores(0)
    (plain, *_) = BeamSearch()(toy_policy(), ToyVerifier(scores), PROBLEMS, 1)
    for budget in (1, 2, 5):  # Less than two paths with rollouts of two steps.
        (ahead, *_) = LookaheadSearch(steps=2)(toy_policy(), ToyVerifier(scores), PROBLEMS, budget)
        assert ahead.response == plain.response and ahead.spent == plain.spent


def test_lookahead_as_deep_as_the_tree_sees_the_greedy_end():
    scores = random_scores(3)
    for steps in (DEPTH - 1, DEPTH + 2):
        search = LookaheadSearch(expansions=3, choose="best", steps=steps)
        result = search(toy_policy(), ToyVerifier(scores), PROBLEMS[:1], 3 * (steps + 1))[0]
        first = max(LETTERS, key=lambda letter: scores[f"{letter}\n" + "a\n" * (DEPTH - 1)])
        assert result.response[0] == first


def test_subtrees_do_not_compete():
    scores = random_scores(4)
    search = DiverseTreeSearch(expansions=3, choose="best")
    result = search(toy_policy(), ToyVerifier(scores), PROBLEMS[:1], 9)[0]
    greedy = ""
    for _ in range(DEPTH):
        greedy = max((greedy + f"{letter}\n" for letter in LETTERS), key=scores.get)
    # All three subtrees see all three letters, so each follows the same greedy path to its end.
    assert [c.response for c in result.candidates] == [greedy] * 3


def test_tree_search_with_enough_budget_finds_the_best_path():
    scores = {text: 0.5 for text in random_scores(0)} | {"c\nb\nc\n": 1.0}
    search = TreeSearch(expansions=3, exploration=2.0, choose="best", short_step=1)
    result = search(toy_policy(), ToyVerifier(scores), PROBLEMS[:1], 26)[0]
    assert result.answer == "cbc"


def test_tree_search_prefers_what_its_values_praise():
    scores = random_scores(5)
    scores |= {text: 0.9 if text[0] == "b" else 0.1 for text in scores}
    search = TreeSearch(expansions=3, exploration=0.1, short_step=1)
    result = search(toy_policy(), ToyVerifier(scores), PROBLEMS[:1], 6)[0]
    assert {c.response[0] for c in result.candidates} == {"b"}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("budget", [1, 2, 5, 16])
def test_the_meter_counts_every_sampled_token(name, budget):
    policy = toy_policy()
    results = METHODS[name](policy, ToyVerifier(random_scores(1)), PROBLEMS, budget)
    spent = [result.spent for result in results]
    assert [each.generated_tokens for each in spent] == policy.generator.sampled.tolist()
    assert [each.verifier_calls for each in spent] == policy.generator.sampled.tolist()
    assert all(result.answer for result in results)


@pytest.mark.parametrize("name", METHODS)
def test_batches_of_problems_answer_as_one(name):
    verifier = ToyVerifier(random_scores(2))
    together = METHODS[name](toy_policy(), verifier, PROBLEMS, 8)
    apart = METHODS[name](toy_policy(rows=1), verifier, PROBLEMS, 8)
    assert [r.candidates for r in together] == [r.candidates for r in apart]


@pytest.mark.parametrize("name", METHODS)
def test_no_budget_no_verifier_no_steps_are_refused_before_anything_is_sampled(name):
    policy, verifier = toy_policy(), ToyVerifier(random_scores(0))
    with pytest.raises(ValueError, match="budget=0.*at least 1"):
        METHODS[name](policy, verifier, PROBLEMS, 0)
    with pytest.raises(ValueError, match=f"{name} needs a verifier"):
        METHODS[name](policy, None, PROBLEMS, 4)
    assert not np.any(policy.generator.sampled)


def test_bad_settings():
    with pytest.raises(ValueError, match="expansions=0"):
        BeamSearch(expansions=0)
    with pytest.raises(ValueError, match="choose='most'"):
        DiverseTreeSearch(choose="most")
    with pytest.raises(ValueError, match="steps=0 of lookahead"):
        LookaheadSearch(steps=0)
    with pytest.raises(ValueError, match="exploration=-1"):
        TreeSearch(exploration=-1)


def test_selection_ends_where_a_value_is_no_number():
    root = mcts.Node(mcts.ROOT_PATH, 1.0, None)
    root.children = [mcts.Node(mcts.ROOT_PATH, 0.5, root) for _ in range(2)]
    for child in root.children:
        child.record(float("nan"))
    assert root.leaf(0.5) is root.children[0]


@pytest.mark.parametrize("name", METHODS)
def test_problems_searched_in_small_batches_are_answered_as_in_one(name):
    verifier = ToyVerifier(random_scores(2))
    together = METHODS[name](toy_policy(), verifier, PROBLEMS, 8)
    apart = METHODS[name](toy_policy(rows=8), verifier, PROBLEMS, 8)
    assert [r.candidates for r in together] == [r.candidates for r in apart]
