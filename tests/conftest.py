"""Settings of every test process, made before JAX is imported."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Compilation dominates tests of tiny models; what is compiled once is read back by later runs.
