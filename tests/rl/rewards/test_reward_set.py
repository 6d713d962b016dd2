"""Reward sets: specs, weighting, evaluation in worker processes, faults found before the long
work."""

import subprocess
import sys
import time

import ml_collections
import numpy as np
import pytest

from reasoning.problem import Problem
from rl.rewards import Sample
from rl.rewards.accuracy import AccuracyReward
from rl.rewards.combine import RewardSet
from rl.rewards.overlong import OverlongReward
from rl.rewards.table import BATCH_REWARDS, parse_rewards

PROBLEM = Problem(task="tiny_math", question="What is 6 * 7?", answer="42")
SAMPLES = [
    Sample("Q ", "<think> 6 * 7 = 42 </think> <answer> 42 </answer>", PROBLEM, num_tokens=12),
    Sample("Q ", "The answer is 42", PROBLEM, num_tokens=18),
    Sample("Q ", "<think> 6 * 7 = 48 </think> <answer> 48 </answer>", PROBLEM, num_tokens=25),
]
USER_REWARDS = """
import os, time

def length(prompt, completion, problem): return float(len(completion))
def slow(prompt, completion, problem):
    while "48" in completion: time.sleep(0.01)
    return 1.0
def always_slow(*args): time.sleep(60)
def dies(prompt, completion, problem):
    if "48" in completion: os._exit(3)
    return 1.0
def greedy(*args): return float(len(bytearray(1 << 40)))
def not_finite(prompt, completion, problem): return float("nan") if not completion else 1.0
def faulty(prompt, completion, problem): return {}[completion]
def text(*args): return "good"
def pid(*args): return os.getpid()
"""


@pytest.fixture(scope="module")
def user_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("rewards") / "my_rewards.py"
    path.write_text(USER_REWARDS)
    return path


def test_weighted_total_scores_and_reasons(user_file):
    spec = (
        "accuracy?require_format=true, format=0.2,"
        f" overlong?max_tokens=20&buffer_tokens=4&weight=0.5, {user_file}:length=0"
    )
    with RewardSet(spec) as rewards:
        scores = rewards.score(SAMPLES)
        assert rewards.weights == {"accuracy": 1.0, "format": 0.2, "overlong": 0.5, "length": 0.0}
        assert rewards.score([]).total.shape == (0,)
    expected = {
        "accuracy": [1, 0, 0],
        "format": [1, 0, 1],
        "overlong": [0, -0.5, -1],
        "length": [len(sample.completion) for sample in SAMPLES],
    }
    assert scores.by_reward.keys() == scores.reasons.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(scores.by_reward[name], values, err_msg=name)
        assert len(scores.reasons[name]) == 3
    np.testing.assert_allclose(scores.total, [1.2, -0.25, 0.2 - 0.5])
    assert "not well formed" in scores.reasons["accuracy"][1]


def test_spec_as_text_mapping_and_config_dict_are_the_same():
    text = (
        "accuracy?require_format=true&weight=2,overlong?max_tokens=20&buffer_tokens=4,format=-0.5"
    )
    mapping = {
        "accuracy": {"require_format": True, "weight": 2},
        "overlong": {"max_tokens": 20, "buffer_tokens": 4},
        "format": -0.5,
    }
    assert (
        parse_rewards(text)
        == parse_rewards(mapping)
        == parse_rewards(ml_collections.ConfigDict(mapping))
    )
    parsed = parse_rewards(text)
    assert parsed["accuracy"] == (2.0, AccuracyReward(require_format=True))
    assert parsed["overlong"] == (1.0, OverlongReward(20, 4))
    assert [weight for weight, _ in parsed.values()] == [2.0, 1.0, -0.5]


def test_every_named_batch_reward_exists():
    for name, place in BATCH_REWARDS.items():
        module, _, attribute = place.partition(":")
        assert module.startswith("rl.rewards.")
        assert hasattr(getattr(__import__(module, fromlist=["_"]), attribute), "score_batch")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "no rewards are given"),
        (
            "acuracy=1",
            "unknown reward 'acuracy': choose among accuracy, .*format, .*overlong.*, or give path",
        ),
        ("format=much", "reward 'format' has weight 'much'"),
        ("format=NaN", "reward 'format' has weight nan"),
        ({"format": True}, "reward 'format' has weight True"),
        ("format?colour=red", "reward 'format' has no option 'colour': its options are weight"),
        (
            "accuracy?require_format=yes",
            "option require_format of reward 'accuracy' is 'yes': it must be of type bool",
        ),
        ("overlong?max_tokens=20", "reward 'overlong' needs the option buffer_tokens"),
        ("overlong?max_tokens=20&buffer_tokens=40", "buffer_tokens=40"),
        ("format=1,format=2", "two rewards are called 'format'"),
        ("nowhere/mine.py:fn", "nowhere/mine.py does not exist"),
        ("mine.py:fn?colour=red", "reward 'mine.py:fn' has no option 'colour'"),
    ],
)
def test_bad_spec_is_one_clear_line(spec, message):
    with pytest.raises(ValueError, match=message) as caught:
        RewardSet(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["slow", "dies"])
def test_a_killed_call_costs_only_its_own_score(user_file, name):
    with RewardSet(f"format=1,{user_file}:{name}", timeout_s=1.0) as rewards:
        start = time.monotonic()
        scores = rewards.score(SAMPLES)
        assert time.monotonic() - start < 10
    np.testing.assert_array_equal(scores.by_reward[name], [1, 1, 0])
    np.testing.assert_array_equal(scores.by_reward["format"], [1, 0, 1])
    assert {"slow": "took longer than 1 s", "dies": "process died"}[name] in scores.reasons[name][2]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("not_finite", "reward 'not_finite' returned nan, which is not a finite number"),
        ("faulty", "reward 'faulty' failed with KeyError"),
        ("text", "reward 'text' failed with TypeError: it returned 'good'"),
        ("always_slow", "reward 'always_slow' on a trial completion: took longer than 0.5 s"),
        (
            "greedy",
            "reward 'greedy' on a trial completion: its process died, .* more memory than 1024 MiB",
        ),
    ],
)
def test_check_finds_faults_before_the_long_work(user_file, name, message):
    # Only one of them is about time; the others must not run out of it on a busy machine.
    timeout_s = 0.5 if name == "always_slow" else 30.0
    with RewardSet(f"format,{user_file}:{name}", timeout_s=timeout_s) as rewards:
        with pytest.raises(ValueError, match=message) as caught:
            rewards.check("Q ", PROBLEM)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("prompt", ["Q ", "Q <think>\n"])
def test_check_passes_good_rewards_and_tries_a_perfect_completion(prompt, monkeypatch):
    with RewardSet(
        "accuracy?require_format=true,format,overlong?max_tokens=9&buffer_tokens=3"
    ) as rewards:
        rewards.check(prompt, PROBLEM)
        tried = []
        evaluate = rewards._evaluate

        def evaluate_and_keep(samples, **options):
            tried.append(evaluate(samples, **options))
            return tried[-1]

        monkeypatch.setattr(rewards, "_evaluate", evaluate_and_keep)
        rewards.check(prompt, PROBLEM)
    assert [result.score for result in tried[0]["accuracy"]] == [0.0, 1.0]
    assert [result.score for result in tried[0]["format"]] == [0.0, 1.0]


def test_faults_during_training_stop_with_the_completion_shown(user_file):
    with RewardSet(f"{user_file}:not_finite") as rewards:
        assert rewards.score(SAMPLES).total.tolist() == [1.0, 1.0, 1.0]
        with pytest.raises(ValueError, match="not_finite.*returned nan.*on completion ''"):
            rewards.score([Sample("Q ", "", PROBLEM, num_tokens=1)])


def test_user_code_runs_in_other_processes(user_file):
    import os

    with RewardSet(f"{user_file}:pid") as rewards:
        assert os.getpid() not in rewards.score(SAMPLES).by_reward["pid"]


def test_workers_do_not_import_jax():
    code = "import sys, rl.rewards.combine; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def reward_file(tmp_path, body, name="mine.py"):
    path = tmp_path / name
    path.write_text(body)
    return f"{path}:fn", path


def score_of(spec, count=4, **options):
    problem = Problem("jsonl", "1 + 1", "2", {})
    with RewardSet(spec, num_workers=1, **options) as rewards:
        return rewards.score([Sample("Q", f"text {i}", problem, 1) for i in range(count)])


@pytest.mark.parametrize(
    "body, words",
    [
        ("def fn(p, c, q):\n    x = 1\n    return 1 / (x - 1)\n", "ZeroDivisionError: .*mine.py:3"),
        ("import sys\ndef fn(p, c, q):\n    sys.exit(3)\n", r"sys.exit\(3\) \(at .*mine.py:3"),
        (
            "def fn(p, c, q):\n    return 1e308 * (-1) ** len(c)\n",
            r"returned 1e\+308, beyond ±1e\+09",
        ),
        ("def fn(p, c, q):\n    return 10 ** 400\n", "integer that is too large for a float"),
        ("def fn(p, c, q):\n    return float('nan')\n", "returned nan, which is not a finite"),
        ("import os\ndef fn(p, c, q):\n    os._exit(0)\n", "no result in any of 4 calls: its proc"),
    ],
)
def test_a_users_faulty_reward_is_said_in_words(tmp_path, body, words):
    spec, _ = reward_file(tmp_path, body)
    with pytest.raises(ValueError, match=words) as error:
        score_of(spec)
    assert "'fn'" in str(error.value)


@pytest.mark.parametrize(
    "body, words",
    [
        ("import sys\nsys.exit(1)\n", r"calls sys.exit\(1\) \(at .*mine.py:2\)"),
        ("import os\nos._exit(0)\n", "it ended the process that loaded it"),
        ("x = 1\ny = x.z\n", "AttributeError: .*mine.py:2"),
        ("def fn(p, c:\n", "SyntaxError: .*line 1"),
        ("def fn(p):\n    return 1\n", "cannot be called with"),
        ("def other(p, c, q):\n    return 1\n", "has no function 'fn': it has other"),
    ],
)
def test_a_faulty_reward_file_is_said_in_words_and_ends_nothing(tmp_path, body, words):
    spec, path = reward_file(tmp_path, body)
    with pytest.raises(ValueError, match=words) as error:
        score_of(spec)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_calls_that_were_killed_are_told_of(tmp_path):
    body = "import os\ndef fn(p, c, q):\n    return 1 if c != 'text 2' else os._exit(1)\n"
    scores = score_of(reward_file(tmp_path, body)[0])
    assert scores.total.tolist() == [1, 1, 0, 1]
    (note,) = scores.notes
    assert note.startswith("reward 'fn' gave no result in 1 of 4 calls, which count as 0: its proc")


def test_weights_that_make_rewards_too_large_are_refused(tmp_path):
    spec, _ = reward_file(tmp_path, "def fn(p, c, q):\n    return 10.0\n")
    with pytest.raises(ValueError, match="the weighted sum of rewards reaches 1e\\+13"):
        score_of(f"{spec}?weight=1000000000000.0")
