"""`launch.run_teacher` against a local server: estimate, cap, kill -9, resumption, a checkpoint."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest

from configs.teacher import get_config
from launch import run_teacher
from models.config import ModelConfig
from models.decoder import LanguageModel
from models.hf.export import export_model
from models.tokens.tokenizer_training import train_bpe
from reasoning.prompts import CHAT_TEMPLATE
from tests import misbehaving_server as bad
from tests.misbehaving_server import MODEL, running_server
from train.data import read_records

ROOT = Path(__file__).parents[2]
COUNT = 24


def respond(prompt, i):
    n = int(prompt.split()[2])
    return f"<think> {n} and 1 </think> <answer> {n + 1 + i} </answer>"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with running_server() as server:
        server.answer = respond
        yield server


@pytest.fixture
def problems(tmp_path):
    path = tmp_path / "problems.jsonl"
    lines = [{"prompt": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(COUNT)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    empty = tmp_path / "test.jsonl"
    empty.write_text('{"prompt": "What is 99 + 1?", "answer": "100"}\n')
    return f"jsonl:{path}?test={empty}"


def make_config(server, problems, /, **teacher):
    config = get_config("tags")
    config.task, config.num_samples, config.max_new_tokens = problems, 2, 50
    config.teacher.update({"server": server.url, "model": MODEL, "concurrency": 2} | teacher)
    return config


def command(server, problems, workdir):
    teacher = {"server": server.url, "model": MODEL, "concurrency": 2}
    return [
        sys.executable, "-m", "launch.run_teacher", "--config=configs/teacher.py:tags",
        f"--config.task={problems}", "--config.num_samples=2", "--config.max_new_tokens=50",
        f"--workdir={workdir}", *(f"--config.teacher.{k}={v}" for k, v in teacher.items()),
    ]  # fmt: skip


def asked(server):
    return [body["messages"][-1]["content"] for _, body, _ in server.requests]


def logged(workdir):
    """Whole records of the log."""
    text = (workdir / "responses.jsonl").read_text() if workdir.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True)[1:] if line[-1] == "\n"]


def check_data(workdir, kept=COUNT):
    records = [record for _, record in read_records(workdir / "data.jsonl")]
    assert sorted(r["messages"][1]["content"] for r in records) == sorted(
        respond(f"What is {n}", 0) for n in range(kept)
    )


def test_killed_in_the_middle_it_resumes_without_paying_twice(server, problems, tmp_path):
    workdir = tmp_path / "run"
    server.delay_s = 0.1
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen(
        command(server, problems, workdir), cwd=ROOT, env=environment, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 300
        while not (workdir / "responses.jsonl").exists() or len(logged(workdir)) < 5:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    time.sleep(0.3)  # the server finishes what nobody waits for
    before, first = logged(workdir), asked(server)
    assert 5 <= len(before) < COUNT and not (workdir / "data.jsonl").exists()
    # As if the kill had come in the middle of a line.
    with (workdir / "responses.jsonl").open("ab") as file:
        file.write(b'{"key": "abc", "samples": [{"te')

    server.delay_s = 0.0
    server.faults = [bad.half, None, bad.status(500), None, bad.status(429), bad.text("{")]
    server.requests.clear()
    run_teacher.run(make_config(server, problems, attempts=3), str(workdir))
    assert logged(workdir)[: len(before)] == before and len(logged(workdir)) == COUNT
    # What was logged is not asked for again; what was in flight at the kill is, and no more.
    again = set(asked(server)) & set(first)
    assert len(again) == len(first) - len(before) <= 2
    check_data(workdir)
    summary = json.loads((workdir / "summary.json").read_text())
    assert (summary["prompts"], summary["problems"], summary["kept"]) == (COUNT, COUNT, COUNT)
    assert summary["usage"]["retries"] == 4

    server.requests.clear()
    run_teacher.run(make_config(server, problems), str(workdir))
    assert not server.requests
    check_data(workdir)


def test_sigterm_ends_cleanly(server, problems, tmp_path):
    workdir = tmp_path / "run"
    server.delay_s = 0.2
    process = subprocess.Popen(
        command(server, problems, workdir), cwd=ROOT, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    deadline = time.monotonic() + 300
    while not (workdir / "responses.jsonl").exists() or len(logged(workdir)) < 3:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 75 and "SIGTERM; the same command continues from here" in output
    # Everything that was answered is there.
    assert len(logged(workdir)) == len(server.requests) < COUNT


def test_the_estimate_comes_first(server, problems, tmp_path, capsys):
    prices = tmp_path / "prices.json"
    prices.write_text(json.dumps({MODEL: {"prompt": 1.0, "completion": 1000.0}}))
    config = make_config(server, problems, prices=str(prices), max_cost=0.5)
    run_teacher.run(config, str(tmp_path / "run"), estimate_only=True)
    printed = capsys.readouterr().out
    # 24 prompts of two samples of up to 50 tokens.
    assert "to ask: 24 prompts" in printed and "at most 2,400 tokens" in printed
    assert "cost: at most about 2.40" in printed and "stops before 0.5 is exceeded" in printed
    assert not server.requests


def test_the_cap_holds_over_several_runs(server, problems, tmp_path):
    """A request costs up to 0.1 and, with ten words in each sample, in the end 0.02."""
    prices = tmp_path / "prices.json"
    prices.write_text(json.dumps({MODEL: {"prompt": 0.0, "completion": 1000.0}}))
    config = make_config(server, problems, prices=str(prices), max_cost=0.25, concurrency=1)
    for _ in range(3):
        with pytest.raises(OSError, match="spending cap.*raise max_cost to go on"):
            run_teacher.run(config, str(tmp_path / "run"))
    words = len(respond("What is 1", 0).split()) * 2
    assert len(server.requests) * words * 1e-3 <= 0.25
    answered = len(server.requests)
    assert answered >= 5
    # What there is, is data already.
    assert len(list(read_records(tmp_path / "run" / "data.jsonl"))) == answered
    config.teacher.max_cost = 10.0
    run_teacher.run(config, str(tmp_path / "run"))
    assert len(server.requests) == COUNT
    check_data(tmp_path / "run")


def test_more_problems_extend_a_run_and_other_settings_are_refused(server, problems, tmp_path):
    config = make_config(server, problems)
    config.problems = 10
    run_teacher.run(config, str(tmp_path / "run"))
    config.problems = COUNT
    run_teacher.run(config, str(tmp_path / "run"))
    assert len(server.requests) == COUNT
    check_data(tmp_path / "run")
    config.temperature = 0.1
    with pytest.raises(ValueError, match="holds responses for temperature=0.6, not 0.1"):
        run_teacher.run(config, str(tmp_path / "run"))


def test_a_checkpoint_teaches(problems, tmp_path):
    """A random one, whose answers are wrong, but asked for once."""
    tokenizer = train_bpe(["a"], 257, eos_token="<eos>", template=CHAT_TEMPLATE)
    model = ModelConfig(
        family="qwen3", vocab_size=258, embed_dim=16, num_layers=1, num_heads=2, num_kv_heads=1,
        head_dim=8, mlp_dim=16, qk_norm=True,
    )  # fmt: skip
    params = LanguageModel(model).init(jax.random.key(0))
    export_model(tmp_path / "teacher", model, params, tokenizer)
    config = get_config("tags")
    config.task, config.num_samples, config.max_new_tokens = problems, 2, 8
    config.teacher.update({"checkpoint": str(tmp_path / "teacher"), "rows": 16})
    run_teacher.run(config, str(tmp_path / "run"))
    before = logged(tmp_path / "run")
    assert len(before) == COUNT and all(len(r["samples"]) == 2 for r in before)
    run_teacher.run(config, str(tmp_path / "run"))
    assert logged(tmp_path / "run") == before
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["kept"] == 0 and sum(summary["faults"].values()) == 2 * COUNT


def test_mistakes_are_one_line_before_anything_is_asked(server, problems, tmp_path):
    for changes, message in (
        ({"model": "other"}, "has no model 'other'"),
        ({"server": "http://127.0.0.1:9"}, "check that the server runs"),
        ({"server": ""}, "give one of teacher.server"),
        ({"api_key_env": "NO_SUCH_KEY"}, "NO_SUCH_KEY is not set"),
        ({"prices": str(tmp_path / "none")}, "teacher.prices=.*: no such file"),
        ({"max_cost": 1.0}, "needs prices"),
    ):
        with pytest.raises((ValueError, OSError), match=message):
            run_teacher.run(make_config(server, problems, **changes), str(tmp_path / "run"))
    for field, value, message in (
        ("form", "tag", "form='tag': must be one of"),
        ("template", "chit", "template='chit': must be one of"),
        ("task", "", "give one of task=SPEC"),
        ("prompts", "file", "give one of task=SPEC"),
    ):
        config = make_config(server, problems)
        config[field] = value
        with pytest.raises(ValueError, match=message):
            run_teacher.run(config, str(tmp_path / "run"))
    assert not server.requests
    with pytest.raises(ValueError, match="configs/teacher.py:tag is unknown"):
        get_config("tag")
