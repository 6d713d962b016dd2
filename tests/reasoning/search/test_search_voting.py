"""Tests of votes and best-of-N, with scripted candidates and a toy verifier."""

import numpy as np
import pytest

from reasoning import voting
from reasoning.candidate import Candidate
from reasoning.problem import Problem
from reasoning.search.best_of_n import BestOfN
from reasoning.search.self_consistency import SelfConsistency
from reasoning.tasks import get_task
from tests.reasoning.search.search_toy import PROBLEMS, ToyVerifier, random_scores, toy_policy

MATH = get_task("tiny_math")
PROBLEM = Problem("tiny_math", "?", "999")


def candidates(*pairs):
    return [Candidate(f"{a}", a, score, 1, True) for a, score in pairs]


def elected(pairs, weigh=voting.by_count, task=MATH):
    return voting.elect(task, [PROBLEM], [candidates(*pairs)], weigh)[0]


def test_equivalent_answers_vote_together():
    """Strings alone would elect 7; the reference, 999, plays no part."""
    pairs = [("7", None), ("7", None), ("0.5", None), ("1/2", None), ("\\frac{1}{2}", None)]
    assert elected(pairs).answer == "0.5"


def test_ties_go_to_the_first_and_its_best_candidate():
    assert elected([("3", 0.1), ("4", 0.9), ("4", 0.2), ("3", 0.5)]) == candidates(("3", 0.5))[0]


def test_missing_answers_do_not_vote():
    assert elected([(None, None), (None, None), ("", None), ("5", None)]).answer == "5"
    assert elected([(None, 0.1), (None, 0.2)]).score == 0.2
    assert voting.elect(MATH, [PROBLEM], [[]]) == [None]


def test_unparseable_answers_are_votes_for_themselves():
    assert elected([("}{", None), ("\\frac{", None), ("}{", None), ("12", None)]).answer == "}{"


def test_weights():
    pairs = [("1", 0.2), ("1", 0.3), ("1", 0.1), ("2", 0.9)]
    assert elected(pairs).answer == "1"
    assert elected(pairs, voting.by_score).answer == "2"
    # Ranks 2 + 3 + 1 against 4.
    assert elected(pairs, voting.by_rank).answer == "1"


def test_borda_ranks_share_ties():
    weights = voting.by_rank(candidates(("1", 0.5), ("2", 0.5), ("3", 0.9), ("4", 0.1)))
    assert weights == [2.5, 2.5, 4.0, 1.0]


def test_grouping_matches_pairwise_comparison():
    answers = ["1/2", "0.5", "x", "50%", "2", "X", "2.0", "4/2"]
    groups = MATH.group_answers([PROBLEM], [answers])[0]
    assert groups == [0, 0, 2, 0, 4, 2, 4, 4]
    words = get_task("tiny_logic").group_answers([PROBLEM], [["Ann", "ann.", " Bob", "Ann Bob"]])
    assert words == [[0, 0, 2, 3]]


@pytest.mark.parametrize("aggregation", ["last", "min", "product", "mean"])
def test_best_of_n_takes_the_highest_aggregated_score(aggregation):
    verifier, policy = ToyVerifier(random_scores(7)), toy_policy()
    results = BestOfN(aggregation)(policy, verifier, PROBLEMS, 9)
    reductions = {"last": lambda s: s[-1], "min": np.min, "product": np.prod, "mean": np.mean}
    reduce = reductions[aggregation]
    for result in results:
        assert len(result.candidates) == 9
        steps = [verifier._steps(c.response) for c in result.candidates]
        assert result.response == result.candidates[np.argmax([reduce(s) for s in steps])].response
        assert result.spent.generated_tokens == 27
        assert result.spent.verifier_calls == 9


def test_majority_needs_no_verifier_and_pays_for_none():
    results = SelfConsistency()(toy_policy(), None, PROBLEMS, 4)
    assert all(r.spent.verifier_calls == 0 and r.spent.generated_tokens == 12 for r in results)
    with pytest.raises(ValueError, match="self_consistency by score needs a verifier"):
        SelfConsistency("score")(toy_policy(), None, PROBLEMS, 4)
    with pytest.raises(ValueError, match="weights='sum' is unknown"):
        SelfConsistency("sum")
    with pytest.raises(ValueError, match="budget=1.5"):
        SelfConsistency()(toy_policy(), None, PROBLEMS, 1.5)
