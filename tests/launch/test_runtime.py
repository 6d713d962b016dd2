"""What entry points do before JAX starts: the allocator's huge pages, and kept programs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(code, *args, **environment):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("GLIBC_", "JAX_COMP"))}
    command = [sys.executable, "-c", code, *args]
    done = subprocess.run(
        command, cwd=ROOT, env=env | environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]


RESTART = """
import os, sys
from launch.runtime import restart_on_huge_pages
print("start", os.getpid())
restart_on_huge_pages()
print(os.environ["GLIBC_TUNABLES"], os.getpid(), *sys.argv[1:])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's setting")
def test_a_script_restarts_once_as_what_it_was():
    first, second, told = run(RESTART, "--config=x y", "z")
    assert first == second and first.startswith("start ")
    assert told == f"glibc.malloc.hugetlb=1 {first.split()[1]} --config=x y z"


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's setting")
def test_other_settings_of_the_allocator_stay_and_the_users_choice_counts():
    *starts, told = run(RESTART, GLIBC_TUNABLES="glibc.malloc.arena_max=4")
    assert len(starts) == 2
    assert told.split()[0] == "glibc.malloc.arena_max=4:glibc.malloc.hugetlb=1"
    *starts, told = run(RESTART, GLIBC_TUNABLES="glibc.malloc.hugetlb=0")
    assert len(starts) == 1 and told.split()[0] == "glibc.malloc.hugetlb=0"


KEEP = """
import sys, pathlib, jax
from launch import runtime
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
