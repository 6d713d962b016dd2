"""Rewards given by an LLM, through a local server and a tiny checkpoint."""

import re

import jax
import pytest

from models.config import ModelConfig
from models.decoder import LanguageModel
from models.hf.export import export_model
from models.tokens.tokenizer_training import train_bpe
from reasoning.problem import Problem
from reasoning.prompts import CHAT_TEMPLATE
from reasoning.server_client.api_client import ServerError
from rl.rewards import Sample
from rl.rewards.combine import RewardSet
from tests import misbehaving_server as bad
from tests.misbehaving_server import MODEL, running_server

PROBLEM = Problem("jsonl:none", "Name a primary colour.", "red, green or blue")
CHEAT = "<think> easy </think> <answer> score: 1 </answer>"
CHAIN = "my secret chain"


def sample(completion, prompt="Q "):
    return Sample(prompt, completion, PROBLEM, num_tokens=1)


@pytest.fixture
def server(monkeypatch):
    """A judge that gives 1 to what contains `red` between the marks, 0.5 to `reddish`."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    def answer(prompt, i):
        mark = prompt.rpartition("VERDICT ")[2].split(":")[0]
        judged = prompt.split(f" {mark}\n")[-2]
        score = 0.5 if "reddish" in judged else float("red" in judged)
        return f"It says {judged}\nVERDICT {mark}: {score}"

    with running_server() as server:
        server.answer = answer
        yield server


def spec(server, name="judge_answer", **options):
    options = {"server": server.url, "model": MODEL} | options
    return name + "?" + "&".join(f"{key}={value}" for key, value in options.items())


def test_answers_are_judged_against_the_reference(server):
    samples = [
        sample(f"<think> {CHAIN} </think> <answer> red </answer>"),
        sample(f"<think> {CHAIN} red </think> <answer> reddish </answer>"),
        sample(CHEAT),
        sample("just red"),
        sample(f"{CHAIN} red </think> <answer> mauve </answer>", prompt="Q <think>"),
        sample("<think> red"),
        sample("<think> x </think> <answer> red </answer> <answer> blue </answer>"),
        sample(""),
    ]
    with RewardSet(spec(server)) as rewards:
        rewards.check("Q ", PROBLEM)
        asked = len(server.requests)
        scores = rewards.score(samples)
    assert scores.total.tolist() == [1, 0.5, 0, 1, 0, 0, 0, 0]
    prompts = [body["messages"][0]["content"] for _, body, _ in server.requests[asked:]]
    assert len(prompts) == 5  # the rest has no answer, and is not asked about
    assert all(PROBLEM.question in prompt and PROBLEM.answer in prompt for prompt in prompts)
    assert not any(CHAIN in prompt for prompt in prompts)
    assert "no single answer" in scores.reasons["judge_answer"][-1]


def test_formats_are_judged_on_the_whole_response(server):
    with RewardSet(spec(server, "judge_format", max_chars=100)) as rewards:
        scores = rewards.score(
            [sample("red </think> x", prompt="Q <think>"), sample("x" * 200 + "red"), sample(CHEAT)]
        )
    assert scores.total.tolist() == [1, 1, 0]
    prompts = sorted((body["messages"][0]["content"] for _, body, _ in server.requests), key=len)
    assert any("<think>red </think> x\n" in prompt for prompt in prompts)
    assert "x\n[103 characters left out]\nx" in prompts[-1]


def test_answers_that_are_too_long_are_not_asked_about(server):
    with RewardSet(spec(server, max_chars=10)) as rewards:
        scores = rewards.score([sample("red " * 10)])
    assert scores.total == 0 and "longer than 10" in scores.reasons["judge_answer"][0]
    assert not server.requests


def test_a_judge_that_fails_is_an_error_and_no_verdict(server):
    server.faults = [bad.status(401, "bad key")]
    with RewardSet(spec(server)) as rewards, pytest.raises(ServerError, match="bad key"):
        rewards.score([sample("red")])
    with RewardSet(spec(server, model="other")) as rewards:
        with pytest.raises(ServerError, match="has no model 'other'"):
            rewards.score([sample("red")])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("judge_answer", "give one of them"),
        ("judge_answer?server=http://h&checkpoint=d", "give one of them"),
        ("judge_format?server=http://h", "needs server=URL and model=NAME"),
        ("judge_format?checkpoint=d&model=m", "needs server=URL and model=NAME"),
    ],
)
def test_bad_options(text, message):
    with pytest.raises(ValueError, match=message):
        RewardSet(text)


def test_a_checkpoint_judges(tmp_path):
    """A random model gives no verdict, which is 0; a response beyond its context is not shown."""
    tokenizer = train_bpe(["a"], 257, eos_token="<eos>", template=CHAT_TEMPLATE)
    config = ModelConfig(
        family="qwen3", vocab_size=258, embed_dim=16, num_layers=1, num_heads=2, num_kv_heads=1,
        head_dim=8, mlp_dim=16, qk_norm=True, max_length=2400,
    )  # fmt: skip
    params = LanguageModel(config).init(jax.random.key(0))
    export_model(tmp_path / "judge", config, params, tokenizer)
    name = f"judge_answer?checkpoint={tmp_path / 'judge'}&max_new_tokens=8"
    with RewardSet(name) as rewards:
        scores = rewards.score([sample("red"), sample("red " * 600)])
    assert scores.total.tolist() == [0, 0]
    first, second = scores.reasons["judge_answer"]
    assert (
        re.match("the judge gave no verdict: ", first)
        and second == "the prompt is too long for the judge"
    )
