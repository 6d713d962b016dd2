"""From a policy to verifiers: what is left on disk, what is done once, what is refused early."""

import dataclasses
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from launch import schema
from launch.jobs import verifier_training
from launch.jobs.verifier_training import (
    VERIFIERS,
    plan_verifiers,
    train_verifiers,
    training_examples,
)
from launch.parts.stages import Workspace
from launch.schema.recipe import Verifiers
from models.config import ModelConfig
from models.decoder import LanguageModel
from models.hf.load import load_scalar_model
from models.sharding import make_mesh
from models.tokens.tokenizer_training import train_bpe
from reasoning.generation.generator import Completion
from reasoning.tiny_world import corpus
from reasoning.training_data.prm_step_labels import LabelledSolution

TOKENIZER = train_bpe(
    corpus.documents(200, 0), 300, eos_token="<eos>", pad_token="<pad>",
    text_tokens=("<think>", "</think>", "<answer>", "</answer>"),
)  # fmt: skip
MODEL = LanguageModel(
    ModelConfig(
        family="qwen3",
        vocab_size=304,
        embed_dim=16,
        num_layers=1,
        num_heads=2,
        num_kv_heads=1,
        head_dim=8,
        mlp_dim=16,
        qk_norm=True,
        max_length=256,
    )  # fmt: skip
)


def config(**changes):
    fields = {
        "problems": {"tiny_math?low=5&high=5": 5, "tiny_logic?low=3&high=3": 3},
        "solutions": 2,
        "completions": 2,
        "max_new_tokens": 24,
        "temperature": 1.0,
        "completion_temperature": None,
        "delimiter": "\n",
        "chunk": 4,
        "sampler_rows": 8,
        "outcome_at": "all",
        "language_share": 0.0,
        "bench_problems": 6,
        "rows": 4,
        "row_length": 160,
        "epochs": 1,
        "optimizer": {"name": "adamw", "learning_rate": 1e-2, "schedule": "constant"},
        "checkpoint_every": 2,
        "log_every": 1,
    }
    return schema.load(Verifiers, fields | changes)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    directory = tmp_path_factory.mktemp("verifiers")
    settings = types.SimpleNamespace(template="plain")
    return Workspace(directory, settings, 3, make_mesh(), MODEL, TOKENIZER)


@pytest.fixture(scope="module")
def policy():
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda x: jnp.asarray(rng.normal(0, 0.3, x.shape), jnp.float32), MODEL.abstract_params
    )
    # Lines end, and so do responses.
    params["embedding"] = params["embedding"].at[:, 0].set(9.0)
    head = params["lm_head"]["kernel"].at[0].set(0.0)
    for token in (TOKENIZER.encode("\n")[0], TOKENIZER.eos_id):
        head = head.at[0, token].set(0.6)
    params["lm_head"]["kernel"] = head
    return params


@pytest.fixture(scope="module")
def trained(work, policy):
    before = jax.tree.map(np.array, policy)
    report = train_verifiers(work, policy, plan_verifiers(work, config()), work.directory)
    # The policy's weights are still its own.
    jax.tree.map(np.testing.assert_array_equal, policy, before)
    return report


def test_the_report_has_labels_and_both_process_verifiers(trained):
    assert trained["labels"]["solutions"] == 16 < trained["labels"]["steps"]
    assert trained["labels"]["generated_tokens"] > trained["labels"]["steps"]
    assert trained["process_bench"].keys() == {"soft", "hard"}
    for figures in trained["process_bench"].values():
        # Six planted solutions of each of the two tasks.
        assert figures["f1"]["n"] == 12 and figures["error_accuracy"]["n"] == 6
        low, high = figures["f1"]["ci95"]
        assert 0 <= low <= figures["f1"]["mean"] <= high <= 1
    json.dumps(trained)


def test_each_verifier_is_exported_and_differs(work, policy, trained):
    kernels = []
    for name in VERIFIERS:
        loaded = load_scalar_model(work.directory / name / "hf")
        assert "lm_head" not in loaded.params
        assert (np.asarray(loaded.params["embedding"]) != policy["embedding"]).any()
        kernels.append(np.asarray(loaded.params["score"]["kernel"]))
        steps = (work.directory / name / "metrics.jsonl").read_text().splitlines()
        assert json.loads(steps[0]).keys() >= {"loss", "labels", "agreement", "tokens"}
    assert (kernels[0] != kernels[1]).any() and (kernels[0] != kernels[2]).any()


def test_right_solutions_are_also_learned_to_be_written(work):
    """By each verifier; as many times the labels' weight as asked for, none of it on the prompt."""
    tied = LanguageModel(MODEL.config.replace(tie_embeddings=True))
    plan = plan_verifiers(dataclasses.replace(work, model=tied), config(language_share=2.0))
    ids = TOKENIZER.encode(" <think>\n 3 and 4 makes 7\n</think><answer> 7</answer>")
    solutions = [
        LabelledSolution("", "3 + 4", ids, [1, len(ids) - 1], [0.5, right], right, 0, 0)
        for right in (True, False)
    ]
    prompt = len(TOKENIZER.encode("3 + 4"))
    for examples in training_examples(plan, solutions).values():
        right, wrong = (example["language_weights"] for example in examples)
        assert right.sum() == pytest.approx(2.0 * examples[0]["loss_weights"].sum())
        assert not right[:prompt].any() and (right[prompt:] > 0).all() and not wrong.any()
    for examples in training_examples(plan_verifiers(work, config()), solutions).values():
        assert all("language_weights" not in example for example in examples)


def test_loaded_verifiers_score_the_policys_responses(work, trained):
    plan = plan_verifiers(work, config())
    ids = TOKENIZER.encode(" <think>\n 3 and 4 makes 7\n</think><answer> 7</answer>")
    problem = plan.problems[0][1][0]
    asked = [problem], [plan.template(problem.question)]
    samples = [[Completion(TOKENIZER.decode(ids), ids, None, "stop")]]
    process = verifier_training.load_process_verifier(plan, work.directory)
    outcome = verifier_training.load_outcome_verifier(plan, work.directory)
    assert process.score(*asked, samples)[0][0].shape == (3,)
    assert outcome.score(*asked, samples)[0][0].shape == (1,)


def test_what_is_done_is_not_done_again(work, policy, trained, monkeypatch):
    before = {path: path.read_bytes() for path in work.directory.rglob("*") if path.is_file()}
    monkeypatch.setattr(verifier_training.supervised, "fine_tune", None)
    again = train_verifiers(work, policy, plan_verifiers(work, config()), work.directory)
    assert again == trained
    assert before == {p: p.read_bytes() for p in work.directory.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"problems": {}}, "problems={}: must not be empty"),
        ({"problems": {"tiny_maths": 3}}, "unknown task 'tiny_maths'"),
        ({"completions": 0}, "completions=0"),
        ({"outcome_at": "end"}, "outcome_at='end': must be one of last, all"),
        ({"row_length": 30}, "exceed row_length of 30 tokens"),
        ({"max_new_tokens": 250}, "exceed the model's context of 256"),
        ({"optimizer": {"name": "adamw", "lr": 1}}, "optimizer.lr is unknown"),
        ({"epochs": 0}, "epochs=0"),
        ({"bench_problems": 1}, "bench_problems=1"),
        ({"language_share": -1.0}, "language_share=-1.0: must be at least 0"),
        ({"language_share": 2.0}, "language_share=2.0 needs a model with tied embeddings"),
        # The easier levels are all for training.
        ({"problems": {"tiny_math?low=2&high=3": 5}}, "has 0 test problems, but 12 are requested"),
    ],
)
def test_faults_show_before_anything_is_sampled(work, changes, message):
    with pytest.raises(ValueError, match=message):
        plan_verifiers(work, config(**changes))
