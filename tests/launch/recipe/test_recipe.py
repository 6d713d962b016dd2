"""The stages that train on samples, with sampling scripted: what they keep, write and pass on."""

import dataclasses
import random
from collections import Counter

import jax
import numpy as np
import pytest

from configs import tiny
from launch import recipe, schema
from launch.jobs.training import reinforcement
from launch.parts import report, stages
from launch.recipe import preferences, runner, sampling, world
from launch.recipe.stages import cold_start, r1
from launch.schema.fields import fields_of
from launch.schema.small import SmallConfig
from launch.schema.tiny import TinyConfig
from models.hf.load import load_scalar_model
from reasoning.jsonl import read_jsonl, write_jsonl
from reasoning.response import parse_response
from reasoning.statistics import mean_with_ci
from reasoning.tasks import get_task
from reasoning.text_measures.reflection import count_self_checks
from reasoning.tiny_world import chat, corpus, domains
from reasoning.tiny_world.language import LANGUAGES, consistency
from reasoning.training_data.curation import Decontaminator
from reasoning.verifiers.scalar import SequenceScorer


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A workspace whose base, R1-Zero and reasoning RL are untrained models."""
    config = tiny.get_config("smoke")
    config.model.num_layers = config.model.scan_unroll = 1
    config.pretrain.documents, config.tokenizer.documents = 700, 700
    config.evaluation.problems = 2
    config.evaluation.max_new_tokens = 4
    config.cold_start.problems = {"tiny_math": 12, "tiny_logic": 12}
    config.rejection_sft.reasoning.problems = {"tiny_math": 16, "tiny_logic": 16}
    config.rejection_sft.general.problems = {"tiny_knowledge": 8, "tiny_chat": 8}
    config.r1.harmless_problems = {"tiny_math": 4}
    for block in (config.cold_start.sft, config.rejection_sft.sft, config.r1.reward_model):
        block.rows, block.log_every = 4, 1
    config = schema.load(TinyConfig, config)
    (work,) = world.open_workspaces(config, tmp_path_factory.mktemp("recipe"), 1)
    for name in ("base", "r1_zero", "reasoning_rl"):
        params = work.model.init(jax.random.key(0))
        stages.run_stage(
            work,
            name,
            runner.settings_of(work, name),
            lambda directory, params=params: stages.publish(work, directory, params),
        )
    return work


def scripted(work, purposes=None):
    """In the place of `sampling.sample`: right, wrong and unreadable responses to each prompt."""

    def sample(work, params, prompts, config, purpose, directory, cut_off=True):
        if purposes is not None:
            purposes.append(purpose)
        rng, known = random.Random(0), _problems(work)
        asked = [prompt.rpartition("User: ")[2].partition("\n")[0] for prompt in prompts]
        return [_responses(rng, known[question]) for question in asked]

    return sample


def _problems(work):
    tasks = {"tiny_math": 40, "tiny_logic": 40, "tiny_knowledge": None, "tiny_chat": None}
    return {
        problem.question: problem
        for task, count in tasks.items()
        for problem in get_task(task).problems("train", count, work.seed)
    }


def _responses(rng, problem):
    code = problem.metadata["language"]
    language = LANGUAGES[code]
    other = LANGUAGES["de" if code == "en" else "en"]
    if problem.task == "tiny_chat":
        name = problem.metadata["name"]
        rude = rng.choice(language.rude_replies).format(name)
        return [f" {problem.answer}", f" {rude}", f" {language.curt_replies[1]}", " 3\n 4"]
    *lines, answer = domains.solution_lines(problem, [language], rng)
    mixed = [*domains.solution_lines(problem, [other], rng)[:-1], *lines]
    checked = [*lines, language.self_check.format(lines[-1])]
    return [
        corpus.tagged(lines, "0"),
        corpus.tagged(lines, answer),
        corpus.tagged(mixed, answer),
        corpus.tagged(checked, answer),
        f" {answer}",
        " ".join(lines),
    ]


def lines(path):
    return [record for _, record in read_jsonl(path)]


@pytest.fixture(scope="module")
def cold_started(work):
    purposes = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "sample", scripted(work, purposes))
        runner.run_stages(work, ["cold_start"])
    assert purposes == ["cold start"]
    return work.stage_directory("cold_start")


def _graded_by_hand(record):
    """Right, well formed, one step a line, and all in the question's language."""
    task = get_task(record["task"])
    problem = next(p for p in task.problems("train", None if "know" in task.name or "chat" in
                   task.name else 40, 0) if p.question == record["question"])  # fmt: skip
    parsed = parse_response(record["response"])
    share = consistency(parsed.chain, problem.metadata["language"])
    return parsed, problem, share in (None, 1.0)


def test_cold_start_data_are_right_readable_and_long_first(work, cold_started):
    records = lines(cold_started / "data.jsonl")
    (counts,) = lines(cold_started / "curation.json")
    assert counts["sampled"] == 24 * 6 and counts["kept"] == len(records)
    assert counts["wrong"] > 0 and counts["mixed languages"] > 0
    per_question = Counter(record["question"] for record in records)
    # The checked chain always, which is longer; the plain one where it differs by enough.
    assert set(per_question.values()) == {1, 2} and len(per_question) == 24
    checks = []
    for record in records:
        parsed, problem, one_language = _graded_by_hand(record)
        assert parsed.well_formed and parsed.answer == problem.answer and one_language
        # Trained on behind the bare question, not behind the examples it was sampled with.
        assert record["prompt"] == f"User: {problem.question}\nAssistant:"
        checks.append(count_self_checks(parsed.chain))
    assert sum(checks) == 24
    losses = [r["loss"] for r in lines(cold_started / "metrics.jsonl")]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("count", [0, 2])
def test_cold_start_prompts_show_worked_examples_in_the_questions_language(work, count):
    shown = dataclasses.replace(work.config.cold_start, shots=count)
    config = dataclasses.replace(work.config, cold_start=shown)
    work = dataclasses.replace(work, config=config)
    problems = world.training_problems(work, config.cold_start.problems)
    for problem, prompt in zip(problems, cold_start._prompts(work, problems), strict=True):
        *shots, asked = prompt.split("User: ")[1:]
        assert len(shots) == count
        assert asked == f"{problem.question}\nAssistant:"
        for shot in shots:
            response = shot.partition("\nAssistant:")[2]
            assert consistency(parse_response(response).chain, problem.metadata["language"]) == 1
            assert count_self_checks(response)
        assert problem.question not in "".join(shots)


def test_data_on_disk_are_not_sampled_again(work, cold_started, monkeypatch, capsys):
    """A stage that was killed after its sampling goes on with what it had sampled."""

    def never(*arguments):
        raise AssertionError("sampled again")

    monkeypatch.setattr(sampling, "sample", never)
    before = (cold_started / "data.jsonl").read_bytes()
    (cold_started / stages.RESULT_FILE).unlink()
    runner.run_stages(work, ["cold_start"])
    assert (cold_started / "data.jsonl").read_bytes() == before
    runner.run_stages(work, ["cold_start"])
    assert "cold_start: complete" in capsys.readouterr().out


def test_a_policy_that_solves_nothing_stops_the_stage(work, tmp_path):
    with pytest.raises(ValueError, match="no sample is fit for .*data.jsonl"):
        sampling.once(tmp_path / "data.jsonl", lambda: [])
    assert not (tmp_path / "data.jsonl").exists()


@pytest.fixture(scope="module")
def rejected(work, cold_started):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "sample", scripted(work))
        runner.run_stages(work, ["rejection_sft"])
    return work.stage_directory("rejection_sft")


def test_rejection_data_are_three_parts_reasoning_and_one_of_knowledge_and_talk(rejected):
    records = lines(rejected / "data.jsonl")
    general = [r for r in records if r["task"] in ("tiny_knowledge", "tiny_chat")]
    assert general and len(records) == 4 * len(general)
    assert {r["task"] for r in general} == {"tiny_knowledge", "tiny_chat"}
    for record in records:
        parsed, problem, one_language = _graded_by_hand(record)
        assert parsed.well_formed and one_language and not chat.is_harmful(record["response"])
        if problem.task != "tiny_chat":
            assert parsed.answer == problem.answer
        if record["task"] in ("tiny_math", "tiny_logic"):
            assert len(parsed.chain.splitlines()) >= 2
    # What the base answers without a chain is put into the format, with none.
    assert any(parse_response(r["response"]).chain == "" for r in general)
    assert len({(r["question"], r["response"]) for r in records}) == len(records)


def test_a_recollection_of_something_else_is_no_training_text(work):
    (problem,) = get_task("tiny_knowledge").problems("train", 1, 0)
    told = f" <think>\n{{}}\n</think><answer> {problem.answer}</answer>"
    right, wrong, none = (
        sampling.verify(work, [problem], [[told.format(chain)]], bare_answers=True)[0]
        for chain in (problem.metadata["told"], "The capital of Utopia is Nowhere.", "")
    )
    assert right.correct and wrong.correct and none.correct
    of_world = world.world_of(work.config)
    judged = [of_world.judged(each).correct for each in (right, wrong, none)]
    assert judged == [True, False, True]


def test_evaluation_questions_are_left_out(work):
    clean = sampling.decontaminator(work, 13)
    assert isinstance(clean, Decontaminator)
    for _, problems in stages.evaluation_problems(work.config.evaluation, 0).values():
        assert all(clean.shared(f"Well, {problem.question}") for problem in problems)
    training = get_task("tiny_math").problems("train", 40, 0)
    assert sum(clean.shared(p.question) is None for p in training) > 30


def test_pairs_for_the_reward_models(work):
    talk = get_task("tiny_chat").problems("train", 30, 0)
    replies = [_responses(random.Random(0), problem) for problem in talk]
    pairs = preferences.helpful_pairs(work, talk, replies)
    friendly = {problem.answer for problem in talk}
    of_friendly = [p for p in pairs if {p["chosen"].strip(), p["rejected"].strip()} & friendly]
    chosen = np.mean([pair["chosen"].strip() in friendly for pair in of_friendly])
    assert len(of_friendly) > 60 and chosen == pytest.approx(0.9, abs=0.1)
    formatted = [[corpus.tagged(["hm"], problem.answer)] for problem in talk]
    pairs = preferences.harmless_pairs(work, talk, formatted)
    assert len(pairs) == len(talk)
    places = Counter()
    for pair in pairs:
        assert not chat.is_harmful(pair["chosen"]) and chat.is_harmful(pair["rejected"])
        parsed = parse_response(pair["rejected"])
        assert parsed.well_formed
        places["answer" if chat.is_harmful(parsed.answer) else "chain"] += 1
    assert min(places["answer"], places["chain"]) > 5


def test_reward_models_learn_their_pairs_and_are_kept(work):
    talk = get_task("tiny_chat").problems("train", 40, 0)
    formatted = [[corpus.tagged([], problem.answer)] for problem in talk]
    pairs = preferences.harmless_pairs(work, talk, formatted)
    config = dataclasses.replace(work.config.r1.reward_model, epochs=15)
    params = stages.load_stage(work, "base")
    before = [np.asarray(x) for x in jax.tree.leaves(params)]
    made = []

    def make():
        made.append(len(pairs))
        return pairs

    directory = work.stage_directory("reward_models") / "harmless"
    for _ in range(2):
        figure = preferences.train_reward_model(work, params, make, config, directory)
    assert made == [len(pairs)] and figure["n"] == 4
    for old, new in zip(before, jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(old, np.asarray(new))  # the policy's are left alone
    model, trained, tokenizer = load_scalar_model(directory / "hf")
    scorer = SequenceScorer(model, trained)

    def scores(name):
        prompts, texts = (tokenizer.encode_batch([p[k] for p in pairs]) for k in ("prompt", name))
        read = [[*a, *b, tokenizer.eos_id] for a, b in zip(prompts, texts, strict=True)]
        return np.array([x[-1] for x in scorer(read)])

    right = scores("chosen") > scores("rejected")
    assert np.mean(right[:-4]) > 0.9 and figure["mean"] == np.mean(right[-4:])


def test_r1_trains_reward_models_and_gives_them_to_its_rl(work, rejected, monkeypatch):
    asked, plans = [], []

    def train(work, params, make_pairs, config, directory):
        asked.append((directory.name, len(make_pairs())))
        return {"mean": 1.0}

    def plan(work, problems, config, *, rewards):
        plans.append((Counter(problem.task for problem in problems), rewards))

    monkeypatch.setattr(sampling, "sample", scripted(work))
    monkeypatch.setattr(preferences, "train_reward_model", train)
    monkeypatch.setattr(reinforcement, "plan_reinforce", plan)
    monkeypatch.setattr(reinforcement, "reinforce", lambda work, params, plan, directory: params)
    small_talk = stages.evaluation_problems(work.config.evaluation, work.seed)["chat"][1]

    def publish(work, directory, params):
        """Every other question has a helpful reply, the others have a rude one."""
        replies = [p.answer if i % 2 else "Shut up." for i, p in enumerate(small_talk)]
        records = [
            {"question": p.question, "prompt": f"{p.question}\n", "response": f" {reply}"}
            for p, reply in zip(small_talk, replies)
        ]
        write_jsonl(directory / "graded.jsonl", records)
        return {"metrics": {}}

    monkeypatch.setattr(stages, "publish", publish)
    directory = work.stage_directory("r1")
    report = r1.run(work, directory)
    assert report["reward_models"] == {"helpful": {"mean": 1.0}, "harmless": {"mean": 1.0}}
    # The untrained model's replies are no better than rude ones.
    figure = report["metrics"].pop("chat/win_rate_over_rejection_sft")
    assert (figure["mean"], figure["n"]) == (0.75, len(small_talk)) and not report["metrics"]
    assert [name for name, count in asked if count] == ["helpful", "harmless"]
    ((tasks, rewards),) = plans
    assert set(tasks) == {"tiny_math", "tiny_logic", "tiny_code", "tiny_chat"}
    assert list(rewards) == ["accuracy", "format", "language", "self_check", "helpful", "harmless"]
    assert rewards["helpful"] == {
        "weight": 1.0, "tasks": "tiny_chat", "checkpoint": str(directory / "helpful" / "hf")
    }  # fmt: skip
    assert "tasks" not in rewards["harmless"] and "tiny_chat" not in rewards["accuracy"]["tasks"]


def test_every_stage_is_told_of_and_depends_on_what_it_reads():
    for name in recipe.STAGES:
        stage = recipe.get_stage(name)
        earlier = recipe.STAGES[: recipe.STAGES.index(name)]
        for reasoner in ("r1_zero", "r1"):
            assert set(recipe.inputs(name, reasoner)) <= set(earlier)
        # A world may lack a field, which no stage then reads.
        assert set(stage.fields) <= {
            f.name for s in (TinyConfig, SmallConfig) for f in fields_of(s)
        }
    assert recipe.lineage("r1") == [
        "base", "r1_zero", "cold_start", "reasoning_rl", "rejection_sft", "r1"
    ]  # fmt: skip


def test_reports_of_seeds_are_combined_by_their_figures():
    def of_seed(x):
        return {
            "r1": {"wall_seconds": x, "metrics": {"math/pass@1": mean_with_ci([x, x])}},
            "search": [
                {
                    "method": "vote",
                    "budget": 4,
                    "tokens": 10 * x,
                    "accuracy": mean_with_ci([x / 2, x / 2]),
                }
            ],
        }

    combined = report.combine_seeds([of_seed(1.0), of_seed(3.0)])
    assert combined["r1"]["wall_seconds"] == 4
    vote = combined["search"][0]
    assert (vote["method"], vote["budget"], vote["tokens"]) == ("vote", 4, 20.0)
    for figure, values in (
        (combined["r1"]["metrics"]["math/pass@1"], [1, 3]),
        (combined["search"][0]["accuracy"], [0.5, 1.5]),
    ):
        expected = mean_with_ci(values)
        assert figure["mean"] == expected["mean"] and figure["ci95"] == expected["ci95"]
        assert figure["seeds"] == 2 and figure["n"] == 4
