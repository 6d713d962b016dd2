"""Rollouts that are one iteration old: whose weights sample, what corrects, and how it resumes."""

import json
import os
import subprocess
import sys
import types
from pathlib import Path

import jax
import numpy as np
import pytest

from rl.learner import LearnerConfig, PolicySource
from rl.problem_stream import ProblemAdaptiveStream
from rl.variants import get_variant
from tests.rl import tiny_policy
from tests.rl.tiny_policy import LENGTH, PROBLEMS, ROWS

ROOT = Path(__file__).parents[2]


def state(version):
    """A training state whose weights tell their version."""
    params = jax.tree.map(lambda x: x * (1 + 0.02 * version), tiny_policy.params())
    return types.SimpleNamespace(params=params, step=version)


class Watched:
    """The tiny policy's sampler, which remembers with which weights it sampled."""

    def __init__(self):
        inner = tiny_policy.sampler()
        self.sampling, self.max_new_tokens = inner.sampling, inner.max_new_tokens
        self.generator, self.score, self._generate = inner.generator, inner.score, inner.generate
        self.versions = []

    def generate(self, problems, seed):
        scale = self.generator.params["final_norm"]["scale"][0]
        self.versions.append(round((float(scale) - 1) / 0.02))
        return self._generate(problems, seed)


def source(staleness=1, overlap=True, fresh_every=100, sampler=None):
    return PolicySource(
        tiny_policy.MODEL,
        sampler or Watched(),
        ProblemAdaptiveStream(PROBLEMS, seed=0),
        get_variant("icepop"),
        LearnerConfig(
            prompts=4, rows=ROWS, row_length=LENGTH, recompute_old=True, staleness=staleness,
            fresh_every=fresh_every, overlap=overlap,
        ),
        seed=0,
    )  # fmt: skip


def drawn(running, steps):
    batches = [running.next(state(step))[0] for step in steps]
    running.close()
    return batches


def assert_equal(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.parametrize("overlap", [True, False])
def test_samples_are_of_the_weights_before_the_last_update(overlap):
    sampler = Watched()
    running = source(sampler=sampler, overlap=overlap)
    stale = []
    for step in range(4):
        running.next(state(step))
        stale.append(running.metrics()["stale"])
    running.close()
    assert sampler.versions[:4] == [0, 0, 1, 2] and stale == [0, 1, 1, 1]


def test_without_staleness_every_sample_is_of_the_present_weights():
    sampler = Watched()
    drawn(source(staleness=0, sampler=sampler), range(4))
    assert sampler.versions == [0, 1, 2, 3]


def test_the_first_iteration_after_a_checkpoint_is_fresh():
    sampler = Watched()
    drawn(source(sampler=sampler, fresh_every=2, overlap=False), range(6))
    assert sampler.versions == [0, 0, 2, 2, 4, 4]


def test_overlap_changes_no_bit():
    assert_equal(drawn(source(overlap=True), range(4)), drawn(source(overlap=False), range(4)))


def test_a_run_resumed_at_a_checkpoint_goes_on_to_the_bit():
    running = source(fresh_every=2)
    first = [running.next(state(step))[0] for step in range(2)]
    saved = json.loads(json.dumps(running.state_dict()))
    first += drawn(running, range(2, 5))
    resumed = source(fresh_every=2)
    resumed.load_state_dict(saved)
    assert_equal(drawn(resumed, range(2, 5)), first[2:])


def test_a_run_resumed_elsewhere_loses_no_problem():
    running = source()
    running.next(state(0))
    saved = running.state_dict()
    running.close()
    assert saved["batches_drawn"] == 1 and saved["problems_taken"] == 4


def test_the_correction_is_the_present_policy_over_the_one_that_sampled():
    running = source()
    running.next(state(0))
    (batch,) = running.next(state(5))
    running.close()
    old, behaviour = {}, {}
    for ids, group in zip(running.last.prompt_ids, running.last.completions, strict=True):
        for completion in group:
            key = tuple(completion.token_ids)
            old[key] = tiny_policy.logprobs(state(5).params, ids, completion.token_ids)
            behaviour[key] = tiny_policy.logprobs(state(0).params, ids, completion.token_ids)
    trained = batch["loss_weights"] > 0
    seen = 0
    for row in range(len(trained)):
        for segment in range(1, batch["segment_ids"][row].max() + 1):
            where = (batch["segment_ids"][row] == segment) & trained[row]
            key = tuple(batch["tokens"][row, where].tolist())
            np.testing.assert_allclose(batch["old_logprobs"][row, where], old[key], atol=1e-4)
            np.testing.assert_allclose(
                batch["behaviour_logprobs"][row, where], behaviour[key], atol=1e-4
            )
            seen += 1
    assert seen and any(np.abs(old[key] - behaviour[key]).max() > 1e-2 for key in old)


def test_staleness_without_correction_is_refused():
    config = LearnerConfig(prompts=4, rows=8, row_length=8, recompute_old=True, staleness=1)
    with pytest.raises(ValueError, match="staleness=1 needs an importance correction"):
        PolicySource(
            tiny_policy.MODEL, Watched(), ProblemAdaptiveStream(PROBLEMS, 0), get_variant("dapo"),
            config, seed=0,
        )  # fmt: skip
    with pytest.raises(ValueError, match="staleness is 0 or 1"):
        LearnerConfig(prompts=4, rows=8, row_length=8, staleness=2)


def test_at_a_real_width_overlapping_programs_compute_the_same():
    """Width 576, vocabulary 49,152: where XLA shares each product among its threads."""
    environment = {name: x for name, x in os.environ.items() if name not in ("NPROC", "XLA_FLAGS")}
    done = subprocess.run(
        [sys.executable, "-m", "tests.rl.overlapping_programs"], cwd=ROOT, env=environment,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split()[-1] == "equal"
