"""Whatever is wrong with a training record, the error names file, line and fault in one line."""

import pytest

from tests.train import bad_records as bad
from train.data import encode_records


@pytest.mark.parametrize("name", bad.RECORDS)
def test_a_bad_record_gives_one_line(name, tmp_path):
    template, record, value = bad.RECORDS[name]
    error = bad.outcome(tmp_path, template, record)
    message = str(error)
    assert isinstance(error, ValueError) and message.startswith(f"{tmp_path / 'data.jsonl'}:2: ")
    assert value in message and "\n" not in message and len(message) < 700, message


def trained(template, record):
    tokenizer = bad.tokenizer_with(template)
    (example,) = encode_records([record], tokenizer)
    kept = [t for t, weight in zip(example["tokens"], example["loss_weights"]) if weight]
    return tokenizer.decode(example["tokens"]), tokenizer.decode(kept)


@pytest.mark.parametrize(
    ("template", "record", "text"),
    [
        ("plain", bad.said(content="<think>so</think>4"), "<think>so</think>4"),
        ("plain", bad.said(content=[{"type": "text", "text": t} for t in "4!"]), "4!"),
        ("plain", bad.said(content="4", name="Ann", id="7", weight=1), "4"),
        ("drops the chain", bad.said(content="4"), "4"),
        ("renders all", bad.said(content="4", reasoning_content="4"), "<think>4</think>4"),
        ("renders all", bad.call({"a": 2, "b": ["x", None]}), 'add({"a": 2, "b": ["x", null]})'),
        ("renders all", bad.call('{"a": 2}', content=None), r'add("{\"a\": 2}")'),
        ("calls only", bad.call({}, content=None), "add"),
        ("renders all", bad.said(content="4") | {"tools": [bad.TOOL]}, "4"),
        ("renders all", bad.said(content="4") | {"enable_thinking": False}, "4"),
    ],
)  # fmt: skip
def test_what_a_template_renders_is_trained(template, record, text):
    assert trained(template, record)[1] == text + "<eos>"


def test_a_record_s_tools_reach_the_prompt():
    record = bad.said(content="4") | {"tools": [bad.TOOL]}
    assert "add" in trained("renders all", record)[0]
    assert "add" not in trained("renders all", bad.said(content="4"))[0]


def test_a_response_that_brings_its_end_gets_no_second_one():
    for record in ({"prompt": "2 + 2?", "response": "4<eos>"}, {"text": "4<eos>"}):
        assert trained("plain", record)[0].count("<eos>") == 1


def test_a_byte_order_mark_is_read_over(tmp_path):
    assert bad.outcome(tmp_path, "plain", {"text": "fine"}) is None
    file = tmp_path / "data.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert len(bad.load_examples(file, bad.tokenizer_with("plain"))) == 2
