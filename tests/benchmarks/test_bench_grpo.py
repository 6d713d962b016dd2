"""Tests this project's side of the comparison with TRL, on a tiny checkpoint."""

import jax
import numpy as np
import pytest

from benchmarks.bench_grpo import GROUP, NEW_TOKENS, PROMPTS, Watched, our_steps, questions
from benchmarks.space_reward import share_of_spaces
from models.config import ModelConfig
from models.decoder import LanguageModel
from models.hf.export import export_model
from models.tokens.tokenizer_training import train_bpe
from reasoning.prompts import CHAT_TEMPLATE


@pytest.mark.parametrize("text, share", [("", 0), ("a b c", 0.4), ("   ", 1)])
def test_the_reward_is_the_share_of_spaces(text, share):
    assert share_of_spaces("", text, None) == share


def test_steps_sample_and_count_tokens(tmp_path):
    tokenizer = train_bpe(questions(), 300, template=CHAT_TEMPLATE)
    config = ModelConfig(
        family="llama", vocab_size=300, embed_dim=16, num_layers=2, num_heads=2, num_kv_heads=1,
        head_dim=8, mlp_dim=32, tie_embeddings=True, max_length=512,
    )  # fmt: skip
    params = jax.jit(LanguageModel(config).init)(jax.random.key(0))
    export_model(tmp_path / "hf", config, params, tokenizer)
    counts = tmp_path / "counts"
    run = our_steps(str(tmp_path / "hf"), str(counts))
    run()
    run()
    drawn = [int(line) for line in counts.read_text().split()]
    assert len(drawn) == 2
    assert all(PROMPTS * GROUP <= each <= PROMPTS * GROUP * NEW_TOKENS for each in drawn)
    assert Watched(str(counts)).mean() == np.mean(drawn)
