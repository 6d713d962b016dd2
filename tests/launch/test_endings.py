"""How runs end: stopped ones have no result, interrupts say 75, and a workdir has one run."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import sft as sft_config
from launch import run_make_checkpoint, run_sft
from launch.jobs import finetune
from launch.parts import endings, lock, stages
from launch.recipe import runner
from models.checkpoint import load_model
from models.manifest import Damaged
from reasoning.tasks import get_task
from tests.launch import kill_and_resume
from train.checkpoint import Checkpointer
from train.optimizer import make_optimizer
from train.state import state_from_params

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A tiny random checkpoint and chats to train it on."""
    folder = tmp_path_factory.mktemp("endings")
    records = [{"prompt": f"{a} + {b} =", "answer": a + b} for a in range(8) for b in range(8)]
    (folder / "own.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    problems = get_task(f"jsonl:{folder / 'own.jsonl'}").problems("train", None, 0)
    run_make_checkpoint.make_checkpoint(
        folder / "tiny", problems, well_formed=0.3, vocab_size=320, width=16, layers=1, seed=0
    )
    return folder


def config_of(files, **changes):
    config = sft_config.get_config("tiny")
    config.model, config.data = str(files / "tiny" / "model"), str(files / "tiny" / "sft.jsonl")
    config.rows, config.num_epochs, config.log_every, config.checkpoint_every = 4, 3, 1, 2
    config.update_from_flattened_dict(changes)
    return config


def weights(directory):
    return [np.asarray(x) for x in jax.tree.leaves(load_model(directory).params)]


def diverging(files, **changes):
    """Its learning rate makes weights of a size whose loss is not finite."""
    return config_of(
        files, **{"optimizer.learning_rate": 1e30, "optimizer.warmup_steps": 4,
                  "optimizer.clip_norm": 1e30, **changes}
    )  # fmt: skip


@pytest.fixture(scope="module")
def stopped(files):
    """A workdir whose SFT stopped itself."""
    with pytest.raises(endings.Stopped) as stop:
        run_sft.run(diverging(files), files / "stopped")
    return files / "stopped", str(stop.value)


def test_a_run_of_updates_that_are_not_finite_has_no_result(stopped):
    workdir, line = stopped
    assert "not finite" in line and "\n" not in line and "--accept_stopped=sft" in line
    stop = endings.read_stop(workdir / "sft")
    assert f"last good checkpoint is that of step {stop.good_step}" in line
    for name in ("report.json", "sft/result.json", "sft/hf"):
        assert not (workdir / name).exists(), name


def test_the_same_command_refuses_at_once_and_a_later_stage_refuses(files, stopped):
    workdir, line = stopped
    before = (workdir / "sft" / "metrics.jsonl").read_bytes()
    with pytest.raises(endings.Stopped) as again:
        run_sft.run(diverging(files), workdir)
    assert str(again.value) == line
    assert (workdir / "sft" / "metrics.jsonl").read_bytes() == before
    with pytest.raises(endings.Stopped, match="stopped at step"):
        stages.check_complete(workdir / "sft", "sft")


def test_the_last_good_checkpoint_is_taken_if_the_user_says_so(files, stopped, tmp_path):
    workdir = Path(shutil.copytree(stopped[0], tmp_path / "run"))
    with pytest.raises(ValueError, match="--accept_stopped=sftt is unknown; choose from sft"):
        run_sft.run(diverging(files), workdir, ["sftt"])
    run_sft.run(diverging(files), workdir, ["sft"])
    stop = endings.read_stop(workdir / "sft")
    report = json.loads((workdir / "report.json").read_text())
    assert report["stages"]["sft"]["stopped"][0]["good_step"] == stop.good_step
    work = finetune._open(diverging(files), files / "tiny" / "model", workdir)
    like = state_from_params(
        work.model, load_model(workdir / "sft" / "hf").params,
        make_optimizer({"name": "adamw"}, work.model.abstract_params, 10), work.mesh,
    )  # fmt: skip
    with Checkpointer(workdir / "sft" / "checkpoints") as checkpointer:
        checkpointer._check_config = lambda *_: None
        saved = checkpointer.restore(like, stop.good_step)[0].params
    for a, b in zip(weights(workdir / "sft" / "hf"), jax.tree.leaves(saved), strict=True):
        np.testing.assert_array_equal(a, np.asarray(b))


def test_a_stop_before_any_checkpoint_cannot_be_accepted(files, tmp_path):
    # More updates than there are, so that it stops at the last one and nothing was saved.
    config = diverging(files, checkpoint_every=1000, **{"optimizer.warmup_steps": 0})
    for accepted in ([], ["sft"]):
        with pytest.raises(endings.Stopped, match="It had saved no checkpoint"):
            run_sft.run(config, tmp_path, accepted)


def test_a_stopped_input_is_named_or_published_from_its_checkpoint(tmp_path, monkeypatch):
    """Of the recipe's stages: `--stages=cold_start` behind an R1-Zero that stopped."""
    stop = endings.Stop("reward collapsed", 9, 6)
    ran = []

    class Work:
        accept_stopped: tuple[str, ...] = ()
        config = types.SimpleNamespace(reasoner="r1_zero")

        def stage_directory(self, name):
            return tmp_path / name

    work = Work()
    stop.write(tmp_path / "r1_zero")
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "result.json").write_text("{}")
    monkeypatch.setattr(runner, "settings_of", lambda work, name: {"training": name})
    monkeypatch.setattr(stages, "saved_settings", lambda work, name: {"training": name})
    monkeypatch.setattr(stages, "run_stage", lambda work, name, *_: ran.append(name))
    checked = []
    monkeypatch.setattr(
        runner, "get_stage",
        lambda name: type("S", (), {"needs": ("base", "r1_zero") if name == "cold_start" else (),
                                    "check": staticmethod(checked.append)}),
    )  # fmt: skip
    with pytest.raises(endings.Stopped, match="reward collapsed.*--accept_stopped=r1_zero"):
        runner.run_stages(work, ["cold_start"])
    assert not ran
    work.accept_stopped = ("r1_zero",)
    runner.run_stages(work, ["cold_start"])
    assert ran == ["r1_zero", "cold_start"]


def test_an_export_that_was_damaged_is_not_read(files, tmp_path):
    model = Path(shutil.copytree(files / "tiny" / "model", tmp_path / "model"))
    content = bytearray((model / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (model / "model.safetensors").write_bytes(content)
    with pytest.raises(Damaged, match="model.safetensors is damaged.*MANIFEST.sha256"):
        run_sft.run(config_of(files, model=str(model)), tmp_path / "run")
    # A user's own folder has no manifest.
    (model / "MANIFEST.sha256").unlink()
    assert load_model(model)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "3", '{"metrics": 1}', "\0\0\0"])
def test_a_damaged_result_names_its_file_and_is_made_again(files, tmp_path, content):
    work = finetune._open(config_of(files), files / "tiny" / "model", tmp_path)
    report = {"metrics": {}}
    stages.run_stage(work, "sft", {"a": 1}, lambda directory: report)
    path = tmp_path / "sft" / "result.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=f"{path} is damaged .*: remove it") as error:
        stages.run_stage(work, "sft", {"a": 1}, lambda directory: report)
    assert "\n" not in str(error.value)
    path.unlink()
    assert stages.run_stage(work, "sft", {"a": 1}, lambda directory: report)["metrics"] == {}
    settings = tmp_path / "sft" / "settings.json"
    settings.write_text(content if content != '{"metrics": 1}' else "[1]")
    with pytest.raises(ValueError, match=f"{settings} is damaged"):
        stages.run_stage(work, "sft", {"a": 1}, lambda directory: report)


def child(code, **options):
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)}, **options,
    )  # fmt: skip


HOLDER = """
import sys, time
from pathlib import Path
from launch.parts import lock
with lock.locked(Path({directory!r})):
    print("locked", flush=True)
    time.sleep(600)
"""


def test_a_second_run_in_a_workdir_is_refused_and_a_dead_one_is_not(tmp_path):
    with child(HOLDER.format(directory=str(tmp_path))) as process:
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(ValueError) as refused:
            with lock.locked(tmp_path):
                pass
        line = str(refused.value)
        assert f"{tmp_path} is in use by process {process.pid} on host" in line
        assert f"remove {tmp_path / '.lock'}" in line and "\n" not in line
        process.kill()
    assert (tmp_path / ".lock").exists()
    with lock.locked(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
        with pytest.raises(ValueError, match=f"process {os.getpid()}"), lock.locked(tmp_path):
            pass
    assert not (tmp_path / ".lock").exists()


def test_a_lock_of_another_host_is_left_alone(tmp_path):
    (tmp_path / ".lock").write_text('{"pid": 7, "host": "elsewhere"}')
    for _ in range(2):
        with pytest.raises(ValueError, match="process 7 on host elsewhere.*if it has ended, rem"):
            with lock.locked(tmp_path):
                pass
    (tmp_path / ".lock").unlink()
    with lock.locked(tmp_path):
        pass


def test_of_many_runs_at_once_one_has_the_workdir(tmp_path):
    held, most, refused = 0, 0, 0
    guard, start = threading.Lock(), threading.Barrier(8)

    def try_it():
        nonlocal held, most, refused
        start.wait()
        for _ in range(30):
            try:
                with lock.locked(tmp_path):
                    with guard:
                        held += 1
                        most = max(most, held)
                    time.sleep(0.001)
                    with guard:
                        held -= 1
            except ValueError:
                with guard:
                    refused += 1

    threads = [threading.Thread(target=try_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1 and refused > 0


WAITING = """
import sys, time
from launch.parts import runtime
runtime.prepare_backend = lambda: None
sys.argv = ["run"]
def main(argv):
    print("begun", flush=True)
    {body}
runtime.run_main(main)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_outside_of_training_ends_with_75(number):
    with child(WAITING.format(body="time.sleep(600)")) as process:
        assert process.stdout.readline() == "begun\n"
        process.send_signal(number)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 75
    assert told == f"interrupted: {number.name}; the same command continues from here\n"


def test_a_second_sigint_ends_at_once_even_within_a_computation():
    body = "\n    ".join(
        ["import signal", "signal.signal(signal.SIGINT, lambda *_: None)",
         "time.sleep(0.1); [time.sleep(1) for _ in range(600)]"]
    )  # fmt: skip
    with child(WAITING.format(body=body)) as process:
        assert process.stdout.readline() == "begun\n"
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=10)
    assert process.returncode == 75 and "Traceback" not in told
    assert told.strip().startswith("ended at a second SIGINT")


def test_run_main_says_in_a_line_why_a_run_stopped():
    body = "from launch.parts.endings import Stopped; raise Stopped('sft stopped at step 3')"
    with child(WAITING.format(body=body)) as process:
        _, told = process.communicate(timeout=60)
    assert process.returncode == 1
    assert told.splitlines()[0] == "error: sft stopped at step 3" and "Traceback" not in told


def test_killed_fine_tunings_end_as_if_they_had_not_been(tmp_path):
    """A few kills; `python -m tests.launch.kill_and_resume` has fifty of every kind of job."""
    outcomes = kill_and_resume.run(["sft"], 3, int(time.time()), tmp_path)
    assert sum(outcomes["sft"].kills.values()) >= 3
    assert not outcomes["sft"].faults and outcomes["sft"].files > 0
