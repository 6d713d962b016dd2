"""Tests atomic writes, errors of JSON that name the file, and checksums of folders."""

import json
import os
import subprocess

import pytest

from models.files import atomic_file, read_json, read_jsonl, salvage_jsonl, write_jsonl
from models.manifest import MANIFEST_FILE, Damaged, check_manifest, write_manifest


def test_a_file_is_replaced_by_a_whole_one_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with atomic_file(path) as file:
        file.write("first")
        assert not path.exists()
    with pytest.raises(RuntimeError), atomic_file(path) as file:
        file.write("second")
        raise RuntimeError
    assert path.read_text() == "first" and os.listdir(path.parent) == ["a.txt"]
    with atomic_file(path, "wb") as file:
        file.write(b"\0")
    assert path.read_bytes() == b"\0"


@pytest.mark.parametrize(
    "content, words",
    [
        (b'{"a": 1}\n[1]\n', "{}:2: a JSON object is needed, not list"),
        (b'{"a": 1}\n\n{"a": }\n', "{}:3: no JSON"),
        (b'{"a": "\xe4"}\n', "{}:1: no UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "{}: the file is UTF-16"),
        (b"[" * 200_000 + b"\n", "{}:1: no JSON"),
        (b'{"a": ' + b"1" * 10_000 + b"}\n", "{}:1: no JSON"),
        (b'{"a": "\\ud800"}\n', "{}:1: no JSON text (it holds one half of a surrogate pair)"),
        (b"\0\0\0\0\n", "{}:1: no JSON"),
    ],
)
def test_a_bad_line_is_named(tmp_path, content, words):
    path = tmp_path / "data.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError) as error:
        list(read_jsonl(path))
    assert str(error.value).startswith(words.format(path)) and "\n" not in str(error.value)


def test_what_is_written_is_read_and_a_mark_at_the_begin_is_not_seen(tmp_path):
    records = [{"a": "ä\u2028\x85"}, {"b": [1.5, None]}]
    path = tmp_path / "data.jsonl"
    write_jsonl(path, records)
    assert list(read_jsonl(path)) == [(1, records[0]), (2, records[1])]
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes() + b'{"c": "\\ud83d\\ude00"}\r\n')
    assert [record for _, record in read_jsonl(path)] == [*records, {"c": "😀"}]


@pytest.mark.parametrize("tail", [b"\0" * 50, b'{"step": 12', b'{"step": 3}', b"\xff\n", b"3\n"])
def test_a_log_is_read_as_far_as_it_is_whole(tmp_path, tail):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"step": 1}\nbroken\n{"step": 2}\n' + tail)
    assert salvage_jsonl(path) == ([{"step": 1}, {"step": 2}], [2, 4])


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"3", b"\0\0", b"\xff", b"[" * 10**5])
def test_a_damaged_record_names_its_file_and_the_remedy(tmp_path, content):
    path = tmp_path / "result.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path} is damaged .*: remove it$") as error:
        read_json(path, "remove it")
    assert "\n" not in str(error.value)
    path.write_text(json.dumps({"a": 1}))
    assert read_json(path, "") == {"a": 1}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "small").write_bytes(b"abc")
    (tmp_path / "sub" / "large").write_bytes(bytes(range(256)) * 5000)
    (tmp_path / "late").write_bytes(b"1")
    write_manifest(tmp_path, leave_out=["late"])
    return tmp_path


def test_a_manifest_tells_of_every_change(folder):
    (folder / "late").write_bytes(b"2")
    (folder / "further").write_bytes(b"")
    check_manifest(folder)
    content = bytearray((folder / "sub" / "large").read_bytes())
    content[-1] ^= 128
    (folder / "sub" / "large").write_bytes(content)
    with pytest.raises(Damaged, match=f"{folder / 'sub' / 'large'} is damaged: it differs"):
        check_manifest(folder)
    check_manifest(folder, only_small=True)
    (folder / "sub" / "large").unlink()
    with pytest.raises(Damaged, match=f"{folder / 'sub' / 'large'} is missing"):
        check_manifest(folder, only_small=True)


def test_a_manifest_that_was_cut_between_two_lines_is_noticed_where_all_files_are_known(folder):
    path = folder / MANIFEST_FILE
    path.write_text(path.read_text().splitlines(keepends=True)[0])
    check_manifest(folder)
    with pytest.raises(Damaged, match=f"{path} is damaged: it lacks sub/large"):
        check_manifest(folder, leave_out=["late"])


@pytest.mark.parametrize("content", [b"", b"x  small\n", b"\xff\n", None])
def test_a_damaged_manifest_is_damage(folder, content):
    (folder / MANIFEST_FILE).unlink()
    if content is not None:
        (folder / MANIFEST_FILE).write_bytes(content)
    with pytest.raises(Damaged, match=str(folder / MANIFEST_FILE)):
        check_manifest(folder)


def test_the_format_is_that_of_sha256sum(folder):
    try:
        done = subprocess.run(["sha256sum", "-c", MANIFEST_FILE], cwd=folder, capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no sha256sum on this machine")
    assert done.returncode == 0 and done.stdout.count(b": OK") == 2
