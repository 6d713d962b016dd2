"""Trains as several real processes on this machine and compares with one process.

    python -m tests.launch.several_processes --processes=1,2,4

Every job of N processes has four devices in all (`--devices`), so all have the same mesh. `run_rl`
runs with a KL term and recomputed log-probs, `run_sft` after it. Their final weights and metrics
are compared with those of one process with one device, and with those of one process with the same
mesh. It also counts the calls of the reward, records what processes other than the first write, and
resumes the checkpoint of the last number of processes with each of the others. Prints a table;
exits 1 if something is wrong.

Tolerances. The same mesh gives the same programs, so with two devices everything must be equal bit
for bit: a sum of two has one order. With four devices, the sums over processes and those within a
process add in different orders. Meshes of different sizes differ in such orders too. Adam divides
by a gradient's size, so these differences reach the weights as a share of the learning rate of
0.01: `TOLERANCE`.
"""

import argparse
import collections
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from tests.launch.kill_and_resume import environment, make_tiny

ROOT = Path(__file__).parents[2]
TOLERANCE = 1e-4
PROMPTS, GROUP, STEPS, EVALUATED = 4, 4, 3, 4
# XLA's CPU backend divides long sums among its threads, so each process gets the same number.
THREADS = 8
# Appends a line for each call. The reward must not change, so it is a function of the text alone.
REWARD = """
import os
def spread(prompt, completion, problem):
    line = f"{{len(prompt)}} {{completion!r}}\\n".encode()
    file = os.open({calls!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line)
    os.close(file)
    return sum(completion.encode()) % 7 / 6
"""
# Runs a module and records the files that Python opens for writing, makes, renames and removes.
# RUN_FIRST is code to be run before it.
RECORDER = """
import os, runpy, sys
log, name = sys.argv[1:3]
log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def record(event, arguments):
    if event == "open":
        path, _, flags = arguments
        writes = (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    elif event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir"):
        path, writes = arguments[0], True
    else:
        return
    if writes and isinstance(path, (str, bytes, os.PathLike)):
        os.write(log, os.fsencode(path) + b"\\n")
sys.addaudithook(record)
exec(os.environ.get("RUN_FIRST", ""))
sys.argv = sys.argv[2:]
runpy.run_module(name, run_name="__main__", alter_sys=True)
"""


def rl(folder: Path, calls: Path, **changes: object) -> tuple[str, ...]:
    """Returns the command line of RL whose reward adds a line to `calls` at each call."""
    reward = calls.with_suffix(".py")
    reward.write_text(REWARD.format(calls=str(calls)))
    fields = {
        "model": folder / "tiny/model", "task": f"jsonl:{folder / 'own.jsonl'}",
        "rewards": f"{reward}:spread", "loss.beta": 0.05, "recompute_old": True,
        "prompts": PROMPTS, "group": GROUP, "steps": STEPS, "rows": 16, "microbatches": 2,
        "max_prompt_tokens": 128, "max_new_tokens": 12, "sampler_rows": 16,
        "evaluation.rows": 16, "evaluation.problems": EVALUATED,
        "evaluation.problems_during": EVALUATED,
        "sample_every": 1, "checkpoint_every": 1, "evaluate_every": 100,
        "optimizer.learning_rate": 1e-2,
    }  # fmt: skip
    line = ["launch.run_rl", "--config=configs/gsm8k_grpo.py:tiny"]
    return (*line, *(f"--config.{name}={value}" for name, value in (fields | changes).items()))


def sft(folder: Path, **changes: object) -> tuple[str, ...]:
    """Returns the command line of a fine-tuning."""
    fields = {
        "model": folder / "tiny/model", "data": folder / "tiny/sft.jsonl", "rows": 4,
        "microbatches": 1, "checkpoint_every": 3, "log_every": 1,
    }  # fmt: skip
    line = ["launch.run_sft", "--config=configs/sft.py:tiny"]
    return (*line, *(f"--config.{name}={value}" for name, value in (fields | changes).items()))


def start(
    folder: Path,
    command: Sequence[str],
    workdir: Path,
    processes: int,
    devices: int,
    variables: Sequence[Mapping[str, str]] = (),
) -> list[subprocess.Popen[str]]:
    """Starts the processes of a job with `devices` in all; each logs to `WORKDIR.RANK.log`.

    Args:
      folder: keeps compiled programs.
      command: module and flags, without the workdir.
      workdir: the job's workdir.
      processes: how many processes.
      devices: how many devices they have together.
      variables: of each process's environment, where they differ.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = []
    for rank in range(processes):
        env = environment(folder)
        env["NPROC"] = str(THREADS)
        env["XLA_FLAGS"] += f" --xla_force_host_platform_device_count={devices // processes}"
        if processes > 1:
            env |= {
                "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
                "JAX_NUM_PROCESSES": str(processes),
                "JAX_PROCESS_ID": str(rank),
            }
        if variables:
            env |= variables[rank]
        written = workdir.with_name(f"{workdir.name}.{rank}.written")
        line = [sys.executable, "-c", RECORDER, written, *command, f"--workdir={workdir}"]
        with open(log_of(workdir, rank), "a") as log:
            started.append(
                subprocess.Popen(line, cwd=ROOT, env=env, stdout=log, stderr=log, text=True)
            )
    return started


def log_of(workdir: Path, rank: int) -> Path:
    """Returns the file with the output of one process."""
    return workdir.with_name(f"{workdir.name}.{rank}.log")


def finish(jobs: Sequence[subprocess.Popen[str]], timeout: float = 300) -> list[int]:
    """Waits for all processes and returns their exit codes; kills them after `timeout` seconds."""
    end = time.monotonic() + timeout
    try:
        return [job.wait(max(0.1, end - time.monotonic())) for job in jobs]
    finally:
        for job in jobs:
            job.kill()


def train(
    folder: Path,
    command: Sequence[str],
    workdir: Path,
    processes: int,
    devices: int,
    timeout: float = 300,
) -> None:
    """Runs a job to its end, or for `timeout` seconds.

    Raises:
      RuntimeError: a process failed; the message has the end of its output.
    """
    codes = finish(start(folder, command, workdir, processes, devices), timeout)
    for rank, code in enumerate(codes):
        if code != 0:
            told = log_of(workdir, rank).read_text()[-3000:]
            raise RuntimeError(f"process {rank} of {processes} ended with {code}:\n{told}")


def weights(workdir: Path, stage: str) -> dict[str, np.ndarray]:
    """Returns the exported weights of a stage."""
    found: dict[str, np.ndarray] = {}
    for path in sorted((workdir / stage / "hf").glob("*.safetensors")):
        found |= load_file(path)
    return found


def largest_difference(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> float:
    """Returns the largest difference of any weight; 0.0 only if all bits are equal."""
    assert one.keys() == other.keys()
    return max(
        0.0 if one[name].tobytes() == other[name].tobytes()
        else max(float(np.abs(one[name] - other[name]).max()), 5e-324)
        for name in one
    )  # fmt: skip


def metrics(workdir: Path, stage: str) -> list[dict[str, float]]:
    """Returns the metrics of a training, without times."""
    return records(workdir / stage / "metrics.jsonl")


def records(path: Path) -> list[dict[str, float]]:
    """Returns the lines of a JSON Lines file, without times."""
    lines = path.read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if "second" not in k} for line in lines]


def written_by_others(workdir: Path, processes: int) -> list[str]:
    """Returns files that processes other than the first wrote, apart from checkpoints' shards.

    All processes write into a checkpoint, each its own devices' part; `.lock` of JAX's cache of
    compiled programs lies outside of the workdir.
    """
    found: set[str] = set()
    for rank in range(1, processes):
        record = workdir.with_name(f"{workdir.name}.{rank}.written")
        for line in record.read_text(errors="replace").splitlines():
            path = Path(line)
            if workdir in path.parents and not {"checkpoints", "reference"} & set(path.parts):
                found.add(str(path.relative_to(workdir)))
    return sorted(found)


def count_calls(calls: Path) -> collections.Counter[str]:
    """Returns how often each completion was rewarded."""
    return collections.Counter(calls.read_text().splitlines())


def compare(folder: Path, numbers: Sequence[int], devices: int) -> Iterator[str]:
    """Trains with each number of processes; yields what is wrong, and prints the figures."""
    jobs = {"one": (1, 1), **{f"p{n}": (n, devices) for n in sorted({1, *numbers})}}
    for stage in ("rl", "sft"):
        for name, (processes, count) in jobs.items():
            workdir = folder / f"{stage}_{name}"
            calls = folder / f"calls_{name}.txt"
            command = rl(folder, calls) if stage == "rl" else sft(folder)
            begun = time.monotonic()
            train(folder, command, workdir, processes, count)
            seconds = time.monotonic() - begun
            mine = weights(workdir, stage)
            to_one = largest_difference(mine, weights(folder / f"{stage}_one", stage))
            told = f"{stage} {processes}x{count // processes}: {seconds:.0f} s, from one device"
            told += f" {to_one:.2g}"
            if to_one > TOLERANCE:
                yield f"{told}: more than {TOLERANCE}"
            if count == devices:
                to_mesh = largest_difference(mine, weights(folder / f"{stage}_p1", stage))
                told += f", from one process with this mesh {to_mesh:.2g}"
                if to_mesh > (0 if devices == 2 else TOLERANCE):
                    yield f"{told}: too much"
            if others := written_by_others(workdir, processes):
                yield f"{told}: other processes write {others}"
            if stage == "rl":
                made = sum(count_calls(calls).values())
                expected = expected_calls(processes)
                told += f", {made} calls of the reward"
                if made != expected:
                    yield f"{told} instead of {expected}"
            print(told, flush=True)
    last = max(numbers)
    for number in sorted({1, *numbers} - {last}):
        yield from resume(folder, last, number, devices)


def expected_calls(processes: int, evaluated: int = EVALUATED) -> int:
    """Returns the calls of the reward in a run of `rl`.

    Each process tries the reward on two completions. Each completion of a rollout has one call, and
    so has each of the `evaluated` responses of the evaluations before, at the last step and after.
    """
    return 2 * processes + STEPS * PROMPTS * GROUP + 3 * evaluated


def resume(folder: Path, before: int, after: int, devices: int) -> Iterator[str]:
    """Resumes a checkpoint with another number of processes; yields what is wrong."""
    whole = folder / f"rl_p{before}"
    workdir = folder / f"resumed_{before}_{after}"
    shutil.copytree(whole, workdir)
    shutil.rmtree(workdir / "rl" / "hf")
    (workdir / "rl" / "result.json").unlink()
    last = max(int(p.name) for p in (workdir / "rl/checkpoints").iterdir() if p.name.isdecimal())
    command = rl(folder, folder / f"calls_p{before}.txt")
    train(folder, command, workdir, after, devices)
    exact = largest_difference(weights(workdir, "rl"), weights(whole, "rl"))
    told = f"checkpoint of {before} processes, step {last}, restored by {after}: {exact:.2g}"
    if exact:
        yield f"{told}: must be equal"
    print(told, flush=True)
    # One step back, so that the run goes on.
    shutil.rmtree(workdir / "rl" / "hf")
    (workdir / "rl" / "result.json").unlink()
    shutil.rmtree(workdir / "rl" / "checkpoints" / str(last))
    train(folder, command, workdir, after, devices)
    further = largest_difference(weights(workdir, "rl"), weights(whole, "rl"))
    told = f"the step after that of {before} processes, by {after}: {further:.2g}"
    if further > TOLERANCE:
        yield f"{told}: more than {TOLERANCE}"
    print(told, flush=True)


def main() -> int:
    """Runs everything; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--processes", default="1,2,4")
    parser.add_argument("--devices", type=int, default=4)
    options = parser.parse_args()
    numbers = [int(number) for number in options.processes.split(",")]
    with tempfile.TemporaryDirectory(prefix="several_processes.") as name:
        folder = Path(name)
        make_tiny(folder)
        faults = list(compare(folder, numbers, options.devices))
    for fault in faults:
        print(f"FAULT {fault}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
