"""Tests attention over the KV cache against sums written out in NumPy, and its live blocks."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.config import ModelConfig
from models.decoder import LanguageModel
from models.layers.kv_cache import (
    CacheFactors,
    KVCache,
    column_blocks,
    decode_attention,
    live_blocks,
)

LAYERS, PROMPTS, KV, QUERIES, DIM = 2, 3, 2, 2, 8


def rounded(keys, axis):
    """Each vector as multiples of its largest number over 127: whole numbers, factors, products."""
    factors = np.abs(keys).max(axis, keepdims=True) / 127
    whole = np.round(keys / factors)
    return whole.astype(np.int8), factors.squeeze(axis), (whole * factors).astype(np.float32)


def in_int8(cache):
    """The cache with int8 keys and values, and an exact cache of the same rounded numbers."""
    fields = {"prefix_k": -2, "prefix_v": -1, "suffix_k": -2, "suffix_v": -1}
    parts = {name: rounded(getattr(cache, name), axis) for name, axis in fields.items()}
    whole, factors, products = ({name: part[i] for name, part in parts.items()} for i in range(3))
    small = dataclasses.replace(cache, factors=CacheFactors(**factors), **whole)
    return small, dataclasses.replace(cache, **products)


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
    small, exact = in_int8(cache)
    out = jax.jit(decode_attention)(q, small, 1)
    np.testing.assert_allclose(out, written_out(q, exact, 1), atol=1e-4)


@pytest.mark.parametrize("group", [1, 3])
def test_an_int8_cache_holds_what_is_written_to_it(group):
    """Prompts in two slots of three, one dropped; then two tokens in columns of their own."""
    config = ModelConfig(
        family="llama", vocab_size=20, embed_dim=16, num_layers=LAYERS, num_heads=4,
        num_kv_heads=KV, head_dim=DIM, mlp_dim=24, int8_cache=True,
    )  # fmt: skip
    cache = KVCache.zeros(config, PROMPTS, group, 6, 5)
    assert cache.prefix_k.dtype == cache.suffix_v.dtype == jnp.int8
    rng = np.random.default_rng(0)
    k, v = (rng.normal(size=(3, 6, KV, DIM)).astype(np.float32) for _ in range(2))
    cache = cache.with_prompts(1, jnp.array([2, 0, PROMPTS]), k, v)
    tokens = rng.normal(size=(2, 2, PROMPTS, group, KV, DIM)).astype(np.float32)
    for column, (new_k, new_v) in zip((3, 0), tokens):
        cache = cache.with_column(1, jnp.int32(column), new_k, new_v)
    factors = cache.factors
    for slot, row in ((2, 0), (0, 1)):
        found = cache.prefix_k[1, slot] * factors.prefix_k[1, slot][:, None]
        expected = rounded(k[row], -1)[2].transpose(1, 2, 0)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
        found = cache.prefix_v[1, slot] * factors.prefix_v[1, slot][..., None]
        expected = rounded(v[row], -1)[2].transpose(1, 0, 2)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    for column, (new_k, new_v) in zip((3, 0), tokens):
        found = cache.suffix_k[1, ..., column] * factors.suffix_k[1, ..., column, None]
        np.testing.assert_allclose(found, rounded(new_k, -1)[2], rtol=1e-5, atol=1e-6)
        found = cache.suffix_v[1, ..., column, :] * factors.suffix_v[1, ..., column, None]
        np.testing.assert_allclose(found, rounded(new_v, -1)[2], rtol=1e-5, atol=1e-6)
    # Nothing else was written.
    assert not cache.prefix_k[0].any() and not cache.prefix_k[1, 1].any()
    assert not cache.suffix_v[1, ..., [1, 2, 4], :].any()


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
