"""Shows the progress of a run and its remaining time: one live line on a terminal, else lines."""

import time
from collections.abc import Mapping, Sequence

import jax
import rich.console
import rich.progress

from train.sparkline import blocks_for, sparkline

# Plain lines go to logs, so they come no more often than this.
SECONDS_BETWEEN_LINES = 10.0
# Characters of a sparkline beside others, at most; and what else the live line needs.
MOST_WIDTH, OTHER_WIDTH = 20, 50


class Progress:
    """Shows steps done, time left and some metrics; only process 0 of a job shows anything.

    Metrics named as curves are shown as sparklines over all steps since the start, with their
    latest value.
    """

    def __init__(
        self,
        title: str,
        num_steps: int,
        step: int,
        curves: Sequence[str] = (),
        console: rich.console.Console | None = None,
    ):
        """Starts the display.

        Args:
          title: the name of the run.
          num_steps: updates of the whole run.
          step: updates taken before, by the run that this one resumes.
          curves: metrics to draw as sparklines.
          console: where to show it; None is standard error.
        """
        self._title, self._num_steps, self._first = title, num_steps, step
        self._start, self._printed = time.monotonic(), -float("inf")
        self._curves: dict[str, list[float]] = {name: [] for name in curves}
        self._console = console or rich.console.Console(
            stderr=True, quiet=jax.process_index() != 0, highlight=False, soft_wrap=True
        )
        self._blocks = blocks_for(self._console.encoding)
        self._bar = None
        if self._console.is_terminal:
            columns = [
                rich.progress.TextColumn("{task.description}", markup=False),
                rich.progress.MofNCompleteColumn(),
                rich.progress.TimeRemainingColumn(),
                rich.progress.TextColumn("{task.fields[metrics]}", markup=False),
            ]
            if not curves:  # Sparklines need the room of the bar.
                columns.insert(1, rich.progress.BarColumn())
            self._bar = rich.progress.Progress(
                *columns, console=self._console, refresh_per_second=2
            )
            self._task = self._bar.add_task(title, total=num_steps, completed=step, metrics="")
            self._bar.start()

    def update(self, step: int, metrics: Mapping[str, float]) -> None:
        """Shows the metrics after `step` updates."""
        for name, values in self._curves.items():
            if name in metrics:
                values.append(metrics[name])
        shown = "  ".join(self._shown(name, value) for name, value in metrics.items())
        if self._bar is not None:
            self._bar.update(self._task, completed=step, metrics=shown)
            return
        now = time.monotonic()
        if now - self._printed < SECONDS_BETWEEN_LINES and step < self._num_steps:
            return
        self._printed = now
        rate = (step - self._first) / max(now - self._start, 1e-9)
        left = _duration((self._num_steps - step) / rate) if rate else "?"
        self.say(f"{self._title}: step {step}/{self._num_steps}, {left} left  {shown}")

    def _shown(self, name: str, value: float) -> str:
        if len(values := self._curves.get(name, ())) < 2:
            return f"{name} {value:.4g}"
        room = MOST_WIDTH
        if self._bar is not None:
            texts = sum(len(each) + 8 for each in self._curves)
            room = (self._console.width - OTHER_WIDTH - texts) // len(self._curves)
        width = max(4, min(MOST_WIDTH, room))
        return f"{name} {sparkline(values, width, self._blocks)} {value:.3g}"

    def say(self, line: str) -> None:
        """Prints a line of its own."""
        self._console.print(line, markup=False)

    def close(self) -> None:
        """Stops the live line and gives the terminal back."""
        if self._bar is not None:
            self._bar.stop()


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
