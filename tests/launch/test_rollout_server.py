"""RL whose rollouts a server samples: it gets new weights before each, and samples with them."""

import json

import pytest

pytest.importorskip("starlette", reason="the server's packages are missing: pip install .[serve]")

from configs import gsm8k_grpo
from launch import run_make_checkpoint, run_rl
from launch.jobs.serving import open_models, weights_loader
from reasoning.jsonl import read_jsonl
from reasoning.serving.server import Server
from reasoning.tasks import get_task
from tests.reasoning.serving.conftest import listening

STEPS = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("rollout_server")
    records = [{"prompt": f"What is {a} plus 3?", "answer": a + 3} for a in range(60)]
    (made / "own.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    # Answers of any model get different rewards.
    (made / "own.py").write_text(
        "def length(prompt, completion, problem):\n    return len(completion) % 7 / 6\n"
    )
    problems = get_task(f"jsonl:{made / 'own.jsonl'}").problems("train", None, 0)
    run_make_checkpoint.make_checkpoint(
        made / "tiny", problems, well_formed=0.3, vocab_size=320, width=16, layers=1, seed=0
    )
    return made


def config_of(folder, url, **changes):
    config = gsm8k_grpo.get_config("tiny")
    config.model = str(folder / "tiny" / "model")
    config.task = f"jsonl:{folder / 'own.jsonl'}"
    config.rewards = f"{folder / 'own.py'}:length,accuracy=0"
    config.prompts, config.group, config.steps = 4, 4, STEPS
    config.max_prompt_tokens, config.max_new_tokens = 128, 24
    config.sampler_rows = config.evaluation.rows = 16
    config.evaluation.problems = config.evaluation.problems_during = 4
    config.evaluate_every = config.checkpoint_every = STEPS
    config.optimizer.learning_rate = 1e-2
    config.recompute_old, config.loss.tis_cap = True, 2.0
    config.rollout_server.url = url
    config.update_from_flattened_dict(changes)
    return config


def test_the_trainer_agrees_with_the_server_in_every_step(folder):
    model = str(folder / "tiny" / "model")
    models = open_models(model, slots=8, context=256, queue=64, chunk=16)
    with listening(Server(models, load_weights=weights_loader(model))) as url:
        run_rl.run(config_of(folder, url), str(folder / "run"))
    models.reasoner.engine.close()
    metrics = [record for _, record in read_jsonl(folder / "run" / "rl" / "metrics.jsonl")]
    steps = [record for record in metrics if "first_sampler_kl" in record]
    assert len(steps) == STEPS
    for record in steps:
        # With the weights of the step before, the difference would be far larger.
        assert record["first_sampler_gap_max"] < 1e-3
        assert record["seconds/layout"] > 0
    assert max(record["grad_norm"] for record in steps) > 0


def test_without_a_server_the_run_says_so(folder):
    config = config_of(folder, "http://127.0.0.1:9", **{"rollout_server.timeout_s": 1.0})
    config.evaluation.tasks = {"math": ""}
    with pytest.raises(OSError, match="check that the server runs") as error:
        run_rl.run(config, str(folder / "none"))
    assert "\n" not in str(error.value)
