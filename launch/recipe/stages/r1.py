"""RL for all scenarios: rules reward verifiable tasks, preferences reward the rest.

DeepSeek-R1 (arXiv:2501.12948, 2.3.4): verifiable rewards for math, code and logic; a reward model
for the helpfulness of final answers, and one for the harmlessness of whole responses.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from launch.jobs.training import reinforcement
from launch.parts import stages
from launch.parts.stages import Workspace
from launch.recipe import Stage, preferences, sampling, world
from launch.schema import given
from reasoning.jsonl import read_jsonl
from reasoning.prompts import get_template
from reasoning.response import whole_response
from reasoning.statistics import shares_with_ci
from reasoning.tasks import get_task
from reasoning.tiny_world import chat


def _plan(work: Workspace, reward_models: dict[str, Any]) -> reinforcement.ReinforcePlan:
    config = work.config.r1.rl
    problems = world.training_problems(work, config.problems)
    rewards = None
    if work.config.r1.prefers:
        assert isinstance(config.rewards, Mapping)  # The schema has checked.
        rewards = {**config.rewards, **reward_models}
    return reinforcement.plan_reinforce(work, problems, config, rewards=rewards)


def check(work: Workspace) -> None:
    """Raises `ValueError` for settings that the RL cannot run with."""
    _plan(work, {})  # There are no reward models yet.


def _train_reward_models(work: Workspace, params: Any, directory: Path) -> dict[str, Any]:
    """Trains the two reward models; returns the accuracy of each on held-out pairs."""
    config = work.config.r1
    template = get_template(work.config.template, work.tokenizer)

    def sampled(problems, source, purpose):
        prompts = [template(problem.question) for problem in problems]
        return sampling.sample(work, source, prompts, config.sampling, purpose, directory)

    small_talk = get_task("tiny_chat").problems("train", None, work.seed)

    def helpful():
        # The base model's replies differ more, so there is more to compare.
        base = stages.load_stage(work, "base")
        replies = zip(
            sampled(small_talk, params, "replies"),
            sampled(small_talk, base, "replies of the base model"),
        )
        return preferences.helpful_pairs(work, small_talk, [a + b for a, b in replies])

    def harmless():
        problems = small_talk + world.training_problems(work, config.harmless_problems)
        responses = sampled(problems, params, "responses")
        return preferences.harmless_pairs(work, problems, responses)

    return {
        name: preferences.train_reward_model(
            work, params, make_pairs, config.reward_model, directory / name
        )
        for name, make_pairs in (("helpful", helpful), ("harmless", harmless))
    }


def run(work: Workspace, directory: Path) -> dict[str, Any]:
    """Trains two reward models, then the policy against them and rules; returns the report.

    If the config has no reward models, rules alone reward.
    """
    params = stages.load_stage(work, "rejection_sft")
    if not work.config.r1.prefers:
        trained = reinforcement.reinforce(work, params, _plan(work, {}), directory)
        return stages.publish(work, directory, trained)
    measured = _train_reward_models(work, params, directory)
    rewards = {
        name: given(getattr(work.config.r1, name)) | {"checkpoint": str(directory / name / "hf")}
        for name in measured
    }
    trained = reinforcement.reinforce(work, params, _plan(work, rewards), directory)
    report = stages.publish(work, directory, trained)
    if (figure := _win_rate(work, directory)) is not None:
        report["metrics"]["chat/win_rate_over_rejection_sft"] = figure
    return {"reward_models": measured} | report


def _win_rate(work: Workspace, directory: Path) -> dict[str, Any] | None:
    """Returns how often replies to small talk beat those from before this RL.

    Each reply to a question is compared with each reply of the other model, by the evaluation's
    rule. The helpfulness model was not trained on that rule, so replies that please only this model
    do not win. Returns None if the evaluation has no small talk.
    """
    problems = stages.evaluation_problems(work.config.evaluation, work.seed)
    if "chat" not in problems:
        return None
    task, asked = problems["chat"]

    def replies(of_stage: Path) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {problem.question: [] for problem in asked}
        for _, record in read_jsonl(of_stage / "graded.jsonl"):
            if record["question"] in found:
                text = whole_response(record["prompt"], record["response"])
                found[record["question"]].append(task.extract(text) or "")
        return found

    mine, theirs = replies(directory), replies(work.stage_directory("rejection_sft"))
    return shares_with_ci(
        [
            np.mean([chat.win_over(p, a, b) for a in mine[p.question] for b in theirs[p.question]])
            for p in asked
        ]
    )


STAGE = Stage(needs=("base", "rejection_sft"), fields=("template", "r1"), run=run, check=check)
