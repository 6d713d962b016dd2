"""The verifier that asks the policy itself."""

import numpy as np
import pytest

from reasoning.generator import Completion
from reasoning.search.best_of_n import BestOfN
from reasoning.verifiers.likelihood import MeanLogprob


def completion(*probabilities):
    logprobs = np.log(np.array(probabilities, np.float32))
    return Completion("x", [1] * len(probabilities), logprobs, "stop")


def test_it_is_the_geometric_mean_of_the_tokens_probabilities():
    """So that a long response is not punished for its length."""
    group = [completion(0.5, 0.5, 0.5), completion(0.25, 1.0), completion(0.9), completion()]
    (scores,) = MeanLogprob().score([None], ["?"], [group])
    np.testing.assert_allclose(np.concatenate(scores), [0.5, 0.5, 0.9, 0.0], rtol=1e-6)


def test_a_generator_that_reports_none_is_refused():
    with pytest.raises(ValueError, match="the generator reports none"):
        MeanLogprob().score([None], ["?"], [[Completion("x", [1], None, "stop")]])


def test_a_search_over_steps_is_refused():
    with pytest.raises(ValueError, match="scores whole responses"):
        MeanLogprob().start([None], ["?"], capacity=1, width=1, max_new_tokens=1, step_tokens=1)


def test_best_of_n_without_logprobs_stops_with_that_error():
    from search_toy import PROBLEMS, toy_policy

    with pytest.raises(ValueError, match="the generator reports none"):
        BestOfN()(toy_policy(), MeanLogprob(), PROBLEMS, 2)
