"""Both directions against transformers itself; needs torch, so it runs under `make parity` only."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import torch  # noqa: E402

from models.config import (  # noqa: E402
    Experts,
    LatentAttention,
    ModelConfig,
    RopeScaling,
    YarnScaling,
)
from models.decoder import LanguageModel  # noqa: E402
from models.hf.config import config_to_hf  # noqa: E402
from models.hf.export import export_model  # noqa: E402
from models.hf.load import load_config, load_params  # noqa: E402
from models.tokens.tokenizer import Tokenizer  # noqa: E402
from models.tokens.tokenizer_training import train_bpe  # noqa: E402
from tests.parity import make_golden  # noqa: E402

TOLERANCE = 1e-4

BASE = ModelConfig(
    family="llama",
    vocab_size=130,
    embed_dim=48,
    num_layers=2,
    num_heads=6,
    num_kv_heads=2,
    head_dim=8,
    mlp_dim=80,
    rope_theta=1e6,
    max_length=512,
)
# Frequencies as in Llama 3.2, and positions beyond the context that it was first trained on.
LONG = BASE.replace(
    head_dim=64,
    rope_theta=500_000.0,
    rope_scaling=RopeScaling(32.0, 1.0, 4.0, 8192),
    max_length=131_072,
)
# Eight groups as in the published model, of which the biased choice matters.
DEEPSEEK = BASE.replace(
    family="deepseek_v3",
    num_layers=3,
    num_kv_heads=6,
    head_dim=20,
    latent=LatentAttention(kv_rank=24, q_rank=32, nope_dim=12, rope_dim=8, value_dim=14),
    experts=Experts(
        num_experts=16, per_token=4, mlp_dim=20, groups=8, groups_per_token=4, scale=2.5,
        first_layer=1,
    ),
)  # fmt: skip
CASES = {
    "llama": BASE,
    "llama_tied_mha": BASE.replace(tie_embeddings=True, num_kv_heads=6, norm_eps=1e-5),
    "llama_rope_scaling": LONG,
    "qwen2": BASE.replace(family="qwen2", qkv_bias=True, num_kv_heads=1),
    "qwen2_tied": BASE.replace(family="qwen2", qkv_bias=True, tie_embeddings=True),
    "qwen3": BASE.replace(family="qwen3", qk_norm=True, head_dim=16),
    "qwen3_tied": BASE.replace(family="qwen3", qk_norm=True, head_dim=10, tie_embeddings=True),
    # As published but for the sizes, and at positions beyond the context before.
    "deepseek_v3": DEEPSEEK.replace(
        rope_theta=1e4,
        rope_scaling=YarnScaling(40.0, 4096, mscale=1.0, mscale_all_dim=1.0),
        max_length=163_840,
    ),
    "deepseek_v3_no_q_rank": DEEPSEEK.replace(
        latent=dataclasses.replace(DEEPSEEK.latent, q_rank=None),
        experts=Experts(num_experts=8, per_token=2, mlp_dim=20, num_shared=2, normalize=False),
        rope_scaling=YarnScaling(8.0, 64, beta_fast=8.0),
        norm_eps=1e-5,
        tie_embeddings=True,
    ),
}


def ours(config, params, tokens, positions):
    model = LanguageModel(config)
    hidden = model.hidden(params, tokens, positions, jnp.ones_like(tokens))
    return np.asarray(model.logits(params, hidden))


def batch(config):
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (2, 64))
    positions = np.arange(64)[None] + np.array([[0], [9000 if config.rope_scaling else 0]])
    return tokens, positions


def random_model(config, seed=1):
    """A transformers model of this config with every weight drawn at random."""
    fields = config_to_hf(config)
    fields.pop("architectures")
    hf_config = transformers.AutoConfig.for_model(fields.pop("model_type"), **fields)
    model = transformers.AutoModelForCausalLM.from_config(hf_config)
    make_golden.randomize(model, np.random.default_rng(seed))
    return model


def report(name, gap, record_property):
    record_property("max_abs_difference", float(gap))
    print(f"{name}: max abs logit difference {gap:.1e}")
    assert gap < TOLERANCE


@pytest.mark.parametrize(("dtype", "shard"), [("float32", "1GB"), ("bfloat16", "40KB")])
@pytest.mark.parametrize("name", CASES)
def test_from_transformers_and_back(name, dtype, shard, tmp_path, record_property):
    config = CASES[name]
    model = random_model(config).to(getattr(torch, dtype))
    model.save_pretrained(tmp_path / "theirs", max_shard_size=shard)
    tokens, positions = batch(config)
    expected = make_golden.logits(tmp_path / "theirs", tokens, positions)

    loaded = load_config(tmp_path / "theirs")
    assert loaded == config
    params = load_params(tmp_path / "theirs", loaded)
    gap = np.abs(ours(loaded, params, tokens, positions) - expected).max()
    report(f"{name} {dtype} from transformers", gap, record_property)

    limit = 10**9 if shard == "1GB" else 40_000
    export_model(tmp_path / "ours", loaded, params, dtype=dtype, max_shard_bytes=limit)
    np.testing.assert_array_equal(
        make_golden.logits(tmp_path / "ours", tokens, positions), expected
    )


@pytest.mark.parametrize("name", CASES)
def test_to_transformers(name, tmp_path, record_property):
    """Weights that were never in a transformers model."""
    config = CASES[name]
    rng = np.random.default_rng(2)

    def draw(leaf):
        noise = rng.standard_normal(leaf.shape, np.float32)
        return 1 + 0.3 * noise if leaf.ndim < 3 else noise * config.embed_dim**-0.5

    params = jax.tree.map(draw, LanguageModel(config).abstract_params)
    export_model(tmp_path / "out", config, params, max_shard_bytes=60_000)
    tokens, positions = batch(config)
    _, problems = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not any(problems.values()), problems
    gap = np.abs(
        ours(config, params, tokens, positions)
        - make_golden.logits(tmp_path / "out", tokens, positions)
    ).max()
    report(f"{name} to transformers", gap, record_property)


@pytest.mark.parametrize(
    ("name", "loader"),
    [
        ("llama", transformers.AutoTokenizer),
        ("qwen3_tied", transformers.AutoTokenizer),
        # For `qwen2`, AutoTokenizer of transformers 5 puts Qwen2's own rules for splitting text
        # in the place of those in tokenizer.json.
        ("qwen2_tied", transformers.PreTrainedTokenizerFast),
    ],
)
def test_a_whole_export_generates_in_transformers(name, loader, tmp_path):
    """The directory as a user gets it: model, tokenizer, template, stop ids, greedy text."""
    tokenizer = train_bpe(
        make_golden.CORPUS,
        330,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        text_tokens=["<think>", "</think>"],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        template=make_golden.CHATML_TEMPLATE,
    )
    config = CASES[name].replace(vocab_size=tokenizer.vocab_size + 3)
    model = random_model(config)
    model.save_pretrained(tmp_path / "weights")
    params = load_params(tmp_path / "weights", config)
    export_model(tmp_path / "out", config, params, tokenizer)

    their_tokenizer = loader.from_pretrained(tmp_path / "out")
    for text in make_golden.TEXTS:
        ids = tokenizer.encode(text)
        assert their_tokenizer.encode(text, add_special_tokens=False) == ids
        assert their_tokenizer.decode(ids) == text
        assert their_tokenizer.decode(ids, skip_special_tokens=True) == tokenizer.decode(
            ids, skip_special_tokens=True
        )
    assert their_tokenizer.eos_token_id == tokenizer.eos_id
    assert their_tokenizer.pad_token_id == tokenizer.pad_id
    for messages in make_golden.CONVERSATIONS:
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
        ids = their_tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_dict=False
        )
        assert ids == tokenizer.encode(text)

    prompt = tokenizer.encode(
        tokenizer.apply_chat_template(make_golden.CONVERSATIONS[0], add_generation_prompt=True)
    )
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert theirs.generation_config.eos_token_id == tokenizer.eos_id
    generated = theirs.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False)
    ids = list(prompt)
    while len(ids) < len(prompt) + 12 and (len(ids) == len(prompt) or ids[-1] != tokenizer.eos_id):
        tokens = np.array([ids])
        positions = np.arange(len(ids))[None]
        ids.append(int(ours(config, params, tokens, positions)[0, -1].argmax()))
    assert generated[0].tolist() == ids


@pytest.mark.parametrize("name", ["tokenizer_chatml", "tokenizer_header"])
def test_a_saved_tokenizer_is_the_same_to_transformers(name, tmp_path):
    """Golden tests hold ours to theirs on the original; this one on what ours saves."""
    tokenizer = Tokenizer.from_directory(make_golden.GOLDEN / name)
    tokenizer.save(tmp_path / name)
    assert make_golden.tokenizer_outputs(tmp_path / name) == make_golden.tokenizer_outputs(
        make_golden.GOLDEN / name
    )


def test_golden_files_are_what_transformers_makes_today():
    script = Path(make_golden.__file__)
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
