"""Distillation from and into checkpoints: what is reported and exported, resuming, bad input."""

import json
import shutil
import types

import jax
import numpy as np
import pytest

from configs import distill as distill_config
from configs import tiny_distill
from launch import run_distill, run_make_checkpoint
from launch.jobs import responses
from launch.parts import flops
from models.checkpoint import load_model
from models.config import ModelConfig
from models.decoder import LanguageModel
from models.hf.export import export_model
from models.tokens.tokenizer_training import train_bpe
from reasoning.tasks import get_task

ARMS = ("rl_only", "sequence", "logit", "on_policy", "distill_then_rl")
VOCAB, TAUGHT = 320, 24


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Problems, a teacher, a smaller student of its vocabulary, one of another, and responses."""
    folder = tmp_path_factory.mktemp("distill")
    sums = [(a, b) for a in range(8) for b in range(8)]
    (folder / "own.jsonl").write_text(
        "".join(json.dumps({"prompt": f"{a} + {b} =", "answer": a + b}) + "\n" for a, b in sums)
    )
    # Random models would earn nothing else, and learn nothing from RL.
    (folder / "own.py").write_text(
        "def letters(prompt, completion, problem):\n    return sum(completion.encode()) % 5 / 4\n"
    )
    problems = get_task(f"jsonl:{folder / 'own.jsonl'}").problems("train", None, 0)
    for name, width in (("teacher", 24), ("student", 16)):
        run_make_checkpoint.make_checkpoint(
            folder / name, problems, well_formed=0.5, vocab_size=VOCAB, width=width, layers=1,
            seed=0,
        )  # fmt: skip
    other = train_bpe(
        ["User: 1 + 1 =\nAssistant: 2"] * 3, VOCAB, eos_token="<end>", pad_token="<fill>",
        template="{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}model:",
    )  # fmt: skip
    config = ModelConfig(
        family="llama", vocab_size=VOCAB, embed_dim=16, num_layers=1, num_heads=2, num_kv_heads=1,
        head_dim=8, mlp_dim=24, max_length=512,
    )  # fmt: skip
    params = jax.jit(LanguageModel(config).init)(jax.random.key(0))
    export_model(folder / "llama", config, params, other)
    chats = [
        [
            {"role": "user", "content": problem.question},
            {"role": "assistant", "content": f"<think> </think><answer>{problem.answer}</answer>"},
        ]
        for problem in problems[:TAUGHT]
    ]
    (folder / "data.jsonl").write_text("".join(json.dumps({"messages": c}) + "\n" for c in chats))
    return folder


def configured(files, student="student/model", methods=ARMS, **changes):
    config = distill_config.get_config()
    tiny = tiny_distill.get_config("smoke")
    for name in ("sequence", "logit", "on_policy", "rl_only", "data"):
        config[name] = tiny[name]
    config.on_policy.on_policy_share = 0.5
    config.teacher = str(files / "teacher" / "model")
    config.student = student and str(files / student)
    config.remat, config.methods = "none", methods
    config.task = f"jsonl:{files / 'own.jsonl'}"
    config.data.responses = str(files / "data.jsonl")
    config.rl_only.rewards, config.rl_only.steps = f"{files / 'own.py'}:letters", 2
    for section in (config.on_policy, config.rl_only):
        section.max_new_tokens = 12
    for section in (config.sequence, config.logit, config.on_policy, config.rl_only):
        section.optimizer.warmup_steps = 0
    config.evaluation.update({"problems": 4, "max_new_tokens": 8, "rows": 8})
    config.update_from_flattened_dict(changes)
    return config


@pytest.fixture(scope="module")
def finished(files):
    config = configured(files)
    run_distill.run(config, files / "finished")
    return files / "finished"


def report_of(workdir):
    return json.loads((workdir / "report.json").read_text())


def weights(directory):
    return [np.asarray(x) for x in jax.tree.leaves(load_model(directory).params)]


def changed(directory, before):
    pairs = zip(weights(directory), before, strict=True)
    return max(np.abs(a - b).max() for a, b in pairs) > 1e-4


def test_the_report_has_every_arm_with_its_size_cost_and_figures(files, finished):
    report = report_of(finished)
    assert set(report) == {"config", "machine", "seeds", "wall_seconds", "distill"}
    arms = report["distill"]
    assert list(arms) == ["teacher", "base", *ARMS]
    for name, arm in arms.items():
        assert set(arm) == {"wall_seconds", "params", "train_flops", "metrics"}
        model = load_model(files / ("teacher" if name == "teacher" else "student") / "model").model
        assert arm["params"] == model.config.num_params
        assert (arm["train_flops"] > 0) == (name in ARMS)
        assert arm["metrics"]["math/pass@1"]["n"] == 4
    # Both halves of it are paid for, and the teacher's forward passes.
    assert arms["distill_then_rl"]["train_flops"] > 0.4 * arms["sequence"]["train_flops"]
    assert arms["logit"]["train_flops"] > arms["sequence"]["train_flops"]
    page = (finished / "report.html").read_text()
    assert "math/pass@1 against training compute" in page and "Learning curves" in page


def test_rl_goes_on_from_a_complete_distillation(files, finished, tmp_path):
    """Nothing is learned twice, and both parts are paid for."""
    workdir = tmp_path / "run"
    shutil.copytree(finished, workdir)
    arm = workdir / "seed_0" / "distill_then_rl"
    shutil.rmtree(arm)
    config = configured(files, methods=("sequence", "distill_then_rl"))
    config.distill_then_rl.share = 1.0
    run_distill.run(config, workdir)
    assert (arm / "rl").exists() and not (arm / "sequence").exists()
    assert changed(arm / "hf", weights(workdir / "seed_0" / "sequence" / "hf"))
    arms = report_of(workdir)["distill"]
    spent = arms["distill_then_rl"]["train_flops"] - arms["sequence"]["train_flops"]
    whole = report_of(finished)["distill"]["rl_only"]["train_flops"]
    assert 0.2 * whole < spent < 0.8 * whole  # Half of the steps.


def test_flops_of_sequence_are_three_forward_passes_of_what_is_trained_on(files, finished):
    config = load_model(files / "student" / "model").model.config
    tokenizer = load_model(files / "student" / "model").tokenizer
    lines = (files / "data.jsonl").read_text().splitlines()
    lengths = [
        len(tokenizer.encode(tokenizer.apply_chat_template(json.loads(line)["messages"]).rstrip()))
        for line in lines
    ]
    expected = 3 * sum(n * config.flops_per_token(n / 2) for n in lengths)
    assert report_of(finished)["distill"]["sequence"]["train_flops"] == pytest.approx(expected)


def test_forward_and_sampling_flops():
    config = ModelConfig(
        family="llama", vocab_size=10, embed_dim=4, num_layers=2, num_heads=2, num_kv_heads=1,
        head_dim=2, mlp_dim=6,
    )  # fmt: skip
    # Queries and outputs 4 x 4, keys and values 4 x 2, three of 4 x 6; the head 4 x 10.
    products = 2 * (2 * (2 * 16 + 2 * 8 + 3 * 24) + 40)
    # Scores and values: 2 heads of 2, in 2 layers.
    assert flops.forward(config, [6, 2]) == 8 * products + (6 * 3 + 2 * 1) * 4 * 2 * 2 * 2
    # One prompt of 4, two completions of 2: prefilled once.
    decode = 2 * 2 * (products + 5 * 4 * 2 * 2 * 2)
    assert flops.sampling(config, [4], np.array([[2, 2]])) == pytest.approx(
        flops.forward(config, [4]) + decode
    )


def test_every_arm_starts_from_the_student_and_is_exported(files, finished):
    student = weights(files / "student" / "model")
    seed = finished / "seed_0"
    assert not changed(seed / "base" / "hf", student)
    for arm in ARMS:
        assert changed(seed / arm / "hf", student), arm


def test_what_is_complete_is_not_done_again(files, finished):
    copy = files / "copy"
    shutil.copytree(finished, copy)
    shutil.rmtree(copy / "seed_0" / "logit")
    before = {p: p.stat().st_mtime_ns for p in copy.rglob("*.safetensors")}
    run_distill.run(configured(files), copy)
    after = {p: p.stat().st_mtime_ns for p in copy.rglob("*.safetensors")}
    assert {p for p in after if after[p] != before.get(p)} == {
        copy / "seed_0" / "logit" / "hf" / "model.safetensors"
    }
    for name in ("params", "train_flops", "metrics"):
        again, first = (report_of(each)["distill"]["logit"][name] for each in (copy, finished))
        assert again == first


def test_a_student_with_its_own_tokenizer_is_taught_by_text(files):
    workdir = files / "llama_run"
    config = configured(files, "llama", ("sequence",), teacher="")
    run_distill.run(config, workdir)
    assert list(report_of(workdir)["distill"]) == ["base", "sequence"]
    loaded = load_model(workdir / "seed_0" / "sequence" / "hf")
    assert loaded.model.config.family == "llama"
    assert changed(workdir / "seed_0" / "sequence" / "hf", weights(files / "llama"))


def test_stored_logits_teach_as_those_computed_along(files, finished):
    """With all of the vocabulary stored, to the rounding; and they cost the teacher one pass."""
    trained = {}
    for top_k, epochs in ((VOCAB, 2), (None, 2), (4, 2)):
        workdir = files / f"top_{top_k}"
        changes = {"logit.epochs": epochs, "logit.top_k": top_k}
        run_distill.run(configured(files, methods=("logit",), **changes), workdir)
        cost = report_of(workdir)["distill"]["logit"]["train_flops"]
        trained[top_k] = weights(workdir / "seed_0" / "logit" / "hf"), cost
    for one, other in zip(trained[VOCAB][0], trained[None][0], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    assert any(np.abs(a - b).max() > 1e-3 for a, b in zip(trained[4][0], trained[None][0]))
    assert trained[4][1] < trained[None][1]


def test_on_policy_goes_on_from_a_short_sft(files, finished):
    """A warm start is the method `sequence`, and its cost counts."""
    workdir = files / "warm"
    changes = {"on_policy.warm_start": 1.0}
    run_distill.run(configured(files, methods=("sequence", "on_policy"), **changes), workdir)
    warm, cold = (report_of(each)["distill"] for each in (workdir, finished))
    spent = warm["on_policy"]["train_flops"]
    assert spent > warm["sequence"]["train_flops"]
    assert spent == pytest.approx(
        warm["sequence"]["train_flops"] + cold["on_policy"]["train_flops"], rel=0.3
    )

    def losses(place):
        return [json.loads(line)["loss"] for line in (place / "metrics.jsonl").open()]

    warm_arm, cold_arm = (each / "seed_0" / "on_policy" for each in (workdir, finished))
    assert losses(warm_arm / "warm_start") == losses(workdir / "seed_0" / "sequence")
    assert losses(warm_arm)[0] != losses(cold_arm)[0]


def test_lora_exports_a_merged_model(files):
    workdir = files / "lora_run"
    config = configured(files, methods=("sequence",), **{"lora.rank": 2, "sequence.epochs": 2})
    run_distill.run(config, workdir)
    student = load_model(files / "student" / "model").params
    tuned = load_model(workdir / "seed_0" / "sequence" / "hf").params
    # Only kernels of blocks change, each by a matrix of rank 2.
    np.testing.assert_array_equal(tuned["embedding"], student["embedding"])
    after, before = (np.array(p["layers"]["mlp"]["up"]["kernel"][0]) for p in (tuned, student))
    scales = np.linalg.svd(after - before, compute_uv=False)
    assert scales[1] > 1e-4 and scales[2] < 1e-5


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"methods": ("logits",)}, "methods.0.='logits': must be one of.*did you mean logit"),
        ({"student": ""}, "there is no student: give a checkpoint by --config.student"),
        ({"teacher": "", "data.responses": ""}, "there is no teacher: give a checkpoint, or"),
        ({"teacher": ""}, "method 'logit' needs a teacher's checkpoint, not its text alone"),
        ({"sequence.optimizer.warmup_steps": 99}, "config.sequence: warmup_steps=99 .* do not fit"),
        ({"on_policy.row_length": 13}, "config.on_policy: a prompt of .* exceed row_length of 13"),
        ({"data.responses": "", "data.max_new_tokens": 5000}, "config.data: .*the model's context"),
        ({"evaluation.max_new_tokens": 5000}, "config.evaluation: .*exceed the model's context"),
        ({"logit.top_k": 10**6}, "config.logit.top_k=1000000 exceeds the .* vocabulary"),
        ({"sequence.row_length": 4}, "config.sequence: example .* tokens, longer than row length"),
        ({"data.responses": "no.jsonl"}, "no.jsonl does not exist"),
        ({"lora.rank": 2, "lora.targets": "q_proj"}, "LoRA targets='q_proj' match none of"),
    ],
)
def test_bad_settings(files, changes, message):
    with pytest.raises((ValueError, OSError), match=message):
        run_distill.run(configured(files, **changes), files / "bad")
    assert not list((files / "bad").rglob("result.json"))


def test_logits_of_two_vocabularies_are_one_clear_error(files):
    message = r"method 'logit' compares distributions over tokens, but token 0 is b'<end>' to the"
    with pytest.raises(ValueError, match=message):
        run_distill.run(configured(files, "llama", ("logit",)), files / "bad")


def student_of(files):
    """As much of a workspace as reading takes."""
    tokenizer = load_model(files / "student" / "model").tokenizer
    return types.SimpleNamespace(seed=0, config=configured(files), tokenizer=tokenizer)


def test_the_evaluation_is_kept_out_of_what_is_taught(files):
    work = student_of(files)
    asked = get_task(work.config.task).problems("test", 4, 0)[0].question
    chat = [{"role": "user", "content": f"Now: {asked}"}, {"role": "assistant", "content": "Well."}]
    tainted = files / "tainted.jsonl"
    clean = (files / "data.jsonl").read_text()
    tainted.write_text(clean + json.dumps({"messages": chat}) + "\n")

    def taught(ngram):
        examples = responses.read(work, str(tainted), ngram)
        return [work.tokenizer.decode(example["tokens"]) for example in examples]

    assert sum("Well." in text for text in taught(None)) == 1
    assert len(taught(13)) == TAUGHT and not any("Well." in text for text in taught(13))


def test_a_mixture_of_files(files):
    work, data, more = student_of(files), files / "data.jsonl", files / "more.jsonl"
    shutil.copy(data, more)
    assert len(responses.read(work, f"{data}=2,{more}=1", None)) == 1.5 * TAUGHT
    with pytest.raises(ValueError, match="data.responses: 'half' in .* is no share"):
        responses.read(work, f"{data}=half", None)


def test_responses_that_are_no_chats(files):
    (files / "bad.jsonl").write_text('{"messages": [{"role": "user", "content": "1 + 1 ="}]}\n')
    config = configured(files, **{"data.responses": str(files / "bad.jsonl")})
    with pytest.raises(ValueError, match="bad.jsonl:1: needs 'messages' of one user and one"):
        run_distill.run(config, files / "bad")
