"""The recipe's stage `distill`, with a teacher that is untrained and whose text is at hand."""

import dataclasses
import json

import jax
import pytest

from configs import tiny
from launch import recipe, schema
from launch.parts import report, stages
from launch.recipe import world
from launch.schema.tiny import TinyConfig
from models.hf.load import load_config
from reasoning.tasks import get_task


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distill_stage")
    config = tiny.get_config("smoke")
    config.model.num_layers = config.model.scan_unroll = 1
    config.tokenizer.documents = 700
    config.evaluation.problems, config.evaluation.max_new_tokens = 2, 4
    config.distill.base.pretrain.documents = 300
    config.distill.methods = ("sequence", "logit")
    config.distill.problems = {"tiny_math": 8}
    config.distill.data.responses = str(folder / "data.jsonl")
    chats = [
        [{"role": "user", "content": problem.question},
         {"role": "assistant", "content": f"<think>\n\n</think><answer> {problem.answer}</answer>"}]
        for problem in get_task("tiny_math").problems("train", 40, 0)
    ]  # fmt: skip
    (folder / "data.jsonl").write_text("".join(json.dumps({"messages": c}) + "\n" for c in chats))
    config = schema.load(TinyConfig, config)
    (work,) = world.open_workspaces(config, folder, 1)
    params = work.model.init(jax.random.key(0))
    stages.run_stage(work, "r1_zero", {}, lambda directory: stages.publish(work, directory, params))
    return work


def test_the_stage_teaches_a_smaller_student_and_reports_every_method(work):
    stage, directory = recipe.get_stage("distill"), work.stage_directory("distill")
    assert recipe.inputs("distill", work.config.reasoner) == ["r1_zero"]
    stage.check(work)
    result = stage.run(work, directory)
    assert list(result) == ["teacher", "base", "sequence", "logit"]
    for name, arm in result.items():
        assert set(arm) == {"wall_seconds", "params", "train_flops", "metrics"}
        assert (arm["params"] < work.model.config.num_params) == (name != "teacher")
        assert "math/pass@1" in arm["metrics"]
        if name != "teacher":
            exported = load_config(directory / name / "hf")
            assert exported.family == "llama" and exported.num_params == arm["params"]
    # As those of several seeds are put together.
    combined = report.combine_seeds([result, result])
    assert combined["logit"]["metrics"]["format"]["seeds"] == 2
    assert combined["logit"]["params"] == result["logit"]["params"]


def test_faults_are_found_before_any_stage_runs(work):
    section = dataclasses.replace(work.config.distill.data, responses="no/such/file.jsonl")
    config = dataclasses.replace(
        work.config, distill=dataclasses.replace(work.config.distill, data=section)
    )
    with pytest.raises(FileNotFoundError, match="no/such/file.jsonl"):
        recipe.get_stage("distill").check(dataclasses.replace(work, config=config))
