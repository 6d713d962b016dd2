"""The train step of full-scale recipes, compiled for machines that are not at hand."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from configs import distill_full, gsm8k_grpo, r1_full, sft
from launch import run_preflight
from models.named_configs import NAMED_CONFIGS

ROOT = Path(__file__).parents[2]
GIB = 2**30
R1 = [
    f"{stage},{size}" for stage in r1_full.SFT_STAGES + r1_full.RL_STAGES for size in r1_full.BASES
]
RECIPES = [r1_full.get_config(arg) for arg in R1]
RECIPES += [distill_full.get_config(arg) for arg in distill_full.STUDENTS]

TINY_MODEL = {
    "model_type": "qwen2", "vocab_size": 512, "hidden_size": 128, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 256,
    "max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}  # fmt: skip
TINY_CONFIG = """
from configs import {module}

def get_config():
    config = {module}.get_config()
    if "group" in config:
        config.prompts, config.group, config.minibatches = 4, 2, 1
        config.max_prompt_tokens = config.max_new_tokens = {length} // 2
    config.rows, config.row_length, config.microbatches = {rows}, {length}, 1
    config.mesh.update(data=2, fsdp=2, tensor=2)
    return config
"""


def compile_for(topology, tmp_path, module="sft", layers=3, rows=8, length=256):
    """The written result and what the process printed."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(TINY_MODEL | {"num_hidden_layers": layers}))
    config, output = tmp_path / "config.py", tmp_path / "out" / "fits.json"
    config.write_text(TINY_CONFIG.format(module=module, rows=rows, length=length))
    command = [
        sys.executable, "-m", "launch.run_preflight", f"--config={config}",
        f"--topology={topology}", f"--model={model}", f"--output={output}",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(output.read_text()), done.stdout + done.stderr


def expected_params():
    c = TINY_MODEL
    d, kv, f = c["hidden_size"], c["hidden_size"] // 2, c["intermediate_size"]
    block = 2 * d * d + 2 * d * kv + d + 2 * kv + 3 * d * f + 2 * d
    return c["num_hidden_layers"] * block + d + 2 * c["vocab_size"] * d


@pytest.mark.parametrize("module", ["sft", "gsm8k_grpo"])
def test_virtual_devices(tmp_path, module):
    result, printed = compile_for("cpu:8", tmp_path, module)
    assert result["params"] == expected_params()
    assert result["mesh"] == {"data": 2, "fsdp": 2, "tensor": 2}
    # Weights and two moments in float32 over fsdp and tensor; norms and biases are not split.
    quarter = 3 * 4 * expected_params() / 4
    assert quarter < result["state_bytes"] < 1.1 * quarter
    is_rl = module == "gsm8k_grpo"
    assert result["objective"] == ("rl" if is_rl else "sft")
    assert (result["reference_bytes"] > quarter / 3) == is_rl
    assert result["peak_bytes"] > result["state_bytes"] + result["reference_bytes"]
    assert result["fits"] is None and "unknown: no accelerator" in printed
    # A multiply and an add for each weight and token, three times, and attention on top of it.
    products = 6 * (expected_params() - TINY_MODEL["vocab_size"] * 128) * 8 * 256
    assert products < result["flops"] < 1.6 * products
    # XLA says so where it must replicate an activation to get from one sharding to another.
    assert "rematerialization" not in printed


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu")
def test_a_tpu_topology(tmp_path):
    result, printed = compile_for("v5e:2x4", tmp_path)
    assert (result["device"], result["devices"]) == ("TPU v5 lite", 8)
    assert result["fits"] is True and result["hbm_bytes"] == 16 * GIB
    assert result["state_bytes"] < result["peak_bytes"] < GIB
    assert "rematerialization" not in printed


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu")
def test_a_step_that_does_not_fit(tmp_path):
    """Rows so long that the saved activations alone exceed the memory: a layer's inputs are
    4 rows x 2^20 tokens x 128 x 2 bytes = 1 GiB on each of 2 shards, and there are 20 layers."""
    result, printed = compile_for("v5e:2x4", tmp_path, layers=20, rows=16, length=2**20)
    assert result["fits"] is False and "NO" in printed
    assert result["peak_bytes"] > 16 * GIB


def test_what_the_compiler_says_when_memory_runs_out():
    message = (
        "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory"
        " required for HLO temporaries (20.50G) exceeds available HBM (15.75G). HLO module: x."
    )
    assert run_preflight._temporary_bytes(message) == int(20.5 * GIB)
    assert run_preflight._temporary_bytes("INTERNAL: something else") is None


def test_mistakes_are_one_line():
    for topology in ("v5p", "v5p:4x", "cpu:eight"):
        with pytest.raises(ValueError, match="write GENERATION:SHAPE, such as v5p:4x4x4"):
            run_preflight.prepare(topology)
    with pytest.raises(ValueError, match="'v9:2x2' is not available.*pip install libtpu"):
        run_preflight._devices("v9:2x2")
    with pytest.raises(ValueError, match="one of the known sizes by --model"):
        run_preflight._model_config("runs/no/such/checkpoint")


@pytest.mark.parametrize("config", RECIPES, ids=R1 + list(distill_full.STUDENTS))
def test_recipes_have_the_fields_that_their_entry_point_reads(config):
    known = gsm8k_grpo.get_config() if "variant" in config else sft.get_config()
    assert set(config) == set(known)
    for name in ("optimizer", "evaluation", "mesh"):
        assert set(config[name]) <= set(known[name]) | {"b2"}
    # Rows divide over 64 devices, or 512, and the heads of the model over those that share a row.
    size = config.model.rpartition("/")[2].lower()
    shards = (512 if config.mesh.tensor == 8 else 64) // config.mesh.tensor
    assert config.rows % (shards * config.microbatches) == 0
    if size in NAMED_CONFIGS:
        heads = NAMED_CONFIGS[size].num_heads, NAMED_CONFIGS[size].num_kv_heads
        assert all(count % config.mesh.tensor == 0 for count in heads)


def test_published_numbers_of_r1():
    config = r1_full.get_config("reasoning_rl,qwen2.5-7b")
    assert config.prompts * config.group == 8192 and config.minibatches == 16
    assert config.prompts * config.group // config.minibatches == config.rows == 512
    assert (config.optimizer.learning_rate, config.loss.beta, config.loss.clip_high) == (
        3e-6, 0.001, 10
    )  # fmt: skip
    assert (config.max_new_tokens, config.temperature, config.reference_every) == (32768, 1.0, 400)
    last = r1_full.get_config("r1_rl,qwen2.5-7b")
    assert (last.temperature, last.steps) == (0.7, 1700)
    assert r1_full.get_config("r1_zero,qwen2.5-32b").optimizer.learning_rate == 2e-6
    # The paper's own model differs in where it runs alone.
    own = r1_full.get_config("reasoning_rl,deepseek-v3")
    assert (own.mesh.tensor, own.microbatches) == (8, 8)
    assert {key for key in config if config[key] != own[key]} == {"mesh", "microbatches"}
    assert r1_full.get_config("r1_zero,deepseek-v3").model == "hf://deepseek-ai/DeepSeek-V3-Base"
    cold = r1_full.get_config("cold_start,qwen2.5-7b")
    assert (cold.rows, cold.row_length, cold.optimizer.learning_rate) == (128, 32768, 5e-5)
    assert cold.optimizer.final_fraction == 0.1
    student = distill_full.get_config("llama-3.3-70b-instruct")
    assert (student.rows, student.optimizer.learning_rate) == (64, 2e-5)


@pytest.mark.parametrize(
    ("make", "arg", "message"),
    [
        (r1_full, "cold_start,deepseek-v2", "a size of qwen2.5-7b, qwen2.5-32b, deepseek-v3"),
        (r1_full, "cold_start", "STAGE,SIZE"),
        (r1_full, "warm_start,qwen2.5-7b", "STAGE,SIZE"),
        (distill_full, "qwen2.5-7b", "comes one of qwen2.5-math-1.5b"),
    ],
)
def test_unknown_recipes(make, arg, message):
    with pytest.raises(ValueError, match=message) as caught:
        make.get_config(arg)
    assert "\n" not in str(caught.value)
