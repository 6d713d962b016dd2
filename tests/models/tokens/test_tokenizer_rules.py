"""What begins and ends a sequence, which tokens there are, and what may be exported."""

import json
import shutil

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import processors

from models.tokens import chat_template, tokenizer_files
from models.tokens.tokenizer import Tokenizer
from models.tokens.tokenizer_training import train_bpe
from reasoning.prompts import get_template
from train.data import encode_records

CHAT = "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<eos>{% endfor %}"
CHAT += "{% if add_generation_prompt %}<|assistant|>{% endif %}"


def make(front="", back="", **config):
    """A tokenizer whose post-processor puts tokens in front of and behind a text."""
    tokens = ["<s>", "<eos>", "<|user|>", "<|assistant|>", "<sop>"]
    base = train_bpe(["What is it? 12 + 3"] * 3, 300, special_tokens=tokens, eos_token="<eos>")
    backend = base._backend
    if front or back:
        used = [*front.split(), *back.split()]
        backend.post_processor = processors.TemplateProcessing(
            single=f"{front} $A {back}".strip(),
            special_tokens=[(token, backend.token_to_id(token)) for token in used],
        )
    config = {"eos_token": "<eos>", "bos_token": "<s>"} | config
    return Tokenizer(backend, config, CHAT)


# What the tokenizer puts in front, by post-processor and config.
RULES = [
    ({}, ""),
    ({"front": "<s>"}, "<s>"),
    ({"front": "<s>", "back": "<eos>"}, "<s>"),
    ({"back": "<eos>"}, ""),
    ({"front": "<s> <sop>"}, "<s><sop>"),
    ({"add_bos_token": True}, "<s>"),
    ({"front": "<s>", "add_bos_token": True}, "<s>"),
    ({"front": "<s>", "add_bos_token": False}, ""),
    ({"front": "<s>", "back": "<eos>", "add_bos_token": True, "add_eos_token": True}, "<s>"),
    ({"add_bos_token": True, "bos_token": None}, ""),
]


@pytest.mark.parametrize(("rule", "front"), RULES)
def test_training_and_sampling_begin_alike_and_end_once(rule, front):
    """SFT, and the ids that RL and evaluation sample from, for plain prompts and for chats."""
    tokenizer = make(**rule)
    plain = get_template("plain", tokenizer)("What is it?")
    chat = get_template("chat", tokenizer)("What is it?")
    for prompt in (plain, chat):
        sampled = tokenizer.encode_prompts([prompt])[0]
        (trained,) = encode_records([{"prompt": prompt, "response": "3"}], tokenizer)
        assert trained["tokens"][: len(sampled)].tolist() == sampled
        whole = tokenizer.decode(trained["tokens"])
        assert whole.endswith("3<eos>") and not whole.endswith("<eos><eos>")
        assert sampled.count(tokenizer.bos_id if "<s>" in front else -1) <= 1
    assert tokenizer.decode(tokenizer.encode_prompts([plain])[0]) == front + plain
    assert tokenizer.decode(tokenizer.encode_prompts([chat])[0]) == chat
    # A chat as messages, or rendered and given as a prompt.
    messages = [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "3"}]
    records = [{"messages": messages}, {"prompt": chat, "response": "3"}]
    as_chat, as_prompt = encode_records(records, tokenizer)
    assert as_chat["tokens"].tolist() == as_prompt["tokens"].tolist()


def test_a_document_begins_and_ends_once():
    tokenizer = make(front="<s>", back="<eos>")
    for text in ("it", "<s>it", "it<eos>", "<s>it<eos>"):
        (example,) = encode_records([{"text": text}], tokenizer)
        assert tokenizer.decode(example["tokens"]) == "<s>it<eos>"


@settings(max_examples=50, deadline=None)
@given(st.text(alphabet="ab <s>|", max_size=20))
def test_what_goes_on_is_encoded_as_it_is(text):
    tokenizer = make(front="<s>")
    assert tokenizer.decode(tokenizer.encode(text)) == text
    (ids,) = tokenizer.encode_prompts([text])
    assert ids == tokenizer.encode(text if text.startswith("<s>") else "<s>" + text)


def saved(tmp_path, **files):
    """A directory with the tokenizer of `make`, and fields of its files changed."""
    directory = tmp_path / "tokenizer"
    shutil.rmtree(directory, ignore_errors=True)
    make().save(directory)
    for name, fields in files.items():
        path = directory / f"{name}.json"
        old = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(old | fields))
    return directory


def test_tokens_that_only_the_config_names_are_added(tmp_path):
    new = make().vocab_size
    decoder = {
        str(new): {"content": "<think>", "special": False},
        str(new + 1): {"content": "<|tool|>", "special": True},
        "0": {"content": "<eos>", "special": True, "normalized": False},
    }
    directory = saved(tmp_path, tokenizer_config={"added_tokens_decoder": decoder})
    tokenizer = Tokenizer.from_directory(directory)
    assert tokenizer.encode("<think>it<|tool|>")[0] == new
    assert tokenizer.encode("<|tool|>") == [new + 1]
    assert tokenizer.decode([new, new + 1], skip_special_tokens=True) == "<think>"
    tokenizer.save(tmp_path / "again")
    again = Tokenizer.from_directory(tmp_path / "again")
    assert again.encode("<think><|tool|>") == [new, new + 1]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("additional_special_tokens", ["<|x|>"]),
        ("extra_special_tokens", ["<|x|>"]),
        ("extra_special_tokens", {"image": {"content": "<|x|>"}}),
    ],
)
def test_further_special_tokens_are_added(tmp_path, field, value):
    tokenizer = Tokenizer.from_directory(saved(tmp_path, tokenizer_config={field: value}))
    assert tokenizer.encode("<|x|>") == [make().vocab_size]
    tokenizer.save(tmp_path / "out")
    config = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert not isinstance(config.get("extra_special_tokens"), list)  # transformers 4 fails on one.


def test_an_unused_token_beyond_the_model_is_allowed_until_it_is_used(tmp_path):
    size = make().vocab_size
    decoder = {str(size): {"content": "<extra>", "special": True}}
    directory = saved(tmp_path, tokenizer_config={"added_tokens_decoder": decoder})
    tokenizer = Tokenizer.from_directory(directory)
    tokenizer.check_fits(size + 1)
    assert tokenizer.encode("<extra>") == [size]
    tokenizer.check_fits(size)
    assert tokenizer.encode("What is it?")
    with pytest.raises(ValueError, match="'<extra>', which the model cannot embed"):
        tokenizer.encode("What <extra> is it?")
    with pytest.raises(ValueError, match="use the model's own tokenizer"):
        tokenizer.check_fits(size - 1)  # A token of the vocabulary itself.
    as_pad = {"added_tokens_decoder": decoder, "pad_token": "<extra>"}
    with pytest.raises(ValueError, match="the tokenizer's pad_token is token"):
        Tokenizer.from_directory(saved(tmp_path, tokenizer_config=as_pad)).check_fits(size)


def test_stop_ids_must_be_token_ids(tmp_path):
    size = make().vocab_size
    assert Tokenizer.from_directory(
        saved(tmp_path, generation_config={"eos_token_id": size - 1})
    ).stop_ids == (0, size - 1)
    # A model's vocabulary may be padded beyond the tokenizer's.
    padded = {"vocab_size": size + 8, "eos_token_id": [size + 7]}
    assert size + 7 in Tokenizer.from_directory(saved(tmp_path, config=padded)).stop_ids
    for value in (size, -1, "1", True, [[1]], {"a": 1}):
        directory = saved(tmp_path, generation_config={"eos_token_id": value})
        with pytest.raises(ValueError, match="generation_config.json: eos_token_id="):
            Tokenizer.from_directory(directory)


def test_text_that_is_none_is_named():
    tokenizer = make()
    with pytest.raises(ValueError, match=r"half of a character"):
        tokenizer.encode("a\ud800b")
    with pytest.raises(ValueError, match="5 is a int; only text"):
        tokenizer.encode_prompts([5])


def test_a_tokenizer_is_tried_out_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    directory = saved(tmp_path)
    shutil.rmtree(tmp_path / "cache")  # A saved one needs no trial; another's does.
    trials = []
    run = tokenizer_files.subprocess.run
    monkeypatch.setattr(
        tokenizer_files.subprocess, "run", lambda *a, **k: trials.append(a) or run(*a, **k)
    )
    for _ in range(3):
        Tokenizer.from_directory(directory)
    assert len(trials) == 1
    Tokenizer.from_directory(saved(tmp_path))
    path = directory / "tokenizer.json"
    path.write_text(path.read_text() + " ")
    Tokenizer.from_directory(directory)
    assert len(trials) == 2


def test_a_panic_while_encoding_is_one_line():
    tokenizer = make()
    tokenizer._backend.pre_tokenizer = tokenizers.pre_tokenizers.Split(
        tokenizers.Regex("(a+)+$"), "isolated"
    )
    with pytest.raises(ValueError, match="the tokenizer cannot encode a text") as error:
        tokenizer.encode("a" * 3000 + "!")
    assert "\n" not in str(error.value)


def test_templates_render_after_one_was_killed(monkeypatch):
    tokenizer = make()
    chat = [{"role": "user", "content": "é😀 \u2028 x\n"}]
    expected = f"<s><|user|>{chat[0]['content']}<eos>"
    monkeypatch.setattr(chat_template, "CPU_SECONDS", 0.3)
    for _ in range(2):
        assert tokenizer.apply_chat_template(chat) == expected
        with pytest.raises(ValueError, match="processor time"):
            chat_template.render("{% for i in range(99999) %}{{ range(9999)|sum }}{% endfor %}")
    with pytest.raises(ValueError, match="cannot be written as JSON"):
        chat_template.render("", x=object())
