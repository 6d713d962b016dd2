"""The sampler of a server: its samples against a forward pass, and against themselves alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.config import ModelConfig
from models.decoder import LanguageModel
from models.decoding.sampling import SamplingParams
from models.decoding.slot_sampler import LENGTH, RUNNING, STOP, SlotSampler
from models.logprobs import token_logprobs

VOCAB, CHUNK, STOP_ID = 61, 8, 3


@pytest.fixture(scope="module")
def parts():
    config = ModelConfig(
        family="qwen3", vocab_size=VOCAB, embed_dim=32, num_layers=2, num_heads=4, num_kv_heads=2,
        head_dim=8, mlp_dim=48, qk_norm=True, tie_embeddings=True, max_length=128,
    )  # fmt: skip
    model = LanguageModel(config)
    return model, model.init(jax.random.key(0))


@pytest.fixture(scope="module")
def sampler(parts):
    visible = np.arange(VOCAB) % 2 == 0
    made = SlotSampler(
        *parts, slots=8, columns=96, stop_ids=[STOP_ID], visible=visible, chunk=CHUNK, most_steps=8
    )
    made.warm_up()
    return made


def fill(sampler, slot, prompt, **settings):
    for start in range(0, len(prompt) - 1, CHUNK):
        sampler.read(slot, prompt[start : min(start + CHUNK, len(prompt) - 1)], start)
    begin(sampler, slot, prompt, **settings)


def begin(sampler, slot, prompt, *, limit=20, seed=0, sampling=SamplingParams(), **settings):
    sampler.start(
        slot, token=prompt[-1], position=len(prompt) - 1, limit=limit, seed=seed,
        sampling=sampling, **settings,
    )  # fmt: skip


def finish(sampler, slot, steps=5):
    """(tokens, logprobs, why it ended) of one slot, run to its end."""
    tokens, logprobs, why = [], [], RUNNING
    while why == RUNNING:
        burst = sampler.advance(steps)
        n, why = burst.lengths[slot], burst.finish[slot]
        tokens += burst.tokens[slot, :n].tolist()
        logprobs += burst.logprobs[slot, :n].tolist()
    return tokens, logprobs, why


def prompts(count, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(4, VOCAB, rng.integers(1, 40)).tolist() for _ in range(count)]


def test_logprobs_and_greedy_tokens_are_those_of_a_forward_pass(parts, sampler):
    model, params = parts
    forward = jax.jit(
        lambda ids: model.hidden(params, ids, jnp.arange(ids.shape[1])[None], jnp.ones_like(ids))
    )
    score = jax.jit(
        lambda hidden, ids, temperature: token_logprobs(
            model, params, hidden, ids, temperature=temperature
        )
    )
    for prompt, temperature in zip(prompts(6), [0, 1.0, 0.7, 0, 1.0, 2.0]):
        sampling = SamplingParams(temperature=temperature)
        fill(sampler, 2, prompt, sampling=sampling, seed=5)
        tokens, logprobs, why = finish(sampler, 2)
        assert (why == STOP) == (tokens[-1] == STOP_ID) and (why == LENGTH) == (len(tokens) == 20)
        length = len(prompt) + len(tokens)
        # Causal, so the padding to one compiled length changes nothing before it.
        ids = jnp.array([[*prompt, *tokens] + [0] * (64 - length)])
        hidden = forward(ids)
        found = score(hidden, ids, temperature or 1.0)
        np.testing.assert_allclose(found[0, len(prompt) : length], logprobs, atol=2e-4)
        if temperature == 0:
            logits = model.logits(params, hidden)[0, len(prompt) - 1 : length - 1]
            np.testing.assert_array_equal(logits.argmax(-1), tokens)


def test_a_seeds_sample_depends_on_nothing_else_in_the_batch(sampler):
    """Alone, or among others that join and leave, in any slot, by bursts of any length: the same
    tokens and the same log-probs, bit for bit."""
    wanted = SamplingParams(temperature=0.9)
    prompt, others = prompts(1, seed=1)[0] + list(range(10, 20)), prompts(30, seed=2)
    fill(sampler, 0, prompt, sampling=wanted, seed=11)
    alone = finish(sampler, 0, steps=8)
    rng = np.random.default_rng(0)
    for slot in (1, 6, 7):
        for n, other in enumerate(others[:5]):
            fill(sampler, n if n < slot else n + 1, other, seed=n)
        sampler.advance(3)
        for other_slot in (1, 3):
            if other_slot != slot:
                fill(sampler, other_slot, others[9], seed=1,
                     sampling=SamplingParams(top_p=0.5, top_k=3), alternatives=True)  # fmt: skip
        fill(sampler, slot, prompt, sampling=wanted, seed=11)
        assert finish(sampler, slot, steps=int(rng.integers(1, 8))) == alone
        for each in range(8):
            sampler.stop(each)
    assert sampler.compilations <= 4


def test_filters_hold_and_seeds_differ(sampler):
    prompt = prompts(1, seed=3)[0]
    drawn = set()
    for seed in range(4):
        fill(sampler, 0, prompt, seed=seed, sampling=SamplingParams(top_k=1))
        drawn.add(tuple(finish(sampler, 0)[0]))
    fill(sampler, 0, prompt, sampling=SamplingParams(temperature=0))
    assert drawn == {tuple(finish(sampler, 0)[0])}
    drawn = set()
    for seed in range(4):
        fill(sampler, 0, prompt, seed=seed)
        drawn.add(tuple(finish(sampler, 0)[0]))
    assert len(drawn) == 4


def test_a_copied_prompt_gives_the_same_sample(sampler):
    prompt = list(range(4, 45))
    fill(sampler, 0, prompt, seed=7)
    expected = finish(sampler, 0)
    sampler.copy(0, 4)
    whole = (len(prompt) - 1) // CHUNK * CHUNK
    sampler.read(4, prompt[whole:-1], whole) if prompt[whole:-1] else None
    begin(sampler, 4, prompt, seed=7)
    assert finish(sampler, 4) == expected


def test_scores_of_a_prompt_are_those_of_a_forward_pass(parts, sampler):
    model, params = parts
    prompt = list(range(4, 25))
    found = []
    for start in range(0, len(prompt) - 1, CHUNK):
        end = min(start + CHUNK, len(prompt) - 1)
        scored = sampler.score(5, prompt[start:end], start, prompt[start + 1 : end + 1])
        found += scored.logprobs.tolist()
        assert (np.diff(scored.alternatives.logprobs) <= 0).all()
    ids = jnp.array([prompt])
    hidden = model.hidden(params, ids, jnp.arange(len(prompt))[None], jnp.ones_like(ids))
    expected = token_logprobs(model, params, hidden, ids)[0, 1:]
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_the_first_tokens_are_visible_where_asked(sampler):
    for seed in range(12):
        fill(sampler, 0, [5, 9], seed=seed, least=2, sampling=SamplingParams(temperature=3.0))
        tokens, _, _ = finish(sampler, 0)
        assert len(tokens) >= 2 and tokens[0] % 2 == 0 and tokens[1] % 2 == 0


def test_wrong_sizes_are_refused(parts, sampler):
    with pytest.raises(ValueError, match="do not fit into 96 columns"):
        begin(sampler, 0, [1] * 90, limit=8)
    with pytest.raises(ValueError, match="slots=0"):
        SlotSampler(*parts, slots=0, columns=64, stop_ids=[])
    with pytest.raises(ValueError, match="another tokenizer"):
        SlotSampler(*parts, slots=1, columns=64, stop_ids=[VOCAB])
