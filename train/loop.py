"""Runs the training loop of every objective: resume, draw, step, log, evaluate, save, stop."""

import contextlib
import dataclasses
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax

from models import processes
from models.host.interruption import Interrupted
from models.manifest import Damaged
from train.checkpoint import Checkpointer
from train.metrics import MetricWriter
from train.preemption import Stopper
from train.progress import Progress
from train.run_log import Guard, RunLog
from train.source import Source
from train.state import TrainState
from train.step import TrainStep

# A source that does not look at the state works so many iterations ahead.
PREFETCH = 2


@dataclasses.dataclass(frozen=True)
class Hook:
    """An action every so many steps and at the last step, such as an evaluation.

    Attributes:
      every: steps between calls.
      fn: `(step, state) -> metrics or None`. The metrics are logged and count for the best
        checkpoint. Do not keep the state: the next update reuses its buffers.
    """

    every: int
    fn: Callable[[int, TrainState], Mapping[str, float] | None]


@dataclasses.dataclass(frozen=True)
class Result:
    """How a run ended.

    Attributes:
      state: the last state.
      step: updates taken.
      stop_reason: why the run is not complete; None if it is.
      interrupted: whether a signal ended the run; the same command continues it.
      good_step: step of the checkpoint to use if the run stopped itself: the best, or else the
        latest; None if there is none.
    """

    state: TrainState
    step: int
    stop_reason: str | None
    interrupted: bool
    good_step: int | None = None


def run(
    state: TrainState,
    step_fn: TrainStep,
    source: Source,
    *,
    num_steps: int,
    title: str = "train",
    writer: MetricWriter | None = None,
    checkpointer: Checkpointer | None = None,
    checkpoint_every: int | None = None,
    checkpoint_every_minutes: float | None = None,
    hooks: Sequence[Hook] = (),
    guards: Sequence[Guard] = (),
    log_every: int = 10,
    show: Sequence[str] = ("loss",),
    curves: Sequence[str] = (),
    max_skipped: int = 10,
    max_batch_shapes: int = 1,
) -> Result:
    """Trains until `num_steps` updates have been taken; resumes from a checkpoint if there is one.

    One iteration draws from the source and takes an update with each batch drawn. A run that is
    killed and started again has the same weights, logs and decisions as one that was not. A signal
    stops it before the next iteration, in the middle of a rollout or of an evaluation; it saves the
    state, and the run that resumes goes on with that rollout or evaluation. The loop
    waits for the device only at checkpoints, at hooks and for a source that looks at the state;
    otherwise it fetches metrics one iteration late.

    Args:
      state: the first state, whose buffers the loop reuses. If there is a checkpoint, only the
        shapes and shardings matter.
      step_fn: the train step.
      source: gives the batches.
      num_steps: updates of the whole run.
      title: the name of the run in the progress display.
      writer: writes metrics to files; None writes none.
      checkpointer: saves and restores; None does neither.
      checkpoint_every: steps between checkpoints; the last step is saved too.
      checkpoint_every_minutes: also saves at the first line of metrics (`log_every`) so many
        minutes after the last checkpoint.
      hooks: evaluations and the like.
      guards: may stop the run.
      log_every: steps between lines of metrics. A line holds means over the iterations since the
        last line (maxima for metrics named `*_max`; for those named `first_*`, means over each
        iteration's first update), `seconds/source` and `seconds/train` of an iteration, and, if
        there is a metric `tokens`, `tokens_per_second/train`.
      show: metrics to show with the progress.
      curves: those of them that are drawn as sparklines.
      max_skipped: stop after so many updates in a row that were not finite. A run whose last
        update was not finite has stopped too.
      max_batch_shapes: shapes of batches that the source may return; each costs a compilation.

    Returns:
      A `Result`. If it has a `stop_reason`, its state is no result of the training; the checkpoint
      of `good_step` may be one.

    Raises:
      ValueError: the checkpoint does not fit, batches have too many shapes, or an interval is not
        positive.
      RuntimeError: the step was compiled again for a known shape.
    """
    intervals = {"log_every": log_every, "checkpoint_every": checkpoint_every}
    for name, value in intervals.items():
        if value is not None and value < 1:
            raise ValueError(f"{name}={value}: it must be at least 1")
    if checkpoint_every_minutes is not None and checkpoint_every_minutes <= 0:
        raise ValueError(f"checkpoint_every_minutes={checkpoint_every_minutes}: must be above 0")
    logged: dict[str, Any] | None = None
    # What the hooks of a step have returned, where the run was interrupted in the midst of them.
    begun: _Hooked | None = None
    if checkpointer is not None and checkpointer.latest_step() is not None:
        state, logged, begun = _resume(checkpointer, state, source, guards)
    step = saved_step = int(state.step)
    source_state, reason, interrupted = source.state_dict(), None, False
    if writer is not None:
        writer.resume(step, line_written=begun is None)

    with contextlib.ExitStack() as stack:
        # The source and the hooks need the mesh; the step sets it by itself.
        stack.enter_context(jax.set_mesh(step_fn.mesh))
        progress = stack.enter_context(contextlib.closing(Progress(title, num_steps, step, curves)))
        stopper = stack.enter_context(Stopper(progress.say))
        feed = stack.enter_context(contextlib.closing(_Feed(source, step_fn.put)))
        log = RunLog(writer, progress, guards, max_skipped, num_steps, show)
        if logged is not None:
            log.load_state_dict(logged)
        shapes = _ShapeCheck(step_fn, max_batch_shapes)

        saved_at = time.monotonic()

        def save():
            nonlocal saved_step, saved_at
            if writer is not None:
                writer.flush()  # A run that resumes from this checkpoint needs the lines up to it.
            # The run that goes on counts on from here for its next checkpoint.
            metrics = log.metrics_since_save(reset=not interrupted)
            host_state = {
                "source": source_state,
                "guards": [g.state_dict() for g in guards],
                "log": log.state_dict(),
                "hooks": None if begun is None else dataclasses.asdict(begun),
            }
            # A checkpoint of this step may be there from before the rest of its hooks.
            checkpointer.save(state, host_state, metrics, replace=True)
            saved_step, saved_at = step, time.monotonic()

        def end_iteration(before: int) -> None:
            """Does what is due after the updates from step `before` to `step`."""
            nonlocal begun

            def crosses(every: int) -> bool:
                return step // every > before // every or step == num_steps

            due = [hook for hook in hooks if crosses(hook.every)]
            saves = checkpointer is not None and crosses(checkpoint_every or num_steps)
            if checkpointer is not None and checkpoint_every_minutes and crosses(log_every):
                late = time.monotonic() - saved_at >= 60 * checkpoint_every_minutes
                saves |= processes.from_main(late)  # The clocks of the processes differ.
            if due or saves or source.depends_on_state:
                jax.block_until_ready(state.step)
            if due or saves:
                begun = begun or _Hooked(before, [])
                with log.paused():
                    for hook in due[len(begun.results) :]:
                        results = hook.fn(step, state) or {}
                        begun.results.append({name: float(x) for name, x in results.items()})
                results, begun = begun.results, None
                log.write_all({name: x for result in results for name, x in result.items()})
                if saves and log.alarm is None:
                    with log.paused():
                        save()
            elif crosses(log_every):
                log.close()
                if source.depends_on_state:
                    log.write_closed()

        while step < num_steps or begun is not None:
            if log.alarm is not None:
                break
            if interrupted := stopper.stops_here():
                reason = f"{stopper.signal_name} after step {step}"
                break
            try:
                if begun is not None:  # Another run was interrupted here.
                    end_iteration(begun.before)
                    continue
                with log.waiting():
                    batches, source_state, source_metrics, notes = feed.next(state)
            except StopIteration:
                reason = f"the data ended after step {step} of {num_steps}"
                break
            except Interrupted:  # In the middle of a rollout, or of an evaluation.
                interrupted, reason = True, f"{stopper.signal_name} after step {step}"
                break
            for note in notes:
                progress.say(f"{title}: step {step}: {note}")
            before, updates = step, []
            for batch in batches[: num_steps - step]:
                state, metrics = step_fn(state, batch)
                updates.append(metrics)
                step += 1
                shapes.check(step, batch)
            log.write_closed()
            log.add(step, updates, source_metrics)
            try:
                end_iteration(before)
            except Interrupted:  # In the middle of an evaluation.
                interrupted, reason = True, f"{stopper.signal_name} after step {step}"
                break
        if reason is None and stopper.stops_here():
            # The signal came during the last step. Whatever follows the training may take long.
            interrupted, reason = True, f"{stopper.signal_name} after step {step}"
        if interrupted and checkpointer is not None:
            log.write_closed()  # The checkpoint keeps the open window.
        else:
            log.write_all({})
        if writer is not None:
            writer.flush()
        if checkpointer is not None:
            if log.alarm is None and (step > saved_step or begun is not None):
                save()
            checkpointer.wait()
        reason, good_step = log.alarm or reason, None
        if reason is not None:
            progress.say(f"{title}: stopped: {reason}")
            if checkpointer is not None:
                good_step = checkpointer.best_step()
                if good_step is None:
                    good_step = checkpointer.latest_step()
    return Result(state, step, reason, interrupted and log.alarm is None, good_step)


def _resume(
    checkpointer: Checkpointer, state: TrainState, source: Source, guards: Sequence[Guard]
) -> tuple[TrainState, dict[str, Any] | None, "_Hooked | None"]:
    """Restores everything from the newest good checkpoint.

    Returns:
      The state; that of the log; and what the hooks of its step have returned, if the run was
      interrupted in the midst of them.
    """
    while True:
        restored, host_state = checkpointer.restore(state)
        try:
            source.load_state_dict(host_state["source"])
        except Damaged as error:  # A file that the source keeps beside the checkpoint.
            checkpointer.set_aside(int(restored.step), str(error))
            continue
        for guard, saved in zip(guards, host_state["guards"], strict=True):
            guard.load_state_dict(saved)
        begun = host_state.get("hooks")
        return restored, host_state.get("log"), None if begun is None else _Hooked(**begun)


@dataclasses.dataclass
class _Hooked:
    """Hooks of an iteration whose updates began after step `before`: results of the first ones."""

    before: int
    results: list[dict[str, float]]


class _Feed:
    """Draws from a source; works ahead in a thread if the source does not look at the state."""

    def __init__(self, source: Source, put: Callable[[Any], Any]):
        self._source, self._put = source, put
        self._pool = None if source.depends_on_state else ThreadPoolExecutor(1, "source")
        self._ahead = deque(self._submit() for _ in range(PREFETCH if self._pool else 0))

    def next(
        self, state: TrainState
    ) -> tuple[list[Any], dict[str, Any], Mapping[str, float], list[str]]:
        """Returns batches on the devices, and the source's state, metrics and notes after them."""
        if self._pool is None:
            return self._draw(state)
        self._ahead.append(self._submit())
        return self._ahead.popleft().result()

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _submit(self):
        return self._pool.submit(self._draw, None)

    def _draw(self, state):
        drawn = self._source.next(state)
        batches = [self._put(batch) for batch in (drawn if isinstance(drawn, list) else [drawn])]
        source = self._source
        return batches, source.state_dict(), source.metrics(), source.notes()


class _ShapeCheck:
    """Notices compilations in the steady state, which cost more than any step."""

    def __init__(self, step_fn: TrainStep, max_shapes: int):
        self._step_fn, self._max_shapes = step_fn, max_shapes
        self._shapes: set[Any] = set()
        self._compiles_before = step_fn.num_compiles

    def check(self, step: int, batch: Mapping[str, jax.Array]) -> None:
        self._shapes.add(tuple((name, x.shape) for name, x in batch.items()))
        if len(self._shapes) > self._max_shapes:
            raise ValueError(
                f"step {step} got a batch of the new shape {batch['tokens'].shape} and was compiled"
                f" again: pad batches to one shape, or allow more than {self._max_shapes} by"
                " max_batch_shapes"
            )
        if self._step_fn.num_compiles - self._compiles_before > len(self._shapes):
            raise RuntimeError(
                f"step {step} was compiled again for a batch shape that was compiled before: the"
                " shardings or dtypes of the state or the batch have changed"
            )
