"""The train step of full-scale recipes, compiled for machines that are not at hand."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from configs import distill_full, gsm8k_grpo, r1_full, sft
from launch import run_preflight, schema
from launch.parts import endings, flops
from launch.preflight import check, compiled, cost, hlo, machines, report
from launch.schema.supervised import SftConfig
from models.named_configs import NAMED_CONFIGS

ROOT = Path(__file__).parents[2]
GIB = 2**30
R1 = [
    f"{stage},{size}" for stage in r1_full.SFT_STAGES + r1_full.RL_STAGES for size in r1_full.BASES
]
RECIPES = [r1_full.get_config(arg) for arg in R1]
RECIPES += [distill_full.get_config(arg) for arg in distill_full.STUDENTS]

TINY_MODEL = {
    "model_type": "qwen2", "vocab_size": 256, "hidden_size": 128, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 512,
    "max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}  # fmt: skip
TINY_CONFIG = """
from configs import {module}

def get_config():
    config = {module}.get_config()
    if "group" in config:
        config.prompts, config.group, config.minibatches, config.steps = 8, 4, 1, 100
        config.max_prompt_tokens = config.max_new_tokens = {length} // 2
        config.sampler_rows = 16
    config.rows, config.row_length, config.microbatches = {rows}, {length}, {microbatches}
    config.mesh.update({mesh})
    return config
"""
NEEDS_LIBTPU = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu")


def write_inputs(folder, module, rows, length, mesh, microbatches=2):
    """A config and a model for it; returns the flags that name them."""
    (folder / "config.json").write_text(json.dumps(TINY_MODEL))
    config = folder / "config.py"
    fields = {"rows": rows, "length": length, "microbatches": microbatches}
    config.write_text(TINY_CONFIG.format(module=module, mesh=mesh, **fields))
    return f"--config={config}", f"--model={folder}"


def compile_for(topology, folder, *job):
    """The written result, the folder of programs' texts, and what the process printed."""
    flags = write_inputs(folder, *job)
    output, texts = folder / "out" / "fits.json", folder / "texts"
    command = [
        sys.executable, "-m", "launch.run_preflight", *flags, f"--topology={topology}",
        f"--texts={texts}", f"--output={output}",
    ]  # fmt: skip
    env = os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(output.read_text()), texts, done.stdout + done.stderr


def expected_params():
    c = TINY_MODEL
    d, kv, f = c["hidden_size"], c["hidden_size"] // 2, c["intermediate_size"]
    block = 2 * d * d + 2 * d * kv + d + 2 * kv + 3 * d * f + 2 * d
    return c["num_hidden_layers"] * block + d + 2 * c["vocab_size"] * d


def text_of(texts, program):
    return hlo.parse((texts / f"{program}.hlo").read_text())


def weights_gathered(module, depth):
    """Gathers of parts as large as the smallest matrix of a layer, in so many loops at least."""
    smallest = 4 * TINY_MODEL["hidden_size"] * 32
    found = cost.count(module, devices=8).collectives
    return [c for c in found if c.kind == "all-gather" and c.depth >= depth and c.bytes >= smallest]


@pytest.fixture(scope="module")
def rl_on_8(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rl")
    return compile_for("cpu:8", folder, "gsm8k_grpo", 32, 64, "data=2, fsdp=2, tensor=2")


def test_every_program_of_rl_on_virtual_devices(rl_on_8):
    result, _, printed = rl_on_8
    names = ["train step", "log-probabilities", "weights for sampling", "sampler"]
    assert [program["name"] for program in result["programs"]] == names
    assert result["params"] == expected_params()
    assert result["mesh"] == {"data": 2, "fsdp": 2, "tensor": 2}
    train, logprobs, _, sampler = result["programs"]
    # Weights and two moments in float32 over fsdp and tensor; norms and biases are not split.
    quarter = 4 * expected_params() / 4
    assert quarter < train["arguments"]["weights"] < 1.1 * quarter
    assert 2 * quarter < train["arguments"]["optimizer state"] < 2.2 * quarter
    assert train["held"]["reference policy"] == train["arguments"]["weights"]
    assert train["temporaries"]["gradients"] == train["arguments"]["weights"]
    # The copy for sampling is split over tensor alone, in two bytes a weight.
    assert quarter < sampler["arguments"]["weights for sampling"] < 1.1 * quarter
    assert {"weights", "optimizer state", "reference policy"} == set(sampler["held"])
    # Keys and values of 4 prompts of 32 tokens and 16 responses of up to 32, by 4 x 2 devices.
    columns = (4 * 32 + 16 * 32) * 3 * 2 * 32 * 2 * 2
    assert sampler["temporaries"]["key-value cache"] == pytest.approx(columns / 8, rel=0.05)
    # The reference policy and the recomputed old policy.
    assert (train["runs"], logprobs["runs"]) == (1, 2)
    # Two rounds of 32 tokens, over the one block that 32 columns are.
    assert sampler["cost"]["loops_taken_for"][:2] == [2, 32]
    assert result["fits"] is None and "unknown: no accelerator" in printed
    assert "Prediction, not a measurement" in printed
    # XLA says so where it must replicate an activation to get from one sharding to another.
    assert "rematerialization" not in printed


def test_decoding_gathers_no_weights(rl_on_8):
    _, texts, _ = rl_on_8
    # The loop over rounds, and within it that over tokens, end when the data say so.
    assert weights_gathered(text_of(texts, "sampler"), depth=2) == []
    assert len(cost.count(text_of(texts, "sampler")).unknown_loops) == 2
    # Training gathers weights wherever it uses them, so the test can see them.
    assert len(weights_gathered(text_of(texts, "train_step"), depth=0)) > 7


def small_job(tmp_path, monkeypatch, machine, module="sft", **changes):
    """What `check` finds for one device that shall be `machine`."""
    monkeypatch.setitem(machines.MACHINES, "cpu", machine)
    write_inputs(tmp_path, module, 4, 256, "data=1, fsdp=1, tensor=1")
    config = importlib.import_module(f"configs.{module}").get_config()
    config.update(rows=4, row_length=256, microbatches=2, **changes)
    config = schema.load(SftConfig, config)
    return check.check(config, "cpu:1", str(tmp_path)), config


def test_counted_operations_are_the_analytic_ones(tmp_path, monkeypatch):
    """The CPU's attention computes whole squares, and full rematerialization a fourth pass."""
    machine = machines.Machine(1, 1e12, 1e11, 1e10, 1)
    result, config = small_job(tmp_path, monkeypatch, machine)
    (train,) = result["programs"]
    model = check.model_config_of(str(tmp_path))
    tokens, length = config.rows * config.row_length, config.row_length
    forward = tokens * model.flops_per_token(length)
    head = 2 * tokens * model.vocab_size * model.embed_dim
    # The backward pass is twice the forward pass; only layers are computed again.
    assert train["cost"]["flops"] == pytest.approx(4 * forward - head, rel=0.05)
    # The prediction follows from it.
    assert train["seconds"]["compute"] == pytest.approx(train["cost"]["flops"] / 1e12)
    assert result["seconds"] == max(train["seconds"].values()) and train["bound_by"] == "memory"
    useful = flops.UPDATE * flops.forward(model, [length] * config.rows)
    assert result["mfu"] == pytest.approx(useful / 1e12 / result["seconds"])
    assert result["chip_hours"] == pytest.approx(1000 * result["seconds"] / 3600)
    assert result["fits"] is True
    # What the rows of a microbatch need is in proportion to their number.
    assert result["largest"]["rows of a microbatch"] > 2


def test_a_job_that_does_not_fit(tmp_path, monkeypatch, capsys):
    machine = machines.Machine(0.001, 1e12, 1e11, 1e10, 1)
    result, _ = small_job(tmp_path, monkeypatch, machine)
    assert result["fits"] is False
    report.print_report(result)
    printed = " ".join(capsys.readouterr().out.split())
    assert "fits: NO" in printed and "does not fit: the most of its" in printed
    # The command says it by its exit code.
    with pytest.raises(SystemExit) as left:
        run_preflight.tell(result, None)
    assert left.value.code == endings.FAILED


@NEEDS_LIBTPU
def test_a_tpu_topology(tmp_path):
    result, texts, printed = compile_for(
        "v5e:2x2", tmp_path, "gsm8k_grpo", 32, 1024, "data=1, fsdp=2, tensor=2", 1
    )
    assert (result["device"], result["devices"]) == ("TPU v5 lite", 4)
    assert result["fits"] is True and result["hbm_bytes"] == 16 * GIB
    assert result["peak_bytes"] < GIB and "rematerialization" not in printed
    train, *_, sampler = result["programs"]
    # The sampler's loops over rounds and tokens, and in them no weights that come from elsewhere.
    assert sampler["cost"]["loops_taken_for"][:2] == [2, 512]
    assert weights_gathered(text_of(texts, "sampler"), depth=2) == []
    assert len(weights_gathered(text_of(texts, "train_step"), depth=0)) > 7
    # Attention is the kernel, which stores no scores.
    assert any("splash" in name for name in train["cost"]["kernels"])
    biggest = max(
        array.dims.count(1024)
        for computation in text_of(texts, "train_step").computations.values()
        for each in computation.instructions
        for array in each.arrays
    )
    assert biggest == 1
    assert train["seconds"].keys() == {"compute", "memory", "links"}
    assert 0 < result["mfu_of_train_step"] < 1 and result["chip_hours"] > 0
    model = check.model_config_of(str(tmp_path))
    # Layers are computed again, the head is not.
    head = 2 * 32 * 1024 * model.vocab_size * model.embed_dim
    analytic = 4 * flops.forward(model, [1024] * 32) - head
    assert train["cost"]["flops"] * 4 == pytest.approx(analytic, rel=0.05)


def test_what_the_compiler_says_when_memory_runs_out():
    message = (
        "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory"
        " required for HLO temporaries (20.50G) exceeds available HBM (15.75G). HLO module: x."
    )
    assert compiled.temporary_bytes(message) == int(20.5 * GIB)
    assert compiled.temporary_bytes("INTERNAL: something else") is None


def test_mistakes_are_one_line():
    for topology in ("v5p", "v5p:4x", "cpu:eight"):
        with pytest.raises(ValueError, match="write GENERATION:SHAPE, such as v5p:4x4x4"):
            machines.prepare(topology)
    with pytest.raises(ValueError, match="'v9:2x2' is not available.*pip install 'jax.tpu.'"):
        machines.devices_of("v9:2x2")
    with pytest.raises(ValueError, match="one of the known sizes by --model"):
        check.model_config_of("runs/no/such/checkpoint")


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


def test_a_whole_recipe_is_told_its_stages():
    command = [
        sys.executable,
        "-m",
        "launch.run_preflight",
        "--config=configs/r1_full.py:qwen2.5-7b",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == endings.FAILED and "Traceback" not in done.stderr
    assert "check its stages one at a time, such as configs/r1_full.py:reasoning_rl" in done.stderr
