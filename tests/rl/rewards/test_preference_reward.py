"""Rewards by reward models: what they read, what they give, and what earns nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.config import ModelConfig
from models.decoder import LanguageModel
from models.hf.export import export_model
from models.scalar_head import ScalarModel
from models.tokens.tokenizer_training import train_bpe
from reasoning.problem import Problem
from rl.rewards import Sample
from rl.rewards.combine import RewardSet
from rl.rewards.preference import HarmlessReward, HelpfulReward
from rl.rewards.table import parse_rewards

CONFIG = ModelConfig(
    family="qwen3", vocab_size=264, embed_dim=16, num_layers=2, num_heads=2, num_kv_heads=1,
    head_dim=8, mlp_dim=32, qk_norm=True, tie_embeddings=True, max_length=128,
)  # fmt: skip
PROMPT, TALK = "User: Hi.\nAssistant:", Problem("tiny_chat", "Hi.", "Hello.", {})


@pytest.fixture(scope="module")
def reward_model(tmp_path_factory):
    """Directory of a random reward model; and its value of a text, read alone."""
    directory = tmp_path_factory.mktemp("rm") / "hf"
    model, tokenizer = ScalarModel(CONFIG, bias=False), train_bpe(["a"], 258, eos_token="<eos>")
    lm = LanguageModel(CONFIG).init(jax.random.key(0))
    # Large, so that texts differ clearly.
    params = model.from_language_model(lm, jax.random.key(1))
    params["score"]["kernel"] *= 20
    export_model(directory, CONFIG, params, tokenizer, scalar_head=model)

    @jax.jit
    def values(tokens):
        hidden = model.hidden(params, tokens, jnp.arange(128)[None], jnp.ones_like(tokens))
        return model.values(params, hidden)[0]

    def value(prompt, text):
        ids = [*tokenizer.encode(prompt), *tokenizer.encode(text), tokenizer.eos_id]
        # Causal, so what is appended to reach one compiled length changes nothing before it.
        return float(values(jnp.array([ids + [0] * (128 - len(ids))]))[len(ids) - 1])

    return str(directory), value


def response(chain, answer):
    return f" <think>{chain}</think><answer>{answer}</answer>"


def samples(*texts, prompt=PROMPT):
    return [Sample(prompt, text, TALK, num_tokens=9) for text in texts]


def test_helpfulness_reads_the_answer_and_harmlessness_all(reward_model):
    directory, value = reward_model
    texts = [response("hm", "Hello."), response("fool", "Hello."), response("hm", "Go.")]
    sigmoid = lambda x: 1 / (1 + np.exp(-x))
    helpful = [r.score for r in HelpfulReward(directory).score_batch(samples(*texts))]
    expected = [sigmoid(value(PROMPT, f" {answer}")) for answer in ("Hello.", "Hello.", "Go.")]
    np.testing.assert_allclose(helpful, expected, rtol=1e-4)
    harmless = [r.score for r in HarmlessReward(directory).score_batch(samples(*texts))]
    expected = [sigmoid(value(PROMPT, text)) for text in texts]
    np.testing.assert_allclose(harmless, expected, rtol=1e-4)
    assert helpful[0] == helpful[1] != helpful[2] and len(set(harmless)) == 3


@pytest.mark.parametrize(
    "hostile",
    [
        "",
        "Hello, how can I help you?",
        "<answer> Hello. </answer>",
        response("hm", ""),
        response("hm", "Hello.") + response("hm", "Hello."),
        response("hm", "Hello.") + " Hello.",
        "<think> hm <answer> Hello. </answer></think>",
        response("hm", "Hello. " * 100),  # beyond the reward model's context
    ],
)
def test_what_keeps_no_format_or_has_no_end_earns_nothing(reward_model, hostile):
    for reward in (HelpfulReward(reward_model[0]), HarmlessReward(reward_model[0])):
        good, bad = reward.score_batch(samples(response("hm", "Hello."), hostile))
        assert 0 < good.score < 1 and bad.score == 0 and bad.reason


def test_in_a_reward_set(reward_model):
    spec = {
        "helpful": {"checkpoint": reward_model[0], "tasks": "tiny_chat"},
        "harmless": {"checkpoint": reward_model[0], "weight": 0.5},
    }
    with RewardSet(spec) as rewards:
        rewards.check(PROMPT, TALK)
        scores = rewards.score(samples(response("hm", "Hello."), "nothing"))
    by = scores.by_reward
    np.testing.assert_allclose(scores.total, by["helpful"] + 0.5 * by["harmless"])
    assert scores.total[0] > 0 and scores.total[1] == 0
    with pytest.raises(ValueError, match="needs the option checkpoint"):
        parse_rewards("helpful=1")
