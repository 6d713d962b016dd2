"""Tells what a run is about to do, and measures its own steps to tell how long it will take."""

import contextlib
import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from launch.parts import machine
from launch.parts.stages import Workspace
from launch.schema.recipe import RecipeConfig
from launch.schema.rl import RecipeRl
from launch.terminal import estimate
from launch.terminal.estimate import Speed, Work, duration
from models.files import salvage_jsonl
from train.metrics import METRICS_FILE

# A stage has been measured once it has logged so many lines, of so many seconds together. The first
# line is left out, because its step was compiled.
LINES, SECONDS = 4, 5.0
SECONDS_BETWEEN_LOOKS = 1.0


class Following:
    """Keeps the estimate of a run: what is left, at the speed that was measured last.

    Attributes:
      first: seconds that the stages with an estimate were to take, before the first began.
      missing: stages without an estimate.
    """

    def __init__(
        self,
        work: Mapping[str, Work],
        names: Sequence[str],
        directories: Sequence[Path],
        speed: Speed,
    ):
        """Begins before the first stage.

        Args:
          work: stage -> what it computes.
          names: the stages that will run, in order, in each directory.
          directories: of each seed.
          speed: as the probe has measured it.
        """
        self._work, self._names, self._directories = work, list(names), list(directories)
        self._speed = speed
        self._left = [(at, name) for at in self._directories for name in self._names]
        self._told: set[tuple[Path, str]] = set()
        self._skip = {each: len(self._records(*each)) for each in self._left}
        self.first, self.missing = estimate.total(work, names, speed, len(self._directories))

    @property
    def estimated(self) -> float | None:
        """Returns the first estimate of the whole run; None if a stage has none."""
        return None if self.missing else self.first

    def look(self) -> str | None:
        """Looks at the logs; returns a line to print if a stage has just been measured."""
        for at, name in self._left:
            if (at, name) in self._told or name not in self._work:
                continue
            records = self._records(at, name)
            # A folder that was set aside, or a log that was cut, begins anew.
            self._skip[at, name] = min(self._skip[at, name], len(records))
            records = records[self._skip[at, name] :]
            seconds, steps = spent(records)
            expected = self._work[name].step
            if len(records) < LINES or seconds < SECONDS or not expected:
                continue
            self._told.add((at, name))
            per_step = seconds / steps
            self._speed = Speed(per_step / expected, self._speed.compile)
            left = self._left_after(at, name, int(records[-1]["step"]))
            return (
                f"{name} takes {per_step:.2f} s an update here: about {duration(left)} left for"
                f" everything, until {time.strftime('%H:%M', time.localtime(time.time() + left))}"
            )
        return None

    def _left_after(self, at: Path, name: str, step: int) -> float:
        """Returns the seconds from a step of a stage to the end of the run."""
        own = self._work[name]
        # The program of the update is compiled by now, and so is that which samples for it.
        begun = Work(max(0, own.steps - step), own.step, own.around, own.compiling / 2)
        later = self._left[self._left.index((at, name)) + 1 :]
        rest = [self._work[each] for _, each in later if each in self._work]
        return sum(work.seconds(self._speed) for work in [begun, *rest])

    def _records(self, at: Path, name: str) -> list[dict[str, Any]]:
        path = at / name / METRICS_FILE
        try:
            return salvage_jsonl(path)[0]
        except OSError:
            return []

    @contextlib.contextmanager
    def telling(self) -> Iterator[None]:
        """Looks at the logs every second while the block runs, and prints what `look` returns."""
        over = threading.Event()

        def repeat() -> None:
            while not over.wait(SECONDS_BETWEEN_LOOKS):
                if (line := self.look()) is not None:
                    print(line, flush=True)

        thread = threading.Thread(target=repeat, name="estimate", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def begin(config: RecipeConfig, works: Sequence[Workspace], names: Sequence[str]) -> Following:
    """Measures this machine and returns the estimate of a run.

    Args:
      config: the recipe.
      works: one for each seed.
      names: the stages that will run.
    """
    parameters = sum(math.prod(x.shape) for x in jax.tree.leaves(works[0].model.abstract_params))
    speed = estimate.probe() if names else Speed()
    work = estimate.estimate(config, parameters)
    return Following(work, names, [each.directory for each in works], speed)


def spent(records: Sequence[Mapping[str, Any]]) -> tuple[float, int]:
    """Returns seconds and updates of metric records, those of the first line left out.

    A line of RL is one iteration, which may take several updates. Lines of other trainings hold the
    mean seconds of the updates since the last line.
    """
    seconds, steps = 0.0, 0
    for before, record in zip(records, records[1:]):
        taken = int(record["step"]) - int(before["step"])
        own = (record.get("seconds/source") or 0.0) + (record.get("seconds/train") or 0.0)
        seconds += own * (1 if "seconds/sample" in record else taken)
        steps += taken
    return seconds, steps


def introduction(
    config: RecipeConfig,
    following: Following,
    waiting: Sequence[str],
    complete: Sequence[str],
    workdir: Path,
) -> list[str]:
    """Returns the lines that tell what the run is about to do and how long it takes.

    Args:
      config: the recipe.
      following: its estimate.
      waiting: stages that will run.
      complete: stages that are taken from disk.
      workdir: the run's folder.
    """
    about = machine.describe()
    lines = [f"On {about['processor']}, {about['cores']} cores:"]
    lines += [f"  {name}: its result is on disk already" for name in complete]
    lines += [f"  {name}: {what(config, name)}" for name in waiting]
    if waiting and len(following.missing) < len(waiting):
        untold = f", without {', '.join(following.missing)}" if following.missing else ""
        lines.append(
            f"This takes about {duration(following.first)}{untold}: so a short measurement on this"
            " machine says. The first stage that trains will say it more exactly."
        )
    elif waiting:
        lines.append(f"There is no estimate for {', '.join(waiting)}.")
    lines.append(
        f"Watch it in a browser: {workdir / 'report.html'}. Ctrl-C stops it, and the same command"
        " goes on from there."
    )
    return lines


def what(config: RecipeConfig, name: str) -> str:
    """Says in a line what a stage does, with the sizes of its config."""
    tested = f"then answers test problems of {', '.join(config.evaluation.tasks)}"

    def rl(own: RecipeRl) -> str:
        steps = own.num_steps(estimate.asked(own.problems))
        responses = f"{own.prompts * own.group} responses to {own.prompts} problems"
        return f"{steps} updates of RL, each on {responses}; {tested}"

    def base() -> str:
        if (own := getattr(config, "pretrain", None)) is None:
            return f"takes the checkpoint {getattr(config, 'model', '')}; {tested}"
        return f"trains a language model from scratch on {own.documents:,} pages; {tested}"

    told = {
        "base": base,
        "r1_zero": lambda: f"teaches it to reason by {rl(config.r1_zero)}",
        "cold_start": lambda: f"trains the base anew on R1-Zero's readable chains; {tested}",
        "reasoning_rl": lambda: rl(config.reasoning_rl),
        "rejection_sft": lambda: f"trains the base anew on the best responses so far; {tested}",
        "r1": lambda: (
            "reward models for what rules cannot judge; " * config.r1.prefers + rl(config.r1.rl)
        ),
        "verifiers": lambda: f"trains verifiers on solutions of the model {config.reasoner}",
        "search": lambda: (
            f"compares search methods with up to {max(config.search.budgets)} responses on"
            f" {config.search.problems} problems"
        ),
        "distill": lambda: f"teaches a smaller student what the model {config.reasoner} does",
    }
    return told[name]() if name in told else "runs"
