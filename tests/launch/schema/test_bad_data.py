"""Files that are no data: each reader names the file and the line, in one line."""

import json

import pytest

from launch import run_grade
from models import files
from reasoning.jsonl import text_field
from reasoning.tasks import get_task
from reasoning.training_data.teacher_data import read_prompts
from train import data

GOOD = b'{"prompt": "1 + 1 =", "response": "2", "answer": "2"}\n'
# Name -> the second line of a file, or the whole file; and words of the error.
BAD_LINES = {
    "deep nesting": (b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    "lone surrogate": (b'{"prompt": "\\ud800", "response": "2", "answer": "2"}', "surrogate"),
    "huge number": (b'{"prompt": "?", "answer": ' + b"7" * 10_000 + b"}", "thousands of digits"),
    "latin-1": ('{"prompt": "é", "answer": "2"}'.encode("latin-1"), "UTF-8"),
    "no object": (b"[1, 2]", "list"),
    "cut off": (b'{"prompt": "1 + 1', "JSON"),
    "two records": (GOOD.strip() * 2, "JSON"),
    "NUL": (b"\x00\x00", "JSON"),
}
BAD_FILES = {
    "utf-16": (GOOD.decode().encode("utf-16"), "UTF-16"),
    "empty": (b"", ""),
    "blank": (b"\n\n  \n", ""),
}
READERS = {
    "sft": lambda path: list(data.read_records(path)),
    "rl": lambda path: get_task(f"jsonl:{path}?test={path}").problems("train", None, 0),
    "prompts": lambda path: read_prompts(str(path)),
    "grade": lambda path: run_grade.read_responses(str(path), "gsm8k"),
    "any": lambda path: list(files.read_jsonl(path)),
}


def fault(reader, path):
    with pytest.raises((ValueError, OSError)) as error:
        READERS[reader](path)
    message = str(error.value)
    assert "\n" not in message and len(message) < 600, message[:1000]
    return message


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_is_named(reader, name, tmp_path):
    line, words = BAD_LINES[name]
    path = tmp_path / "data.jsonl"
    path.write_bytes(GOOD + line + b"\n" + GOOD)
    message = fault(reader, path)
    assert f"{path}:2" in message and words in message


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_named(reader, name, tmp_path):
    content, words = BAD_FILES[name]
    if reader == "any" and not words:
        return
    path = tmp_path / "data.jsonl"
    path.write_bytes(content)
    message = fault(reader, path)
    assert str(path) in message and words in message


@pytest.mark.parametrize("reader", ["sft", "rl"])
def test_a_line_without_end_is_named_and_not_read(reader, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_LINE_MIB", 1)
    path = tmp_path / "data.jsonl"
    path.write_bytes(GOOD + b'{"prompt": "' + b"x" * 3 * 2**20 + b'", "answer": "2"}\n')
    message = fault(reader, path)
    assert f"{path}:2" in message and "longer than 1 MiB" in message


@pytest.mark.parametrize("reader", READERS)
def test_a_file_that_windows_marked_is_read(reader, tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace(b"\n", b"\r\n"))
    assert len(READERS[reader](path)) == 1


@pytest.mark.parametrize("value", ["1e400", "NaN", "-Infinity"])
def test_a_number_that_is_none_is_no_text(value):
    record = json.loads(f'{{"answer": {value}}}')
    with pytest.raises(ValueError, match="file.jsonl:7: field 'answer' is"):
        text_field(record, ("answer",), "file.jsonl", 7)


def test_graded_records_need_a_place_before_grading(tmp_path, monkeypatch):
    path = tmp_path / "responses.jsonl"
    path.write_bytes(GOOD)
    monkeypatch.setattr(run_grade, "grade", lambda *_: pytest.fail("graded first"))
    for output, words in ((tmp_path, "is a folder"), (tmp_path / "no" / "x", "no such folder")):
        with pytest.raises(OSError, match=words):
            run_grade.run("gsm8k", str(path), str(output), None)
