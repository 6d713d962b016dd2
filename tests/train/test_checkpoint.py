"""Checkpoints: what is saved comes back; the wrong one is refused; the right ones are kept."""

import math
import random
import shutil

import jax
import numpy as np
import pytest

from models.manifest import Damaged
from tests.train import damage_checkpoints
from tests.train.bigram import parts
from train.checkpoint import Checkpointer
from train.optimizer import make_optimizer
from train.state import TrainState


@pytest.fixture
def trained():
    """The state after two updates."""
    state, step, source = parts()
    for _ in range(2):
        state, _ = step(state, step.put(source.next()))
    return state


def abstract(state):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


def at_step(state, step):
    counter = jax.device_put(np.int32(step), state.step.sharding)
    return TrainState(counter, state.params, state.opt_state)


def test_what_is_saved_is_restored(tmp_path, trained):
    host_state = {"source": {"epoch": 1, "row": 5}, "guards": []}
    with Checkpointer(tmp_path, config={"lr": 0.1, "sizes": (1, 2)}) as checkpointer:
        checkpointer.save(trained, host_state, {"loss": 1.5, "bad": math.nan})
    with Checkpointer(tmp_path, config={"lr": 0.1, "sizes": (1, 2)}) as checkpointer:
        assert checkpointer.latest_step() == 2
        assert checkpointer.metrics(2) == {"loss": 1.5}
        state, restored = checkpointer.restore(abstract(trained))
    assert restored == host_state
    assert jax.tree.map(lambda x: x.sharding, state) == jax.tree.map(lambda x: x.sharding, trained)
    jax.tree.map(np.testing.assert_array_equal, state, trained)


def test_saving_does_not_wait_for_donated_buffers(tmp_path):
    """Steps taken while a save is under way do not reach into it."""
    state, step, source = parts()
    with Checkpointer(tmp_path) as checkpointer:
        before = jax.tree.map(np.array, state)
        checkpointer.save(state, {}, {})
        for _ in range(5):
            state, _ = step(state, step.put(source.next()))
        checkpointer.wait()
        restored, _ = checkpointer.restore(state)
    jax.tree.map(np.testing.assert_array_equal, restored, before)


def test_the_latest_and_the_best_are_kept(tmp_path, trained):
    values = [1.0, 5.0, None, math.nan, 4.0, 3.0]
    with Checkpointer(tmp_path, keep=2, best_metric="reward") as checkpointer:
        assert checkpointer.latest_step() is None and checkpointer.best_step() is None
        for step, value in enumerate(values, 1):
            metrics = {} if value is None else {"reward": value}
            checkpointer.save(at_step(trained, step), {}, metrics)
        checkpointer.wait()
        assert sorted(p.name for p in tmp_path.iterdir()) == ["2", "5", "6"]
        assert (checkpointer.best_step(), checkpointer.latest_step()) == (2, 6)
    # Also when the metrics come from disk.
    with Checkpointer(tmp_path, keep=1, best_metric="reward") as checkpointer:
        checkpointer.save(at_step(trained, 7), {}, {"reward": 4.5})
        checkpointer.wait()
        assert sorted(p.name for p in tmp_path.iterdir()) == ["2", "7"]
        state, _ = checkpointer.restore(trained, checkpointer.best_step())
        assert state.step == 2


def test_best_may_be_the_least(tmp_path, trained):
    with Checkpointer(tmp_path, keep=1, best_metric="loss", best_mode="min") as checkpointer:
        for step, loss in enumerate([2.0, 1.0, 3.0], 1):
            checkpointer.save(at_step(trained, step), {}, {"loss": loss})
        assert checkpointer.best_step() == 2


def test_half_a_checkpoint_is_none(tmp_path, trained):
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(trained, {}, {})
    # What a kill in the middle of the next save leaves behind.
    unfinished = tmp_path / "3.orbax-checkpoint-tmp"
    shutil.copytree(tmp_path / "2", unfinished)
    (unfinished / "commit_success.txt").unlink(missing_ok=True)
    with Checkpointer(tmp_path) as checkpointer:
        assert checkpointer.latest_step() == 2
        checkpointer.save(at_step(trained, 3), {}, {})
        checkpointer.wait()
        assert checkpointer.latest_step() == 3


def test_another_model_optimizer_or_config_is_refused(tmp_path, trained):
    with Checkpointer(tmp_path, config={"lr": 0.1, "data": {"seed": 3}}) as checkpointer:
        checkpointer.save(trained, {}, {})

    def refused(message, like=trained, config={"lr": 0.1, "data": {"seed": 3}}):
        with Checkpointer(tmp_path, config=config) as checkpointer:
            with pytest.raises(ValueError, match=message):
                checkpointer.restore(like)

    def resized(x):
        return jax.ShapeDtypeStruct((7, *x.shape[1:]), x.dtype, sharding=x.sharding)

    wider = trained.params | {"embedding": resized(trained.params["embedding"])}
    refused(
        r"checkpoint .*/2 is of another model: params/embedding is float32\[12, 6\] there and"
        r" float32\[7, 6\] in this run; use its config, or another directory",
        TrainState(trained.step, wider, trained.opt_state),
    )
    less = {"embedding": trained.params["embedding"]}
    refused(
        r"params/head/bias is float32\[12\] there and absent in",
        TrainState(trained.step, less, trained.opt_state),
    )
    sgd = make_optimizer({"name": "sgd"}, trained.params, 10).init(trained.params)
    refused(
        "is of another optimizer: opt_state/count is",
        TrainState(trained.step, trained.params, sgd),
    )
    changed = {"lr": 0.1, "data": {"seed": 4}}
    refused("is of a run with data.seed=3, this one has 4;", config=changed)
    refused("is of a run with lr=0.1, this one has absent;", config={"data": {"seed": 3}})


def test_bad_arguments(tmp_path, trained):
    with pytest.raises(ValueError, match="keep=0: it must be at least 1"):
        Checkpointer(tmp_path, keep=0)
    with pytest.raises(ValueError, match="best_mode='most' is unknown"):
        Checkpointer(tmp_path, best_mode="most")
    with Checkpointer(tmp_path) as checkpointer:
        with pytest.raises(FileNotFoundError, match="holds no checkpoint; it has steps"):
            checkpointer.restore(trained)
        with pytest.raises(FileNotFoundError, match="holds no checkpoint of step 9"):
            checkpointer.restore(trained, 9)


def test_damage_is_named_and_never_loaded(tmp_path):
    """Some of each kind; `python -m tests.train.damage_checkpoints` has them all."""
    counts = damage_checkpoints.damage_checkpoints(
        tmp_path, flips=6, seed=random.randrange(2**31), files_of_each=3
    )
    assert counts and not [end for _, end in counts if end.isupper()], counts
    assert counts["checkpoint emptied", "named, older one used"] == 1
    assert counts["folder deleted", "named, older one used"] == 3


def test_damaged_exports_are_refused(tmp_path):
    counts = damage_checkpoints.damage_exports(tmp_path, flips=6, seed=random.randrange(2**31))
    assert not [end for _, end in counts if end.isupper()], counts
    assert counts["export: bit flipped", "named, refused"] == 6


def test_where_all_checkpoints_are_damaged_nothing_is_trained_unasked(tmp_path, trained):
    with Checkpointer(tmp_path / "c") as checkpointer:
        for step in (1, 2):
            checkpointer.save(at_step(trained, step), {}, {})
    for step in (1, 2):
        (tmp_path / "c" / str(step) / "host" / "metadata").write_text("garbage")
    said = []
    with pytest.raises(Damaged, match="checkpoint 1 is not used.*No other checkpoint is left"):
        Checkpointer(tmp_path / "c", say=said.append)
    assert {p.name for p in (tmp_path / "c_damaged").iterdir()} == {"1", "2"}
    with Checkpointer(tmp_path / "c") as checkpointer:
        assert checkpointer.latest_step() is None


def test_a_checkpoint_that_is_asked_for_by_its_step_is_checked(tmp_path, trained):
    with Checkpointer(tmp_path) as checkpointer:
        for step in (1, 2):
            checkpointer.save(at_step(trained, step), {}, {})
        checkpointer.wait()
        (path,) = (tmp_path / "1" / "state" / "d").iterdir()
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(Damaged, match="is damaged: it differs from its checksum"):
            checkpointer.restore(abstract(trained), 1)
