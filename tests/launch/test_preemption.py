"""A signal in a rollout or an evaluation: the run that resumes equals an undisturbed one."""

import contextlib
import os
import signal

import numpy as np
import pytest

from launch import run_rl
from launch.parts import stages
from launch.parts.endings import Interrupted
from models.decoding import sampler
from models.decoding.samples import Samples
from models.host import interruption
from rl.rollouts import RolloutSampler
from tests.launch.several_processes import records
from tests.launch.test_run_rl import _config, _weights, files  # noqa: F401

# Two prompts are sampled at a time, of four. DAPO draws twice in each step, since the model solves
# nothing.
CHANGES = {"sampler_rows": 8, "evaluation.rows": 2, "variant": "dapo", "max_resamples": 1}


class Killer:
    """Sends this process a SIGTERM at a point within a rollout or an evaluation of training.

    Attributes:
      place: "rollout" or "evaluation"; None sends nothing.
      kept: the finished samples that each rollout was given.
    """

    def __init__(self, monkeypatch):
        self.place, self.kept, self._within, self._points = None, [], None, 0
        generate, here = RolloutSampler.generate, interruption.Stops.here
        evaluate = stages.evaluate_params

        def rollout(rollouts, problems, seed, kept=None):
            self.kept.append(kept)
            with self._in("rollout"):
                return generate(rollouts, problems, seed, kept)

        def evaluation(work, params, *arguments):
            with self._in("evaluation" if self.kept else "before"):
                return evaluate(work, params, *arguments)

        def point(stops):
            self._points += 1
            if self._within == self.place == "rollout" and len(self.kept) == 4:
                self._kill(at=3)
            if self._within == self.place == "evaluation":
                self._kill(at=2)
            return here(stops)

        monkeypatch.setattr(RolloutSampler, "generate", rollout)
        monkeypatch.setattr(stages, "evaluate_params", evaluation)
        monkeypatch.setattr(interruption.Stops, "here", point)

    @contextlib.contextmanager
    def _in(self, place):
        self._within, self._points = place, 0
        try:
            yield
        finally:
            self._within = None

    def _kill(self, at):
        if self._points == at:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_run_stopped_in_a_rollout_and_in_an_evaluation_equals_an_undisturbed_one(
    files,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    monkeypatch.setattr(sampler, "STRETCH", 5)
    config = _config(files, **CHANGES)
    run_rl.run(config, tmp_path / "whole")
    killer, folder = Killer(monkeypatch), tmp_path / "killed"
    for place, step in (("rollout", 1), ("evaluation", 2)):
        killer.place, killer.kept = place, []
        with pytest.raises(Interrupted, match=f"SIGTERM after step {step}"):
            run_rl.run(config, folder)
        if place == "rollout":
            paths = list((folder / "rl/rollout").iterdir())
            finished = [Samples.from_bytes(path.read_bytes()).finished for path in paths]
            assert sum(each.sum() for each in finished) > 0
            assert sorted(each.all() for each in finished) == [False, True]
            kept = finished
    given = [each.finished for each in killer.kept if each is not None]
    assert sorted(each.sum() for each in given) == sorted(each.sum() for each in kept)
    killer.place = None
    run_rl.run(config, folder)
    assert not (folder / "rl/rollout").exists()
    for name in ("metrics.jsonl", "samples.jsonl", "graded.jsonl"):
        found, expected = (records(tmp_path / each / "rl" / name) for each in ("killed", "whole"))
        assert found == expected and found, name
    for a, b in zip(_weights(folder / "rl/hf"), _weights(tmp_path / "whole/rl/hf"), strict=True):
        np.testing.assert_array_equal(a, b)
