"""`launch.run_eval` on tiny models and a local server: figures, resuming, bad input."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from launch import run_eval
from launch.jobs import evaluation
from launch.jobs.asked import LocalModel, ServerModel, WholeResponses
from launch.jobs.evaluation import Method, parse_methods
from launch.parts.endings import Interrupted
from models.gguf.export import export_gguf
from models.hf.export import export_model
from models.scalar_head import ScalarModel
from reasoning.generation.generator import Completion
from reasoning.jsonl import read_jsonl
from reasoning.statistics import share_with_ci
from tests.misbehaving_server import MODEL, running_server
from tests.models.gguf import gguf_files

ROOT = Path(__file__).parents[2]
DEFAULTS = dict(
    server="", api_key_env="", problems=None, template="auto", dtype="auto", prm="", orm="",
    max_new_tokens=12, step_tokens=6, typical_tokens=12, temperature=1.0, top_p=1.0, rows=4,
    aggregation="last", wait="Wait", seed=0,
)  # fmt: skip
COUNT = 10


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Problems, a tiny random model in both kinds of files, and one with a scalar head."""
    import jax

    from models.decoder import LanguageModel

    folder = tmp_path_factory.mktemp("eval")
    lines = [json.dumps({"prompt": f"What is {n} + 1?", "answer": n + 1}) for n in range(COUNT)]
    (folder / "test.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "train.jsonl").write_text('{"prompt": "What is 70 + 1?", "answer": 71}\n')
    config, tokenizer = gguf_files.BASE, gguf_files.make_tokenizer()
    params = jax.jit(LanguageModel(config).init)(jax.random.key(0))
    export_model(folder / "hf", config, params, tokenizer)
    export_gguf(folder / "model.gguf", config, params, tokenizer)
    scalar = ScalarModel(config, bias=True)
    export_model(
        folder / "prm", config, jax.jit(scalar.init)(jax.random.key(1)), tokenizer,
        scalar_head=scalar,
    )  # fmt: skip
    return folder


@pytest.fixture
def server(monkeypatch):
    """Right about even numbers; of odd ones, in two of three samples."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    def answer(prompt, i):
        n = int(prompt.split()[2])
        right = n % 2 == 0 or i % 3 != 0
        return f"<think>{n}</think> <answer>{n + 1 if right else 500}</answer>"

    with running_server() as server:
        server.answer = answer
        yield server


def evaluate(files, workdir, **changes):
    tasks = [f"jsonl:{files / 'train.jsonl'}?test={files / 'test.jsonl'}"]
    known = {"tasks": tasks, "workdir": str(workdir)} | DEFAULTS | changes
    run_eval.run(**known)
    return json.loads((workdir / "report.json").read_text())


def records(path):
    return [record for _, record in read_jsonl(path)]


def test_figures_are_those_of_the_answers(files, server, tmp_path):
    report = evaluate(
        files, tmp_path, model=[MODEL], server=server.url,
        methods=["greedy", "sampled@3", "majority@3", "oracle@2"],
    )  # fmt: skip
    by = {each["method"]: each for each in report["evaluations"]}
    # Of one sample the odd are wrong, of three a third; the vote and the oracle find the right one.
    assert by["greedy"]["accuracy"] == share_with_ci(COUNT // 2, COUNT)
    assert by["sampled"]["accuracy"]["mean"] == pytest.approx((1 + 2 / 3) / 2)
    assert by["majority"]["accuracy"]["mean"] == by["oracle"]["accuracy"]["mean"] == 1
    assert by["greedy"]["format"]["mean"] == by["greedy"]["complete"]["mean"] == 1
    assert by["greedy"]["tokens"] * 3 == by["sampled"]["tokens"]  # All answers are as long.
    graded = records(tmp_path / "graded.jsonl")
    assert len(graded) == COUNT * (1 + 3 + 1 + 1)
    page = (tmp_path / "report.html").read_text()
    assert "Accuracy against tokens" in page and "Samples before and after" in page
    wrong = [each for each in graded if not each["correct"]]
    assert all(each["found"] == "500" and each["reason"] for each in wrong)
    # The messages are the bare questions: the server has the template.
    path, body, _ = server.requests[0]
    assert path.endswith("/chat/completions") and body["messages"][-1]["content"].startswith("What")


def test_a_server_that_continues_text_is_searched_by_steps(files, server, tmp_path):
    server.answer = lambda prompt, i: " one\n<answer>1</answer>"
    methods = ["budget_forcing@2", "greedy"]
    report = evaluate(
        files, tmp_path, model=[MODEL], server=server.url, methods=methods, template="plain",
        problems=3,
    )  # fmt: skip
    assert [each["method"] for each in report["evaluations"]] == [
        "budget_forcing", "greedy",
    ]  # fmt: skip
    assert all("chat" not in path for path, *_ in server.requests)


METHODS = [
    "greedy", "direct", "cot", "sampled@2", "majority@4", "best_of_n_logprob@4", "oracle@4",
    "best_of_n_certainty@2", "best_of_n_prm@2", "weighted_majority@4", "beam@2", "mcts@2",
]  # fmt: skip


@pytest.fixture(scope="module")
def whole(files, tmp_path_factory):
    """An evaluation that nothing disturbed, of one model in two kinds of files."""
    workdir = tmp_path_factory.mktemp("whole")
    models = [str(files / "hf"), f"gguf:{files / 'model.gguf'}"]
    report = evaluate(
        files, workdir, model=models, methods=METHODS, prm=str(files / "prm"), problems=6
    )
    return workdir, report


def test_every_method_answers_every_problem(whole):
    workdir, report = whole
    assert len(report["evaluations"]) == 2 * len(METHODS)
    for each in report["evaluations"]:
        assert each["accuracy"]["n"] == 6 and each["tokens"] > 0 and each["flops"] > 0
        assert len(each["accuracy"]["ci95"]) == 2
    tokens = {each["method"]: each["tokens"] for each in report["evaluations"][: len(METHODS)]}
    # What was drawn is paid for, shared or not.
    assert tokens["majority"] == tokens["oracle"] > tokens["sampled"] > tokens["greedy"]
    assert len(records(workdir / "graded.jsonl")) == 2 * 6 * (len(METHODS) + 1)


def test_an_interrupted_run_goes_on_to_the_same_answers(files, whole, tmp_path, monkeypatch):
    class StopsAt:
        """Stands for a signal behind so many batches."""

        def __init__(self, limit):
            self.limit = limit

        def __call__(self, say):
            return self

        def __enter__(self):
            return self

        def __exit__(self, *exc_info):
            pass

        @property
        def signal_name(self):
            self.limit -= 1
            return "SIGTERM" if self.limit < 0 else None

    from train import preemption

    arguments = {"model": [str(files / "hf")], "methods": METHODS, "prm": str(files / "prm")}
    monkeypatch.setattr(preemption, "Stopper", StopsAt(7))
    with pytest.raises(Interrupted, match="SIGTERM"):
        evaluate(files, tmp_path, **arguments, problems=6)
    assert not (tmp_path / "report.json").exists()
    # A kill has cut a line, too.
    log = next((tmp_path / "responses").rglob("greedy.jsonl"))
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:-1]) + lines[-1][:20])
    monkeypatch.undo()
    report = evaluate(files, tmp_path, **arguments, problems=6)
    assert report["evaluations"] == whole[1]["evaluations"][: len(METHODS)]
    # Nothing is asked twice, nor is a model opened for what is done.
    monkeypatch.setattr(LocalModel, "open", None)
    again = evaluate(files, tmp_path, **arguments, problems=6)
    assert again["evaluations"] == report["evaluations"]


def test_logs_of_other_settings_or_weights_are_not_mixed(files, tmp_path):
    arguments = {"model": [str(files / "hf")], "methods": ["greedy"], "problems": 2}
    evaluate(files, tmp_path, **arguments)
    with pytest.raises(ValueError, match="holds responses for max_new_tokens=12, not 8"):
        evaluate(files, tmp_path, **arguments | {"max_new_tokens": 8})
    weights = next((files / "hf").glob("*.safetensors"))
    weights.touch()
    with pytest.raises(ValueError, match="holds responses for weights="):
        evaluate(files, tmp_path, **arguments)


@pytest.mark.parametrize(("texts", "fault"), [
    (["nope"], "method 'nope' is unknown; choose from greedy, sampled, direct"),
    (["adaptive@4"], "adaptive is calibrated by launch.run_search"),
    (["majority"], "'majority': write majority@N"),
    (["majority@0"], "majority@N"),
    (["majority@x"], "majority@N"),
    (["greedy@2"], "'greedy@2': write greedy"),
    (["beam@4"], "beam needs a trained verifier: give one by --prm=DIR"),
    (["best_of_n_orm@4"], "give one by --orm=DIR"),
    ([], "there are no methods"),
])  # fmt: skip
def test_methods_that_cannot_be_run_are_named(texts, fault):
    with pytest.raises(ValueError) as error:
        parse_methods(texts, False, False)
    assert fault in str(error.value)


def test_methods_are_parsed():
    found = parse_methods(["greedy", "majority@16", "greedy", "beam@4"], True, False)
    assert found == [Method("greedy", 1), Method("majority", 16), Method("beam", 4)]
    assert [str(each) for each in found] == ["greedy", "majority@16", "beam@4"]


def test_what_does_not_fit_is_found_before_anything_is_asked(files, server, tmp_path):
    asked = {"model": [str(files / "hf")], "methods": ["greedy"]}
    for changes, fault in [
        ({"max_new_tokens": 511}, "exceed the context of"),
        ({"tasks": ["nope"]}, "unknown task"),
        ({"tasks": []}, "there are no tasks"),
        ({"template": "nope"}, "template='nope' is unknown"),
        ({"problems": 99}, "99 are requested"),
        ({"model": ["gguf:nowhere.gguf"]}, "does not exist"),
        ({"server": server.url, "model": ["other"]}, "has no model 'other'"),
        (
            {"server": server.url, "model": [MODEL], "methods": ["direct"]},
            "direct continues responses",
        ),
    ]:
        with pytest.raises((ValueError, OSError), match=fault):
            evaluate(files, tmp_path, **asked | changes)
    assert not list(tmp_path.rglob("*.jsonl")) and not server.requests


def test_a_chat_server_is_never_sent_half_a_response():
    class Echo:
        def generate(self, prompts, **arguments):
            return [[Completion(prompt, [1], None, "stop")] for prompt in prompts]

    generator = WholeResponses(Echo(), ["a", "b"])
    found = generator.generate(["b", "a<think>half", "a"], max_new_tokens=3)
    assert [group[0].text for group in found] == ["b", "", "a"]
    assert ServerModel.version == "" and LocalModel.continues


def test_names_of_files_differ_where_names_of_models_do():
    names = ["a/b", "a_b", "a:b", "x" * 200, "x" * 201, "..", ""]
    made = {evaluation._file_name(name) for name in names}
    assert len(made) == len(names) and all("/" not in each and len(each) < 80 for each in made)


def test_the_command_line_reports_one_line(files, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "launch.run_eval", f"--model={files / 'hf'}", "--tasks=gsm9k",
         f"--workdir={tmp_path}"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 1 and len(errors) == 1 and "unknown task 'gsm9k'" in errors[0]
