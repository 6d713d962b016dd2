"""The server as its clients see it."""

import asyncio
import concurrent.futures
import json
import socket
import threading
import time

import httpx
import pytest

from reasoning.router.choosing import PredictiveRouter
from reasoning.router.rules import RulesPredictor
from reasoning.serving.models import Checkpoint
from reasoning.serving.routes import Models
from reasoning.serving.server import Server
from tests.reasoning.serving.conftest import KEY, ROUTES, listening

HELLO = [{"role": "user", "content": "hello"}]
HEADERS = {"Authorization": f"Bearer {KEY}"}


def post(url, path="/v1/chat/completions", headers=HEADERS, **body):
    body = {"model": "reasoner", "messages": HELLO, "max_tokens": 24, "seed": 1} | body
    if path == "/v1/completions":
        body = {key: value for key, value in body.items() if key != "messages"}
    return httpx.post(url + path, json=body, headers=headers, timeout=60)


def streamed(url, **body):
    """The fields of a streamed answer put together, for each choice."""
    found, usage = {}, None
    answer = post(url, stream=True, stream_options={"include_usage": True}, **body)
    assert answer.status_code == 200, answer.text
    lines = [line for line in answer.text.split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    for line in lines[:-1]:
        part = json.loads(line.removeprefix("data: "))
        usage = part.get("usage") or usage
        for choice in part["choices"]:
            each = found.setdefault(
                choice["index"], {"content": "", "reasoning": "", "finish": None}
            )
            for name in ("content", "reasoning"):
                each[name] += choice["delta"].get(name) or ""
            each["finish"] = choice["finish_reason"] or each["finish"]
    return [found[i] for i in sorted(found)], usage


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("settings", [
    {}, {"model": "tiny"}, {"model": "cheap"}, {"max_tokens": 1}, {"max_tokens": 3},
    {"thinking_token_budget": 4, "max_tokens": 12}, {"stop": ["e", "12"]},
    {"n": 3, "temperature": 1.5}, {"reasoning_display": "hidden"}, {"top_p": 0.8, "top_k": 40},
], ids=str)  # fmt: skip
def test_a_stream_is_the_whole_answer_in_parts(url, settings, seed):
    whole = post(url, seed=seed, **settings).json()
    parts, usage = streamed(url, seed=seed, **settings)
    assert usage == whole["usage"]
    for choice, part in zip(whole["choices"], parts, strict=True):
        message = choice["message"]
        assert part["content"] == message["content"]
        assert part["reasoning"] == (message.get("reasoning") or "")
        assert part["finish"] == choice["finish_reason"]
        if "stop" not in settings:
            assert message["content"].strip(), "an empty answer"
        assert "<think>" not in message["content"] and "</think>" not in message["content"]
    most = settings.get("max_tokens", 24)
    assert 1 <= usage["completion_tokens"] <= most * settings.get("n", 1)
    assert 0 <= usage["completion_tokens_details"]["reasoning_tokens"] <= usage["completion_tokens"]


def test_a_hidden_chain_shows_nowhere(url):
    shown = post(url, seed=5, max_tokens=60).json()
    chain = shown["choices"][0]["message"]["reasoning"].strip()
    assert len(chain) > 10
    for settings in ({"reasoning_display": "hidden"}, {"include_reasoning": False}):
        for stream in (False, True):
            hidden = post(
                url, seed=5, max_tokens=60, stream=stream, logprobs=True, top_logprobs=2, **settings
            )  # fmt: skip
            assert "reasoning_content" not in hidden.text and chain[:10] not in hidden.text
    entries = post(
        url, seed=5, max_tokens=60, logprobs=True, **settings
    ).json()["choices"][0]  # fmt: skip
    told = "".join(each["token"] for each in entries["logprobs"]["content"])
    assert entries["message"]["content"][:5] in told.replace("<|im_start|>", "")


def test_a_seeds_answer_does_not_depend_on_other_requests(url):
    alone = [post(url, seed=seed).json()["choices"] for seed in range(4)]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        jobs = {}
        for n in range(40):
            text = f"number {n} " * (n % 5)
            other = [{"role": "user", "content": text + "hi"}]
            if n % 4:
                pool.submit(post, url, messages=other, temperature=1.7, top_p=0.7)
            else:
                jobs[n] = pool.submit(post, url, seed=n // 4 % 4)
        for n, job in jobs.items():
            answer = job.result()
            if answer.status_code != 429:
                assert answer.json()["choices"] == alone[n // 4 % 4]


def test_auto_tells_its_route_and_a_vote_its_candidates(url):
    easy = post(url, model="auto").json()["ergo"]
    assert easy["route"]["kind"] == "direct" and "small talk" in easy["why"]
    vote = post(url, model="auto", reasoning_effort="high").json()
    candidates = vote["ergo"]["candidates"]
    assert len(candidates) == 4 and sum(each["chosen"] for each in candidates) == 1
    assert sum(each["tokens"] for each in candidates) == vote["usage"]["completion_tokens"]
    (part,), _ = streamed(url, model="auto", reasoning_effort="high")
    assert part["content"] == vote["choices"][0]["message"]["content"]


def test_thinking_can_be_switched_off(url, checkpoint):
    off = post(url, chat_template_kwargs={"enable_thinking": False}).json()
    assert off["ergo"]["route"]["kind"] == "direct"
    openings = [checkpoint.prompt(HELLO, thinking, {}).opening for thinking in (True, False, None)]
    assert ["".join(each.split()) for each in openings] == [
        "<think>",
        "<think></think><answer>",
        "",
    ]


def test_a_model_that_keeps_budgets_is_told_them(checkpoint):
    trained = Checkpoint("tiny", checkpoint.vocabulary, checkpoint.engine, named_budgets=True)
    models = Models(trained, None, PredictiveRouter(RulesPredictor(ROUTES)), samples=4)
    for settings, told, thinking in (
        ({"model": "cheap"}, "hello Answer without thinking.", False),
        ({"reasoning_effort": "low", "max_tokens": 80}, "hello Answer within 12 tokens.", True),
        ({"reasoning_effort": "medium"}, "hello", True),
        ({"model": "tiny"}, "hello", None),
    ):
        with listening(Server(models)) as url:
            answer = post(url, headers={}, **settings).json()
        turns = [{"role": "user", "content": told}]
        expected = len(checkpoint.prompt(turns, thinking, {}).ids)
        assert answer["usage"]["prompt_tokens"] == expected


def test_completions_continue_and_score_texts(url):
    path = "/v1/completions"
    answer = post(url, path, prompt=["12 +", "30"], n=2, logprobs=2).json()
    assert [each["index"] for each in answer["choices"]] == [0, 1, 2, 3]
    drawn = sum(len(each["logprobs"]["token_logprobs"]) for each in answer["choices"])
    assert drawn == answer["usage"]["completion_tokens"]
    scored = post(url, path, prompt="What is 12?", echo=True, logprobs=1, max_tokens=0).json()
    scored = scored["choices"][0]
    assert scored["text"] == "What is 12?" == "".join(scored["logprobs"]["tokens"])
    values = scored["logprobs"]["token_logprobs"]
    assert values[0] is None and all(value <= 0 for value in values[1:])
    assert post(url, path, prompt=[[70, 71], [72]], max_tokens=2).status_code == 200
    # The token that ends a sequence is no part of its text, but it has a log-prob as well.
    ended = post(url, path, prompt="12 +", echo=True, logprobs=1, max_tokens=120, n=8).json()
    assert "stop" in {each["finish_reason"] for each in ended["choices"]}
    for each in ended["choices"]:
        told, text = each["logprobs"]["tokens"], each["text"]
        assert each["finish_reason"] != "stop" or (
            told[-1] == "<|im_end|>" and told[-1] not in text
        )
    assert sum(len(each["logprobs"]["tokens"]) for each in ended["choices"]) == (
        ended["usage"]["completion_tokens"] + 8 * ended["usage"]["prompt_tokens"]
    )


def test_texts_become_tokens_and_back(url, checkpoint):
    text = "What is 12 + 30? héllo<|im_end|>"
    found = httpx.post(url + "/tokenize", headers=HEADERS, json={"prompt": text}).json()
    assert found["tokens"] == checkpoint.tokenizer.encode_prompts([text])[0]
    assert found["count"] == len(found["tokens"]) and found["max_model_len"] == 256
    body = {"tokens": found["tokens"], "model": "tiny"}
    assert httpx.post(url + "/detokenize", headers=HEADERS, json=body).json() == {"prompt": text}
    chat = httpx.post(url + "/tokenize", headers=HEADERS, json={"messages": HELLO}).json()
    assert chat["count"] == post(url, model="tiny").json()["usage"]["prompt_tokens"]
    about = httpx.get(url + "/tokenizer_info", headers=HEADERS).json()
    assert about["eos_token"] == "<|im_end|>" and "{% for" in about["chat_template"]
    assert about["bos_token"] is None
    for path, body, status in (
        ("/tokenize", {}, 400), ("/tokenize", {"prompt": "a", "messages": HELLO}, 400),
        ("/tokenize", {"prompt": "a", "model": "nobody"}, 404),
        ("/detokenize", {"tokens": [320]}, 400), ("/detokenize", {"tokens": [-1]}, 400),
    ):  # fmt: skip
        answer = httpx.post(url + path, headers=HEADERS, json=body)
        assert answer.status_code == status and answer.json()["error"]["message"]
    assert httpx.get(url + "/tokenizer_info").status_code == 401


@pytest.mark.parametrize(("body", "status"), [
    (b"{", 400), (b"[]", 400), (b"\xff\xfe{}", 400), (b'{"a": NaN}', 400), (b"[" * 50_000, 400),
    (b"x" * 200_000, 413),
    ({"model": "nobody"}, 404), ({"n": 0}, 400), ({"n": 10_000}, 400), ({"messages": []}, 400),
    ({"temperature": -1}, 400), ({"max_tokens": "5"}, 400), ({"stop": [""]}, 400),
    ({"messages": [{"role": "user", "content": "\ud800"}]}, 400),
    ({"messages": [{"role": "user", "content": "long " * 4000}]}, 400),
    ({"chat_template_kwargs": {"messages": []}}, 400), ({"presence_penalty": 1.0}, 400),
], ids=lambda x: str(x)[:40])  # fmt: skip
def test_bad_requests_get_errors_in_the_apis_shape(url, body, status):
    if isinstance(body, bytes):
        answer = httpx.post(url + "/v1/chat/completions", content=body, headers=HEADERS)
    else:
        text = json.dumps({"model": "reasoner", "messages": HELLO} | body)
        answer = httpx.post(url + "/v1/chat/completions", content=text, headers=HEADERS)
    assert answer.status_code == status, answer.text
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert httpx.get(url + "/health").status_code == 200


def test_keys_and_open_paths(url):
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": KEY}):
        assert post(url, headers=headers).status_code == 401
        assert httpx.get(url + "/metrics", headers=headers).status_code == 401
    for path in ("/", "/page.css", "/page.js", "/health", "/openapi.json"):
        assert httpx.get(url + path).status_code == 200
    text = httpx.get(url + "/metrics", headers=HEADERS).text
    assert "ergo_requests_total" in text and "hello" not in text and KEY not in text
    assert httpx.get(url + "/v1/models/auto", headers=HEADERS).json()["id"] == "auto"
    assert httpx.get(url + "/v1/models/x", headers=HEADERS).status_code == 404
    assert httpx.get(url + "/v1/nothing", headers=HEADERS).json()["error"]


def test_the_page_needs_no_other_server(url):
    for path in ("/", "/page.css", "/page.js"):
        text = httpx.get(url + path).text
        assert "http:" not in text and "https:" not in text and "innerHTML" not in text


def test_clients_that_leave_free_their_slots(url, checkpoint):
    before = checkpoint.engine.counts["cancelled"]
    for _ in range(6):
        with httpx.stream(
            "POST", url + "/v1/chat/completions", headers=HEADERS, timeout=20,
            json={"model": "reasoner", "messages": HELLO, "max_tokens": 128, "stream": True,
                  "ignore_eos": True},
        ) as answer:  # fmt: skip
            next(answer.iter_lines())
    deadline = time.monotonic() + 10
    while any(checkpoint.engine.load) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert checkpoint.engine.load == (0, 0)
    assert checkpoint.engine.counts["cancelled"] > before


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_a_slow_prompt_holds_up_nobody_else(url, checkpoint, monkeypatch, path):
    begun, free = threading.Event(), threading.Event()
    encode = type(checkpoint.tokenizer).encode_prompts

    def slow(self, texts):
        if "slow" in texts[0]:
            begun.set()
            free.wait(20)
        return encode(self, texts)

    monkeypatch.setattr(type(checkpoint.tokenizer), "encode_prompts", slow)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        messages = [{"role": "user", "content": "slow"}]
        waits = pool.submit(post, url, path, messages=messages, prompt="slow")
        assert begun.wait(20)
        streamed(url)  # Comes to its end although the other prompt is not read yet.
        assert not waits.done() and not free.is_set()
        free.set()
        assert waits.result().status_code == 200


def test_a_full_queue_says_when_to_come_back(models, checkpoint, monkeypatch):
    monkeypatch.setattr(checkpoint.engine, "_most_waiting", 0)
    with listening(Server(models)) as url, concurrent.futures.ThreadPoolExecutor(24) as pool:
        body = {"max_tokens": 150, "ignore_eos": True, "headers": {}}
        answers = list(pool.map(lambda _: post(url, **body), range(24)))
    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused and all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert {answer.status_code for answer in answers} <= {200, 429}


def test_a_body_that_never_ends_is_given_up(url):
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as wire:
        wire.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n"
            b"Authorization: Bearer " + KEY.encode() + b"\r\n\r\n{"
        )
        assert b" 408 " in wire.recv(1000)


def test_the_openai_package(url):
    openai = pytest.importorskip("openai", reason="needs the openai package")
    arguments = {"model": "reasoner", "messages": HELLO, "max_completion_tokens": 20, "seed": 3}
    client = openai.OpenAI(base_url=url + "/v1", api_key=KEY)
    whole = client.chat.completions.create(**arguments, logprobs=True, top_logprobs=3)
    content = whole.choices[0].message.content
    assert content and len(whole.choices[0].logprobs.content[0].top_logprobs) == 3
    assert whole.usage.completion_tokens_details.reasoning_tokens > 0
    assert whole.choices[0].message.reasoning_content
    parts = client.chat.completions.create(**arguments, stream=True)
    assert content == "".join(p.choices[0].delta.content or "" for p in parts if p.choices)
    assert "auto" in [model.id for model in client.models.list()]
    assert client.completions.create(model="tiny", prompt="12 + ", seed=1).choices[0].text
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="nobody", messages=HELLO)
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=url + "/v1", api_key="no").models.list()

    async def ask():
        async with openai.AsyncOpenAI(base_url=url + "/v1", api_key=KEY) as client:
            answers = await asyncio.gather(
                *(client.chat.completions.create(**arguments) for _ in range(5))
            )
            stream = await client.chat.completions.create(**arguments, stream=True)
            text = [p.choices[0].delta.content or "" async for p in stream if p.choices]
            return [answer.choices[0].message.content for answer in answers] + ["".join(text)]

    assert set(asyncio.run(ask())) == {content}


def test_schemathesis_finds_no_crash(url):
    schemathesis = pytest.importorskip("schemathesis", reason="needs the schemathesis package")
    from hypothesis import HealthCheck, given, settings

    schema = schemathesis.openapi.from_url(url + "/openapi.json")
    for path in ("/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize"):
        operation = schema[path]["POST"]

        @settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck),
                  database=None, derandomize=True)  # fmt: skip
        @given(case=operation.as_strategy())
        def run(case):
            answer = case.call(headers=HEADERS)
            assert answer.status_code < 500, answer.content
            if answer.status_code >= 400:
                assert "error" in answer.json()

        run()
