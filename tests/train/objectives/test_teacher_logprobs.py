"""A teacher's stored log-probs: those of each sequence by itself, and unchanged by the disk."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.config import ModelConfig
from models.decoder import LanguageModel
from models.sharding import make_mesh
from train.objectives import teacher_logprobs

MODEL = LanguageModel(
    ModelConfig(
        family="llama",
        vocab_size=14,
        embed_dim=8,
        num_layers=1,
        num_heads=2,
        num_kv_heads=1,
        head_dim=4,
        mlp_dim=12,
    )  # fmt: skip
)
RNG = np.random.default_rng(0)
PARAMS = jax.tree.map(
    lambda x: RNG.normal(0, 0.6, x.shape).astype(np.float32), MODEL.abstract_params
)
EXAMPLES = [
    {"tokens": RNG.integers(0, 14, n), "loss_weights": (np.arange(n) >= 2).astype(np.float32)}
    for n in (7, 4, 9, 3, 6, 5, 8)
]


def computed(**arguments):
    arguments = dict(mesh=make_mesh({"data": -1}), rows=2, row_length=10) | arguments
    return teacher_logprobs.compute(MODEL, PARAMS, EXAMPLES, 3, **arguments)


@jax.jit
def plain_logits(params, tokens):
    """Logits `[T, V]` of one sequence by the plain forward pass."""
    positions = jnp.arange(len(tokens))[None]
    hidden = MODEL.hidden(params, tokens[None], positions, jnp.ones_like(positions))
    return MODEL.logits(params, hidden)[0]


def test_they_are_those_of_each_sequence_by_itself():
    """By a forward pass over one sequence, and a sort."""
    for example, before in zip(computed(temperature=0.5, vocab=11), EXAMPLES, strict=True):
        np.testing.assert_array_equal(example["tokens"], before["tokens"])
        # Causal, so what is appended to reach one compiled length changes nothing before it.
        length = len(before["tokens"])
        padded = np.pad(before["tokens"], (0, 10 - length))
        logits = np.float64(plain_logits(PARAMS, padded)[:length, :11]) / 0.5
        expected = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        assert example["teacher_ids"].shape == (len(before["tokens"]), 3)
        for t in range(len(before["tokens"])):
            if not before["loss_weights"][t]:
                assert not example["teacher_ids"][t].any()
                assert not example["teacher_logprobs"][t].any()
                continue
            order = np.argsort(-expected[t - 1])[:3]
            np.testing.assert_array_equal(example["teacher_ids"][t], order)
            np.testing.assert_allclose(
                example["teacher_logprobs"][t], expected[t - 1][order], atol=1e-5
            )


def test_saved_and_loaded_they_are_the_same(tmp_path):
    examples = computed()
    teacher_logprobs.save(tmp_path / "top.npz", examples)
    assert [path.name for path in tmp_path.iterdir()] == ["top.npz"]
    loaded = teacher_logprobs.load(tmp_path / "top.npz", EXAMPLES)
    for one, other in zip(loaded, examples, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
    with pytest.raises(
        ValueError, match="top.npz holds 28 tokens but the data 23: it belongs to other"
    ):
        teacher_logprobs.load(tmp_path / "top.npz", EXAMPLES[1:])


def test_a_sequence_longer_than_a_row():
    with pytest.raises(ValueError, match="sequence 2 has 9 tokens, longer than row length 8"):
        computed(row_length=8)
