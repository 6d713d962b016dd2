"""Tests the HTTP generator against a local server that misbehaves in many ways."""

import json
import threading
import time

import numpy as np
import pytest

from models.decoding.sampling import SamplingParams
from reasoning.server_client.api_client import ApiClient, ServerError
from reasoning.server_client.api_limits import Ledger, Prices, RateLimiter, SpendingCapError
from reasoning.server_client.openai_generator import UNKNOWN_TOKEN, OpenAIGenerator, Request
from tests import misbehaving_server as bad
from tests.misbehaving_server import MODEL, running_server

KEY = "sk-very-secret-0123456789"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with running_server() as server:
        yield server


def make(server, *, model=MODEL, concurrency=4, client=None, **options):
    settings = dict(attempts=4, backoff_s=0.01, timeout_s=120.0) | (client or {})
    client = ApiClient(getattr(server, "url", server), **settings)
    return OpenAIGenerator(client, model, concurrency=concurrency, **options)


def generate(generator, prompts=("one two", "three"), **changes):
    return generator.generate(prompts, **(dict(max_new_tokens=16) | changes))


def texts(groups):
    return [[completion.text for completion in group] for group in groups]


def test_samples_come_in_the_order_of_the_prompts(server):
    prompts = [f"question {i}" for i in range(20)]
    two = threading.Barrier(2)

    def meet(handler, body):
        two.wait(20)
        handler.send(200, json.dumps(handler.reply(body)))

    server.faults = [meet, meet]
    groups = generate(make(server), prompts, num_samples=3)
    assert texts(groups) == [[f"{p} sample {i}" for i in range(3)] for p in prompts]
    assert {c.finish for c in sum(groups, [])} == {"stop"}
    assert not two.broken  # two requests were there at a time
    paths = {path for path, _, _ in server.requests}
    assert paths == {"/v1/completions"} and len(server.requests) == 20


def test_what_is_sent(server):
    sampling = SamplingParams(temperature=0.7, top_p=0.9, top_k=20)
    generate(make(server, extra={"user": "me", "n": None}), sampling=sampling, seed=3)
    bodies = sorted((body for _, body, _ in server.requests), key=lambda b: b["prompt"])
    seeds = [body.pop("seed") for body in bodies]
    assert bodies[0] == {
        "model": MODEL, "prompt": "one two", "max_tokens": 16, "temperature": 0.7, "top_p": 0.9,
        "top_k": 20, "user": "me",
    }  # fmt: skip
    # The seed and a prompt's place decide.
    assert len(set(seeds)) == 2 and all(0 <= seed < 2**31 for seed in seeds)
    generate(make(server), ["one two", "one two"], seed=3)
    generate(make(server), ["one two"], seed=4)
    places = {body["seed"] for _, body, _ in server.requests[2:4]}
    assert seeds[0] in places and len(places) == 2
    assert server.requests[4][1]["seed"] not in places
    assert "top_k" not in server.requests[2][1]


def test_chats(server):
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]
    generator = make(server, chat=True)
    assert texts(generator.chat([messages], max_new_tokens=9)) == [["hi sample 0"]]
    assert texts(generate(generator, ["ho"])) == [["ho sample 0"]]
    (path, first, _), (_, second, _) = server.requests
    assert path == "/v1/chat/completions" and first["messages"] == messages
    assert second["messages"] == [{"role": "user", "content": "ho"}]


def test_a_chain_that_comes_apart_is_put_before_the_text(server):
    def with_chain(reply):
        reply["choices"][0]["message"]["reasoning_content"] = "let me see"
        return reply

    server.change = with_chain
    generator = make(server, chat=True)
    assert texts(generate(generator, ["a"])) == [["<think>let me see</think>a sample 0"]]

    def cut_off(reply):
        choice = with_chain(reply)["choices"][0]
        choice["message"]["content"], choice["finish_reason"] = None, "length"
        return reply

    server.change = cut_off
    [[completion]] = generate(generator, ["a"])
    assert (completion.text, completion.finish) == ("<think>let me see", "length")


@pytest.mark.parametrize("chat", [False, True])
def test_logprobs(server, chat):
    [[completion]] = generate(make(server, logprobs=True, chat=chat), ["a"])
    np.testing.assert_allclose(completion.logprobs, [-0.5] * 3)
    assert completion.logprobs.dtype == np.float32
    assert completion.token_ids == [UNKNOWN_TOKEN] * 3
    # Of the unscaled distribution, hence none at another temperature; none unless asked for.
    warm = dict(sampling=SamplingParams(temperature=0.5))
    assert generate(make(server, logprobs=True, chat=chat), ["a"], **warm)[0][0].logprobs is None
    assert generate(make(server, chat=chat), ["a"])[0][0].logprobs is None
    assert "logprobs" not in server.requests[-1][1]


def test_token_counts(server):
    server.answer = lambda prompt, i: " ".join(["word"] * (2 if i else 8))
    [group] = generate(make(server), ["a"], num_samples=3)
    counts = [len(completion.token_ids) for completion in group]
    assert sum(counts) == 12 and counts[0] > counts[1]
    server.change = lambda reply: (
        reply | {"choices": [choice | {"token_ids": [5, 6]} for choice in reply["choices"]]}
    )
    assert generate(make(server), ["a"])[0][0].token_ids == [5, 6]


def test_stop_strings(server):
    server.answer = lambda prompt, i: "first line\nsecond . third"
    [[at_line]] = generate(make(server), ["a"], stop=["\n", "."])
    assert (at_line.text, at_line.finish) == ("first line\n", "stop_string")
    [[never]] = generate(make(server), ["a"], stop=["!"])
    assert (never.text, never.finish) == ("first line\nsecond . third", "stop")

    def silent(reply):
        for choice in reply["choices"]:
            choice.pop("stop_reason")
        return reply

    # A server that does not say what stopped it cannot be trusted with stop strings.
    server.change = silent
    with pytest.raises(ServerError, match="does not say which stop string.*server_stops=False"):
        generate(make(server), ["a"], stop=["\n", "."])
    [[here]] = generate(make(server, server_stops=False), ["a"], stop=[".", "\n"])
    assert (here.text, here.finish) == ("first line\n", "stop_string")
    assert "stop" not in server.requests[-1][1]


def test_fewer_samples_than_asked_for_are_made_up(server):
    server.change = lambda reply: reply | {"choices": reply["choices"][:1]}
    [group] = generate(make(server), ["a"], num_samples=3)
    assert len(group) == 3
    assert [body["n"] for _, body, _ in server.requests] == [3, 2, 1]
    assert len({body["seed"] for _, body, _ in server.requests}) == 3


FLAWS = {
    "429": bad.status(429, "slow down"),
    "500": bad.status(500, "oh"),
    "503": bad.status(503, "starting"),
    "html": bad.text("<html>busy</html>"),
    "array": bad.text("[]"),
    "no choices": bad.text('{"choices": []}'),
    "no text": bad.text('{"choices": [{"finish_reason": "stop"}]}'),
    "not a text": bad.text('{"choices": [{"text": 5, "finish_reason": "stop"}]}'),
    "no end": bad.text('{"choices": [{"text": "half a sen", "finish_reason": null}]}'),
    "nested": bad.text("[" * 100_000),
    "hang up": bad.hang_up,
    "half": bad.half,
    "half chunked": bad.half_chunked,
    "half without length": bad.half_without_length,
}


@pytest.mark.parametrize("flaw", FLAWS)
def test_what_may_pass_is_tried_again(server, flaw):
    server.faults = [FLAWS[flaw]] * 3
    generator = make(server)
    assert texts(generate(generator, ["a"])) == [["a sample 0"]]
    assert len(server.requests) == 4 and generator.ledger.usage.retries == 3
    # Nothing of the failed attempts is left in the answers, and each asked for the same.
    assert all(body == server.requests[0][1] for _, body, _ in server.requests)


@pytest.mark.parametrize("flaw", FLAWS)
def test_what_does_not_pass_is_reported_in_one_line(server, flaw):
    server.faults = [FLAWS[flaw]] * 4
    with pytest.raises(ServerError, match=r"/completions: .* \(4 attempts\)") as caught:
        generate(make(server), ["a"])
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    assert not caught.value.fatal and len(server.requests) == 4


@pytest.mark.parametrize("flaw", [bad.hang, bad.drip])
def test_silence_and_dripping_time_out(server, flaw):
    server.faults = [flaw] * 2
    with pytest.raises(ServerError, match="no answer within 0.2 s"):
        generate(make(server, client=dict(timeout_s=0.2, attempts=2)), ["a"])


@pytest.mark.parametrize(
    ("code", "message", "fatal"),
    [
        (400, "the model does not accept the request.*context length is 4096", False),
        (401, "the server refuses the key: check the variable", True),
        (403, "the key does not allow this request", True),
        (404, "the server has no such model or path: check model and url", True),
        (413, "the request is too long", False),
        (301, "the server refuses the request", False),
    ],
)
def test_refusals_are_final(server, code, message, fatal):
    detail = f"This model's maximum context length is 4096\ntokens, key {KEY}"
    server.faults = [bad.status(code, detail, {"Location": "http://127.0.0.1:9/"})]
    with pytest.raises(ServerError, match=message) as caught:
        generate(make(server, concurrency=1), ["a"] * 5)
    assert len(server.requests) == 1
    assert caught.value.fatal == fatal and "\n" not in str(caught.value)


def test_a_bad_key_stops_all_requests_at_once(server):
    server.faults = [bad.status(401, "bad key")] * 100
    with pytest.raises(ServerError, match="bad key"):
        generate(make(server, concurrency=2), ["a"] * 50)
    assert len(server.requests) <= 4


def test_the_key_is_sent_and_never_shown(server, monkeypatch):
    monkeypatch.setenv("TEACHER_KEY", KEY)
    generator = make(server, client=dict(api_key_env="TEACHER_KEY"))
    generate(generator, ["a"])
    assert server.requests[0][2]["Authorization"] == f"Bearer {KEY}"
    server.faults = [bad.status(401, f"Incorrect API key provided: {KEY}.")]
    with pytest.raises(ServerError, match=r"provided: \*\*\*\.") as caught:
        generate(generator, ["a"])
    assert KEY not in str(caught.value) and KEY not in repr(vars(generator))
    monkeypatch.delenv("TEACHER_KEY")
    with pytest.raises(ValueError, match="environment variable TEACHER_KEY is not set"):
        make(server, client=dict(api_key_env="TEACHER_KEY"))


def test_check_finds_what_is_wrong_before_the_work(server):
    make(server).check()
    with pytest.raises(ServerError, match="has no model 'techer': it has teacher"):
        make(server, model="techer").check()
    server.models = None  # a server without a list of models
    make(server, model="techer").check()
    assert not server.requests
    with pytest.raises(ServerError, match="127.0.0.1:9.*refused: check that the server runs"):
        make("http://127.0.0.1:9").check()


def test_retry_after_is_honoured_by_all_requests(server):
    server.faults = [bad.status(429, "slow", {"Retry-After": "1"})]
    start = time.monotonic()
    generate(make(server), ["a"])
    assert time.monotonic() - start >= 1
    # Longer than anybody would wait: reported.
    server.faults = [bad.status(429, "quota", {"Retry-After": "3600"})]
    with pytest.raises(
        ServerError, match="quota; the server asks to wait 3600 s: try again after that"
    ):
        generate(make(server), ["a"])


def test_backoff_doubles_with_jitter(server, monkeypatch):
    waits = []

    class Halt(threading.Event):
        def wait(self, timeout=None):
            waits.append(timeout)
            return super().wait(0)

    server.faults = [bad.status(500)] * 5
    client = ApiClient(server.url, attempts=5, backoff_s=0.5)
    for _ in range(2):
        server.faults = [bad.status(500)] * 5
        with pytest.raises(ServerError):
            client.post("/completions", {}, dict, prompt_tokens=1, completion_tokens=1, stop=Halt())
    first, second = np.array(waits).reshape(2, 5)
    for row in (first, second):
        assert row[0] == 0
        assert (row[1:] <= [0.5, 1, 2, 4]).all() and (row[1:] >= [0.25, 0.5, 1, 2]).all()
    assert (first[1:] != second[1:]).any()


def test_usage_is_what_the_server_reports(server):
    generator = make(server, client=dict(ledger=Ledger(Prices(2.0, 10.0))))
    generate(generator, ["one two three", "four"], num_samples=2)
    usage = generator.ledger.usage
    assert (usage.requests, usage.prompt_tokens, usage.completion_tokens) == (2, 4, 16)
    assert usage.cost == pytest.approx((2.0 * 4 + 10.0 * 16) / 1e6)
    assert usage.unconfirmed_cost == 0


def test_estimate_before_the_work(server):
    generator = make(server, client=dict(ledger=Ledger(Prices(2.0, 10.0))))
    estimate = generator.estimate(["x" * 400] * 3, num_samples=2, max_new_tokens=50)
    assert (estimate.requests, estimate.completion_tokens) == (3, 300)
    assert 300 <= estimate.prompt_tokens <= 330
    assert estimate.cost == pytest.approx((2 * estimate.prompt_tokens + 10 * 300) / 1e6)
    assert not server.requests


def test_spending_never_exceeds_the_cap_and_what_is_paid_for_is_kept(server):
    """The server uses all it may, so a request costs 8 tokens at 1 each: 12 fit into 100."""
    server.answer = lambda prompt, i: " ".join(["w"] * 8)
    prices = Prices(0.0, 1e6)
    generator = make(server, client=dict(ledger=Ledger(prices, max_cost=100.0)), concurrency=8)
    answered = []
    with pytest.raises(SpendingCapError, match="96 of max_cost=100 is spent.*may cost 8") as caught:
        for index, result in generator.stream(
            (Request("a", seed) for seed in range(50)), max_new_tokens=8
        ):
            answered.append(index)
    assert "\n" not in str(caught.value)
    assert len(answered) == len(server.requests) == 12
    assert generator.ledger.spent == 96


def test_answers_that_broke_off_count_towards_the_cap(server):
    """The server may have done, and will bill, all the work."""
    server.faults = [bad.half, bad.half, bad.status(429), bad.status(500)]
    ledger = Ledger(Prices(0.0, 1e6), max_cost=100.0)
    client = dict(ledger=ledger, attempts=20, backoff_s=0.001)
    generate(make(server, client=client), ["a"], max_new_tokens=8)
    assert ledger.usage.unconfirmed_cost == 16 and ledger.usage.cost == 3
    server.faults = [bad.half] * 20
    with pytest.raises(SpendingCapError):
        generate(make(server, client=client), ["a"], max_new_tokens=8)
    assert ledger.spent <= 100


def test_a_prompt_that_fails_leaves_the_others(server):
    server.faults = [None, bad.status(400, "context length is 10 tokens")]
    generator = make(server, concurrency=1)
    results = dict(generator.stream([Request(p, 0) for p in "abcd"], max_new_tokens=8))
    assert isinstance(results.pop(1), ServerError)
    assert {i: c[0].text for i, c in results.items()} == {
        0: "a sample 0", 2: "c sample 0", 3: "d sample 0"
    }  # fmt: skip


def test_requests_are_taken_as_places_get_free(server):
    taken = []

    def requests():
        for i in range(30):
            taken.append(i)
            yield Request(str(i), i)

    stream = make(server, concurrency=3).stream(requests(), max_new_tokens=8)
    next(stream)
    assert len(taken) <= 4
    stream.close()
    assert len(taken) <= 4


def test_requests_wait_for_the_rate(server):
    limiter = RateLimiter(requests_per_minute=2)
    stream = make(server, client=dict(limiter=limiter)).stream(
        (Request("a", seed) for seed in range(4)), max_new_tokens=8
    )
    assert [next(stream)[1][0].text for _ in range(2)] == ["a sample 0"] * 2
    time.sleep(0.2)
    assert len(server.requests) == 2
    stream.close()  # ends the waiting of the others


@pytest.mark.parametrize(
    ("make_it", "message"),
    [
        (lambda: ApiClient("localhost:8000"), "server url 'localhost:8000'"),
        (lambda: ApiClient("http://me:pw@host"), "holds a password"),
        (lambda: ApiClient("http://host", attempts=0), "attempts=0"),
        (lambda: OpenAIGenerator(ApiClient("http://host"), ""), "model is empty"),
        (lambda: OpenAIGenerator(ApiClient("http://host"), "m", concurrency=0), "concurrency=0"),
    ],
)
def test_bad_arguments(make_it, message):
    with pytest.raises(ValueError, match=message) as caught:
        make_it()
    assert "pw" not in str(caught.value).replace("password", "")


def test_version_is_added_to_a_bare_host():
    assert ApiClient("http://host:8000/").url == "http://host:8000/v1"
    assert ApiClient("https://host/api/v1/").url == "https://host/api/v1"


def test_samples_that_came_before_a_failure_are_kept(server):
    """Of a server that gives one sample a request; those are paid for."""
    server.change = lambda reply: reply | {"choices": reply["choices"][:1]}
    server.faults = [None, None, bad.status(400, "no more")]
    generator = make(server)
    [(_, group)] = generator.stream([Request("a", 0)], num_samples=3, max_new_tokens=8)
    assert len(group) == 2
    server.faults = [None, None, bad.status(400, "no more")]
    with pytest.raises(ServerError, match="2 of 3 samples"):
        generate(generator, ["a"], num_samples=3)


def test_stopping_takes_what_is_in_flight_and_waits_for_nothing_else(server):
    gate = threading.Event()

    def held(answer):
        return lambda handler, body: gate.wait(60) and answer(handler, body)

    def well(handler, body):
        handler.send(200, json.dumps(handler.reply(body)))

    busy = bad.status(503, "busy", {"Retry-After": "100"})
    server.faults = [held(well), held(well), held(busy)]

    def should_stop():
        if len(server.requests) < 3:
            return False
        gate.set()
        return True

    requests = (Request(str(i), i) for i in range(100))
    generator = make(server, concurrency=3)
    results = list(generator.stream(requests, max_new_tokens=8, should_stop=should_stop))
    assert len(results) == 2 and len(server.requests) == 3
