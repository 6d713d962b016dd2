"""Records to examples: what is trained on, and that it is what the sampler would produce."""

import json

import numpy as np
import pytest

from models.tokens.tokenizer import Tokenizer
from models.tokens.tokenizer_training import train_bpe
from train.data import encode_records, load_examples, read_records

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHAT = [
    {"role": "user", "content": "What is 1+1?"},
    {"role": "assistant", "content": "\n2"},
    {"role": "user", "content": "And 2+2?"},
    {"role": "assistant", "content": "4"},
]


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(
        ["What is it? \n\n and 12 + 3"] * 3, 300, special_tokens=["<|im_start|>"],
        eos_token="<|im_end|>", template=TEMPLATE,
    )  # fmt: skip


def trained_text(tokenizer, example):
    """Runs of trained tokens, decoded."""
    tokens, weights = example["tokens"], example["loss_weights"]
    assert len(tokens) == len(weights) and set(weights) <= {0, 1}
    edges = np.flatnonzero(np.diff(np.concatenate([[0], weights, [0]])))
    return [tokenizer.decode(tokens[a:b]) for a, b in edges.reshape(-1, 2)]


def test_chat_trains_on_assistant_turns_and_their_end(tokenizer):
    (example,) = encode_records([{"messages": CHAT}], tokenizer)
    assert tokenizer.decode(example["tokens"]) == tokenizer.apply_chat_template(CHAT)
    assert trained_text(tokenizer, example) == ["\n2<|im_end|>", "4<|im_end|>"]
    # The prompt is tokenized as the sampler tokenizes it, whatever the response begins with.
    prompt = tokenizer.apply_chat_template(CHAT[:1], add_generation_prompt=True)
    ids = tokenizer.encode(prompt)
    assert example["tokens"][: len(ids)].tolist() == ids
    assert tokenizer.encode(prompt + "\n2")[: len(ids)] != ids


def test_prompt_and_response_and_text(tokenizer):
    records = [{"prompt": "1+1=\n", "response": "\n2"}, {"text": "It is"}, {"messages": CHAT}]
    paired, text, chat = encode_records(records, tokenizer)
    assert tokenizer.decode(paired["tokens"]) == "1+1=\n\n2<|im_end|>"
    assert trained_text(tokenizer, paired) == ["\n2<|im_end|>"]
    assert trained_text(tokenizer, text) == ["It is<|im_end|>"]
    (alone,) = encode_records([{"messages": CHAT}], tokenizer)
    np.testing.assert_array_equal(chat["tokens"], alone["tokens"])


def with_template(tokenizer, template):
    return Tokenizer(tokenizer._backend, {"eos_token": "<|im_end|>"}, template)


def test_templates_that_cannot_be_trained_on(tokenizer):
    forgetful = with_template(
        tokenizer,
        "{% for m in messages %}{% if m.role == 'user' or loop.last %}{{ m.content }}<|im_end|>"
        "{% endif %}{% endfor %}",
    )
    with pytest.raises(ValueError, match="record 0: the chat template rewrites earlier turns"):
        encode_records([{"messages": CHAT}], forgetful)
    endless = with_template(tokenizer, "{% for m in messages %}{{ m.content }}\n{% endfor %}")
    with pytest.raises(ValueError, match="record 0: the chat template ends the assistant's turn"):
        encode_records([{"messages": CHAT}], endless)


@pytest.mark.parametrize(
    "line, message",
    [
        ("{", "data.jsonl:2: no JSON"),
        ("[1]", "data.jsonl:2: a JSON object is needed, not list"),
        ('{"question": "?"}', "data.jsonl:2: has the fields question; it needs 'messages', or"),
        ('{"prompt": "a"}', "data.jsonl:2: has the fields prompt; it needs"),
        ('{"prompt": "a", "response": 4}', "data.jsonl:2: 'response' is a int; it must be text"),
        ('{"messages": "hello"}', "data.jsonl:2: 'messages' must be a list"),
        ('{"messages": [{"role": "user", "content": "x"}]}', "2: 'messages' has no assistant turn"),
    ],
)
def test_bad_lines(tmp_path, tokenizer, line, message):
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps({"text": "fine"}) + "\n" + line + "\n")
    with pytest.raises(ValueError, match=message):
        load_examples(path, tokenizer)


def test_missing_and_empty_files(tmp_path, tokenizer):
    with pytest.raises(FileNotFoundError, match="nowhere.jsonl: no such file"):
        load_examples(tmp_path / "nowhere.jsonl", tokenizer)
    (tmp_path / "empty.jsonl").write_text("\n\n")
    with pytest.raises(ValueError, match="empty.jsonl holds no records"):
        load_examples(tmp_path / "empty.jsonl", tokenizer)


def test_files_are_read_line_by_line(tmp_path, tokenizer):
    path = tmp_path / "data.jsonl"
    path.write_text('{"text": "It is"}\n\n{"text": "it"}\n')
    assert [where for where, _ in read_records(path)] == [f"{path}:1", f"{path}:3"]
    assert len(load_examples(path, tokenizer)) == 2
