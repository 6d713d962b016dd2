"""Named sizes and `config.json`, against what the publishers' files say."""

import pytest

from models.config import ModelConfig, RopeScaling
from models.hf.config import config_from_hf, config_to_hf
from models.hf.load import load_config
from models.named_configs import NAMED_CONFIGS, named_config

# As published on the Hub (the fields that matter here), by repository.
_LLAMA = dict(
    architectures=["LlamaForCausalLM"],
    model_type="llama",
    attention_bias=False,
    mlp_bias=False,
    hidden_act="silu",
    max_position_embeddings=131072,
    num_key_value_heads=8,
    rms_norm_eps=1e-05,
    rope_theta=500000.0,
    vocab_size=128256,
)
_LLAMA_ROPE = dict(
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=8192,
    rope_type="llama3",
)
_QWEN2 = dict(
    architectures=["Qwen2ForCausalLM"],
    model_type="qwen2",
    hidden_act="silu",
    rope_theta=1000000.0,
    use_sliding_window=False,
)
_QWEN3 = dict(
    architectures=["Qwen3ForCausalLM"],
    model_type="qwen3",
    attention_bias=False,
    head_dim=128,
    hidden_act="silu",
    max_position_embeddings=40960,
    num_key_value_heads=8,
    rms_norm_eps=1e-06,
    rope_scaling=None,
    rope_theta=1000000,
    sliding_window=None,
    use_sliding_window=False,
    vocab_size=151936,
)
_DEEPSEEK_V3 = dict(
    architectures=["DeepseekV3ForCausalLM"],
    attention_bias=False,
    aux_loss_alpha=0.001,
    bos_token_id=0,
    eos_token_id=1,
    ep_size=1,
    first_k_dense_replace=3,
    hidden_act="silu",
    hidden_size=7168,
    intermediate_size=18432,
    kv_lora_rank=512,
    max_position_embeddings=163840,
    model_type="deepseek_v3",
    moe_intermediate_size=2048,
    moe_layer_freq=1,
    n_group=8,
    n_routed_experts=256,
    n_shared_experts=1,
    norm_topk_prob=True,
    num_attention_heads=128,
    num_experts_per_tok=8,
    num_hidden_layers=61,
    num_key_value_heads=128,
    num_nextn_predict_layers=1,
    q_lora_rank=1536,
    qk_nope_head_dim=128,
    qk_rope_head_dim=64,
    quantization_config=dict(
        activation_scheme="dynamic", fmt="e4m3", quant_method="fp8", weight_block_size=[128, 128]
    ),
    rms_norm_eps=1e-06,
    rope_scaling=dict(
        beta_fast=32, beta_slow=1, factor=40, mscale=1.0, mscale_all_dim=1.0,
        original_max_position_embeddings=4096, type="yarn",
    ),
    rope_theta=10000,
    routed_scaling_factor=2.5,
    scoring_func="sigmoid",
    seq_aux=True,
    tie_word_embeddings=False,
    topk_group=4,
    topk_method="noaux_tc",
    v_head_dim=128,
    vocab_size=129280,
)  # fmt: skip
PUBLISHED = {
    "deepseek-v3": _DEEPSEEK_V3,
    "llama-3.1-8b": _LLAMA
    | dict(hidden_size=4096, intermediate_size=14336, num_attention_heads=32, num_hidden_layers=32)
    | dict(rope_scaling=_LLAMA_ROPE | {"factor": 8.0}, tie_word_embeddings=False),
    "llama-3.2-1b": _LLAMA
    | dict(hidden_size=2048, intermediate_size=8192, num_attention_heads=32, num_hidden_layers=16)
    | dict(rope_scaling=_LLAMA_ROPE | {"factor": 32.0}, tie_word_embeddings=True, head_dim=64),
    "llama-3.2-3b": _LLAMA
    | dict(hidden_size=3072, intermediate_size=8192, num_attention_heads=24, num_hidden_layers=28)
    | dict(rope_scaling=_LLAMA_ROPE | {"factor": 32.0}, tie_word_embeddings=True, head_dim=128),
    "qwen2.5-0.5b": _QWEN2
    | dict(hidden_size=896, intermediate_size=4864, num_attention_heads=14, num_hidden_layers=24)
    | dict(num_key_value_heads=2, rms_norm_eps=1e-06, tie_word_embeddings=True, vocab_size=151936)
    | dict(max_position_embeddings=32768, max_window_layers=24, sliding_window=32768),
    "qwen2.5-3b": _QWEN2
    | dict(hidden_size=2048, intermediate_size=11008, num_attention_heads=16, num_hidden_layers=36)
    | dict(num_key_value_heads=2, rms_norm_eps=1e-06, tie_word_embeddings=True, vocab_size=151936)
    | dict(max_position_embeddings=32768, max_window_layers=36, sliding_window=32768),
    "qwen2.5-7b": _QWEN2
    | dict(hidden_size=3584, intermediate_size=18944, num_attention_heads=28, num_hidden_layers=28)
    | dict(num_key_value_heads=4, rms_norm_eps=1e-06, tie_word_embeddings=False, vocab_size=152064)
    | dict(max_position_embeddings=131072, max_window_layers=28, sliding_window=131072),
    "qwen2.5-14b": _QWEN2
    | dict(hidden_size=5120, intermediate_size=13824, num_attention_heads=40, num_hidden_layers=48)
    | dict(num_key_value_heads=8, rms_norm_eps=1e-05, tie_word_embeddings=False, vocab_size=152064)
    | dict(max_position_embeddings=131072, max_window_layers=48, sliding_window=131072),
    "qwen2.5-32b": _QWEN2
    | dict(hidden_size=5120, intermediate_size=27648, num_attention_heads=40, num_hidden_layers=64)
    | dict(num_key_value_heads=8, rms_norm_eps=1e-05, tie_word_embeddings=False, vocab_size=152064)
    | dict(max_position_embeddings=131072, max_window_layers=64, sliding_window=131072),
    "qwen3-4b": _QWEN3
    | dict(hidden_size=2560, intermediate_size=9728, num_attention_heads=32, num_hidden_layers=36)
    | dict(tie_word_embeddings=True),
    "qwen3-8b": _QWEN3
    | dict(hidden_size=4096, intermediate_size=12288, num_attention_heads=32, num_hidden_layers=36)
    | dict(tie_word_embeddings=False),
    "qwen3-14b": _QWEN3
    | dict(hidden_size=5120, intermediate_size=17408, num_attention_heads=40, num_hidden_layers=40)
    | dict(tie_word_embeddings=False),
    "qwen3-32b": _QWEN3
    | dict(hidden_size=5120, intermediate_size=25600, num_attention_heads=64, num_hidden_layers=64)
    | dict(tie_word_embeddings=False),
}

# Weights as counted by the publishers, a tied head once.
PARAMETERS = {
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.1-70b": 70_553_706_496,
    "llama-3.3-70b": 70_553_706_496,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-math-1.5b": 1_543_714_304,
    "qwen2.5-math-7b": 7_615_616_512,
    "qwen2.5-3b": 3_085_938_688,
    "qwen2.5-7b": 7_615_616_512,
    "qwen2.5-14b": 14_770_033_664,
    "qwen2.5-32b": 32_763_876_352,
    "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
    "qwen3-14b": 14_768_307_200,
    "qwen3-32b": 32_762_123_264,
    "deepseek-v3": 671_026_419_200,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_named_configs_are_the_published_files(name):
    assert config_from_hf(PUBLISHED[name]) == named_config(name)


@pytest.mark.parametrize("name", NAMED_CONFIGS)
def test_named_configs_have_the_published_number_of_weights(name):
    size = name.removesuffix("-instruct").removesuffix("-base")
    size = "deepseek-v3" if size.startswith("deepseek") else size
    assert NAMED_CONFIGS[name].num_params == PARAMETERS[size]


def test_named_config_takes_changes_and_refuses_unknown_names():
    config = named_config("Qwen2.5-0.5B-Instruct", dtype="bfloat16")
    assert (config.family, config.dtype) == ("qwen2", "bfloat16")
    with pytest.raises(ValueError, match="'qwen9-1b' is unknown; choose one of .*qwen3-8b"):
        named_config("qwen9-1b")


@pytest.mark.parametrize("name", NAMED_CONFIGS)
def test_config_survives_the_way_to_hf_and_back(name):
    config = NAMED_CONFIGS[name].replace(param_dtype="bfloat16")
    fields = config_to_hf(config)
    assert fields["torch_dtype"] == "bfloat16"
    assert config_from_hf(fields, param_dtype="bfloat16") == config


def test_transformers_5_spelling_of_rope():
    fields = dict(PUBLISHED["llama-3.2-1b"])
    theta, scaling = fields.pop("rope_theta"), fields.pop("rope_scaling")
    fields["rope_parameters"] = {**scaling, "rope_theta": theta}
    assert config_from_hf(fields) == named_config("llama-3.2-1b")


def test_old_configs_without_kv_heads_or_rope_theta():
    fields = dict(PUBLISHED["llama-3.1-8b"], rope_scaling=None)
    del fields["num_key_value_heads"], fields["rope_theta"]
    config = config_from_hf(fields)
    assert (config.num_kv_heads, config.rope_theta, config.head_dim) == (32, 10_000.0, 128)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("llama-3.1-8b", {"model_type": "olmo"}, "model_type='olmo' is not supported"),
        ("llama-3.1-8b", {"model_type": None}, "model_type=None is not supported"),
        ("llama-3.1-8b", {"attention_bias": True}, "attention_bias=True .* only False"),
        ("llama-3.1-8b", {"mlp_bias": True}, "mlp_bias=True"),
        ("qwen3-8b", {"attention_bias": True}, "attention_bias=True"),
        ("qwen3-8b", {"hidden_act": "gelu"}, "hidden_act='gelu' .* only 'silu'"),
        ("qwen3-8b", {"quantization_config": {"bits": 4}}, "quantization_config="),
        ("qwen3-8b", {"rope_scaling": {"rope_type": "yarn", "factor": 4}}, "rope_type='yarn'"),
        ("qwen3-8b", {"rope_scaling": {"type": "linear", "factor": 4}}, "rope_type='linear'"),
        ("qwen3-8b", {"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5"),
        ("qwen3-8b", {"architectures": ["Qwen3ForSequenceClassification"]}, "architectures="),
        ("qwen2.5-7b", {"use_sliding_window": True, "max_window_layers": 20}, "use_sliding_window"),
        ("qwen2.5-7b", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        ("llama-3.1-8b", {"hidden_size": None}, "hidden_size is missing"),
        ("llama-3.1-8b", {"num_hidden_layers": "32"}, "num_hidden_layers='32' is not a positive"),
        ("llama-3.1-8b", {"vocab_size": 0}, "vocab_size=0 is not a positive"),
        ("deepseek-v3", {"scoring_func": "softmax"}, "scoring_func='softmax' .* only 'sigmoid'"),
        ("deepseek-v3", {"topk_method": "greedy"}, "topk_method='greedy'"),
        ("deepseek-v3", {"moe_layer_freq": 2}, "moe_layer_freq=2"),
        ("deepseek-v3", {"rope_interleave": False}, "rope_interleave=False"),
        ("deepseek-v3", {"quantization_config": {"quant_method": "awq"}}, "only .*'fp8'"),
        ("deepseek-v3", {"kv_lora_rank": None}, "kv_lora_rank is missing"),
        ("deepseek-v3", {"n_group": 7}, "256 experts do not divide into groups=7"),
        ("deepseek-v3", {"topk_group": 9}, r"groups_per_token=9 is not within 1\.\.8"),
        ("deepseek-v3", {"num_experts_per_tok": 200}, r"per_token=200 is not within 1\.\.128"),
        ("deepseek-v3", {"rope_scaling": {"type": "llama3"}}, "only 'default' and 'yarn'"),
        ("deepseek-v3", {"rope_scaling": {"type": "yarn"}}, r"rope_scaling\.factor is missing"),
        (
            "llama-3.1-8b",
            {"rope_scaling": {"rope_type": "llama3"}},
            r"rope_scaling\.factor is miss",
        ),
    ],
)
def test_what_the_decoder_cannot_do_is_refused_in_one_line(name, changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        config_from_hf(PUBLISHED[name] | changes)
    assert "\n" not in str(caught.value)


def test_settings_without_effect_are_accepted():
    window = {"use_sliding_window": True, "max_window_layers": 28}  # From layer 28 of 28 on.
    assert config_from_hf(PUBLISHED["qwen2.5-7b"] | window) == named_config("qwen2.5-7b")
    default = {"rope_scaling": {"rope_type": "default"}}
    assert config_from_hf(PUBLISHED["qwen3-8b"] | default) == named_config("qwen3-8b")


@pytest.mark.parametrize(
    ("family", "switches"),
    [("llama", {"qkv_bias": True}), ("llama", {"qk_norm": True}), ("qwen2", {}), ("qwen3", {})],
)
def test_export_refuses_what_the_family_does_not_have(family, switches):
    config = ModelConfig(
        family=family,
        vocab_size=8,
        embed_dim=8,
        num_layers=1,
        num_heads=1,
        num_kv_heads=1,
        head_dim=8,
        mlp_dim=8,
        rope_scaling=RopeScaling(2.0, 1.0, 4.0, 8),
        **switches,
    )
    with pytest.raises(ValueError, match="no Hugging Face equivalent"):
        config_to_hf(config)


def test_export_refuses_experts_of_another_family():
    for change in ({"family": "llama"}, {"latent": None}, {"experts": None}):
        message = "no Hugging Face equivalent; (latent|experts) belongs to deepseek_v3"
        with pytest.raises(ValueError, match=message):
            config_to_hf(named_config("deepseek-v3", **change))


def test_unreadable_config_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no config.json"):
        load_config(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"')
    with pytest.raises(ValueError, match="config.json is not valid JSON"):
        load_config(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ValueError, match=f"{tmp_path}: config.json: model_type='gpt2'"):
        load_config(tmp_path)
