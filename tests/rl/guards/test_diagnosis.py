"""What a run tells about itself: each fault by a trace of metrics, and silence about health."""

import json
import math

import jax
import numpy as np
import pytest

from models.decoding.sampling import SamplingParams
from models.sharding import make_mesh
from reasoning.generation.jax_generator import JaxGenerator
from reasoning.problem import Problem
from rl.guards.diagnosis import Diagnosis, Settings
from rl.learner import LearnerConfig, PolicySource, make_policy_loss
from rl.losses import mean_metrics
from rl.problem_stream import ProblemStream
from rl.rewards.combine import Scores
from rl.rollouts import RolloutSampler
from rl.variants import get_variant
from tests.rl import tiny_policy
from train.loop import run
from train.optimizer import make_optimizer
from train.state import state_from_params
from train.step import make_train_step

SETTINGS = Settings(prompts=32, group=8, max_new_tokens=96, temperature=1.0, learning_rate=1e-5)
HEALTHY = {
    "reward": 0.4, "reward_std": 0.5, "accuracy": 0.35, "format": 0.5, "entropy": 0.9,
    "truncated": 0.1, "zero_advantage_groups": 0.3, "groups_all_right": 0.1,
    "groups_all_wrong": 0.2,
}  # fmt: skip


def trace(iterations, seed=0, noise=0.03, **courses):
    """Metrics by iteration; a course maps 0..1, the share of the run that is over, to a value."""
    rng = np.random.default_rng(seed)
    for i in range(iterations):
        line = dict(HEALTHY)
        for name, course in courses.items():
            line[name] = course(i / (iterations - 1)) if callable(course) else course
        for name in line:
            if name not in ("reward_std", "entropy"):
                line[name] = max(0.0, line[name] + noise * rng.standard_normal())
        yield line


def found(metrics, **arguments):
    """(step, kind) of all findings, and the reason of the stop."""
    diagnosis, reason = Diagnosis(SETTINGS, say=lambda line: None, **arguments), None
    for i, line in enumerate(metrics, start=1):
        reason = reason or diagnosis.update(2 * i, line)
    return [(each.step, each.kind) for each in diagnosis.findings], reason, diagnosis.findings


def rises(low, high):
    return lambda t: low + (high - low) * t


@pytest.mark.parametrize("seed", range(20))
def test_a_run_that_learns_is_not_disturbed(seed):
    """Entropy falls to a tenth and easy problems are solved, as in every good run."""
    lines = trace(
        60, seed, reward=rises(0.3, 0.85), accuracy=rises(0.2, 0.8), format=rises(0.2, 0.98),
        entropy=lambda t: 0.9 * math.exp(-2.4 * t), zero_advantage_groups=rises(0.4, 0.45),
        groups_all_wrong=rises(0.35, 0.05), groups_all_right=rises(0.02, 0.4),
    )  # fmt: skip
    assert found(lines)[0] == []


@pytest.mark.parametrize("seed", range(20))
def test_noise_of_a_run_that_stands_still_is_no_finding(seed):
    rng = np.random.default_rng(seed)
    error = 0.5 / 32**0.5
    lines = ({**HEALTHY, "reward": 0.4 + error * rng.standard_normal()} for _ in range(40))
    assert found(lines)[0] == []


CASES = {
    "learning_rate": (
        {"reward": lambda t: 0.35 if t < 0.1 else 0.0, "accuracy": lambda t: 0.35 * (t < 0.1)},
        "the reward fell from .* learning rate of 1e-05 is too high; set"
        " optimizer.learning_rate=1e-06",
    ),
    "too_hard": (
        {"zero_advantage_groups": 0.95, "groups_all_wrong": 0.93, "groups_all_right": 0.0,
         "reward": 0.05, "accuracy": 0.02},
        "in 9.% of the groups of 8 answers all were wrong.*take easier problems",
    ),
    "too_easy": (
        {"zero_advantage_groups": 0.9, "groups_all_right": 0.88, "groups_all_wrong": 0.0,
         "accuracy": 0.97, "reward": 0.97},
        "in 8.% of the groups of 8 answers all were right.*harder problems",
    ),
    "no_signal": (
        {"zero_advantage_groups": 0.9, "groups_all_right": 0.4, "groups_all_wrong": 0.45},
        "had the same reward, and they teach nothing",
    ),
    "truncated": ({"truncated": 0.7}, r"were cut off at max_new_tokens=96.*max_new_tokens=192"),
    "format_only": (
        {"format": 0.95, "accuracy": 0.0}, "have the right format but .* lower the weight of format"
    ),
    "entropy": (
        {"entropy": lambda t: 0.9 * math.exp(-4 * t), "zero_advantage_groups": 0.65,
         "groups_all_wrong": 0.5},
        "the entropy fell from 0.9 to .* are all alike",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", CASES)
def test_each_fault_is_told_alone_with_its_remedy(kind):
    changes, message = CASES[kind]
    findings, reason, all_findings = found(trace(40, noise=0.005, **changes))
    assert {each for _, each in findings} == {kind}
    assert reason is None
    import re

    assert re.search(message, all_findings[0].message), all_findings[0].message
    assert "\n" not in all_findings[0].message


def test_without_a_reward_for_accuracy_there_is_still_no_signal():
    lines = [
        {"reward": 0.0, "reward_std": 0.0, "entropy": 1.0, "truncated": 0.0,
         "zero_advantage_groups": 1.0}
    ] * 12  # fmt: skip
    findings, _, all_findings = found(lines)
    assert {kind for _, kind in findings} == {"no_signal"}
    assert "100% of the groups" in all_findings[0].message


def test_a_finding_that_lasts_is_told_ever_more_rarely():
    findings = found(trace(50, noise=0.0, truncated=0.8))[0]
    # The window is full after iteration 5, which ends with update 10.
    assert findings == [(2 * (4 + n), "truncated") for n in (1, 10, 20, 40)]


def test_it_warns_within_ten_iterations_and_stops_where_that_was_asked():
    """The reward is gone within five iterations, as that of a real model at ten times its rate."""
    course = [0.31, 0.28, 0.12, 0.01, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    lines = [{**HEALTHY, "reward": r, "reward_std": (r * (1 - r)) ** 0.5} for r in course]
    findings, reason, _ = found(lines)
    assert findings[0] == (10, "learning_rate") and reason is None
    _, reason, _ = found(lines, stop=True)
    assert "learning rate of 1e-05 is too high" in reason
    # Other findings never stop a run.
    assert found(trace(20, truncated=0.9), stop=True)[1] is None


def test_a_policy_that_becomes_noise_has_too_high_a_rate():
    lines = trace(12, noise=0.0, reward=0.02, accuracy=0.02, entropy=rises(0.7, 4.5))
    assert "learning_rate" in {kind for _, kind in found(lines)[0]}


def test_a_late_drop_is_not_blamed_on_the_rate():
    lines = trace(60, noise=0.0, reward=lambda t: 0.4 if t < 0.6 else 0.0)
    assert "learning_rate" not in {kind for _, kind in found(lines)[0]}


class EndsInTime:
    """Rewards completions that end by themselves, but not before their third token."""

    def score(self, samples):
        ended = np.array([float(3 <= s.num_tokens < tiny_policy.MAX_NEW) for s in samples])
        reasons = {"accuracy": ["" for _ in samples]}
        return Scores(ended, {"accuracy": ended}, reasons)


def trained(learning_rate):
    """Findings of ten real steps of GRPO."""
    model, mesh = tiny_policy.MODEL, make_mesh({"data": 1}, jax.devices()[:1])
    optimizer = make_optimizer({"learning_rate": learning_rate}, model.abstract_params, 10)
    variant = get_variant("dr_grpo")
    step = make_train_step(
        make_policy_loss(model, variant.loss, tiny_policy.TEMPERATURE),
        optimizer,
        mesh,
        normalize_weights=False,
        finalize=mean_metrics,
    )
    sampler = RolloutSampler(
        JaxGenerator(model, None, tiny_policy.TOKENIZER, rows=128),
        lambda question: f"{question}:",
        EndsInTime(),
        group=4,
        max_new_tokens=tiny_policy.MAX_NEW,
        sampling=SamplingParams(temperature=tiny_policy.TEMPERATURE),
    )
    source = PolicySource(
        model,
        sampler,
        ProblemStream([Problem("sum", f"{i} + {i}", "") for i in range(64)], seed=0),
        variant,
        LearnerConfig(prompts=32, rows=128, row_length=tiny_policy.LENGTH),
        seed=0,
    )
    settings = Settings(32, 4, tiny_policy.MAX_NEW, tiny_policy.TEMPERATURE, learning_rate)
    diagnosis = Diagnosis(settings, say=lambda line: None)
    params = jax.tree.map(lambda x: x.copy(), tiny_policy.params())
    state = state_from_params(model, params, optimizer, mesh)
    run(state, step, source, num_steps=10, guards=[diagnosis], log_every=1)
    return diagnosis.findings


def test_a_real_run_at_too_high_a_rate_says_so_within_ten_steps():
    first = trained(0.5)[0]
    assert first.kind == "learning_rate" and first.step <= 10
    assert "the reward fell from" in first.message and "learning_rate=0.05" in first.message
    assert trained(1e-3) == []


def test_it_goes_on_after_a_resume_as_if_undisturbed():
    lines = list(trace(30, truncated=0.8, reward=rises(0.4, 0.0)))
    whole, recorded = Diagnosis(SETTINGS, say=lambda line: None), []
    for i, line in enumerate(lines):
        whole.update(i, line)
        if i == 13:
            saved = json.loads(json.dumps(whole.state_dict()))
    resumed = Diagnosis(SETTINGS, say=lambda line: None, record=lambda f: recorded.append(list(f)))
    resumed.load_state_dict(saved)
    assert recorded[0] == whole.findings[: len(recorded[0])]
    for i, line in enumerate(lines[14:], start=14):
        resumed.update(i, line)
    assert resumed.findings == whole.findings == recorded[-1]
    assert resumed.state_dict() == whole.state_dict()


def test_metrics_that_are_missing_or_not_finite_do_no_harm():
    lines = [{"reward": math.nan, "entropy": math.inf, "loss": 1.0}] * 8 + [{}] * 3
    assert found(lines)[0] == []
