"""What a job takes from a checkpoint and leaves behind: dtypes, prompts, nothing opened twice."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ml_collections import ConfigDict
from safetensors.numpy import load_file

from launch.jobs import finetune, responses
from launch.parts import stages
from models.decoder import LanguageModel
from models.hf.load import load_config, load_params
from models.sharding import make_mesh
from models.tokens.tokenizer_training import train_bpe
from reasoning.response import parse_response
from tests.models.hf.bad_checkpoints import write_checkpoint

GOLDEN = Path(__file__).parents[2] / "models" / "golden"


@pytest.mark.parametrize(
    ("name", "asked", "expected"),
    [
        ("llama_mha_tied_bf16", "auto", "bfloat16"),
        ("qwen2_untied", "auto", "float32"),
        ("llama_mha_tied_bf16", "float32", "float32"),
        ("qwen2_untied", "float16", "float16"),
    ],
)
def test_a_stage_exports_in_the_dtype_of_its_checkpoint_or_as_asked(
    name, asked, expected, tmp_path
):
    source = GOLDEN / name
    dtype = finetune.export_dtype(source, asked)
    assert dtype == expected
    config = load_config(source)
    params = load_params(source, config)
    assert params["embedding"].dtype == np.float32
    settings = ConfigDict({"evaluation": {"tasks": {}, "votes": None}})
    work = stages.Workspace(
        tmp_path, settings, 0, make_mesh(), LanguageModel(config), None, export_dtype=dtype
    )
    stages.publish(work, tmp_path / "stage", params)
    tensors = load_file(tmp_path / "stage" / "hf" / "model.safetensors")
    assert {tensor.dtype.name for tensor in tensors.values()} == {expected}
    again = load_params(tmp_path / "stage" / "hf", load_config(tmp_path / "stage" / "hf"))
    np.testing.assert_array_equal(
        again["embedding"], params["embedding"].astype(expected).astype(np.float32)
    )


def test_a_job_s_tokenizer_must_fit(tmp_path):
    write_checkpoint(tmp_path)
    assert finetune.open_checkpoint(tmp_path, "float32")[1].vocab_size <= 320
    train_bpe([chr(c) * 9 for c in range(65, 400)], 600, eos_token="<eos>").save(tmp_path)
    with pytest.raises(ValueError, match=f"^{tmp_path}: the tokenizer has 600 tokens"):
        finetune.open_checkpoint(tmp_path, "float32")


@pytest.mark.parametrize("template", ["plain", "think", "chat"])
def test_a_student_s_prompt_does_not_open_the_chain_twice(template, tmp_path):
    """Whether the student's template, plain or of its tokenizer, opens the chain or not."""
    chat = "{% for m in messages %}{{ m.content }}{% endfor %}"
    chat += "{% if add_generation_prompt %} A: <think>\n{% endif %}"
    tokenizer = train_bpe(["User: 1 + 1?"] * 3, 300, eos_token="<eos>", template=chat)
    work = SimpleNamespace(config=SimpleNamespace(template=template), tokenizer=tokenizer, seed=0)
    text = "<think>\nso it is\n</think> <answer>2</answer>"

    def read(response):
        messages = [{"role": "user", "content": "1 + 1?"}]
        messages += [{"role": "assistant", "content": response}]
        (tmp_path / "data.jsonl").write_text(json.dumps({"messages": messages}) + "\n")
        (example,) = responses.read(work, str(tmp_path / "data.jsonl"), None)
        return tokenizer.decode(example["tokens"])

    whole = read(text)
    assert whole.count("<think>") == 1 and whole.endswith("</answer><eos>")
    assert parse_response(whole[whole.index("<think>") :].removesuffix("<eos>")).well_formed
    if template != "plain":
        with pytest.raises(ValueError, match="'<think>', but the response does not begin with it"):
            read("2")
