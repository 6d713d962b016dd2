"""Tests LoRA adapters: results, trained parameters, sharding, and merging into the base model."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from models.config import Experts, LatentAttention, ModelConfig
from models.decoder import LanguageModel
from models.decoding.compilations import count_programs
from models.decoding.sampler import Sampler
from models.hf.export import export_model
from models.hf.load import load_config, load_params
from models.lora import LR_RULES, LoraConfig, LoraModel
from models.sharding import make_mesh, partition_spec
from models.tokens.packing import pack, place
from train.objectives import sft
from train.optimizer import make_optimizer
from train.state import state_from_params
from train.step import make_train_step

BASE = ModelConfig(
    family="qwen2", vocab_size=20, embed_dim=8, num_layers=2, num_heads=4, num_kv_heads=2,
    head_dim=4, mlp_dim=12, qkv_bias=True,
)  # fmt: skip
CONFIGS = {
    "qwen2": BASE,
    "llama": BASE.replace(family="llama", qkv_bias=False),
    "qwen3": BASE.replace(family="qwen3", qkv_bias=False, qk_norm=True, tie_embeddings=True),
    "deepseek_v3": BASE.replace(
        family="deepseek_v3",
        qkv_bias=False,
        num_layers=3,
        num_kv_heads=4,
        head_dim=6,
        latent=LatentAttention(kv_rank=6, q_rank=8, nope_dim=4, rope_dim=2, value_dim=4),
        experts=Experts(
            num_experts=4, per_token=2, mlp_dim=8, groups=2, groups_per_token=1, first_layer=1
        ),
    ),
}
TOKENS = np.random.default_rng(0).integers(0, 20, (2, 9))


@functools.cache
def setup(family="qwen2", targets=r".*/kernel"):
    """A LoRA model and parameters, whose adapters are all but small."""
    model, rng = LoraModel(CONFIGS[family], LoraConfig(3, 6.0, targets)), np.random.default_rng(1)
    return model, jax.tree.map(
        lambda x: rng.normal(0, 0.4, x.shape).astype(np.float32), model.abstract_params
    )


def logits(model, params):
    positions = np.broadcast_to(np.arange(9), TOKENS.shape)
    hidden = model.hidden(params, TOKENS, positions, np.ones_like(TOKENS))
    return model.logits(params, hidden)


def without_adapters(params):
    def strip(tree):
        if not isinstance(tree, dict):
            return tree
        return {key: strip(value) for key, value in tree.items() if key != "adapter"}

    return strip(params)


def test_new_adapters_change_nothing():
    model, params = setup()
    base = without_adapters(params)
    attached = model.attach(base, jax.random.key(0))
    expected = jax.tree.map(lambda x: (x.shape, x.dtype), model.abstract_params)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), attached) == expected
    np.testing.assert_array_equal(
        logits(model, attached), logits(LanguageModel(model.config), base)
    )
    # And yet they can learn: A is random, of unit variance over its inputs.
    a = np.array(attached["layers"]["mlp"]["gate"]["adapter"]["a"])
    assert 0.3 < a.std() * 8**0.5 < 3
    other = model.attach(base, jax.random.key(1))["layers"]["mlp"]["gate"]["adapter"]["a"]
    assert not np.array_equal(a, other)


@pytest.mark.parametrize("family", CONFIGS)
def test_merged_and_unmerged_forward_agree(family):
    model, params = setup(family)
    merged = model.merge(params)
    base = LanguageModel(model.config)
    assert jax.tree.structure(merged) == jax.tree.structure(base.abstract_params)
    np.testing.assert_allclose(logits(base, merged), logits(model, params), atol=1e-5, rtol=1e-5)
    # The adapters do matter.
    assert np.abs(logits(base, without_adapters(params)) - logits(model, params)).max() > 0.1


def test_merged_kernels_equal_the_formula():
    """W + alpha / rank * A B, layer by layer, for kernels of each shape."""
    model, params = setup()
    merged = model.merge(params)
    for layer in range(2):
        for kind, name, wide in [("attention", "q", 8), ("attention", "o", 16), ("mlp", "up", 8)]:
            own = params["layers"][kind][name]
            kernel = np.float64(own["kernel"][layer])
            a = np.float64(own["adapter"]["a"][layer]).reshape(wide, 3)
            b = np.float64(own["adapter"]["b"][layer]).reshape(3, -1)
            change = np.zeros((wide, b.shape[1]))
            for i in range(3):
                change += 6.0 / 3 * np.outer(a[:, i], b[i])
            np.testing.assert_allclose(
                merged["layers"][kind][name]["kernel"][layer],
                kernel + change.reshape(kernel.shape),
                atol=1e-5,
            )


def test_adapters_of_full_rank_represent_any_change():
    """With the rank of the kernel, A B can be any matrix: here the change of a dense update."""
    _, base = setup("llama")
    base, rng = without_adapters(base), np.random.default_rng(2)
    model = LoraModel(CONFIGS["llama"], LoraConfig(12, 6.0))
    params = model.attach(base, jax.random.key(0))
    dense = jax.tree.map(np.array, base)
    for kind, name, fan_in in [("attention", "q", 8), ("attention", "o", 16), ("mlp", "down", 12)]:
        kernel = dense["layers"][kind][name]["kernel"]
        change = rng.normal(0, 0.3, kernel.shape).astype(np.float32)
        kernel += change
        adapter = params["layers"][kind][name]["adapter"]
        u, s, v = np.linalg.svd(change.reshape(2, fan_in, -1), full_matrices=False)
        a, b = np.zeros((2, fan_in, 12), np.float32), np.zeros((2, 12, v.shape[2]), np.float32)
        a[:, :, : s.shape[1]], b[:, : s.shape[1]] = u * s[:, None], v * (12 / 6.0)
        adapter["a"], adapter["b"] = (x.reshape(adapter[n].shape) for n, x in zip("ab", (a, b)))
    expected = logits(LanguageModel(model.config), dense)
    np.testing.assert_allclose(logits(model, params), expected, atol=2e-5)
    assert np.abs(logits(LanguageModel(model.config), base) - expected).max() > 0.1
    merged = model.merge(params)
    for path, kernel in flatten_dict(dense).items():
        np.testing.assert_allclose(flatten_dict(merged)[path], kernel, atol=2e-6)


@pytest.mark.parametrize("family", ["qwen2", "deepseek_v3"])
def test_the_gradient_is_that_through_the_merged_weights(family):
    model, params = setup(family)
    base = LanguageModel(model.config)
    weights = np.random.default_rng(3).normal(size=(*TOKENS.shape, 20)).astype(np.float32)
    own = jax.grad(lambda p: (logits(model, p) * weights).sum())(params)
    through = jax.grad(lambda p: (logits(base, model.merge(p)) * weights).sum())(params)
    adapters = {path for path in flatten_dict(own) if "adapter" in path}
    assert adapters
    for path in adapters:
        expected = flatten_dict(through)[path]
        np.testing.assert_allclose(flatten_dict(own)[path], expected, atol=2e-3, rtol=2e-4)
        assert np.abs(expected).max() > 0.1


def test_merging_copies_no_other_weights():
    model, params = setup()
    params = jax.tree.map(jnp.array, params)
    merged = model.merge(params)
    assert merged["embedding"].unsafe_buffer_pointer() == (
        params["embedding"].unsafe_buffer_pointer()
    )
    before = count_programs(model._merge_kernels)
    model.merge(jax.tree.map(lambda x: x + 1, params))
    assert count_programs(model._merge_kernels) == before


def test_targets_are_chosen_by_path():
    model, _ = setup(targets=r"layers/attention/(q|v)/kernel")
    adapters = {path[:-2] for path in flatten_dict(model.abstract_params) if "adapter" in path}
    assert adapters == {("layers", "attention", "q"), ("layers", "attention", "v")}
    # By default, all of a block and nothing else.
    model = LoraModel(BASE, LoraConfig())
    adapters = {path[:-2] for path in flatten_dict(model.abstract_params) if "adapter" in path}
    assert {path[-1] for path in adapters} == {*"qkvo", "gate", "up", "down"}
    assert {path[0] for path in adapters} == {"layers"}


def test_all_but_the_experts_of_deepseek_has_adapters():
    model = LoraModel(CONFIGS["deepseek_v3"], LoraConfig())
    adapters = {path[:-2] for path in flatten_dict(model.abstract_params) if "adapter" in path}
    attention = {("attention", name) for name in ("q_a", "q_b", "kv_a", "kv_b", "o")}
    parts = "gate", "up", "down"
    dense = attention | {("mlp", part) for part in parts}
    experts = attention | {("mlp", "shared", part) for part in parts}
    assert {path[1:] for path in adapters if path[0] == "dense_layers"} == dense
    assert {path[1:] for path in adapters if path[0] == "layers"} == experts


def test_a_cache_of_latents_knows_the_adapters():
    """Sampling takes the kernel of keys and values apart, past its adapter."""
    model, params = setup("deepseek_v3")
    sampler = Sampler(model, slots=2, group=1, max_new_tokens=4, stop_ids=())
    prompts = [[3, 1, 2], [7, 5, 6]]
    out = sampler(params, prompts, jax.random.key(0))
    tokens = np.concatenate([prompts, out.tokens[:, 0]], 1)
    positions = np.broadcast_to(np.arange(7), tokens.shape)

    @jax.jit
    def logprobs(params):
        hidden = model.hidden(params, tokens, positions, np.ones_like(tokens))
        return jax.nn.log_softmax(model.logits(params, hidden))

    expected = np.take_along_axis(logprobs(params)[:, 2:-1], tokens[:, 3:, None], -1)
    np.testing.assert_allclose(out.logprobs[:, 0], expected[..., 0], atol=1e-4)


def test_only_adapters_are_trained_and_have_state():
    model, params = setup()
    optimizer = make_optimizer(
        {"learning_rate": 0.01, "weight_decay": 0.1, "lr_rules": LR_RULES},
        model.abstract_params,
        10,
    )
    mesh = make_mesh({"data": -1})
    step = make_train_step(sft.make_loss(model), optimizer, mesh)
    state = state_from_params(model, jax.tree.map(jnp.array, params), optimizer, mesh)
    moments = {path for path in flatten_dict(state.opt_state.mu)}
    assert moments and all("adapter" in path for path in moments)
    examples = [{"tokens": row, "loss_weights": np.ones(9, np.float32)} for row in TOKENS]
    batch = pack(examples, place([9, 9], 9), 9)
    losses = []
    for _ in range(5):
        state, metrics = step(state, step.put(batch))
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0] - 0.05
    after = flatten_dict(state.params)
    for path, before in flatten_dict(params).items():
        assert np.array_equal(after[path], before) == ("adapter" not in path), path


def test_adapters_are_split_as_their_kernel_is():
    model, _ = setup()
    mesh = types.SimpleNamespace(shape={"fsdp": 2, "tensor": 2, "data": 1, "expert": 1})

    def spec(*path):
        abstract, axes = model.abstract_params, model.logical_axes
        for key in path:
            abstract, axes = abstract[key], axes[key]
        return tuple(partition_spec(axes, abstract.shape, mesh))

    block = "layers", "attention"
    assert spec(*block, "q", "kernel") == (None, "fsdp", "tensor", None)
    assert spec(*block, "q", "adapter", "a") == (None, "fsdp", None)
    assert spec(*block, "q", "adapter", "b") == (None, None, "tensor", None)
    assert spec(*block, "o", "kernel") == (None, "tensor", None, "fsdp")
    assert spec(*block, "o", "adapter", "a") == (None, "tensor", None, None)
    assert spec(*block, "o", "adapter", "b") == (None, None, "fsdp")


def test_the_merged_model_is_exported(tmp_path):
    model, params = setup("llama")
    export_model(tmp_path / "out", model.config, model.merge(params))
    config = load_config(tmp_path / "out")
    assert config == model.config
    np.testing.assert_allclose(
        logits(LanguageModel(config), load_params(tmp_path / "out", config)),
        logits(model, params),
        atol=1e-5, rtol=1e-5,
    )  # fmt: skip


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"rank": 0}, "LoRA rank=0: it must be at least 1"),
        ({"alpha": 0}, "LoRA alpha=0: it must be positive"),
        ({"targets": "q_proj"}, "LoRA targets='q_proj' match none of .*layers/attention/q/kernel"),
        ({"targets": "("}, r"LoRA targets='\('"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        LoraModel(BASE, LoraConfig(**arguments))
