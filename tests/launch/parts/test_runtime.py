"""What entry points do before JAX starts: memory and programs that are kept."""

import ast
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from launch.parts import runtime

ROOT = Path(__file__).parents[3]


def run(code, *args, **environment):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("GLIBC_", "JAX_COMP"))}
    command = [sys.executable, "-c", code, *args]
    done = subprocess.run(
        command, cwd=ROOT, env=env | environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]


FAULTS = """
import resource, sys
from launch.parts.runtime import prepare_backend
if sys.argv[1] == "kept":
    prepare_backend()
import jax, jax.numpy as jnp
# Each product is a temporary of 64 MiB that cannot be fused away, and the next one needs it. glibc
# maps blocks above 32 MiB anew by default.
def step(x):
    for _ in range(4):
        x = jnp.tanh(x[:, :8] @ x[:8])
    return x.sum()
step, x = jax.jit(step), jnp.ones((4096, 4096))
faults = []
for _ in range(9):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step(x).block_until_ready()
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
# Some of the first steps find holes in the heap that are a few bytes too small.
print(sorted(faults)[4])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc is set")
def test_steps_take_no_memory_anew():
    (default,), (kept,) = run(FAULTS, "default"), run(FAULTS, "kept")
    assert int(default) > 5000 and int(kept) < 100


KEEP = """
import sys, pathlib, jax
from launch.parts import runtime
hits = []
jax.monitoring.register_event_listener(
    lambda name, **kw: hits.append(name) if name.endswith(("cache_hits", "cache_misses")) else None
)
runtime.keep_compiled(pathlib.Path(sys.argv[1]))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.jit(lambda x: x @ x + 1)(jax.numpy.ones((4, 4)))
print(len([h for h in hits if h.endswith("hits")]))
"""


def test_programs_are_compiled_once_for_a_working_directory(tmp_path):
    assert run(KEEP, str(tmp_path)) == ["0"]
    assert list((tmp_path / "compiled").glob("*/*"))
    (hits,) = run(KEEP, str(tmp_path))
    assert int(hits) > 0


def test_programs_are_kept_where_the_user_says(tmp_path):
    run(KEEP, str(tmp_path / "work"), JAX_COMPILATION_CACHE_DIR=str(tmp_path / "own"))
    assert list((tmp_path / "own").iterdir()) and not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("how", "variables", "expected"),
    [
        ("auto", {}, None),
        ("off", {"JAX_COORDINATOR_ADDRESS": "a:1"}, None),
        ("on", {}, {}),
        ("a:1,4,3", {}, ("a:1", 4, 3)),
        (
            "auto",
            {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"},
            ("a:1", 2, 0),
        ),
        ("auto", {"SLURM_NTASKS": "4", "SLURM_PROCID": "1"}, {}),
        ("auto", {"SLURM_NTASKS": "4"}, None),  # A shell within an allocation.
        ("auto", {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, None),
        ("auto", {"OMPI_COMM_WORLD_SIZE": "2"}, {}),
        ("auto", {"TPU_WORKER_HOSTNAMES": "a,b"}, {}),
        ("auto", {"TPU_WORKER_HOSTNAMES": "a"}, None),
    ],
)
def test_processes_of_a_job_are_found(how, variables, expected):
    if isinstance(expected, tuple):
        names = ("coordinator_address", "num_processes", "process_id")
        expected = dict(zip(names, expected))
    assert runtime._distributed_arguments(how, variables) == expected


@pytest.mark.parametrize(
    ("how", "variables", "told"),
    [
        ("auto", {"JAX_COORDINATOR_ADDRESS": "a:1"}, "JAX_NUM_PROCESSES, JAX_PROCESS_ID is not"),
        ("a:1,2", {}, "--distributed=a:1,2: must be auto, on, off or"),
        ("a,2,0", {}, "--distributed=a,2,0: must be"),
        ("a:1,2,2", {}, "processes are numbered from 0 to 1"),
    ],
)
def test_incomplete_processes_are_refused(how, variables, told):
    with pytest.raises(ValueError, match=re.escape(told)):
        runtime._distributed_arguments(how, variables)


ONE = {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_PROCESS_ID": "0"}
PROGRAMS = ("search", "distill", "eval", "router", "teacher")


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_for_one_process_refuse_several_before_anything_else(name):
    """The flags of these modules clash, so that only one can be imported; see the next test."""
    module = ast.parse((ROOT / f"launch/run_{name}.py").read_text())
    (main,) = (each for each in module.body if getattr(each, "name", "") == "main")
    first = [ast.unparse(each) for each in main.body[:3]]
    assert first[1:] == ["del argv", f"runtime.refuse_several('run_{name}')"]


@pytest.mark.parametrize(
    "variables, several",
    [
        ({}, False),
        (ONE | {"JAX_NUM_PROCESSES": "1"}, False),
        (ONE | {"JAX_NUM_PROCESSES": "2"}, True),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "0"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, True),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
    ],
)
def test_a_job_of_several_processes_is_refused_in_one_line(variables, several, monkeypatch):
    for name in list(os.environ):
        if name.startswith(("JAX_COORD", "JAX_NUM", "JAX_PROCESS", "SLURM", "OMPI", "TPU_WORKER")):
            monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if not several:
        runtime.refuse_several("run_eval")
        return
    with pytest.raises(ValueError, match="run_eval runs in one process") as error:
        runtime.refuse_several("run_eval")
    assert "\n" not in str(error.value)
