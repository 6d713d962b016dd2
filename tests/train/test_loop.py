"""The loop: what is drawn, logged, saved and stopped, and that a resumed run is the same run."""

import json
import math
import os
import signal
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.host.interruption import STOPS, Interrupted
from models.manifest import Damaged
from tests.train.bigram import Bigram, parts
from train import loop, progress
from train.checkpoint import Checkpointer
from train.loop import Hook, run
from train.metrics import MetricWriter, read_metrics
from train.objectives import sft
from train.source import Source

TIMES = ("seconds/source", "seconds/train", "tokens_per_second/train")


class Wrapped(Source):
    """A packed source with changes: `edit(batch, number)` of each batch drawn."""

    def __init__(self, inner, edit, depends_on_state=False):
        self._inner, self._edit, self.drawn = inner, edit, 0
        self.depends_on_state, self.states = depends_on_state, []

    def next(self, state):
        self.states.append(None if state is None else int(state.step))
        self.drawn += 1
        return self._edit(self._inner.next(), self.drawn)

    def metrics(self):
        return {"drawn": float(self.drawn), "drawn_max": float(self.drawn)}

    def state_dict(self):
        return self._inner.state_dict() | {"drawn": self.drawn}

    def load_state_dict(self, state):
        self.drawn = state["drawn"]
        self._inner.load_state_dict(state)


class Recorder:
    """A guard that remembers and, at one step, objects."""

    def __init__(self, objects_at=None):
        self.seen, self._objects_at = [], objects_at

    def update(self, step, metrics):
        self.seen.append((step, metrics["loss"]))
        return f"step {step} looks bad" if step == self._objects_at else None

    def state_dict(self):
        return {"seen": [list(each) for each in self.seen]}

    def load_state_dict(self, state):
        self.seen = [tuple(each) for each in state["seen"]]


def timeless(lines):
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


def weights(state):
    return jax.tree.map(np.array, (state.params, state.opt_state))


def test_metrics_are_means_of_the_steps_since_the_last_line(tmp_path):
    state, step, source = parts()
    losses = []
    for _ in range(7):
        state, metrics = step(state, step.put(source.next()))
        losses.append(float(metrics["loss"]))
    state, step, source = parts()
    source = Wrapped(source, lambda batch, _: batch)
    result = run(
        state, step, source, num_steps=7, log_every=3, writer=MetricWriter(tmp_path)
    )  # fmt: skip
    assert (result.step, result.stop_reason, result.interrupted) == (7, None, False)
    lines = read_metrics(tmp_path)
    assert [line["step"] for line in lines] == [3, 6, 7]
    expected = [np.mean(losses[:3]), np.mean(losses[3:6]), losses[6]]
    np.testing.assert_allclose([line["loss"] for line in lines], expected, rtol=1e-6)
    assert [line["drawn"] for line in lines] == [2.0, 5.0, 7.0]
    assert [line["drawn_max"] for line in lines] == [3.0, 6.0, 7.0]
    assert all(line[name] >= 0 for line in lines for name in TIMES)
    assert any(path.name.startswith("events.out") for path in (tmp_path / "tensorboard").iterdir())
    # It does not look at the state, so none was shown to it, and it worked ahead.
    assert set(source.states) == {None}


def test_several_batches_an_iteration(tmp_path):
    state, step, source = parts()
    source = Wrapped(source, lambda batch, _: [batch, batch, batch], depends_on_state=True)
    guard = Recorder()
    result = run(
        state, step, source, num_steps=8, log_every=1, writer=MetricWriter(tmp_path), guards=[guard]
    )
    # Three updates a draw, each draw with the state as it then is, and none beyond the last step.
    assert source.states == [0, 3, 6] and result.step == 8 == int(result.state.step)
    assert [line["step"] for line in read_metrics(tmp_path)] == [3, 6, 8]
    assert [step for step, _ in guard.seen] == [3, 6, 8]


@pytest.mark.parametrize("first", [True, False])
def test_a_signal_during_an_evaluation_saves_and_that_evaluation_is_made_up_for(tmp_path, first):
    """Each evaluation is logged once, and the best checkpoint is that of an undisturbed run."""

    def go(name, interrupt_at=None):
        state, step, source = parts()
        writer, ran = MetricWriter(tmp_path / name), []

        def sampled(step, state):
            ran.append(("sampled", step))
            writer.write_samples(step, [{"text": str(step)}])
            return {"sampled": float(step)}

        def evaluate(step, state):
            if step == interrupt_at:
                os.kill(os.getpid(), signal.SIGTERM)
                if STOPS.here():
                    raise Interrupted("SIGTERM")
            ran.append(("evaluated", step))
            return {"evaluation": float(jnp.abs(state.params["embedding"]).sum())}

        hooks = [Hook(2, evaluate), Hook(2, sampled)]
        with Checkpointer(tmp_path / name / "c", best_metric="evaluation", keep=9) as checkpointer:
            result = run(
                state, step, source, num_steps=7, log_every=3, writer=writer,
                checkpointer=checkpointer, checkpoint_every=4,
                hooks=hooks if first else hooks[::-1],
            )  # fmt: skip
            metrics = {
                step: checkpointer.metrics(step) for step in checkpointer._manager.all_steps()
            }
        return result, ran, metrics

    whole, all_ran, saved = go("whole")
    for at in (4, 6):  # With and without a checkpoint due.
        part, before, _ = go(str(at), interrupt_at=at)
        assert part.interrupted and part.stop_reason == f"SIGTERM after step {at}"
        rest, after, metrics = go(str(at))
        assert before + after == all_ran and not rest.interrupted
        assert {step: metrics[step] for step in saved} == saved
        jax.tree.map(np.testing.assert_array_equal, weights(rest.state), weights(whole.state))
        assert timeless(read_metrics(tmp_path / str(at))) == timeless(
            read_metrics(tmp_path / "whole")
        )
        name = "samples.jsonl"
        assert (tmp_path / str(at) / name).read_text() == (tmp_path / "whole" / name).read_text()


def test_checkpoints_by_time_come_beside_those_by_step(tmp_path, monkeypatch):
    state, step, source = parts()
    clock = [0.0]

    def later(batch, drawn):
        clock[0] += 40.0
        return batch

    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    with Checkpointer(tmp_path, keep=20) as checkpointer:
        run(
            state, step, Wrapped(source, later, depends_on_state=True), num_steps=12, log_every=2,
            checkpointer=checkpointer, checkpoint_every=5, checkpoint_every_minutes=2.0,
        )  # fmt: skip
        # Step 4 is the first line of metrics two minutes after the start, 5 and 10 are due by
        # steps, and 8 by time, three steps after 5.
        assert checkpointer._manager.all_steps() == [4, 5, 8, 10, 12]


@pytest.mark.parametrize("depends_on_state", [False, True])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_same_run_goes_on(tmp_path, depends_on_state, number):
    def go(name, interrupt_at=None):
        state, step, source = parts()
        hits = []

        def edit(batch, drawn):
            return [batch, dict(batch, tokens=batch["tokens"][::-1].copy())]

        def hook(step, state):
            hits.append(step)
            if step == interrupt_at:
                os.kill(os.getpid(), number)
            return {"evaluation": float(jnp.abs(state.params["embedding"]).sum())}

        guard = Recorder()
        with Checkpointer(tmp_path / name / "checkpoints", best_metric="loss") as checkpointer:
            result = run(
                state, step, Wrapped(source, edit, depends_on_state),
                num_steps=20, log_every=4, checkpointer=checkpointer, checkpoint_every=6,
                writer=MetricWriter(tmp_path / name), hooks=[Hook(2, hook)], guards=[guard],
            )  # fmt: skip
            steps = checkpointer.latest_step(), checkpointer.best_step()
        return result, guard.seen, steps, hits

    handler = signal.getsignal(number)
    whole, seen, steps, hits = go("whole")
    assert hits == list(range(2, 21, 2)) and steps[0] == 20
    first, _, saved, _ = go("halves", interrupt_at=8)
    assert first.interrupted and first.step == 8 == saved[0]
    assert first.stop_reason == f"{number.name} after step 8"
    second, seen_again, steps_again, hits = go("halves")
    assert hits == list(range(10, 21, 2)) and not second.interrupted
    assert steps_again == steps and seen_again == seen
    jax.tree.map(np.testing.assert_array_equal, weights(second.state), weights(whole.state))
    lines = [timeless(read_metrics(tmp_path / name)) for name in ("whole", "halves")]
    assert lines[0] == lines[1] and len(lines[0]) == 10
    assert signal.getsignal(number) is handler


@pytest.mark.parametrize("depends_on_state", [False, True])
@pytest.mark.parametrize("draw", [2, 4, 5, 9])
def test_a_signal_within_a_window_of_the_log_does_not_cut_it(tmp_path, draw, depends_on_state):
    def go(name, signal_at=None):
        state, step, source = parts()
        draws = []

        def edit(batch, drawn):
            draws.append(drawn)
            if len(draws) == signal_at:
                os.kill(os.getpid(), signal.SIGTERM)
            return [batch, dict(batch, tokens=batch["tokens"][::-1].copy())]

        guard = Recorder()
        with Checkpointer(tmp_path / name / "checkpoints") as checkpointer:
            result = run(
                state, step, Wrapped(source, edit, depends_on_state),
                num_steps=24, log_every=8, checkpointer=checkpointer, checkpoint_every=24,
                writer=MetricWriter(tmp_path / name), guards=[guard],
            )  # fmt: skip
        return result, guard.seen

    whole, seen = go("whole")
    first, seen_first = go("halves", signal_at=draw)
    assert first.interrupted and first.step < 24
    second, seen_again = go("halves")
    # The guard sees each iteration once, when its window is written.
    assert seen_again == seen and seen[: len(seen_first)] == seen_first
    jax.tree.map(np.testing.assert_array_equal, weights(second.state), weights(whole.state))
    lines = [timeless(read_metrics(tmp_path / name)) for name in ("whole", "halves")]
    assert lines[0] == lines[1] and [line["step"] for line in lines[0]] == [8, 16, 24]


def test_what_was_logged_after_the_checkpoint_is_logged_once(tmp_path):
    """As after a kill: lines beyond the checkpoint, the last of them cut short."""

    def go():
        state, step, source = parts()
        writer = MetricWriter(tmp_path)

        def hook(step, state):
            writer.write_samples(step, [{"text": f"ä {step}"}])

        with Checkpointer(tmp_path / "checkpoints") as checkpointer:
            run(
                state, step, source, num_steps=10, log_every=1, checkpointer=checkpointer,
                checkpoint_every=5, writer=writer, hooks=[Hook(1, hook)],
            )  # fmt: skip

    go()
    (tmp_path / "checkpoints" / "10").rename(tmp_path / "elsewhere")
    whole = timeless(read_metrics(tmp_path))
    for name in ("metrics.jsonl", "samples.jsonl"):
        path = tmp_path / name
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(lines[:8]) + lines[8][:20])
    go()
    assert timeless(read_metrics(tmp_path)) == whole
    samples = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert samples == [{"step": n, "text": f"ä {n}"} for n in range(1, 11)]


def test_a_complete_run_is_left_alone(tmp_path):
    for expected in (6, 0):
        state, step, source = parts()
        source, hits = Wrapped(source, lambda batch, _: batch, depends_on_state=True), []
        with Checkpointer(tmp_path) as checkpointer:
            result = run(
                state, step, source, num_steps=6, checkpointer=checkpointer,
                hooks=[Hook(2, lambda step, state: hits.append(step))],
            )  # fmt: skip
        assert result.step == 6 and len(source.states) == expected and len(hits) == expected // 2


@pytest.mark.parametrize("depends_on_state", [False, True])
def test_a_guard_stops_the_run_and_the_best_checkpoint_stays(tmp_path, depends_on_state):
    state, step, source = parts()
    source = Wrapped(source, lambda batch, _: batch, depends_on_state)
    with Checkpointer(tmp_path, keep=1, best_metric="quality") as checkpointer:
        result = run(
            state, step, source, num_steps=20, log_every=1, checkpointer=checkpointer,
            checkpoint_every=2, guards=[Recorder(objects_at=9)],
            hooks=[Hook(2, lambda step, state: {"quality": -abs(step - 4.0)})],
        )  # fmt: skip
        assert (result.stop_reason, result.good_step) == ("step 9 looks bad", 4)
        # At once where the source has to wait anyway, otherwise one step late.
        assert result.step == (9 if depends_on_state else 10)
        assert not result.interrupted and checkpointer.best_step() == 4
        # The state that the guard objects to is not saved.
        assert checkpointer.latest_step() == 8


def test_metrics_of_a_checkpoint_are_those_since_the_last(tmp_path):
    state, step, source = parts()
    source = Wrapped(source, lambda batch, _: batch)
    with Checkpointer(tmp_path, keep=9) as checkpointer:
        run(
            state, step, source, num_steps=8, log_every=3,
            checkpointer=checkpointer, checkpoint_every=4,
        )  # fmt: skip
        assert [checkpointer.metrics(n)["drawn"] for n in (4, 8)] == [2.5, 6.5]


def broken_when(bad):
    """A loss that is infinite for the draws that are `bad`, whose tokens are all 11."""

    def loss_fn(params, batch):
        loss, metrics = sft.make_loss(Bigram())(params, batch)
        return jnp.where(jnp.any(batch["tokens"] == 11), jnp.inf, loss), metrics

    def edit(batch, drawn):
        tokens = batch["tokens"] % 11
        return dict(batch, tokens=np.full_like(tokens, 11) if bad(drawn) else tokens)

    return loss_fn, edit


def test_updates_that_are_not_finite_stop_the_run_only_in_a_row(tmp_path):
    loss_fn, edit = broken_when(lambda drawn: drawn in (2, 3, 5) or drawn > 7)
    state, step, source = parts(loss_fn=loss_fn)
    guard = Recorder()
    result = run(
        state, step, Wrapped(source, edit), num_steps=20, log_every=2, max_skipped=3,
        writer=MetricWriter(tmp_path), guards=[guard],
    )  # fmt: skip
    assert result.stop_reason.startswith(
        "loss or gradient was not finite in 3 updates in a row, the last at step 10 (loss inf,"
    )
    lines = {line["step"]: line for line in read_metrics(tmp_path)}
    assert [lines[n]["skipped"] for n in (2, 4, 6, 8, 10)] == [0.5, 0.5, 0.5, 0.5, 1.0]
    assert math.isfinite(lines[2]["loss"]) and lines[10]["loss"] is None
    # A skipped update tells a guard nothing.
    assert [step for step, _ in guard.seen] == [1, 4, 6, 7]


def test_data_that_ends_early(tmp_path):
    state, step, source = parts()

    def edit(batch, drawn):
        if drawn > 5:
            raise StopIteration
        return batch

    with Checkpointer(tmp_path) as checkpointer:
        result = run(
            state, step, Wrapped(source, edit), num_steps=20, checkpointer=checkpointer
        )  # fmt: skip
        assert result.stop_reason == "the data ended after step 5 of 20"
        assert result.step == checkpointer.latest_step() == 5


def test_an_error_of_the_source_is_raised():
    state, step, source = parts()

    def edit(batch, drawn):
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        run(state, step, Wrapped(source, edit), num_steps=20)


def test_new_batch_shapes_are_noticed():
    def growing(batch, drawn):
        columns = 16 - (drawn > 3)
        return {name: x[:, :columns] for name, x in batch.items()}

    state, step, source = parts()
    with pytest.raises(ValueError, match=r"step 4 got a batch of the new shape \(4, 15\)"):
        run(state, step, Wrapped(source, growing), num_steps=20)
    state, step, source = parts()
    assert run(state, step, Wrapped(source, growing), num_steps=6, max_batch_shapes=2).step == 6


def test_a_recompilation_is_noticed():
    def changing(batch, drawn):
        return dict(batch, tokens=batch["tokens"].astype(np.int16 if drawn > 3 else np.int32))

    state, step, source = parts(num_steps=21)
    with pytest.raises(RuntimeError, match="step 4 was compiled again"):
        run(state, step, Wrapped(source, changing), num_steps=20)


@pytest.mark.parametrize("name", ["log_every", "checkpoint_every"])
def test_bad_intervals(name):
    state, step, source = parts()
    with pytest.raises(ValueError, match=f"{name}=0: it must be at least 1"):
        run(state, step, source, num_steps=6, **{name: 0})


def test_plain_progress_lines(capsys, monkeypatch):
    state, step, source = parts()
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    run(state, step, source, num_steps=6, log_every=2, title="tiny")
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == [f"tiny: step {n}/6" for n in (2, 4, 6)]
    assert "left  loss " in lines[0] and "0:00 left" in lines[-1]


def test_a_signal_with_the_last_step_is_not_forgotten(tmp_path):
    """What follows the training, such as an evaluation, may take long."""
    for expected in (True, False):
        state, step, source = parts()

        def hook(step, state, kill=expected):
            if kill and step == 6:
                os.kill(os.getpid(), signal.SIGTERM)

        with Checkpointer(tmp_path) as checkpointer:
            result = run(
                state, step, source, num_steps=6, checkpointer=checkpointer, hooks=[Hook(2, hook)]
            )
        assert result.step == 6 and result.interrupted == expected
        assert result.stop_reason == ("SIGTERM after step 6" if expected else None)


@pytest.mark.parametrize("num_steps, bad", [(6, range(6, 99)), (3, range(1, 99))])
def test_a_run_whose_last_update_was_not_finite_has_stopped(tmp_path, num_steps, bad):
    """Also one of fewer updates than are allowed to be skipped."""
    loss_fn, edit = broken_when(lambda drawn: drawn in bad)
    state, step, source = parts(loss_fn=loss_fn)
    with Checkpointer(tmp_path) as checkpointer:
        result = run(
            state, step, Wrapped(source, edit), num_steps=num_steps, checkpointer=checkpointer,
            checkpoint_every=2,
        )  # fmt: skip
        assert f"at step {num_steps} (loss inf" in result.stop_reason
        assert result.good_step == checkpointer.latest_step() != num_steps


@pytest.mark.parametrize(
    "damage",
    [
        lambda lines: [*lines[:-1], lines[-1] + b"\0" * 100],
        lambda lines: [*lines[:-1], lines[-1][:20]],
        lambda lines: [lines[0], b'{"step": broken\n', *lines[1:]],
        lambda lines: [lines[0], b"\xff\xfe\n", b"[3]\n", b'{"loss": 1}\n', *lines[1:]],
    ],
)
def test_a_damaged_log_is_repaired_and_named(tmp_path, capsys, damage):
    def go(num_steps):
        state, step, source = parts()
        with Checkpointer(tmp_path / "checkpoints") as checkpointer:
            run(
                state, step, source, num_steps=num_steps, log_every=1, checkpointer=checkpointer,
                checkpoint_every=3, writer=MetricWriter(tmp_path),
            )  # fmt: skip

    go(6)
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"".join(damage(path.read_bytes().splitlines(keepends=True))))
    go(9)
    assert f"{path}:" in capsys.readouterr().err
    steps = [line["step"] for line in read_metrics(tmp_path)]
    # The last line may have been the damaged one; no other is lost.
    assert steps in ([1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 2, 3, 4, 5, 7, 8, 9])


class WithCompanion(Wrapped):
    """A source that keeps something beside each checkpoint, as a reference policy is kept."""

    damaged_at = None

    def load_state_dict(self, state):
        if state["drawn"] == self.damaged_at:
            raise Damaged("its companion is gone")
        super().load_state_dict(state)


def test_a_checkpoint_without_its_companion_is_passed_over(tmp_path):
    results = []
    for num_steps, damaged_at in ((4, None), (6, 4)):
        state, step, source = parts()
        source = WithCompanion(source, lambda batch, _: batch, depends_on_state=True)
        source.damaged_at, said = damaged_at, []
        with Checkpointer(tmp_path / "c", say=said.append) as checkpointer:
            results.append(
                run(state, step, source, num_steps=num_steps, checkpointer=checkpointer,
                    checkpoint_every=2)
            )  # fmt: skip
    assert source.states[0] == 2  # From the older one.
    assert "checkpoint 4 is not used: its companion is gone. Checkpoint 2 is used" in said[0]
    state, step, source = parts()
    whole = run(state, step, source, num_steps=6)
    jax.tree.map(np.testing.assert_array_equal, weights(results[1].state), weights(whole.state))
