"""Tests of the verifiers that use the policy's own probabilities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.config import ModelConfig
from models.decoder import LanguageModel
from models.tokens.tokenizer_training import train_bpe
from reasoning.generation.generator import Completion
from reasoning.search.best_of_n import BestOfN
from reasoning.verifiers.likelihood import MeanLogprob, SelfCertainty


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
    from tests.reasoning.search.search_toy import PROBLEMS, toy_policy

    with pytest.raises(ValueError, match="the generator reports none"):
        BestOfN()(toy_policy(), MeanLogprob(), PROBLEMS, 2)


def test_self_certainty_is_the_divergence_of_uniform_guessing_from_the_policy():
    """Computes it from the logits of each response alone, unpacked, over the whole vocabulary."""
    tokenizer = train_bpe(["a"], 258, eos_token="<eos>", pad_token="<pad>")
    config = ModelConfig(
        family="llama", vocab_size=264, embed_dim=16, num_layers=2, num_heads=2, num_kv_heads=1,
        head_dim=8, mlp_dim=24, max_length=64,
    )  # fmt: skip
    model, rng = LanguageModel(config), np.random.default_rng(0)
    params = jax.tree.map(
        lambda x: jnp.asarray(rng.normal(0, 0.5, x.shape), jnp.float32), model.abstract_params
    )
    prompts = ["one?", "and two?"]
    groups = [
        [Completion("", list(map(int, rng.integers(0, 258, n))), None, "stop") for n in lengths]
        for lengths in ((3, 1, 0), (7,))
    ]
    scores = SelfCertainty(model, params, tokenizer).score([None] * 2, prompts, groups)
    for prompt, group, row in zip(prompts, groups, scores, strict=True):
        ids = tokenizer.encode(prompt)
        for completion, (score,) in zip(group, row, strict=True):
            read = np.array([ids + completion.token_ids])
            positions = np.arange(read.shape[1])[None]
            hidden = model.hidden(params, read, positions, np.ones_like(read))
            logits = np.asarray(model.logits(params, hidden), np.float64)[0]
            total = 0.0
            for t in range(len(ids), read.shape[1]):
                p = np.exp(logits[t - 1]) / np.exp(logits[t - 1]).sum()
                total += np.sum(1 / 264 * np.log(1 / 264 / p))
            mean = total / max(len(completion.token_ids), 1)
            assert score == pytest.approx(1 - np.exp(-mean), abs=1e-5)
    assert len({float(score) for row in scores for (score,) in row}) == 4


def test_self_certainty_of_steps_is_refused():
    with pytest.raises(ValueError, match="SelfCertainty scores whole responses"):
        SelfCertainty.start(None, [None], ["?"], capacity=1, width=1)
