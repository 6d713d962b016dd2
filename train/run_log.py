"""Brings the metrics of a run from the device to files, guards and the progress display."""

import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax

from train.metrics import MetricWriter
from train.progress import Progress

Iteration = tuple[int, list[dict[str, Any]], Mapping[str, float]]


class Guard(Protocol):
    """Watches the metrics of every iteration and may stop the run; see `rl.guards`."""

    def update(self, step: int, metrics: Mapping[str, float]) -> str | None:
        """Returns why the run should stop, or None."""

    def state_dict(self) -> dict[str, Any]:
        """Returns the guard's state, JSON-able, for checkpoints."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues where `state_dict` was taken."""


class RunLog:
    """Collects iterations in a window, and writes the window as one line of means.

    Metrics stay on the device until their window is closed and written. Until then nothing waits
    for the device.

    Attributes:
      alarm: why the run should stop, because of a guard or of updates that were not finite; or
        None.
    """

    def __init__(
        self,
        writer: MetricWriter | None,
        progress: Progress,
        guards: Sequence[Guard],
        max_skipped: int,
        num_steps: int,
        show: Sequence[str],
    ):
        self.alarm: str | None = None
        self._writer, self._progress, self._guards = writer, progress, guards
        self._max_skipped, self._num_steps, self._show = max_skipped, num_steps, show
        self._skipped_in_a_row = 0
        self._open: list[Iteration] = []
        self._closed: list[Iteration] = []
        self._restored = 0  # Iterations of the open window that an earlier process ran.
        self._waited, self._clock = 0.0, time.perf_counter()
        self._since_save: list[dict[str, float]] = []
        self._extra: dict[str, float] = {}

    def add(
        self, step: int, updates: list[dict[str, jax.Array]], source_metrics: Mapping[str, float]
    ) -> None:
        """Adds an iteration that ended after `step` updates to the open window."""
        self._open.append((step, updates, source_metrics))

    def close(self) -> None:
        """Closes the open window, which is written once the device has got that far."""
        self._closed, self._open = self._open, []

    def write_closed(self) -> None:
        """Writes the closed window, if there is one; waits for its last update."""
        self._write({})

    def write_all(self, extra: Mapping[str, float]) -> None:
        """Writes both windows, with the metrics of evaluations in the last line."""
        self._write({})
        self.close()
        self._write(extra)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time in this context as waiting for the source."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves the time in this context out of training and waiting."""
        start = time.perf_counter()
        yield
        self._clock += time.perf_counter() - start

    def state_dict(self) -> dict[str, Any]:
        """Returns the open window, JSON-able, for checkpoints.

        An interrupted run does not write the window that it is in, since the line of an undisturbed
        run covers the whole window. The run that resumes goes on with it.
        """
        fetched = jax.device_get([updates for _, updates, _ in self._open])
        return {
            "window": [
                [step, _plain(updates), dict(source_metrics)]
                for (step, _, source_metrics), updates in zip(self._open, fetched, strict=True)
            ],
            "skipped_in_a_row": self._skipped_in_a_row,
            "since_save": self._since_save,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues where `state_dict` was taken."""
        self._open = [(step, updates, source) for step, updates, source in state["window"]]
        self._restored = len(self._open)
        self._skipped_in_a_row = state["skipped_in_a_row"]
        self._since_save = list(state.get("since_save", ()))

    def metrics_since_save(self, reset: bool = True) -> dict[str, float]:
        """Returns means over the iterations since the last save, and evaluations at this step.

        Args:
          reset: whether the iterations of the next save begin here.
        """
        metrics = mean(self._since_save) | self._extra
        if reset:
            self._since_save = []
        return metrics

    def _write(self, extra: Mapping[str, float]) -> None:
        window, self._closed = self._closed, []
        self._extra = dict(extra)
        if not window:
            return
        fetched = jax.device_get([updates for _, updates, _ in window])
        now = time.perf_counter()
        seconds, self._clock = now - self._clock, now
        waited, self._waited = self._waited, 0.0
        restored, self._restored = self._restored, 0
        timed = max(1, len(window) - restored)

        iterations, tokens = [], 0.0
        for i, ((step, _, source_metrics), updates) in enumerate(zip(window, fetched, strict=True)):
            updates = _plain(updates)
            if i >= restored:
                tokens += sum(update.get("tokens", 0.0) for update in updates)
            self._count_skipped(step - len(updates), updates)
            taken = [update for update in updates if not update["skipped"]]
            metrics = mean(taken or updates) | dict(source_metrics)
            metrics |= {name: x for name, x in updates[0].items() if name.startswith("first_")}
            metrics["skipped"] = 1 - len(taken) / len(updates)
            iterations.append(metrics)
            for guard in self._guards if taken else ():
                self.alarm = self.alarm or guard.update(step, metrics)
        self._since_save += iterations

        step = window[-1][0]
        line = mean(iterations) | {
            "seconds/source": waited / timed,
            "seconds/train": (seconds - waited) / timed,
        }
        if tokens:
            line["tokens_per_second/train"] = tokens / (seconds - waited)
        line |= extra
        if self._writer is not None:
            self._writer.write(step, line)
        self._progress.update(step, {name: line[name] for name in self._show if name in line})

    def _count_skipped(self, step: int, updates: Sequence[Mapping[str, float]]) -> None:
        for update in updates:
            step += 1
            self._skipped_in_a_row = self._skipped_in_a_row + 1 if update["skipped"] else 0
            # A run must not end with weights whose loss is known not to be finite.
            last = step == self._num_steps and self._skipped_in_a_row > 0
            if (last or self._skipped_in_a_row >= self._max_skipped) and self.alarm is None:
                count = self._skipped_in_a_row
                which = f"{count} updates in a row, the last" if count > 1 else "the last update,"
                self.alarm = (
                    f"loss or gradient was not finite in {which} at step {step}"
                    f" (loss {update['loss']}, gradient norm {update['grad_norm']}); what is not"
                    " finite is skipped: lower the learning rate, or look for bad weights or data"
                )


def _plain(updates: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    return [{name: float(x) for name, x in update.items()} for update in updates]


def mean(records: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns the mean of each metric's finite values; the largest for metrics named `*_max`."""
    columns: dict[str, list[float]] = {}
    for record in records:
        for name, value in record.items():
            columns.setdefault(name, []).append(value)
    result = {}
    for name, values in columns.items():
        finite = [value for value in values if math.isfinite(value)]
        if not finite:
            result[name] = math.nan
        else:
            result[name] = max(finite) if name.endswith("_max") else sum(finite) / len(finite)
    return result
