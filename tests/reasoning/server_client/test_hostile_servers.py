"""Tests every client against servers that hang, break off, flood, lie or reveal secrets."""

import json
import re
import resource
import time

import pytest

from reasoning.code_runner import Limits, RemoteCodeRunner, RemoteSandboxError, remote
from reasoning.server_client import http_client
from reasoning.server_client.api_client import ApiClient, ServerError
from reasoning.server_client.api_limits import Ledger, Prices
from reasoning.server_client.openai_generator import OpenAIGenerator
from tests.reasoning.server_client.scripted_server import BROKEN, ENDLESS, ScriptedServer, answer

KEY = "sk/very+secret-0123456789"
TIMEOUT_S = 0.3  # where the server would take for ever
PATIENCE_S = 60.0  # where it would not, on a busy machine
SLACK_S = 5.0


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("SECRET_KEY", KEY)
    monkeypatch.setattr(remote, "_ATTEMPTS", 1)
    server = ScriptedServer()
    yield server
    server.close()


def generator(url, timeout_s=PATIENCE_S, **options):
    ledger = Ledger(Prices(1.0, 1.0))
    client = ApiClient(
        url, api_key_env="SECRET_KEY", timeout_s=timeout_s, attempts=1, ledger=ledger
    )
    return OpenAIGenerator(client, "teacher", **options)


def complete(url, timeout_s=PATIENCE_S):
    generator(url, timeout_s).generate(["hello"], max_new_tokens=8)


def chat(url, timeout_s=PATIENCE_S):
    generator(url, timeout_s, chat=True).generate(["hello"], max_new_tokens=8)


def check(url, timeout_s=PATIENCE_S):
    generator(url, timeout_s).check()


def run_remotely(service):
    def run(url, timeout_s=PATIENCE_S):
        waits = {"limits": Limits(wall_s=timeout_s / 2), "queue_s": timeout_s / 2}
        headers = {"Authorization": f"Bearer {KEY}"}
        with RemoteCodeRunner(url, service, headers=headers, **waits) as runner:
            return runner.run_program("print(1)")

    return run


CLIENTS = {
    "completions": complete,
    "chat": chat,
    **{service: run_remotely(service) for service in remote.SERVICES},
}


def failure(client, url, timeout_s=PATIENCE_S):
    """The one clear line that a client ends with, in time."""
    start = time.monotonic()
    with pytest.raises((ServerError, RemoteSandboxError)) as caught:
        client(url, timeout_s)
    assert time.monotonic() - start < timeout_s + SLACK_S
    message = str(caught.value)
    assert "127.0.0.1" in message and len(message) < 700
    assert message.isprintable(), message
    assert KEY not in message and "very+secret" not in message
    return message


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("fault", ENDLESS)
def test_what_never_ends_is_left_in_time(server, fault, client):
    server.script = ENDLESS[fault]
    assert "no answer within 0.3 s" in failure(CLIENTS[client], server.url, TIMEOUT_S)
    assert len(server.heads) == 1


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("fault", BROKEN)
def test_what_is_no_answer_is_one_line(server, fault, client):
    server.script = BROKEN[fault]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if fault == "a flood of body" and client in remote.SERVICES:
        # More than a run may write, which is what the program is said to have done.
        assert CLIENTS[client](server.url).status == "output"
    else:
        assert "no answer within" not in failure(CLIENTS[client], server.url)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 100_000  # KB


def test_check_has_a_deadline(server):
    for fault in ENDLESS.values():
        server.script = fault
        with pytest.raises(ServerError, match="no answer within"):
            check(server.url, TIMEOUT_S)


def test_a_handshake_that_never_ends_is_left_in_time(server):
    server.script = ENDLESS["silent"]
    for client in CLIENTS.values():
        assert "no answer within" in failure(
            client, server.url.replace("http:", "https:"), TIMEOUT_S
        )


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("code", [300, 301, 302, 303, 305, 307, 308])
def test_no_redirect_is_followed(server, client, code):
    other = ScriptedServer(lambda head, body: [answer("{}")])
    where = f"Location: {other.url}/v1/x\r\n"
    server.script = lambda head, body: [answer("moved", f"{code} Moved", where)]
    assert f"HTTP {code}" in failure(CLIENTS[client], server.url)
    assert KEY.encode() in server.heads[0] and not other.heads
    other.close()


def _finish(reason):
    choice = {"text": "a", "message": {"content": "a"}, "finish_reason": reason}
    return answer(json.dumps({"choices": [choice]}))


ECHOES = {
    "body": answer(f"Incorrect API key provided: {KEY}.", "401 No"),
    "message": answer(json.dumps({"error": {"message": f"key {KEY} is bad"}}), "400 No"),
    "body in JSON": answer('{"error": "' + KEY.replace("/", r"\/"), "500 Oh"),
    "body in a URL": answer("see https://x/?key=sk%2Fvery%2Bsecret-0123456789", "403 No"),
    "status line": answer("", f"401 Bad key {KEY}"),
    "status line that is none": f"HTTP/1.1 {KEY}\r\n\r\n".encode(),
    "header": f"HTTP/1.1 200 OK\r\n{KEY}\r\n\r\n".encode(),
    "answer": answer(f"<html>{KEY}</html>"),
    "array": answer(json.dumps([KEY])),
    "finish_reason": _finish(KEY),
    "finish_reason in a list": _finish([KEY]),
    "field": answer(json.dumps({"choices": {KEY: KEY}, "run": {KEY: 1}, "status": KEY})),
    "status": answer(json.dumps({"status": "SandboxError", "message": KEY})),
    "long body": answer((KEY + " ") * 10_000, "500 Oh"),
    "blanks, then a key": answer(" " * 65_520 + KEY + " " * 9999, "500 Oh"),
}


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("echo", ECHOES)
def test_the_key_is_in_no_message(server, echo, client):
    server.script = lambda head, body: [ECHOES[echo]]
    message = failure(CLIENTS[client], server.url)
    for part in (KEY[:12], KEY[-8:], "secret"):
        assert part not in message


def test_the_key_is_in_no_message_about_models(server):
    server.script = lambda head, body: [answer(json.dumps({"data": [{"id": f"x {KEY}"}]}))]
    assert "has no model 'teacher': it has x ***" in failure(check, server.url)


@pytest.mark.parametrize("url", ["http://user:pw@host", "http://host/?key=secret"])
def test_addresses_that_hold_secrets_are_refused(url):
    for make in (ApiClient, RemoteCodeRunner):
        with pytest.raises(ValueError, match="holds a password or a query") as caught:
            make(url)
        assert "pw" not in str(caught.value).replace("password", "")
        assert "secret" not in str(caught.value)


# --- Whole answers that lie.

TOKENS = 8


def reply(changes=None, **choice):
    """A completion of three tokens, changed."""
    base = {
        "text": "a b c",
        "finish_reason": "stop",
        "logprobs": {"token_logprobs": [-0.5, -0.25, -1]},
    }
    whole = {"choices": [base | choice], "usage": {"prompt_tokens": 1, "completion_tokens": 3}}
    return json.dumps(whole | (changes or {}))


def sample(server, text):
    server.script = lambda head, body: [answer(text)]
    made = generator(server.url, logprobs=True)
    [[completion]] = made.generate(["hello"], max_new_tokens=TOKENS)
    return completion, made.ledger.usage


def test_an_honest_answer_is_taken(server):
    completion, usage = sample(server, reply())
    assert completion.logprobs.tolist() == [-0.5, -0.25, -1]
    assert (usage.prompt_tokens, usage.completion_tokens) == (1, 3)


@pytest.mark.parametrize(
    "count",
    ["3000000000", "1" + "0" * 400, "-1", "1.5", '"7"', "true", "null", "NaN", "1e999", "[]", "9"],
)
@pytest.mark.parametrize("field", ["completion_tokens", "prompt_tokens"])
def test_counts_that_cannot_be_true_are_not_believed(server, field, count):
    text = reply(logprobs=None).replace(f'"{field}": ', f'"{field}": {count}, "x": ')
    completion, usage = sample(server, text)
    assert 0 < len(completion.token_ids) <= TOKENS
    assert usage.completion_tokens <= TOKENS and usage.prompt_tokens < 10_000
    assert usage.cost < 0.01


@pytest.mark.parametrize("usage", ["null", "[]", "7", '"x"', "{}"])
def test_a_usage_of_another_type_is_no_usage(server, usage):
    completion, used = sample(server, reply({"usage": None}).replace("null", usage))
    assert used.completion_tokens == TOKENS  # the most, which may be billed


@pytest.mark.parametrize(
    "value",
    ["null", "NaN", "1e999", "-1e999", "Infinity", '"-0.5"', "true", "[]", "{}", "0.5", "-1e300",
     "1" + "0" * 400],
)  # fmt: skip
@pytest.mark.parametrize("chat", [False, True])
def test_log_probs_that_are_none_are_refused(server, value, chat):
    if chat:
        entries = {"content": [{"logprob": -0.5}, {"logprob": "HERE"}]}
        text = reply(logprobs=entries, message={"content": "a b"})
    else:
        text = reply(logprobs={"token_logprobs": [-0.5, "HERE", -1]})
    server.script = lambda head, body: [answer(text.replace('"HERE"', value))]
    made = generator(server.url, logprobs=True, chat=chat)
    with pytest.raises(ServerError, match="incomplete answer: .*a log-prob is"):
        made.generate(["hello"], max_new_tokens=TOKENS)


@pytest.mark.parametrize(
    "change",
    [
        {"token_ids": [1, 2]},
        {"token_ids": [1, 2, 10**400]},
        {"token_ids": [1, 2, -1]},
        {"token_ids": [1, 2, 2**40]},
        {"token_ids": [1, 2, 3.0]},
        {"token_ids": [1, 2, True]},
        {"token_ids": "abc"},
        {"token_ids": {"1": 1}},
        {"token_ids": list(range(100_000))},
        {"logprobs": {"token_logprobs": [-1.0] * 100_000}},
        {"logprobs": {"token_logprobs": 5}},
        {"logprobs": {"content": 5}},
        {"logprobs": 5},
        {"text": None},
        {"text": 5},
        {"text": ["a"]},
        {"text": {"a": 1}},
        {"finish_reason": None},
        {"finish_reason": ["stop"]},
        {"finish_reason": "content_filter"},
        {"finish_reason": "x" * 1_000_000},
    ],
    ids=range(21),
)
def test_choices_that_are_none_are_refused(server, change):
    server.script = lambda head, body: [answer(reply(**change))]
    failure(complete, server.url)


@pytest.mark.parametrize(
    "choices", [None, {}, [], "abc", 5, [None], ["a"], [[]], {"0": {"text": "a"}}]
)
def test_lists_of_choices_that_are_none_are_refused(server, choices):
    server.script = lambda head, body: [answer(reply({"choices": choices}))]
    failure(complete, server.url)


def test_more_choices_than_asked_for_are_left(server):
    choice = {"text": "a", "finish_reason": "stop"}
    completion, _ = sample(server, reply({"choices": [choice] * 10_000}))
    assert completion.text == "a"


@pytest.mark.parametrize("content", [["a"], {"a": 1}, 5, True])
@pytest.mark.parametrize("field", ["content", "reasoning_content", "reasoning"])
def test_messages_of_other_types_are_refused(server, content, field):
    message = {"content": "a"} | {field: content}
    server.script = lambda head, body: [answer(reply(message=message))]
    failure(chat, server.url)


def test_half_a_character_is_replaced(server):
    completion, _ = sample(server, reply(text="a\ud83d"))
    assert completion.text == "a\ufffd"


@pytest.mark.parametrize(
    "change",
    [
        {"return_code": "0"}, {"return_code": True}, {"return_code": 0.0}, {"stdout": None},
        {"stdout": 5}, {"stdout": ["a"]}, {"stderr": None}, {"execution_time": "1"},
        {"execution_time": -1}, {"execution_time": float("nan")}, {"execution_time": 1e999},
        {"status": None, "stdout": {}},
    ],
    ids=range(12),
)  # fmt: skip
def test_runs_of_other_types_are_refused(server, change):
    run = {"status": "Finished", "return_code": 0, "stdout": "1\n", "stderr": ""}
    whole = {"status": "Success", "run_result": run | change}
    server.script = lambda head, body: [answer(json.dumps(whole))]
    assert "no answer of such a server" in failure(CLIENTS["sandbox_fusion"], server.url)


def test_redactor_knows_how_secrets_are_written():
    redact = http_client.Redactor(["a/b\"c'd\\e+f g", ""])
    for written in ("a/b\"c'd\\e+f g", json.dumps("a/b\"c'd\\e+f g"), "a%2Fb%22c%27d%5Ce%2Bf%20g"):
        assert re.fullmatch(r'"?\*\*\*"?', redact.line(written)), written
    assert redact.line("line\none\x1b[2J") == "line one\ufffd[2J"
    assert "a/b" not in repr(redact)
