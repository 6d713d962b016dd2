"""Verifiers and reward models against transformers' classifiers; runs under `make parity` only."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import torch  # noqa: E402

from models.hf.config import config_to_hf  # noqa: E402
from models.hf.export import export_model  # noqa: E402
from models.hf.load import load_scalar_model  # noqa: E402
from models.scalar_head import ScalarModel  # noqa: E402
from models.tokens.tokenizer_training import train_bpe  # noqa: E402
from tests.parity import make_golden  # noqa: E402
from tests.parity.test_transformers import CASES, batch  # noqa: E402

TOKENIZER = train_bpe(["a"], 258, pad_token="<pad>")
CLASSES = {
    True: transformers.AutoModelForTokenClassification,
    False: transformers.AutoModelForSequenceClassification,
}


def ours(model, params, tokens, positions):
    hidden = model.hidden(params, tokens, positions, jnp.ones_like(tokens))
    return np.asarray(model.values(params, hidden))


def theirs(directory, bias, tokens, positions):
    """`[B, T]` scores of tokens, or `[B]` of the last one."""
    loaded, problems = CLASSES[bias].from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not any(problems.values()), problems
    with torch.no_grad():
        logits = loaded(torch.from_numpy(tokens), position_ids=torch.from_numpy(positions)).logits
    return logits[..., 0].numpy()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", ["llama", "qwen2_tied", "qwen3"])
def test_both_directions(name, bias, tmp_path):
    config = CASES[name].replace(vocab_size=264)
    fields = config_to_hf(config)
    fields.pop("architectures")
    their_config = transformers.AutoConfig.for_model(
        fields.pop("model_type"), **fields, num_labels=1, pad_token_id=TOKENIZER.pad_id
    )
    their_model = CLASSES[bias].from_config(their_config)
    make_golden.randomize(their_model, np.random.default_rng(1))
    their_model.save_pretrained(tmp_path / "theirs")
    TOKENIZER.save(tmp_path / "theirs")
    tokens, positions = batch(config)
    tokens = np.maximum(tokens, 2)  # neither padding nor end: "the last token" is the last
    expected = theirs(tmp_path / "theirs", bias, tokens, positions)

    model, params, _ = load_scalar_model(tmp_path / "theirs")
    assert isinstance(model, ScalarModel) and model.bias == bias and model.config == config
    values = ours(model, params, tokens, positions)
    gap = np.abs((values if bias else values[:, -1]) - expected).max()
    assert gap < 1e-4 and np.abs(expected).max() > 0.1

    export_model(tmp_path / "ours", config, params, TOKENIZER, scalar_head=model)
    again = theirs(tmp_path / "ours", bias, tokens, positions)
    np.testing.assert_array_equal(again, expected)
    jax.tree.map(np.testing.assert_array_equal, load_scalar_model(tmp_path / "ours").params, params)
