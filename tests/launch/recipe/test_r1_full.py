"""The recipe of full scale: its sections, and the whole chain in two processes on a tiny model."""

import json

import pytest

from configs import r1_full
from launch import recipe, run_make_checkpoint, schema
from launch.schema.small import SmallConfig
from models.checkpoint import load_config
from reasoning.jsonl import read_jsonl
from reasoning.response import parse_response
from reasoning.tasks import get_task
from tests.launch import several_processes as jobs

CHAIN = ("base", "r1_zero", "cold_start", "reasoning_rl", "rejection_sft", "r1")
# Of every problem, so that a model of 10,000 weights learns to answer.
ANSWER = "7"
NEW, ROW = 24, 320
RL = {
    "steps": 2, "prompts": 4, "group": 4, "minibatches": 1, "rows": 16, "microbatches": 2,
    "max_new_tokens": NEW, "row_length": ROW, "sampler_rows": 16, "reward_workers": 1,
    "checkpoint_every": 1, "sample_every": 1,
}  # fmt: skip
SAMPLED = {"samples": 2, "max_new_tokens": NEW, "sampler_rows": 16, "part": 16}
SFT = {"rows": 8, "row_length": ROW, "microbatches": 1, "log_every": 1}
SMALLER = {
    "mesh.tensor": 1, "evaluation.problems": 4, "evaluation.samples": 1, "evaluation.rows": 16,
    "evaluation.max_new_tokens": NEW, "evaluation.tasks.facts": "",
    "rejection_sft.general.problems.facts": 4, "rejection_sft.general.problems.small_talk": 4,
    **{f"{s}.{k}": v for s in ("r1_zero", "reasoning_rl", "r1.rl") for k, v in RL.items()},
    **{
        f"{s}.{k}": v
        for s in ("cold_start", "rejection_sft.reasoning", "rejection_sft.general")
        for k, v in SAMPLED.items()
    },
    **{f"{s}.sft.{k}": v for s in ("cold_start", "rejection_sft") for k, v in SFT.items()},
    # One of the RLs samples with int8 kernels.
    "reasoning_rl.sampler_weights": "int8", "reasoning_rl.loss.tis_cap": 2.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint that answers most problems of `own.jsonl` in the R1 format."""
    folder = tmp_path_factory.mktemp("r1_full")
    problems = folder / "own.jsonl"
    same = {"answer": ANSWER, "solution": "It is seven."}
    records = [{"prompt": f"{a} + {b} =", **same} for a in range(8) for b in range(8)]
    problems.write_text("".join(json.dumps(record) + "\n" for record in records))
    run_make_checkpoint.make_checkpoint(
        folder / "tiny",
        get_task(f"jsonl:{problems}").problems("train", None, 0),
        well_formed=1.0,
        vocab_size=320,
        width=16,
        layers=1,
        seed=0,
    )
    taught = folder / "taught.jsonl"
    taught.write_text("\n".join((folder / "tiny/sft.jsonl").read_text().splitlines()[:2]))
    changes = {
        "data": taught, "rows": 1, "num_epochs": 60, "checkpoint_every": 100, "log_every": 20,
        "optimizer.learning_rate": 1e-2,
    }  # fmt: skip
    jobs.train(folder, jobs.sft(folder, **changes), folder / "taught", 1, devices=1)
    return folder


def command(folder, **changes):
    line = ["launch.run_r1", f"--config=configs/r1_full.py:qwen2.5-7b,jsonl:{folder / 'own.jsonl'}"]
    fields = SMALLER | {"model": folder / "taught/sft/hf"} | changes
    return (*line, *(f"--config.{name}={value}" for name, value in fields.items()))


@pytest.fixture(scope="module")
def ran(folder):
    """The whole chain, in two processes with a device each."""
    workdir = folder / "chain"
    jobs.train(folder, command(folder), workdir, 2, devices=2, timeout=900)
    return workdir


def test_the_whole_chain_runs_in_two_processes_on_a_checkpoint(ran):
    report = json.loads((ran / "report.json").read_text())
    assert tuple(report["stages"]) == CHAIN
    for stage in CHAIN:
        metrics = report["stages"][stage]["metrics"]
        assert {"own/pass@1", "small_talk/sensible"} <= set(metrics)
        assert load_config(ran / "seed_0" / stage / "hf").embed_dim == 16
    kl = {}
    for stage in ("r1_zero", "reasoning_rl"):
        lines = [record for _, record in read_jsonl(ran / f"seed_0/{stage}/metrics.jsonl")]
        assert [line["step"] for line in lines] == [1, 2]
        kl[stage] = lines[0]["first_sampler_kl"]
    # Only rounding lies between the sampler and the trainer, but for the stage with int8 kernels.
    assert kl["r1_zero"] < 1e-6 < kl["reasoning_rl"] < 1e-1
    assert not jobs.written_by_others(ran, 2)


def test_its_data_are_right_responses_of_the_stage_before(ran):
    for stage, kind in (("cold_start", "cold_start"), ("rejection_sft", "rejection_sampling")):
        data = [record for _, record in read_jsonl(ran / f"seed_0/{stage}/data.jsonl")]
        own = [record for record in data if record["task"].startswith("jsonl:")]
        assert own and all(record["answer"] == ANSWER for record in own)
        # They are among those that were sampled, in parts of 16 prompts.
        parts = sorted((ran / f"seed_0/{stage}/sampled").glob(f"{kind}*.jsonl"))
        assert len(parts) == 4
        texts = {
            " ".join(parse_response(text).chain.split())
            for part in parts
            for _, record in read_jsonl(part)
            for text in record["texts"]
            if parse_response(text).well_formed
        }
        assert {" ".join(parse_response(r["response"]).chain.split()) for r in own} <= texts


def test_a_stage_that_was_stopped_goes_on_from_the_parts_that_it_has(folder, ran, capsys):
    """Without its last part, the stage samples that one again, and the data are the same."""
    stage = ran / "seed_0" / "rejection_sft"
    before = (stage / "data.jsonl").read_bytes()
    for name in ("data.jsonl", "result.json", "sampled/rejection_sampling_3.jsonl"):
        (stage / name).unlink()
    kept = {path: path.stat().st_mtime_ns for path in (stage / "sampled").iterdir()}
    jobs.train(folder, (*command(folder), "--stages=rejection_sft"), ran, 1, devices=2)
    assert (stage / "data.jsonl").read_bytes() == before
    assert (stage / "sampled/rejection_sampling_3.jsonl").exists()
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())


@pytest.mark.parametrize("size", r1_full.BASES)
def test_a_section_of_the_recipe_is_the_config_of_its_stage(size):
    config = r1_full.get_config(f"{size},jsonl:data/math.jsonl?test=held.jsonl+gsm8k")
    schema.load(SmallConfig, config)
    assert recipe.stages_of(schema.load(SmallConfig, config)) == CHAIN
    assert set(config.evaluation.tasks) == {"math", "gsm8k", "facts", "small_talk"}
    sections = {
        "r1_zero": config.r1_zero, "reasoning_rl": config.reasoning_rl, "r1_rl": config.r1.rl,
        "cold_start": config.cold_start.sft, "rejection_sft": config.rejection_sft.sft,
    }  # fmt: skip
    for stage, section in sections.items():
        alone = r1_full.get_config(f"{stage},{size}")
        # The first counts tasks here; the second has another name.
        shared = set(section) - {"problems", "epochs" if stage in r1_full.SFT_STAGES else None}
        assert len(shared) >= 8
        for name in shared:
            assert section[name] == alone[name], (stage, name)
        assert config.mesh == alone.mesh


@pytest.mark.parametrize(
    ("stages", "changes", "processes", "message"),
    [
        ("search", {}, 1, "config.search is None: the recipe has no stage search"),
        ("base,search", {}, 2, "run_r1 runs in one process.* its stages base, r1_zero, cold_start"),
        ("base,r1_zero", {"max_prompt_tokens": 3}, 1, "max_prompt_tokens=3 leaves out all"),
        (
            "base",
            {"mesh.context": 2, "mesh.fsdp": 1, "r1_zero.row_length": 321},
            1,
            "r1_zero.row_length=321: must be a multiple of 2",
        ),
    ],
)
def test_mistakes_are_one_line_before_any_work(folder, stages, changes, processes, message):
    workdir = folder / f"mistake_{stages}"
    line = (*command(folder, **changes), f"--stages={stages}")
    with pytest.raises(RuntimeError, match=message) as caught:
        jobs.train(folder, line, workdir, processes, devices=2)
    assert "Traceback" not in str(caught.value)
    assert not list(workdir.glob("seed_0/*/hf"))
