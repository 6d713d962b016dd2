"""Tests attention over the KV cache against sums written out in NumPy, and its live blocks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.config import ModelConfig
from models.decoder import LanguageModel
from models.layers.kv_cache import KVCache, column_blocks, decode_attention, live_blocks

LAYERS, PROMPTS, KV, QUERIES, DIM = 2, 3, 2, 2, 8


def filled_cache(rng, group, prefix, columns, prefix_valid, suffix_valid, value_dim=DIM):
    heads, rows = (LAYERS, PROMPTS, KV), (LAYERS, PROMPTS, group, KV)

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    return KVCache(
        prefix_k=normal(*heads, DIM, prefix),
        prefix_v=normal(*heads, prefix, value_dim),
        suffix_k=normal(*rows, DIM, columns),
        suffix_v=normal(*rows, columns, value_dim),
        prefix_valid=prefix_valid,
        suffix_valid=suffix_valid,
    )


def written_out(q, cache, layer):
    """Softmax over the valid keys of one query head after the other, in float64."""
    out = np.zeros((*q.shape[:3], cache.prefix_v.shape[-1]))
    for p, g, n in np.ndindex(q.shape[:3]):
        k = n // (q.shape[2] // KV)
        prefix, suffix = cache.prefix_valid[p], cache.suffix_valid[p, g]
        keys = np.concatenate(
            [cache.prefix_k[layer, p, k].T[prefix], cache.suffix_k[layer, p, g, k].T[suffix]]
        ).astype(np.float64)
        values = np.concatenate(
            [cache.prefix_v[layer, p, k][prefix], cache.suffix_v[layer, p, g, k][suffix]]
        )
        scores = keys @ q[p, g, n] / np.sqrt(DIM)
        weights = np.exp(scores - scores.max())
        out[p, g, n] = weights @ values / weights.sum()
    return out


# One block; several; a last block that overlaps the one before it.
@pytest.mark.parametrize("columns", [5, 32, 64, 75])
@pytest.mark.parametrize("group", [1, 3])
# Also many query heads on a key head, and values of a dimension of their own, as latents have.
@pytest.mark.parametrize("queries, value_dim", [(QUERIES, DIM), (16, 6)])
def test_decode_attention_equals_the_sum_written_out(columns, group, queries, value_dim):
    rng = np.random.default_rng(columns)
    # Scores of some blocks dwarf those of others, so that the running peak has to move.
    prefix_valid = np.arange(6) < np.array([[6], [2], [1]])
    suffix_valid = rng.random((PROMPTS, group, columns)) < 0.6
    suffix_valid[1] = False
    cache = filled_cache(rng, group, 6, columns, prefix_valid, suffix_valid, value_dim)
    cache.suffix_k[..., columns // 2 :] *= 20
    q = rng.normal(size=(PROMPTS, group, KV * queries, DIM)).astype(np.float32)
    for layer in range(LAYERS):
        out = jax.jit(decode_attention)(q, cache, layer)
        np.testing.assert_allclose(out, written_out(q, cache, layer), atol=1e-4)


@pytest.mark.parametrize("oldest, newest", [(0, 0), (3, 40), (70, 76), (60, 134), (100, 120)])
def test_columns_outside_the_live_blocks_are_not_read(oldest, newest):
    columns = 75
    rng = np.random.default_rng(0)
    live = np.zeros(columns, bool)
    live[np.arange(oldest, newest + 1) % columns] = True
    suffix_valid = np.broadcast_to(live, (PROMPTS, 2, columns)).copy()
    cache = filled_cache(rng, 2, 4, columns, np.ones((PROMPTS, 4), bool), suffix_valid)
    expected = written_out(q := rng.normal(size=(PROMPTS, 2, 4, DIM)), cache, 1)
    first, count = live_blocks(columns, jnp.int32(oldest), jnp.int32(newest))
    size, blocks = column_blocks(columns)
    read = np.zeros(columns, bool)
    for number in (first + np.arange(count)) % blocks:
        read[number * size : (number + 1) * size] = True
    assert not (live & ~read).any() and count == len(np.unique(np.flatnonzero(live) // size))
    # If any other column were read, valid as they now are, it would show.
    cache.suffix_v[..., ~read, :] = 1e9
    cache.suffix_valid[..., ~read] = True
    out = decode_attention(q.astype(np.float32), cache, 1, (first, count))
    np.testing.assert_allclose(out, expected, atol=1e-5)


@pytest.mark.parametrize("unroll", [1, 3])
@pytest.mark.parametrize("tied", [False, True])
def test_weights_for_a_loop_give_the_logits_of_the_parameters(unroll, tied):
    model = LanguageModel(
        ModelConfig(
            family="qwen3", vocab_size=20, embed_dim=16, num_layers=3, num_heads=4, num_kv_heads=2,
            head_dim=8, mlp_dim=24, qk_norm=True, tie_embeddings=tied, scan_unroll=unroll,
        )
    )  # fmt: skip
    params = model.init(jax.random.key(0))
    tokens = jnp.arange(12).reshape(2, 6)
    positions = jnp.array([[0, 1, 2, 3, 4, 5], [3, 4, 5, 6, 7, 8]])

    @jax.jit
    def logits(params):
        hidden = model.hidden(params, tokens, positions, jnp.ones_like(tokens))
        return model.logits(params, hidden)

    laid_out = jax.jit(lambda params: logits(model.for_loop(params, 9)))(params)
    np.testing.assert_allclose(laid_out, logits(params), atol=1e-5)
