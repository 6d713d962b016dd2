"""What entry points do before JAX starts: memory and programs that are kept."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

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
# Sixteen temporaries of 4 MiB that cannot be fused away.
step = jax.jit(lambda x: sum(jnp.sort(x * i).sum() for i in range(16)))
x = jnp.ones((16, 65536))
for _ in range(3):
    step(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step(x).block_until_ready()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc is set")
def test_steps_take_no_memory_anew():
    (default,), (kept,) = run(FAULTS, "default"), run(FAULTS, "kept")
    assert int(default) > 5000 and int(kept) < 500


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
