"""Samples with token ids, and new weights for a server that runs."""

import socket
import threading
import time

import httpx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.checkpoint import load_model
from models.decoder import LanguageModel
from models.decoding.sampling import SamplingParams
from models.decoding.self_check import SamplerMismatch
from models.hf.export import export_model
from models.host.interruption import Interrupted
from models.logprobs import token_logprobs
from reasoning.generation.generator import Completion
from reasoning.router.choosing import PredictiveRouter
from reasoning.router.rules import RulesPredictor
from reasoning.server_client import rollout_server
from reasoning.server_client.api_client import ServerError
from reasoning.server_client.rollout_server import RolloutServer
from reasoning.serving.batch.engine import Job
from reasoning.serving.routes import Models
from reasoning.serving.server import Server
from tests.reasoning.serving.conftest import CONFIG, ROUTES, listening, make_checkpoint

KEY = "rollouts"
MODEL = LanguageModel(CONFIG)
PARAMS = {seed: MODEL.init(jax.random.key(seed)) for seed in (3, 4)}
PROMPTS = [[5, 6, 7], [300, 8, 9, 10, 11], [12]]
TEMPERATURE = 0.7


def load(folder):
    """The weights in a folder."""
    if not folder.endswith("pushed"):
        raise ValueError(f"{folder} is no checkpoint of this model")
    return load_model(folder).params


@pytest.fixture(scope="module")
def served():
    """A server with a few slots, which RL may use, and its checkpoint."""
    checkpoint = make_checkpoint(slots=4, queue=64)
    with listening(Server(models_of(checkpoint), api_key=KEY, load_weights=load)) as url:
        yield url, checkpoint
    checkpoint.engine.close()


def models_of(checkpoint):
    return Models(checkpoint, None, PredictiveRouter(RulesPredictor(ROUTES)))


@pytest.fixture
def client(served, tmp_path, monkeypatch):
    monkeypatch.setenv("ROLLOUT_KEY", KEY)
    url, checkpoint = served
    return RolloutServer(
        url, MODEL, checkpoint.tokenizer, tmp_path / "pushed", api_key_env="ROLLOUT_KEY",
        timeout_s=60, concurrency=8,
    )  # fmt: skip


def expected(params, prompt, completion):
    """Log-probs of a completion by a forward pass."""
    tokens = jnp.asarray([[*prompt, *completion.token_ids]])
    positions = jnp.arange(tokens.shape[1])[None]
    hidden = MODEL.hidden(params, tokens, positions, jnp.ones_like(tokens))
    found = token_logprobs(MODEL, params, hidden, tokens, temperature=TEMPERATURE)
    return np.asarray(found[0, len(prompt) :])


def drawn(client, params, seed=1):
    with client.holding(params):
        return client.generate_from_ids(
            PROMPTS, num_samples=3, max_new_tokens=12, seed=seed,
            sampling=SamplingParams(temperature=TEMPERATURE),
        )  # fmt: skip


def test_samples_are_of_the_weights_that_were_pushed_last(client, served):
    stop_ids = served[1].tokenizer.stop_ids
    groups = {seed: drawn(client, PARAMS[seed]) for seed in (3, 4, 3)}
    for seed, params in PARAMS.items():
        other = PARAMS[7 - seed]
        for prompt, group in zip(PROMPTS, groups[seed], strict=True):
            assert len(group) == 3
            for completion in group:
                own = expected(params, prompt, completion)
                np.testing.assert_allclose(completion.logprobs, own, atol=1e-4)
                assert np.abs(completion.logprobs - expected(other, prompt, completion)).max() > 0.1
                assert (completion.finish == "stop") == (completion.token_ids[-1] in stop_ids)
                assert len(completion.token_ids) == 12 or completion.finish == "stop"
    assert client.layout_seconds > 0


def test_seeds_decide_the_samples(client):
    def tokens(seed):
        return [[c.token_ids for c in group] for group in drawn(client, PARAMS[3], seed)]

    assert tokens(1) == tokens(1) != tokens(2)


def test_the_weights_that_are_written_are_those_of_the_policy(client, tmp_path):
    drawn(client, PARAMS[4])
    written = load_model(str(tmp_path / "pushed")).params
    jax.tree.map(np.testing.assert_array_equal, written, PARAMS[4])


def test_new_weights_wait_for_running_samples_and_others_wait_for_them(client, served):
    """Each sample has the log-probs of one set of weights, whatever came meanwhile."""
    url, checkpoint = served
    checkpoint.engine.replace(PARAMS[3])
    results = []

    def sample(seed):
        body = {
            "input_ids": PROMPTS[1], "return_logprob": True,
            "sampling_params": {
                "max_new_tokens": 60, "temperature": TEMPERATURE, "sampling_seed": seed
            },
        }  # fmt: skip
        answer = httpx.post(f"{url}/generate", json=body, headers=key(), timeout=60).json()
        results.append([pair[:2] for pair in answer["meta_info"]["output_token_logprobs"]])

    threads = [threading.Thread(target=sample, args=(seed,)) for seed in range(12)]
    for thread in threads[:7]:
        thread.start()
    deadline = time.monotonic() + 30
    while not checkpoint.engine.load[1] and time.monotonic() < deadline:
        time.sleep(0.001)
    running = checkpoint.engine.load[1]
    checkpoint.engine.replace(PARAMS[4])
    for thread in threads[7:]:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 12 and running
    used = []
    for pairs in results:
        logprobs, ids = zip(*pairs)
        completion = Completion("", list(ids), np.array(logprobs), "length")
        gaps = [
            np.abs(np.array(logprobs) - expected(params, PROMPTS[1], completion)).max()
            for params in PARAMS.values()
        ]
        assert min(gaps) < 1e-3, gaps
        used.append(int(np.argmin(gaps)))
    assert 0 < used.count(0) <= 7 and used.count(1) >= 5


def test_weights_that_cannot_be_taken_leave_the_server_as_it_was(served, tmp_path, monkeypatch):
    url, checkpoint = served
    folder = export_model(tmp_path / "pushed", CONFIG, PARAMS[4], checkpoint.tokenizer)

    def fails(params):
        raise RuntimeError("out of\nmemory")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.engine._sampler, "replace", fails)
        answer = httpx.post(
            f"{url}/update_weights_from_disk", json={"model_path": str(folder)},
            headers=key(), timeout=60,
        )  # fmt: skip
    message = answer.json()["error"]["message"]
    assert answer.status_code == 400 and "could not be taken: out of memory" in message
    body = {"input_ids": [5], "sampling_params": {"max_new_tokens": 3}}
    assert httpx.post(f"{url}/generate", json=body, headers=key(), timeout=60).status_code == 200


@pytest.mark.parametrize("end", ["close", "failure"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_replacing_ends_when_the_engine_does(end, monkeypatch):
    checkpoint = make_checkpoint(slots=1, queue=4)
    engine, begun, waits = checkpoint.engine, threading.Event(), threading.Event()
    faults = []

    def sink(part):
        # The engine's thread stands here until a replacement waits for the job.
        begun.set()
        waits.wait(30)
        if end == "failure":
            monkeypatch.setattr(engine._sampler, "advance", None)  # Calling it raises.

    def replace():
        try:
            engine.replace(PARAMS[4])
        except ValueError as error:
            faults.append(str(error))

    engine.submit([Job([5], 200, ends=False)], [sink])
    assert begun.wait(30)
    thread = threading.Thread(target=replace)
    thread.start()
    while engine._replacement is None:
        time.sleep(0.001)
    closing = threading.Thread(target=engine.close)
    if end == "close":
        closing.start()
        while not engine._closed:
            time.sleep(0.001)
    waits.set()
    thread.join(timeout=30)
    assert not thread.is_alive() and faults == ["the server is shutting down"]
    engine.close()


def test_a_signal_ends_the_wait_for_a_server_that_never_answers(tmp_path, monkeypatch, served):
    """The listener takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        client = RolloutServer(
            f"http://127.0.0.1:{port}", MODEL, served[1].tokenizer, tmp_path / "pushed",
            timeout_s=600,
        )  # fmt: skip
        monkeypatch.setattr(rollout_server.STOPS, "here", lambda: True)
        monkeypatch.setattr(rollout_server.STOPS, "reason", "SIGTERM")
        began = time.monotonic()
        with pytest.raises(Interrupted, match="SIGTERM"):
            client.generate_from_ids(PROMPTS, num_samples=2, max_new_tokens=4)
        with pytest.raises(Interrupted, match="SIGTERM"):
            with client.holding(PARAMS[3]):
                pass
        assert time.monotonic() - began < 10


def test_the_check_before_a_run_finds_a_wrong_key_and_a_missing_route(served, client, monkeypatch):
    client.check()
    monkeypatch.setenv("ROLLOUT_KEY", "wrong")
    other = RolloutServer(served[0], MODEL, served[1].tokenizer, None, api_key_env="ROLLOUT_KEY")
    with pytest.raises(ServerError, match="refuses the key"):
        other.check()


def test_samples_of_another_model_stop_the_run(client, served, monkeypatch):
    """The server keeps its weights, while the run believes that it samples with others."""
    served[1].engine.replace(PARAMS[3])
    monkeypatch.setattr(client, "_push", lambda stop: None)
    with pytest.raises(SamplerMismatch, match="took the weights that it was sent last"):
        for seed in range(2):  # The second call is checked.
            with client.holding(PARAMS[4]):
                client.generate_from_ids(PROMPTS, num_samples=2, max_new_tokens=12, seed=seed)


def key():
    return {"Authorization": f"Bearer {KEY}"}


@pytest.mark.parametrize(("path", "body", "fault"), [
    ("/generate", {"input_ids": []}, "input_ids"),
    ("/generate", {"input_ids": [9999]}, "outside the vocabulary"),
    ("/generate", {"input_ids": [1], "sampling_params": {"max_new_tokens": 300}}, "exceed"),
    ("/generate", {"input_ids": [1], "sampling_params": {"temprature": 1}}, "temprature"),
    ("/update_weights_from_disk", {"model_path": "/nowhere"}, "no checkpoint of this model"),
    ("/update_weights_from_disk", {}, "model_path"),
])  # fmt: skip
def test_bad_requests_are_refused_in_one_line(served, path, body, fault):
    answer = httpx.post(served[0] + path, json=body, headers=key(), timeout=60)
    message = answer.json()["error"]["message"]
    assert answer.status_code == 400 and fault in message and "\n" not in message


def test_a_server_without_rollouts_has_no_such_routes(served, monkeypatch, tmp_path):
    checkpoint = served[1]
    monkeypatch.setenv("ROLLOUT_KEY", KEY)
    with listening(Server(models_of(checkpoint), api_key=KEY)) as url:
        for path in ("/generate", "/update_weights_from_disk"):
            assert httpx.post(url + path, json={}, headers=key(), timeout=60).status_code == 404
        client = RolloutServer(
            url, MODEL, checkpoint.tokenizer, tmp_path / "pushed", api_key_env="ROLLOUT_KEY"
        )
        with pytest.raises(ServerError, match="no such model or path"):
            with client.holding(PARAMS[3]):
                pass


def test_a_wrong_key_opens_nothing(served):
    for path in ("/generate", "/update_weights_from_disk"):
        assert httpx.post(served[0] + path, json={}, timeout=60).status_code == 401
