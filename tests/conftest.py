"""Settings of every test process, made before JAX is imported."""

import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Compiling takes far longer than running the tiny models of the tests, so XLA does not optimise
# machine code here. Tests of what optimised code computes start a process without this flag. To run
# everything optimised: XLA_FLAGS= python -m pytest
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
# Processes that tests start, and later runs, read back what was compiled before.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "jax")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
