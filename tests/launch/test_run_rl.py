"""RL and SFT from a checkpoint: what is written, resuming, a user's own parts, bad input."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import huggingface_hub.constants
import jax
import numpy as np
import pytest

from configs import gsm8k_grpo
from configs import sft as sft_config
from launch import run_export, run_make_checkpoint, run_rl, run_sft, schema
from launch.jobs import finetune
from launch.jobs.training import reinforcement
from launch.parts import stages
from launch.parts.endings import Interrupted
from launch.schema.rl import RlConfig
from models.checkpoint import load_model
from reasoning.jsonl import read_jsonl
from reasoning.prompts import R1_SYSTEM
from reasoning.response import parse_response
from reasoning.tasks import get_task
from rl.rewards.table import parse_rewards, user_rewards
from rl.variants import get_variant

ROOT = Path(__file__).parents[2]
STEPS = 3


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A user's problems, a user's reward, and a tiny random checkpoint."""
    folder = tmp_path_factory.mktemp("run_rl")
    records = [
        {"prompt": f"What is {a} plus {b}?", "answer": a + b, "letter": "aeiou"[b % 5]}
        for a in range(10)
        for b in range(10)
    ]
    (folder / "own.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (folder / "own.py").write_text(
        "def letters(prompt, completion, problem):\n"
        "    return completion.count(problem.metadata['letter']) / 4\n"
    )
    run_make_checkpoint.make_checkpoint(
        folder / "tiny",
        get_task(f"jsonl:{folder / 'own.jsonl'}").problems("train", None, 0),
        well_formed=0.3,
        vocab_size=320,
        width=16,
        layers=1,
        seed=0,
    )
    return folder


def _config(files, **changes):
    config = gsm8k_grpo.get_config("tiny")
    config.model = str(files / "tiny" / "model")
    config.task = f"jsonl:{files / 'own.jsonl'}"
    # Neither the format nor a weighted accuracy: a user's reward is enough to train with.
    config.rewards = f"{files / 'own.py'}:letters,accuracy=0"
    config.prompts, config.group, config.steps = 4, 4, STEPS
    config.max_prompt_tokens, config.max_new_tokens = 128, 12
    config.sampler_rows = config.evaluation.rows = 16
    config.evaluation.problems, config.evaluation.problems_during = 6, 4
    config.sample_every = config.checkpoint_every = 1
    config.evaluate_every = 2
    config.optimizer.learning_rate = 1e-2
    config.update_from_flattened_dict(changes)
    return config


def _records(path):
    return [record for _, record in read_jsonl(path)]


def _weights(directory):
    return [np.asarray(x) for x in jax.tree.leaves(load_model(directory).params)]


@pytest.fixture(scope="module")
def finished(files):
    """A run that nothing disturbed."""
    run_rl.run(_config(files), files / "finished")
    return files / "finished"


def test_a_run_leaves_report_metrics_samples_and_a_trained_model(files, finished):
    report = json.loads((finished / "report.json").read_text())
    assert report["config"]["task"] == f"jsonl:{files / 'own.jsonl'}" and report["seeds"] == 1
    assert list(report["stages"]) == ["initial", "rl"]
    for stage in report["stages"].values():
        figures = stage["metrics"]
        assert {"math/pass@1", "format", "response_tokens"} <= set(figures)
        assert figures["math/pass@1"]["n"] == 6 and len(figures["format"]["ci95"]) == 2

    metrics = _records(finished / "rl" / "metrics.jsonl")
    assert [line["step"] for line in metrics] == list(range(1, STEPS + 1))
    # In the middle and at the end.
    assert [line["step"] for line in metrics if "test/math/pass@1" in line] == [2, 3]
    assert {"reward", "letters", "accuracy", "entropy", "grad_norm"} <= set(metrics[0])
    assert (finished / "rl.png").exists() and (finished / "samples.json").exists()
    page = (finished / "report.html").read_text()
    assert "Learning curves" in page and "Samples before and after" in page
    assert "Complete." in page and 'http-equiv="refresh"' not in page

    before, after = _weights(files / "tiny" / "model"), _weights(finished / "rl" / "hf")
    assert any(np.abs(a - b).max() > 1e-4 for a, b in zip(before, after, strict=True))


def test_prompts_are_the_users_problems_in_the_models_chat_template(files, finished):
    asked = {record["prompt"]: record for record in _records(files / "own.jsonl")}
    samples = _records(finished / "rl" / "samples.jsonl")
    assert samples
    for sample in samples:
        begin = f"<|im_start|>system\n{R1_SYSTEM}<|im_end|>\n<|im_start|>user\n"
        end = "<|im_end|>\n<|im_start|>assistant\n"
        question = sample["prompt"].removeprefix(begin).removesuffix(end)
        # The user's reward, worked out here from the user's own record.
        expected = sample["response"].count(asked[question]["letter"]) / 4
        assert sample["reward"] == pytest.approx(expected)
    graded = _records(finished / "rl" / "graded.jsonl")
    trained = {question for sample in samples for question in asked if question in sample["prompt"]}
    assert len(graded) == 6 and not trained & {record["question"] for record in graded}


def test_the_same_command_goes_on_after_a_signal(files, finished, monkeypatch, capsys):
    workdir = files / "interrupted"
    with monkeypatch.context() as patched:
        write = reinforcement._write_samples

        def interrupt(writer, step, rollouts):
            write(writer, step, rollouts)
            if step == 2:
                os.kill(os.getpid(), signal.SIGTERM)

        patched.setattr(reinforcement, "_write_samples", interrupt)
        with pytest.raises(Interrupted, match="SIGTERM after step 2"):
            run_rl.run(_config(files), workdir)
    assert not (workdir / "report.json").exists() and not (workdir / "rl" / "hf").exists()
    page = (workdir / "report.html").read_text()
    assert "Interrupted (SIGTERM after step 2)" in page and 'http-equiv="refresh"' not in page

    run_rl.run(_config(files), workdir)
    assert "initial: complete" in capsys.readouterr().out
    steps = [line["step"] for line in _records(workdir / "rl" / "metrics.jsonl")]
    assert steps == list(range(1, STEPS + 1))
    for a, b in zip(_weights(workdir / "rl" / "hf"), _weights(finished / "rl" / "hf"), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_finished_run_is_not_run_again_and_not_overwritten_by_another(files, finished, capsys):
    before = (finished / "rl" / "result.json").read_bytes()
    run_rl.run(_config(files), finished)
    assert "rl: complete" in capsys.readouterr().out
    with pytest.raises(ValueError, match="another config"):
        run_rl.run(_config(files, seed=1), finished)
    assert (finished / "rl" / "result.json").read_bytes() == before


@pytest.mark.parametrize(
    "changes, fault",
    [
        ({"model": "no/such/folder"}, "does not exist"),
        ({"model": "hf://Qwen/Qwen2.5-0.5B-Instruct"}, "cannot be downloaded"),
        ({"task": "gsm8k?data_dir=no/such/folder"}, "no GSM8K"),
        ({"task": "jsonl:no/such/file.jsonl"}, "no such file"),
        ({"task": "gsm9k"}, "unknown task"),
        ({"template": "chatty"}, "config.template='chatty': must be one of"),
        ({"row_length": 100}, "config.row_length=100: has no room"),
        ({"rows": 8}, "config.rows=8"),
        ({"rows": 20, "microbatches": 3}, "microbatches"),
        ({"max_prompt_tokens": 8}, "max_prompt_tokens=8"),
        ({"max_new_tokens": 1000}, "the model's context"),
        ({"evaluation.max_new_tokens": 1000}, "the model's context"),
        ({"rewards": "no_such_file.py:letters"}, "does not exist"),
        ({"rewards": "acuracy=1"}, "unknown reward"),
        ({"variant": "ppo"}, "config.variant='ppo': must be one of"),
        ({"loss.kl_estimator": "k1"}, "k1"),
        ({"optimizer.schedule": "cosin"}, "did you mean cosine?"),
        ({"mesh.data": 3}, "mesh"),
        ({"dtype": "float33"}, "float33"),
    ],
)
def test_bad_input_is_one_line_before_any_work(files, tmp_path, monkeypatch, changes, fault):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises((ValueError, OSError)) as error:
        run_rl.run(_config(files, **changes), tmp_path / "run")
    assert fault in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "run" / "initial").exists()


def test_a_tokenizer_without_chat_template_is_refused(files, tmp_path):
    shutil.copytree(files / "tiny" / "model", tmp_path / "model")
    (tmp_path / "model" / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match="no chat template"):
        run_rl.run(_config(files, model=str(tmp_path / "model")), tmp_path / "run")


def test_fields_of_a_users_config_file_are_checked(files, tmp_path):
    config = _config(files)
    with config.unlocked():
        config.stepz = 3
    with pytest.raises(ValueError, match="stepz is unknown"):
        run_rl.run(config, tmp_path)
    with config.unlocked():
        del config.stepz, config.prompts
    with pytest.raises(ValueError, match="prompts is missing"):
        run_rl.run(config, tmp_path)


def test_sizes_that_follow_from_others_follow_overrides():
    config = gsm8k_grpo.get_config()
    config.prompts, config.group, config.minibatches = 10, 7, 2
    config.max_new_tokens, config.task = 100, "math500:FILE"
    assert config.rows >= 35 and config.rows % config.microbatches == 0
    assert config.row_length == config.max_prompt_tokens + 100
    assert config.evaluation.max_new_tokens == 100
    assert config.evaluation.tasks.math == "math500:FILE"
    # The other way round nothing follows.
    config.evaluation.max_new_tokens, config.evaluation.tasks.math = 7, "gsm8k"
    assert config.max_new_tokens == 100 and config.task == "math500:FILE"


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"variant": "dapo"}, {"beta": 0.0, "clip_high": 0.28}),
        ({"variant": "dapo", "loss.beta": 0.1}, {"beta": 0.1, "clip_high": 0.28}),
        ({"loss.clip_high": 0.4}, {"beta": 0.001, "clip_high": 0.4}),
        ({"loss.tis_cap": 2.0, "recompute_old": True}, {"tis_cap": 2.0, "clip_high": 0.2}),
        ({"loss.ratio_level": "sequence", "loss.dual_clip": 3.0}, {"dual_clip": 3.0}),
        ({"loss.objective": "cispo"}, {"objective": "cispo", "ratio_level": "token"}),
    ],
)
def test_a_variant_keeps_its_settings_unless_they_are_set(files, changes, expected):
    overrides = schema.load(RlConfig, _config(files, **changes)).overrides()
    variant = get_variant(changes.get("variant", "grpo"), **overrides)
    assert {name: getattr(variant.loss, name) for name in expected} == expected


def test_options_of_the_algorithm_reach_the_training(files):
    config = schema.load(RlConfig, _config(files, **{
        "dynamic_sampling": True, "aggregation": "constant", "advantage.estimator": "rloo",
        "max_resamples": 2,
    }))  # fmt: skip
    work = finetune._open(config, files / "tiny" / "model", files)
    problems = get_task(config.task).problems("train", 8, 0)
    plan = reinforcement.plan_reinforce(work, problems, config)
    assert plan.variant.dynamic_sampling and plan.variant.aggregation == "constant"
    assert plan.variant.advantage.estimator == "rloo" and plan.learner.max_resamples == 2


@pytest.mark.parametrize("epochs, steps", [(1.0, 2), (3.0, 6), (0.1, 1), (2.5, 5)])
def test_steps_follow_the_problems_unless_they_are_set(files, epochs, steps):
    changes = {"prompts": 4, "data_epochs": epochs}
    config = _config(files, **changes)
    assert schema.load(RlConfig, config).num_steps(8) == STEPS
    config.steps = None
    assert schema.load(RlConfig, config).num_steps(8) == steps
    config.minibatches = 2
    assert schema.load(RlConfig, config).num_steps(8) == 2 * steps


def test_more_steps_on_a_finished_run_go_on_from_there(files, finished, tmp_path, capsys):
    workdir = tmp_path / "run"
    run_rl.run(_config(files, steps=2), workdir)
    run_rl.run(_config(files, steps=STEPS), workdir)
    assert f"rl: goes on from steps=2 to {STEPS}" in capsys.readouterr().out
    for a, b in zip(_weights(workdir / "rl" / "hf"), _weights(finished / "rl" / "hf"), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match=f"steps is {STEPS} there and 2 here"):
        run_rl.run(_config(files, steps=2), workdir)
    with pytest.raises(ValueError, match="group is 4 there and 8 here, 1 more|group is 4 there"):
        run_rl.run(_config(files, group=8), workdir)


def test_a_changed_data_file_is_noticed(files, finished, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(finished, workdir)
    path = files / "own.jsonl"
    content = path.read_bytes()
    path.write_bytes(content + b'{"prompt": "What is 1 plus 99?", "answer": 100, "letter": "a"}\n')
    try:
        with pytest.raises(ValueError, match=r"data_sha256.*own.jsonl is '\w+' there and '\w+'"):
            run_rl.run(_config(files), workdir)
    finally:
        path.write_bytes(content)


def test_a_users_reward_is_measured_on_held_out_problems(files, finished):
    report = json.loads((finished / "report.json").read_text())
    letters = {record["prompt"]: record["letter"] for record in _records(files / "own.jsonl")}
    for stage in ("initial", "rl"):
        graded = _records(finished / stage / "graded.jsonl")
        earned = [g["response"].count(letters[g["question"]]) / 4 for g in graded]
        figure = report["stages"][stage]["metrics"]["reward/letters"]
        assert figure["mean"] == pytest.approx(np.mean(earned)) and figure["n"] == 6
        assert "reward/accuracy" not in report["stages"][stage]["metrics"]
    lines = _records(finished / "rl" / "metrics.jsonl")
    assert [line["step"] for line in lines if "test/reward/letters" in line] == [2, 3]


def test_a_path_of_a_reward_may_have_an_equals_sign(files, tmp_path):
    (tmp_path / "a=b").mkdir()
    path = shutil.copy(files / "own.py", tmp_path / "a=b" / "own.py")
    assert [w for w, _ in parse_rewards(f"{path}:letters,format=0.5").values()] == [1.0, 0.5]
    assert [w for w, _ in parse_rewards(f"{path}:letters=0.3").values()] == [0.3]
    assert list(user_rewards(f"{path}:letters=0.3,format=1")) == [f"{path}:letters"]


def test_sft_learns_from_a_file_and_exports(files, tmp_path):
    config = sft_config.get_config("tiny")
    config.model, config.data = str(files / "tiny" / "model"), str(files / "tiny" / "sft.jsonl")
    config.rows, config.num_epochs, config.log_every = 4, 2, 1
    run_sft.run(config, tmp_path / "run")
    losses = [line["loss"] for line in _records(tmp_path / "run" / "sft" / "metrics.jsonl")]
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])
    assert load_model(tmp_path / "run" / "sft" / "hf").tokenizer.template
    config.row_length = 4096
    with pytest.raises(ValueError, match="row_length=4096 exceeds the model's context of"):
        run_sft.run(config, tmp_path / "long")
    config.row_length = 320
    for data, fault in [
        ("", "config.data is empty"),
        (str(tmp_path / "none.jsonl"), "does not exist"),
    ]:
        config.data = data
        with pytest.raises((ValueError, OSError), match=fault):
            run_sft.run(config, tmp_path / "another")


def test_training_from_a_gguf_file_is_the_same(files, tmp_path):
    """The same weights and tokens in another kind of file."""
    file = tmp_path / "model.gguf"
    run_export.run(str(files / "tiny" / "model"), str(file), "f32")
    config = sft_config.get_config("tiny")
    config.data, config.rows, config.num_epochs = str(files / "tiny" / "sft.jsonl"), 4, 1
    trained = []
    for i, model in enumerate([str(files / "tiny" / "model"), f"gguf:{file}"]):
        config.model = model
        run_sft.run(config, tmp_path / str(i))
        trained.append(_weights(tmp_path / str(i) / "sft" / "hf"))
    for a, b in zip(*trained, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="exists; remove it, give another --output"):
        run_export.run(str(files / "tiny" / "model"), str(file), "f16")


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_chats_keep_or_break_the_format_as_asked(files, share):
    problems = get_task(f"jsonl:{files / 'own.jsonl'}").problems("train", None, 0)
    chats = run_make_checkpoint.make_chats(problems, share, seed=0)
    formed = [parse_response(chat["messages"][-1]["content"]).well_formed for chat in chats]
    assert np.mean(formed) == share


@pytest.mark.parametrize(
    "flag, fault",
    [
        ("--config.model=no/such/folder", "'no/such/folder' does not exist"),
        ("--config.stepz=3", "no field 'stepz'"),
    ],
)
def test_errors_of_the_command_line_are_one_line(tmp_path, flag, fault):
    done = subprocess.run(
        [sys.executable, "-m", "launch.run_rl", "--config=configs/gsm8k_grpo.py:tiny",
         "--config.rewards=accuracy=1", "--config.problems=3", "--config.loss.beta=0.1",
         f"--workdir={tmp_path}", flag],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and fault in errors[0]


def test_a_stage_killed_after_its_export_is_done_again(files, tmp_path):
    config = _config(files, **{"evaluation.tasks.math": ""})
    model = files / "tiny" / "model"
    work = finetune._open(schema.load(RlConfig, config), model, tmp_path)
    (tmp_path / "rl" / "hf").mkdir(parents=True)
    params = load_model(model).params
    result = stages.run_stage(
        work, "rl", {}, lambda directory: stages.publish(work, directory, params)
    )
    assert result["metrics"] == {} and (tmp_path / "rl" / "result.json").exists()
    for a, b in zip(_weights(tmp_path / "rl" / "hf"), _weights(model), strict=True):
        np.testing.assert_array_equal(a, b)
