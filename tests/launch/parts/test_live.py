"""Records shown while a training runs: what is shown, and what an error of the plot does."""

import json
import threading

import pytest

from launch.parts import live


def write(directory, step):
    with open(directory / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step}) + "\n")


def test_records_are_shown_while_the_block_runs_and_at_its_end(tmp_path):
    shown, seen = [], threading.Event()

    def show(records):
        shown.append([each["step"] for each in records])
        seen.set()

    with live.watch(tmp_path, show, seconds=0.01):
        write(tmp_path, 1)
        assert seen.wait(10), "nothing was shown while the block ran"
        write(tmp_path, 2)
    assert shown == [[1], [1, 2]]


def test_an_error_of_the_plot_comes_after_the_training(tmp_path):
    def show(records):
        raise KeyError("reward")

    write(tmp_path, 1)
    finished = False
    with pytest.raises(KeyError, match="reward"), live.watch(tmp_path, show, seconds=0.01):
        finished = True
    assert finished


def test_an_error_of_the_training_is_not_replaced(tmp_path):
    write(tmp_path, 1)
    with pytest.raises(OSError), live.watch(tmp_path, lambda records: 1 / 0):
        raise OSError


def test_a_plot_is_shown_and_renewed_as_png(tmp_path, monkeypatch):
    shown = []

    class Handle:
        def update(self, image):
            shown.append(image.data)

    monkeypatch.setattr("IPython.display.display", lambda *args, display_id: Handle())
    with live.plot(tmp_path, {"step": "steps", "absent": "nothing yet"}, seconds=60):
        write(tmp_path, 1)
        write(tmp_path, 2)
    (image,) = shown
    assert image.startswith(b"\x89PNG") and len(image) < 100_000
