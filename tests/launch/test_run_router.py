"""`launch.run_router` on a tiny random model and on a file of outcomes: files, resuming, errors."""

import json

import jax
import numpy as np
import pytest

from configs import router as router_config
from launch import run_router
from launch.schema.loading import ConfigError
from models.decoder import LanguageModel
from models.hf.export import export_model
from reasoning import router
from reasoning.generation.jax_generator import JaxGenerator
from tests.models.gguf import gguf_files


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("router") / "hf"
    config = gguf_files.BASE
    params = jax.jit(LanguageModel(config).init)(jax.random.key(0))
    export_model(folder, config, params, gguf_files.make_tokenizer())
    return folder


def config_of(model):
    config = router_config.get_config()
    config.model, config.template = str(model), "plain"
    config.tasks, config.problems, config.folds = ("tiny_math?low=2&high=2",), 24, 2
    config.routes, config.rows = ("direct", "long_chain@4", "vote@4x5"), 8
    config.kinds = ("rules", "linear", "hidden")
    return config


def test_routes_are_run_once_and_every_kind_can_be_opened(model, tmp_path):
    run_router.run(config_of(model), str(tmp_path))
    report = json.loads((tmp_path / "report.json").read_text())
    assert set(report["kinds"]) == {"rules", "linear", "hidden", "random", "oracle"}
    assert set(report["routes"]) == {"direct", "long_chain@4", "vote@4x5"}
    assert (tmp_path / "router.png").stat().st_size > 0
    assert "against the mean cost of a question" in (tmp_path / "report.html").read_text()
    chosen = router.load(tmp_path / "linear").choose("3 + 4")
    assert chosen.route.name in report["routes"]

    # A kill cuts the log: the outcomes that are left stay, the others come back.
    log = tmp_path / "outcomes_0.jsonl"
    whole = log.read_text()
    kept = "".join(whole.splitlines(keepends=True)[:40])
    log.write_text(kept + '{"key": "vote')
    run_router.run(config_of(model), str(tmp_path))
    again = log.read_text()
    assert again.startswith(kept)
    assert sorted(again.splitlines()) == sorted(whole.splitlines())


def test_a_router_that_reads_hidden_states_is_served_with_its_model_only(model, tmp_path):
    pytest.importorskip("starlette", reason="needs the server's packages: pip install .[serve]")
    from launch.jobs.serving import open_models
    from reasoning.serving.requests import ChatRequest

    config = config_of(model)
    config.kinds, config.template = ("hidden",), "auto"
    run_router.run(config, str(tmp_path))
    sizes = {"slots": 2, "context": 64, "queue": 2, "chunk": 16}
    served = open_models(str(model), router=str(tmp_path / "hidden"), **sizes)
    served.reasoner.engine.close()
    message = {"role": "user", "content": "3 + 4"}
    choice = served.choose(ChatRequest(model="auto", messages=[message]), 48)
    assert choice.decision.route.name in config.routes and "hidden states" in choice.decision.why

    other = tmp_path / "other" / "hf"
    config = gguf_files.BASE
    params = jax.jit(LanguageModel(config).init)(jax.random.key(1))
    export_model(other, config, params, gguf_files.make_tokenizer())
    with pytest.raises(ValueError, match="another model or template"):
        open_models(str(other), router=str(tmp_path / "hidden"), **sizes)


def test_a_model_that_keeps_budgets_is_told_them(model, tmp_path, monkeypatch):
    prompts = set()
    generate = JaxGenerator.generate

    def recorded(self, texts, **arguments):
        prompts.update(texts)
        return generate(self, texts, **arguments)

    monkeypatch.setattr(JaxGenerator, "generate", recorded)
    config = config_of(model)
    config.named_budgets, config.kinds = True, ("rules",)
    config.routes = ("direct", "short_chain@4", "long_chain@6")
    run_router.run(config, str(tmp_path))
    told = {
        "direct": {
            each for each in prompts if "Answer without thinking.\nAssistant: <think>" in each
        },
        "short": {each for each in prompts if each.endswith("Answer within 4 tokens.\nAssistant:")},
        "long": {each for each in prompts if each.endswith("?\nAssistant:")},
    }
    assert all(told.values())


def test_a_users_outcomes_need_no_model(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "outcomes.jsonl"
    lines = [
        {"question": f"Question {i}", "a_correct": bool(rng.random() < 0.3), "b_correct": True}
        for i in range(60)
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    config = router_config.get_config("outcomes")
    config.outcomes, config.routes, config.costs = str(path), ("a", "b"), ("a=1", "b=10")
    run_router.run(config, str(tmp_path / "out"))
    loaded = router.load(tmp_path / "out" / "knn")
    assert [route.model for route in loaded.routes] == ["a", "b"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"outcomes": "nothing.jsonl"}, "config.outcomes"),
        ({"routes": ("direct",)}, "config.routes"),
        ({"routes": ("direct", "think@5")}, "long_chain@TOKENS"),
        ({"routes": ("direct", "verifier_search@5x2")}, "process verifier"),
        ({"promise": "cheap"}, "config.promise"),
        ({"costs": ("a",)}, "NAME=COST"),
        ({"tasks": ("no_such_task",)}, "no_such_task"),
        ({"kinds": ("magic",)}, "config.kinds"),
        ({"held_out": 1.0}, "config.held_out"),
    ],
)
def test_a_wrong_setting_is_named(changes, told, tmp_path):
    config = config_of("model")
    for name, value in changes.items():
        config[name] = value
    with pytest.raises(ConfigError, match=told):
        run_router.run(config, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
