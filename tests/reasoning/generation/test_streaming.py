"""A response in chunks has the same text as a whole one."""

import jax
import pytest

from models.decoder import LanguageModel
from models.decoding.sampling import SamplingParams
from reasoning.generation.jax_generator import JaxGenerator
from reasoning.generation.jax_steps import JaxStepGenerator
from reasoning.generation.streaming import stream, until
from tests.models.gguf import gguf_files

GREEDY = SamplingParams(temperature=0.0)


@pytest.mark.parametrize("size", range(1, 9))
def test_until_ends_before_the_text(size):
    text = "yes\nUs it is.\nUser: no"
    chunks = [text[i : i + size] for i in range(0, len(text), size)]
    assert "".join(until(chunks, "\nUser:")) == "yes\nUs it is."
    assert "".join(until(chunks, "\nOther:")) == text


@pytest.fixture(scope="module")
def model():
    config = gguf_files.BASE.replace(vocab_size=400)
    model, tokenizer = LanguageModel(config), gguf_files.make_tokenizer()
    return model, jax.jit(model.init)(jax.random.key(3)), tokenizer


@pytest.mark.parametrize("chunk", [1, 5, 64])
def test_the_chunks_are_the_response(model, chunk):
    for prompt in ("The quick", "7 + 5 ="):
        expected = JaxGenerator(*model, rows=1).generate(
            [prompt], max_new_tokens=40, sampling=GREEDY
        )[0][0]
        chunks = list(
            stream(
                JaxStepGenerator(*model),
                prompt,
                max_new_tokens=40,
                chunk_tokens=chunk,
                sampling=GREEDY,
            )  # fmt: skip
        )
        assert "".join(chunks) == expected.text
        assert len(chunks) >= len(expected.token_ids) // chunk
