"""Tests that the file of paid responses has whole lines, whatever interrupts a write."""

import errno
import json
import os
import subprocess
import sys

import pytest

from reasoning.server_client.response_log import ResponseLog

SETTINGS = {"model": "m", "seed": 0}
RECORDS = [{"key": f"k{i}", "text": "zwölf\n" * i} for i in range(5)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "responses.jsonl"


def write(path, records=RECORDS):
    with ResponseLog(path, SETTINGS) as log:
        for record in records:
            log.append(record)


def test_records_come_back_in_order(path):
    write(path, RECORDS[:2])
    with ResponseLog(path, SETTINGS) as log:
        assert log.keys == {"k0", "k1"} and log.last == RECORDS[1]
        log.append(RECORDS[2])
        assert list(log) == RECORDS[:3] and log.keys == {"k0", "k1", "k2"}


def test_cut_anywhere_it_keeps_the_whole_records_and_goes_on(path):
    write(path)
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        kept = max(0, whole[:size].count(b"\n") - 1)
        with ResponseLog(path, SETTINGS) as log:
            assert list(log) == RECORDS[:kept], size
            for record in RECORDS[kept:]:
                log.append(record)
        assert path.read_bytes() == whole


def test_a_line_that_was_allotted_but_not_written_is_dropped(path):
    """As a file system may leave it when the machine fails."""
    write(path)
    whole = path.read_bytes()
    with path.open("ab") as file:
        file.write(b"\0" * 50 + b"\n")
    with ResponseLog(path, SETTINGS) as log:
        assert list(log) == RECORDS and log.dropped_bytes == 51
    assert path.read_bytes() == whole


def test_damage_elsewhere_is_an_error(path):
    write(path)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2][:5] + b"\n"
    path.write_bytes(b"".join(lines))
    with pytest.raises(ValueError, match=r"responses.jsonl:3: the line is no record of a response"):
        ResponseLog(path, SETTINGS)
    path.write_text('{"a": 1}\n{"b": 2}\n')
    with pytest.raises(ValueError, match="no file of responses"):
        ResponseLog(path, SETTINGS)


def test_other_settings_are_refused(path):
    write(path)
    with pytest.raises(ValueError, match="holds responses for seed=0, not 1: set it back"):
        ResponseLog(path, SETTINGS | {"seed": 1})


def test_one_process_at_a_time(path):
    with ResponseLog(path, SETTINGS):
        code = (
            "import sys; from reasoning.server_client.response_log import ResponseLog\n"
            "try: ResponseLog(sys.argv[1], {'model': 'm', 'seed': 0})\n"
            "except ValueError as error: print(error)"
        )
        second = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert "is open in another process" in second.stdout, second.stderr
    ResponseLog(path, SETTINGS).close()


def test_a_full_disk_leaves_whole_lines(path, monkeypatch):
    written = []

    def write_half(file, data, real=os.write):
        if written:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(real(file, data[: len(data) // 2]))
        return written[0]

    with ResponseLog(path, SETTINGS) as log:
        log.append(RECORDS[0])
        monkeypatch.setattr("reasoning.server_client.response_log.os.write", write_half)
        with pytest.raises(OSError, match="No space left"):
            log.append(RECORDS[1])
        monkeypatch.undo()
        assert list(log) == RECORDS[:1] and log.keys == {"k0"}
        log.append(RECORDS[2])
    assert [json.loads(line) for line in path.open()][1:] == [RECORDS[0], RECORDS[2]]


def test_lines_are_on_the_disk_before_append_returns(path, monkeypatch):
    synced = []

    def fsync(file, real=os.fsync):
        synced.append(os.fstat(file).st_size)
        real(file)

    monkeypatch.setattr("reasoning.server_client.response_log.os.fsync", fsync)
    with ResponseLog(path, SETTINGS) as log:
        for record in RECORDS:
            log.append(record)
            assert synced[-1] == path.stat().st_size
