"""Runs in a remote workdir: everything is in the store, nothing beside it, and they resume."""

import json
import os
import signal
import sys
import threading
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import tiny
from launch import run_report, run_rl, schema
from launch.jobs.training import reinforcement
from launch.parts import lock, runtime
from launch.parts.endings import Interrupted
from launch.recipe import runner, world
from launch.schema.tiny import TinyConfig
from models.checkpoint import load_model
from models.host.storage import as_path
from tests import remote_store
from tests.launch.test_run_rl import _config, _weights, files  # noqa: F401
from train.checkpoint import Checkpointer

WORKDIR = "gs://bucket/runs/one"
CHANGES = {"loss.beta": 0.05, "reference_every": 1, "evaluation.problems": 4}


class Written:
    """Records, while it is entered, which local paths Python opens for writing or makes."""

    def __enter__(self):
        self.paths, self._active = set(), True
        sys.addaudithook(self._record)
        return self

    def __exit__(self, *exception):
        self._active = False  # A hook cannot be removed.

    def _record(self, event, arguments):
        if not self._active:
            return
        if event == "open":
            path, _, flags = arguments
            writes = (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        elif event in ("os.mkdir", "os.rename"):
            path, writes = arguments[0], True
        else:
            return
        if writes and isinstance(path, (str, bytes, os.PathLike)):
            self.paths.add(Path(os.fsdecode(path)).absolute())


@pytest.fixture(scope="module")
def runs(files, tmp_path_factory):  # noqa: F811
    """A run in the store that was interrupted and resumed, one on the disk, and local writes."""
    folder = tmp_path_factory.mktemp("remote")
    run_rl.run(_config(files, **CHANGES), folder / "local")
    patched = pytest.MonkeyPatch()
    bucket = remote_store.install(patched, folder / "store")
    (folder / "empty").mkdir()
    patched.chdir(folder / "empty")
    write = reinforcement._write_samples

    def interrupt(writer, step, rollouts):
        write(writer, step, rollouts)
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with Written() as written:
        with pytest.MonkeyPatch.context() as interrupted:
            interrupted.setattr(reinforcement, "_write_samples", interrupt)
            with pytest.raises(Interrupted):
                run_rl.run(_config(files, **CHANGES), WORKDIR)
        kept = sorted(p.name for p in (folder / "store/bucket/runs/one/rl/checkpoints").iterdir())
        run_rl.run(_config(files, **CHANGES), WORKDIR)
    yield folder / "store/bucket/runs/one", folder / "local", written.paths, bucket, kept
    patched.undo()


def test_a_resumed_run_in_a_store_equals_one_on_the_disk(runs):
    remote, local, _, _, kept = runs
    assert kept == ["1", "2"]
    for a, b in zip(_weights(remote / "rl/hf"), _weights(local / "rl/hf"), strict=True):
        np.testing.assert_array_equal(a, b)
    for name in ("metrics.jsonl", "samples.jsonl", "graded.jsonl"):
        pair = [(each / "rl" / name).read_text().splitlines() for each in (remote, local)]
        told = [[_without_times(json.loads(line)) for line in lines] for lines in pair]
        assert told[0] and told[0] == told[1], name


def test_the_store_has_all_files_of_a_run_on_the_disk(runs):
    remote, local, *_ = runs
    listed = []
    for folder in (remote, local):
        paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
        listed.append({path for path in paths if not {"checkpoints", "reference"} & {*path.parts}})
    # The names of TensorBoard's files hold the time.
    events = [{p for p in each if "tensorboard" in p.parts} for each in listed]
    assert len(events[0]) == 2 and all((remote / path).stat().st_size > 500 for path in events[0])
    assert listed[0] - events[0] == listed[1] - events[1]
    assert (remote / "rl.png").read_bytes()[:4] == b"\x89PNG"
    assert "Complete." in (remote / "report.html").read_text()
    record = json.loads((remote / "run.json").read_text())
    assert [each["state"] for each in record["invocations"]] == ["interrupted", "complete"]


def test_nothing_is_written_beside_the_store(runs):
    remote, _, written, bucket, _ = runs
    store = remote.parents[2]
    assert not _beside(written, store) and any(store in path.parents for path in written)
    assert not list((store.parent / "empty").iterdir())
    assert not bucket.refused


def test_a_run_in_a_store_gets_its_page_anew(runs, capsys):
    page = runs[0] / "report.html"
    page.unlink()
    run_report.build([WORKDIR])
    assert "Learning curves" in page.read_text() and WORKDIR in capsys.readouterr().out


def test_stages_of_the_recipe_run_in_a_store_and_read_their_inputs_there(tmp_path, monkeypatch):
    store = remote_store.install(monkeypatch, tmp_path / "store")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    config = tiny.get_config("smoke")
    changes = {
        "model.num_layers": 1, "model.scan_unroll": 1, "pretrain.documents": 700,
        "evaluation.problems": 2, "r1_zero.steps": 4, "r1_zero.rewards": "format=1",
    }  # fmt: skip
    config.update_from_flattened_dict(changes)
    with Written() as written:
        with runtime.working_directory("gs://bucket/recipe", remote=True) as directory:
            (work,) = world.open_workspaces(schema.load(TinyConfig, config), directory, 1)
            results = runner.run_stages(work, ["base", "r1_zero"])
            assert results.keys() == {"base", "r1_zero"}
            assert runner.run_stages(work, ["base", "r1_zero"]) == results  # They are complete.
            loaded = load_model(work.stage_directory("base") / "hf").params
    stored = _weights(tmp_path / "store/bucket/recipe/seed_0/base/hf")
    for a, b in zip(jax.tree.leaves(loaded), stored, strict=True):
        np.testing.assert_array_equal(a, b)
    # The sandbox of programs makes folders, and removes them.
    assert not [path for path in _beside(written.paths, tmp_path / "store") if path.exists()]
    assert not store.refused
    assert not list((tmp_path / "empty").iterdir())


def test_a_lock_that_is_renewed_holds_and_one_that_is_not_is_taken(runs, monkeypatch, tmp_path):
    monkeypatch.setattr(lock, "SECONDS_BETWEEN_RENEWALS", 0.2)
    store = remote_store.install(monkeypatch, tmp_path)
    place = as_path("gs://bucket/held")
    other = {"pid": 1, "host": "another", "since": "today"}
    (place / lock.LOCK_FILE).write_text(json.dumps(other))
    with lock.locked(place):
        assert json.loads((place / lock.LOCK_FILE).read_text())["pid"] == os.getpid()
    assert not store.exists("gs://bucket/held/.lock")
    begun, ended = threading.Event(), threading.Event()

    def renew():
        beats = 0
        while not ended.wait(0.02):
            beats += 1
            (place / lock.LOCK_FILE).write_text(json.dumps(other | {"renewals": beats}))
            begun.set()

    thread = threading.Thread(target=renew)
    thread.start()
    begun.wait()
    try:
        with pytest.raises(ValueError, match="in use by process 1 on host another"):
            with lock.locked(place):
                pass
    finally:
        ended.set()
        thread.join()


@pytest.mark.parametrize(
    "workdir, told",
    [
        ("s4://bucket/run", "paths of s4:// are unknown"),
        ("gs:/bucket/run", "names no bucket"),
        ("gs://", "names no bucket"),
    ],
)
def test_other_schemes_are_refused_in_one_line(files, workdir, told, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=told) as error:
        run_rl.run(_config(files), workdir)
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


def test_a_store_that_cannot_be_reached_is_told_in_one_line(files, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    store = remote_store.install(monkeypatch, tmp_path / "store")
    for error, told in (
        (ImportError("no gcsfs"), r"ergo\[remote\]|\.\[remote\]"),
        (OSError("401 denied"), "401"),
    ):
        monkeypatch.setattr(store, "exists", _raising(error), raising=False)
        with pytest.raises(ValueError, match=told) as found:
            run_rl.run(_config(files), WORKDIR)
        assert "\n" not in str(found.value)


def test_a_checkpoint_of_a_store_that_is_set_aside_is_moved(tmp_path, monkeypatch):
    store = remote_store.install(monkeypatch, tmp_path)
    for step in (1, 2):
        folder = tmp_path / "bucket/checkpoints" / str(step)
        folder.mkdir(parents=True)
        for name in ("commit_success.txt", "_CHECKPOINT_METADATA"):
            (folder / name).write_text("{}")
    with Checkpointer("gs://bucket/checkpoints", say=lambda line: None) as checkpointer:
        checkpointer.set_aside(2, "its file is gone")
        assert checkpointer.latest_step() == 1
    assert store.exists("gs://bucket/checkpoints_damaged/2/commit_success.txt")


def _beside(written, store):
    """Returns what was written outside of the store, apart from JAX's cache of programs."""
    known = {store, Path(os.environ["JAX_COMPILATION_CACHE_DIR"]), Path("/dev")}
    return {path for path in written if not known & {*path.parents, path}}


def _without_times(record):
    return {name: value for name, value in record.items() if "second" not in name}


def _raising(error):
    def fail(*arguments):
        raise error

    return fail
