"""The whole recipe on a random checkpoint in GGUF form; right responses are scripted."""

import json
import random

import pytest

from configs import small
from launch import recipe, run_export, schema
from launch.parts import stages
from launch.recipe import runner, sampling, world
from launch.run_make_checkpoint import make_checkpoint
from launch.schema.loading import ConfigError
from launch.schema.small import SmallConfig
from models.checkpoint import load_config
from reasoning.jsonl import read_jsonl
from reasoning.problem import Problem
from reasoning.response import parse_response
from reasoning.tasks import get_task

# One task is enough, since each has workers that take seconds to start.
TASKS = (small.SUMS,)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    problems = get_task(small.SUMS).problems("train", 60, 0)
    make_checkpoint(
        folder / "made", problems, well_formed=0.5, vocab_size=400, width=16, layers=1, seed=0
    )
    run_export.run(str(folder / "made" / "model"), str(folder / "model.gguf"), "f16")
    config = small.get_config("smoke")
    config.model = f"gguf:{folder / 'model.gguf'}"
    config.evaluation.tasks = {"math": small.SUMS, "facts": "facts", "small_talk": "small_talk"}
    for section in ("r1_zero", "cold_start", "reasoning_rl", "verifiers", "distill"):
        config[section].problems = dict.fromkeys(TASKS, 6)
    config.rejection_sft.reasoning.problems = dict.fromkeys(TASKS, 6)
    config.r1.rl.problems = dict.fromkeys(TASKS, 6)
    config.search.task = small.SUMS
    # The prompts of a vocabulary of letters are long.
    for each in (config.r1_zero, config.reasoning_rl, config.r1.rl, config.verifiers):
        each.row_length = 384
    for each in (config.cold_start.sft, config.rejection_sft.sft, config.distill.sequence):
        each.row_length = 384
    config.distill.data.responses = str(folder / "taught.jsonl")
    replies = [(p.question, f"<think>\n\n</think><answer> {p.answer}</answer>") for p in problems]
    taught = [
        {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": reply}]}
        for q, reply in replies
    ]
    (folder / "taught.jsonl").write_text("".join(json.dumps(each) + "\n" for each in taught))
    (made,) = world.open_workspaces(schema.load(SmallConfig, config), folder / "run", 1)
    return made


@pytest.fixture(scope="module")
def results(work):
    """The reports of all stages but the search, whose methods take long to compile."""

    def sample(work, params, prompts, config, purpose, directory, cut_off=True):
        """Instead of a model that knows: a right response, a wrong one, and one that is broken."""
        known = {}
        for task in (*TASKS, "facts", "small_talk"):
            count = 60 if task in TASKS else None
            for problem in get_task(task).problems("train", count, work.seed):
                known[problem.question] = problem
        asked = [next(q for q in sorted(known, key=len)[::-1] if q in p) for p in prompts]
        return [_responses(known[question]) for question in asked]

    names = [name for name in recipe.STAGES if name != "search"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "sample", sample)
        return runner.run_stages(work, names)


def _responses(problem):
    right = problem.answer.partition("|")[0]
    return [
        f"Let me see.\nWe add the numbers.\nThe answer is {right}.",
        "Let me see. The answer is 123456.",
        f"<think> It is {right}. </think> The answer is {right}.",
        f"I think that it is {right}.",
    ]


def test_every_stage_runs_on_a_checkpoint_and_reports(work, results):
    for name in ("base", "r1_zero", "cold_start", "reasoning_rl", "rejection_sft", "r1"):
        metrics = results[name]["metrics"]
        assert {"math/pass@1", "facts/accuracy", "small_talk/sensible"} <= set(metrics)
        assert metrics["facts/accuracy"]["n"] == 50
        assert load_config(work.stage_directory(name) / "hf").family == "qwen2"
    assert "reward_models" not in results["r1"]
    assert results["verifiers"]["labels"]["solutions"] == 12
    distilled = results["distill"]
    student = load_config(work.stage_directory("distill") / "sequence" / "hf")
    assert student.vocab_size == work.model.config.vocab_size and student.family == "llama"
    assert distilled["sequence"]["params"] < distilled["teacher"]["params"]
    assert set(distilled) == {"wall_seconds", "teacher", "base", "sequence"}


def test_free_text_becomes_a_chain_and_an_answer(work, results):
    records = [r for _, r in read_jsonl(work.stage_directory("cold_start") / "data.jsonl")]
    assert records
    for record in records:
        parsed = parse_response(record["response"])
        assert parsed.well_formed and parsed.answer == record["answer"]
        assert parsed.chain.splitlines()[-1].strip() == f"The answer is {record['answer']}."
        assert record["prompt"].endswith("<|im_start|>assistant\n")
    mixed = [r for _, r in read_jsonl(work.stage_directory("rejection_sft") / "data.jsonl")]
    general = [r for r in mixed if r["task"] in ("facts", "small_talk")]
    assert general and all(parse_response(r["response"]).chain == "" for r in general)


def test_what_the_limit_cut_off_is_not_trained_on(work, results, tmp_path):
    """A model that hardly ever ends: almost all of its responses are cut off."""
    config, params = work.config.cold_start, stages.load_stage(work, "base")
    prompts = [f"<|im_start|>user\n{i}<|im_end|>\n<|im_start|>assistant\n" for i in range(8)]
    everything, whole = (
        sampling.sample(work, params, prompts, config, "x", tmp_path / str(cut), cut_off=cut)
        for cut in (True, False)
    )
    assert all(len(group) == config.samples for group in everything)
    assert sum(map(len, whole)) < sum(map(len, everything)) / 2
    assert all(set(group) <= set(all_) for group, all_ in zip(whole, everything, strict=True))


def test_search_and_student_take_the_model_of_the_last_rl():
    for name in ("verifiers", "search", "distill"):
        assert recipe.inputs(name, "r1")[0] == "r1"
        assert recipe.inputs(name)[0] == "r1_zero"
    assert recipe.lineage("search", "r1") == [
        "base", "r1_zero", "cold_start", "reasoning_rl", "rejection_sft", "r1", "verifiers",
        "search",
    ]  # fmt: skip
    assert recipe.lineage("search") == ["base", "r1_zero", "verifiers", "search"]


def test_a_second_run_takes_what_is_complete(work, results, capsys):
    again = runner.run_stages(work, ["base", "r1_zero", "r1"])
    assert again["r1"] == results["r1"]
    assert capsys.readouterr().out.count("complete, taken from") == 3


def test_texts_that_are_no_training_data(work):
    of = world.world_of(work.config)
    problem = Problem(small.SUMS, "1 + 2 =", "3")
    for text in ("", "  \n", "<think> It is 3.", "I do not know.", "Is it <b>3</b>?"):
        assert of.formatted(problem, text, False) == (text, "")
    kept = " <think>\n 1 + 2 is 3.\n</think><answer> 3</answer>"
    assert of.formatted(problem, kept, False) == (kept, "3")


def test_prompts_for_base_models_and_examples_are_the_tiny_worlds(work):
    of = world.world_of(work.config)
    problem = Problem(small.SUMS, "1 + 2 =", "3")
    assert of.solved([problem]) == [] and not of.more_prompts
    with pytest.raises(ValueError, match="set shots to 0"):
        of.examples(random.Random(0), problem, 1)
    config = small.get_config("smoke")
    config.cold_start.shots = 2
    with pytest.raises(ConfigError, match="cold_start.shots=2: must be 0"):
        schema.load(SmallConfig, config)


def test_a_response_longer_than_the_context_is_refused(work, tmp_path):
    config = small.get_config("smoke")
    config.model = work.config.model
    config.evaluation.max_new_tokens = 5000
    with pytest.raises(ValueError, match="evaluation.max_new_tokens=5000 leaves no room"):
        world.open_workspaces(schema.load(SmallConfig, config), tmp_path, 1)


def test_levels_that_are_measured_as_harder_are_not_trained_on():
    config = small.get_config()
    trained = set(small.TRAINED)
    assert set(config.r1_zero.problems) == trained
    # The last RL also keeps the format of other answers.
    assert set(config.r1.rl.problems) - trained == {"facts", "small_talk"}
    for harder in (small.HARDER_SUMS, small.HARDER_TERMS):
        assert harder not in trained and harder in config.evaluation.tasks.values()
