"""Shows the progress of a run and its remaining time: a bar on a terminal, else plain lines."""

import time
from collections.abc import Mapping

import jax
import rich.console
import rich.progress

# Plain lines go to logs, so they come no more often than this.
SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Shows steps done, time left and some metrics; only process 0 of a job shows anything."""

    def __init__(self, title: str, num_steps: int, step: int):
        """Starts the display.

        Args:
          title: the name of the run.
          num_steps: updates of the whole run.
          step: updates taken before, by the run that this one resumes.
        """
        self._title, self._num_steps, self._first = title, num_steps, step
        self._start, self._printed = time.monotonic(), -float("inf")
        self._console = rich.console.Console(
            stderr=True, quiet=jax.process_index() != 0, highlight=False, soft_wrap=True
        )
        self._bar = None
        if self._console.is_terminal:
            self._bar = rich.progress.Progress(
                "{task.description}",
                rich.progress.BarColumn(),
                rich.progress.MofNCompleteColumn(),
                rich.progress.TimeElapsedColumn(),
                rich.progress.TimeRemainingColumn(),
                "{task.fields[metrics]}",
                console=self._console,
                refresh_per_second=2,
            )
            self._task = self._bar.add_task(title, total=num_steps, completed=step, metrics="")
            self._bar.start()

    def update(self, step: int, metrics: Mapping[str, float]) -> None:
        """Shows the metrics after `step` updates."""
        shown = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
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

    def say(self, line: str) -> None:
        """Prints a line of its own."""
        self._console.print(line, markup=False)

    def close(self) -> None:
        """Stops the bar and gives the terminal back."""
        if self._bar is not None:
            self._bar.stop()


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
