"""Each reward by itself."""

import numpy as np
import pytest

from reasoning.problem import Problem
from rl.rewards import RewardResult, Sample
from rl.rewards.accuracy import AccuracyReward
from rl.rewards.format import FormatReward
from rl.rewards.overlong import OverlongReward
from rl.rewards.user import UserReward

PROBLEM = Problem(task="tiny_math", question="What is 6 * 7?", answer="42")
PROMPT, OPENED = "User: What is 6 * 7? Assistant: ", "User: What is 6 * 7? Assistant: <think>\n"


@pytest.mark.parametrize(
    ("prompt", "completion", "score"),
    [
        (PROMPT, "<think> 6 * 7 = 42 </think> <answer> 42 </answer>", 1.0),
        (PROMPT, "<think> 6 * 7 = 42 </think> <answer> 42 </answer> Bye.", 0.0),
        (PROMPT, "<answer> 42 </answer>", 0.0),
        # The prompt has opened the chain already: opening it again is one too many.
        (OPENED, "6 * 7 = 42 </think> <answer> 42 </answer>", 1.0),
        (OPENED, "<think> 6 * 7 = 42 </think> <answer> 42 </answer>", 0.0),
        (PROMPT, "6 * 7 = 42 </think> <answer> 42 </answer>", 0.0),
    ],
)
def test_format(prompt, completion, score):
    result = FormatReward()(prompt, completion, PROBLEM)
    assert result.score == score
    assert result.reason


ACCURACY_CASES = [
    (PROMPT, "<think> 6 * 7 = 42 </think> <answer> 42 </answer>", 1.0, 1.0),
    (PROMPT, "<think> 6 * 7 = 48 </think> <answer> 48 </answer>", 0.0, 0.0),
    (PROMPT, "The answer is 42", 1.0, 0.0),
    (PROMPT, "I do not know.", 0.0, 0.0),
    (PROMPT, "", 0.0, 0.0),
    # An answer inside the chain earns nothing, whoever opened the chain.
    (PROMPT, "<think> <answer> 42 </answer> </think> 41", 0.0, 0.0),
    (PROMPT, "<think> the answer is 42", 0.0, 0.0),
    (OPENED, "the answer is 42", 0.0, 0.0),
    (OPENED, "6 * 7 = 42 </think> <answer> 42 </answer>", 1.0, 1.0),
    # Two answers are none; neither is a megabyte of text.
    (PROMPT, "<think> </think> <answer> 41 </answer> <answer> 42 </answer>", 0.0, 0.0),
    (PROMPT, "<think> </think> <answer>" + "(" * 10**6 + "42</answer>", 0.0, 0.0),
    # Right but with trailing text: right, not well formed.
    (PROMPT, "<think> 42 </think> <answer> 42 </answer> Bye.", 1.0, 0.0),
]


@pytest.mark.parametrize(
    ("prompt", "completion", "lenient", "strict"),
    ACCURACY_CASES,
    ids=range(len(ACCURACY_CASES)),
)
def test_accuracy(prompt, completion, lenient, strict):
    for reward, score in (
        (AccuracyReward(), lenient),
        (AccuracyReward(require_format=True), strict),
    ):
        result = reward(prompt, completion, PROBLEM)
        assert result.score == score, (reward, result)
        assert result.reason


def test_overlong_counts_tokens_not_text():
    """Equation 13 of DAPO at L_max = 100, L_cache = 20, written out."""
    reward = OverlongReward(max_tokens=100, buffer_tokens=20)
    expected = {
        1: 0.0,
        80: 0.0,
        81: -1 / 20,
        90: -1 / 2,
        99: -19 / 20,
        100: -1.0,
        101: -1.0,
        5000: -1.0,
    }
    np.testing.assert_allclose(reward.penalties(list(expected)), list(expected.values()))
    samples = [
        Sample("", "long text " * 100, PROBLEM, num_tokens=90),
        Sample("", "", PROBLEM, num_tokens=1),
    ]
    first, second = reward.score_batch(samples)
    assert (first.score, second.score) == (-0.5, 0.0)
    assert "90 tokens" in first.reason


@pytest.mark.parametrize("buffer_tokens", [0, 101])
def test_overlong_bad_buffer(buffer_tokens):
    with pytest.raises(ValueError, match=f"buffer_tokens={buffer_tokens}"):
        OverlongReward(max_tokens=100, buffer_tokens=buffer_tokens)


USER_REWARDS = """
import numpy as np
from neighbour_of_my_rewards import FACTOR
from rl.rewards import RewardResult

def number(prompt, completion, problem): return len(completion) * FACTOR
def scalar(prompt, completion, problem): return np.array([1, 2])[0] == 1
def explained(prompt, completion, problem, bonus=1): return RewardResult(bonus, problem.answer)
def anything(*args): return "much"
def nothing(*args): pass
"""


def test_user_reward(tmp_path):
    (tmp_path / "neighbour_of_my_rewards.py").write_text("FACTOR = 0.5")
    (tmp_path / "mine.py").write_text(USER_REWARDS)
    call = lambda name: UserReward(str(tmp_path / "mine.py"), name)(PROMPT, "four", PROBLEM)
    assert call("number") == RewardResult(2.0, "")
    assert call("scalar") == RewardResult(1.0, "")
    assert call("explained") == RewardResult(1.0, "42")
    for name, shown in (("anything", "'much'"), ("nothing", "None")):
        with pytest.raises(TypeError, match=f"returned {shown}: return a number or a RewardResult"):
            call(name)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "mine.py does not exist"),
        ("def other(a, b, c): return 0\nX = 1\n", "has no function 'fn': it has other"),
        ("fn = 3\n", "has no function 'fn': it has none"),
        ("def fn(completion): return 0\n", r"fn\(completion\) cannot be called with"),
        ("def fn(a, b, c, d): return 0\n", "cannot be called with .prompt, completion, problem."),
        ("def fn(:\n", "does not load: SyntaxError"),
        ("import no_such_module\n", "does not load: ModuleNotFoundError"),
    ],
)
def test_faulty_user_reward(tmp_path, source, message):
    path = tmp_path / "mine.py"
    if source is not None:
        path.write_text(source)
    with pytest.raises(ValueError, match=message) as caught:
        UserReward(str(path), "fn")
    assert "\n" not in str(caught.value)
