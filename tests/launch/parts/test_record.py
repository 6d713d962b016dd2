"""The record of the commands that worked in a run's folder, and the page at their end."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from launch.parts import lock, record, runtime
from launch.parts.endings import Interrupted
from models.files import write_atomically
from train.metrics import MetricWriter

ROOT = Path(__file__).parents[3]


def invocations(folder):
    return json.loads((folder / "run.json").read_text())["invocations"]


def test_each_command_is_recorded_with_its_end(tmp_path):
    with runtime.working_directory(str(tmp_path)):
        assert [each["state"] for each in invocations(tmp_path)] == ["running"]
    with pytest.raises(Interrupted), runtime.working_directory(str(tmp_path)):
        raise Interrupted("SIGTERM after step 2")
    with pytest.raises(ValueError), runtime.working_directory(str(tmp_path)):
        raise ValueError("no data\nanywhere")
    found = invocations(tmp_path)
    assert [(each["state"], each.get("reason")) for each in found] == [
        ("complete", None), ("interrupted", "SIGTERM after step 2"), ("failed", "no data anywhere"),
    ]  # fmt: skip
    assert all(each["seconds"] >= 0 and each["machine"]["processor"] for each in found)
    assert found[0]["versions"]["python"] == sys.version.split()[0]
    assert "no data anywhere" in (tmp_path / "report.html").read_text()


def test_the_latest_commands_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "MOST_COMMANDS", 2)
    for _ in range(4):
        with record.recorded(tmp_path):
            pass
    assert len(invocations(tmp_path)) == 2


def test_a_page_that_cannot_be_written_ends_no_run(tmp_path, capsys):
    with runtime.working_directory(str(tmp_path)) as directory:
        (directory / "report.html").mkdir()  # Nothing can take its name.
    assert invocations(tmp_path)[-1]["state"] == "complete"
    assert capsys.readouterr().err.startswith("warning: no report page: ")


def test_a_damaged_record_is_one_line(tmp_path):
    write_atomically(tmp_path / "run.json", "{")
    with pytest.raises(ValueError, match=r"run\.json is damaged .*: remove it; the run's"):
        with runtime.working_directory(str(tmp_path)):
            pass


def test_the_command_line_can_be_run_again_and_holds_no_password():
    code = "from launch.parts.record import command_line; print(command_line())"
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == "None"  # A notebook or a user's program.
    script = f"""
import sys
sys.argv = ["x", "--tasks=a b", "--server=https://me:secret@host/v1"]
sys.modules["__main__"].__spec__ = type("Spec", (), {{"name": "launch.run_eval"}})
{code}
"""
    told = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == (
        "python -m launch.run_eval '--tasks=a b' --server=https://…@host/v1"
    )


def test_the_page_follows_a_run_that_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "SECONDS_TO_FIRST_PAGE", 0.05)
    monkeypatch.setattr(record, "SECONDS_BETWEEN_PAGES", 0.05)
    monkeypatch.setattr(record, "SHARE", 1)
    page = tmp_path / "report.html"

    def waited_for(text):
        end = time.monotonic() + 20
        while time.monotonic() < end:
            if page.exists() and text in page.read_text():
                return True
            time.sleep(0.02)
        return False

    with runtime.working_directory(str(tmp_path)):
        writer = MetricWriter(tmp_path / "rl")
        writer.resume(0)
        for step in (1, 2):
            writer.write(step, {"reward": 0.5})
            assert waited_for(f"rl is at step {step}.")
            assert 'http-equiv="refresh"' in page.read_text()
        written = page.stat().st_mtime_ns
        time.sleep(0.5)
        assert page.stat().st_mtime_ns == written  # Nothing new, so nothing is written.
        writer.close()
    assert 'http-equiv="refresh"' not in page.read_text()
    assert not [each for each in threading.enumerate() if each.name == "report page"]


def test_building_pages_takes_little_of_a_runs_time(tmp_path, monkeypatch):
    """The longer a page takes to build, the longer the next one waits."""
    waits = []

    class Clock:
        def wait(self, timeout):
            waits.append(timeout)
            return len(waits) > 2

    monkeypatch.setattr(record, "last_change", lambda directory: len(waits))
    monkeypatch.setattr(record, "page_of", lambda directory, live: time.sleep(0.2) or directory)
    live = record.LivePage.__new__(record.LivePage)
    live._directory, live._end = tmp_path, Clock()
    live._run()
    assert waits[0] == record.SECONDS_TO_FIRST_PAGE
    assert all(wait >= record.SHARE * 0.2 > record.SECONDS_BETWEEN_PAGES for wait in waits[1:])


def test_whether_a_run_works_in_a_folder(tmp_path):
    assert not lock.is_held(tmp_path)
    with lock.locked(tmp_path):
        assert lock.is_held(tmp_path)
        (tmp_path / "copy").mkdir()
        held = (tmp_path / lock.LOCK_FILE).read_text()
    assert not lock.is_held(tmp_path)
    # A killed run leaves its lock file behind.
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    holder = json.loads(held) | {"pid": ended.pid}
    (tmp_path / "copy" / lock.LOCK_FILE).write_text(json.dumps(holder))
    assert not lock.is_held(tmp_path / "copy")
    (tmp_path / "copy" / lock.LOCK_FILE).write_text(json.dumps(holder | {"host": "elsewhere"}))
    assert lock.is_held(tmp_path / "copy")
