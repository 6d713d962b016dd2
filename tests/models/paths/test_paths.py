"""Tests that forked and extended paths give the results of a full forward pass."""

import dataclasses
import functools
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from models.config import Experts, LatentAttention, ModelConfig, YarnScaling
from models.decoder import LanguageModel
from models.decoding.sampling import SamplingParams
from models.paths.path_sampler import DELIMITER, LENGTH, ROOT, STEP_LENGTH, STOP, PathSampler
from models.tokens.stopping import TokenAutomaton

VOCAB, EOS = 48, 0
CONFIG = ModelConfig(
    family="qwen3", vocab_size=VOCAB, embed_dim=32, num_layers=2, num_heads=4, num_kv_heads=2,
    head_dim=8, mlp_dim=48, qk_norm=True, tie_embeddings=True, max_length=256,
)  # fmt: skip
DEEPSEEK = CONFIG.replace(
    family="deepseek_v3", qk_norm=False, tie_embeddings=False, num_kv_heads=4,
    head_dim=12, rope_scaling=YarnScaling(4.0, 16, mscale=1.0, mscale_all_dim=1.0),
    latent=LatentAttention(kv_rank=8, q_rank=16, nope_dim=8, rope_dim=4, value_dim=10),
    experts=Experts(
        num_experts=8, per_token=2, mlp_dim=16, groups=4, groups_per_token=2, first_layer=1
    ),
)  # fmt: skip
VARIANTS = {
    "deepseek": DEEPSEEK,
    "gqa": CONFIG,
    "qwen2": CONFIG.replace(family="qwen2", qk_norm=False, qkv_bias=True, num_kv_heads=1),
    "llama": CONFIG.replace(
        family="llama", qk_norm=False, num_kv_heads=4, tie_embeddings=False, scan_unroll=2
    ),
}
PROMPTS = [[5, 6, 7], [9], [11, 3, 2, 40, 17, 8]]
SHAPE = dict(prompts=4, capacity=5, width=3, max_new_tokens=12, step_tokens=4)


def make_params(config):
    params = LanguageModel(config).init(jax.random.key(0))
    # Sharper than at initialisation, and biases that are not zero. Of sharp latents, a rounding
    # error makes 1e-3.
    sharper = 2.0 if config.latent is None else 1.2
    return jax.tree.map(lambda x: x * sharper + 0.1 * (x == 0), params)


def make_sampler(config=CONFIG, stop_ids=(), delimiter=None, **changes):
    shape = SHAPE | changes
    return PathSampler(LanguageModel(config), stop_ids=stop_ids, delimiter=delimiter, **shape)


@pytest.fixture(scope="module")
def params():
    return make_params(CONFIG)


@pytest.fixture(scope="module")
def sampler():
    return make_sampler()


@functools.cache
def compiled_forward(config):
    model = LanguageModel(config)

    @jax.jit
    def log_softmax(params, tokens, temperature):
        positions = jnp.arange(tokens.shape[1])[None]
        hidden = model.hidden(params, tokens, positions, jnp.ones_like(tokens))
        return jax.nn.log_softmax(model.logits(params, hidden) / temperature)[0]

    return log_softmax


def make_forward(config, params, temperature=1.0, width=128):
    """Log-probabilities `[tokens, V]` of one sequence by the plain forward pass."""
    log_softmax = compiled_forward(config)

    # Causal, so what is appended to reach one compiled length changes nothing before it.
    def forward(ids):
        tokens = jnp.array([[*ids] + [1] * (width - len(ids))])
        return np.asarray(log_softmax(params, tokens, temperature))

    return forward


@dataclasses.dataclass
class Held:
    """What a place should hold; `since` is where the step begins that awaits its delimiter."""

    ids: list
    logprobs: list
    since: int = 0


class Search:
    """Extends random open paths into random places, and keeps on the host what each should be."""

    def __init__(self, sampler, params, prompts=PROMPTS, seed=0, deepest=False):
        self.deepest = deepest  # Extends the two longest open paths alone.
        self.sampler, self.params, self.prompts = sampler, params, prompts
        self.rng = np.random.default_rng(seed)
        self.state = sampler.start(params, prompts)
        self.held = [{ROOT: Held([], [])} for _ in prompts]
        self.open = [{ROOT} for _ in prompts]

    def step(self, number, idle=0.2, sampling=SamplingParams(), donate=False):
        """One extension: a list of (parent, longer path, finish), as `Held` and number."""
        P, M, R = self.sampler.prompts, self.sampler.width, self.sampler.capacity
        parents, into = np.full((P, M), ROOT), np.full((P, M), -1)
        for p, places in enumerate(self.open):
            ranked = sorted(places, key=lambda place: -len(self.held[p][place].ids))
            parents[p] = self.rng.choice(ranked[:2] if self.deepest else ranked, M)
            into[p] = self.rng.permutation(max(R, M))[:M]
            into[p] = np.where((self.rng.random(M) < idle) | (into[p] >= R), -1, into[p])
        key = jax.random.key(number)
        self.state, steps = self.sampler.extend(
            self.params, self.state, parents, into, key, sampling, donate=donate
        )
        assert not steps.lengths[into < 0].any() and not steps.finish[into < 0].any()
        before, grown = [dict(held) for held in self.held], []
        for p, row in zip(*np.nonzero(into >= 0)):
            parent, place = before[p][parents[p, row]], into[p, row]
            count, finish = steps.lengths[p, row], steps.finish[p, row]
            ids = parent.ids + steps.tokens[p, row, :count].tolist()
            logprobs = parent.logprobs + steps.logprobs[p, row, :count].tolist()
            since = len(ids) if finish == DELIMITER else parent.since
            self.held[p][place] = Held(ids, logprobs, since)
            (self.open[p].discard if finish in (STOP, LENGTH) else self.open[p].add)(place)
            grown.append((parent, self.held[p][place], finish))
        return grown

    def paths(self):
        return [
            (self.prompts[p], path.ids, path.logprobs)
            for p, held in enumerate(self.held)
            for path in held.values()
        ]


def check_logprobs(search, forward, atol):
    longest = 0
    for prompt, ids, logprobs in search.paths():
        at = np.arange(len(ids)) + len(prompt) - 1
        np.testing.assert_allclose(forward([*prompt, *ids])[at, ids], logprobs, atol=atol)
        longest = max(longest, len(ids))
    return longest


@pytest.mark.parametrize(
    "variant, capacity", [*((name, 5) for name in VARIANTS), ("gqa", 3), ("deepseek", 2)]
)
def test_logprobs_of_forked_paths_equal_those_of_a_fresh_forward_pass(variant, capacity):
    """Paths forked, forked again, overwritten and permuted, most of them in used places; in more
    places than rows, as many, and fewer."""
    config = VARIANTS[variant]
    params = make_params(config)
    sampler = make_sampler(config, stop_ids=[EOS], capacity=capacity)
    search = Search(sampler, params)
    forward, longest = make_forward(config, params), 0
    for number in range(10):
        if number == 5:
            search.params = sampler.prepare(params)
        search.step(number, donate=bool(number % 3))
        longest = max(longest, check_logprobs(search, forward, 1e-4))
    assert longest == SHAPE["max_new_tokens"]


@pytest.mark.parametrize("capacity", [5, 2])
def test_long_paths_are_read_whole(params, capacity):
    """More columns than one block of attention has, and steps that cross from one to the next."""
    sampler = make_sampler(
        max_new_tokens=100, step_tokens=13, prompts=1, width=2, capacity=capacity
    )
    search = Search(sampler, params, PROMPTS[:1], deepest=True)
    forward, longest = make_forward(CONFIG, params), 0
    for number in range(12):
        search.step(number, idle=0)
        longest = max(longest, check_logprobs(search, forward, 1e-4))
    assert longest == 100


def test_holes_between_ragged_steps_are_closed(params):
    """Steps of one to eight tokens, side by side in rows that are kept, many times over."""
    ends = np.arange(VOCAB) % 3 == 0
    delimiter = TokenAutomaton(np.stack([ends, ends]).astype(np.int16))
    sampler = make_sampler(
        delimiter=delimiter, capacity=3, max_new_tokens=90, step_tokens=8, prompts=3
    )
    search, closed = Search(sampler, params), 0
    for number in range(40):
        before = search.state.pool.places.end
        search.step(number, sampling=SamplingParams(temperature=2.0), donate=True)
        pool = search.state.pool.places
        closed += pool.end < before
        assert pool.valid.sum(-1).max() <= pool.end <= pool.valid.sum(-1).max() + 32
        if number % 13 == 12:
            check_logprobs(search, make_forward(CONFIG, params, 2.0), 1e-4)
    assert closed


def test_temperature_scales_logprobs_and_zero_is_the_argmax(sampler, params):
    search = Search(sampler, params)
    for number in range(4):
        search.step(number, sampling=SamplingParams(temperature=0.6))
    check_logprobs(search, make_forward(CONFIG, params, 0.6), 1e-4)
    forward, greedy = make_forward(CONFIG, params), Search(sampler, params)
    for number in range(4):
        greedy.step(number, sampling=SamplingParams(temperature=0.0))
    for prompt, ids, _ in greedy.paths():
        best = forward([*prompt, *ids]).argmax(-1)
        assert ids == best[len(prompt) - 1 :][: len(ids)].tolist()


def test_first_token_frequencies_match_the_softmax(params):
    """Of forks of one path, after a step: 4,000 continuations, a chi-square test."""
    sampler = make_sampler(prompts=1, capacity=1000, width=1000, max_new_tokens=3, step_tokens=2)
    state = sampler.start(params, PROMPTS[:1])
    alone = np.where(np.arange(1000) == 0, 0, -1)[None]
    state, first = sampler.extend(params, state, np.full((1, 1000), ROOT), alone, jax.random.key(0))
    drawn = [
        sampler.extend(
            params, state, np.zeros((1, 1000)), np.arange(1000)[None], jax.random.key(seed)
        )[1].tokens[0, :, 0]
        for seed in range(1, 5)
    ]
    path = [*PROMPTS[0], *first.tokens[0, 0]]
    expected = np.exp(make_forward(CONFIG, params)(path)[len(path) - 1].astype(np.float64)) * 4000
    counts = np.bincount(np.concatenate(drawn), minlength=VOCAB)
    rare = expected < 5
    counts = np.append(counts[~rare], counts[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    assert stats.chisquare(counts, expected * counts.sum() / expected.sum()).pvalue > 1e-3


def test_all_continuations_by_total_logprob_are_exhaustive_search():
    """So many forks of every path that all next tokens are drawn: the search is brute force."""
    vocab, depth, rows = 4, 3, 768
    config, sampling = CONFIG.replace(vocab_size=vocab), SamplingParams(temperature=10.0)
    params = make_params(config)
    sampler = make_sampler(
        config, prompts=1, capacity=rows, width=rows, max_new_tokens=depth, step_tokens=1
    )
    state, beam = sampler.start(params, [[1, 2]]), {(): (ROOT, 0.0)}
    for level in range(depth):
        owners = [(ids, *beam[ids]) for ids in beam] * (rows // len(beam))
        parents = np.array([[place for _, place, _ in owners]])
        key = jax.random.key(level)
        state, steps = sampler.extend(params, state, parents, np.arange(rows)[None], key, sampling)
        beam = {}
        for row, (ids, _, total) in enumerate(owners):
            token, logprob = int(steps.tokens[0, row, 0]), float(steps.logprobs[0, row, 0])
            beam[*ids, token] = (row, total + logprob)
    forward = make_forward(config, params, sampling.temperature)
    brute_force = {}
    for ids in itertools.product(range(vocab), repeat=depth):
        brute_force[ids] = forward([1, 2, *ids])[np.arange(1, 1 + depth), ids].sum()
    assert beam.keys() == brute_force.keys()
    for ids, total in brute_force.items():
        np.testing.assert_allclose(beam[ids][1], total, atol=1e-4)
    best = sorted(brute_force, key=brute_force.get)[-8:]
    assert sorted(beam, key=lambda ids: beam[ids][1])[-8:] == best


def test_forks_siblings_and_old_states_do_not_touch_each_other(sampler, params):
    """A state that rollouts started from goes on as if there had been none."""
    state = sampler.start(params, PROMPTS[:1])
    row = np.full((4, 3), -1)
    into, roots = row.copy(), np.full((4, 3), ROOT)
    into[0] = [0, 1, 2]
    state, first = sampler.extend(params, state, roots, into, jax.random.key(1))

    def go_on(state):
        """Extends places 0, 1 and 2 in place, twice."""
        parents, ids = np.maximum(into, 0), []
        for number in (5, 6):
            state, steps = sampler.extend(params, state, parents, into, jax.random.key(number))
            ids.append(steps)
        return ids

    alone = go_on(state)
    # A rollout from the same state overwrites all places with continuations of place 2.
    rollout, _ = sampler.extend(params, state, np.full((4, 3), 2), into, jax.random.key(2))
    rollout, _ = sampler.extend(params, rollout, np.full((4, 3), 1), into, jax.random.key(3))
    # A fork of place 0 into 3 and 4 leaves it and its siblings alone.
    fork = row.copy()
    fork[0, :2] = [3, 4]
    forked, _ = sampler.extend(params, state, np.full((4, 3), 0), fork, jax.random.key(4))
    for other in (go_on(state), go_on(forked)):
        for expected, steps in zip(alone, other):
            np.testing.assert_array_equal(steps.tokens, expected.tokens)
            np.testing.assert_array_equal(steps.logprobs, expected.logprobs)
    assert first.tokens[0].any()


def test_places_are_read_before_any_is_written(sampler, params):
    """Swapping two paths' places while both grow."""
    state = sampler.start(params, PROMPTS[:1])
    into, roots = np.full((4, 3), -1), np.full((4, 3), ROOT)
    into[0, :2] = [0, 1]
    state, first = sampler.extend(params, state, roots, into, jax.random.key(1))
    assert (first.tokens[0, 0] != first.tokens[0, 1]).any()
    swapped = np.full((4, 3), 0)
    swapped[0, :2] = [1, 0]
    _, steps = sampler.extend(params, state, swapped, into, jax.random.key(2))
    forward = make_forward(CONFIG, params)
    for row in (0, 1):
        ids = [*PROMPTS[0], *first.tokens[0, 1 - row], *steps.tokens[0, row]]
        at = np.arange(len(ids) - 5, len(ids) - 1)
        np.testing.assert_allclose(forward(ids)[at, ids[-4:]], steps.logprobs[0, row], atol=1e-4)


def test_draws_depend_on_key_row_and_token_number_alone(sampler, params):
    """Not on other prompts, rows without work, places, or how a path was cut into steps."""
    other, key = make_sampler(step_tokens=8, prompts=3, capacity=9), jax.random.key(7)
    roots, everywhere = np.full((3, 3), ROOT), np.tile([8, 2, 5], (3, 1))
    _, whole = other.extend(params, other.start(params, PROMPTS), roots, everywhere, key)
    assert len({tuple(each) for each in whole.tokens.reshape(9, -1)}) == 9
    into = np.full((4, 3), -1)
    into[0, 2], into[1, 0] = 4, 3
    state, tokens = sampler.start(params, PROMPTS[:2]), []
    for parents in (np.full((4, 3), ROOT), np.maximum(into, 0)):
        state, steps = sampler.extend(params, state, parents, into, key)
        tokens.append(steps.tokens)
    for row in ((0, 2), (1, 0)):
        np.testing.assert_array_equal(np.concatenate(tokens, -1)[row], whole.tokens[row])


def test_steps_end_at_delimiters_stop_tokens_and_limits(params):
    token_bytes = [b"<eos>"] + [b"xyz"[i % 3 : i % 3 + 1] * (1 + i % 2) for i in range(VOCAB - 1)]
    stops, delimiter = {EOS, 20, 21}, "xy"
    sampler = make_sampler(
        stop_ids=sorted(stops), delimiter=TokenAutomaton.build([delimiter], token_bytes),
        max_new_tokens=11, step_tokens=4, width=5,
    )  # fmt: skip
    search, reasons = Search(sampler, params), set()

    def reason(ids, since, count):
        """Why a step ends after its `count` tokens, the last of `ids`; None if it should not."""
        if ids[-1] in stops:
            return STOP
        if len(ids) == 11:
            return LENGTH
        # A delimiter may have begun in the step before, if that one was cut.
        if delimiter in b"".join(token_bytes[i] for i in ids[since:]).decode():
            return DELIMITER
        return STEP_LENGTH if count == 4 else None

    for number in range(14):
        sampling = SamplingParams(temperature=2.0)
        for before, after, finish in search.step(number, 0.0, sampling):
            new = len(after.ids) - len(before.ids)
            ends = [
                reason(after.ids[: len(before.ids) + n], before.since, n) for n in range(1, new + 1)
            ]
            assert ends == [None] * (new - 1) + [finish]
            reasons.add(finish)
    assert reasons == {DELIMITER, STOP, STEP_LENGTH, LENGTH}


def test_many_extensions_compile_nothing(params):
    """New keys, parents, fewer prompts, other knobs, states old and new, in one bucket."""
    sampler = make_sampler(stop_ids=[EOS])
    for number in range(3):
        Search(sampler, params).step(number, donate=False)
    compilations = sampler.compilations
    assert compilations == 2
    for number, prompts in enumerate([PROMPTS, PROMPTS[:1], [[7] * 16]]):
        search = Search(sampler, params, prompts, seed=number)
        for _ in range(5):
            search.step(number, sampling=SamplingParams(temperature=number / 2))
    assert sampler.compilations == compilations


def test_a_donated_state_is_gone(sampler, params):
    search = Search(sampler, params)
    search.step(0)
    before = search.state
    search.step(1, donate=True)
    with pytest.raises((RuntimeError, ValueError), match="deleted|donated"):
        np.asarray(before.pool.paths[0])


@pytest.fixture(scope="module")
def reports():
    """What mesh_paths.py prints: of bfloat16, then of a mesh."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"
    environment = dict(os.environ, XLA_FLAGS=flags)
    environment["PYTHONPATH"] = str(Path(__file__).parents[3])
    script = Path(__file__).with_name("mesh_paths.py")
    process = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert process.returncode == 0, process.stderr[-3000:]
    return [json.loads(line) for line in process.stdout.splitlines()]


def test_eight_devices_give_the_same_paths(reports):
    report = reports[1]
    assert report["tokens"] and report["compilations"] == 2, report
    assert report["logprobs"] < 1e-4 and report["values"] < 1e-4, report
    assert report["prompts"] == 2, report  # Of eight, on each device.


def test_bfloat16_is_as_near_to_a_fresh_forward_pass_as_its_rounding(reports):
    # Eight bits of mantissa in keys, values and residuals of two layers.
    assert 1e-6 < reports[0]["bfloat16"] < 0.15, reports[0]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"parents": np.full((4, 2), ROOT)}, r"parents has shape \(4, 2\)"),
        ({"into": [[5, -1, -1]] + [[-1] * 3] * 3}, "into names place 5; places are 0..4, or -1"),
        (
            {"into": [[1, 2, 1]] + [[-1] * 3] * 3},
            "two paths of prompt 0 would be stored in place 1",
        ),
        ({"parents": [[4, 0, 0]] + [[0] * 3] * 3}, "place 4 of prompt 0 holds no path"),
        ({"into": [[-1] * 3] * 3 + [[0, -1, -1]]}, "place -1 of prompt 3 holds no path"),
        (
            {"parents": [[1, 0, 0]] + [[0] * 3] * 3},
            "place 1 of prompt 0 has ended; it cannot be extended",
        ),
    ],
)
def test_bad_requests_are_named(params, changes, message):
    sampler = make_sampler(stop_ids=range(VOCAB))
    state = sampler.start(params, PROMPTS)
    request = dict(parents=np.full((4, 3), ROOT), into=[[1, -1, -1]] + [[-1] * 3] * 3)
    state, steps = sampler.extend(params, state, **request, key=jax.random.key(0))
    assert steps.finish[0, 0] == STOP
    with pytest.raises(ValueError, match=message):
        sampler.extend(params, state, **request | changes, key=jax.random.key(0))


def test_bad_prompts_and_sizes_are_named(sampler, params):
    for prompts, message in (
        ([], "0 prompts were given"),
        ([[1]] * 5, "room for 1..4"),
        ([[1], []], "prompt 1 is empty"),
        ([[VOCAB]], "outside the model's vocabulary"),
        ([[1] * 250], "exceeds the model's context of 256"),
    ):
        with pytest.raises(ValueError, match=message):
            sampler.start(params, prompts)
    with pytest.raises(ValueError, match="width=0 must be at least 1"):
        make_sampler(width=0)
    with pytest.raises(ValueError, match="stop id 48 is outside"):
        make_sampler(stop_ids=[VOCAB])
