"""Draws what the trainings of a run logged: learning curves, response lengths, and time spent."""

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from launch.report import charts
from launch.report.charts import Figure, Point, Series
from launch.report.figures import Axis, Panel
from launch.report.sources import Run, Training, settings_of
from reasoning.statistics import mean_with_ci

# (pattern, title, unit, scale); charts come in this order. Other metrics are in metrics.jsonl.
CURVES = (
    ("reward", "Reward", "mean reward", 1),
    ("accuracy", "Accuracy on training problems", "%", 100),
    ("test/*", "Held-out {}", "", 1),
    ("response_tokens", "Response length", "tokens", 1),
    ("loss", "Loss", "nats a token", 1),
    ("agreement", "Agreement with the labels", "%", 100),
    ("reference_kl", "KL to the reference", "nats a token", 1),
    ("old_kl", "KL to the behaviour policy", "nats a token", 1),
    ("entropy", "Entropy of the policy", "nats a token", 1),
    ("format", "Responses in the right format", "%", 100),
    ("language", "Reward for one language", "mean reward", 1),
    ("truncated", "Responses cut at the limit", "%", 100),
    ("zero_advantage_groups", "Groups without a signal", "%", 100),
    ("grad_norm", "Gradient norm", "norm", 1),
)
# From so many logged steps on, a curve is drawn as a running mean over a share of them.
SMOOTHED_FROM, SMOOTHED_SHARE = 24, 0.08
# Shares are in percent, and these are not.
_NOT_SHARES = ("response_tokens", "reward/*")
# (metric, label, unit, scale) of the picture of an RL training.
PLOTTED = (
    ("reward", "reward", "mean of a response", 1),
    ("accuracy", "accuracy on training problems", "%", 100),
    ("response_tokens", "response length", "tokens", 1),
)
_PARTS = ("sampling", "rewards", "preparing batches", "waiting for data", "training")


def curves(run: Run) -> list[tuple[str, list[Figure]]]:
    """Returns the learning curves of each stage that trained, with a line for each seed."""
    found = []
    for stage in dict.fromkeys(each.stage for each in run.trainings):
        trainings = [each for each in run.trainings if each.stage == stage]
        figures = [
            figure
            for name, title, unit, scale in wanted(trainings)
            if (figure := curve(title, name, unit, scale, _labelled(trainings))) is not None
        ]
        if figures:
            found.append((stage, figures))
    return found


def wanted(trainings: Sequence[Training]) -> Iterator[tuple[str, str, str, float]]:
    """Yields (metric, title, unit, scale) of each curve that the trainings have values for."""
    names = list(
        dict.fromkeys(
            name
            for training in trainings
            for record in training.records
            for name, value in record.items()
            if charts.finite(value)
        )
    )
    for pattern, title, unit, scale in CURVES:
        for name in fnmatch.filter(names, pattern):
            if pattern != "test/*":
                yield name, title, unit, scale
                continue
            metric = name.removeprefix("test/")
            unit, scale = "%", 100
            if any(fnmatch.fnmatch(metric, each) for each in _NOT_SHARES):
                unit, scale = ("tokens" if metric == "response_tokens" else "mean reward"), 1
            yield name, title.format(metric), unit, scale


def curve(
    title: str,
    metric: str,
    unit: str,
    scale: float,
    trainings: Sequence[tuple[str, Training, int]],
) -> Figure | None:
    """Draws a metric over steps, with a line for each of (name, training, colour)."""
    series, note = curve_series(metric, scale, trainings)
    return charts.chart(title, "step (updates)", unit, series, note=note)


def curve_series(
    metric: str, scale: float, trainings: Sequence[tuple[str, Training, int]]
) -> tuple[list[Series], str]:
    """Returns the lines of a metric over steps, and a note on n and intervals.

    Long curves are running means with their 95 % interval, over a faint line of what was logged.

    Args:
      metric: its name in metrics.jsonl.
      scale: factor of its values.
      trainings: (name, training, colour) of each line.
    """
    series, window, sizes = [], 1, set()
    for name, training, colour in trainings:
        records = [r for r in training.records if charts.finite(r.get(metric))]
        values = [scale * r[metric] for r in records]
        steps = [r.get("step", i + 1) for i, r in enumerate(records)]
        raw = [Point(step, value) for step, value in zip(steps, values)]
        if not metric.startswith("test/"):
            sizes.add(responses_a_step(training))
        if len(raw) < SMOOTHED_FROM:
            series.append(Series(name, raw, colour=colour))
            continue
        window = max(3, round(SMOOTHED_SHARE * len(raw)))
        series.append(Series(f"{name}, as logged", raw, colour=colour, faint=True))
        series.append(Series(name, _running_mean(steps, values, window), colour=colour))
    return series, _note(metric, window, sizes, len(trainings))


def rl_panels(trainings: Sequence[tuple[str, Training, int]]) -> list[Panel]:
    """Returns diagrams of reward, accuracy and response length over the steps of RL.

    Lines are running means with their 95 % interval, over a faint line of what was logged.
    """
    panels = []
    for metric, label, unit, scale in PLOTTED:
        series, window = [], 1
        for name, training, colour in trainings:
            records = [r for r in training.records if charts.finite(r.get(metric))]
            values = [scale * r[metric] for r in records]
            steps = [r.get("step", i + 1) for i, r in enumerate(records)]
            window = max(3, round(SMOOTHED_SHARE * len(records)))
            raw = [Point(step, value) for step, value in zip(steps, values)]
            series.append(Series(name, raw, colour=colour, faint=True))
            means = _running_mean(steps, values, min(window, len(values)))
            series.append(Series(name, means, colour=colour))
        if any(each.points for each in series):
            sizes = {responses_a_step(training) for _, training, _ in trainings}
            size = sizes.pop() if len(sizes) == 1 else None
            n = f"n = {size} responses a step" if size else f"n = {len(trainings)} runs"
            note = f"{n}; line: mean of {window} steps, band: its 95 % interval"
            bounds = (0.0, 100.0) if unit == "%" else None
            y = Axis(label, unit, bounds=bounds)
            panels.append(Panel(Axis("training", "updates"), y, series, note))
    return panels


def responses_a_step(training: Training) -> int | None:
    """Returns the number of responses that each step of an RL training samples; None if unknown."""
    settings = settings_of(training)
    prompts, group = settings.get("prompts"), settings.get("group")
    if isinstance(prompts, int) and isinstance(group, int):
        return prompts * group
    return None


def lengths(run: Run) -> list[Figure]:
    """Returns how the length of responses grew: over the steps of RL, and from stage to stage."""
    figures = []
    trainings = [
        each
        for each in run.trainings
        if any(charts.finite(record.get("response_tokens")) for record in each.records)
    ]
    labelled = [
        (each.stage + (f", {_seed(each)}" if len(_seeds(trainings)) > 1 else ""), each, i)
        for i, each in enumerate(trainings)
    ]
    title = "Response length while training"
    figures.append(curve(title, "response_tokens", "tokens a response", 1, labelled))
    if len(run.stages) > 1:
        rows = [
            (name, (stage.get("metrics") or {}).get("response_tokens"))
            for name, stage in run.stages.items()
        ]
        note = "Bars are 95 % intervals."
        figures.append(
            charts.dots("Response length after each stage", "tokens a response", rows, note=note)
        )
    return [figure for figure in figures if figure is not None]


def time_spent(run: Run) -> Figure | None:
    """Returns what the seconds of each stage went into, all seeds together."""
    spent: dict[str, dict[str, float]] = {}
    for training in run.trainings:
        stage = training.stage.partition("/")[0]
        own = spent.setdefault(stage, dict.fromkeys(_PARTS, 0.0))
        for part, seconds in seconds_of(training.records).items():
            own[part] += seconds
    rows = []
    for name in dict.fromkeys([*run.stages, *spent]):
        parts = spent.get(name, {})
        whole = (run.stages.get(name) or {}).get("wall_seconds") or 0.0
        rest = max(0.0, whole - sum(parts.values()))
        rows.append((name, [*parts.items(), ("evaluating, compiling, saving", rest)]))
    note = (
        "Seconds of this machine, all seeds together. A stage that was resumed counts the time of"
        " its last command, and its logged steps."
    )
    return charts.bars("Time of each stage", "seconds", rows, note)


def seconds_of(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Returns the seconds that a training's log accounts for, by part."""
    total: dict[str, float] = dict.fromkeys(_PARTS, 0.0)
    before = 0
    for record in records:
        step = record.get("step", before + 1)
        # A line of RL is one iteration, even if it took several updates. Lines of other trainings
        # are means over the iterations since the last line, of one update each.
        count = 1 if "seconds/sample" in record else max(1, step - before)
        before = step
        seconds = {
            name: count * (record.get(f"seconds/{name}") or 0.0)
            for name in ("sample", "reward", "prepare", "source", "train")
        }
        inside = seconds["sample"] + seconds["reward"] + seconds["prepare"]
        if inside > seconds["source"] > 0:  # Sampling went on beside the update.
            scale = seconds["source"] / inside
            seconds |= {name: scale * seconds[name] for name in ("sample", "reward", "prepare")}
            inside = seconds["source"]
        waiting = max(0.0, seconds["source"] - inside)
        parts = (seconds["sample"], seconds["reward"], seconds["prepare"], waiting)
        for part, value in zip(_PARTS, (*parts, seconds["train"])):
            total[part] += value
    return total


def _running_mean(steps: Sequence[int], values: Sequence[float], window: int) -> list[Point]:
    points = []
    for i in range(len(values)):
        part = values[max(0, i + 1 - window) : i + 1]
        if len(part) < min(3, window):
            continue
        figure = mean_with_ci(part)
        points.append(Point(steps[i], figure["mean"], *figure["ci95"]))
    return points


def _note(metric: str, window: int, sizes: set[int | None], runs: int) -> str:
    told = []
    if metric.startswith("test/"):
        told.append("On held-out problems, without intervals: the tables of the stages have them.")
    elif len(sizes) == 1 and (n := next(iter(sizes))) is not None and metric != "grad_norm":
        told.append(f"n = {n} responses a step.")
    else:
        told.append(f"n = {runs} training run{'s' if runs > 1 else ''}.")
    if window > 1:
        told.append(
            f"Thick: mean of the last {window} logged steps; band: its 95 % interval, as if steps"
            " were independent. Thin: each logged step."
        )
    return " ".join(told)


def _seeds(trainings: Sequence[Training]) -> set[str]:
    return {each.seed for each in trainings}


def _labelled(trainings: Sequence[Training]) -> list[tuple[str, Training, int]]:
    return [(_seed(each) or each.stage, each, i) for i, each in enumerate(trainings)]


def _seed(training: Training) -> str:
    return training.seed.replace("_", " ")
