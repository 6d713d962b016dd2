"""RL for all scenarios: rules where they reach, preferences elsewhere.

DeepSeek-R1 (arXiv:2501.12948, 2.3.4): verifiable rewards for math, code and logic; a reward model
for the helpfulness of final answers, and one for the harmlessness of whole responses.
"""

from pathlib import Path
from typing import Any

from launch import stages, training
from launch.recipe import Stage, preferences, sampling, world
from launch.stages import Workspace
from launch.training import ReinforcePlan
from reasoning.prompts import get_template
from reasoning.tasks import get_task


def _plan(work: Workspace, reward_models: dict[str, Any]) -> ReinforcePlan:
    config = work.config.r1.rl
    problems = world.training_problems(work, config.problems)
    rewards = config.rewards.to_dict() | reward_models
    return training.plan_reinforce(work, problems, config, rewards=rewards)


def check(work: Workspace) -> None:
    _plan(work, {})  # Reward models there are none yet.


def _train_reward_models(work: Workspace, params: Any, directory: Path) -> dict[str, Any]:
    """Trains the two reward models; returns the accuracy of each on pairs held out."""
    config = work.config.r1
    template = get_template(work.config.template, work.tokenizer)

    def sampled(problems, source, purpose):
        prompts = [template(problem.question) for problem in problems]
        return sampling.sample(work, source, prompts, config.sampling, purpose)

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
    params = stages.load_stage(work, "rejection_sft")
    measured = _train_reward_models(work, params, directory)
    rewards = {
        name: work.config.r1[name].to_dict() | {"checkpoint": str(directory / name / "hf")}
        for name in measured
    }
    trained = training.reinforce(work, params, _plan(work, rewards), directory)
    return {"reward_models": measured} | stages.publish(work, directory, trained)


STAGE = Stage(
    needs=("base", "rejection_sft"), fields=("template", "r1"), run=run, check=check
)
