"""lm-evaluation-harness, unchanged, against the server: its program is `lm_eval` on the PATH."""

import json
import os
import shutil
import subprocess

import jax
import numpy as np
import pytest

from models.decoder import LanguageModel
from tests.reasoning.serving.conftest import CONFIG, KEY
from tests.reasoning.serving.test_server import post

LM_EVAL = shutil.which("lm_eval")
pytestmark = pytest.mark.skipif(LM_EVAL is None, reason="needs `pip install 'lm_eval[api]'`")

QUESTIONS = [
    {"question": "What is 12 + 30?", "choices": ["42", "41 or so"], "gold": 0},
    {"question": "héllo", "choices": ["wörld", '"yes"', "no"], "gold": 1},
]
ABOUT = """
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
doc_to_text: "{{{{question}}}}"
"""
SAY = """
task: say
output_type: generate_until
doc_to_target: "{{choices[gold]}}"
generation_kwargs: {until: ["zzz"], max_gen_toks: 12, temperature: 0}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""
CHOOSE = """
task: choose
output_type: multiple_choice
doc_to_choice: choices
doc_to_target: gold
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""


@pytest.fixture
def tasks(tmp_path):
    folder = tmp_path / "tasks"
    folder.mkdir()
    data = tmp_path / "questions.jsonl"
    data.write_text("".join(json.dumps(each) + "\n" for each in QUESTIONS))
    for name, text in (("say", SAY), ("choose", CHOOSE)):
        (folder / f"{name}.yaml").write_text(text + ABOUT.format(data=data))
    return folder


def samples(tasks, model, url, *arguments):
    """What the harness logs of each task: name -> the samples in the order of the questions."""
    out = tasks.parent / "out"
    place = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tasks.parent / "hf")}
    ran = subprocess.run(
        [LM_EVAL, "run", "--model", model, "--include_path", tasks, "--log_samples",
         "--output_path", out, "--model_args",
         f"base_url={url},model=tiny,max_retries=1,auth_token={KEY}", *arguments],
        env=os.environ | place | {"OPENAI_API_KEY": KEY}, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-3000:]
    found = {}
    for path in out.rglob("samples_*.jsonl"):
        records = sorted(map(json.loads, path.read_text().splitlines()), key=lambda x: x["doc_id"])
        found[path.name.split("_")[1]] = records
    return found


def test_chats_are_answered(url, tasks):
    found = samples(
        tasks, "local-chat-completions", f"{url}/v1/chat/completions", "--tasks", "say",
        "--apply_chat_template",
    )["say"]  # fmt: skip
    for record, question in zip(found, QUESTIONS, strict=True):
        asked = [{"role": "user", "content": question["question"]}]
        answer = post(url, model="tiny", messages=asked, temperature=0, max_tokens=12, seed=1234)
        assert record["resps"] == [[answer.json()["choices"][0]["message"]["content"]]]
        assert record["resps"][0][0]


def test_texts_are_continued_and_scored(url, tasks, checkpoint):
    found = samples(
        tasks, "local-completions", f"{url}/v1/completions", "--tasks", "say,choose",
        "--batch_size", "3",
    )  # fmt: skip
    for record, question in zip(found["say"], QUESTIONS, strict=True):
        answer = post(
            url, "/v1/completions", model="tiny", prompt=question["question"], temperature=0,
            max_tokens=12,
        )  # fmt: skip
        assert record["resps"] == [[answer.json()["choices"][0]["text"]]]
    model = LanguageModel(CONFIG)
    params = model.init(jax.random.key(3))
    for record, question in zip(found["choose"], QUESTIONS, strict=True):
        for (given,), choice in zip(record["resps"], question["choices"], strict=True):
            start = checkpoint.tokenizer.encode(question["question"])
            ids = np.array([checkpoint.tokenizer.encode(f"{question['question']} {choice}")])
            places = np.arange(ids.shape[1])[None]
            logits = model.logits(params, model.hidden(params, ids, places, np.ones_like(ids)))
            logprobs = np.asarray(jax.nn.log_softmax(logits))[
                0, np.arange(ids.size - 1), ids[0, 1:]
            ]
            assert float(given[0]) == pytest.approx(logprobs[len(start) - 1 :].sum(), abs=1e-3)
