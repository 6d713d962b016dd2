"""Tests the sampler against the plain forward pass, and that its schedule changes nothing."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from models.config import ModelConfig
from models.decoder import LanguageModel
from models.decoding import sampler as sampler_module
from models.decoding.sampler import Sampler, draw
from models.decoding.samples import FINISH_REASONS, Samples, SamplingStopped
from models.decoding.sampling import SamplingParams
from models.sharding import make_mesh
from models.tokens.stopping import TokenAutomaton

VOCAB, EOS = 48, 0
CONFIG = ModelConfig(
    family="qwen3", vocab_size=VOCAB, embed_dim=32, num_layers=2, num_heads=4, num_kv_heads=2,
    head_dim=8, mlp_dim=48, qk_norm=True, tie_embeddings=True, max_length=64,
)  # fmt: skip
PROMPTS = [[5, 6, 7], [9], [11, 3, 2, 40, 17, 8], [4, 4], [30, 31, 32, 33], [12, 13]]
MAX_NEW = 12


@pytest.fixture(scope="module")
def model():
    return LanguageModel(CONFIG)


@pytest.fixture(scope="module")
def params(model):
    # Sharper than at initialisation, so that greedy choices are no near ties.
    return jax.tree.map(lambda x: x * 2.0, model.init(jax.random.key(0)))


@pytest.fixture(scope="module")
def forward(model, params):
    """Log-probabilities `[tokens, V]` of one unpadded sequence."""

    @jax.jit
    def log_softmax(tokens):
        positions = jnp.arange(tokens.shape[1])[None]
        hidden = model.hidden(params, tokens, positions, jnp.ones_like(tokens))
        return jax.nn.log_softmax(model.logits(params, hidden))[0]

    def run(ids):
        # Causal, so what is appended to reach one compiled length changes nothing before it.
        padded = list(ids) + [1] * (24 - len(ids))
        return np.asarray(log_softmax(jnp.array([padded])))[: len(ids)]

    return run


@pytest.fixture(scope="module")
def sampler(model):
    return Sampler(model, slots=2, group=3, max_new_tokens=MAX_NEW, stop_ids=[EOS], admit=1)


@pytest.fixture(scope="module")
def samples(sampler, params):
    return sampler(params, PROMPTS, jax.random.key(1))


def test_greedy_is_the_argmax_of_the_full_forward_pass(sampler, params, forward):
    out = sampler(params, PROMPTS, jax.random.key(1), SamplingParams(temperature=0.0))
    for i, prompt in enumerate(PROMPTS):
        ids = list(prompt)
        while len(ids) < len(prompt) + MAX_NEW:
            ids.append(int(forward(ids)[-1].argmax()))
            if ids[-1] == EOS:
                break
        assert out.ids(i, 0) == out.ids(i, 2) == ids[len(prompt) :]


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_logprobs_equal_those_of_a_fresh_forward_pass(model, params, sampler, forward, temperature):
    out = sampler(params, PROMPTS, jax.random.key(2), SamplingParams(temperature=temperature))
    for i, prompt in enumerate(PROMPTS):
        for g in range(3):
            ids = out.ids(i, g)
            scaled = jax.nn.log_softmax(forward([*prompt, *ids]) / temperature)
            at = np.arange(len(ids)) + len(prompt) - 1
            np.testing.assert_allclose(
                out.logprobs[i, g, : len(ids)], np.asarray(scaled)[at, ids], atol=1e-4
            )


def test_samples_do_not_depend_on_slots_groups_or_refilling(model, params, samples):
    """One prompt in flight at a time, all at once, and each sample as a prompt of its own."""
    for slots in (1, 6):
        sampler = Sampler(model, slots=slots, group=3, max_new_tokens=MAX_NEW, stop_ids=[EOS])
        other = sampler(params, PROMPTS, jax.random.key(1))
        np.testing.assert_array_equal(other.tokens, samples.tokens)
        # Sums of float32 in another order: 1.1e-5 has been seen.
        np.testing.assert_allclose(other.logprobs, samples.logprobs, atol=3e-5)
    # Sample g of prompt i is stream i * 3 + g: unshared prompts, repeated three times.
    unshared = Sampler(model, slots=4, group=1, max_new_tokens=MAX_NEW, stop_ids=[EOS])
    other = unshared(params, [p for p in PROMPTS for _ in range(3)], jax.random.key(1))
    np.testing.assert_array_equal(other.tokens.reshape(samples.tokens.shape), samples.tokens)


def test_samples_of_a_prompt_differ_and_keys_matter(sampler, params, samples):
    assert len({tuple(samples.ids(0, g)) for g in range(3)}) > 1
    other = sampler(params, PROMPTS, jax.random.key(99))
    assert (other.tokens != samples.tokens).any()


def test_first_token_frequencies_match_the_softmax(model, params, forward):
    n = 4000
    sampler = Sampler(model, slots=500, group=8, max_new_tokens=1, stop_ids=[EOS])
    out = sampler(params, [PROMPTS[0]] * (n // 8), jax.random.key(3))
    expected = np.exp(forward(PROMPTS[0])[-1].astype(np.float64)) * n
    counts = np.bincount(out.tokens[:, :, 0].ravel(), minlength=VOCAB)
    rare = expected < 5
    counts = np.append(counts[~rare], counts[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    assert stats.chisquare(counts, expected * counts.sum() / expected.sum()).pvalue > 1e-3


@pytest.mark.parametrize(
    "params_",
    [dict(top_k=3), dict(top_p=0.7), dict(min_p=0.2), dict(top_k=5, top_p=0.9, min_p=0.05)],
)  # fmt: skip
@pytest.mark.parametrize("vocab", [7, 48, 1000])
def test_filters_keep_what_their_definitions_say_in_the_right_proportions(params_, vocab):
    sampling = SamplingParams(temperature=0.8, **params_)
    rng = np.random.default_rng(vocab)
    row = rng.normal(size=vocab).astype(np.float32) * 2
    p = np.exp(row / 0.8 - (row / 0.8).max()).astype(np.float64)
    p /= p.sum()
    order = np.argsort(-p)
    keep = np.zeros(vocab, bool)
    k = sampling.top_k or vocab
    for rank, token in enumerate(order):
        if rank < k and p[order[:rank]].sum() < sampling.top_p:
            keep[token] = p[token] >= sampling.min_p * p.max()
    expected = np.where(keep, p, 0) / p[keep].sum()
    n = 4000
    # Evenly spread draws instead of random ones: frequencies are then exact to 1 / n.
    uniform = (np.arange(n, dtype=np.float32) + 0.5) / n
    knobs = {name: jnp.asarray(getattr(sampling, name)) for name in
             ("temperature", "top_k", "top_p", "min_p")}  # fmt: skip
    token, logprob = draw(jnp.tile(row, (n, 1)), jnp.asarray(uniform), knobs, filtered=True)
    counts = np.bincount(np.asarray(token), minlength=vocab) / n
    np.testing.assert_allclose(counts, expected, atol=2.0 / n + 1e-5)
    np.testing.assert_allclose(logprob, np.log(p)[np.asarray(token)], atol=1e-4)


def test_draw_never_takes_a_token_without_mass():
    logits = np.full((64, 300), -np.inf, np.float32)
    logits[:, [0, 150, 299]] = 0.0
    uniform = np.append(np.linspace(0, 1, 63, endpoint=False), 1 - 2**-24).astype(np.float32)
    knobs = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
    knobs = {name: jnp.asarray(value) for name, value in knobs.items()}
    token, _ = draw(jnp.asarray(logits), jnp.asarray(uniform), knobs, filtered=False)
    assert set(np.asarray(token).tolist()) == {0, 150, 299}


def test_stop_tokens_are_kept_and_end_a_sample(model, params):
    stops = list(range(0, VOCAB, 4))
    sampler = Sampler(model, slots=3, group=4, max_new_tokens=MAX_NEW, stop_ids=stops)
    out = sampler(params, PROMPTS, jax.random.key(5))
    reasons = set()
    for i in range(len(PROMPTS)):
        for g in range(4):
            ids, reason = out.ids(i, g), FINISH_REASONS[out.finish[i, g]]
            reasons.add(reason)
            assert not set(ids[:-1]) & set(stops)
            assert (ids[-1] in stops) == (reason == "stop")
            assert reason == "stop" or len(ids) == MAX_NEW
    assert reasons == {"stop", "length"}


def test_limits_hold_for_each_prompt(sampler, params):
    limits = [1, 2, 3, 12, 5, 6]
    out = sampler(params, PROMPTS, jax.random.key(6), limits=limits)
    assert (out.lengths <= np.array(limits)[:, None]).all()
    ended = out.finish == FINISH_REASONS.index("length")
    assert (out.lengths[ended] == np.broadcast_to(np.array(limits)[:, None], (6, 3))[ended]).all()


def test_stop_strings_match_text_across_token_borders(model, params):
    token_bytes = [b""] + [bytes([97 + i % 3]) * (1 + i % 2) for i in range(VOCAB - 1)]
    strings = ["abc", "cca", "bb"]
    sampler = Sampler(
        model, slots=2, group=8, max_new_tokens=MAX_NEW, stop_ids=[EOS],
        stop_strings=TokenAutomaton.build(strings, token_bytes),
    )  # fmt: skip
    out = sampler(params, PROMPTS, jax.random.key(7))
    stopped = 0
    for i in range(len(PROMPTS)):
        for g in range(8):
            ids = out.ids(i, g)
            texts = ["".join(token_bytes[t].decode() for t in ids[:n]) for n in range(len(ids) + 1)]
            assert not any(s in text for s in strings for text in texts[:-1])
            matched = any(s in texts[-1] for s in strings)
            assert matched == (FINISH_REASONS[out.finish[i, g]] == "stop_string")
            stopped += matched
    assert stopped > 5


def test_automaton_equals_searching_the_text():
    rng = np.random.default_rng(0)
    token_bytes = [bytes(rng.integers(97, 100, rng.integers(0, 4)).tolist()) for _ in range(40)]
    strings = ["abca", "ab", "cc", "bacb"]
    table = TokenAutomaton.build(strings, token_bytes).transitions
    for _ in range(200):
        state, text = 0, b""
        for token in rng.integers(0, 40, 8):
            state, text = table[state, token], text + token_bytes[token]
            assert (state == len(table) - 1) == any(s.encode() in text for s in strings)


def test_no_recompilation_within_a_bucket_or_when_knobs_change(model, params):
    sampler = Sampler(model, slots=2, group=2, max_new_tokens=4, stop_ids=[EOS])
    cases = (([[1, 2]] * 3, 1.0), ([[3] * 16, [4]] * 2, 0.3), ([[7] * 9] * 4, 0.0))
    for prompts, temperature in cases:
        sampler(params, prompts, jax.random.key(0), SamplingParams(temperature=temperature))
    assert sampler.compilations == 1


def test_refilled_slots_do_less_work_than_waiting_for_the_longest(model, params, samples):
    """Two slots for six prompts: fewer steps than three full rounds of the limit."""
    limits = [12, 2, 2, 2, 2, 2]
    sampler = Sampler(model, slots=2, group=3, max_new_tokens=MAX_NEW, stop_ids=[], admit=1)
    out = sampler(params, PROMPTS, jax.random.key(1), limits=limits)
    # One slot holds the long prompt, the other the five short ones: 12 steps, not 12 + 2 + 2.
    assert out.steps == 12


def test_samples_do_not_depend_on_the_slots_nor_on_what_ran_before(model, params, samples):
    sampler = Sampler(model, slots=4, group=3, max_new_tokens=MAX_NEW, stop_ids=[EOS])
    for _ in range(2):
        out = sampler(params, PROMPTS, jax.random.key(1))
        for name in ("tokens", "lengths", "finish"):
            np.testing.assert_array_equal(getattr(out, name), getattr(samples, name))
        np.testing.assert_allclose(out.logprobs, samples.logprobs, atol=3e-5)
    assert sampler.compilations == 1
    few = sampler(params, PROMPTS[:1], jax.random.key(1))
    np.testing.assert_array_equal(few.tokens, samples.tokens[:1])


@pytest.mark.parametrize("over_mesh", [False, True])
def test_a_stopped_sampler_goes_on_with_the_same_samples(model, params, monkeypatch, over_mesh):
    """Stopped again and again, it draws no finished sample twice, and all tokens are the same."""
    monkeypatch.setattr(sampler_module, "STRETCH", 4)
    stops = range(0, VOCAB, 6)  # So many that the samples of a prompt end at different times.
    stopped = Sampler(model, slots=2, group=3, max_new_tokens=MAX_NEW, stop_ids=stops, admit=1)
    kept, finished, halves = None, [0], 0
    mesh = make_mesh({"data": 1}, jax.devices()[:1]) if over_mesh else None
    with jax.set_mesh(mesh) if mesh is not None else contextlib.nullcontext():
        samples = stopped(params, PROMPTS, jax.random.key(1))
        for stretches in range(1, 30):
            answers = iter([None] * (stretches - 1) + ["SIGTERM"])
            try:
                out = stopped(
                    params, PROMPTS, jax.random.key(1), kept=kept, stop=lambda: next(answers)
                )
                break
            except SamplingStopped as error:
                assert str(error) == "SIGTERM" and error.samples.steps == 4 * stretches
                kept = Samples.from_bytes(error.samples.to_bytes())
                finished.append(int(kept.finished.sum()))
                halves += int((kept.finished.any(-1) & ~kept.finished.all(-1)).sum())
    assert len(finished) > 2 and finished == sorted(finished) and finished[-1] < kept.finished.size
    assert halves, "no prompt was half done"
    for name in ("tokens", "lengths", "finish"):
        np.testing.assert_array_equal(getattr(out, name), getattr(samples, name), name)
    # Samples drawn again may be in other columns of the cache, which adds up in another order.
    np.testing.assert_allclose(out.logprobs, samples.logprobs, atol=3e-5)
    np.testing.assert_array_equal(out.logprobs[kept.finished], kept.logprobs[kept.finished])
    assert out.steps < samples.steps, "the last call drew finished samples again"
    assert stopped.compilations == 1


def test_each_prompt_has_its_own_limit(model, params):
    sampler = Sampler(model, slots=4, group=2, max_new_tokens=MAX_NEW, stop_ids=[])
    limits = [3, 1, 7, 12, 2, 5]
    out = sampler(params, PROMPTS, jax.random.key(0), limits=limits)
    np.testing.assert_array_equal(out.lengths, np.repeat(limits, 2).reshape(6, 2))


@pytest.mark.parametrize(
    "prompts, limits, message",
    [
        ([], None, "no prompts"),
        ([[1], []], None, "prompt 1 is empty"),
        ([[1, VOCAB]], None, "outside the model's vocabulary"),
        ([[1]], [13], "limit 13 of prompt 0"),
        ([[1] * 60], None, "exceeds the model's context of 64"),
    ],
)
def test_bad_input_is_named(sampler, params, prompts, limits, message):
    with pytest.raises(ValueError, match=message):
        sampler(params, prompts, jax.random.key(0), limits=limits)


def test_bad_settings_are_named(model):
    with pytest.raises(ValueError, match="temperature=-1"):
        SamplingParams(temperature=-1)
    with pytest.raises(ValueError, match="top_p=0"):
        SamplingParams(top_p=0)
    with pytest.raises(ValueError, match="stop id 99"):
        Sampler(model, slots=1, group=1, max_new_tokens=1, stop_ids=[99])
    with pytest.raises(ValueError, match="non-empty"):
        TokenAutomaton.build([""], [b"a"])
