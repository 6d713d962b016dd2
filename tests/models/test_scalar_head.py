"""Tests the scalar head: its values, its parameters, and checkpoints that hold one."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from models.checkpoint import load_model
from models.config import ModelConfig
from models.decoder import LanguageModel
from models.hf.export import export_model
from models.hf.load import load_scalar_model
from models.scalar_head import ScalarModel
from models.sharding import make_mesh, partition_spec
from models.tokens.tokenizer_training import train_bpe
from train.optimizer import make_optimizer
from train.state import abstract_state

CONFIG = ModelConfig(
    family="qwen3", vocab_size=264, embed_dim=16, num_layers=2, num_heads=4, num_kv_heads=2,
    head_dim=8, mlp_dim=24, qk_norm=True,
)  # fmt: skip
TOKENS = np.random.default_rng(0).integers(0, 264, (2, 9))
POSITIONS = np.arange(9)[None].repeat(2, 0)


def random_params(model, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), model.abstract_params
    )


def hidden_of(model, params):
    return model.hidden(params, TOKENS, POSITIONS, jnp.ones_like(TOKENS))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_values_are_a_float32_product_with_the_hidden_states(bias, dtype):
    model = ScalarModel(CONFIG.replace(dtype=dtype), bias)
    params = random_params(model)
    hidden = hidden_of(model, params)
    values = model.values(params, hidden)
    kernel = np.float64(jnp.asarray(params["score"]["kernel"], dtype))
    expected = (np.float64(hidden) @ kernel)[..., 0]
    if bias:
        expected = expected + params["score"]["bias"][0]
    assert values.shape == (2, 9) and values.dtype == jnp.float32
    np.testing.assert_allclose(values, expected, atol=1e-5)
    assert ("bias" in params["score"]) == bias
    np.testing.assert_array_equal(model.bind(params).values(hidden), values)


@pytest.mark.parametrize("tied", [True, False])
def test_a_language_model_lends_its_decoder_but_not_its_head(tied):
    config = CONFIG.replace(tie_embeddings=tied)
    language_model, model = LanguageModel(config), ScalarModel(config)
    lm_params = random_params(language_model)
    params = model.from_language_model(lm_params, jax.random.key(0))
    assert "lm_head" not in params and ("lm_head" in lm_params) == (not tied)
    assert params["embedding"] is lm_params["embedding"]
    assert jax.tree.structure(params) == jax.tree.structure(model.abstract_params)
    np.testing.assert_array_equal(hidden_of(model, params), hidden_of(language_model, lm_params))
    other = model.from_language_model(lm_params, jax.random.key(1))
    assert (params["score"]["kernel"] != other["score"]["kernel"]).all()
    assert not params["score"]["bias"].any()


def test_next_tokens_are_predicted_by_an_embedding_that_is_tied():
    tied, model = CONFIG.replace(tie_embeddings=True), ScalarModel(CONFIG)
    lm_params = random_params(LanguageModel(tied))
    params = ScalarModel(tied).from_language_model(lm_params, jax.random.key(0))
    hidden = hidden_of(model, params)
    expected = np.float64(hidden) @ np.float64(params["embedding"]).T
    np.testing.assert_allclose(ScalarModel(tied).logits(params, hidden), expected, atol=1e-5)
    with pytest.raises(ValueError, match="tie_embeddings=False: its LM head is not kept"):
        model.logits(params, hidden)


def test_the_new_head_has_variance_one_over_width():
    model = ScalarModel(CONFIG.replace(embed_dim=4096, num_layers=1, mlp_dim=8))
    lm_params = LanguageModel(model.config).abstract_params
    kernel = model.from_language_model(lm_params, jax.random.key(0))["score"]["kernel"]
    assert float(kernel.std()) == pytest.approx(4096**-0.5, rel=0.05)


def test_parameters_of_another_model_are_refused():
    lm_params = random_params(LanguageModel(CONFIG))
    for config, name in ((CONFIG.replace(embed_dim=32), "embedding is"), (
        CONFIG.replace(family="llama", qk_norm=False), "k_norm/scale is .* should be absent"
    )):  # fmt: skip
        with pytest.raises(ValueError, match=name):
            ScalarModel(config).from_language_model(lm_params, jax.random.key(0))


def test_the_head_is_sharded_like_the_width_it_reads():
    model, mesh = ScalarModel(CONFIG), make_mesh()
    assert model.logical_axes["score"] == {"kernel": ("embed", None), "bias": (None,)}

    class Mesh:
        shape = {"fsdp": 2, "tensor": 2}

    spec = partition_spec(("embed", None), (16, 1), Mesh)
    assert spec == jax.sharding.PartitionSpec("fsdp", None)
    optimizer = make_optimizer({"name": "adamw", "weight_decay": 0.1}, model.abstract_params, 10)
    state = abstract_state(model, optimizer, mesh)
    assert state.params["score"]["kernel"].shape == (16, 1)
    assert optimizer.weight_decays["score/bias"] == 0 < optimizer.weight_decays["score/kernel"]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("max_shard_bytes", [10**9, 9_000])
def test_checkpoints_go_out_and_come_back(bias, max_shard_bytes, tmp_path):
    tokenizer = train_bpe(["a"], 258, pad_token="<pad>")
    model = ScalarModel(CONFIG, bias)
    params = random_params(model)
    export_model(
        tmp_path / "hf", CONFIG, params, tokenizer, max_shard_bytes=max_shard_bytes,
        scalar_head=model,
    )  # fmt: skip
    fields = json.loads((tmp_path / "hf" / "config.json").read_text())
    kind = "Token" if bias else "Sequence"
    assert fields["architectures"] == [f"Qwen3For{kind}Classification"]
    assert len(fields["id2label"]) == 1
    files = (tmp_path / "hf").glob("*.safetensors")
    tensors = {name: tensor for file in files for name, tensor in load_file(file).items()}
    np.testing.assert_array_equal(tensors["score.weight"], params["score"]["kernel"].T)
    assert ("score.bias" in tensors) == bias and "lm_head.weight" not in tensors
    if max_shard_bytes < 10**9:
        index = json.loads((tmp_path / "hf" / "model.safetensors.index.json").read_text())
        assert index["metadata"]["total_size"] == sum(t.nbytes for t in tensors.values())

    loaded = load_scalar_model(tmp_path / "hf", make_mesh())
    assert isinstance(loaded.model, ScalarModel) and loaded.model.bias == bias
    assert loaded.model.config == CONFIG
    jax.tree.map(np.testing.assert_array_equal, loaded.params, params)
    with pytest.raises(ValueError, match=f"Qwen3For{kind}Classification"):
        load_model(tmp_path / "hf")


def test_checkpoints_without_a_scalar_head_are_refused(tmp_path):
    tokenizer = train_bpe(["a"], 258, pad_token="<pad>")
    model = LanguageModel(CONFIG)
    export_model(tmp_path / "lm", CONFIG, random_params(model), tokenizer)
    with pytest.raises(ValueError, match="not a model with a scalar head .*Qwen3ForCausalLM"):
        load_scalar_model(tmp_path / "lm")
    fields = json.loads((tmp_path / "lm" / "config.json").read_text())
    fields["architectures"] = ["Qwen3ForTokenClassification"]
    (tmp_path / "lm" / "config.json").write_text(json.dumps(fields))
    with pytest.raises(ValueError, match="2 labels"):
        load_scalar_model(tmp_path / "lm")
    # Without checksums, which the edited config no longer fits.
    (tmp_path / "lm" / "MANIFEST.sha256").unlink()
    fields["id2label"] = {"0": "score"}
    (tmp_path / "lm" / "config.json").write_text(json.dumps(fields))
    with pytest.raises(ValueError, match="lacks tensors score.bias, score.weight"):
        load_scalar_model(tmp_path / "lm")
