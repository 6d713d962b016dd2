"""Tokenizers, exports and untied heads against transformers; needs torch: `make parity` only."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import torch  # noqa: E402

from models.checkpoint import load_model  # noqa: E402
from models.decoder import LanguageModel  # noqa: E402
from models.hf.export import export_model  # noqa: E402
from models.hf.load import load_config, load_params  # noqa: E402
from models.tokens.tokenizer import Tokenizer  # noqa: E402
from tests.models.hf import bad_checkpoints as checkpoints  # noqa: E402
from tests.models.tokens.test_tokenizer_rules import RULES, make  # noqa: E402

TEXTS = ["What is it?", "", " 12", "<think>it", "<|user|>it", "a<|tool|>b"]


_PROMPTS = """
import json, sys, transformers
theirs = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
chat = [{"role": "user", "content": "What is it?"}]
rendered = theirs.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
# A chat brings its own beginning.
print(json.dumps([theirs(text)["input_ids"] for text in json.loads(sys.argv[2])]
    + [theirs(rendered, add_special_tokens=False)["input_ids"]]))
"""


@pytest.mark.parametrize(("rule", "front"), RULES)
def test_prompts_begin_as_in_transformers(rule, front, tmp_path):
    """By version 5; where there is an `add_bos_token`, which it ignores, by version 4."""
    python = os.sys.executable
    if "add_bos_token" in rule:
        python = os.environ.get("TRANSFORMERS_4_PYTHON")
        if not python:
            pytest.skip("TRANSFORMERS_4_PYTHON names no Python with transformers 4")
        if rule.get("bos_token", "") is None:
            pytest.skip("transformers 4 makes up a bos_token")
        rule = rule | {"tokenizer_class": "LlamaTokenizerFast"}
    tokenizer = make(**rule)
    tokenizer.save(tmp_path)
    texts = ["What is it?", " 12 + 3", "é"]
    command = [python, "-c", _PROMPTS, str(tmp_path), json.dumps(texts)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    *plain, chat = json.loads(done.stdout.splitlines()[-1])
    for text, ids in zip(texts, plain, strict=True):
        # What is put behind ends a text, and a prompt goes on.
        if ids[-1] == tokenizer.eos_id:
            ids.pop()
        assert tokenizer.encode_prompts([text])[0] == ids
    messages = [{"role": "user", "content": "What is it?"}]
    rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    assert tokenizer.encode_prompts([rendered])[0] == chat


def named_in_the_config(directory: Path) -> Path:
    """A tokenizer two of whose tokens only `tokenizer_config.json` names."""
    tokenizer = make()
    tokenizer.save(directory)
    path, new = directory / "tokenizer_config.json", tokenizer.vocab_size
    decoder = {
        new: {"content": "<think>", "special": False, "normalized": False},
        new + 1: {"content": "<|tool|>", "special": True, "lstrip": True},
        new + 2: {"content": "<|user|>", "special": True, "rstrip": True},
    }
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    decoder = {str(index): flags | fields for index, fields in decoder.items()}
    decoder[str(tokenizer.token_id("<|user|>"))] = decoder.pop(str(new + 2))
    fields = json.loads(path.read_text()) | {"added_tokens_decoder": decoder}
    path.write_text(json.dumps(fields))
    return directory


def test_tokens_of_the_config_have_the_ids_of_transformers(tmp_path):
    directory = named_in_the_config(tmp_path / "in")
    ours, theirs = (
        Tokenizer.from_directory(directory),
        transformers.AutoTokenizer.from_pretrained(directory),
    )
    assert ours.vocab_size == len(theirs)
    for text in TEXTS:
        ids = theirs.encode(text, add_special_tokens=False)
        assert ours.encode(text) == ids
        for skip in (True, False):
            mine = ours.decode(ids, skip_special_tokens=skip)
            assert mine == theirs.decode(ids, skip_special_tokens=skip)


def exported(directory: Path) -> tuple[Path, Tokenizer]:
    """A model with a tokenizer that transformers 5 saved, as it is exported here."""
    source = directory / "in"
    checkpoints.write_checkpoint(source)
    theirs = transformers.AutoTokenizer.from_pretrained(named_in_the_config(directory / "tok"))
    theirs.add_special_tokens({"additional_special_tokens": ["<|x|>"]})
    theirs.save_pretrained(source)
    fields = json.loads((source / "tokenizer_config.json").read_text())
    assert isinstance(fields["extra_special_tokens"], list)  # What transformers 4 fails on.
    (source / "generation_config.json").write_text('{"temperature": 0.6, "eos_token_id": 0}')
    model, params, tokenizer = load_model(source)
    return export_model(directory / "out", model.config, params, tokenizer), tokenizer


_CHECK = """
import json, sys, transformers
directory, texts = sys.argv[1], json.loads(sys.argv[2])
tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
config = transformers.AutoConfig.from_pretrained(directory)
generation = transformers.GenerationConfig.from_pretrained(directory)
chat = [{"role": "user", "content": "What is it?"}]
print(json.dumps({
    "version": transformers.__version__,
    "ids": [tokenizer.encode(text, add_special_tokens=False) for text in texts],
    "chat": tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True),
    "special": tokenizer.convert_tokens_to_ids("<|x|>"),
    "layers": config.num_hidden_layers,
    "temperature": generation.temperature,
}))
"""


def test_exports_load_in_transformers_5_and_4(tmp_path):
    """In 4 where `TRANSFORMERS_4_PYTHON` names a Python that has it; it needs no torch."""
    directory, tokenizer = exported(tmp_path)
    pythons = {"5": os.sys.executable, "4": os.environ.get("TRANSFORMERS_4_PYTHON")}
    chat = [{"role": "user", "content": "What is it?"}]
    for major, python in pythons.items():
        if python is None:
            continue
        command = [python, "-c", _CHECK, str(directory), json.dumps(TEXTS)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout.splitlines()[-1])
        assert found["version"].startswith(major + ".")
        assert found["ids"] == [tokenizer.encode(text) for text in TEXTS]
        assert found["chat"] == tokenizer.apply_chat_template(chat, add_generation_prompt=True)
        assert [found["special"]] == tokenizer.encode("<|x|>")
        assert (found["layers"], found["temperature"]) == (2, 0.6)


def test_a_head_beside_a_tied_config_is_used_as_in_transformers(tmp_path):
    tensors = checkpoints.write_checkpoint(tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text()) | {"tie_word_embeddings": True}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    assert not np.array_equal(tensors["lm_head.weight"], tensors["model.embed_tokens.weight"])
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    tokens = np.random.default_rng(0).integers(0, 300, (2, 24))
    with torch.no_grad():
        expected = theirs(torch.tensor(tokens)).logits.numpy()
    with pytest.warns(UserWarning, match="loaded untied"):
        config = load_config(tmp_path)
    params, model = load_params(tmp_path, config), LanguageModel(config)
    positions = np.broadcast_to(np.arange(24), tokens.shape)
    hidden = model.hidden(params, tokens, positions, np.ones_like(tokens))
    np.testing.assert_allclose(model.logits(params, hidden), expected, atol=1e-4)
