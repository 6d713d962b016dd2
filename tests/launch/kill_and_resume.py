"""Kills trainings of every kind at random moments and compares what they end with.

    python -m tests.launch.kill_and_resume --kills=50

Each job is run once undisturbed. Then it is started, killed by SIGKILL, SIGTERM, SIGINT or two
SIGINTs at a random moment, started again, and so on; when it has been killed a few times it is left
to end. Its weights, samples, labels, measurements and logs (but times) must be those of the
undisturbed run, bit for bit; exit codes must be those of `launch.parts.endings`; and no process may
be left. Prints a line for each kill and a table; exits 1 where something differed.

Jobs: `rl` (pretraining and RL), `sft`, `verifiers`, `search`, `distill` (all its arms).
"""

import argparse
import collections
import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from safetensors.numpy import load_file

from launch import run_make_checkpoint
from launch.parts.endings import RUN_AGAIN
from launch.parts.lock import LOCK_FILE
from reasoning.response import tagged
from reasoning.tasks import get_task
from reasoning.tiny_world import domains
from reasoning.tiny_world.language import LANGUAGES

ROOT = Path(__file__).parents[2]
KILLS = ("SIGKILL", "SIGTERM", "SIGINT", "two SIGINTs")
# Kills of a workdir before it is left to end.
CHAIN = 4
LIMIT_SECONDS = 900
REWARD = """
def spread(prompt, completion, problem):
    return sum(completion.encode()) % 7 / 6
"""


@dataclasses.dataclass(frozen=True)
class Job:
    """A command line without its workdir, and what its workdir holds at the start."""

    command: tuple[str, ...]
    start: Path | None = None


@dataclasses.dataclass
class Outcome:
    """What became of one job's kills."""

    kills: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    compared: int = 0
    files: int = 0
    faults: list[str] = dataclasses.field(default_factory=list)


def recipe(folder: Path, stages: str) -> tuple[str, ...]:
    """`launch.run_r1` on a model of one layer that learns from each sample's bytes."""
    reward = folder / "my_rewards.py"
    reward.write_text(REWARD)
    changes = {
        "model.num_layers": 1, "model.scan_unroll": 1, "pretrain.documents": 700,
        "pretrain.checkpoint_every": 5, "evaluation.problems": 4, "r1_zero.steps": 12,
        "r1_zero.checkpoint_every": 2, "r1_zero.sample_every": 4,
        "r1_zero.rewards": f"format=0.2,{reward}:spread",
    }  # fmt: skip
    line = ["launch.run_r1", "--config=configs/tiny.py:smoke", f"--stages={stages}"]
    return (*line, *(f"--config.{name}={value}" for name, value in changes.items()))


def taught(folder: Path) -> str:
    """Writes worked solutions for the students of a distillation.

    The recipe's small model gives no response that a student may imitate.
    """
    path, rng = folder / "worked.jsonl", random.Random(0)
    problems = get_task("tiny_math").problems("train", 64, seed=0)
    with open(path, "w", encoding="utf-8") as file:
        for problem in problems:
            language = LANGUAGES[problem.metadata["language"]]
            *lines, answer = domains.solution_lines(problem, [language], rng)
            turns = (("user", problem.question), ("assistant", tagged(lines, answer).strip()))
            messages = [{"role": role, "content": text} for role, text in turns]
            file.write(json.dumps({"messages": messages}) + "\n")
    return f"--config.distill.data.responses={path}"


def fine_tuning(folder: Path) -> tuple[str, ...]:
    """`launch.run_sft` of a tiny checkpoint on its own chats."""
    return (
        "launch.run_sft", "--config=configs/sft.py:tiny", f"--config.model={folder / 'tiny/model'}",
        f"--config.data={folder / 'tiny/sft.jsonl'}", "--config.rows=4", "--config.num_epochs=4",
        "--config.checkpoint_every=3", "--config.log_every=1",
    )  # fmt: skip


def make_tiny(folder: Path) -> None:
    """A random checkpoint and chats for `fine_tuning`."""
    problems = folder / "own.jsonl"
    records = [{"prompt": f"{a} + {b} =", "answer": a + b} for a in range(10) for b in range(10)]
    problems.write_text("".join(json.dumps(record) + "\n" for record in records))
    run_make_checkpoint.make_checkpoint(
        folder / "tiny",
        get_task(f"jsonl:{problems}").problems("train", None, 0),
        well_formed=0.3,
        vocab_size=320,
        width=16,
        layers=1,
        seed=0,
    )


def environment(folder: Path, mark: str = "") -> dict[str, str]:
    return os.environ | {
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
        "KILL_AND_RESUME": mark,
    }


class Runner:
    """Runs, kills and compares one job.

    Attributes:
      seconds: that a run takes from its lock to its end, about.
    """

    def __init__(self, name: str, job: Job, folder: Path, rng: random.Random):
        self.name, self.job, self.folder, self.rng = name, job, folder, rng
        self.outcome = Outcome()
        self.whole = self._fresh("whole")
        code, self.seconds = self._run(self.whole, None)
        if code != 0:
            raise RuntimeError(f"{name}: the undisturbed run ended with {code}\n{self._log()}")

    def chain(self, kills: list[str]) -> None:
        """Kills a fresh run so many times, lets it end, and compares."""
        workdir, left = self._fresh("killed"), self.seconds
        for kill in kills:
            code, seconds = self._run(workdir, kill, self.rng.uniform(0, 0.6 * left))
            left = max(self.seconds / 5, left - seconds)
            allowed = {-signal.SIGKILL} if kill == "SIGKILL" else {RUN_AGAIN}
            told = f"{self.name}: {kill} after {seconds:.1f} s, exit code {code}"
            print(told, flush=True)
            if code == 0:  # It was faster than the kill, as on a machine that is less busy now.
                self.seconds = max(1.0, 0.7 * self.seconds)
                break
            self.outcome.kills[kill] += 1
            if code not in allowed:
                self._fault(f"{told}\n{self._log()}")
        else:
            code, _ = self._run(workdir, None)
            if code != 0:
                self._fault(f"{self.name}: the resumed run ended with {code}\n{self._log()}")
                return
        self.outcome.compared += 1
        for fault in self._differences(workdir):
            self._fault(f"{self.name}, killed by {', '.join(kills)}: {fault}")

    def _fault(self, fault: str) -> None:
        print(f"FAULT {fault}", flush=True)
        self.outcome.faults.append(fault)

    def _fresh(self, what: str) -> Path:
        workdir = self.folder / self.name / what
        shutil.rmtree(workdir, ignore_errors=True)
        if self.job.start is not None:
            shutil.copytree(self.job.start, workdir)
        return workdir

    def _log(self) -> str:
        return (self.folder / f"{self.name}.log").read_text(errors="replace")[-3000:]

    def _run(self, workdir: Path, kill: str | None, delay: float = 0.0) -> tuple[int, float]:
        """Exit code, and seconds from the run's lock to its end or to the kill, after `delay`."""
        mark = uuid.uuid4().hex
        with open(self.folder / f"{self.name}.log", "w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *self.job.command, f"--workdir={workdir}"],
                cwd=ROOT, env=environment(self.folder, mark), stdout=log, stderr=log,
            )  # fmt: skip
            begun = self._wait_for_lock(process, workdir)
            if kill is not None:
                moment = time.monotonic() + delay
                while process.poll() is None and time.monotonic() < moment:
                    time.sleep(0.01)
                self._kill(process, kill)
            killed = time.monotonic()
            process.wait(timeout=LIMIT_SECONDS)
        ended = killed if kill is not None else time.monotonic()
        self._expect_no_process(mark, kill)
        return process.returncode, ended - begun

    def _kill(self, process: subprocess.Popen, kill: str) -> None:
        if process.poll() is not None:
            return
        if kill != "two SIGINTs":
            process.send_signal(getattr(signal, kill))
            return
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            second = time.monotonic()
            process.wait(timeout=LIMIT_SECONDS)
            late = time.monotonic() - second
            if late > 5 and process.returncode != 0:  # 0: it was complete, and ending anyway.
                self._fault(f"{self.name}: it lived {late:.1f} s after a second SIGINT")

    def _wait_for_lock(self, process: subprocess.Popen, workdir: Path) -> float:
        """Once it holds its workdir it is past its imports, and answers to signals."""
        path = workdir / LOCK_FILE
        while process.poll() is None:
            try:
                if json.loads(path.read_text())["pid"] == process.pid:
                    break
            except (OSError, ValueError):
                pass
            time.sleep(0.01)
        return time.monotonic()

    def _expect_no_process(self, mark: str, kill: str | None) -> None:
        patience = time.monotonic() + 10
        while left := list(_marked(mark)):
            if time.monotonic() > patience:
                self._fault(f"{self.name}: after {kill} these processes were left: {left}")
                return
            time.sleep(0.1)

    def _differences(self, workdir: Path) -> Iterator[str]:
        expected = {p.relative_to(self.whole) for p in _results(self.whole)}
        found = {p.relative_to(workdir) for p in _results(workdir)}
        if expected != found:
            yield f"files differ: {sorted(map(str, expected ^ found))}"
        for name in sorted(expected & found):
            self.outcome.files += 1
            if not _same(self.whole / name, workdir / name):
                yield f"{name} differs"


def _marked(mark: str) -> Iterator[int]:
    """Living processes that were started with this mark in their environment."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (entry / "environ").read_bytes():
                yield int(entry.name)
        except OSError:
            continue


def _results(workdir: Path) -> list[Path]:
    kept = [*workdir.rglob("*.safetensors"), *workdir.rglob("*.jsonl"), *workdir.rglob("*.npz")]
    return [path for path in kept if path.is_file()]


def _same(one: Path, other: Path) -> bool:
    if one.suffix == ".safetensors":
        first, second = load_file(one), load_file(other)
        return first.keys() == second.keys() and all(
            first[name].tobytes() == second[name].tobytes() for name in first
        )
    if one.suffix != ".jsonl":
        return one.read_bytes() == other.read_bytes()
    return _timeless(one) == _timeless(other)


def _timeless(path: Path) -> list[dict]:
    return [
        {k: v for k, v in json.loads(line).items() if "second" not in k}
        for line in path.read_text().splitlines()
    ]


def run(jobs: list[str], kills: int, seed: int, folder: Path) -> dict[str, Outcome]:
    """Kills each job its share of `kills`."""
    rng = random.Random(seed)
    known: dict[str, Job] = {}
    if "sft" in jobs:
        make_tiny(folder)
        known["sft"] = Job(fine_tuning(folder))
    outcomes: dict[str, Outcome] = {}
    # The later ones start from what the undisturbed run of the one before has left.
    trained = None
    for name in ("sft", "rl", "verifiers", "search", "distill"):
        stages = {"rl": "base,r1_zero"}.get(name, name)
        needed = {"rl": {"verifiers", "search", "distill"}, "verifiers": {"search"}}
        if name not in jobs and not needed.get(name, set()) & set(jobs):
            continue
        command = recipe(folder, stages)
        if name == "distill":
            command = (*command, taught(folder))
        job = known.get(name) or Job(command, trained)
        runner = Runner(name, job, folder, rng)
        print(f"{name}: undisturbed, {runner.seconds:.1f} s", flush=True)
        if name in ("rl", "verifiers"):
            trained = runner.whole
        if name not in jobs:
            continue
        share = kills // len(jobs) + (jobs.index(name) < kills % len(jobs))
        offset = 0
        while (done := sum(runner.outcome.kills.values())) < share:
            count = min(CHAIN, share - done)
            runner.chain([KILLS[(offset + i) % len(KILLS)] for i in range(count)])
            offset += count
        outcomes[name] = runner.outcome
    return outcomes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", default="rl,sft,verifiers,search,distill")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kill_and_resume.") as folder:
        outcomes = run(options.jobs.split(","), options.kills, options.seed, Path(folder))
    print("\n| job | kills | " + " | ".join(KILLS) + " | ends compared | files | differences |")
    print("|---" * (6 + len(KILLS) - 1) + "|")
    for name, each in outcomes.items():
        counts = " | ".join(str(each.kills[kill]) for kill in KILLS)
        total = sum(each.kills.values())
        print(f"| {name} | {total} | {counts} | {each.compared} | {each.files}"
              f" | {len(each.faults)} |")  # fmt: skip
    return 1 if any(each.faults for each in outcomes.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
