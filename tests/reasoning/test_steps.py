"""Step generators: by compiled paths and by text, against plain sampling of whole responses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.config import ModelConfig
from models.decoder import LanguageModel
from models.sampler import SamplingParams
from models.tokenizer import train_bpe
from reasoning.generator import JaxGenerator
from reasoning.steps import JaxStepGenerator, TextStepGenerator

TOKENIZER = train_bpe(["a"], 258, eos_token="<eos>", pad_token="<pad>")
MODEL = LanguageModel(
    ModelConfig(
        family="qwen3", vocab_size=264, embed_dim=32, num_layers=2, num_heads=4, num_kv_heads=2,
        head_dim=8, mlp_dim=32, qk_norm=True, max_length=64,
    )  # fmt: skip
)
PROMPTS = ["abc", "b a b", "\n"]
GREEDY = SamplingParams(temperature=0.0)
LIMITS = {"capacity": 4, "width": 4, "max_new_tokens": 24, "step_tokens": 5, "delimiter": "\n"}


@functools.cache
def params():
    """Text of a few letters, with newlines and ends among them."""
    tree = jax.tree.map(lambda x: np.array(x * 2.0), MODEL.init(jax.random.key(0)))
    # The first hidden dimension is about the same everywhere, and says which tokens there are.
    tree["embedding"][:, 0] = 40.0
    head = tree["lm_head"]["kernel"]
    head[1:] *= 0.4
    head[0] = -20.0
    head[0, [TOKENIZER.encode(letter)[0] for letter in "abcdefgh"]] = 0.8
    head[0, [TOKENIZER.encode("\n")[0], TOKENIZER.eos_id]] = [1.0, 0.9]
    return jax.tree.map(jnp.asarray, tree)


@functools.cache
def by_paths():
    return JaxStepGenerator(MODEL, params(), TOKENIZER)


@functools.cache
def whole():
    return JaxGenerator(MODEL, params(), TOKENIZER, rows=8)


def grow(paths, sampling=None, rounds=30):
    """Extends place 0 of each prompt to its end; the steps by prompt."""
    steps = [[] for _ in PROMPTS]
    for turn in range(rounds):
        live = [not s or s[-1].finish not in ("stop", "length") for s in steps]
        if not any(live):
            break
        places = [[0] if each else [] for each in live]
        parents = [[-1 if turn == 0 else 0] if each else [] for each in live]
        for mine, new in zip(steps, paths.extend(parents, places, sampling)):
            mine += new
    return steps


def start(generator, **changes):
    return generator.start(PROMPTS, **{**LIMITS, "sampling": GREEDY, **changes})


@pytest.mark.parametrize("kind", ["paths", "text"])
def test_greedy_steps_join_to_the_greedy_response(kind):
    generator = by_paths() if kind == "paths" else TextStepGenerator(whole())
    expected = whole().generate(PROMPTS, max_new_tokens=24, sampling=GREEDY)
    for steps, (completion,) in zip(grow(start(generator)), expected):
        assert "".join(step.text for step in steps) == completion.text
        assert [i for step in steps for i in step.token_ids] == completion.token_ids
        assert steps[-1].finish == completion.finish
        joined = np.concatenate([step.logprobs for step in steps])
        np.testing.assert_allclose(joined, completion.logprobs, atol=1e-4)


@pytest.mark.parametrize("kind", ["paths", "text"])
def test_how_steps_end(kind):
    generator = by_paths() if kind == "paths" else TextStepGenerator(whole())
    seen = set()
    for seed in range(6):
        paths = start(generator, sampling=SamplingParams(), seed=seed)
        for steps in grow(paths):
            total = 0
            for step in steps:
                total += len(step.token_ids)
                seen.add(step.finish)
                assert (step.finish == "delimiter") <= ("\n" in step.text)
                assert (step.finish == "stop") == (step.token_ids[-1] == TOKENIZER.eos_id)
                assert (step.finish == "step_length") <= (len(step.token_ids) == 5)
                assert (step.finish == "length") <= (total == 24)
                assert len(step.token_ids) <= 5 and total <= 24
                assert len(step.logprobs) == len(step.token_ids)
    assert {"delimiter", "stop", "step_length"} <= seen


@pytest.mark.parametrize("kind", ["paths", "text"])
def test_forks_continue_what_they_were_forked_from(kind):
    generator = by_paths() if kind == "paths" else TextStepGenerator(whole())
    paths = start(generator, sampling=SamplingParams(temperature=2.0), seed=3)
    first = paths.extend([[-1, -1]] * 3, [[0, 1]] * 3)
    usable = [p for p in range(3) if first[p][1].finish in ("delimiter", "step_length")]
    assert usable
    # Both children of place 1, one of which overwrites it.
    parents = [[1, 1] if p in usable else [] for p in range(3)]
    into = [[1, 2] if p in usable else [] for p in range(3)]
    second = paths.extend(parents, into, GREEDY)
    for p in usable:
        assert second[p][0].token_ids == second[p][1].token_ids
        prompt = PROMPTS[p] + first[p][1].text
        (expected,) = whole().generate([prompt], max_new_tokens=5, sampling=GREEDY)[0]
        got = second[p][0].token_ids
        assert got == expected.token_ids[: len(got)]


def test_a_copy_goes_its_own_way():
    paths = start(by_paths(), sampling=SamplingParams(), seed=1)
    paths.extend([[-1]] * 3, [[0]] * 3)
    ahead = paths.copy()
    live = [[0] if not paths._state.ended[p, 0] else [] for p in range(3)]
    rolled = ahead.extend(live, live, GREEDY)
    ahead.extend([[]] * 3, [[]] * 3)
    again = paths.extend(live, live, GREEDY)
    assert [[s.token_ids for s in each] for each in rolled] == [
        [s.token_ids for s in each] for each in again
    ]


def test_searches_of_one_shape_compile_once():
    generator = JaxStepGenerator(MODEL, params(), TOKENIZER)
    grow(start(generator, sampling=SamplingParams()))
    (sampler,) = generator._samplers.values()
    compiled = sampler.compilations
    for seed in range(3):
        grow(start(generator, sampling=SamplingParams(temperature=0.7), seed=seed))
    assert sampler.compilations == compiled


def test_too_many_rows_are_refused():
    with pytest.raises(ValueError, match="5 paths of prompt 0 .* width=4"):
        start(by_paths()).extend([[-1] * 5, [], []], [[0, 1, 2, 3, 4], [], []])
