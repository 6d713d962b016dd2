"""Tests of the compiled sampler behind the `Generator` interface."""

import jax
import numpy as np
import pytest

from models.config import ModelConfig
from models.decoder import LanguageModel
from models.decoding.sampling import SamplingParams
from models.tokens.tokenizer_training import train_bpe
from reasoning.generation.jax_generator import JaxGenerator

CONFIG = ModelConfig(
    family="qwen3", vocab_size=258, embed_dim=16, num_layers=1, num_heads=2, num_kv_heads=1,
    head_dim=8, mlp_dim=16,
)  # fmt: skip
PROMPTS = ["What is 1 + 2?", "Who?", "Berechne 3 + 4."]
MAX_NEW = 8


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(["a"], 257, eos_token="<eos>")


@pytest.fixture(scope="module")
def params(tokenizer):
    """Random, but one token in four is the end-of-sequence token."""
    params = jax.tree.map(np.array, LanguageModel(CONFIG).init(jax.random.key(0)))
    # The first hidden dimension is the same everywhere, and only that token's logit depends on it.
    params["embedding"][:, 0] = 9.0
    params["lm_head"]["kernel"][0] = 0.0
    params["lm_head"]["kernel"][0, tokenizer.eos_id] = 1.2
    return jax.tree.map(jax.numpy.asarray, params)


@pytest.fixture(scope="module")
def generator(tokenizer, params):
    return JaxGenerator(LanguageModel(CONFIG), params, tokenizer, rows=8)


def generate(generator, prompts=PROMPTS, **changes):
    arguments = dict(num_samples=4, max_new_tokens=MAX_NEW, seed=1) | changes
    return generator.generate(prompts, **arguments)


@pytest.fixture(scope="module")
def completions(generator):
    return generate(generator, PROMPTS * 4)


def test_text_ids_and_finish_belong_together(completions, tokenizer):
    assert [len(group) for group in completions] == [4] * 12
    finishes = set()
    for completion in sum(completions, []):
        ids, finish = completion.token_ids, completion.finish
        finishes.add(finish)
        assert len(completion.logprobs) == len(ids) and (completion.logprobs < 0).all()
        # The end-of-sequence token is generated, paid for and trained on, but not read.
        assert (ids[-1] == tokenizer.eos_id) == (finish == "stop")
        assert tokenizer.eos_id not in ids[:-1]
        assert completion.text == tokenizer.decode(ids[:-1] if finish == "stop" else ids)
        assert "<eos>" not in completion.text
        assert finish == "stop" or len(ids) == MAX_NEW
    assert finishes == {"stop", "length"}


def test_seeds_and_places_decide_what_is_drawn(generator, completions):
    def ids(groups):
        return [completion.token_ids for group in groups for completion in group]

    again = generate(generator, PROMPTS * 4)
    assert ids(again) == ids(completions)
    assert ids(generate(generator, PROMPTS * 4, seed=2)) != ids(completions)
    # The same prompt at another place, and the samples of one prompt, are drawn anew.
    assert ids(completions[:3]) != ids(completions[3:6])
    assert len({tuple(each) for each in ids(completions[:1])}) > 1


def test_new_parameters_and_prompts_compile_nothing(generator, params, completions):
    compilations = [s.compilations for s in generator._samplers.values()]
    flat = jax.tree.map(lambda x: x * 0.0, params)
    generator.params = flat
    try:
        prompts = ["another", "prompt"] * 6
        uniform = generate(generator, prompts, sampling=SamplingParams(temperature=0.5))
    finally:
        generator.params = params
    assert [s.compilations for s in generator._samplers.values()] == compilations
    logprobs = np.concatenate([c.logprobs for c in sum(uniform, [])])
    np.testing.assert_allclose(logprobs, -np.log(CONFIG.vocab_size), rtol=1e-5)


def test_stop_strings_end_a_completion(generator, completions):
    """Stopping by a letter leaves what was drawn without it, up to and including that letter."""
    texts = [c.text for c in completions[0]]
    letter = next(char for text in texts for char in text[:-1] if char.isascii())
    stopped = generate(generator, PROMPTS * 4, stop=[letter])
    ends = 0
    for before, after in zip(sum(completions, []), sum(stopped, [])):
        if letter in before.text:
            ends += 1
            assert after.finish == "stop_string"
            assert after.text == before.text[: before.text.index(letter) + 1]
            assert after.token_ids == before.token_ids[: len(after.token_ids)]
        else:
            assert after.token_ids == before.token_ids and after.finish == before.finish
    assert ends


def test_a_foreign_tokenizer_is_refused(params):
    larger = train_bpe(["a"], 300, special_tokens=[f"<{i}>" for i in range(20)], eos_token="<eos>")
    with pytest.raises(ValueError, match="has 277 tokens but the model's vocab_size is 258"):
        JaxGenerator(LanguageModel(CONFIG), params, larger)


def test_weights_are_let_go_at_the_end_of_the_block_also_after_an_error(params, tokenizer):
    empty = JaxGenerator(LanguageModel(CONFIG), None, tokenizer)
    with pytest.raises(RuntimeError, match="in the block"):
        with empty.holding(params) as held:
            assert held is empty and held.params is params
            raise RuntimeError("in the block")
    assert empty.params is None
