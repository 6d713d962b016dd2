"""Which problems are asked: passes over all, and rests for those that teach nothing."""

import collections
import json
import types

import numpy as np
import pytest

from reasoning.problem import Problem
from rl.learner import LearnerConfig, PolicySource
from rl.problem_stream import ProblemAdaptiveStream, ProblemStream, TaskAdaptiveStream
from rl.variants import get_variant
from tests.rl import tiny_policy
from tests.rl.tiny_policy import LENGTH, ROWS, ScriptedSampler

MANY = [Problem("sum", f"question {i}", "") for i in range(10)]
STATE = types.SimpleNamespace(params=None)


def test_each_problem_once_an_epoch_in_another_order_each():
    stream = ProblemStream(MANY, seed=0)
    epochs = [stream.take(3) + stream.take(7) for _ in range(3)]
    for epoch in epochs:
        assert collections.Counter(p.question for p in epoch) == {p.question: 1 for p in MANY}
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0] != MANY
    # A batch may span epochs.
    assert ProblemStream(MANY, seed=0).take(30) == sum(epochs, [])
    assert ProblemStream(MANY, seed=1).take(10) != epochs[0]


@pytest.mark.parametrize("kind", [ProblemStream, ProblemAdaptiveStream, TaskAdaptiveStream])
def test_a_stream_is_resumed_by_its_state(kind):
    stream = kind(MANY, seed=0)
    for _ in range(4):
        taken = stream.take(5)
        stream.learned_from(taken, [int(p.question.split()[1]) % 2 == 0 for p in taken])
    resumed = kind(MANY, seed=0)
    resumed.load_state_dict(json.loads(json.dumps(stream.state_dict())))
    for _ in range(4):
        taken, again = stream.take(7), resumed.take(7)
        assert taken == again
        for each in (stream, resumed):
            each.learned_from(taken, [False] * 7)
    assert resumed.state_dict() == stream.state_dict()


@pytest.mark.parametrize("kind", [ProblemAdaptiveStream, TaskAdaptiveStream])
def test_a_state_stays_as_it_was_taken(kind):
    stream = kind(MANY, seed=0)
    state = stream.state_dict()
    before = json.dumps(state)
    stream.learned_from(stream.take(5), [False] * 5)
    assert json.dumps(state) == before != json.dumps(stream.state_dict())


@pytest.mark.parametrize("kind", [ProblemStream, ProblemAdaptiveStream, TaskAdaptiveStream])
def test_no_problems(kind):
    with pytest.raises(ValueError, match="no training problems: check the task and its split"):
        kind([], seed=0)


@pytest.mark.parametrize("kind", [ProblemAdaptiveStream, TaskAdaptiveStream])
def test_without_news_an_adaptive_stream_is_the_plain_one(kind):
    assert kind(MANY, seed=3).take(35) == ProblemStream(MANY, seed=3).take(35)
    with pytest.raises(ValueError, match="least=0"):
        kind(MANY, seed=0, least=0)


def test_problems_without_signal_come_as_often_as_said_and_never_vanish():
    """Three kinds: always informative, never, and not before the 200th draw."""
    problems = [
        Problem("sum", f"{kind} {i}", "") for kind in ("ok", "dull", "late") for i in range(8)
    ]
    stream, drawn = ProblemAdaptiveStream(problems, seed=0), []
    for step in range(400):
        taken = stream.take(4)
        drawn.append(collections.Counter(p.question.split()[0] for p in taken))
        informative = [
            p.question.startswith("ok") or (p.question.startswith("late") and step >= 200)
            for p in taken
        ]
        stream.learned_from(taken, informative)
    first, last = sum(drawn[50:200], collections.Counter()), sum(drawn[250:], collections.Counter())
    # At rest a problem comes in one of eight passes.
    assert first["dull"] / first["ok"] == pytest.approx(1 / 8, rel=0.35)
    assert first["late"] / first["ok"] == pytest.approx(1 / 8, rel=0.35)
    assert last["late"] / last["ok"] == pytest.approx(1, rel=0.1)
    assert last["dull"] / last["ok"] == pytest.approx(1 / 8, rel=0.35)
    assert stream.metrics() == {"problems_at_rest": pytest.approx(1 / 3)}


def test_tasks_are_asked_as_their_groups_teach():
    """Three tasks: half of the groups teach, none, and all of them, but not before step 100."""
    problems = [Problem(task, f"{i}", "") for task in ("half", "none", "late") for i in range(50)]
    stream, drawn = TaskAdaptiveStream(problems, seed=0), []
    rng = np.random.default_rng(0)
    for step in range(300):
        taken = stream.take(8)
        drawn.append(collections.Counter(p.task for p in taken))
        chances = {"half": 0.5, "none": 0.0, "late": float(step >= 100)}
        stream.learned_from(taken, [rng.random() < chances[p.task] for p in taken])
    first, last = sum(drawn[20:100], collections.Counter()), sum(drawn[150:], collections.Counter())
    assert first["none"] / first["half"] == pytest.approx(1 / 8, rel=0.35)
    assert first["late"] / first["half"] == pytest.approx(1 / 8, rel=0.35)
    assert last["half"] / last["late"] == pytest.approx(1 / 2, rel=0.2)
    assert last["none"] / last["late"] == pytest.approx(1 / 8, rel=0.35)
    metrics = stream.metrics()
    assert metrics["teaching/none"] < 0.01 and metrics["teaching/late"] > 0.99
    # A policy that learns nothing at all is asked everything.
    stream.load_state_dict(
        {"problems_taken": 0, "shares": dict.fromkeys(("half", "none", "late"), 0)}
    )
    assert len({p.task for p in stream.take(30)}) == 3


def adaptive_source():
    """Even questions teach, odd ones are always right."""

    def score(problem, seed, g):
        return float(g % 2) if int(problem.question.split()[1]) % 2 == 0 else 1.0

    return PolicySource(
        tiny_policy.MODEL,
        ScriptedSampler(score),
        ProblemAdaptiveStream(MANY, seed=0),
        get_variant("dr_grpo"),
        LearnerConfig(prompts=4, rows=ROWS, row_length=LENGTH),
        seed=0,
    )


def test_a_training_draws_ever_more_of_what_teaches_and_resumes_to_the_bit():
    running, shares, saved = adaptive_source(), [], None
    batches = []
    for step in range(30):
        if step == 15:
            saved = json.loads(json.dumps(running.state_dict()))
        (batch,) = running.next(STATE)
        batches.append(batch)
        shares.append(1 - running.metrics()["zero_advantage_groups"])
    assert np.mean(shares[:2]) < 0.7 < 0.75 < np.mean(shares[15:])
    assert running.metrics()["problems_at_rest"] == 0.5
    resumed = adaptive_source()
    resumed.load_state_dict(saved)
    for expected in batches[15:]:
        (batch,) = resumed.next(STATE)
        for name, x in expected.items():
            np.testing.assert_array_equal(batch[name], x)
