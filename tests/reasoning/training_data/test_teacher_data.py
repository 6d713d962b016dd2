"""Tests that a teacher's chains are asked for once, kept whole, verified and filtered.

Some tests use servers that misbehave.
"""

import json

import pytest

from models.decoding.sampling import SamplingParams
from reasoning.generation.generator import Completion
from reasoning.problem import Problem
from reasoning.server_client.api_client import ApiClient, ServerError
from reasoning.server_client.openai_generator import OpenAIGenerator
from reasoning.server_client.response_log import ResponseLog
from reasoning.training_data.teacher_data import (
    FAILURES_IN_A_ROW,
    collect,
    grade,
    make_items,
    read_prompts,
    write_examples,
)
from tests import misbehaving_server as bad
from tests.misbehaving_server import MODEL, running_server

NUMBERS = range(12)
ARGUMENTS = dict(
    num_samples=2, max_new_tokens=64, sampling=SamplingParams(), seed=0, batch=4
)  # fmt: skip


def items():
    problems = [Problem("jsonl:none", f"What is {n} + 1?", str(n + 1)) for n in NUMBERS]
    return make_items(problems, lambda question: [{"role": "user", "content": question}])


def respond(prompt, i):
    """The first sample is right, the second wrong."""
    n = int(prompt.split()[2])
    return f"<think> {n} and 1 </think> <answer> {n + 1 + i} </answer>"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with running_server() as server:
        server.answer = respond
        yield server


@pytest.fixture
def log(tmp_path):
    with ResponseLog(tmp_path / "responses.jsonl", {}) as log:
        yield log


def teacher(server, **client):
    settings = dict(attempts=3, backoff_s=0.01, timeout_s=120.0) | client
    return OpenAIGenerator(ApiClient(server.url, **settings), MODEL, concurrency=3)


def asked(server):
    return [body["messages"][-1]["content"] for _, body, _ in server.requests]


def examples(log, chosen, path, form="tags"):
    summary = write_examples(path, grade(log, chosen, form))
    return summary, [json.loads(line) for line in path.open()]


def test_what_is_right_and_well_formed_is_kept(server, log, tmp_path):
    collected = collect(teacher(server), log, items(), **ARGUMENTS)
    assert (collected.answered, collected.failed) == (12, 0)
    summary, kept = examples(log, items(), tmp_path / "data.jsonl")
    assert {(e["messages"][0]["content"], e["messages"][1]["content"]) for e in kept} == {
        (f"What is {n} + 1?", respond(f"What is {n}", 0)) for n in NUMBERS
    }
    assert all(e["answer"] == str(int(e["messages"][0]["content"].split()[2]) + 1) for e in kept)
    assert (summary["problems"], summary["responses"], summary["kept"]) == (12, 24, 12)
    assert summary["faults"] == {"wrong": 12}
    assert summary["metrics"]["correct"]["mean"] == 0.5
    assert summary["metrics"]["well_formed"]["mean"] == 1


def test_nothing_is_asked_twice(server, log):
    collect(teacher(server), log, items()[:5], **ARGUMENTS)
    collect(teacher(server), log, items(), **ARGUMENTS)
    assert collect(teacher(server), log, items(), **ARGUMENTS).answered == 0
    assert sorted(asked(server)) == sorted(f"What is {n} + 1?" for n in NUMBERS)


def test_the_same_prompt_is_asked_once():
    problem = Problem("jsonl:none", "What?", "1")
    assert len(make_items([problem, problem], lambda question: question)) == 1


FLAWS = {
    "timeout": bad.hang, "429": bad.status(429), "500": bad.status(500), "half": bad.half,
    "malformed": bad.text("{"), "half chunked": bad.half_chunked, "hang up": bad.hang_up,
    "no end": bad.text('{"choices": [{"message": {"content": "x"}, "finish_reason": null}]}'),
}  # fmt: skip


# Time for an answer where one never comes.
SHORT = {"timeout": dict(timeout_s=2.0, attempts=2)}


@pytest.mark.parametrize("flaw", FLAWS)
def test_a_flaw_now_and_then_changes_nothing(server, log, tmp_path, flaw):
    server.faults = [FLAWS[flaw], None, None, FLAWS[flaw], None]
    collected = collect(teacher(server, **SHORT.get(flaw, {})), log, items(), **ARGUMENTS)
    assert (collected.answered, collected.failed) == (12, 0)
    summary, kept = examples(log, items(), tmp_path / "data.jsonl")
    assert (summary["responses"], len(kept)) == (24, 12)


@pytest.mark.parametrize("flaw", FLAWS)
def test_prompts_that_fail_for_good_are_left_for_the_next_run(server, log, tmp_path, flaw):
    broken = "What is 3 + 1?"

    def only_there(handler, body):
        if body["messages"][-1]["content"] == broken:
            return FLAWS[flaw](handler, body)
        handler.send(200, json.dumps(handler.reply(body)))

    server.faults = [only_there] * 100
    collected = collect(teacher(server, **SHORT.get(flaw, {})), log, items(), **ARGUMENTS)
    assert (collected.answered, collected.failed) == (11, 1) and collected.last_failure
    summary, kept = examples(log, items(), tmp_path / "data.jsonl")
    assert (summary["responses"], len(kept)) == (22, 11)
    server.faults.clear()
    server.requests.clear()
    assert collect(teacher(server), log, items(), **ARGUMENTS).answered == 1
    assert asked(server) == [broken]


def test_a_server_that_only_fails_is_given_up(server, log):
    many = make_items(
        [Problem("", f"{i}", "") for i in range(100)], lambda q: [{"role": "user", "content": q}]
    )
    server.faults = [bad.status(500, "broken")] * 1000
    with pytest.raises(ServerError, match=f"{FAILURES_IN_A_ROW} prompts in a row failed.*broken"):
        collect(teacher(server, attempts=1), log, many, **ARGUMENTS)
    assert len(server.requests) < FAILURES_IN_A_ROW + 5


def test_a_refused_key_stops_at_once_and_what_came_is_kept(server, log):
    server.faults = [None] * 4 + [bad.status(401, "expired")] * 100
    with pytest.raises(ServerError, match="expired"):
        collect(teacher(server), log, items(), **ARGUMENTS)
    assert len(log.keys) == 4 and len(server.requests) <= 4 + 3
    server.faults.clear()
    assert collect(teacher(server), log, items(), **ARGUMENTS).answered == 8


def test_stopping(server, log):
    count = [0]

    def on_answer(collected):
        count[0] = collected.answered

    collect(
        teacher(server), log, items(), **ARGUMENTS, should_stop=lambda: count[0] >= 4,
        on_answer=on_answer,
    )  # fmt: skip
    # Those in flight are paid for, and logged.
    assert 4 <= len(log.keys) == len(server.requests) <= 7


class Sampler:
    """A generator that answers all at once, like the compiled sampler; counts its calls."""

    def __init__(self):
        self.calls = []

    def generate(self, prompts, *, num_samples, seed, **unused):
        self.calls.append((list(prompts), seed))
        return [
            [Completion(respond(prompt, i), [1, 2], None, "stop") for i in range(num_samples)]
            for prompt in prompts
        ]


def test_any_generator_will_do(log, tmp_path):
    problems = [item.problem for item in items()]
    texts = make_items(problems, lambda question: question)
    sampler = Sampler()
    count = [0]
    collect(
        sampler, log, texts, **ARGUMENTS, should_stop=lambda: len(sampler.calls) == 2,
        on_answer=lambda collected: count.append(collected.answered),
    )  # fmt: skip
    assert len(log.keys) == 8 and count[-1] == 8
    collect(sampler, log, texts, **ARGUMENTS)
    assert [len(prompts) for prompts, _ in sampler.calls] == [4] * 3
    assert len({seed for _, seed in sampler.calls}) == 3
    summary, kept = examples(log, texts, tmp_path / "data.jsonl")
    assert summary["kept"] == len(kept) == 12


RESPONSES = [  # text, finish, fault as tags, fault as think
    ("<think> a </think> <answer> 2 </answer>", "stop", "", ""),
    ("<think> a </think> <answer> 2 </answer>", "stop", "repeated", "repeated"),
    ("<think> b </think> <answer> 2 </answer>", "length", "cut off", "cut off"),
    ("<think> c </think> The answer is 2.", "stop", "form: no <answer>", ""),
    ("d </think> The answer is 2.", "stop", "form: no <answer>", ""),
    ("The answer is 2.", "stop", "form: no <think>", "form: no chain in think tags"),
    ("<think> e </think> <think> f </think> 2", "stop", "form: 2 times <think>",
     "form: several think tags"),
    ("<think> </think> 2", "stop", "form: no <answer>", "form: an empty chain or answer"),
    ("<think> g </think> <answer> 3 </answer>", "stop", "wrong", "wrong"),
    ("", "stop", "form: no <think>", "form: empty"),
]  # fmt: skip


@pytest.mark.parametrize(("form", "column"), [("tags", 2), ("think", 3)])
def test_filters(log, form, column):
    [item] = make_items([Problem("jsonl:none", "1 + 1?", "2")], lambda question: question)
    samples = [{"text": row[0], "finish": row[1], "tokens": 3} for row in RESPONSES]
    log.append({"key": item.key, "samples": samples})
    log.append({"key": "of another data set", "samples": samples})
    [graded] = grade(log, [item], form)
    assert [each.fault for each in graded] == [row[column] for row in RESPONSES]
    assert graded[4].text.startswith("<think>")  # begun by the server's chat template
    with pytest.raises(ValueError, match="form='tag' is unknown"):
        list(grade(log, [item], "tag"))


def test_a_prompt_that_opens_the_chain(log):
    [item] = make_items([Problem("jsonl:none", "1 + 1?", "2")], lambda q: f"{q} <think>\n")
    text = "I see </think> <answer> 2 </answer>"
    log.append({"key": item.key, "samples": [{"text": text, "finish": "stop", "tokens": 3}]})
    [[graded]] = grade(log, [item], "tags")
    assert not graded.fault and graded.text == f"<think>\n{text}"


def test_prompts_without_answers_are_filtered_by_form_alone(log, tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "Write a poem."}\n')
    chosen = make_items(read_prompts(path), lambda question: question)
    samples = [{"text": t, "finish": "stop", "tokens": 1} for t in ("<think> a </think> b", "b")]
    log.append({"key": chosen[0].key, "samples": samples})
    summary, [kept] = examples(log, chosen, tmp_path / "data.jsonl", "think")
    assert kept["messages"][1]["content"] == samples[0]["text"]
    assert "correct" not in summary["metrics"]
    path.write_text("\n")
    with pytest.raises(ValueError, match="holds no prompts"):
        read_prompts(path)
