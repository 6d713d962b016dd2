"""Tests that a response is split where sampling one step at a time would have stopped."""

import functools

import jax
import numpy as np
import pytest

from models.config import ModelConfig
from models.decoder import LanguageModel
from models.decoding.sampling import SamplingParams
from models.tokens.tokenizer_training import train_bpe
from reasoning.generation.jax_generator import JaxGenerator
from reasoning.generation.step_splitter import StepSplitter

# Tokens that hold a delimiter inside: "b\n", "\na", "\n\n".
TOKENIZER = train_bpe(
    ["a"], 270, text_tokens=("b\n", "\na", "\n\n", "x\n\ny"), eos_token="<eos>", pad_token="<pad>"
)
IDS = {text: TOKENIZER.token_id(text) for text in ("b\n", "\na", "\n\n", "x\n\ny")}
A, NEWLINE = TOKENIZER.encode("a")[0], TOKENIZER.encode("\n")[0]


def expected_ends(token_ids, delimiter):
    """Written out over bytes: what has been read since the last step ended holds the delimiter."""
    ends, read = [], b""
    for i, token in enumerate(token_ids):
        read += TOKENIZER.token_bytes(token)
        if delimiter.encode() in read:
            ends.append(i)
            read = b""
    return ends if ends[-1:] == [len(token_ids) - 1] else [*ends, len(token_ids) - 1]


@pytest.mark.parametrize("delimiter", ["\n", "\n\n", "a\n", "ab"])
def test_ends_are_those_of_a_search_over_bytes(delimiter):
    rng, splitter = np.random.default_rng(0), StepSplitter(TOKENIZER, delimiter)
    pool = [A, TOKENIZER.encode("b")[0], NEWLINE, TOKENIZER.eos_id, *IDS.values()]
    for length in range(1, 40):
        ids = rng.choice(pool, length).tolist()
        assert splitter.ends(ids) == expected_ends(ids, delimiter)
        steps = splitter.split(ids)
        assert sum(steps, []) == ids and all(steps)
        stops = np.cumsum([len(step) for step in steps])
        assert stops.tolist() == [end + 1 for end in splitter.ends(ids)]


def test_a_delimiter_inside_a_token_ends_the_step_with_that_token():
    ids = [A, IDS["b\n"], A, IDS["\na"], A, TOKENIZER.eos_id]
    assert StepSplitter(TOKENIZER).ends(ids) == [1, 3, 5]
    # Half of the delimiter in one token, half in the next; and none across the end of a step.
    assert StepSplitter(TOKENIZER, "\n\n").ends([IDS["b\n"], IDS["\na"], A]) == [1, 2]
    assert StepSplitter(TOKENIZER, "\n\n").ends([NEWLINE, NEWLINE, NEWLINE]) == [1, 2]


def test_what_is_no_step():
    splitter = StepSplitter(TOKENIZER)
    assert splitter.ends([]) == [] and splitter.split([]) == []
    assert splitter.ends([TOKENIZER.eos_id]) == [0]
    # Ids of the padded part of a model's vocabulary add no text.
    assert splitter.ends([A, 5000, NEWLINE, A]) == [2, 3]
    with pytest.raises(ValueError, match="delimiter is empty"):
        StepSplitter(TOKENIZER, "")


@functools.cache
def generator():
    config = ModelConfig(
        family="llama", vocab_size=TOKENIZER.vocab_size, embed_dim=16, num_layers=1, num_heads=2,
        num_kv_heads=1, head_dim=8, mlp_dim=16,
    )  # fmt: skip
    rng, model = np.random.default_rng(2), LanguageModel(config)
    params = jax.tree.map(
        lambda x: rng.normal(0, 1, x.shape).astype(np.float32), model.abstract_params
    )
    # The first hidden dimension is about the same everywhere; it rules out all tokens but a few,
    # most of which hold a delimiter.
    params["embedding"][:, 0] = 90.0
    params["final_norm"]["scale"][0] = 10.0
    params["lm_head"]["kernel"][0] = -10.0
    params["lm_head"]["kernel"][0, [A, TOKENIZER.encode("b")[0], NEWLINE, *IDS.values()]] = 0.0
    return JaxGenerator(model, params, TOKENIZER, rows=4)


@pytest.mark.parametrize("delimiter", ["\n", "\n\n"])
def test_a_whole_response_has_the_steps_that_were_sampled_one_by_one(delimiter):
    greedy = {"max_new_tokens": 24, "sampling": SamplingParams(temperature=0)}
    prompt, splitter, several = TOKENIZER.encode("ab"), StepSplitter(TOKENIZER, delimiter), 0
    for start in ([A], [NEWLINE], [IDS["x\n\ny"]], [A, A]):
        [[whole]] = generator().generate_from_ids([prompt + start], **greedy)
        path, steps = [], []
        while len(path) < len(whole.token_ids):
            [[step]] = generator().generate_from_ids(
                [prompt + start + path], limits=[24 - len(path)], stop=[delimiter], **greedy
            )
            steps.append(step.token_ids)
            path += step.token_ids
        assert path == whole.token_ids
        assert steps == splitter.split(whole.token_ids)
        several += len(steps) > 2
    assert several
